"""A run: one folder that holds a fitted field and all that came of it.

config.toml  checkpoint.safetensors  log.jsonl  images/  mesh.ply  scene.usdc  eval.json
"""

import json
import math
import shutil
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
import torch

from warpdvr.cameras import paths
from warpdvr.datasets.views import Views
from warpdvr.evaluation.images import evaluate
from warpdvr.fields.base import Field
from warpdvr.fitting import checkpoint
from warpdvr.fitting import log as journal
from warpdvr.fitting.checkpoint import Checkpoint
from warpdvr.fitting.fit import Fit
from warpdvr.fitting.loop import Step
from warpdvr.runs.scene import Scene
from warpdvr.runtime.files import replacing
from warpdvr.runtime.threads import one_thread

REPORTS = 10
"""How often during a fit held-out views are looked at."""

LOOKS = 7
"""At how many of them at most."""

SAVE = 20.0
"""Time after which a fit is saved again [s]."""


@dataclass(frozen=True)
class Run:
    """The folder of a run. Every file in it is replaced at once or not at all."""

    folder: Path

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Return the run in `folder`.

        Raises:
            ValueError: if there is none.
        """
        run = cls(folder)
        if not run.config.is_file():
            found = "a folder without config.toml" if folder.is_dir() else "a file" if folder.exists() else "nothing"
            raise ValueError(f"{folder}: expected the folder of a run, found {found}")
        return run

    @classmethod
    def create(cls, folder: Path, scene: Scene, *, overwrite: bool = False) -> "Run":
        """Make the folder of a new run and write its config.toml.

        Raises:
            ValueError: if the folder already holds a run (unless it may be overwritten), or anything else.
        """
        run = cls(folder)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder}: expected a folder for the run, found a file")
        if run.config.exists():
            if not overwrite:
                raise ValueError(
                    f"{folder}: already holds a run; continue it with --resume, replace it with --overwrite, or choose "
                    "another folder"
                )
            run.scene()  # else it is another program's config.toml, and all that lies beside it
            for path in (run.config, run.checkpoint, run.log, run.mesh, run.usd, run.scores):
                path.unlink(missing_ok=True)
            shutil.rmtree(run.images, ignore_errors=True)
        elif folder.is_dir() and any(folder.iterdir()):
            raise ValueError(f"{folder}: expected a new or empty folder for the run, found other files in it")
        run.images.mkdir(parents=True, exist_ok=True)
        run.keep(scene)
        return run

    def keep(self, scene: Scene) -> None:
        """Write config.toml."""
        with replacing(self.config) as unfinished:
            unfinished.write_bytes(tomli_w.dumps(scene.tables()).encode())

    @property
    def config(self) -> Path:
        return self.folder / "config.toml"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    @property
    def log(self) -> Path:
        return self.folder / "log.jsonl"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def mesh(self) -> Path:
        return self.folder / "mesh.ply"

    @property
    def usd(self) -> Path:
        return self.folder / "scene.usdc"

    @property
    def scores(self) -> Path:
        return self.folder / "eval.json"

    def scene(self) -> Scene:
        """Return the scene that was fitted."""
        try:
            return Scene(**tomllib.loads(self.config.read_text()))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, TypeError) as error:
            raise ValueError(f"{self.config}: expected the tables of a scene, found something else ({error})") from None

    def load(self) -> Checkpoint:
        """Return the last checkpoint."""
        return checkpoint.load(self.checkpoint)

    def field(self, device: torch.device | str = "cpu") -> Field:
        """Return the fitted field, ready to be used on `device`."""
        field: Field = self.load().field().to(device)
        field.bound_slope()  # a fit measures it now and then only
        return field


def fit(run: Run, scene: Scene, views: Views, field: Field, job: Fit) -> Iterator[tuple[Step, str]]:
    """Run a fit; yield every step with a note, which is empty but where the held-out views were looked at.

    The field is saved at the start, every `SAVE` seconds, and at the end, also when the fit is interrupted or fails.
    """
    for stale in (run.mesh, run.usd, run.scores):
        stale.unlink(missing_ok=True)
    journal.truncate(run.log, job.iteration)
    up = paths.upwards(torch.stack([camera.pose for camera in views.cameras]))
    due = math.floor(job.progress * REPORTS) + 1
    some = views.test[:: math.ceil(len(views.test) / LOOKS) or 1]
    note = ""
    try:
        with run.log.open("a") as log:
            _save(run, scene, views, field, job, up)
            saved = time.monotonic()
            for step in job:
                if time.monotonic() - saved > SAVE:
                    _save(run, scene, views, field, job, up)
                    saved = time.monotonic()
                if step.progress * REPORTS >= due:
                    due = math.floor(step.progress * REPORTS) + 1
                    with one_thread():  # as the fit itself
                        scores = evaluate(
                            field, views, some, intersect=job.intersect, longest=200, background=job.background
                        )
                    note = f"held out {scores.psnr:.1f} dB, IoU {scores.iou:.3f}" if scores.views else ""
                    _write(log, step, psnr=scores.psnr, iou=scores.iou)
                elif step.iteration % 20 == 0:
                    _write(log, step)
                yield step, note
    finally:
        _save(run, scene, views, field, job, up)


def _save(run: Run, scene: Scene, views: Views, field: Field, job: Fit, up: tuple[float, float, float]) -> None:
    held = Checkpoint(
        kind=scene.field["kind"],
        options=dict(field.options or scene.options),
        weights=field.state_dict(),
        transform=views.transform,
        up=up,
        cameras=job.cameras,
        fit=job.state(),
    )
    held.save(run.checkpoint)


def _write(log: Any, step: Step, **more: float) -> None:
    row = {"iteration": step.iteration, "progress": step.progress, "seconds": step.seconds} | step.losses | more
    log.write(json.dumps({k: round(v, 6) for k, v in row.items() if math.isfinite(v)}) + "\n")
    log.flush()

"""A run: one folder that holds a fitted field and everything made from it.

config.toml  checkpoint.safetensors  log.jsonl  images/  mesh.ply  scene.usdc  eval.json; during a fit also
checkpoint.previous.safetensors. Where photographs came without masks, masks/ holds those that were derived.
"""

import math
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch

from warpdvr.cameras import paths
from warpdvr.datasets.views import Views
from warpdvr.evaluation.images import evaluate
from warpdvr.fields.base import Field
from warpdvr.fields.registry import portable
from warpdvr.fitting import checkpoint, log
from warpdvr.fitting.checkpoint import Checkpoint
from warpdvr.fitting.fit import Fit
from warpdvr.fitting.loop import Step
from warpdvr.fitting.run_folder import RunFolder
from warpdvr.fitting.saving import SAVE, saved_steps
from warpdvr.runs.scene import Scene, from_tables, read_tables
from warpdvr.runtime.files import make_folder
from warpdvr.runtime.threads import one_thread

REPORTS = 10
"""Number of times that held-out views are scored during a fit."""

REPORT_VIEWS = 7
"""Largest number of held-out views that are scored then."""

LOG = 20
"""Number of steps between two rows of the log."""


@dataclass(frozen=True)
class Run(RunFolder):
    """The folder of the run of a fit."""

    CONFIG: ClassVar[str] = "config.toml"
    PRODUCTS: ClassVar[tuple[str, ...]] = ("mesh.ply", "scene.usdc", "eval.json")

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Return the run in `folder`.

        Raises:
            ValueError: if there is none.
        """
        run = cls(folder)
        if not run.config.is_file():
            content = "a folder without config.toml" if folder.is_dir() else "a file" if folder.exists() else "nothing"
            raise ValueError(f"{folder}: expected the folder of a run, found {content}")
        return run

    @classmethod
    def create(cls, folder: Path, scene: Scene, *, overwrite: bool = False) -> "Run":
        """Make the folder of a new run and write its config.toml.

        Raises:
            ValueError: if the folder already holds a run (unless it may be overwritten), or anything else.
        """
        run = cls(folder)
        run._create(scene.tables(), overwrite=overwrite)
        for made in (run.images, run.masks):
            shutil.rmtree(made, ignore_errors=True)
        make_folder(run.images)
        return run

    def write_config(self, scene: Scene) -> None:
        """Write config.toml."""
        self._write(scene.tables())

    def check_config(self) -> None:
        """Check that config.toml holds a scene.

        Raises:
            ValueError: if it does not.
        """
        self.scene()

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def masks(self) -> Path:
        """Masks that were derived from photographs without any."""
        return self.folder / "masks"

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
        """Return the scene that was fitted.

        Raises:
            ValueError: if config.toml holds no scene; the message names the file.
        """
        try:
            tables = read_tables(self.config)
        except ValueError as error:
            reason = str(error).removeprefix(f"{self.config}: ")
            raise ValueError(
                f"{self.config}: expected the tables of a scene, found something else ({reason})"
            ) from None
        return from_tables(self.config, tables)

    def load(self) -> Checkpoint:
        """Return the last checkpoint; with a warning, the one before if the last one is damaged.

        Raises:
            ValueError: if neither can be read.
        """
        return self.newest(checkpoint.load)

    def field(self, device: torch.device | str = "cpu") -> Field:
        """Return the fitted field, ready to be used on `device`.

        Raises:
            ValueError: if there is none, or its weights are not finite.
        """
        saved = self.load()
        try:
            field: Field = saved.field().to(device)
        except ValueError as error:
            raise ValueError(f"{self.checkpoint}: {str(error).removeprefix('checkpoint: ')}") from error
        field.bound_slope()  # a fit measures it only now and then
        return field


def fit(
    run: Run, scene: Scene, views: Views, field: Field, job: Fit, *, save_every: float = SAVE
) -> Iterator[tuple[Step, str]]:
    """Run a fit; yield each step with a note, which is empty until held-out views are scored.

    The field is saved at the start, every `save_every` seconds and at the end, even if the fit is interrupted or fails
    (`saved_steps`).
    """
    up = paths.estimate_up(torch.stack([camera.pose for camera in views.cameras]))

    def write(path: Path) -> None:
        Checkpoint(
            kind=scene.field["kind"],
            options=portable(field, scene.options),
            weights=field.state_dict(),
            transform=views.transform,
            up=up,
            cameras=job.cameras,
            fit=job.state(),
        ).save(path)

    run.drop_products()
    log.truncate(run.log, job.iteration)
    due = math.floor(job.progress * REPORTS) + 1
    scored = views.test[:: math.ceil(len(views.test) / REPORT_VIEWS) or 1]
    note = ""
    with closing(saved_steps(run, job, write, every=save_every)) as steps, run.log.open("a") as rows:
        for step in steps:
            if step.progress * REPORTS >= due:
                due = math.floor(step.progress * REPORTS) + 1
                with one_thread():  # like the fit itself
                    refined = replace(views, cameras=job.cameras)
                    scores = evaluate(
                        field, refined, scored, intersect=job.intersect, longest=200, background=job.background
                    )
                note = f"held out {scores.psnr:.1f} dB, IoU {scores.iou:.3f}" if scores.views else ""
                log.append(rows, step, psnr=scores.psnr, iou=scores.iou)
            elif step.iteration % LOG == 0:
                log.append(rows, step)
            yield step, note

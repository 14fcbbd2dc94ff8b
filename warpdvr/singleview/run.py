"""A course: one folder that holds what a network has learnt about a category, and how it does.

course.toml  checkpoint.safetensors  log.jsonl  scores.json  page.png
"""

import json
import time
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import tomli_w
import torch

from warpdvr.fitting import log as journal
from warpdvr.runtime.files import replacing
from warpdvr.singleview import category as objects
from warpdvr.singleview.category import Category
from warpdvr.singleview.reconstructor import CategoryCheckpoint, Reconstructor, load
from warpdvr.singleview.training import Trainer, TrainingConfig

SAVE = 30.0
"""Time after which what is learnt is saved again [s]."""

LOG = 10
"""Steps that a row of the log is the mean of."""


@dataclass(frozen=True)
class CategoryRun:
    """The folder of a course, and what course.toml says."""

    folder: Path
    category: Path
    """The folder of the category, one sub-folder for each object."""
    minutes: float
    lesson: TrainingConfig
    seed: int = 0
    every: int = objects.EVERY
    """One object in so many is held out."""
    symmetric: str = ""
    """The axis, x, y or z, along which all objects are their own mirror images; nothing if they need not be."""

    @classmethod
    def open(cls, folder: Path) -> "CategoryRun":
        """Return the course in `folder`.

        Raises:
            ValueError: if there is none.
        """
        path = folder / "course.toml"
        if not path.is_file():
            raise ValueError(f"{folder}: expected the folder of a category run (train-category), found no course.toml")
        try:
            held = tomllib.loads(path.read_text())
            chosen: dict[str, Any] = dict(held.pop("lesson"))
            lesson = TrainingConfig(**chosen)
            minutes = float(held.pop("minutes"))
            return cls(folder, Path(held.pop("category")), minutes, lesson, **held)
        except (ValueError, TypeError, KeyError) as error:  # of TOML and of UTF-8 too
            raise ValueError(f"{path}: expected what train-category wrote, found something else ({error})") from None

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    def begin(self, *, overwrite: bool = False) -> None:
        """Make the folder and write course.toml.

        Raises:
            ValueError: if the folder already holds a course (unless it may be overwritten), or anything else.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder}: expected a folder for the run, found a file")
        if (self.folder / "course.toml").exists():
            if not overwrite:
                raise ValueError(
                    f"{self.folder}: already holds a run; continue it with --resume, or replace it with --overwrite"
                )
            for name in ("checkpoint.safetensors", "log.jsonl", "scores.json", "page.png"):
                (self.folder / name).unlink(missing_ok=True)
        elif self.folder.is_dir() and any(self.folder.iterdir()):
            raise ValueError(f"{self.folder}: expected a new or empty folder for the run, found other files in it")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.keep()

    def keep(self) -> None:
        """Write course.toml."""
        table = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("folder", "lesson")}
        table |= {"category": str(self.category), "lesson": asdict(self.lesson)}
        with replacing(self.folder / "course.toml") as unfinished:
            unfinished.write_bytes(tomli_w.dumps(table).encode())

    def objects(self) -> Category:
        """Read the category."""
        return objects.read(self.category, every=self.every)

    def learning(self, category: Category, *, resume: bool = False) -> Trainer:
        """Return the learning, from its beginning or from where it was stopped."""
        if resume:
            held = load(self.checkpoint)
            job = Trainer(held.model, category, minutes=self.minutes, lesson=self.lesson, seed=self.seed)
            job.resume(held.learning, held.known)
            return job
        torch.manual_seed(self.seed)
        axis = "xyz".index(self.symmetric) if self.symmetric else None
        model = Reconstructor(bounds=objects.bounds([category.views[i] for i in category.train]), symmetric=axis)
        return Trainer(model, category, minutes=self.minutes, lesson=self.lesson, seed=self.seed)

    def learnt(self) -> CategoryCheckpoint:
        """Return what was saved last."""
        return load(self.checkpoint)


def follow(course: CategoryRun, category: Category, job: Trainer) -> Iterator[dict[str, float]]:
    """Run a learning and yield its losses, means over `LOG` steps; save now and then, and whenever it ends."""
    held_out = tuple(category.names[i] for i in category.test)

    def save() -> None:
        CategoryCheckpoint(job.model, str(course.category), held_out, job.known(), job.state()).save(course.checkpoint)

    for stale in ("scores.json", "page.png"):
        (course.folder / stale).unlink(missing_ok=True)
    journal.truncate(course.folder / "log.jsonl", job.iteration)
    some: list[dict[str, float]] = []
    saved = time.monotonic()
    try:
        with (course.folder / "log.jsonl").open("a") as log:
            for losses in job:
                some.append(losses)
                if len(some) == LOG:
                    mean = _mean(some)
                    some.clear()
                    log.write(json.dumps(_row(job, mean)) + "\n")
                    log.flush()
                    yield mean
                if time.monotonic() - saved > SAVE:
                    save()
                    saved = time.monotonic()
    finally:
        save()


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each loss over the rows that have it."""
    known = {name: [row[name] for row in rows if name in row] for row in rows for name in row}
    return {name: sum(values) / len(values) for name, values in known.items()}


def _row(job: Trainer, mean: dict[str, float]) -> dict[str, Any]:
    counts = {"iteration": job.iteration, "seconds": round(job.seconds, 2), "evaluations": job.evaluations}
    return counts | {name: round(value, 6) for name, value in mean.items()}

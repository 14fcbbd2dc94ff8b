"""A category run: the folder of a reconstructor that was trained on a category, with its log and its scores.

category.toml  checkpoint.safetensors  log.jsonl  scores.json  page.png
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, get_type_hints

import torch

from warpdvr.fitting import log
from warpdvr.fitting.checkpoint import check_finite
from warpdvr.fitting.loop import Step
from warpdvr.fitting.run_folder import RunFolder
from warpdvr.fitting.saving import SAVE, saved_steps
from warpdvr.runtime.parsing import parsing, read_text
from warpdvr.runtime.validate import convert
from warpdvr.singleview import category as objects
from warpdvr.singleview.category import Category
from warpdvr.singleview.reconstructor import CategoryCheckpoint, Reconstructor, load
from warpdvr.singleview.training import Trainer, TrainingConfig

LOG = 10
"""Number of steps that a row of the log is the mean of."""


@dataclass(frozen=True)
class CategoryRun(RunFolder):
    """The folder of a category run, and the content of its category.toml."""

    CONFIG: ClassVar[str] = "category.toml"
    PRODUCTS: ClassVar[tuple[str, ...]] = ("scores.json", "page.png")

    category: Path
    """The folder of the category, one sub-folder for each object."""
    minutes: float
    """Duration of the training [min]."""
    training: TrainingConfig
    seed: int = 0
    every: int = objects.EVERY
    """One in this many objects is held out."""
    symmetric: str = ""
    """The axis, x, y or z, along which all objects are their own mirror images; empty if they need not be."""

    @classmethod
    def open(cls, folder: Path) -> "CategoryRun":
        """Return the category run in `folder`.

        Raises:
            ValueError: if there is none.
        """
        path = folder / cls.CONFIG
        if not path.is_file():
            raise ValueError(f"{folder}: expected the folder of a category run (train-category), found no {cls.CONFIG}")
        text = read_text(path, "what train-category wrote")
        with parsing(path, "what train-category wrote"):
            table = tomllib.loads(text)
            training = TrainingConfig(**_typed(TrainingConfig, table.pop("training")))
            category, minutes = Path(table.pop("category")), float(table.pop("minutes"))
            return cls(folder, category, minutes, training, **_typed(cls, table))

    def create(self, *, overwrite: bool = False) -> None:
        """Make the folder and write category.toml.

        Raises:
            ValueError: if the folder already holds a category run (unless it may be overwritten), or anything else.
        """
        self._create(self._table(), overwrite=overwrite)

    def write_config(self) -> None:
        """Write category.toml."""
        self._write(self._table())

    def check_config(self) -> None:
        """Check that category.toml was written by this program.

        Raises:
            ValueError: if it was not.
        """
        CategoryRun.open(self.folder)

    def objects(self) -> Category:
        """Read the category."""
        return objects.read(self.category, every=self.every)

    def trainer(self, category: Category, *, resume: bool = False, device: torch.device | str = "cpu") -> Trainer:
        """Return the training on a device, from the start or from where it was stopped."""
        if resume:
            checkpoint = self.load().to(device)
            trainer = Trainer(checkpoint.model, category, minutes=self.minutes, config=self.training, seed=self.seed)
            trainer.resume(checkpoint.training, checkpoint.shape_bank)
            return trainer
        torch.manual_seed(self.seed)
        axis = "xyz".index(self.symmetric) if self.symmetric else None
        bounds = objects.bounds([category.views[i] for i in category.train], device=device)
        model = Reconstructor(bounds=bounds, symmetric=axis).to(device)
        return Trainer(model, category, minutes=self.minutes, config=self.training, seed=self.seed)

    def load(self) -> CategoryCheckpoint:
        """Return the last checkpoint; with a warning, the one before if the last one is damaged.

        Raises:
            ValueError: if neither can be read, or a weight is NaN.
        """

        def read(path: Path) -> CategoryCheckpoint:
            found = load(path)
            check_finite(path, found.model.state_dict())
            return found

        return self.newest(read)

    def _table(self) -> dict[str, object]:
        table = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "folder"}
        return table | {"category": str(self.category), "training": asdict(self.training)}


def train(
    run: CategoryRun, category: Category, job: Trainer, *, save_every: float = SAVE
) -> Iterator[tuple[Step, str]]:
    """Train; yield every `LOG`-th step, whose losses are means over these steps, and an empty note.

    The model is saved at the start, every `save_every` seconds and at the end, even if training is interrupted or fails
    (`saved_steps`).
    """
    held_out = tuple(category.names[i] for i in category.test)

    def write(path: Path) -> None:
        CategoryCheckpoint(job.model, str(run.category), held_out, job.shape_bank(), job.state()).save(path)

    run.drop_products()
    log.truncate(run.log, job.iteration)
    recent: list[dict[str, float]] = []
    with closing(saved_steps(run, job, write, every=save_every)) as steps, run.log.open("a") as rows:
        for step in steps:
            recent.append(step.losses)
            if len(recent) == LOG:
                mean = replace(step, losses=_mean(recent))
                recent.clear()
                log.append(rows, mean, evaluations=step.evaluations)
                yield mean, ""


def _typed(cls: type, table: Mapping[str, object]) -> dict[str, Any]:
    """Return the entries of a table, in the types of the fields of a dataclass."""
    hints, found = get_type_hints(cls), {}
    for name, value in dict(table).items():
        if name not in hints:
            raise ValueError(f"{name} is unknown")
        try:
            found[name] = convert(value, hints[name])
        except TypeError as error:
            raise ValueError(f"{name} {error}") from None
    return found


def _mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each loss, over the rows that have it."""
    values = {name: [row[name] for row in rows if name in row] for row in rows for name in row}
    return {name: sum(column) / len(column) for name, column in values.items()}

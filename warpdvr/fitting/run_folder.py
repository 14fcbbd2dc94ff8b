"""The folder of a run: its configuration, its checkpoint, its log, and the training that fills it."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tomli_w

from warpdvr.fitting.loop import Step, TrainingLoop
from warpdvr.runtime.files import check_parents, make_folder, replacing

SAVE = 20.0
"""Time after which a training is saved again [s]."""


@dataclass(frozen=True)
class RunFolder(ABC):
    """The folder of a run. Every file in it is replaced at once or not at all."""

    folder: Path
    CONFIG: ClassVar[str]
    """Name of the configuration file, whose presence makes a folder a run."""
    PRODUCTS: ClassVar[tuple[str, ...]]
    """Names of files that are made from the trained weights, and are out of date once the training continues."""

    @property
    def config(self) -> Path:
        return self.folder / self.CONFIG

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    @property
    def log(self) -> Path:
        return self.folder / "log.jsonl"

    @abstractmethod
    def check_config(self) -> None:
        """Check that the configuration file was written by this program.

        Raises:
            ValueError: if it was not.
        """

    def drop_products(self) -> None:
        """Delete the files that are out of date as soon as the training continues."""
        for name in self.PRODUCTS:
            (self.folder / name).unlink(missing_ok=True)

    def check_new(self, *, overwrite: bool = False) -> None:
        """Check that a new run can be written into the folder, without changing anything.

        Raises:
            ValueError: if the folder already holds a run (unless it may be overwritten), or anything else.
        """
        check_parents(self.folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder}: expected a folder for the run, found a file")
        if self.config.exists():
            if not overwrite:
                raise ValueError(
                    f"{self.folder}: already holds a run; continue it with --resume, replace it with --overwrite, or "
                    "choose another folder"
                )
            self.check_config()  # else it is another program's, and so are the files beside it
        elif self.folder.is_dir() and any(self.folder.iterdir()):
            raise ValueError(f"{self.folder}: expected a new or empty folder for the run, found other files in it")

    def check_resumable(self) -> None:
        """Check that there is a checkpoint.

        Raises:
            ValueError: if there is none.
        """
        if not self.checkpoint.is_file():
            raise ValueError(
                f"{self.checkpoint}: expected a checkpoint to resume from, found nothing; "
                "start the run again with --overwrite"
            )

    def _create(self, config: Mapping[str, object], *, overwrite: bool) -> None:
        """Make the folder and write the configuration file.

        Raises:
            ValueError: if the folder already holds a run (unless it may be overwritten), or anything else.
        """
        self.check_new(overwrite=overwrite)
        if self.config.exists():
            for path in (self.config, self.checkpoint, self.log):
                path.unlink(missing_ok=True)
            self.drop_products()
        make_folder(self.folder)
        self._write(config)

    def _write(self, config: Mapping[str, object]) -> None:
        with replacing(self.config) as unfinished:
            unfinished.write_bytes(tomli_w.dumps(config).encode())


def saved_steps(loop: TrainingLoop, save: Callable[[], None]) -> Generator[Step, None, None]:
    """Train; save at the start, every `SAVE` seconds and at the end, even if the training is interrupted or fails."""
    try:
        save()
        saved = time.monotonic()
        for step in loop:
            if time.monotonic() - saved > SAVE:
                save()
                saved = time.monotonic()
            yield step
    finally:
        save()

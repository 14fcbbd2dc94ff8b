"""The folder of a run: its configuration, its checkpoints and its log."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

import tomli_w

from warpdvr.fitting.run_lock import locked
from warpdvr.runtime.files import check_parents, is_abandoned, make_folder, replacing, sweep

C = TypeVar("C")
"""A kind of checkpoint."""


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
    def previous(self) -> Path:
        """The checkpoint before the last one, which is kept until the training has ended."""
        return self.folder / "checkpoint.previous.safetensors"

    @property
    def log(self) -> Path:
        return self.folder / "log.jsonl"

    @abstractmethod
    def check_config(self) -> None:
        """Check that the configuration file was written by this program.

        Raises:
            ValueError: if it was not.
        """

    def locked(self) -> AbstractContextManager[None]:
        """Hold the lock of the run inside a block: one process at a time writes into its folder.

        Raises:
            ValueError: if another process writes the run; the message names it.
            OSError: if the folder cannot be written.
        """
        return locked(self.folder)

    def newest(self, read: Callable[[Path], C]) -> C:
        """Return what `read` makes of the last checkpoint; of the one before, with a warning, if that one is damaged.

        Raises:
            ValueError: if neither can be read; the message is about the last one.
        """
        try:
            return read(self.checkpoint)
        except ValueError as error:
            if not self.previous.is_file():
                raise
            try:
                found = read(self.previous)
            except ValueError:
                raise error from None
            warnings.warn(f"{error}; the checkpoint before it is used: {self.previous}", stacklevel=2)
            return found

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
        elif self.folder.is_dir() and not all(map(is_abandoned, self.folder.iterdir())):
            raise ValueError(f"{self.folder}: expected a new or empty folder for the run, found other files in it")

    def check_resumable(self) -> None:
        """Check that there is a checkpoint.

        Raises:
            ValueError: if there is none.
        """
        if not self.checkpoint.is_file() and not self.previous.is_file():
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
            for path in (self.config, self.checkpoint, self.previous, self.log):
                path.unlink(missing_ok=True)
            self.drop_products()
        make_folder(self.folder)
        sweep(self.folder)
        self._write(config)

    def _write(self, config: Mapping[str, object]) -> None:
        with replacing(self.config) as unfinished:
            unfinished.write_bytes(tomli_w.dumps(config).encode())

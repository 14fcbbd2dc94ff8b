"""Files that are replaced at once or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to, and move it there at the end; after an error nothing is left."""
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}")
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def within(folder: Path, path: str | Path) -> Path:
    """Return folder / path.

    Raises:
        ValueError: if that leads outside of the folder, be it by an absolute path, by `..` or by a link.
    """
    full = folder / path
    if not full.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{folder}: {str(path)!r} leads outside of the data folder, which is not allowed")
    return full

"""Replace files atomically, and keep paths inside a folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, which replaces `path` at the end of the block, or is removed on an error.

    Raises:
        ValueError: if the folder of `path` does not exist.
    """
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}")
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def path_inside(folder: Path, path: str | Path) -> Path:
    """Return folder / path.

    Raises:
        ValueError: if it leads outside the folder, through an absolute path, `..` or a symbolic link.
    """
    full = folder / path
    if not full.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{folder}: {str(path)!r} leads outside of the data folder, which is not allowed")
    return full

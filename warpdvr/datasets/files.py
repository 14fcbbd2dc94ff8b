"""Find the files of a data set, never outside its folder; NumPy archives are read and written by `runtime.npz`."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from warpdvr.datasets.find import is_clutter
from warpdvr.runtime.files import path_inside
from warpdvr.runtime.npz import npz_bytes as npz_bytes
from warpdvr.runtime.npz import read_arrays as read_arrays
from warpdvr.runtime.parsing import describe_error

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".ppm", ".pgm", ".heic", ".heif", ".exr")
"""The files that count as pictures."""


def find_subfolder(folder: Path, *names: str) -> Path | None:
    """Return the first of these subfolders that exists, or None."""
    return next((path_inside(folder, name) for name in names if (folder / name).is_dir()), None)


def list_pictures(subfolder: Path, folder: Path) -> list[Path]:
    """Return the pictures in a subfolder of the data set `folder`, sorted by name as `sort_by_number` does."""
    pictures = (f for f in subfolder.iterdir() if f.suffix.lower() in PICTURE_SUFFIXES and not is_clutter(f.name))
    return sort_by_number(path_inside(folder, f.relative_to(folder)) for f in pictures)


def picture_names(folder: Path, subfolders: Sequence[str]) -> dict[str, str]:
    """Return the names of the pictures in the first of these subfolders that exists, by their stems."""
    subfolder = find_subfolder(folder, *subfolders)
    return {} if subfolder is None else {f.stem: f.name for f in list_pictures(subfolder, folder)}


def sort_by_number(paths: Iterable[Path]) -> list[Path]:
    """Return files sorted by name, comparing the numbers in names by value: 2.png before 10.png."""

    def key(path: Path) -> list[tuple[bool, int, str]]:
        parts = re.split(r"(\d+)", path.stem)
        return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]

    return sorted(paths, key=key)


def require_view_count(path: Path, count: int, minimum: int) -> None:
    """Raise ValueError if a data set has too few views."""
    if count < minimum:
        raise ValueError(f"{path}: expected at least {minimum} view{'s' * (minimum > 1)}, found {count}")


def require_camera_count(path: Path, stored: int, new: int) -> None:
    """Raise ValueError if the number of cameras to write differs from the number in the file."""
    if stored != new:
        raise ValueError(f"{path}: holds {stored} cameras, expected one for each of the {new} that are to be written")


@contextmanager
def error_prefix(subject: object) -> Iterator[None]:
    """Prefix the message of a ValueError raised in the block with the name of a file or a view."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{subject}: {error}") from error


@contextmanager
def error_inside(folder: Path) -> Iterator[None]:
    """Prefix the message of a ValueError raised in the block with a data set, unless it begins with a file in it.

    Numbers that are too large to compute with become a ValueError as well.
    """
    try:
        yield
    except (ArithmeticError, RuntimeError) as error:  # Torch's and NumPy's
        reason = describe_error(error)
        raise ValueError(f"{folder}: the data hold numbers that cannot be computed with ({reason})") from error
    except ValueError as error:
        if str(error).startswith((f"{folder}:", f"{folder}{os.sep}")):
            raise
        raise ValueError(f"{folder}: {error}") from error


def unique_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return the stems of the files, preceded by the folder's name or by a number where stems alone are ambiguous."""
    for names in ([f.stem for f in paths], [f"{f.parent.name}_{f.stem}" for f in paths]):
        if len(set(names)) == len(names):
            return tuple(names)
    return tuple(f"{i:04d}_{f.stem}" for i, f in enumerate(paths))

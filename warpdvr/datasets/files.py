"""Read pictures and masks; find files inside of a data set, and never outside of it."""

import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from warpdvr.runtime.files import within

Pixels = NDArray[np.uint8]

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".ppm")
"""The files that are taken for pictures."""


def subfolder(folder: Path, *names: str) -> Path | None:
    """Return the first folder of these names that is there."""
    return next((within(folder, name) for name in names if (folder / name).is_dir()), None)


def pictures(folder: Path, inside: Path) -> list[Path]:
    """Return the pictures of a folder that belongs to the data set `inside`, numbers in names by their value."""
    return by_number(within(inside, f.relative_to(inside)) for f in folder.iterdir() if f.suffix.lower() in SUFFIXES)


def by_number(found: Iterable[Path]) -> list[Path]:
    """Return files in order of their names, numbers in those by their value."""
    return sorted(
        found, key=lambda f: [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in _parts(f)]
    )


def arrays(path: Path, keys: str = ".*") -> dict[str, np.ndarray]:
    """Return those arrays of an npz file whose names match `keys`, or that of an npy file under the name "depth".

    Raises:
        ValueError: if the file cannot be read; nothing is unpickled.
    """
    try:
        with path.open("rb") as opened:  # np.load leaves broken files open
            held = np.load(opened, allow_pickle=False)
            if isinstance(held, np.ndarray):
                return {"depth": held}
            return {key: held[key] for key in held.files if re.fullmatch(keys, key)}
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        AttributeError,
        TypeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        kind = path.suffix.removeprefix(".")
        raise ValueError(
            f"{path}: expected an {kind} file of plain arrays, found a file that cannot be read ({error})"
        ) from error


def packed(held: dict[str, np.ndarray]) -> bytes:
    """Return an npz file of plain arrays."""
    stream = io.BytesIO()
    np.savez(stream, **held)  # type: ignore[arg-type]
    return stream.getvalue()


def matching(path: Path, n: int, given: int) -> None:
    """Refuse to write another number of cameras than a file has."""
    if n != given:
        raise ValueError(f"{path}: holds {n} cameras, expected one for each of the {given} that are to be written")


def matrix(path: Path, held: dict[str, np.ndarray], key: str) -> Tensor:
    """Return the matrix of that name, shape (4, 4), float64; a last row is added to (3, 4).

    Raises:
        ValueError: if it is missing, not finite or of another shape.
    """
    if key not in held:
        raise ValueError(f"{path}: {key} is missing, expected one per view, numbered from 0")
    array = held[key]
    if array.dtype.kind not in "fiu" or array.shape not in ((3, 4), (4, 4)):
        raise ValueError(f"{path}: {key} must be a (4, 4) matrix of numbers, found {array.dtype} {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{path}: {key} holds a number that is not finite")
    full = torch.eye(4, dtype=torch.float64)
    full[:3] = torch.from_numpy(array[:3].astype(np.float64))
    return full


def picture(path: Path, *, upright: bool = False) -> tuple[Tensor, Tensor | None]:
    """Return colours (h, w, 3) and, if there is one, the alpha channel (h, w), both uint8.

    Pixels come as they are stored, which is what cameras are calibrated for; `upright` turns them as the file's EXIF
    data says.
    """
    array = _decode(path, upright)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, 2)
    alpha = torch.from_numpy(array[..., 3].copy()) if array.shape[2] == 4 else None
    return torch.from_numpy(np.ascontiguousarray(array[..., :3])), alpha


def mask(path: Path, like: Tensor) -> Tensor:
    """Return a mask (h, w), bool, white = object, of the same size as the image `like` (h, w, 3).

    Grey, colour or alpha, 0 / 255 or 0 / 1.

    Raises:
        ValueError: if the mask has another size, or is empty.
    """
    array = _decode(path)
    if array.ndim == 3:
        array = _flatten(array)
    if array.shape != tuple(like.shape[:2]):
        sizes = "mask of {1} x {0}, image of {3} x {2}".format(*array.shape, *like.shape)
        raise ValueError(f"{path}: the mask must have the size of its image, found a {sizes} pixels")
    return filled(torch.from_numpy(array > (127 if array.max() > 1 else 0)), path)


def masks_of(photographs: list[Path], home: Path, inside: Path) -> list[Path | None]:
    """Return for each photograph the mask in the folder `home` that has its name up to the suffix, if there is one.

    Raises:
        ValueError: if a mask belongs to no photograph, used or lying beside those, or none to those that are used.
    """
    masks = {f.stem: f for f in pictures(home, inside)}
    used = {f.stem for f in photographs}
    known = used.union(*({f.stem for f in folder.iterdir()} for folder in {f.parent for f in photographs}))
    stray = sorted(masks.keys() - known) or (sorted(masks) if used.isdisjoint(masks) else [])
    if stray:
        raise ValueError(
            f"{home}: the mask {masks[stray[0]].name} belongs to no image, expected names such as "
            f"{photographs[0].stem}.png for the mask of {photographs[0].name}"
        )
    return [masks.get(f.stem) for f in photographs]


def filled(inside: Tensor, path: Path) -> Tensor:
    """Return the mask `inside`; refuse it if it is empty."""
    if not inside.any():
        raise ValueError(f"{path}: the mask is empty, expected white (or opaque) pixels on the object")
    return inside


def enough(where: Path, n: int, least: int = 2) -> None:
    """Refuse fewer views than needed."""
    if n < least:
        raise ValueError(f"{where}: expected at least {least} view{'s' * (least > 1)}, found {n}")


@contextmanager
def naming(what: object) -> Iterator[None]:
    """Put the name of a file or view in front of the message of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def unique_names(paths: list[Path]) -> tuple[str, ...]:
    """Return the stems of the files; with the folder's name, or a number, in front where that is needed."""
    for names in ([f.stem for f in paths], [f"{f.parent.name}_{f.stem}" for f in paths]):
        if len(set(names)) == len(names):
            return tuple(names)
    return tuple(f"{i:04d}_{f.stem}" for i, f in enumerate(paths))


def _decode(path: Path, upright: bool = False) -> Pixels:
    """Return grey (h, w), RGB (h, w, 3) or RGBA (h, w, 4), uint8."""
    if not path.is_file():
        raise ValueError(f"{path}: the picture is missing")
    try:
        with Image.open(path) as stored:
            stored.load()
            image = ImageOps.exif_transpose(stored) if upright else stored
            if image.mode.startswith("I"):  # 16 bits per pixel; Pillow would clip them at 255
                array = np.asarray(image).astype(np.int64)
                return (array >> 8 if array.max() > 255 else array).astype(np.uint8)
            clear = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
            grey = image.mode in ("1", "L")
            return np.array(image.convert("RGBA" if clear else "L" if grey else "RGB"))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: expected a picture, found a file that cannot be read as one ({error})") from error


def _flatten(array: Pixels) -> Pixels:
    """Return a mask in colour or with alpha as grey: the brightest channel, 0 where it is transparent."""
    grey: Pixels = array[..., :3].max(2)
    if array.shape[2] == 3:
        return grey
    if not grey.any():  # a black stencil: only alpha tells
        return array[..., 3]
    return np.where(array[..., 3] > 127, grey, 0)


def _parts(path: Path) -> list[str]:
    return re.split(r"(\d+)", path.stem)

"""Decode pictures of the kinds that cameras and renderers write, into 8 bits of sRGB.

The content of a file decides its kind, from a fixed list: no decoder outside of `KINDS` runs, whatever the name of the
file is. Pillow bounds the number of pixels; a PNG that claims more of them than its bytes can hold is refused before
anything is allocated. A picture takes at most 8 bytes a pixel while it is decoded, 12 with alpha, 14 with 16
bits a channel.
"""

import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from warpdvr.datasets.extras import floats_in_color, import_extra, is_exr, is_float_tiff, is_heif, read_exr
from warpdvr.shading.srgb import encode

KINDS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM", "GIF")
"""The kinds of pictures that Pillow may decode, by its names."""

DEFLATE = 8 * 1032
"""The most pixels that a byte of a PNG can hold: deflate repeats up to 258 bytes in 2 bits, of 8 pixels each."""

BAND = 256
"""Rows that are copied at once."""

ORIENTATION = 274
"""The EXIF tag that says how a picture is turned."""

QUARTER_TURNS = (5, 6, 7, 8)
"""Its values for which width and height change places."""

_LOW_BYTES = {"B": "L", "L": "B", "N": "B" if np.little_endian else "L"}


@dataclass(frozen=True)
class Header:
    """What a picture says of itself before its pixels are decoded."""

    path: Path
    width: int
    """Stored columns."""
    height: int
    """Stored rows."""
    orientation: int
    """EXIF's value of `ORIENTATION`: 1 if the stored pixels are upright."""
    deep: bool
    """Whether a channel has more than 8 bits; `largest_value` says what they hold."""
    linear: bool
    """Whether it holds linear floats."""
    alpha: bool
    """Whether it has an alpha channel."""

    @property
    def size(self) -> tuple[int, int]:
        """Stored width and height [pixel]."""
        return self.width, self.height


def read_header(path: Path) -> Header:
    """Return the header of a picture.

    Raises:
        ValueError: if the file is missing or no picture.
    """
    if is_exr(path):
        rgb, alpha = read_exr(path)
        return Header(path, rgb.shape[1], rgb.shape[0], 1, False, True, alpha is not None)
    with opened(path) as image:
        return _header(path, image)


def decode(
    path: Path, *, upright: bool = False, bits: int | None = None, size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Return the pixels of a picture as grey (h, w), RGB (h, w, 3) or RGBA (h, w, 4) with straight colours, sRGB.

    Args:
        path: the picture.
        upright: turn it as its EXIF data say.
        bits: the number of bits of the largest value in a picture of more than 8; None: what its own values need.
        size: width and height to which it is scaled down, each pixel the mean over its area [pixel].

    Raises:
        ValueError: if the file is missing or cannot be decoded.
    """
    if is_exr(path):
        rgb, alpha = read_exr(path)
        return _finish(_from_linear(rgb, alpha), False, size)
    with opened(path) as image:
        header = _header(path, image)
        if header.linear:
            return _finish(Image.fromarray(_encoded_rows(image)), upright, size)
        if header.deep:
            eight = _eight_bits(path, image, bits)
            turned = Image.Exif()
            turned[ORIENTATION] = header.orientation
            eight.info["exif"] = turned.tobytes()
            return _finish(eight, upright, size)
        image.load()
        return _finish(image, upright, size)


def largest_value(path: Path) -> int:
    """Return the largest colour in a picture of more than 8 bits a channel.

    Raises:
        ValueError: if it cannot be decoded.
    """
    with opened(path) as image:
        return max((int(band.max(initial=0)) for band in _deep_bands(path, image, colours_only=True)), default=0)


def bits_of(value: int) -> int:
    """Return the bits of the container that a largest value belongs to: 8, 10, 12, 14, 16, or more if it needs them."""
    return next((bits for bits in (8, 10, 12, 14, 16) if value < 2**bits), max(16, value.bit_length()))


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture; everything that goes wrong in the block becomes one sentence."""
    _require_file(path)
    kinds: tuple[str, ...] = KINDS
    if is_heif(path):
        import_extra("pillow_heif", path, "HEIC", "pillow-heif").register_heif_opener()
        kinds = ("HEIF",)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about EXIF and sizes; what matters becomes an error
            with Image.open(path, formats=kinds) as image:
                _require_plausible(path, image)
                yield image
    except MemoryError as error:
        raise ValueError(f"{path}: the picture needs more memory than there is; make it smaller") from error
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise ValueError(f"{path}: expected a picture of at most {most:.0f} million pixels ({error})") from error
    except Exception as error:  # decoders raise whatever a broken file leads them into
        if isinstance(error, ValueError) and str(error).startswith(f"{path}: "):
            raise
        reason = " ".join(str(error).replace(repr(str(path)), "it").replace(str(path), "it").split())
        if isinstance(error, UnidentifiedImageError) and is_float_tiff(path):
            raise ValueError(floats_in_color(path)) from error
        hint = "" if not isinstance(error, UnidentifiedImageError) else f"; expected {', '.join(KINDS[:-1])}"
        raise ValueError(
            f"{path}: expected a picture, found a file that cannot be decoded ({reason or type(error).__name__}{hint})"
        ) from error


def _require_file(path: Path) -> None:
    """Raise ValueError if there is no plain file, such as a pipe, whose reading would never end."""
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: the picture is missing") from error
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
        raise ValueError(f"{path}: expected a picture, found {kind}")
    if found.st_size == 0:
        raise ValueError(f"{path}: expected a picture, found an empty file")


def _require_plausible(path: Path, image: Image.Image) -> None:
    """Raise ValueError if a file claims more pixels than its bytes can hold."""
    pixels, found = image.width * image.height, path.stat().st_size
    if image.format == "PNG" and pixels > DEFLATE * found:
        raise ValueError(
            f"{path}: expected a picture, found a file that claims {image.width} x {image.height} pixels in {found} "
            "bytes; it is damaged"
        )
    if image.format == "PNG":
        _require_chunks(path, found)
    if image.format == "TIFF" and (tiles := getattr(image, "tile", None)):  # rows without data would be made up
        bottom = max(tile[1][3] for tile in tiles)
        if bottom < image.height:
            raise ValueError(
                f"{path}: expected a picture of {image.height} rows, found data for {bottom}; it is damaged"
            )


def _require_chunks(path: Path, size: int) -> None:
    """Raise ValueError if a PNG announces a chunk far larger than itself: as much would be allocated for it."""
    with path.open("rb", buffering=0) as file:
        at = 8  # after the signature: length, type, data and checksum of each chunk (W3C, PNG, section 5.3)
        while file.seek(at) + 8 <= size:
            length = int.from_bytes(file.read(4), "big")
            if length > size + 2**24:
                raise ValueError(
                    f"{path}: expected a picture, found {size} bytes that announce {length}; it is damaged"
                )
            at += 12 + length


def _header(path: Path, image: Image.Image) -> Header:
    raw = _raw_mode(image)
    # the method of the class: that of PNG decodes the whole picture first. Pillow turns TIFF upright by itself
    orientation = 1 if image.format == "TIFF" else Image.Image.getexif(image).get(ORIENTATION, 1)
    return Header(
        path,
        image.width,
        image.height,
        orientation if orientation in range(1, 9) else 1,
        deep=image.mode.startswith("I") or (image.mode in ("RGB", "RGBA") and ";16" in raw),
        linear=image.mode == "F",
        alpha=image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info,
    )


def _raw_mode(image: Image.Image) -> str:
    """Return Pillow's name of the layout of the stored pixels."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _deep_bands(path: Path, image: Image.Image, *, colours_only: bool = False) -> Iterator[NDArray[np.integer[Any]]]:
    """Yield the stored values of more than 8 bits, some rows at a time.

    Pillow keeps the high bytes of a colour of 16 bits alone. Read with the bytes swapped, it keeps the low ones.
    """
    raw, low = _raw_mode(image), None
    if not image.mode.startswith("I"):
        swapped = re.sub(r";16([LBN])", lambda match: f";16{_LOW_BYTES[match[1]]}", raw)
        low = Image.open(path, formats=KINDS)
        swap = [(swapped, *tile[3][1:]) if isinstance(tile[3], tuple) else swapped for tile in low.tile]
        low.tile = [(*tile[:3], layout) for tile, layout in zip(low.tile, swap, strict=True)]  # type: ignore[misc]
    try:
        for top in range(0, image.height, BAND):
            box = (0, top, image.width, min(top + BAND, image.height))
            kind = np.dtype(np.int64 if image.mode == "I" else np.uint16)
            values: NDArray[np.integer[Any]] = np.asarray(image.crop(box)).astype(kind)
            if low is not None:
                values = 256 * values + np.asarray(low.crop(box))
            yield values[..., :3] if colours_only and values.ndim == 3 else values
    finally:
        if low is not None:
            low.close()


def _eight_bits(path: Path, image: Image.Image, bits: int | None) -> Image.Image:
    """Return a picture of more than 8 bits with 8 of them, those of `bits` at the top; alpha always has 16."""
    if bits is None:
        bits = bits_of(largest_value(path))
    height, width = image.height, image.width
    channels = len(image.getbands())
    out = np.empty((height, width, channels) if channels > 1 else (height, width), np.uint8)
    for i, band in enumerate(_deep_bands(path, image)):
        rows = out[BAND * i : BAND * i + len(band)]
        rows[...] = (band >> max(0, bits - 8)).clip(0, 255)
        if channels == 4:
            rows[..., 3] = band[..., 3] >> 8
    return Image.fromarray(out)


def _from_linear(values: NDArray[Any], alpha: NDArray[Any] | None) -> Image.Image:
    """Return linear light as sRGB, NaN as black; 1 is white."""
    eight = _encoded(values)
    if alpha is not None:
        opaque = (255 * np.nan_to_num(alpha.astype(np.float32)).clip(0, 1) + 0.5).astype(np.uint8)
        eight = np.dstack([eight, opaque])
    return Image.fromarray(eight)


def _encoded(values: NDArray[Any]) -> NDArray[np.uint8]:
    linear = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1)
    return (255 * encode(torch.from_numpy(linear)).numpy() + 0.5).astype(np.uint8)


def _encoded_rows(image: Image.Image) -> NDArray[np.uint8]:
    """Return a picture of one channel of linear floats as sRGB, some rows at a time."""
    out = np.empty((image.height, image.width), np.uint8)
    for top in range(0, image.height, BAND):
        box = (0, top, image.width, min(top + BAND, image.height))
        out[top : top + BAND] = _encoded(np.asarray(image.crop(box)))
    return out


def _finish(image: Image.Image, upright: bool, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Turn and scale a picture, and return its pixels, some rows at a time: without a second copy of all of them."""
    if upright and image.getexif().get(ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    mode = "RGBA" if transparent else "L" if image.mode in ("1", "L") else "RGB"
    if size is not None and size != image.size:
        image = (image if image.mode == mode else image.convert(mode)).resize(size, Image.Resampling.BOX)
    width, height = image.size
    out = np.empty((height, width) if mode == "L" else (height, width, len(mode)), np.uint8)
    for top in range(0, height, BAND):
        band = image.crop((0, top, width, min(top + BAND, height)))
        out[top : top + BAND] = np.asarray(band if band.mode == mode else band.convert(mode))
    return out

"""Pictures whose decoders are packages of their own, HEIC and OpenEXR, and those that none of ours reads."""

import importlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warpdvr.runtime.parsing import describe_error


def _start(path: Path) -> bytes:
    """Return the first bytes of a plain file; none of anything else."""
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(12)
    except (OSError, ValueError):
        return b""


def is_heif(path: Path) -> bool:
    """Return whether a file is HEIC (ISO/IEC 23008-12, annex B: the brands)."""
    first = _start(path)
    return first[4:8] == b"ftyp" and first[8:12] in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")


def is_exr(path: Path) -> bool:
    """Return whether a file is OpenEXR (openexr.com, "OpenEXR File Layout": the magic number)."""
    return _start(path)[:4] == b"\x76\x2f\x31\x01"


def is_float_tiff(path: Path) -> bool:
    """Return whether a file is a TIFF of several floats a pixel (TIFF 6.0, section 19: SampleFormat 3)."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(_start(path)[:4])
    if order is None:
        return False
    with path.open("rb") as file:
        try:
            file.seek(struct.unpack(f"{order}I", file.read(8)[4:])[0])
            count = struct.unpack(f"{order}H", file.read(2))[0]
            entries = [struct.unpack(f"{order}HHI4s", file.read(12)) for _ in range(count)]
            tags = {tag: (number, value) for tag, _, number, value in entries}
            samples = struct.unpack(f"{order}H", tags[277][1][:2])[0]
            number, value = tags[339]
            if number > 2:  # numbers of two bytes that do not fit into the entry lie elsewhere
                file.seek(struct.unpack(f"{order}I", value)[0])
                value = file.read(2)
            return bool(samples > 1 and struct.unpack(f"{order}H", value[:2])[0] == 3)
        except (KeyError, struct.error, OSError):
            return False


def floats_in_color(path: Path) -> str:
    """Return the sentence that refuses such a TIFF."""
    return (
        f"{path}: the picture is a TIFF of floats in colour, which Pillow does not read; convert it to OpenEXR, for "
        f"instance with `oiiotool {path.name} -o {path.stem}.exr` of OpenImageIO, or to a PNG"
    )


def import_extra(module: str, path: Path, kind: str, package: str) -> Any:
    """Import the package that reads a kind of pictures.

    Raises:
        ValueError: if it is not installed; says what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"{path}: the picture is {kind}, which needs {package}: pip install {package}, or convert it to PNG or JPEG"
        ) from error


def read_exr(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return linear RGB (h, w, 3), and alpha or None."""
    library = import_extra("OpenEXR", path, "OpenEXR", "OpenEXR")
    try:
        channels = library.File(str(path), separate_channels=True).channels()
        names = ("R", "G", "B") if "R" in channels else ("Y", "Y", "Y")
        rgb = np.dstack([channels[name].pixels for name in names])
        return rgb, channels["A"].pixels if "A" in channels else None
    except Exception as error:  # the library raises what its C++ throws
        raise ValueError(
            f"{path}: expected an OpenEXR picture with R, G and B, found one that cannot be read "
            f"({describe_error(error)})"
        ) from error

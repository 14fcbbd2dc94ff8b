"""Pictures whose decoders are packages of their own: HEIC and OpenEXR."""

import importlib
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

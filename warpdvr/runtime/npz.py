"""Read and write NumPy archives: plain arrays, of sizes that the file accounts for. Nothing is ever unpickled."""

import io
import math
import re
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from warpdvr.runtime.parsing import check_regular, error_named, parsing

MAX_RATIO, MIN_ALLOWANCE = 200, 2**28
"""An archive may unpack to 200 times its own size, or to 256 MiB if that is more. Depth maps and visibilities pack to a
fifth or a hundredth of their size; deflate itself reaches 1032, which only an archive made for it comes near."""

KINDS = "biufcSU"
"""Kinds of plain values: bool, integers, floats, complex numbers, text. Objects, records and dates are refused."""

FOREIGN = "is something else, is damaged, or holds code, which is not run"
"""What is said of a file that is no NumPy file: what NumPy would take for a pickle."""


def read_arrays(path: Path, keys: str = ".*", expected: str | None = None) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file whose names match `keys`, or the array of an npy file under the name "depth".

    Sizes are compared with what the file holds before anything is allocated.

    Args:
        path: the file; its content, not its name, says which of the two it is.
        keys: a regular expression that the whole name of an array must match.
        expected: what the file should be, for messages; None: plain arrays.

    Raises:
        ValueError: if it is not a regular file, cannot be read, unpacks to far more than its own size, or holds
            anything but numbers and text; the message names the array.
    """
    expected = expected or f"an {path.suffix.removeprefix('.')} file of plain arrays"
    size = check_regular(path, expected)
    with parsing(path, expected), path.open("rb") as file:
        start = file.peek(6)[:6]
        if start == b"\x93NUMPY":
            return {"depth": _read_array(file, size)}
        if start[:2] != b"PK":
            raise ValueError(f"{path}: expected {expected}, found a file that {FOREIGN}")
        with zipfile.ZipFile(file) as archive:
            names = {m.filename.removesuffix(".npy"): m for m in archive.infolist() if m.filename.endswith(".npy")}
            members = {name: member for name, member in names.items() if re.fullmatch(keys, name)}
            _check_sizes(members, size)
            arrays = {}
            for name, member in members.items():
                with error_named(name), archive.open(member) as stream:
                    arrays[name] = _read_array(stream, member.file_size)
            return arrays


def npz_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """Return the content of an npz file that holds these arrays."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def _check_sizes(members: dict[str, zipfile.ZipInfo], size: int) -> None:
    """Refuse an archive of `size` bytes that is encrypted, packed as NumPy does not pack, or unpacks to too much."""
    for name, member in members.items():
        if member.flag_bits & 1:
            raise ValueError(f"{name} is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name} is packed by method {member.compress_type}, which NumPy does not write")
    total, most = sum(member.file_size for member in members.values()), max(MAX_RATIO * size, MIN_ALLOWANCE)
    if total > most:
        raise ValueError(
            f"its arrays unpack to {total} bytes, more than {MAX_RATIO} times its own {size} and than {MIN_ALLOWANCE}; "
            "if that is meant, write it again with np.savez, which does not pack"
        )


def _read_array(stream: IO[bytes] | io.BufferedIOBase, size: int) -> np.ndarray:
    """Return the array of an npy file of `size` bytes, in the machine's own byte order."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):  # (3, 0) is for records whose fields have names in Unicode
        raise ValueError(f"npy files of version {version[0]}.{version[1]} are not read")
    first = version == (1, 0)
    shape, fortran, dtype = (np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0)(
        stream
    )
    if dtype.kind not in KINDS or dtype.itemsize == 0:
        raise ValueError(f"expected plain numbers or text, found {dtype}, which is not read and never unpickled")
    needed, left = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if min(shape, default=0) < 0 or needed > left:
        raise ValueError(f"its header announces the shape {shape} of {dtype}, {needed} bytes, but {left} follow")
    content = bytearray(stream.read(needed))
    if len(content) < needed:
        raise ValueError("the file ends too early")
    array = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), order="K", copy=False)

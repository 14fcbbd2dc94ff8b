"""The boundary of every parser: open regular files only, bound what is read, and turn every failure into one sentence.

A parser of a stranger's file can fail in any way that Python and the libraries know: `struct.error`, `zlib.error`,
`RecursionError`, `MemoryError`, an `AttributeError` inside of a library. `parsing` lets none of them through.
"""

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEXT_LIMIT = 2**28
"""The largest text file that is read [byte]: a thousand times a long list of cameras."""

REASONS: tuple[tuple[type[Exception], str], ...] = (
    (MemoryError, "it asks for more memory than there is"),
    (RecursionError, "it is nested too deeply"),
    (UnicodeDecodeError, "it is not text in UTF-8"),
)
"""What is said of errors whose own words help nobody."""


@contextmanager
def parsing(path: Path, expected: str) -> Iterator[None]:
    """Turn every exception of the block into a ValueError of one sentence that names the file.

    A ValueError that already begins with the file, or with another one in its folder, passes as it is; so do warnings
    that were made errors, and what is no error of the file: an interrupt, an exit.

    Args:
        path: the file that the block reads.
        expected: what it should be, with its article: "an npz file of plain arrays".

    Raises:
        ValueError: whatever the block raises: "PATH: expected EXPECTED, found a file that cannot be read (REASON)".
    """
    try:
        yield
    except Warning:
        raise
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith((f"{path}:", f"{path.parent}{os.sep}")):
            raise
        found = f"a file that cannot be read ({describe_error(error)})"
        raise ValueError(f"{path}: expected {expected}, found {found}") from error


@contextmanager
def error_named(field: str) -> Iterator[None]:
    """Turn every exception of the block into a ValueError that begins with the field that was read, for `parsing`."""
    try:
        yield
    except Warning:
        raise
    except Exception as error:
        raise ValueError(f"{field}: {describe_error(error)}") from error


def describe_error(error: Exception) -> str:
    """Return why something could not be read, in at most 200 characters of one line."""
    for kind, reason in REASONS:
        if isinstance(error, kind):
            return reason
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    reason = " ".join(str(error).split())
    if isinstance(error, KeyError):
        reason = f"{reason} is missing"
    shown = reason if len(reason) <= 200 else f"{reason[:197]}..."
    return shown if isinstance(error, ValueError) and shown else f"{type(error).__name__}: {shown}".rstrip(": ")


def check_regular(path: Path, expected: str) -> int:
    """Check that a path leads to a regular file, and return its size [byte].

    Opening a named pipe waits for somebody to write to it, and a device may never end.

    Raises:
        ValueError: if there is nothing, a folder, a pipe, a device, or a link that leads in a circle.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # a ValueError: a name with a zero in it
        circle = isinstance(error, OSError) and error.errno == errno.ELOOP
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        found = (
            "a link that leads in a circle"
            if circle
            else "nothing: there is no such file"
            if missing
            else describe_error(error)
        )
        raise ValueError(f"{path}: expected {expected}, found {found}") from None
    if not stat.S_ISREG(status.st_mode):
        found = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device, not a file"
        raise ValueError(f"{path}: expected {expected}, found {found}")
    return status.st_size


def read_bytes(path: Path, expected: str, most: int | None = None) -> bytes:
    """Return the content of a regular file.

    Args:
        path: the file.
        expected: what it should be, for messages.
        most: the largest size that is read [byte].

    Raises:
        ValueError: if it is not a regular file, cannot be read, or is larger.
    """
    size = check_regular(path, expected)
    if most is not None and size > most:
        raise ValueError(
            f"{path}: expected {expected}, found a file of {size} bytes, more than the {most} that are read"
        )
    with parsing(path, expected):
        return path.read_bytes()


def read_text(path: Path, expected: str, most: int = TEXT_LIMIT) -> str:
    """Return the text of a regular file in UTF-8, without a byte-order mark, lines ended by a line feed.

    Raises:
        ValueError: if it is not a regular file, cannot be read, is larger than `most` [byte], or is no such text.
    """
    content = read_bytes(path, expected, most)
    with parsing(path, expected):
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path, expected: str) -> object:
    """Return what a JSON file holds; a byte-order mark is skipped.

    Raises:
        ValueError: if it is not a regular file, or is not JSON.
    """
    text = read_text(path, expected)
    with parsing(path, expected):
        content: object = json.loads(text)
        return content

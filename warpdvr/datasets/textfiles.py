"""Read text, JSON and XML files of cameras as numbers, with one sentence for whatever is wrong with them."""

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.runtime import parsing


def read_text(path: Path) -> str:
    """Return a text file, UTF-8 with or without a byte order mark.

    Raises:
        ValueError: if it is missing, no text, or too large.
    """
    return parsing.read_text(path, "a text file")


def read_json(path: Path) -> dict[str, object]:
    """Return the table in a JSON file.

    Raises:
        ValueError: if it cannot be read or is no table.
    """
    table = parsing.read_json(path, "a JSON file")
    if not isinstance(table, dict):
        raise ValueError(f"{path}: expected a JSON table in curly brackets, found {type(table).__name__}")
    return table


def read_xml(path: Path) -> ElementTree.Element:
    """Return the root of an XML file without declarations of its own, which could expand to any size or name files.

    Raises:
        ValueError: if it cannot be read or declares entities or a document type.
    """
    text = read_text(path)
    if re.search(r"<!\s*(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise ValueError(f"{path}: expected plain XML, found a DOCTYPE or ENTITY declaration; remove it")
    with parsing.parsing(path, "an XML file"):
        return ElementTree.fromstring(text)


def to_number(label: str, value: object) -> float:
    """Return a finite number.

    Args:
        label: what it is, for the message.
        value: a number, or text that holds one.

    Raises:
        ValueError: if it is something else, or not finite.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{label}: expected a number, found {shorten(value)}") from None
    if not math.isfinite(number):
        raise ValueError(f"{label}: expected a finite number, found {number}")
    return number


def get_number(label: str, table: Mapping[str, object], key: str, default: float | None = None) -> float:
    """Return an entry of a table as a finite number; without a default it must be there."""
    if key not in table and default is not None:
        return default
    return to_number(f"{label}: {key}", table.get(key))


def to_numbers(label: str, values: object, count: int) -> list[float]:
    """Return `count` finite numbers of a list, or of text between spaces; nested lists are read row by row."""
    flat = values.split() if isinstance(values, str) else _flatten(values)
    if len(flat) != count:
        raise ValueError(f"{label}: expected {count} numbers, found {len(flat)}")
    return [to_number(label, value) for value in flat]


def to_matrix(label: str, values: object, rows: int, columns: int) -> Float[Tensor, "rows columns"]:
    """Return a matrix, float64, of finite numbers that are stored row by row."""
    return torch.tensor(to_numbers(label, values, rows * columns), dtype=torch.float64).reshape(rows, columns)


def get_table(label: str, table: Mapping[str, object], key: str) -> dict[str, object]:
    """Return an entry that is itself a table."""
    value = table.get(key)
    if not isinstance(value, dict):
        raise ValueError(f"{label}: expected an entry {key!r} that is a table, found {shorten(value)}")
    return value


def get_list(label: str, table: Mapping[str, object], key: str) -> list[object]:
    """Return an entry that is a list."""
    value = table.get(key)
    if not isinstance(value, list):
        raise ValueError(f"{label}: expected an entry {key!r} that is a list, found {shorten(value)}")
    return value


def get_name(label: str, value: object) -> str:
    """Return the name of a file."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError(f"{label}: expected the name of a picture, found {shorten(value)}")
    return value


def shorten(value: object) -> str:
    """Return a value as it is written in a message, at most 60 characters of it."""
    try:
        text = repr(value)
    except (ValueError, RecursionError, MemoryError):  # an integer of more digits than Python writes
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def join_numbers(values: Sequence[float] | Tensor) -> str:
    """Return numbers in full precision, with spaces between them."""
    numbers = values.double().flatten().tolist() if isinstance(values, Tensor) else values
    return " ".join(repr(float(number)) for number in numbers)


def join_rows(matrix: Float[Tensor, "rows columns"]) -> str:
    """Return a matrix in full precision, a line for each row."""
    return "".join(f"{join_numbers(row)}\n" for row in matrix)


def _flatten(values: object) -> list[object]:
    """Return the items of a list, and those of the lists in it."""
    if not isinstance(values, list | tuple):
        return [values]
    return [item for value in values for item in (value if isinstance(value, list | tuple) else [value])]

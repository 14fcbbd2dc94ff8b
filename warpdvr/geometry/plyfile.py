"""Parse PLY, ascii and binary of either byte order: its elements, columns by name, and lists as one flat array.

Counts are compared with the bytes that are there before anything is made of them, and lists are kept flat, so that what
is read takes a few times the size of the file and no more.
"""

import re
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from warpdvr.runtime.parsing import error_named

_NAMES = "char uchar short ushort int uint float double int8 uint8 int16 uint16 int32 uint32 float32 float64".split()
_KINDS = "i1 u1 i2 u2 i4 u4 f4 f8 i1 u1 i2 u2 i4 u4 f4 f8".split()
TYPES = dict(zip(_NAMES, _KINDS, strict=True))
"""NumPy's names of the types of PLY."""

ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
HEADER_LIMIT = 2**20
"""Where the header must have ended [byte]."""

CODES = {"i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I"}
"""The names that `struct` has for the types of a count."""


class Lists(NamedTuple):
    """A list per row: how long each is, and the values of all."""

    counts: NDArray[np.int64]
    values: np.ndarray


Columns = dict[str, np.ndarray | Lists]
"""A row per element."""


@dataclass(frozen=True)
class Property:
    """A column of an element."""

    name: str
    kind: str
    """NumPy's type of the value, or of the values of a list."""
    count: str | None
    """NumPy's type of the length of a list; None for a single value."""


@dataclass(frozen=True)
class Element:
    """A table that the header announces."""

    name: str
    rows: int
    properties: tuple[Property, ...]

    @property
    def least(self) -> int:
        """The fewest bytes of a row of binary numbers: lists may be empty."""
        return sum(np.dtype(p.count or p.kind).itemsize for p in self.properties)


def parse(data: bytes) -> dict[str, Columns]:
    """Return the columns of each element of a PLY file.

    Raises:
        ValueError: if the header is none of a PLY file, or announces more than follows.
        struct.error, KeyError, IndexError, OverflowError: in some such cases.
    """
    order, elements, at = _header(data)
    if not order:
        words = iter(data[at:].split())
        return {element.name: _read_words(words, element, len(data) - at) for element in elements}
    found: dict[str, Columns] = {}
    for element in elements:
        with error_named(f"element {element.name!r}"):
            _require(element.rows * element.least <= len(data) - at, element)
            found[element.name], at = _read_rows(data, at, element, order)
    return found


def _header(data: bytes) -> tuple[str, list[Element], int]:
    """Return the byte order, the elements, and where the header ends."""
    end = re.compile(rb"(?:^|[\r\n])end_header[ \t]*(\r\n|\n|\r)").search(data, 0, HEADER_LIMIT)
    lines = data[: end.start()].decode("ascii", "replace").splitlines() if end else []
    words = [line.split() for line in lines]
    if end is None or words[:1] != [["ply"]]:
        raise ValueError("there is no PLY header")
    order, tables = None, list[tuple[str, int, list[Property]]]()
    for row in words[1:]:
        match row:
            case ["format", str(name), *_]:
                order = ORDERS.get(name)
            case ["element", name, number]:
                tables.append((name, int(number), []))
            case ["property", "list", count, kind, name] if tables:
                tables[-1][2].append(Property(name, _kind(kind), _kind(count, "iu")))
            case ["property", kind, name] if tables:
                tables[-1][2].append(Property(name, _kind(kind), None))
            case ["comment" | "obj_info", *_] | []:
                pass
            case _:
                raise ValueError(f"the header holds the line {' '.join(row)[:80]!r}")
    if order is None:
        raise ValueError("the header names no format: ascii, binary_little_endian or binary_big_endian")
    elements = [Element(name, number, tuple(properties)) for name, number, properties in tables]
    for element in elements:
        names = {p.name for p in element.properties}
        if element.rows < 0 or len(names) < len(element.properties) or (element.rows and not names):
            raise ValueError(f"the element {element.name!r} has {element.rows} rows of columns {sorted(names)}")
    if len({element.name for element in elements}) < len(elements):
        raise ValueError("two elements have one name")
    return order, elements, end.end()


def _kind(name: str, kinds: str = "iuf") -> str:
    """Return NumPy's name of a type."""
    if name not in TYPES or TYPES[name][0] not in kinds:
        raise ValueError(f"the header names a type {name[:40]!r}, expected one of {', '.join(_NAMES)}")
    return TYPES[name]


def _require(holds: bool, element: Element) -> None:
    if not holds:
        raise ValueError(f"{element.rows} rows of {element.name!r} are announced, the file ends too early")


def _read_words(words: Iterator[bytes], element: Element, size: int) -> Columns:
    """Read an element of an ascii file of `size` bytes."""
    _require(element.rows * len(element.properties) <= size, element)
    numbers = {p.name: array("d") for p in element.properties if p.count is None}
    lists = {p.name: (array("q"), array("d")) for p in element.properties if p.count is not None}
    row, name = 0, ""
    try:
        for row in range(element.rows):  # noqa: B007 (it is named in the error)
            for p in element.properties:
                name, word = p.name, next(words, None)
                _require(word is not None, element)
                if p.count is None:
                    numbers[name].append(float(word or b""))
                    continue
                count, (counts, values) = int(word or b""), lists[name]
                if not 0 <= count <= size:
                    raise ValueError(f"a list announces {count} values")
                before = len(values)
                values.extend(map(float, islice(words, count)))
                _require(len(values) == before + count, element)
                counts.append(count)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{element.name} {row}, {name}: {error}") from error
    columns: Columns = {}
    for p in element.properties:
        if p.count is None:
            columns[p.name] = _typed(numbers[p.name], p)
        else:
            columns[p.name] = Lists(np.array(lists[p.name][0], np.int64), _typed(lists[p.name][1], p))
    return columns


def _typed(values: "array[float]", p: Property) -> np.ndarray:
    """Return numbers of an ascii file as an array; integers in their type, floats with all their digits."""
    column = np.array(values, np.float64)
    if p.kind[0] == "f":
        return column
    limits = np.iinfo(p.kind)
    if not ((column >= limits.min) & (column <= limits.max) & (column % 1 == 0)).all():
        raise ValueError(f"{p.name} holds a number that is no integer from {limits.min} to {limits.max}")
    return column.astype(p.kind)


def _read_rows(data: bytes, at: int, element: Element, order: str) -> tuple[Columns, int]:
    """Read an element of a binary file from `at`; also return where it ends."""
    plain = _read_plain_rows(data, at, element, order)
    if plain is not None:
        return plain
    readers = [
        (p, struct.Struct(order + CODES[p.count]) if p.count else None, np.dtype(p.kind).itemsize, bytearray())
        for p in element.properties
    ]
    counts = {p.name: array("q") for p in element.properties if p.count}
    for _ in range(element.rows):
        for p, count, size, content in readers:
            n = 1
            if count is not None:
                (n,) = count.unpack_from(data, at)
                at += count.size
                counts[p.name].append(n)
            _require(0 <= n * size <= len(data) - at, element)
            content += data[at : at + n * size]
            at += n * size
    columns: Columns = {}
    for p, count, _, content in readers:
        values = np.frombuffer(content, order + p.kind)
        columns[p.name] = values if count is None else Lists(np.frombuffer(counts[p.name], np.int64), values)
    return columns, at


def _read_plain_rows(data: bytes, at: int, element: Element, order: str) -> tuple[Columns, int] | None:
    """Read an element whose lists are all as long as those of its first row, at once; None if they are not."""
    layout, start = list[tuple[str, str, tuple[int, ...]]](), at
    if not element.rows:
        empty = {p.name: np.empty(0, p.kind) for p in element.properties}
        none = np.empty(0, np.int64)
        return {p.name: Lists(none, empty[p.name]) if p.count else empty[p.name] for p in element.properties}, at
    for p in element.properties:
        length = 1
        if p.count is not None:
            (length,) = struct.unpack_from(order + CODES[p.count], data, start)
            layout.append((f"#{p.name}", order + p.count, ()))
            start += np.dtype(p.count).itemsize
        start += length * np.dtype(p.kind).itemsize
        _require(length >= 0 and start <= len(data), element)
        layout.append((p.name, order + p.kind, () if p.count is None else (length,)))
    if at + element.rows * (start - at) > len(data):
        return None
    rows = np.frombuffer(data, layout, element.rows, at)
    if not all((rows[name] == rows[name][0]).all() for name, _, _ in layout if name.startswith("#")):
        return None
    columns: Columns = {}
    for p in element.properties:
        column = rows[p.name]
        counts = np.full(len(column), column[0].size, np.int64)
        columns[p.name] = column if p.count is None else Lists(counts, column.reshape(-1))
    return columns, at + element.rows * (start - at)

"""What a compiled CUDA kernel needs, read from the ELF file of NVIDIA's compiler: no GPU and no other tool is needed.

The section `.nv.info` is a list of records: a format, an attribute, a length, and words of 32 bits, of which the first
is the symbol that the record is about.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

FRAME, REGISTERS = 0x11, 0x2F
"""Attributes: bytes of local memory of a function, and registers of a kernel."""

SIZED = 0x04
"""Format of a record whose length is given; the others are of four bytes."""


@dataclass
class Usage:
    """What a thread of a kernel needs."""

    registers: int = 0
    frame: int = 0
    """Local memory: arrays that are indexed while a kernel runs, and registers that were spilled [byte]."""


@dataclass(frozen=True)
class _Section:
    name: str
    offset: int
    size: int
    link: int


def read_usage(path: Path) -> dict[str, Usage]:
    """Return the needs of each function in a cubin, by its name."""
    data = path.read_bytes()
    sections = _sections(data)
    found: dict[str, Usage] = {}
    for section in sections:
        if section.name == ".nv.info":
            for attribute, symbol, value in _records(data, section):
                symbols = sections[section.link]
                (name,) = struct.unpack_from("<I", data, symbols.offset + 24 * symbol)
                usage = found.setdefault(_text(data, sections[symbols.link].offset + name), Usage())
                if attribute == FRAME:
                    usage.frame = value
                elif attribute == REGISTERS:
                    usage.registers = value
    return found


def _sections(data: bytes) -> list[_Section]:
    (table,) = struct.unpack_from("<Q", data, 0x28)
    size, count, names = struct.unpack_from("<HHH", data, 0x3A)
    headers = [struct.unpack_from("<IIQQQQI", data, table + i * size) for i in range(count)]
    start = headers[names][4]
    return [_Section(_text(data, start + h[0]), h[4], h[5], h[6]) for h in headers]


def _records(data: bytes, section: _Section) -> list[tuple[int, int, int]]:
    """Return attribute, symbol and value of each record about a symbol."""
    at, end, records = section.offset, section.offset + section.size, []
    while at < end:
        form, attribute, length = struct.unpack_from("<BBH", data, at)
        if form == SIZED and length == 8:
            records.append((attribute, *struct.unpack_from("<II", data, at + 4)))
        at += 4 + (length if form == SIZED else 0)
    return records


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()

"""Check options from a file against their types, and suggest names for misspelt ones."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Literal, Union, get_args, get_origin

PLAIN = (bool, int, float, str, NoneType)
"""Types of single values in a TOML file, and of a missing one."""


def suggest(name: str, names: Iterable[str], *, prefix: str = "") -> str:
    """Return "; did you mean NAME?" with the name nearest to a misspelt one, or nothing if none is near."""
    near = get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def refuse_class(where: str, value: object) -> None:
    """Refuse a class where one of its objects is needed.

    Raises:
        ValueError: if the value is a class.
    """
    if isinstance(value, type):
        raise ValueError(f"{where}: {value.__name__} is a class: call it, such as {value.__name__}()")


def is_plain(hint: object) -> bool:
    """Return whether a TOML file can hold a type: numbers, text, booleans, and lists of them."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind is Literal:
        return True
    if parts:
        return kind in (tuple, list, Sequence, Union, UnionType) and all(p is ... or is_plain(p) for p in parts)
    return hint in PLAIN


def type_name(hint: object) -> str:
    """Return a type as it is written in a signature."""
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")


def convert(value: object, hint: object) -> object:
    """Convert a value from a TOML file to a plain type: a list to a tuple, or an integer to a float, if so annotated.

    Nothing else is converted: neither text to numbers, nor numbers to booleans. If the type is not plain (`is_plain`),
    the value is returned unchanged.

    Raises:
        TypeError: if the value is of another type; the message begins with "must".
    """
    import msgspec

    if not is_plain(hint):
        return value
    try:
        converted: object = msgspec.convert(value, hint)
        return converted
    except msgspec.ValidationError:
        raise TypeError(f"must be of type {type_name(hint)}, got {value!r}") from None

"""Fields by name."""

from collections.abc import Callable
from importlib.metadata import entry_points
from inspect import signature
from typing import Any, TypeVar

from torch import nn

from warpdvr.fields.adapter import as_field
from warpdvr.fields.base import Field

GROUP = "warpdvr.fields"
"""The entry-point group in which packages offer their fields."""

F = TypeVar("F", bound=Callable[..., nn.Module])

_registered: dict[str, Callable[..., nn.Module]] = {}


def register(name: str) -> Callable[[F], F]:
    """Register a field class, or a function that makes a field, under `name`. A decorator; the last one wins."""

    def keep(factory: F) -> F:
        _registered[name] = factory
        return factory

    return keep


def names() -> list[str]:
    """Return the names that `make` knows."""
    return sorted({*_registered, *(entry.name for entry in entry_points(group=GROUP))})


def make(name: str, **options: Any) -> Field:
    """Make a field by name; an unregistered name is looked up among the installed packages, by that name only.

    An option that is a table with a `kind` (or a list of such) is a field itself, so that scene files can nest them:
    `make("translate", part={"kind": "sphere", "radius": 0.4}, offset=[0.1, 0, 0])`.

    Raises:
        ValueError: if the name or an option is unknown.
    """
    factory = _registered.get(name)
    if factory is None:
        found = list(entry_points(group=GROUP, name=name))
        if not found:
            raise ValueError(f"unknown field {name!r}; known are {', '.join(names())}")
        factory = found[0].load()
    options = {key: _nested(value) for key, value in options.items()}
    known = signature(factory).parameters
    for key in options:
        if key not in known:
            raise ValueError(f"field {name!r} has no option {key!r}; its options are {', '.join(known)}")
    needed = [k for k, p in known.items() if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if missing := [key for key in needed if key not in options]:
        raise ValueError(f"field {name!r} needs {' and '.join(missing)}")
    return as_field(factory(**options))


def _nested(value: Any) -> Any:
    if isinstance(value, dict) and "kind" in value:
        return make(value["kind"], **{key: item for key, item in value.items() if key != "kind"})
    if isinstance(value, list):
        return [_nested(item) for item in value]
    return value

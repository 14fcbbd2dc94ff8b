"""Register fields by name, and make them from it."""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from inspect import Parameter, signature
from itertools import zip_longest
from typing import TypeVar, get_type_hints

from torch import nn

from warpdvr.fields.adapter import as_field
from warpdvr.fields.base import Field
from warpdvr.runtime.arguments import check_positive
from warpdvr.runtime.inference_mode import outside_inference
from warpdvr.runtime.parsing import describe_error
from warpdvr.runtime.validate import PLAIN, convert, suggest

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


@outside_inference
def make(name: str, **options: object) -> Field:
    """Make a field by name; an unregistered name is looked up in the entry points of installed packages.

    An option that is a table with a `kind` (or a list of such tables) becomes a field, so that scene files can nest:
    `make("translate", part={"kind": "sphere", "radius": 0.4}, offset=[0.1, 0, 0])`.

    Raises:
        ValueError: if the name or an option is unknown, or an option makes no sense.
    """
    factory = _factory(name)
    parameters = _parameters(name, factory, options)
    needed = [
        key
        for key, p in parameters.items()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and key not in options
    ]
    if needed:
        raise ValueError(f"field {name!r} needs {' and '.join(needed)}")
    try:
        check_options(name, {key: value for key, value in options.items() if type(value) in (*PLAIN, list, tuple)})
    except TypeError as error:
        raise ValueError(f"make: {error}") from None
    sizes: Sequence[str] = getattr(factory, "sizes", ())  # options that make sense for a new field only if positive
    check_positive(name, **{key: value for key, value in options.items() if key in sizes})
    try:
        return as_field(factory(**{key: _nested(value) for key, value in options.items()}))
    except (MemoryError, OverflowError, RecursionError) as error:
        reason = describe_error(error)
        raise ValueError(f"field {name!r}: of these options no field can be made: {reason}") from error


def check_options(name: str, options: Mapping[str, object]) -> None:
    """Check the options of a scene file without making the field; required options may still be missing.

    Raises:
        ValueError: if the name or an option is unknown.
        TypeError: if the type of an option disagrees with its annotation, where that is a type of plain values.
    """
    factory = _factory(name)
    _parameters(name, factory, options)
    try:
        hints = get_type_hints(factory.__init__ if isinstance(factory, type) else factory)  # type: ignore[misc]
    except NameError:  # annotations that only a type checker can resolve
        hints = {}
    for key, value in options.items():
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict) and "kind" in part:
                check_options(part["kind"], {k: v for k, v in part.items() if k != "kind"})
        try:
            convert(value, hints.get(key, object))
        except TypeError as error:
            raise TypeError(f"{key} of {name} {error}") from None


def portable(field: Field, options: Mapping[str, object]) -> dict[str, object]:
    """Return the options with which `make` rebuilds a field for its weights, without reading any file.

    Args:
        field: the field.
        options: those that it was made with, which hold for the parts that have no `options` of their own.
    """
    if field.options is not None:
        return dict(field.options)

    def rebuilt(value: object, part: object) -> object:
        if isinstance(value, list):
            items = [*part] if isinstance(part, nn.ModuleList) else []
            return [rebuilt(item, owner) for item, owner in zip_longest(value, items[: len(value)])]
        if isinstance(value, dict) and "kind" in value:
            own = {key: item for key, item in value.items() if key != "kind"}
            return {"kind": value["kind"], **(portable(part, own) if isinstance(part, Field) else own)}
        return value

    parts = dict(field.named_children())
    return {key: rebuilt(value, parts.get(key)) for key, value in options.items()}


def _factory(name: str) -> Callable[..., nn.Module]:
    """Return the class or function that makes the fields of this name."""
    if name in _registered:
        return _registered[name]
    installed = list(entry_points(group=GROUP, name=name))
    if not installed:
        raise ValueError(f"unknown field {name!r}; known are {', '.join(names())}{suggest(name, names())}")
    factory: Callable[..., nn.Module] = installed[0].load()
    return factory


def _parameters(name: str, factory: Callable[..., nn.Module], options: Mapping[str, object]) -> Mapping[str, Parameter]:
    """Return the parameters of a factory; refuse options that are not among them."""
    parameters = signature(factory).parameters
    for key in options:
        if key not in parameters:
            options_text = ", ".join(parameters)
            raise ValueError(
                f"field {name!r} has no option {key!r}; its options are {options_text}{suggest(key, parameters)}"
            )
    return parameters


def _nested(value: object) -> object:
    """Return the value with tables that have a `kind` replaced by their fields."""
    if isinstance(value, dict) and "kind" in value:
        return make(value["kind"], **{key: item for key, item in value.items() if key != "kind"})
    if isinstance(value, list):
        return [_nested(item) for item in value]
    return value

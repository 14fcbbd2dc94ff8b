"""What state a field is in, so that whatever remembers values of it notices that they are out of date.

The state is compared by content. Torch's own counter, `Tensor._version`, does not suffice: fused optimisers and
`tensor.data` change weights and leave it as it is, and a new count need not mean a new value.
"""

import functools
import types
import weakref
from collections.abc import Callable
from enum import Enum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from warpdvr.fields.base import Field

WHOLE = 1 << 12
"""Tensors of at most this many elements are compared as they are, larger ones by a sample and a sum of their bits."""

SAMPLE = 256
"""About the number of elements in that sample."""

DEPTH = 4
"""How far objects that are no modules are looked into."""

ITEMS = 1 << 10
"""Lists and dictionaries with more entries are not looked into."""

_INTERNAL = frozenset(vars(nn.Module()))
"""Attributes that Torch gives to every module, its mode among them."""

_Group = tuple[torch.device, torch.dtype]


class Memory:
    """Base class of what remembers something of a field: it is no part of the state of a field that keeps it."""


class Change(Enum):
    """What became of a field since its version was noted."""

    NONE = "none"
    """Nothing, or it is a copy in the same state."""
    WEIGHTS = "weights"
    """The same field has other weights, or other attributes."""
    FIELD = "field"
    """It is another field."""


class Version(Memory):
    """The state of a field at one time: its parameters, buffers, and the tensors and numbers among its attributes.

    Of a plain function, its code and the variables that it uses from outside. Takes memory for the smaller tensors, and
    holds the field by a weak reference. Noting or comparing one evaluates nothing, reads each weight once, and waits
    for a GPU once.

    Not seen are variables from outside that methods of a module use, and what objects hide from `vars`.
    """

    def __init__(self, field: Field, ignored: frozenset[str] = frozenset(), *, exact: bool = True):
        """Note the present state.

        Args:
            field: any field; one that another one gets its values from (`Field.value_of`) stands for that.
            ignored: paths of attributes that say nothing about the surface.
            exact: False compares tensors alone, and large ones by a sample only: enough for a step of an optimiser.
        """
        source = _source(field)
        self.ignored, self.exact = ignored, exact
        self._reference, self._code = _reference(source), _code(source)
        self._plain: dict[str, object] = {}
        self._pieces: list[tuple[str, _Group, int]] = []
        groups: dict[_Group, list[Tensor]] = {}
        with torch.no_grad():
            for path, leaf in _leaves(source):
                if path in ignored:
                    continue
                if not isinstance(leaf, Tensor):
                    self._plain |= {path: leaf} if exact else {}
                    continue
                self._plain[path] = leaf.dtype, leaf.shape
                for part in _content(leaf, sums=exact):
                    group = part.device, part.dtype
                    groups.setdefault(group, []).append(part)
                    self._pieces.append((path, group, len(part)))
            self._content = {group: torch.cat(parts) for group, parts in groups.items()}

    def is_of(self, field: Field) -> bool:
        """Return whether this is a version of the field itself, not of a copy; a function is known by its code."""
        source, own = _source(field), self._reference()
        same_method = isinstance(source, types.MethodType) and source == own
        return source is own or same_method or (self._code is not None and _code(source) is self._code)

    def change(self, field: Field) -> Change:
        """Return what became of the field since."""
        now = Version(field, self.ignored, exact=self.exact)
        same = self._plain == now._plain and self._same_content(now)
        if self.is_of(field):
            return Change.NONE if same else Change.WEIGHTS
        is_copy = same and (self.exact or bool(self._pieces))
        return Change.NONE if is_copy else Change.FIELD

    def settled(self, field: Field) -> "Version":
        """Return the present version, without what changed since this one: call it after an evaluation alone.

        What an evaluation changes, such as a counter, says nothing about the surface.
        """
        now = Version(field, self.ignored, exact=self.exact)
        changed = {path for path, value in now._plain.items() if self._plain.get(path, now) != value}
        if not now._same_content(self):
            before = self._split()
            changed |= {path for path, parts in now._split().items() if parts != before.get(path)}
        return Version(field, self.ignored | changed, exact=self.exact) if changed else now

    def _same_content(self, other: "Version") -> bool:
        mine, others = self._bits(), other._bits()
        return len(mine) == len(others) and all(
            torch.equal(a, b.to(a.device)) for a, b in zip(mine.values(), others.values(), strict=True)
        )

    def _bits(self) -> dict[torch.device, Tensor]:
        """Return all content on each device as bytes, for which NaN is the same as NaN."""
        parts: dict[torch.device, list[Tensor]] = {}
        for (device, _), part in self._content.items():
            parts.setdefault(device, []).append(part.view(torch.uint8))
        return {device: torch.cat(part) if len(part) > 1 else part[0] for device, part in parts.items()}

    def _split(self) -> dict[str, list[bytes]]:
        """Return the content of each tensor by its path."""
        rest = {group: content.cpu() for group, content in self._content.items()}
        parts: dict[str, list[bytes]] = {}
        for path, group, n in self._pieces:
            part, rest[group] = rest[group][:n], rest[group][n:]
            parts.setdefault(path, []).append(bytes(part.view(torch.uint8).numpy()))
        return parts

    def __deepcopy__(self, memo: object) -> "Version":
        return self  # it never changes

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_reference": _nothing, "_code": None}  # neither can be pickled


def _nothing() -> None:
    """Stand for a weak reference to a field that is gone."""


def _source(field: Field) -> object:
    """Return the object that a field's values come from."""
    source: object = field
    while isinstance(source, Field) and source.value_of is not None:
        source = source.value_of
    return source


def _reference(source: object) -> Callable[[], object]:
    """Return a weak reference where there can be one."""
    try:
        return weakref.WeakMethod(source) if isinstance(source, types.MethodType) else weakref.ref(source)
    except TypeError:
        return lambda: source


def _code(source: object) -> types.CodeType | None:
    """Return the code of a function: it is the same function if it is made again, as a lambda in a loop is."""
    if isinstance(source, functools.partial):
        return _code(source.func)
    return source.__code__ if isinstance(source, types.FunctionType) else None


def _content(tensor: Tensor, *, sums: bool) -> list[Tensor]:
    """Return flat tensors whose bits are the same as long as the tensor is, as good as certain."""
    flat = tensor.reshape(-1)
    if (n := tensor.numel()) <= WHOLE:
        return [flat]
    parts = [flat[:: n // SAMPLE], flat[-8:]]
    if sums:
        size = flat.element_size()
        words = flat.clone() if flat.storage_offset() * size % 8 else flat
        parts.append(words[: n * size // 8 * 8 // size].view(torch.int64).sum()[None])
    return parts


def _leaves(source: Any) -> list[tuple[str, object]]:
    """Return the tensors and other values that a field consists of, with their paths."""
    found: list[tuple[str, object]] = []
    seen: dict[int, object] = {}  # holds the objects, so that their numbers are not used again
    todo: list[tuple[str, Any, int]] = [("", source, 0)]
    while todo:
        path, thing, depth = todo.pop()
        role = _role(type(thing))  # type: ignore[arg-type]
        if role == "value" or (role == "tensor" and _has_elements(thing)):
            found.append((path, thing))
        elif role == "array":
            found.append((path, _array_content(thing)))
        elif role != "nothing" and id(thing) not in seen and depth <= DEPTH:
            seen[id(thing)] = thing
            parts = _parts_of_module(thing) if role in ("field", "module") else _parts(thing)
            found.append((path, _kind(thing, opaque=parts is None)))
            below = 0 if role in ("field", "module") else depth + 1
            todo += [(f"{path}.{name}", part, below) for name, part in parts or ()]
    return found


@functools.lru_cache(maxsize=1024)
def _role(kind: type) -> str:
    """Return how objects of a type are looked at."""
    roles = {
        "object": UninitializedTensorMixin,
        "tensor": Tensor,
        "field": Field,
        "module": nn.Module,
        "nothing": (Memory, types.ModuleType, torch.device),
        "value": (types.NoneType, bool, int, float, complex, str, bytes, Enum, np.generic, torch.dtype),
        "array": np.ndarray,
    }
    compiler = kind.__module__.startswith(("torch._dynamo", "torch._inductor"))
    return next((role for role, kinds in roles.items() if issubclass(kind, kinds)), "nothing" if compiler else "object")


def _has_elements(tensor: Any) -> bool:
    """Return whether the elements of a tensor can be looked at."""
    return tensor.layout is torch.strided and not (tensor.is_meta or tensor.is_quantized)


def _array_content(array: NDArray[Any]) -> object:
    return array.shape, id(array) if array.dtype == object else array.ravel()[:: array.size // WHOLE + 1].tobytes()


def _kind(thing: Any, *, opaque: bool) -> object:
    """Return what remains of an object without its parts: its type and, if nothing else is known, its identity."""
    kind = type(thing)
    if kind is types.FunctionType:
        return _fingerprint(thing.__code__)
    if isinstance(thing, type):
        return thing.__module__, thing.__qualname__
    return kind.__module__, kind.__qualname__, id(thing) if opaque else 0


def _fingerprint(code: types.CodeType) -> tuple[object, ...]:
    consts = [_fingerprint(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return code.co_filename, code.co_name, code.co_firstlineno, code.co_code, code.co_names, *consts


def _parts(thing: object) -> list[tuple[str, object]] | None:
    """Return the named parts of an object, or None if it shows none."""
    if isinstance(thing, types.FunctionType):
        return _parts_of_function(thing)
    if isinstance(thing, types.MethodType):
        return [("self", thing.__self__), ("function", thing.__func__)]
    if isinstance(thing, functools.partial):
        return [("function", thing.func), ("arguments", thing.args), ("keywords", thing.keywords)]
    if isinstance(thing, list | tuple):
        return [(str(i), part) for i, part in enumerate(thing)] if len(thing) <= ITEMS else []
    if isinstance(thing, dict):
        return [(repr(key), part) for key, part in thing.items()] if len(thing) <= ITEMS else []
    if isinstance(thing, type):
        return []
    return list(vars(thing).items()) if hasattr(thing, "__dict__") else None


def _parts_of_module(module: Any) -> list[tuple[str, object]]:
    """Return parameters, buffers, modules and attributes; a measured slope follows from the others."""
    own = [(name, part) for name, part in vars(module).items() if name not in _INTERNAL]
    buffers = module._buffers.items()
    if "slope" in module._buffers and isinstance(module, Field) and module.lipschitz_is_measured:
        buffers = [(name, part) for name, part in buffers if name != "slope"]
    return [*module._parameters.items(), *buffers, *module._modules.items(), *own]


def _parts_of_function(function: types.FunctionType) -> list[tuple[str, object]]:
    """Return the variables that a function uses from outside, and its defaults."""
    parts: list[tuple[str, object]] = [("defaults", function.__defaults__), ("keywords", function.__kwdefaults__)]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            parts.append((name, cell.cell_contents))
        except ValueError:  # it has not been assigned yet
            continue
    outside = function.__globals__
    names = {} if outside.get("__name__", "").startswith("torch.") else _names(function.__code__)
    return parts + [(name, outside[name]) for name in names if name in outside]


def _names(code: types.CodeType) -> dict[str, None]:
    """Return the names that code and the functions inside of it look up, each once."""
    names = dict.fromkeys(code.co_names)
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            names |= _names(inner)
    return names

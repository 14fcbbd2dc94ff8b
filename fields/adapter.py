"""Make fields from third-party modules and functions: the only place that probes what a foreign object offers."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from warpdvr.fields.base import Field, FieldLike, Kind, check_answer
from warpdvr.fields.bounds import Bounds, box
from warpdvr.fields.empty import answered
from warpdvr.fields.probe import check_members, check_mode, probe
from warpdvr.fields.warp_value import WarpValue
from warpdvr.runtime.inference_mode import outside_inference
from warpdvr.runtime.validate import refuse_class

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
"""Torch's modules that hide the members of the module inside of them."""


@outside_inference
def as_field(
    module: FieldLike | object,
    bounds: Bounds | object = None,
    *,
    kind: Kind | object = None,
    lipschitz: float | object = None,
) -> Field:
    """Make a `Field` of anything that answers at points.

    A `Field` is returned unchanged. A module or object with `value` and `bounds` (and any other member of `Field`)
    keeps its members; a module or function without `value` is called itself. Modules and functions are evaluated once
    at 28 points of their bounds to check that they keep the contract, at one of these with a gradient. A module's
    parameters remain its own and are fitted in place. `nn.DataParallel` is unwrapped.

    Args:
        module: the field, the module, or a function from points (n, 3) to values (n,).
        bounds: where to look for the surface, if the module has no `bounds`: two corners, or half the side of a cube
            around the origin [scene unit]. They take the type and the device of a module's parameters.
        kind: what the value means, if the module does not say. By default it is a distance where there is a Lipschitz
            bound, and otherwise a plain level set, treated like the logits of an occupancy.
        lipschitz: an upper bound of |grad value|, if the module does not state one.

    Example:
        >>> import torch
        >>> field = as_field(lambda x: x.norm(dim=-1) - 0.5, bounds=1.0, lipschitz=1.0)
        >>> field.value(torch.zeros(1, 3))
        tensor([-0.5000])

    Raises:
        ValueError: if it cannot be evaluated, has no bounds, is of an unknown kind, returns another shape or type,
            stops gradients (unless its slopes are differences over a `step`), depends on the rest of a batch or on
            chance, changes its buffers, or is positive inside; if it holds dropout or batch normalisation in training
            mode, or weights that were made in inference mode.
    """
    module = _unwrapped(module)
    if isinstance(module, Field):
        if (bounds, kind, lipschitz) != (None, None, None):
            raise ValueError(f"as_field: {module.name} is a Field and says itself what it is; give no other argument")
        field = _checked(module)
        check_mode(field)
        return field
    adapted = _adapt(module, bounds, kind, lipschitz)
    check_mode(adapted)
    probe(adapted, adapted.evaluate)
    return adapted


def adapt(module: FieldLike | object) -> Field:
    """Return what `as_field` returns without evaluating it, for callers that check more thoroughly."""
    module = _unwrapped(module)
    field = _checked(module) if isinstance(module, Field) else _adapt(module, None, None, None)
    check_mode(field)
    return field


def warp_value_of(field: Field) -> WarpValue | None:
    """Return the value of a field as a Warp function, or None if only Torch evaluates the field as it is.

    That is so for a field without `has_warp_value`, one whose modules have hooks, or one that is not in float32.
    """
    if field.bounds.dtype != torch.float32 or any(m._forward_hooks or m._forward_pre_hooks for m in field.modules()):
        return None
    return field.warp_value() if field.has_warp_value else None


def _unwrapped(module: object) -> object:
    """Return the module inside of Torch's wrappers; a compiled one only if `forward`, which was compiled, is unused."""
    while isinstance(module, WRAPPERS):
        module = module.module
    inner: object = getattr(module, "_orig_mod", None)  # of torch.compile
    return inner if isinstance(inner, nn.Module) and callable(getattr(inner, "value", None)) else module


def _checked(field: Field) -> Field:
    """Return a field whose attributes have meanings; it is not evaluated."""
    try:
        bounds: object = field.bounds
    except AttributeError:
        bounds = None
    if bounds is None:
        raise ValueError(f"{field.name} has no bounds: call super().__init__(bounds) at the start of its __init__")
    if not isinstance(bounds, Tensor) or tuple(bounds.shape) != (2, 3):
        raise ValueError(
            f"{field.name}.bounds: expected two corners (low, high), a tensor of shape (2, 3), got {bounds!r}"
        )
    if field.kind is None:
        raise ValueError(f"{field.name}.kind: must be 'distance' or 'occupancy', got None")
    check_members(field.name, field.kind, field.lipschitz, field.step, measured=field.lipschitz_is_measured)
    return field


def _adapt(module: object, bounds: object, kind: object, lipschitz: object) -> "_Adapted":
    refuse_class("as_field", module)
    name = _called(module)
    if not callable(module) and not callable(getattr(module, "value", None)):
        hint = f"; write warpdvr.make({module!r}) for a field by its name" if isinstance(module, str) else ""
        raise ValueError(f"as_field: expected a field, a module or a function, got {name}{hint}")
    check_members(name, kind, lipschitz, None)
    check_members(name, *(getattr(module, member, None) for member in ("kind", "lipschitz", "step")))
    own: object = getattr(module, "bounds", None)
    if bounds is None and own is None:
        raise ValueError(
            f"as_field: {name} has no bounds; give as_field(..., bounds=1.0), half the side of a cube "
            "around the origin, or two corners"
        )
    if isinstance(module, nn.Module) and bounds is None and isinstance(own, Tensor):
        return _Adapted(module, None, kind, lipschitz)  # the module's own tensor moves with it
    return _Adapted(module, box(own if bounds is None else bounds), kind, lipschitz)


class _Adapted(Field):
    """A module, a function or another object with some members of a field; `Field` supplies the others."""

    def __init__(self, module: Any, bounds: Tensor | None, kind: Any, lipschitz: Any):
        nn.Module.__init__(self)
        self.module, self._kind, self._lipschitz = module, kind, lipschitz
        if not isinstance(module, nn.Module) and isinstance(owner := _owner(module), nn.Module):
            self.owner = owner  # its parameters are those of the field
        if bounds is not None:
            tensors = (t for t in (*self.parameters(), *self.buffers()) if t.is_floating_point())
            self.register_buffer("given_bounds", bounds.to(next(tensors, bounds)))

    def _member(self, name: str) -> Any:  # whatever the third-party module has under this name
        return getattr(self.module, name, None)

    def _method(self, name: str) -> Callable[..., Any] | None:
        """Return the module's method, or None: a `color` may also be somebody's parameter."""
        member = self._member(name)
        return member if callable(member) else None

    @property
    def bounds(self) -> Tensor:  # type: ignore[override]
        member = self._buffers.get("given_bounds")
        return self._member("bounds") if member is None else member

    @property
    def lipschitz(self) -> float | None:  # type: ignore[override]
        bound: float | None = self._member("lipschitz")
        return self._lipschitz if bound is None else bound

    @property
    def kind(self) -> Kind:  # type: ignore[override]
        kind: Kind | None = self._kind or self._member("kind")
        return kind or ("occupancy" if self.lipschitz is None else "distance")

    @property
    def value_of(self) -> object:  # type: ignore[override]
        return self.module

    @property
    def rates(self) -> Mapping[str, float]:  # type: ignore[override]
        rates = self._member("rates")
        return rates if isinstance(rates, Mapping) else Field.rates

    @property
    def has_color(self) -> bool:
        return self._method("color") is not None

    @property
    def lipschitz_is_measured(self) -> bool:  # type: ignore[override]
        return self._method("bound_slope") is not None

    @property
    def name(self) -> str:
        return _called(self.module)

    def evaluate(self, x: Float[Tensor, "n 3"]) -> object:
        """Return whatever the third-party code returns at points x."""
        return (self._method("value") or self.module)(x)

    def value(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        return check_answer(self, x, answered(self.evaluate, x))


def _forwarded_method(name: str) -> Callable[..., object]:
    """Return a method that calls the module's method of that name, or that of `Field` if it has none."""

    def method(self: _Adapted, *arguments: object) -> object:
        method = self._method(name)
        return getattr(Field, name)(self, *arguments) if method is None else method(*arguments)

    return method


def _forwarded_value(name: str) -> property:
    """Return a property that reads the module's attribute, or that of `Field` if it has none."""

    def member(self: _Adapted) -> object:
        value = self._member(name)
        return getattr(Field, name) if value is None else value

    return property(member)


for _name in ("geometry", "color", "select", "bound_slope", "as_layers", "prior", "anneal"):
    setattr(_Adapted, _name, _forwarded_method(_name))
for _name in ("step", "options"):
    setattr(_Adapted, _name, _forwarded_value(_name))


def _called(module: object) -> str:
    function = module.func if isinstance(module, partial) else module
    return getattr(function, "__name__", type(function).__name__)


def _owner(function: object) -> object:
    """Return the object whose method a function is, or that a `functools.partial` calls."""
    while isinstance(function, partial):
        function = function.func
    return function.__self__ if inspect.ismethod(function) else function

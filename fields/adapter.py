"""Make fields from third-party modules and functions: the only place that probes what a foreign object offers."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from warpdvr.fields.base import Bounds, Field, FieldLike, Kind, box, check_answer


def as_field(
    module: FieldLike | object,
    bounds: Bounds | None = None,
    *,
    kind: Kind | None = None,
    lipschitz: float | None = None,
) -> Field:
    """Make a `Field` of anything that answers at points.

    A `Field` is returned unchanged. A module with `value` and `bounds` (and any other member of `Field`) keeps its
    members; a module or function without `value` is called itself. Modules and functions are evaluated once at 28
    points of their bounds to check that they keep the contract. A module's parameters remain its own and are fitted in
    place.

    Args:
        module: the field, the module, or a function from points (n, 3) to values (n,).
        bounds: where to look for the surface, if the module has no `bounds`: two corners, or half the side of a cube
            around the origin [scene unit].
        kind: what the value means, if the module does not say. By default it is a distance where there is a Lipschitz
            bound, and otherwise a plain level set, treated like the logits of an occupancy.
        lipschitz: an upper bound of |grad value|, if the module does not state one.

    Example:
        >>> import torch
        >>> field = as_field(lambda x: x.norm(dim=-1) - 0.5, bounds=1.0, lipschitz=1.0)
        >>> field.value(torch.zeros(1, 3))
        tensor([-0.5000])

    Raises:
        ValueError: if it cannot be evaluated, has no bounds, returns another shape or type, depends on the rest of a
            batch, or is positive inside.
    """
    if isinstance(module, Field):
        if (bounds, kind, lipschitz) != (None, None, None):
            raise ValueError(f"as_field: {module.name} is a Field and says itself what it is; give no other argument")
        return module
    field = _adapt(module, bounds, kind, lipschitz)
    _probe(field)
    return field


def adapt(
    module: FieldLike | object, bounds: Bounds | None = None, kind: Kind | None = None, lipschitz: float | None = None
) -> Field:
    """Return what `as_field` returns without evaluating it, for callers that check more thoroughly."""
    return module if isinstance(module, Field) else _adapt(module, bounds, kind, lipschitz)


def _adapt(module: object, bounds: Bounds | None, kind: Kind | None, lipschitz: float | None) -> "_Adapted":
    if not callable(module):
        raise ValueError(f"as_field: expected a field, a module or a function, got {type(module).__name__}")
    module_bounds: Bounds | None = getattr(module, "bounds", None)
    if bounds is None and module_bounds is None:
        raise ValueError(
            f"as_field: {_called(module)} has no bounds; give as_field(..., bounds=1.0), half the side of a cube "
            "around the origin, or two corners"
        )
    corners: Bounds = module_bounds if bounds is None else bounds  # type: ignore[assignment]  # one of them is there
    if not isinstance(module, nn.Module):
        return _FunctionField(module, corners, kind, lipschitz)
    buffered = bounds is None and isinstance(module_bounds, Tensor)  # the module's own tensor moves with it
    return _ModuleField(module, None if buffered else corners, kind, lipschitz)


class _Adapted(Field):
    """A field whose values come from third-party code, so that their shape and type are checked."""

    @abstractmethod
    def evaluate(self, x: Float[Tensor, "n 3"]) -> object:
        """Return whatever the third-party code returns at points x."""

    def value(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        return check_answer(self, x, self.evaluate(x))


class _ModuleField(_Adapted):
    """A module with some members of a field; `Field` supplies the others."""

    def __init__(self, module: nn.Module, bounds: Bounds | None, kind: Kind | None, lipschitz: float | None):
        nn.Module.__init__(self)
        self.module, self._kind, self._lipschitz = module, kind, lipschitz
        if bounds is not None:
            self.register_buffer("given_bounds", box(bounds))

    def _member(self, name: str) -> Any:  # whatever the third-party module has under this name
        return getattr(self.module, name, None)

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
    def has_color(self) -> bool:
        return self._member("color") is not None

    @property
    def lipschitz_is_measured(self) -> bool:  # type: ignore[override]
        return self._member("bound_slope") is not None

    @property
    def name(self) -> str:
        return type(self.module).__name__

    def evaluate(self, x: Float[Tensor, "n 3"]) -> object:
        function = self._member("value") or self.module
        return function(x)


class _FunctionField(_Adapted):
    """A plain function of points, with bounds."""

    def __init__(
        self, function: Callable[[Tensor], object], bounds: Bounds, kind: Kind | None, lipschitz: float | None
    ):
        super().__init__(bounds)
        self.function, self.lipschitz = function, lipschitz
        self.kind = kind or ("occupancy" if lipschitz is None else "distance")

    @property
    def name(self) -> str:
        return _called(self.function)

    def evaluate(self, x: Float[Tensor, "n 3"]) -> object:
        return self.function(x)


def _forwarded_method(name: str) -> Callable[..., object]:
    """Return a method that calls the module's method of that name, or that of `Field` if it has none."""

    def method(self: _ModuleField, *arguments: object) -> object:
        method = self._member(name)
        return getattr(Field, name)(self, *arguments) if method is None else method(*arguments)

    return method


def _forwarded_value(name: str) -> property:
    """Return a property that reads the module's attribute, or that of `Field` if it has none."""

    def member(self: _ModuleField) -> object:
        value = self._member(name)
        return getattr(Field, name) if value is None else value

    return property(member)


for _name in ("geometry", "color", "select", "bound_slope", "as_layers", "prior", "anneal"):
    setattr(_ModuleField, _name, _forwarded_method(_name))
for _name in ("step", "options", "rates"):
    setattr(_ModuleField, _name, _forwarded_value(_name))


def _called(module: object) -> str:
    return getattr(module, "__name__", type(module).__name__)


@torch.no_grad()
def _probe(field: _Adapted) -> None:
    """Evaluate at a lattice of 3 x 3 x 3 points, at one of them alone and at none; refuse what breaks the contract."""
    bounds = field.bounds
    shaped = isinstance(bounds, Tensor) and tuple(bounds.shape) == (2, 3) and bounds.is_floating_point()
    if not shaped or not bool((bounds.isfinite() & (bounds[0] < bounds[1])).all()):
        raise ValueError(f"{field.name}.bounds: expected two finite corners low < high, shape (2, 3), got {bounds}")
    share = torch.cartesian_prod(*[torch.linspace(0, 1, 3)] * 3).to(bounds)
    x = bounds[0] + (bounds[1] - bounds[0]) * share
    values, alone, _ = (_answer(field, points) for points in (x, x[:1], x[:0]))
    field.probed = len(x) + 1
    if values.dtype != x.dtype or values.device != x.device:
        raise ValueError(
            f"{field.name}.value: expected {x.dtype} on {x.device}, as the points are, got {values.dtype} on "
            f"{values.device}"
        )
    if not bool(torch.isclose(values[:1], alone, rtol=1e-3, atol=1e-4, equal_nan=True).all()):
        raise ValueError(
            f"{field.name}.value: the value at a point depends on the other points of its batch; call eval() before, "
            "or take batch normalisation and dropout out"
        )
    middle = len(x) // 2
    if bool(values[middle] > 0) and bool((torch.cat([values[:middle], values[middle + 1 :]]) < 0).all()):
        raise ValueError(
            f"{field.name}.value: is negative all around and positive in the middle of its bounds, but a value is < 0 "
            "inside and > 0 outside: return its negative; a room that is seen from within is a subclass of "
            "warpdvr.Field"
        )


def _answer(field: _Adapted, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """Return the value at points x; whatever the module raises becomes one sentence."""
    try:
        value = field.evaluate(x)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{field.name}.value: fails for points {tuple(x.shape)} of {x.dtype}: {reason}") from error
    return check_answer(field, x, value)

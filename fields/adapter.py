"""Fields made of the modules and functions of others: the one place that asks what somebody else's object has."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from warpdvr.fields.base import Bounds, Field, FieldLike, Kind, box, check_answer


def as_field(
    module: FieldLike, bounds: Bounds | None = None, *, kind: Kind | None = None, lipschitz: float | None = None
) -> Field:
    """Make a `Field` of anything that answers at points.

    A `Field` is returned as it is. A module with `value` and `bounds` (and any other member of `Field`) keeps what it
    has; a module or function without `value` is called itself. Those two are asked at 28 points of their bounds, once,
    to see that they keep the contract; the parameters of a module stay its own and are fitted in place.

    Args:
        module: the field, the module, or a function from points (n, 3) to values (n,).
        bounds: where to look, for what has no `bounds` of its own: two corners, or half the side of a cube around the
            origin [scene unit].
        kind: what the value means, for what does not say so itself. If nobody says, it is a distance where there is a
            Lipschitz bound, and a plain level set, treated as logits of an occupancy are, where there is none.
        lipschitz: an upper bound of |grad value|, for what does not promise one itself.

    Example:
        >>> import torch
        >>> field = as_field(lambda x: x.norm(dim=-1) - 0.5, bounds=1.0, lipschitz=1.0)
        >>> field.value(torch.zeros(1, 3))
        tensor([-0.5000])

    Raises:
        ValueError: if it cannot be asked, has no bounds, answers with another shape or type, depends on the rest of a
            batch, or is positive inside.
    """
    if isinstance(module, Field):
        if (bounds, kind, lipschitz) != (None, None, None):
            raise ValueError(f"as_field: {module.name} is a Field and says itself what it is; give nothing besides it")
        return module
    field = adapt(module, bounds, kind, lipschitz)
    _probe(field)
    return field


def adapt(
    module: FieldLike, bounds: Bounds | None = None, kind: Kind | None = None, lipschitz: float | None = None
) -> Field:
    """Return what `as_field` returns without asking anything of it, for those who ask more thoroughly."""
    if isinstance(module, Field):
        return module
    if not callable(module):
        raise ValueError(f"as_field: expected a field, a module or a function, got {type(module).__name__}")
    own: Bounds | None = getattr(module, "bounds", None)
    if bounds is None and own is None:
        raise ValueError(
            f"as_field: {_called(module)} has no bounds; give as_field(..., bounds=1.0), half the side of a cube "
            "around the origin, or two corners"
        )
    corners: Bounds = own if bounds is None else bounds  # type: ignore[assignment]  # one of them is there
    if not isinstance(module, nn.Module):
        return _FunctionField(module, corners, kind, lipschitz)
    buffered = bounds is None and isinstance(own, Tensor)  # the module's own tensor moves with it
    return _ModuleField(module, None if buffered else corners, kind, lipschitz)


class _ModuleField(Field):
    """A module that has members of a field without being one; what it lacks is as in `Field`."""

    def __init__(self, module: nn.Module, bounds: Bounds | None, kind: Kind | None, lipschitz: float | None):
        nn.Module.__init__(self)
        self.module, self._kind, self._lipschitz = module, kind, lipschitz
        if bounds is not None:
            self.register_buffer("given_bounds", box(bounds))

    def _member(self, name: str) -> Any:
        return getattr(self.module, name, None)

    @property
    def bounds(self) -> Tensor:  # type: ignore[override]
        member = self._buffers.get("given_bounds")
        return self._member("bounds") if member is None else member

    @property
    def lipschitz(self) -> float | None:  # type: ignore[override]
        own: float | None = self._member("lipschitz")
        return self._lipschitz if own is None else own

    @property
    def kind(self) -> Kind:  # type: ignore[override]
        own: Kind | None = self._kind or self._member("kind")
        return own or ("occupancy" if self.lipschitz is None else "distance")

    @property
    def has_color(self) -> bool:
        return self._member("color") is not None

    @property
    def lipschitz_is_measured(self) -> bool:  # type: ignore[override]
        return self._member("bound_slope") is not None

    @property
    def name(self) -> str:
        return type(self.module).__name__

    def value(self, x: Tensor) -> Tensor:
        answer = self._member("value") or self.module
        return answer(x)


class _FunctionField(Field):
    """A plain function of points with bounds."""

    def __init__(
        self, function: Callable[[Tensor], Tensor], bounds: Bounds, kind: Kind | None, lipschitz: float | None
    ):
        super().__init__(bounds)
        self.function, self.lipschitz = function, lipschitz
        self.kind = kind or ("occupancy" if lipschitz is None else "distance")

    @property
    def name(self) -> str:
        return _called(self.function)

    def value(self, x: Tensor) -> Tensor:
        return self.function(x)


def _forwarded_method(name: str) -> Callable[..., Any]:
    """Return a method that calls the module's own, or that of `Field` if it has none."""

    def method(self: _ModuleField, *arguments: Any) -> Any:
        own = self._member(name)
        return getattr(Field, name)(self, *arguments) if own is None else own(*arguments)

    return method


def _forwarded_value(name: str) -> property:
    """Return a property that is the module's own, or that of `Field` if it has none."""

    def member(self: _ModuleField) -> Any:
        own = self._member(name)
        return getattr(Field, name) if own is None else own

    return property(member)


for _name in ("geometry", "color", "select", "bound_slope", "as_layers", "prior", "anneal"):
    setattr(_ModuleField, _name, _forwarded_method(_name))
for _name in ("step", "options", "rates"):
    setattr(_ModuleField, _name, _forwarded_value(_name))


def _called(module: object) -> str:
    return getattr(module, "__name__", type(module).__name__)


@torch.no_grad()
def _probe(field: Field) -> None:
    """Ask at a lattice of 3 x 3 x 3 points, at one of them alone and at none, and refuse what breaks the contract."""
    bounds = field.bounds
    shaped = isinstance(bounds, Tensor) and tuple(bounds.shape) == (2, 3) and bounds.is_floating_point()
    if not shaped or not bool((bounds.isfinite() & (bounds[0] < bounds[1])).all()):
        raise ValueError(f"{field.name}.bounds: expected two finite corners low < high, shape (2, 3), got {bounds}")
    place = torch.cartesian_prod(*[torch.linspace(0, 1, 3)] * 3).to(bounds)
    x = bounds[0] + (bounds[1] - bounds[0]) * place
    every, alone, _ = (_answer(field, points) for points in (x, x[:1], x[:0]))
    field.probed = len(x) + 1
    if every.dtype != x.dtype or every.device != x.device:
        raise ValueError(
            f"{field.name}.value: expected {x.dtype} on {x.device}, as the points are, got {every.dtype} on "
            f"{every.device}"
        )
    if not bool(torch.isclose(every[:1], alone, rtol=1e-3, atol=1e-4, equal_nan=True).all()):
        raise ValueError(
            f"{field.name}.value: the value at a point depends on the other points of its batch; call eval() before, "
            "or take batch normalisation and dropout out"
        )
    middle = len(x) // 2
    if bool(every[middle] > 0) and bool((torch.cat([every[:middle], every[middle + 1 :]]) < 0).all()):
        raise ValueError(
            f"{field.name}.value: is negative all around and positive in the middle of its bounds, but a value is < 0 "
            "inside and > 0 outside: return its negative; a room that is seen from within is a subclass of "
            "warpdvr.Field"
        )


def _answer(field: Field, x: Tensor) -> Tensor:
    """Return the value at points x (n, 3); what the module raises becomes one sentence."""
    try:
        value = field.value(x)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{field.name}.value: fails for points {tuple(x.shape)} of {x.dtype}: {reason}") from error
    return check_answer(field, x, value)

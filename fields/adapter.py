"""Make fields from third-party modules and functions: the only place that probes what a foreign object offers."""

from abc import abstractmethod
from collections.abc import Callable
from numbers import Real
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from warpdvr.fields.base import Bounds, Field, FieldLike, Kind, box, check_answer
from warpdvr.runtime.validate import refuse_class, suggest

EVAL = "call eval() before, or take batch normalisation and dropout out"
TORCH = "write it with Torch, so that gradients pass through it"


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
    points of their bounds to check that they keep the contract, at one of these with a gradient. A module's parameters
    remain its own and are fitted in place.

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
            stops gradients, depends on the rest of a batch, or is positive inside.
    """
    if isinstance(module, Field):
        if (bounds, kind, lipschitz) != (None, None, None):
            raise ValueError(f"as_field: {module.name} is a Field and says itself what it is; give no other argument")
        return _checked(module)
    field = _adapt(module, bounds, kind, lipschitz)
    _probe(field)
    return field


def adapt(
    module: FieldLike | object, bounds: Bounds | None = None, kind: Kind | None = None, lipschitz: float | None = None
) -> Field:
    """Return what `as_field` returns without evaluating it, for callers that check more thoroughly."""
    return _checked(module) if isinstance(module, Field) else _adapt(module, bounds, kind, lipschitz)


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
    _check_kind(field.name, field.kind)
    _check_lipschitz(field.name, field.lipschitz, is_measured=field.lipschitz_is_measured)
    return field


def _check_kind(name: str, kind: object) -> None:
    kinds = get_args(Kind)
    if kind not in kinds:
        known = " or ".join(repr(known) for known in kinds)
        raise ValueError(f"{name}.kind: must be {known}, got {kind!r}{suggest(str(kind).lower(), kinds)}")


def _check_lipschitz(name: str, bound: object, *, is_measured: bool = False) -> None:
    """Refuse what is no bound; one that was measured may be 0 where the field is constant."""
    number = isinstance(bound, Real) or (isinstance(bound, Tensor) and bound.ndim == 0)
    if bound is None or (number and not isinstance(bound, bool) and (is_measured or 0 < float(bound))):  # type: ignore[arg-type]
        return
    raise ValueError(
        f"{name}.lipschitz: must be a positive number, an upper bound of |grad value|, or None, got {bound!r}"
    )


def _adapt(module: object, bounds: object, kind: Kind | None, lipschitz: float | None) -> "_Adapted":
    if not callable(module):
        raise ValueError(f"as_field: expected a field, a module or a function, got {type(module).__name__}")
    refuse_class("as_field", module)
    for asked in (kind, getattr(module, "kind", None)):
        if asked is not None:
            _check_kind(_called(module), asked)
    for bound in (lipschitz, getattr(module, "lipschitz", None)):
        _check_lipschitz(_called(module), bound)
    module_bounds: object = getattr(module, "bounds", None)
    if bounds is None and module_bounds is None:
        raise ValueError(
            f"as_field: {_called(module)} has no bounds; give as_field(..., bounds=1.0), half the side of a cube "
            "around the origin, or two corners"
        )
    if isinstance(module, nn.Module) and bounds is None and isinstance(module_bounds, Tensor):
        return _ModuleField(module, None, kind, lipschitz)  # the module's own tensor moves with it
    corners = box(module_bounds if bounds is None else bounds)
    if isinstance(module, nn.Module):
        return _ModuleField(module, corners, kind, lipschitz)
    return _FunctionField(module, corners, kind, lipschitz)


class _Adapted(Field):
    """A field whose values come from third-party code, so that their shape and type are checked."""

    @abstractmethod
    def evaluate(self, x: Float[Tensor, "n 3"]) -> object:
        """Return whatever the third-party code returns at points x."""

    def value(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        return check_answer(self, x, self.evaluate(x))


class _ModuleField(_Adapted):
    """A module with some members of a field; `Field` supplies the others."""

    def __init__(self, module: nn.Module, bounds: Tensor | None, kind: Kind | None, lipschitz: float | None):
        nn.Module.__init__(self)
        self.module, self._kind, self._lipschitz = module, kind, lipschitz
        if bounds is not None:
            tensors = (t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point())
            self.register_buffer("given_bounds", bounds.to(next(tensors, bounds)))

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
    def value_of(self) -> object:  # type: ignore[override]
        return self.module

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
        self, function: Callable[[Tensor], object], bounds: Tensor, kind: Kind | None, lipschitz: float | None
    ):
        super().__init__(bounds)
        self.function, self.lipschitz = function, lipschitz
        self.kind = kind or ("occupancy" if lipschitz is None else "distance")

    @property
    def value_of(self) -> object:  # type: ignore[override]
        return self.function

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
    values, alone, _ = _answer(field, x), _differentiable_answer(field, x[:1]), _answer(field, x[:0])
    field.probed = len(x) + 1
    if values.dtype != x.dtype or values.device != x.device:
        raise ValueError(
            f"{field.name}.value: expected {x.dtype} on {x.device}, as the points are, got {values.dtype} on "
            f"{values.device}"
        )
    if not bool(torch.isclose(values[:1], alone, rtol=1e-3, atol=1e-4, equal_nan=True).all()):
        raise ValueError(f"{field.name}.value: the value at a point depends on the other points of its batch; {EVAL}")
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
        if "numpy" in reason and "ensor" in reason:  # Torch refuses to hand over a tensor that needs a gradient
            raise ValueError(f"{field.name}.value: turns the points into a NumPy array; {TORCH}") from error
        hint = f"; {EVAL}" if "more than 1 value per channel" in reason else ""
        message = f"{field.name}.value: fails for points {tuple(x.shape)} of {x.dtype}: {reason}{hint}"
        raise ValueError(message) from error
    return check_answer(field, x, value)


def _differentiable_answer(field: _Adapted, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """Return the value at points x, whose gradient must reach them; no gradient is stored anywhere."""
    if torch.is_inference_mode_enabled():  # nothing can be recorded
        return _answer(field, x)
    with torch.enable_grad():
        points = x.detach().clone().requires_grad_()
        value = _answer(field, points)
        try:
            (slope,) = torch.autograd.grad(value.sum(), points, allow_unused=True) if value.requires_grad else (None,)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{field.name}.value: its gradient with respect to the points fails: {reason}") from error
    if slope is None:
        raise ValueError(f"{field.name}.value: has no gradient with respect to the points; {TORCH}")
    return value.detach()

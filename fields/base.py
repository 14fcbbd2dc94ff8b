"""The contract between a field and the renderer, whole: what a field must have, what it may have, and how it is asked.

Inside of the package a field is a `Field`; `as_field` makes one of any module or function, once, at every public door.

How a field is asked:

- at points (n, 3) of its own `bounds.dtype` on `bounds.device`, and it answers in that type, on that device, with
  shape (n,); n may be 0 or 1;
- in the mode that it is in: nothing here calls `train()` or `eval()`, so layers whose answer depends on the rest of a
  batch or on chance (batch normalisation, dropout) must be switched off by whoever owns them;
- with autograd recording only where a derivative is wanted.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from warpdvr.fields.layers import Layer

Bounds = tuple[tuple[float, float, float], tuple[float, float, float]] | Tensor | float
"""Two corners (low, high), or half the side of a cube around the origin [scene unit]."""

Kind = Literal["distance", "occupancy"]
"""What the number means: a signed distance [scene unit], or an occupancy as logit(level) - logit(occupancy)."""

CHUNK = 1 << 16
"""Points in one evaluation of a field, where many are asked at once."""


class Field(nn.Module, ABC):
    """A surface {value = 0} with colours on it.

    Only `value` must be written; every other member is optional and has its default here. The renderer asks a field
    for what it can do, never for its type. `warpdvr.testing.check_field` tests all of it.
    """

    bounds: Tensor
    """Corners (low, high) of the box outside of which nothing is looked for, shape (2, 3) [scene unit]."""

    kind: Kind = "distance"
    """What the value means. A fit keeps the slope of a distance near 1 (the eikonal term) and takes the logits of an
    occupancy as they are."""

    lipschitz: float | None = None
    """An upper bound of |grad value| inside of the bounds, if there is one; sphere tracing needs it. It says nothing
    about what the value means."""

    lipschitz_is_measured: bool = False
    """Whether `lipschitz` is what `bound_slope` found at some points, and no promise."""

    step: float | None = None
    """Width of the central differences by which slopes and normals are taken [scene unit]; None: exact derivatives."""

    options: Mapping[str, Any] | None = None
    """What `make` needs to make this field again for the weights of a checkpoint, in plain values; None: what it was
    made with. For fields that are made from a file, which may be gone by then."""

    rates: Mapping[str, float] = {"": 2e-3}
    """Learning rates of a fit, by how a parameter's name ends; the longest ending counts."""

    def __init__(self, bounds: Bounds = 1.0):
        """Set the bounds: two corners, or half the side of a cube around the origin."""
        super().__init__()
        self.register_buffer("bounds", box(bounds))

    @abstractmethod
    def value(self, x: Tensor) -> Tensor:
        """Return the value (n,) at points (n, 3): < 0 inside, 0 on the surface, > 0 outside; differentiable."""

    def geometry(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the value (n,) and features for the colour (n, k) or None; `value` is its first part."""
        return self.value(x), None

    def color(self, x: Tensor, normal: Tensor, direction: Tensor, feature: Tensor | None) -> Tensor:
        """Return the sRGB colour (n, 3) in [0, 1] that leaves x against the ray direction.

        A field that has nothing to say about colour looks like grey clay under a lamp at the camera.

        Args:
            x: points on the surface, shape (n, 3).
            normal: unit normals there, outward, shape (n, 3).
            direction: unit directions of the rays, shape (n, 3).
            feature: the second part of `geometry(x)`.
        """
        facing = (normal * direction).sum(-1, keepdim=True).abs()
        return (0.25 + 0.6 * facing).expand_as(x)

    @property
    def has_color(self) -> bool:
        """Whether the field has colours of its own, not the clay of `Field.color`."""
        return type(self).color is not Field.color

    def select(self, shape_index: Tensor) -> "Field":
        """Return the field as it answers at n points when it is told for each which shape is meant, (n,) int64.

        Only a field that holds several shapes, told apart by latent codes, has something to return.

        Raises:
            ValueError: for all others.
        """
        raise ValueError(f"{self.name}: is one shape, but rays ask for one of several (Rays.shape_index)")

    def bound_slope(self) -> int:
        """Bring `lipschitz` up to date after the weights moved, and return how many points were asked for it.

        A fit calls it now and then. Nothing to do for a field whose bound does not change, or that has none.
        """
        return 0

    def as_layers(self) -> Sequence[Layer] | None:
        """Return what `value` does as a list of plain layers (warpdvr/fields/layers.py); None if it is no such network.

        With it, `RangeMarch` proves where no surface is.
        """
        return None

    def prior(self) -> Tensor | None:
        """Return what the field itself would like to be small, with its weight: a differentiable scalar, or None.

        A fit adds it to its loss. It is how a field says which of its parameters are likely, such as latent codes.
        """
        return None

    def anneal(self, progress: float) -> None:
        """Show as much detail as a fit should teach at `progress`, from 0 to 1; nothing to do for most fields."""

    @property
    def name(self) -> str:
        """What messages call the field: the name of its class."""
        return type(self).__name__


FieldLike = Field | nn.Module | Callable[[Tensor], Tensor]
"""What `as_field` makes a field of."""


class Decoder(nn.Module, ABC):
    """A field of any shape of a category, told by a latent code; `Shapes(decoder, codes)` is a `Field`."""

    code: int
    """Length of a latent code."""

    bounds: Bounds
    """Where its shapes lie, as of a `Field`."""

    kind: Kind = "distance"
    """What its value means, as of a `Field`."""

    symmetric: int | None = None
    """Axis (0, 1, 2 for x, y, z) along which all its shapes are their own mirror images, or None."""

    @abstractmethod
    def prepared(self, codes: Tensor) -> Sequence[Tensor]:
        """Return what codes (s, code) add to the layers, worked out once for all points: for each an (s, width)."""

    @abstractmethod
    def geometry(self, x: Tensor, shifts: Sequence[Tensor], shape_index: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return value (n,) and features (n, k) at points (n, 3) of the shapes `shape_index` (n,), or the only one.

        Args:
            x: points, shape (n, 3).
            shifts: what `prepared` returned.
            shape_index: the row of its code for each point, shape (n,), int64; None where there is one code.
        """

    @abstractmethod
    def color(self, feature: Tensor) -> Tensor:
        """Return sRGB colours (n, 3) in [0, 1] from features (n, k)."""


class _ModuleField(Field):
    """A module that has members of a field without being one; what it lacks is as in `Field`."""

    def __init__(self, module: nn.Module, bounds: Bounds | None):
        nn.Module.__init__(self)
        self.module = module
        if bounds is not None:
            self.register_buffer("own_bounds", box(bounds))

    def _member(self, name: str) -> Any:
        return getattr(self.module, name, None)

    @property
    def bounds(self) -> Tensor:  # type: ignore[override]
        found: Any = self._buffers["own_bounds"] if "own_bounds" in self._buffers else self._member("bounds")
        return found

    def value(self, x: Tensor) -> Tensor:
        answer = self._member("value") or self.module
        found: Tensor = answer(x)
        return found

    @property
    def has_color(self) -> bool:
        return self._member("color") is not None

    @property
    def lipschitz_is_measured(self) -> bool:  # type: ignore[override]
        return self._member("bound_slope") is not None

    @property
    def name(self) -> str:
        return type(self.module).__name__


class _FunctionField(Field):
    """A plain function of points with bounds."""

    def __init__(self, function: Callable[[Tensor], Tensor], bounds: Bounds):
        super().__init__(bounds)
        self.function = function

    def value(self, x: Tensor) -> Tensor:
        return self.function(x)

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)


def _forwarded(name: str) -> Callable[..., Any]:
    """Return a method that calls the module's own, or that of `Field` if it has none."""

    def method(self: _ModuleField, *arguments: Any) -> Any:
        own = self._member(name)
        return getattr(Field, name)(self, *arguments) if own is None else own(*arguments)

    return method


def _read(name: str) -> property:
    """Return a property that is the module's own, or that of `Field` if it has none."""

    def member(self: _ModuleField) -> Any:
        own = self._member(name)
        return getattr(Field, name) if own is None else own

    return property(member)


for _name in ("geometry", "color", "select", "bound_slope", "as_layers", "prior", "anneal"):
    setattr(_ModuleField, _name, _forwarded(_name))
for _name in ("kind", "lipschitz", "step", "options", "rates"):
    setattr(_ModuleField, _name, _read(_name))


def as_field(module: FieldLike, bounds: Bounds | None = None) -> Field:
    """Make a `Field` of anything that answers at points.

    A `Field` is returned as it is. A module with `value` and `bounds` (and any other member of `Field`) keeps what it
    has; a module or function without `value` is called itself. Those two are asked at 28 points of their bounds, once,
    to see that they keep the contract; their parameters stay theirs.

    Args:
        module: the field, the module, or a function from points (n, 3) to values (n,).
        bounds: where to look, for what has no `bounds` of its own: two corners, or half the side of a cube around the
            origin [scene unit].

    Example:
        >>> import torch
        >>> field = as_field(lambda x: x.norm(dim=-1) - 0.5, bounds=1.0)
        >>> field.value(torch.zeros(1, 3))
        tensor([-0.5000])

    Raises:
        ValueError: if it cannot be asked, has no bounds, answers with another shape or type, depends on the rest of a
            batch, or is positive inside.
    """
    if isinstance(module, Field):
        if bounds is not None:
            raise ValueError(f"as_field: {module.name} has bounds of its own, give none")
        return module
    field = adapt(module, bounds)
    _probe(field)
    return field


def adapt(module: FieldLike, bounds: Bounds | None = None) -> Field:
    """Return what `as_field` returns without asking anything of it, for those who ask more thoroughly."""
    if isinstance(module, Field):
        return module
    if not callable(module):
        raise ValueError(f"as_field: expected a field, a module or a function, got {type(module).__name__}")
    own: Any = getattr(module, "bounds", None)
    if bounds is None and own is None:
        raise ValueError(
            f"as_field: {_called(module)} has no bounds; give as_field(..., bounds=1.0), half the side of a cube "
            "around the origin, or two corners"
        )
    if isinstance(module, nn.Module):
        given = bounds if bounds is not None or isinstance(own, Tensor) else own
        return _ModuleField(module, given)
    return _FunctionField(module, own if bounds is None else bounds)


def query(field: Field, x: Tensor) -> Tensor:
    """Return `field.value` at float32 points (n, 3) as float32 (n,), whatever the field's own precision.

    Raises:
        ValueError: if the field returns anything but a tensor of that shape.
    """
    value = field.value(x.to(field.bounds.dtype))
    if not isinstance(value, Tensor) or value.shape != x.shape[:1]:
        raise ValueError(_wrong_answer(field, x, value))
    return value.float().contiguous()


def query_all(field: Field, x: Tensor) -> Tensor:
    """Return `query` of any number of points, so many at a time that memory does not grow with them."""
    return torch.cat([query(field, part) for part in x.split(CHUNK)])


def select_shape(field: Field, shape_index: Tensor | None, index: Tensor | None = None) -> Field:
    """Return the field as it answers at n points.

    Args:
        field: of one shape, or of several.
        shape_index: of its shapes, one for each point or, with `index`, for each of something that points belong to;
            None for a field of one shape, which is returned as it is.
        index: what each point belongs to, such as its ray, shape (n,).
    """
    return field if shape_index is None else field.select(shape_index if index is None else shape_index[index])


def box(bounds: Bounds) -> Tensor:
    """Return the corners (low, high) of bounds, shape (2, 3), float32.

    Raises:
        ValueError: if they are none.
    """
    corners = torch.as_tensor(bounds, dtype=torch.float32)
    if corners.ndim == 0:
        corners = corners * torch.tensor([[-1.0], [1.0]]).expand(2, 3)
    if tuple(corners.shape) != (2, 3) or not bool((corners.isfinite() & (corners[0] < corners[1])).all()):
        raise ValueError(f"bounds must be a positive number or two corners low < high, got {bounds}")
    return corners.clone()


def _called(module: Any) -> str:
    return getattr(module, "__name__", type(module).__name__)


def _wrong_answer(field: Field, x: Tensor, value: Any) -> str:
    """Return a sentence that says what an answer at points x should have been."""
    head = f"{field.name}.value: expected shape {tuple(x.shape[:1])} for points {tuple(x.shape)}, got "
    if isinstance(value, np.ndarray):
        return f"{head}a NumPy array; write it with Torch, so that gradients pass through it"
    if not isinstance(value, Tensor):
        return f"{head}{type(value).__name__}"
    hint = "; return value[:, 0]" if value.shape == (len(x), 1) else ""
    return f"{head}{tuple(value.shape)}{hint}"


@torch.no_grad()
def _probe(field: Field) -> None:
    """Ask at a lattice of 3 x 3 x 3 points, and at one of them alone, and refuse answers that break the contract."""
    bounds: Any = field.bounds
    shaped = isinstance(bounds, Tensor) and tuple(bounds.shape) == (2, 3) and bounds.is_floating_point()
    if not shaped or not bool((bounds.isfinite() & (bounds[0] < bounds[1])).all()):
        raise ValueError(f"{field.name}.bounds: expected two finite corners low < high, shape (2, 3), got {bounds}")
    place = torch.cartesian_prod(*[torch.linspace(0, 1, 3)] * 3).to(bounds)
    x = bounds[0] + (bounds[1] - bounds[0]) * place
    every, alone = _answer(field, x), _answer(field, x[:1])
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
    """Return `field.value(x)`, which must be a tensor as x is, shape (n,)."""
    value: Any = field.value(x)
    if not isinstance(value, Tensor) or value.shape != x.shape[:1]:
        raise ValueError(_wrong_answer(field, x, value))
    if value.dtype != x.dtype or value.device != x.device:
        raise ValueError(
            f"{field.name}.value: expected {x.dtype} on {x.device}, as the points are, "
            f"got {value.dtype} on {value.device}"
        )
    return value

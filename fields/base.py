"""The contract between a field and the renderer, whole: what a field must have, what it may have, and how it is asked.

Inside of the package a field is a `Field`; `as_field` makes one of any module or function (warpdvr/fields/adapter.py),
once, at every public door.

How a field is asked:

- at points (n, 3) of its own `bounds.dtype` on `bounds.device`, and it answers in that type, on that device, with
  shape (n,); n may be 0 or 1;
- in the mode that it is in: nothing here calls `train()` or `eval()`, so layers whose answer depends on the rest of a
  batch or on chance (batch normalisation, dropout) must be switched off by whoever owns them;
- with autograd recording only where a derivative is wanted.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from warpdvr.fields.layers import Layer

Bounds = Sequence[Sequence[float]] | Tensor | float
"""Two corners (low, high), or half the side of a cube around the origin [scene unit]."""

Plain = None | bool | int | float | str | Sequence["Plain"] | Mapping[str, "Plain"]
"""What a file of settings or the header of a checkpoint can hold."""

Kind = Literal["distance", "occupancy"]
"""What the number means: a signed distance [scene unit], or an occupancy as logit(level) - logit(occupancy)."""

CHUNK = 1 << 16
"""Points in one evaluation of a field, where many are asked at once."""


class Field(nn.Module, ABC):
    """A surface {value = 0} with colours on it.

    Only `value` must be written; every other member is optional and has its default here. The renderer asks a field
    for what it can do, never for its type. `warpdvr.testing.check_field` tests all of
    it.
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

    options: Mapping[str, Plain] | None = None
    """What `make` needs to make this field again for the weights of a checkpoint, in plain values; None: what it was
    made with. For fields that are made from a file, which may be gone by then."""

    rates: Mapping[str, float] = {"": 2e-3}
    """Learning rates of a fit, by how a parameter's name ends; the longest ending counts."""

    probed: int = 0
    """How many points `as_field` asked of it; a fit counts them."""

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


def query(field: Field, x: Tensor) -> Tensor:
    """Return `field.value` at float32 points (n, 3) as float32 (n,), whatever the field's own precision.

    Raises:
        ValueError: if the field returns anything but a tensor of that shape.
    """
    value = check_answer(field, x, field.value(x.to(field.bounds.dtype)))
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


def check_answer(field: Field, x: Tensor, value: object) -> Tensor:
    """Return what a field answered at points x (n, 3) if it is a tensor of shape (n,), whatever its type.

    Raises:
        ValueError: if it is anything else.
    """
    if isinstance(value, Tensor) and value.shape == x.shape[:1]:
        return value
    message = f"{field.name}.value: expected shape {tuple(x.shape[:1])} for points {tuple(x.shape)}, got "
    if isinstance(value, np.ndarray):
        raise ValueError(f"{message}a NumPy array; write it with Torch, so that gradients pass through it")
    if not isinstance(value, Tensor):
        raise ValueError(f"{message}{type(value).__name__}")
    hint = "; take its only column, such as value[:, 0]" if value.shape == (len(x), 1) else ""
    raise ValueError(f"{message}{tuple(value.shape)}{hint}")

"""The contract between a field and the renderer: what a field must have, what it may have, and how it is evaluated.

Inside the package a field is a `Field`. Every public function that takes a field calls `as_field` once, which makes a
`Field` of any module or function (warpdvr/fields/adapter.py).

A field is evaluated

- at points (n, 3) in its own `bounds.dtype` on `bounds.device`; it returns values (n,) in that type, on that device;
  n may be 0 or 1;
- in its current mode: the renderer never calls `train()` or `eval()`, so layers that depend on the rest of a batch or
  on chance (batch normalisation, dropout) must be switched off beforehand, or it is refused;
- with autograd recording only where a derivative is needed.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from warpdvr.fields.bounds import Bounds, box
from warpdvr.fields.layers import Layer
from warpdvr.fields.warp_value import WarpValue
from warpdvr.runtime.copies import copied
from warpdvr.runtime.memory import in_parts

Plain = None | bool | int | float | str | Sequence["Plain"] | Mapping[str, "Plain"]
"""A value that a settings file or the header of a checkpoint can hold."""

Kind = Literal["distance", "occupancy"]
"""What a value means: a signed distance [scene unit], or an occupancy as logit(level) - logit(occupancy)."""

CHUNK = 1 << 16
"""Most points in one evaluation of a field by `query_all`."""


class Field(nn.Module, ABC):
    """A surface {value = 0} with colours on it.

    A subclass must define `value`; all other members are optional, with their defaults here. The renderer relies on
    these members only, never on the type of a field. `warpdvr.testing.check_field` checks the whole contract.
    """

    bounds: Float[Tensor, "2 3"]
    """Corners (low, high) of the box in which the renderer looks for the surface [scene unit]."""

    kind: Kind = "distance"
    """What the value means. A fit keeps the slope of a distance near 1 (the eikonal term), but not that of logits."""

    lipschitz: float | None = None
    """An upper bound of |grad value| inside the bounds, if there is one; sphere tracing needs it. It does not say what
    the value means."""

    lipschitz_is_measured: bool = False
    """Whether `lipschitz` was measured by `bound_slope` at some points, and so is not proven."""

    step: float | None = None
    """Width of the central differences for slopes and normals [scene unit]; None: exact derivatives."""

    options: Mapping[str, Plain] | None = None
    """The options with which `make` rebuilds this field for the weights of a checkpoint; None: those it was made with.
    For fields that are made from a file, which may be gone by then."""

    rates: Mapping[str, float] = {"": 2e-3}
    """Learning rates of a fit, by the ending of a parameter's name; the longest matching ending counts."""

    probed: int = 0
    """Number of points that `as_field` evaluated; a fit counts them."""

    value_of: object = None
    """The object whose values this field passes on; None: it has its own. What is remembered of that object, as by a
    `BoundGrid`, holds for this field too."""

    slope_version: object = None
    """The state of the weights to which a measured `lipschitz` belongs (warpdvr/fields/slope.py), if it is known."""

    def __init__(self, bounds: Bounds = 1.0):
        """Set the bounds: two corners, or half the side of a cube around the origin [scene unit]."""
        super().__init__()
        try:
            self.register_buffer("bounds", box(bounds))
        except KeyError as error:  # Torch finds an attribute of the class
            raise ValueError(
                f"{self.name}: bounds is an attribute of the class; call super().__init__(bounds)"
            ) from error

    def __deepcopy__(self, memo: dict[int, object]) -> "Field":
        """Return a copy; in it, what Torch refuses to copy is constant: tensors with a graph, as of `weight_norm`."""
        return copied(self, memo)

    @abstractmethod
    def value(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Return the value at points: < 0 inside, 0 on the surface, > 0 outside; differentiable."""

    def geometry(self, x: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n k"] | None]:
        """Return the value, as `value` does, and features for the colour or None; differentiable."""
        return self.value(x), None

    def color(
        self,
        x: Float[Tensor, "n 3"],
        normal: Float[Tensor, "n 3"],
        direction: Float[Tensor, "n 3"],
        feature: Float[Tensor, "n k"] | None,
    ) -> Float[Tensor, "n 3"]:
        """Return the sRGB colour in [0, 1] that leaves x against the ray direction; differentiable.

        By default a field looks like grey clay under a lamp at the camera.

        Args:
            x: points on the surface [scene unit].
            normal: outward unit normals at x.
            direction: unit directions of the rays.
            feature: the second part of `geometry(x)`.
        """
        facing = (normal * direction).sum(-1, keepdim=True).abs()
        return (0.25 + 0.6 * facing).expand_as(x)

    @property
    def has_color(self) -> bool:
        """Whether the field defines colours, instead of the default clay of `Field.color`."""
        return type(self).color is not Field.color

    @property
    def has_warp_value(self) -> bool:
        """Whether `warp_value` belongs to `value`: no class, nor this object, defines `value` anew without it."""
        value, geometry, offered = (
            -1 if name in vars(self) else next(i for i, a in enumerate(type(self).__mro__) if name in vars(a))
            for name in ("value", "geometry", "warp_value")
        )
        return offered <= min(value, geometry)

    def select(self, shape_index: Int[Tensor, " n"]) -> "Field":
        """Return the field for n points, each of its own shape: the one with that index, int64.

        Only a field of several shapes, each with its latent code, supports this.

        Raises:
            ValueError: if the field is one shape.
        """
        raise ValueError(f"{self.name}: is one shape, but rays ask for one of several (Rays.shape_index)")

    def bound_slope(self) -> int:
        """Update `lipschitz` after a change of the weights, and return the number of points evaluated for it.

        A fit calls it now and then. By default it does nothing, for a bound that does not change, or none.
        """
        return 0

    def as_layers(self) -> Sequence[Layer] | None:
        """Return `value` as a list of plain layers (warpdvr/fields/layers.py), or None if it is not such a network.

        `RangeMarch` uses them to prove where there is no surface.
        """
        return None

    def warp_value(self) -> WarpValue | None:
        """Return `value` as a Warp function with the present weights, or None: Torch evaluates it everywhere.

        Solvers then trace a ray in one kernel, without a wait for Torch at every step. A class that defines `value`
        anew must define this anew as well, or has none. `warpdvr.testing.check_field` compares both. Pictures of such a
        field are rendered by several threads at once, without gradients.
        """
        return None

    def prior(self) -> Float[Tensor, ""] | None:
        """Return a weighted penalty on unlikely parameters, such as latent codes: a differentiable scalar, or None.

        A fit adds it to its loss.
        """
        return None

    def anneal(self, progress: float) -> None:
        """Limit the level of detail to what a fit should learn at `progress`, from 0 to 1; by default do nothing."""

    @property
    def name(self) -> str:
        """The name of the field in messages: that of its class."""
        return type(self).__name__


FieldLike = Field | nn.Module | Callable[[Tensor], Tensor]
"""Anything that `as_field` turns into a field."""


class Decoder(nn.Module, ABC):
    """The shapes of a category, each given by a latent code; `Shapes(decoder, codes)` is a `Field`."""

    code: int
    """Length of a latent code."""

    bounds: Bounds
    """Where its shapes lie, see `Field.bounds`."""

    kind: Kind = "distance"
    """What its value means, see `Field.kind`."""

    symmetric: int | None = None
    """Axis (0, 1, 2 for x, y, z) along which all its shapes are mirror symmetric, or None."""

    @abstractmethod
    def prepared(self, codes: Float[Tensor, "s code"]) -> Sequence[Float[Tensor, "s _"]]:
        """Return what the codes add to each layer that depends on them, computed once for all points."""

    @abstractmethod
    def geometry(
        self, x: Float[Tensor, "n 3"], shifts: Sequence[Float[Tensor, "s _"]], shape_index: Int[Tensor, " n"] | None
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n k"]]:
        """Return the value and the features at points of several shapes, or of the only one; differentiable.

        Args:
            x: points [scene unit].
            shifts: the result of `prepared`.
            shape_index: the row of its code for each point, int64; None if there is only one code.
        """

    @abstractmethod
    def color(self, feature: Float[Tensor, "n k"]) -> Float[Tensor, "n 3"]:
        """Return sRGB colours in [0, 1] from features."""


def query(field: Field, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """Return `field.value` at float32 points as float32, whatever the field's own precision; none are not asked for.

    Raises:
        ValueError: if the field returns anything but a tensor of that shape.
    """
    if not len(x):
        return x.new_empty(0)
    value = check_answer(field, x, field.value(x.to(field.bounds.dtype)))
    return value.float().contiguous()


def query_all(field: Field, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """Return `query` at any number of points, in chunks, so that memory does not grow with their number."""
    return torch.cat(in_parts(partial(query, field), x.split(CHUNK)))


def select_shape(
    field: Field,
    shape_index: Int[Tensor, " s"] | None,
    index: Int[Tensor, " n"] | Bool[Tensor, " s"] | None = None,
) -> Field:
    """Return the field for n points, each of its own shape.

    Args:
        field: of one shape, or of several.
        shape_index: the shape of each point or, with `index`, of each ray or other group of points; None for a field of
            one shape, which is returned unchanged.
        index: the row of `shape_index` for each point, such as its ray; or a mask of the rows that have a point.
    """
    return field if shape_index is None else field.select(shape_index if index is None else shape_index[index])


def check_geometry(
    field: Field, x: Float[Tensor, "n 3"], answer: object
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n k"] | None]:
    """Return the pair that `field.geometry` returned at points x, if it is a value and features, or None for these.

    Raises:
        ValueError: if it is anything else.
    """
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise ValueError(f"{field.name}.geometry: expected (value, feature), got {type(answer).__name__}")
    value, feature = check_answer(field, x, answer[0]), answer[1]
    if feature is None or (isinstance(feature, Tensor) and feature.ndim == 2 and len(feature) == len(x)):
        return value, feature
    found = tuple(feature.shape) if isinstance(feature, Tensor) else type(feature).__name__
    raise ValueError(f"{field.name}.geometry: expected features of shape ({len(x)}, k) or None, got {found}")


def check_answer(field: Field, x: Float[Tensor, "n 3"], value: object) -> Float[Tensor, " n"]:
    """Return the `value` that a field returned at points x, if it is a tensor of shape (n,).

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
    column = value.shape == (len(x), 1)
    hint = "; take its only column, such as value[:, 0], or end a Sequential with nn.Flatten(0)" if column else ""
    raise ValueError(f"{message}{tuple(value.shape)}{hint}")

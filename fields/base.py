"""The contract between a field and the renderer."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

Bounds = tuple[tuple[float, float, float], tuple[float, float, float]] | Tensor | float
"""Two corners (low, high), or half the side of a cube around the origin [scene unit]."""


class Field(nn.Module, ABC):
    """A surface {value = 0} with colours on it.

    Only `value` must be written. The renderer asks a field for what it can do, never for its type, so that any
    `nn.Module` with these five members (`warpdvr.testing.check_field` tests them) can be rendered and fitted as well.
    """

    bounds: Tensor
    """Corners (low, high) of the box outside of which nothing is looked for, shape (2, 3) [scene unit]."""

    lipschitz: float | None = None
    """An upper bound of |grad value| inside of the bounds, if there is one; sphere tracing needs it."""

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

    def select(self, shape_index: Tensor) -> "Field":
        """Return the field as it answers at n points when it is told for each which shape is meant, (n,) int64.

        Only a field that holds several shapes, told apart by latent codes, has something to return.

        Raises:
            ValueError: for all others.
        """
        raise ValueError(f"{type(self).__name__}: is one shape, but rays ask for one of several (Rays.shape_index)")

    def bound_slope(self) -> int:
        """Bring `lipschitz` up to date after the weights moved, and return how many points were asked for it.

        A fit calls it now and then. Nothing to do for a field whose bound does not change, or that has none.
        """
        return 0

    def prior(self) -> Tensor | None:
        """Return what the field itself would like to be small, with its weight: a differentiable scalar, or None.

        A fit adds it to its loss. It is how a field says which of its parameters are likely, such as latent codes.
        """
        return None

    def anneal(self, progress: float) -> None:
        """Show as much detail as a fit should teach at `progress`, from 0 to 1; nothing to do for most fields."""

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


def select_shape(field: Any, shape_index: Tensor | None, index: Tensor | None = None) -> Any:
    """Return the field as it answers at n points.

    Args:
        field: any module that meets the contract of `Field`.
        which: of its shapes, one for each point or, with `index`, for each of something that points belong to; None
            for a field of one shape, which is returned as it is.
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

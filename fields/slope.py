"""Fields whose Lipschitz bound is measured, because a network has none that is both proven and useful."""

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.fields.base import Bounds, Field
from warpdvr.fields.gradient import value_and_gradient

SLOPE_POINTS = 8192
"""Default number of points at which a slope is measured."""


class MeasuredSlope(Field):
    """A field whose `lipschitz` is measured by `bound_slope` and stored with the weights; 1 before the first call."""

    slope_points: int = SLOPE_POINTS
    """Number of points at which `bound_slope` measures."""
    lipschitz_is_measured = True
    slope: Tensor

    def __init__(self, bounds: Bounds = 1.0):
        super().__init__(bounds)
        self.register_buffer("slope", torch.tensor(1.0))

    @property
    def lipschitz(self) -> float:  # type: ignore[override]
        """The bound from the last call of `bound_slope`."""
        return float(self.slope)

    def bound_slope(self) -> int:
        """Measure |grad value| at `slope_points` random points of the bounds, and return their number."""
        self.slope.fill_(steepest(self, self.slope_points))
        return self.slope_points


def steepest(field: Field, points: int, margin: float = 1.25) -> Float[Tensor, ""]:
    """Return the largest |grad value| at random points of the bounds (from a fixed seed), times a margin.

    Args:
        field: evaluated with its gradient.
        points: number of points.
        margin: factor for the slopes between the points.
    """
    low, high = field.bounds
    generator = torch.Generator().manual_seed(0)
    x = low + (high - low) * torch.rand(points, 3, generator=generator).to(low)
    _, slope = value_and_gradient(field.value, x)
    return margin * slope.norm(dim=-1).max()

"""Fields whose Lipschitz bound is measured: a network has none that is both proven and useful."""

import torch
from torch import Tensor

from warpdvr.fields.base import Bounds, Field
from warpdvr.fields.gradient import value_and_gradient

SLOPE_POINTS = 8192
"""Points at which a slope is measured, if a field does not say otherwise."""


class MeasuredSlope(Field):
    """A field with a `lipschitz` that `bound_slope` measures, kept with the weights; 1 until it is called."""

    slope_points: int = SLOPE_POINTS
    """Points at which `bound_slope` measures."""
    lipschitz_is_measured = True
    slope: Tensor

    def __init__(self, bounds: Bounds = 1.0):
        super().__init__(bounds)
        self.register_buffer("slope", torch.tensor(1.0))

    @property
    def lipschitz(self) -> float:  # type: ignore[override]
        """The bound that `bound_slope` found last."""
        return float(self.slope)

    def bound_slope(self) -> int:
        """Measure |grad value| at `slope_points` random points of the bounds, and return how many they are."""
        self.slope.fill_(steepest(self, self.slope_points))
        return self.slope_points


def steepest(field: Field, points: int, margin: float = 1.25) -> Tensor:
    """Return the largest |grad value| at random points of the bounds, always the same, times a margin, shape ().

    Args:
        field: asked with its gradient.
        points: how many.
        margin: for what lies between them.
    """
    low, high = field.bounds
    generator = torch.Generator().manual_seed(0)
    x = low + (high - low) * torch.rand(points, 3, generator=generator).to(low)
    _, slope = value_and_gradient(field.value, x)
    return margin * slope.norm(dim=-1).max()

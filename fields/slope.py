"""Fields whose Lipschitz bound is measured: a network has none that is both proven and useful."""

from typing import Any

import torch
from torch import Tensor

from warpdvr.fields.base import Field
from warpdvr.fields.gradient import value_and_gradient


class MeasuredSlope(Field):
    """A field with a `lipschitz` that `bound_slope` measures, kept with the weights; 1 until it is called."""

    slope_points: int = 8192
    """Points at which `bound_slope` measures."""
    lipschitz_is_measured = True
    slope: Tensor

    def __init__(self, bounds: Any = 1.0):
        super().__init__(bounds)
        self.register_buffer("slope", torch.tensor(1.0))

    @property
    def lipschitz(self) -> float:  # type: ignore[override]
        """The bound that `bound_slope` found last."""
        return float(self.slope)

    def bound_slope(self, points: int | None = None, margin: float = 1.25) -> int:
        """Measure |grad value| at random points of the bounds, always the same; `lipschitz` is the largest x `margin`.

        Args:
            points: how many, by default `slope_points`; they are returned.
            margin: for what lies between them.
        """
        points = self.slope_points if points is None else points
        low, high = self.bounds
        generator = torch.Generator().manual_seed(0)
        x = low + (high - low) * torch.rand(points, 3, generator=generator).to(low)
        _, slope = value_and_gradient(self.value, x)
        self.slope.fill_(margin * slope.norm(dim=-1).max())
        return points

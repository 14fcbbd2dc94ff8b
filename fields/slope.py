"""Fields whose Lipschitz bound is measured, because a network has none that is both proven and useful."""

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.fields.base import Field
from warpdvr.fields.bounds import Bounds
from warpdvr.fields.gradient import value_and_gradient
from warpdvr.fields.version import Change, Memory, Version
from warpdvr.runtime.numbers import numbers

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
        return float(numbers(self.slope))

    def bound_slope(self) -> int:
        """Measure |grad value| at `slope_points` random points of the bounds, and return their number."""
        store_slope(self, Version(self), steepest(self, self.slope_points))
        return self.slope_points


class SlopeVersion(Memory):
    """The weights to which a measured slope belongs."""

    def __init__(self, version: Version, bound: float | None = None):
        self.version, self.bound = version, bound
        """Of the weights, and a bound that replaces the stored one; None: that one holds."""


def store_slope(field: Field, before: Version, bound: Float[Tensor, ""]) -> None:
    """Store a slope in the buffer `slope` of a field, with the weights that it belongs to.

    Args:
        field: a field with such a buffer.
        before: its version before it was measured.
        bound: what was measured.
    """
    field.slope.fill_(bound)  # type: ignore[operator]
    field.slope_version = SlopeVersion(before.settled(field))


def current_bound(field: Field) -> tuple[float | None, int]:
    """Return `field.lipschitz` and 0; or what it should be for the present weights, and the evaluations for that.

    A slope that was measured with other weights is measured again. The field keeps the old one, so that a picture
    between two steps of a fit does not change the fit; the new one is kept beside it.
    """
    remembered, owner = field.slope_version, field
    if not isinstance(remembered, SlopeVersion):
        return field.lipschitz, 0
    if remembered.version.change(field) is not Change.NONE:
        while isinstance(owner.value_of, Field):
            owner = owner.value_of
        slope: Tensor = owner.slope  # type: ignore[assignment]
        stored = slope.clone()
        evaluations = owner.bound_slope()
        bound, measured = float(slope), owner.slope_version
        slope.copy_(stored)
        version = measured.version if isinstance(measured, SlopeVersion) else remembered.version
        owner.slope_version = SlopeVersion(version, bound)
        return bound, evaluations
    return (field.lipschitz if remembered.bound is None else remembered.bound), 0


def trust_slope(field: Field) -> None:
    """Take the stored slope for that of the present weights, in a fit that measures it now and then."""
    remembered = field.slope_version
    while isinstance(field.value_of, Field):
        field = field.value_of
    if isinstance(remembered, SlopeVersion):
        field.slope_version = SlopeVersion(Version(field, remembered.version.ignored, exact=False))


def steepest(field: Field, points: int, margin: float = 1.25) -> Float[Tensor, ""]:
    """Return the largest |grad value| at random points of the bounds (from a fixed seed), times a margin.

    Args:
        field: evaluated with its gradient.
        points: number of points.
        margin: factor for the slopes between the points.
    """
    low, high = field.bounds
    generator = torch.Generator().manual_seed(0)
    x = low + (high - low) * torch.rand(points, 3, generator=generator, device="cpu").to(low)
    _, slope = value_and_gradient(field.value, x)
    return margin * slope.norm(dim=-1).max()

"""The default solver of a field."""

from dataclasses import replace

from warpdvr.fields.adapter import warp_value_of
from warpdvr.fields.base import Field
from warpdvr.intersection.base import Solver
from warpdvr.intersection.dense_march import DenseMarch
from warpdvr.intersection.grid import BoundGrid
from warpdvr.intersection.sphere_trace import SphereTrace


def default_intersect(field: Field) -> DenseMarch | SphereTrace:
    """Return the cheapest solver that is safe for a field."""
    return DenseMarch() if field.lipschitz is None else SphereTrace()


def default_intersect_for_pictures(field: Field) -> tuple[Solver, int]:
    """Return the fastest solver for pictures of a field that does not change, and the evaluations that it took.

    With a Lipschitz bound and a value that is a Warp function, that is `SphereTrace()`; for all others it is
    `default_intersect` with a `BoundGrid`, which takes 5e4 to 5e5 evaluations, so that it pays from a picture of about
    200 x 200 on. If the weights change, the next picture takes as many again.
    """
    if field.lipschitz is not None and warp_value_of(field) is not None:
        return SphereTrace(), 0
    grid = BoundGrid(field)
    return replace(default_intersect(field), grid=grid), grid.evaluations

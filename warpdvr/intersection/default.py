"""The default solver of a field."""

from dataclasses import replace

from warpdvr.fields.base import Field
from warpdvr.intersection.base import Solver
from warpdvr.intersection.dense_march import DenseMarch
from warpdvr.intersection.grid import BoundGrid
from warpdvr.intersection.sphere_trace import SphereTrace


def default_intersect(field: Field) -> DenseMarch | SphereTrace:
    """Return the cheapest solver that is safe for a field."""
    return DenseMarch() if field.lipschitz is None else SphereTrace()


def gridded_intersect(field: Field) -> tuple[Solver, int]:
    """Return `default_intersect` with a `BoundGrid`, and the evaluations that it took.

    For many rays through a field that does not change: the grid takes 5e4 to 5e5 evaluations, so it pays from a
    picture of about 200 x 200 on. If the weights change, the next picture takes as many again.
    """
    grid = BoundGrid(field)
    return replace(default_intersect(field), grid=grid), grid.evaluations

"""Which solver is taken where nobody says."""

from dataclasses import replace

from warpdvr.fields.base import Field
from warpdvr.intersection.base import Solver
from warpdvr.intersection.dense_march import DenseMarch
from warpdvr.intersection.grid import BoundGrid
from warpdvr.intersection.sphere_trace import SphereTrace


def default_intersect(field: Field) -> DenseMarch | SphereTrace:
    """Return the cheapest intersector that is safe for a field."""
    return DenseMarch() if field.lipschitz is None else SphereTrace()


def gridded_intersect(field: Field) -> tuple[Solver, int]:
    """Return `default_intersect` with a `BoundGrid`, and how many points were asked for that.

    For many rays through a field that stays as it is: the grid asks 5e4 to 5e5 points, so it pays from a picture of
    about 200 x 200 on. Where weights change it must be made anew.
    """
    grid = BoundGrid(field)
    return replace(default_intersect(field), grid=grid), grid.evaluations

"""Where a field may be below some value, from what a solver remembers of it: elsewhere nobody needs to ask."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import max_pool3d

from warpdvr.fields.base import Field
from warpdvr.intersection.base import Solver
from warpdvr.intersection.boxes import dilate
from warpdvr.intersection.cached import CachedMarch, CachedValues
from warpdvr.intersection.dense_march import DenseMarch
from warpdvr.intersection.grid import BoundGrid
from warpdvr.intersection.sphere_trace import SphereTrace

HALVES = 2
"""Places along each side of a grid's largest boxes at which its bounds are looked up."""


@dataclass(frozen=True)
class Cells:
    """Boxes of equal size that fill the bounds of a field, or the part of them with a surface."""

    low: Float[Tensor, "3"]
    """Lowest corner [scene unit]."""
    side: Float[Tensor, "3"]
    """Sides of a box [scene unit]."""
    occupied: Bool[Tensor, "a b c"]
    """Whether a box may hold something; outside, the nearest box counts."""


@torch.no_grad()
def cells_below(solver: Solver | None, field: Field, level: float) -> tuple[Cells, int]:
    """Return the cells in which a field may be below a value, and the evaluations.

    A `CachedMarch` knows the values at corners, a `BoundGrid` bounds in boxes; their neighbours count too. Without
    either all of the bounds is one cell, which may hold something. Like what they are made from these are estimates.

    Args:
        solver: what remembers; None for nothing.
        field: of one shape, or of several without a solver.
        level: the value.
    """
    if isinstance(solver, CachedMarch):
        solver = solver.prepare(field)
    if isinstance(solver, CachedValues):
        evaluations = solver.follow(field)
        low_enough = ~(solver.value > level).view(1, 1, *solver.n.tolist())  # a value that is no number may be anything
        occupied = max_pool3d(dilate(low_enough.float()), 2, 1)[0, 0] > 0
        return Cells(solver.low, solver.side, occupied), evaluations
    grid = solver.grid if isinstance(solver, DenseMarch | SphereTrace) else None
    if grid is not None:
        evaluations = grid.follow(field)
        return _cells_of(grid, level), evaluations
    low, high = field.bounds.detach().float()
    return Cells(low, high - low, torch.ones(1, 1, 1, dtype=torch.bool, device=low.device)), 0


def _cells_of(grid: BoundGrid, level: float) -> Cells:
    layout = grid.layout
    n = [HALVES * cells for cells in layout.cells]
    place = torch.cartesian_prod(*(torch.arange(k, device=layout.low.device) for k in n))
    side = layout.side / HALVES
    lower = grid.lower(layout.low + (place + 0.5) * side)
    occupied = dilate((~(lower > level)).view(1, 1, *n).float())[0, 0] > 0
    return Cells(layout.low, side, occupied)

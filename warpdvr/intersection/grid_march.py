"""The march through a BoundGrid, for every field."""

import torch
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.fields.base import Field
from warpdvr.intersection.grid import BoundGrid
from warpdvr.intersection.wavefront import RayBatch
from warpdvr.kernels import grid_march as _propose
from warpdvr.kernels import grid_narrow as _narrow
from warpdvr.kernels import status as _status
from warpdvr.runtime.launch import Packed, launch

MAX_STEPS = 1024
"""Samples on one ray through a grid after which it gives up."""
FINEST = 1 / 128
"""Upper bound of the shortest step, in sides of the finest boxes of the built grid, because models resolve thinner
parts."""
ROUGH_STEP = 1 / 8
"""A step that is always allowed in boxes in which slopes vary so much that steeper parts may hide, if no Lipschitz
bound is known; in the same sides."""
GAP = 1 / 64
"""Spacing at which the field is evaluated in front of a crossing, where another one could hide, before the crossing
is accepted; in the same sides."""
STRAIGHT_GAP = 1 / 4
"""The same, where the last value between them lies on a straight line."""


def begin(grid: BoundGrid, field: Field, rays: Rays) -> RayBatch:
    """Return a batch of rays to be marched through a grid, which is brought up to date first.

    Raises:
        ValueError: if it is the grid of another field, or rays look at several shapes.
    """
    if rays.shape_index is not None:
        raise ValueError("BoundGrid: holds for a field of one shape, but these rays look at several (Rays.shape_index)")
    evaluations = grid.follow(field)
    batch = RayBatch(field, rays, grid.box)
    batch.evaluations += evaluations
    return batch


def march_grid(
    grid: BoundGrid, batch: RayBatch, thinnest: float, relaxation: float, max_steps: int, tolerance: float
) -> None:
    """March a batch through a grid (kernels/grid_march.py).

    Args:
        grid: of the batch's field, refreshed here if the weights have changed; its `repeats` logs where rays evaluate
            the field more than once.
        batch: its rays are decided, unless they need more than `max_steps` samples.
        thinnest: the shortest step [scene unit].
        relaxation: factor on steps through free space, from 1 to 2.
        max_steps: samples on one ray.
        tolerance: a ray ends where the position of the surface is certain up to this [scene unit].
    """
    side = float(grid.layout.side.min()) / 2 ** (grid.layout.levels - 1)
    thinnest = min(thinnest, FINEST * side)
    settings = Packed(
        _narrow.Settings,
        relaxation=relaxation,
        thinnest=thinnest,
        gap=max(thinnest, GAP * side),
        straight_gap=STRAIGHT_GAP * side,
        rough_step=ROUGH_STEP * side,
        tolerance=tolerance,
        lipschitz=grid.tree.lipschitz,
    )
    tree, memory, active = grid.tree.packed(), _blank(batch), batch.active()
    advances = torch.ones(len(active), dtype=torch.bool, device=active.device)
    before = torch.empty_like(batch.o)
    for step in range(max_steps + 1):
        x = batch.o.new_empty(len(active), 3)
        inputs = [batch.lines, tree, settings, advances, active]
        launch(_propose.propose, len(active), inputs, [x], state=[batch.rays, memory])
        still_active = batch.status[active.long()] == int(_status.ACTIVE)
        active, x = active[still_active], x[still_active]
        if len(active) == 0 or step == max_steps:
            break
        if step:
            grid.repeats.add(before[active.long()], x)
        before[active.long()] = x
        value, advances = batch.evaluate(x, active), torch.empty(len(active), dtype=torch.bool, device=x.device)
        inputs = [value, batch.lines, settings, active]
        launch(_narrow.narrow, len(active), inputs, [advances], state=[batch.rays, memory])
    batch.note_lowest(memory[:, int(_narrow.LOWEST_AT)], memory[:, int(_narrow.LOWEST)])


def _blank(batch: RayBatch) -> Tensor:
    """Return the memory of rays that have not started."""
    memory = batch.near.new_zeros(len(batch.near), _narrow.memory._length_)
    for part in (
        _narrow.FREE_UNTIL,
        _narrow.NEGATIVE,
        _narrow.LOWEST_AT,
        _narrow.SAMPLE_AHEAD,
        _narrow.CROSSING,
    ):
        memory[:, int(part)] = torch.nan
    memory[:, int(_narrow.LOWEST)] = torch.inf
    memory[:, int(_narrow.CAUTION)] = 1
    return memory

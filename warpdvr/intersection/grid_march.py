"""The march through a BoundGrid, for every field."""

import torch

from warpdvr.intersection.grid import BoundGrid
from warpdvr.intersection.wavefront import RayBatch
from warpdvr.kernels import grid_march as _propose
from warpdvr.kernels import grid_narrow as _narrow
from warpdvr.kernels import status as _status
from warpdvr.runtime.launch import launch

FINEST = 1 / 128
"""The shortest step is no longer than this, in sides of the finest boxes that were built: models see thinner parts."""
GAP = 1 / 4
"""Before a crossing is believed, it is asked in front of it this closely where another could hide, in those sides."""


def march_grid(
    grid: BoundGrid, batch: RayBatch, thinnest: float, relaxation: float, max_steps: int, tolerance: float
) -> None:
    """March a batch through a grid (kernels/grid_march.py).

    Args:
        grid: of the batch's field; its `repeats` is told where rays ask more than once.
        batch: its rays are decided, as far as `max_steps` samples on each do it.
        thinnest: the shortest step [scene unit].
        relaxation: factor on steps that are free of the surface, from 1 to 2.
        max_steps: samples on one ray.
        tolerance: a ray has landed where it is certain of the surface's place up to this [scene unit].
    """
    if batch.shape_index is not None:
        raise ValueError("BoundGrid: holds for a field of one shape, but these rays look at several (Rays.shape_index)")
    grid.check(batch.field)
    tree, layout = grid.tree, grid.layout
    side = float(layout.side.min()) / 2 ** (layout.levels - 1)
    thinnest = min(thinnest, FINEST * side)
    gap = max(thinnest, GAP * side)
    known = [tree.lower, tree.upper, tree.slope, tree.models, tree.lipschitz, relaxation, thinnest, gap]
    lines, ends = [batch.o, batch.d, batch.near, batch.far], [batch.near, batch.far]
    memory = _blank(batch)
    active = batch.active()
    proposing = torch.ones(len(active), dtype=torch.bool, device=active.device)
    before = torch.empty_like(batch.o)
    for step in range(max_steps + 1):
        x = batch.o.new_empty(len(active), 3)
        state = [batch.status, batch.low, batch.high, batch.f_low, memory]
        launch(_propose.propose, len(active), [*lines, *grid.frame(), *known, proposing, active], [x], state=state)
        going = batch.status[active.long()] == int(_status.ACTIVE)
        active, x = active[going], x[going]
        if len(active) == 0 or step == max_steps:
            break
        if step:
            grid.repeats.add(before[active.long()], x)
        before[active.long()] = x
        value, proposing = batch.ask(x, active), torch.empty(len(active), dtype=torch.bool, device=x.device)
        inputs = [value, *ends, thinnest, gap, tolerance, active]
        launch(_narrow.narrow, len(active), inputs, [proposing], state=[*batch.state(), memory])
    batch.guess(memory[:, int(_narrow.WHERE)], memory[:, int(_narrow.LEAST)])


def _blank(batch: RayBatch) -> torch.Tensor:
    """Return what is remembered of rays that have not begun."""
    memory = batch.near.new_zeros(len(batch.near), _narrow.memory._length_)
    for part, value in ((_narrow.SURE, torch.nan), (_narrow.BEHIND, torch.nan), (_narrow.LEAST, torch.inf)):
        memory[:, int(part)] = value
    memory[:, int(_narrow.WHERE)] = memory[:, int(_narrow.AHEAD)] = memory[:, int(_narrow.END)] = torch.nan
    return memory


MOST_THROUGH = 1024
"""Samples on one ray through a grid after which it gives up."""

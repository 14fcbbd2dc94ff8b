"""Steps of a dense march: propose a block of samples, and narrow the ray to the first crossing among them.

`index` lists the rays that are still active; `lines` and `rays` have one row per ray of the whole batch.
"""

import warp as wp

from warpdvr.kernels.ray_state import RayLines, RayState, note_value
from warpdvr.kernels.status import GAVE_UP, HIT, INSIDE, MISS


@wp.kernel(enable_backward=False)
def propose(
    lines: RayLines,
    spacing: wp.array[float],
    first: int,
    index: wp.array[wp.int32],
    # outputs
    x: wp.array2d[wp.vec3],
):
    """Sample points `first`, `first + 1`, ... of each active ray."""
    i, j = wp.tid()
    r = index[i]
    x[i, j] = lines.origin[r] + lines.direction[r] * (lines.near[r] + float(first + j) * spacing[r])


@wp.func
def hidden_change(before: float, start: float, end: float, after: float, safety: float) -> float:
    """How much the value may change between `start` and `end`, if that is enough to reach 0 in between; otherwise 0.

    Estimated from the descent towards the interval, the ascent behind it and the change across it, times `safety`; NaN
    neighbours are ignored.
    """
    change = wp.abs(start - end)
    if before - start > change:
        change = before - start
    if after - end > change:
        change = after - end
    change = safety * change
    return wp.where(start + end < change, change, 0.0)


@wp.kernel(enable_backward=False)
def narrow(
    value: wp.array2d[float],
    lines: RayLines,
    spacing: wp.array[float],
    first: int,
    last: int,
    safety: float,
    index: wp.array[wp.int32],
    # state
    rays: RayState,
    # outputs
    dip: wp.array2d[float],
):
    """Find the first interval with f > 0 at its start and f <= 0 at its end, and mark earlier ones that may hide one.

    `value[i]` begins with the three samples ahead of the block (NaN where there is none), so column j is sample
    `first + j - 3`. `dip[i, j]` belongs to the interval between columns j and j + 1, see `hidden_change`.
    """
    i = wp.tid()
    r = index[i]
    for j in range(dip.shape[1]):
        dip[i, j] = 0.0
    for j in range(3, value.shape[1]):
        sample = first + j - 3
        t = lines.near[r] + float(sample) * spacing[r]
        before, start, end, f = value[i, j - 3], value[i, j - 2], value[i, j - 1], value[i, j]
        note_value(rays, r, t, f)
        if wp.isnan(f):
            rays.status[r] = GAVE_UP
            return
        if sample == 0 and f < 0.0:
            rays.status[r] = INSIDE
            return
        if sample > 1:
            dip[i, j - 2] = hidden_change(before, start, end, f, safety)
        if f <= 0.0:
            if sample > 0 and f < 0.0:
                dip[i, j - 1] = safety * wp.max(start - end, end - f)  # an earlier crossing may hide next to this one
            rays.status[r] = HIT
            rays.low[r] = wp.where(sample == 0, t, t - spacing[r])
            rays.f_low[r] = wp.where(sample == 0, f, end)
            rays.high[r] = t
            rays.f_high[r] = f
            return
        if sample == last:
            dip[i, j - 1] = hidden_change(start, end, f, wp.nan, safety)
            rays.status[r] = MISS

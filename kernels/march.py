"""Steps of a dense march: propose a block of samples, scan their values for the first crossing.

`ray` lists the rays that are still active; arrays named in `state` have one row per ray of the whole batch.
"""

import warp as wp

from warpdvr.kernels.status import GAVE_UP, HIT, INSIDE, MISS


@wp.kernel(enable_backward=False)
def propose(
    origin: wp.array[wp.vec3],
    direction: wp.array[wp.vec3],
    near: wp.array[float],
    spacing: wp.array[float],
    first: int,
    ray: wp.array[wp.int32],
    # outputs
    x: wp.array2d[wp.vec3],
):
    """Sample points `first`, `first + 1`, ... of each active ray."""
    i, j = wp.tid()
    r = ray[i]
    x[i, j] = origin[r] + direction[r] * (near[r] + float(first + j) * spacing[r])


@wp.func
def hidden(before: float, start: float, end: float, after: float, safety: float) -> float:
    """How much the value may change between `start` and `end`, if that is enough to reach 0 in between; else 0.

    Judged by the descent towards the interval, the ascent behind it and the change across it, times `safety`; NaN
    neighbours count for nothing.
    """
    change = wp.abs(start - end)
    if before - start > change:
        change = before - start
    if after - end > change:
        change = after - end
    change = safety * change
    return wp.where(start + end < change, change, 0.0)


@wp.kernel(enable_backward=False)
def scan(
    value: wp.array2d[float],
    near: wp.array[float],
    spacing: wp.array[float],
    first: int,
    last: int,
    safety: float,
    ray: wp.array[wp.int32],
    # state
    status: wp.array[wp.int32],
    low: wp.array[float],
    high: wp.array[float],
    f_low: wp.array[float],
    f_high: wp.array[float],
    nearest: wp.array[float],
    f_nearest: wp.array[float],
    # outputs
    dip: wp.array2d[float],
):
    """Find the first interval with f > 0 at its start and f <= 0 at its end, and mark earlier ones that may hide one.

    `value[i]` begins with the three samples ahead of the block (NaN where there is none), so column j is sample
    `first + j - 3`. `dip[i, j]` belongs to the interval between columns j and j + 1, see `hidden`.
    """
    i = wp.tid()
    r = ray[i]
    for j in range(dip.shape[1]):
        dip[i, j] = 0.0
    for j in range(3, value.shape[1]):
        sample = first + j - 3
        t = near[r] + float(sample) * spacing[r]
        before, start, end, f = value[i, j - 3], value[i, j - 2], value[i, j - 1], value[i, j]
        if f < f_nearest[r]:
            f_nearest[r] = f
            nearest[r] = t
        if wp.isnan(f):
            status[r] = GAVE_UP
            return
        if sample == 0 and f < 0.0:
            status[r] = INSIDE
            return
        if sample > 1:
            dip[i, j - 2] = hidden(before, start, end, f, safety)
        if f <= 0.0:
            if sample > 0 and f < 0.0:
                dip[i, j - 1] = safety * wp.max(start - end, end - f)  # an earlier crossing may hide beside this one
            status[r] = HIT
            low[r] = wp.where(sample == 0, t, t - spacing[r])
            f_low[r] = wp.where(sample == 0, f, end)
            high[r] = t
            f_high[r] = f
            return
        if sample == last:
            dip[i, j - 1] = hidden(start, end, f, wp.nan, safety)
            status[r] = MISS

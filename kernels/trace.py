"""One step of sphere tracing with over-relaxation.

Keinert et al., "Enhanced Sphere Tracing" (2014): step further than the free distance, and go back when the two free
spheres do not touch. A step is never shorter than `thinnest`, so that a ray crosses the surface instead of creeping up
to it, and the crossing is then closed in by a bracket.
"""

import warp as wp

from warpdvr.kernels.status import GAVE_UP, HIT, INSIDE, MISS


@wp.kernel(enable_backward=False)
def propose(
    origin: wp.array[wp.vec3],
    direction: wp.array[wp.vec3],
    t: wp.array[float],
    ray: wp.array[wp.int32],
    # outputs
    x: wp.array[wp.vec3],
):
    """The point that each active ray asks about."""
    i = wp.tid()
    r = ray[i]
    x[i] = origin[r] + direction[r] * t[r]


@wp.kernel(enable_backward=False)
def narrow(
    value: wp.array[float],
    far: wp.array[float],
    lipschitz: float,
    relaxation: float,
    thinnest: float,
    ray: wp.array[wp.int32],
    # state
    status: wp.array[wp.int32],
    low: wp.array[float],
    t: wp.array[float],
    f_low: wp.array[float],
    f_high: wp.array[float],
    nearest: wp.array[float],
    f_nearest: wp.array[float],
):
    """Accept the value at t or go back, then step on. `low` is the last point seen to be outside, NaN before the first.

    A ray that hits leaves its bracket in (low, t) with the values f_low > 0 and f_high <= 0.
    """
    i = wp.tid()
    r = ray[i]
    f = value[i]
    here = t[r]
    if f < f_nearest[r]:
        f_nearest[r] = f
        nearest[r] = here
    if wp.isnan(f):
        status[r] = GAVE_UP
        return
    first = wp.isnan(low[r])
    if first and f <= 0.0:
        status[r] = wp.where(f < 0.0, INSIDE, HIT)
        low[r] = here
        f_low[r] = f
        f_high[r] = f
        return
    step = here - low[r]
    if not first and step > 1.001 * thinnest and f_low[r] + wp.abs(f) < lipschitz * step - lipschitz * thinnest:
        free = wp.max(f_low[r] / lipschitz, thinnest)
        if free < 0.999 * step:
            t[r] = low[r] + free
            return
    if f <= 0.0:
        status[r] = HIT
        f_high[r] = f
        return
    low[r] = here
    f_low[r] = f
    if here >= far[r]:
        status[r] = MISS
        return
    t[r] = wp.min(here + wp.max(relaxation * f / lipschitz, thinnest), far[r])

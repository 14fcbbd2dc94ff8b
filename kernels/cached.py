"""Guess where rays meet the surface, from the field's values at the corners of a grid."""

import warp as wp

from warpdvr.kernels.status import GAVE_UP, HIT, INSIDE, MISS


@wp.func
def interpolated(value: wp.array3d[float], low: wp.vec3, per_side: wp.vec3, x: wp.vec3) -> float:
    """The trilinear interpolant at x; outside the grid, that of the nearest point inside."""
    p = wp.cw_mul(x - low, per_side)
    i = wp.clamp(int(p[0]), 0, value.shape[0] - 2)
    j = wp.clamp(int(p[1]), 0, value.shape[1] - 2)
    k = wp.clamp(int(p[2]), 0, value.shape[2] - 2)
    u = wp.clamp(p[0] - float(i), 0.0, 1.0)
    v = wp.clamp(p[1] - float(j), 0.0, 1.0)
    w = wp.clamp(p[2] - float(k), 0.0, 1.0)
    near = wp.lerp(
        wp.lerp(value[i, j, k], value[i, j, k + 1], w), wp.lerp(value[i, j + 1, k], value[i, j + 1, k + 1], w), v
    )
    far = wp.lerp(
        wp.lerp(value[i + 1, j, k], value[i + 1, j, k + 1], w),
        wp.lerp(value[i + 1, j + 1, k], value[i + 1, j + 1, k + 1], w),
        v,
    )
    return wp.lerp(near, far, u)


@wp.kernel(enable_backward=False)
def guess(
    origin: wp.array[wp.vec3],
    direction: wp.array[wp.vec3],
    near: wp.array[float],
    far: wp.array[float],
    value: wp.array3d[float],
    near_surface: wp.array3d[wp.bool],
    low: wp.vec3,
    per_side: wp.vec3,
    step: float,
    slope: float,
    # outputs
    status: wp.array[wp.int32],
    t: wp.array[float],
    descent: wp.array[float],
    nearest: wp.array[float],
    close: wp.array[wp.bool],
):
    """March the interpolant in steps of `step`, or of value / slope where that is longer.

    `t` and `descent` are the crossing and how fast the interpolant falls there, for rays with status HIT; `nearest` is
    where it is smallest, up to the crossing, and `close` says whether that is at a corner in `near_surface`, for rays
    with status MISS. A NaN value gives status GAVE_UP.
    """
    r = wp.tid()
    status[r] = MISS
    close[r] = False
    nearest[r] = wp.nan
    t[r] = 0.0
    descent[r] = 1.0
    if not near[r] <= far[r]:
        return
    here = near[r]
    f = interpolated(value, low, per_side, origin[r] + direction[r] * here)
    lowest = f
    nearest[r] = here
    if wp.isnan(f):
        status[r] = GAVE_UP
        return
    if f < 0.0:
        status[r] = INSIDE
        return
    while here < far[r]:
        t_next = wp.min(here + wp.max(step, f / slope), far[r])
        if not t_next > here:  # too short a step for a float32
            break
        g = interpolated(value, low, per_side, origin[r] + direction[r] * t_next)
        if wp.isnan(g):
            status[r] = GAVE_UP
            return
        if g < lowest:
            lowest = g
            nearest[r] = t_next
        if g <= 0.0:
            status[r] = HIT
            t[r] = here + (t_next - here) * f / wp.max(f - g, 1.0e-30)
            descent[r] = (f - g) / (t_next - here)
            return
        here = t_next
        f = g
    p = wp.cw_mul(origin[r] + direction[r] * nearest[r] - low, per_side)
    i = wp.clamp(int(p[0] + 0.5), 0, near_surface.shape[0] - 1)
    j = wp.clamp(int(p[1] + 0.5), 0, near_surface.shape[1] - 1)
    k = wp.clamp(int(p[2] + 0.5), 0, near_surface.shape[2] - 1)
    close[r] = near_surface[i, j, k]

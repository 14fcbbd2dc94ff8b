"""The state of each ray of a batch, common to all marches: its line, and its result so far."""

import warp as wp

from warpdvr.kernels.rays import ROUNDING, clipped
from warpdvr.kernels.status import ACTIVE, GAVE_UP, MISS


@wp.struct
class RayLines:
    """The part of each ray inside the field's bounds."""

    origin: wp.array[wp.vec3]
    direction: wp.array[wp.vec3]
    near: wp.array[float]
    far: wp.array[float]


@wp.struct
class RayState:
    """The part of a ray's state that the steps of a march change."""

    status: wp.array[wp.int32]  # see kernels/status.py
    low: wp.array[float]  # with status HIT: the crossing lies in (low, high), with values f_low > 0 >= f_high
    high: wp.array[float]  # before that: where a march stands
    f_low: wp.array[float]
    f_high: wp.array[float]
    nearest: wp.array[float]  # where the smallest value was found
    f_nearest: wp.array[float]  # and that value


@wp.func
def note_value(rays: RayState, r: int, t: float, value: float):
    """Remember the smallest value on a ray and its place."""
    if value < rays.f_nearest[r]:
        rays.f_nearest[r] = value
        rays.nearest[r] = t


@wp.kernel(enable_backward=False)
def begin(
    given: wp.array[wp.vec3],
    bounds: wp.array[wp.vec3],
    # state
    lines: RayLines,
    rays: RayState,
    # outputs
    length: wp.array[float],
):
    """Bring the given directions to unit length, and place each ray at the border of a box.

    What is no ray, because a number in it is not finite or its direction is 0, has the length NaN and gives up.
    """
    r = wp.tid()
    d = given[r]
    l = wp.length(d)
    if wp.abs(l - 1.0) <= ROUNDING:
        l = 1.0
    o = lines.origin[r]
    if not (l > 0.0 and wp.isfinite(l) and wp.isfinite(o)):
        l = wp.nan
    d = d / l
    ends = clipped(o, d, bounds[0], bounds[1])
    near = wp.where(wp.isnan(l), wp.nan, ends[0])
    length[r] = l
    lines.direction[r] = d
    lines.near[r] = near
    lines.far[r] = ends[1]
    rays.status[r] = wp.where(near <= ends[1], ACTIVE, wp.where(wp.isnan(l), GAVE_UP, MISS))
    rays.low[r] = wp.nan
    rays.high[r] = near
    rays.f_low[r] = wp.nan
    rays.f_high[r] = wp.nan
    rays.nearest[r] = wp.nan
    rays.f_nearest[r] = wp.inf

"""The state of each ray of a batch, common to all marches: its line, and its result so far."""

import warp as wp


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

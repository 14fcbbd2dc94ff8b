"""The memory of a march through a BoundGrid, and its response to the field's value at a proposed sample.

See kernels/grid_march.py.
"""

import warp as wp

from warpdvr.kernels.ray_state import RayLines, RayState, note_value
from warpdvr.kernels.status import ACTIVE, GAVE_UP, HIT, INSIDE, MISS

memory = wp.types.vector(length=20, dtype=wp.float32)
"""What a march remembers of a ray: FREE_UNTIL .. STRAIGHT."""
FREE_UNTIL = wp.constant(0)  # up to here no crossing can hide in front of the proposed sample
RISE = wp.constant(1)  # how fast the value may rise between there and the sample
SAMPLED_FALL = wp.constant(2)  # how fast the value fell between the last two samples
NEGATIVE = wp.constant(3)  # a point with a value <= 0 that was met before any positive one; NaN if there is none
LOWEST_AT = wp.constant(4)  # middle of the box with the smallest mean of bounds, of those that were crossed for free
LOWEST = wp.constant(5)  # and that mean
FALL = wp.constant(6)  # how fast the value falls at the sample, by the model; 0 if the sample is no landing
MIN_FALL = wp.constant(7)  # lower bound of that
MAX_FALL = wp.constant(8)  # upper bound of that
MODEL_TOLERANCE = wp.constant(9)  # the largest |value| that agrees with the model
CORRECTIONS_LEFT = wp.constant(10)  # how often a landing may still be corrected
MODEL_FAILED = wp.constant(11)  # 1 after a value that did not agree: models are ignored from there on
SAMPLE_AHEAD = wp.constant(12)  # a point with a positive value, in front of which a crossing may hide; NaN for none
VALUE_AHEAD = wp.constant(13)  # that value
RISE_AHEAD = wp.constant(14)  # how fast the value may rise in front of it
CROSSING = wp.constant(15)  # a point with a value <= 0, in front of which another crossing may hide; NaN for none
STEEPEST_FALL = wp.constant(16)  # how fast the value may fall between the last sample and the proposed one
STEEPEST_RISE = wp.constant(17)  # how fast it may rise there
CAUTION = wp.constant(18)  # factor on all slopes of the grid, above 1 once samples of this ray differed by more

STRAIGHT = wp.constant(19)  # 1 if the last sample in front of CROSSING lies on the line between its neighbours

MAX_BEND = wp.constant(0.03)  # the largest distance of such a sample from the line, relative to the fall along it
CONTRADICTION = wp.constant(1.02)  # slopes between samples above this share of the grid's contradict it
MAX_CAUTION = wp.constant(16.0)  # the largest factor on slopes
MIN_SLOPE = wp.constant(1.0e-20)  # the smallest slope
MAX_CORRECTIONS = wp.constant(3.0)  # how often a landing may be corrected


@wp.struct
class Settings:
    """Step lengths and tolerances of a march."""

    relaxation: float  # factor on steps that are free of the surface, from 1 to 2
    thinnest: float  # the shortest step
    gap: float  # a crossing is accepted if another one can only hide this close in front of it ...
    straight_gap: float  # ... or this close, and the last sample between them agrees with a straight line
    rough_step: float  # a step that is always allowed where slopes vary so much that steeper parts may hide
    tolerance: float  # a landing is accepted if its error is certainly below this
    lipschitz: float  # an upper bound of |grad value|, infinity if there is none


@wp.struct
class Ray:
    """One ray while the value at its sample is processed."""

    status: wp.int32
    low: float
    t: float
    f_low: float
    f_high: float
    advances: bool  # whether it goes on through the grid, or to the sample at t
    undecided: bool  # whether the value has not been processed yet
    m: memory


@wp.func
def root_error(f: float, m: memory) -> float:
    """The largest error of f / FALL as the distance from a point with the value f to the root."""
    return wp.abs(f) * wp.max(1.0 / m[MIN_FALL] - 1.0 / m[FALL], 1.0 / m[FALL] - 1.0 / m[MAX_FALL])


@wp.func
def positive_from(m: memory) -> float:
    """From here to SAMPLE_AHEAD the value stays positive."""
    return m[SAMPLE_AHEAD] - m[VALUE_AHEAD] / m[RISE_AHEAD]


@wp.func
def search_positive(here: float, near: float, low: float, thinnest: float, m: memory) -> float:
    """Where to look for a positive value, after a value <= 0 without a positive sample before it."""
    if wp.isnan(m[NEGATIVE]) and not wp.isnan(low):
        return low  # the grid calls it positive
    return wp.max(near, here - 2.0 * wp.max(m[NEGATIVE] - here, thinnest))


@wp.func
def land(ray: Ray, f: float, tolerance: float) -> Ray:
    """Take in a value where the model has its root: the ray has landed, is corrected, or the model has failed."""
    here = ray.t
    negative = ray.m[NEGATIVE]  # Warp loses a constant that occurs first in both branches of an inner `if`
    agrees = wp.abs(f) <= wp.max(ray.m[MODEL_TOLERANCE], tolerance * ray.m[FALL])
    if agrees and root_error(f, ray.m) <= tolerance:
        ray.status = HIT
        ray.t = here + f / ray.m[FALL]
        ray.low = ray.t
        ray.f_low = f
        ray.f_high = f
        ray.undecided = False
    elif agrees and ray.m[CORRECTIONS_LEFT] > 0.0:
        ray.t = here + f / ray.m[FALL]
        ray.m[MODEL_TOLERANCE] = ray.m[FALL] * root_error(f, ray.m) * wp.max(1.0, ray.m[MAX_FALL] / ray.m[FALL])
        ray.m[CORRECTIONS_LEFT] = ray.m[CORRECTIONS_LEFT] - 1.0
        if f <= 0.0:
            ray.m[NEGATIVE] = here
            ray.f_high = f
            if here < ray.m[CROSSING]:
                ray.m[CROSSING] = here
        elif not here >= negative:
            ray.low = here
            ray.f_low = f
        ray.undecided = False
    else:
        ray.m[FALL] = 0.0
        ray.m[MODEL_FAILED] = 1.0
        if here >= negative and f > 0.0:
            ray.t = ray.m[FREE_UNTIL]
            ray.undecided = False
        elif f <= 0.0:
            ray.m[NEGATIVE] = wp.nan
    return ray


@wp.func
def note_bend(ray: Ray, f: float) -> Ray:
    """Note whether a sample in front of a crossing lies on the line from the last positive value to the crossing."""
    ray.m[STRAIGHT] = 0.0
    if ray.f_low > 0.0 and ray.m[CROSSING] > ray.t:
        fall = ray.f_low - ray.f_high
        expected = ray.f_low - fall * (ray.t - ray.low) / (ray.m[CROSSING] - ray.low)
        if wp.abs(f - expected) <= MAX_BEND * fall:
            ray.m[STRAIGHT] = 1.0
    return ray


@wp.func
def may_hide(front: float, crossing: float, settings: Settings, m: memory) -> wp.bool:
    """Whether there may be another crossing in front of one, behind the place that the ray is known to be free to."""
    gap = wp.where(m[STRAIGHT] > 0.0, settings.straight_gap, settings.gap)
    return m[RISE] > 0.0 and crossing - front > gap


@wp.func
def take_negative(ray: Ray, f: float, near: float, settings: Settings) -> Ray:
    """Take in a value <= 0: a crossing, if a positive value was seen before and no other can hide in between."""
    here = ray.t
    ray = note_bend(ray, f)
    ray.f_high = f
    if ray.f_low > 0.0:
        front = wp.max(ray.m[FREE_UNTIL], ray.low)
        ray.status = HIT
        if may_hide(front, here, settings, ray.m):
            ray.status = ACTIVE
            ray.m[CROSSING] = here
            ray.m[SAMPLE_AHEAD] = wp.nan
            ray.t = 0.5 * (front + here)
    elif here <= near:
        ray.status = wp.where(f < 0.0, INSIDE, HIT)
        ray.low = here
        ray.f_low = f
    else:
        ray.t = search_positive(here, near, ray.low, settings.thinnest, ray.m)
        ray.m[NEGATIVE] = here
    return ray


@wp.func
def check_slopes(ray: Ray, f: float, settings: Settings) -> Ray:
    """Distrust the grid's slopes on this ray if the value changed by more than they allow since the last sample."""
    slope = (f - ray.f_low) / (ray.t - ray.low)
    excess = wp.max(slope / wp.max(ray.m[STEEPEST_RISE], MIN_SLOPE), -slope / wp.max(ray.m[STEEPEST_FALL], MIN_SLOPE))
    if excess > CONTRADICTION and wp.abs(slope) < settings.lipschitz:
        factor = 2.0 * excess
        ray.m[CAUTION] = wp.min(wp.max(ray.m[CAUTION], 1.0) * factor, MAX_CAUTION)
        ray.m[MODEL_FAILED] = 1.0
        ray.m[RISE] = wp.min(wp.max(ray.m[STEEPEST_RISE] * factor, wp.abs(slope)), settings.lipschitz)
        fall = wp.min(ray.m[STEEPEST_FALL] * factor, settings.lipschitz)
        ray.m[FREE_UNTIL] = wp.min(ray.m[FREE_UNTIL], ray.low + ray.f_low / fall)
    return ray


@wp.func
def take_positive(ray: Ray, f: float, far: float, settings: Settings) -> Ray:
    """Take in a positive value: go on from there, unless a crossing can hide in front of it."""
    here = ray.t
    ray = note_bend(ray, f)
    if not wp.isnan(ray.m[NEGATIVE]):
        ray.status = HIT
        ray.low = here
        ray.f_low = f
        ray.t = ray.m[NEGATIVE]
        if may_hide(here, ray.t, settings, ray.m):
            ray.status = ACTIVE
            ray.m[CROSSING] = ray.t
            ray.m[NEGATIVE] = wp.nan
            ray.m[SAMPLE_AHEAD] = wp.nan
            ray.t = here
            ray.advances = True
        return ray
    if ray.f_low > 0.0:
        ray.m[SAMPLED_FALL] = (ray.f_low - f) / (here - ray.low)
        ray = check_slopes(ray, f, settings)
    if ray.f_low > 0.0 or ray.m[MODEL_FAILED] == 0.0:
        if ray.m[RISE] > 0.0 and here - f / ray.m[RISE] > ray.m[FREE_UNTIL] + settings.thinnest:
            ray.m[SAMPLE_AHEAD] = here
            ray.m[VALUE_AHEAD] = f
            ray.m[RISE_AHEAD] = ray.m[RISE]
            ray.t = 0.5 * (ray.m[FREE_UNTIL] + positive_from(ray.m))
            return ray
    ray.low = here
    ray.f_low = f
    ray.advances = here < far
    if here >= far:
        ray.status = MISS
    return ray


@wp.kernel(enable_backward=False)
def narrow(
    value: wp.array[float],
    lines: RayLines,
    settings: Settings,
    index: wp.array[wp.int32],
    # state
    rays: RayState,
    memories: wp.array[memory],
    # outputs
    advances: wp.array[wp.bool],
):
    """Take in the value at t: decide the ray, send it back, or let it go on from (low, f_low).

    `f_low` is NaN where `low` was not sampled, but is positive by the grid's bounds. A ray that landed has no bracket
    left: `low` and `t` are where it did.
    """
    i = wp.tid()
    r = index[i]
    f = value[i]
    advances[i] = False
    note_value(rays, r, rays.high[r], f)
    if wp.isnan(f):
        rays.status[r] = GAVE_UP
        return
    ray = Ray()
    ray.status = ACTIVE
    ray.low = rays.low[r]
    ray.t = rays.high[r]
    ray.f_low = rays.f_low[r]
    ray.f_high = rays.f_high[r]
    ray.undecided = True
    ray.m = memories[r]
    if ray.m[FALL] > 0.0:
        ray = land(ray, f, settings.tolerance)
    if ray.undecided and f <= 0.0:
        ray = take_negative(ray, f, lines.near[r], settings)
    elif ray.undecided:
        ray = take_positive(ray, f, lines.far[r], settings)
    rays.status[r] = ray.status
    rays.low[r] = ray.low
    rays.high[r] = ray.t
    rays.f_low[r] = ray.f_low
    rays.f_high[r] = ray.f_high
    memories[r] = ray.m
    advances[i] = ray.advances

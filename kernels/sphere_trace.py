"""One step of sphere tracing that looks as far ahead as values let it hope, and keeps samples that came too early.

Around each sample lies a free ball, and the balls must touch: Keinert et al., "Enhanced Sphere Tracing" (2014). How far
the next one may lie away follows from how fast values fall: Balint and Valasek, "Accelerating Sphere Tracing" (2018). A
sample whose ball begins too far ahead is not lost: the space in between is looked at, then the ray goes on behind it.
Gaps of `thinnest` between balls are left open, so that a ray crosses the surface instead of creeping up to it; the
crossing is then closed in by a bracket.
"""

import warp as wp

from warpdvr.kernels.cones import ROUNDING, leap, relative_slope
from warpdvr.kernels.ray_state import RayLines, RayState, note_value
from warpdvr.kernels.status import ACTIVE, GAVE_UP, HIT, INSIDE, MISS

memory = wp.types.vector(length=6, dtype=wp.float32)
"""What a ray remembers: FREE_UNTIL .. STEEPEST."""
FREE_UNTIL = wp.constant(0)  # up to here it is free, but for gaps of `thinnest`
FALL = wp.constant(1)  # how fast values fell between the last two samples, in units of the bound
SPACING = wp.constant(2)  # and how far apart these were
SAMPLE_AHEAD = wp.constant(3)  # a sample that was taken too early, NaN if there is none
VALUE_AHEAD = wp.constant(4)  # the value there
STEEPEST = wp.constant(5)  # the steepest difference of values, in units of the bound

SLACK = wp.constant(0.95)  # part of the open gap that is counted on
PAST_ROOT = wp.constant(1.05)  # how far past the expected root a ray lands, so that the sample closes a bracket
CAUTION = wp.constant(2.0)  # factor on slopes between samples, where a part may hide between two of them
SHALLOW = wp.constant(0.8)  # the lowest point of a parabola is looked at if it is lower than this part of the samples


@wp.struct
class Settings:
    """How closely a ray looks."""

    lipschitz: float  # an upper bound of |grad value|
    relaxation: float  # the longest step, as a factor on the free distance
    thinnest: float  # the shortest step, and the longest gap between balls
    pixel: float  # width of a pixel at distance 1


@wp.struct
class Ray:
    """One ray while the value at its sample is taken in."""

    status: wp.int32
    low: float  # the last sample that all is known up to, NaN before the first
    f_low: float
    t: float  # the sample
    f: float  # the value there
    free: float  # radius of the free ball around it
    thinnest: float  # the shortest step there
    undecided: bool  # whether the ray is still to move on
    m: memory


@wp.kernel(enable_backward=False)
def propose(
    lines: RayLines,
    index: wp.array[wp.int32],
    # state
    rays: RayState,
    # outputs
    x: wp.array[wp.vec3],
):
    """The point that each active ray asks about."""
    i = wp.tid()
    r = index[i]
    x[i] = lines.origin[r] + lines.direction[r] * rays.high[r]


@wp.func
def step_ahead(here: float, free: float, relaxation: float, thinnest: float, m: memory) -> float:
    """Where to look after a sample at `here`."""
    fall = wp.clamp(m[FALL], 0.0, 1.0)
    if free * (1.0 - fall) <= fall * thinnest:  # the ball nearly touches the root
        return here + float(wp.max(PAST_ROOT * free / fall + 0.05 * thinnest, thinnest))
    t = leap(m[FREE_UNTIL] + SLACK * thinnest, free, fall, here, 0.0)
    return wp.max(wp.min(t, here + relaxation * free + thinnest), here + thinnest)


@wp.func
def step_between(low: float, free: float, fall: float, thinnest: float, m: memory, lipschitz: float) -> float:
    """Where to look between a sample and one that was taken too early."""
    end = m[SAMPLE_AHEAD] - wp.abs(m[VALUE_AHEAD]) / lipschitz
    t = leap(m[FREE_UNTIL] + SLACK * thinnest, free, wp.clamp(fall, 0.0, 1.0), low, 0.0)
    t = wp.min(t, 0.5 * (m[FREE_UNTIL] + end))
    return wp.max(t, wp.max(m[FREE_UNTIL], low + thinnest))  # type: ignore[return-value]


@wp.func
def dip(a: float, b: float, step: float, before: float, spacing: float) -> float:
    """How far behind a values may have their lowest point, 0 if there is no hint that it is low.

    The values a and b lie `step` apart, and in front of a they fell by `before` for each unit of length, over
    `spacing`. The hints are the parabola through the three samples, and lines of `CAUTION` times the steepest slope
    between them, which meet at a kink.
    """
    now = (a - b) / step
    bend = 2.0 * (before - now) / (step + spacing)
    if bend > 0.0:
        first = now + 0.5 * bend * step
        at = first / bend
        if at > 0.05 * step and at < 0.95 * step and a - 0.5 * first * at < SHALLOW * wp.min(a, b):
            return at
    steep = CAUTION * wp.max(before, wp.abs(now))
    if a + b < steep * step:
        return wp.clamp(0.5 * (step + (a - b) / steep), 0.1 * step, 0.9 * step)
    return 0.0


@wp.func
def note_slope(m: memory, f: float, g: float, spacing: float, lipschitz: float, off: float) -> memory:
    """Remember how fast values fell from f to g, which lie `spacing` apart, `off` from the scene's origin."""
    m[FALL] = (f - g) / (spacing * lipschitz)
    m[SPACING] = spacing
    m[STEEPEST] = wp.max(m[STEEPEST], relative_slope((f - g) / lipschitz, spacing, off))
    return m


@wp.func
def keep_ahead(ray: Ray, t: float) -> Ray:
    """Keep the sample for later, and look at t first."""
    ray.m[SAMPLE_AHEAD] = ray.t
    ray.m[VALUE_AHEAD] = ray.f
    ray.t = t
    ray.undecided = False
    return ray


@wp.func
def begin(ray: Ray, near: float, off: float) -> Ray:
    """Look where it should be free, as the first sample lies too far ahead or behind the surface."""
    if ray.t <= ray.m[FREE_UNTIL]:
        ray.m[FREE_UNTIL] = near
        if ray.free > ROUNDING * off:
            ray.m[STEEPEST] = wp.max(ray.m[STEEPEST], 2.0)  # but this should have been free: the bound is none
    return keep_ahead(ray, ray.m[FREE_UNTIL])


@wp.func
def look_back(ray: Ray, before: float, spacing: float, early: wp.bool, lipschitz: float) -> Ray:
    """Look between the last sample and this one, if this one came too early or values may be low in between."""
    lowest = float(0.0)
    if not early and ray.f > 0.0 and ray.t - ray.free > ray.m[FREE_UNTIL] and wp.isnan(ray.m[SAMPLE_AHEAD]):
        lowest = dip(ray.f_low, ray.f, ray.t - ray.low, before * lipschitz, spacing)
    if early:
        m = ray.m
        m[SAMPLE_AHEAD] = ray.t
        m[VALUE_AHEAD] = ray.f
        ray = keep_ahead(ray, step_between(ray.low, ray.f_low / lipschitz, m[FALL], ray.thinnest, m, lipschitz))
    elif lowest > 0.0:
        ray = keep_ahead(ray, ray.low + lowest)
    return ray


@wp.func
def join(ray: Ray, first: wp.bool, lipschitz: float, off: float) -> Ray:
    """Go on to the sample that was taken too early, unless there still is something to look at in front of it."""
    here = ray.t
    f = ray.f
    value_ahead = ray.m[VALUE_AHEAD]
    sample_ahead = ray.m[SAMPLE_AHEAD]
    fell = ray.m[FALL] * lipschitz
    stride = ray.m[SPACING]
    ray.m = note_slope(ray.m, f, value_ahead, sample_ahead - here, lipschitz, off)
    ray.low = here
    ray.f_low = f
    end = sample_ahead - wp.abs(value_ahead) / lipschitz
    hidden = float(0.0)
    if ray.m[FREE_UNTIL] + ray.thinnest < end and here + 1.001 * ray.thinnest < sample_ahead:
        hidden = step_between(here, ray.free, ray.m[FALL], ray.thinnest, ray.m, lipschitz) - here
    elif ray.m[FREE_UNTIL] < end and value_ahead > 0.0 and ray.m[SPACING] > 0.25 * ray.thinnest and not first:
        hidden = dip(f, value_ahead, ray.m[SPACING], fell, stride)
    if hidden > 0.0:
        ray.t = here + hidden
        ray.undecided = False
        return ray
    ray.t = sample_ahead
    ray.f = value_ahead
    ray.free = wp.abs(value_ahead) / lipschitz
    ray.m[SAMPLE_AHEAD] = wp.nan
    if ray.f <= 0.0:
        ray.status = HIT
        ray.undecided = False
    else:
        ray.m[FREE_UNTIL] = wp.max(ray.m[FREE_UNTIL], ray.t + ray.free)
    return ray


@wp.func
def advance(ray: Ray, first: wp.bool, far: float, off: float, settings: Settings) -> Ray:
    """Move on behind a sample that nothing hides in front of: a hit, a miss, or the next sample."""
    if ray.f <= 0.0:
        ray.status = HIT
        return ray
    ray.m[FREE_UNTIL] = wp.max(ray.m[FREE_UNTIL], ray.t + ray.free)
    if ray.m[SAMPLE_AHEAD] > ray.t:  # not NaN
        ray = join(ray, first, settings.lipschitz, off)
    if ray.undecided:
        ray.low = ray.t
        ray.f_low = ray.f
        if ray.m[FREE_UNTIL] > far or ray.t >= far:
            ray.status = MISS
        ray.t = wp.min(step_ahead(ray.t, ray.free, settings.relaxation, ray.thinnest, ray.m), far)
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
):
    """Take in the value at t: decide the ray, or look elsewhere. `low` is the last sample that all is known up to.

    It is NaN before the first. A ray that hits leaves its bracket in (low, t), with values f_low > 0 and f_high <= 0.
    """
    i = wp.tid()
    r = index[i]
    f = value[i]
    here = rays.high[r]
    note_value(rays, r, here, f)
    if wp.isnan(f):
        rays.status[r] = GAVE_UP
        return
    first = wp.isnan(rays.low[r])
    near = lines.near[r]
    if first and f <= 0.0 and here <= near:
        rays.status[r] = wp.where(f < 0.0, INSIDE, HIT)
        rays.low[r] = here
        rays.f_low[r] = f
        rays.f_high[r] = f
        return
    lipschitz = settings.lipschitz
    off = wp.length(lines.origin[r]) + here
    ray = Ray()
    ray.status = ACTIVE
    ray.low = rays.low[r]
    ray.f_low = rays.f_low[r]
    ray.t = here
    ray.f = f
    ray.free = wp.abs(f) / lipschitz
    ray.thinnest = wp.max(settings.thinnest, settings.pixel * here)
    ray.undecided = True
    ray.m = memories[r]
    before = ray.m[FALL]
    spacing = ray.m[SPACING]
    if not first:
        ray.m = note_slope(ray.m, ray.f_low, f, here - ray.low, lipschitz, off)
    early = here - ray.free > ray.m[FREE_UNTIL] + ray.thinnest and (first or here > ray.low + 1.001 * ray.thinnest)
    if first and (f <= 0.0 or early):
        ray = begin(ray, near, off)
    elif not first:
        ray = look_back(ray, before, spacing, early, lipschitz)
    if ray.undecided:
        ray = advance(ray, first, lines.far[r], off, settings)
    rays.status[r] = ray.status
    rays.low[r] = ray.low
    rays.high[r] = ray.t
    rays.f_low[r] = ray.f_low
    if ray.status == HIT:
        rays.f_high[r] = ray.f
    memories[r] = ray.m

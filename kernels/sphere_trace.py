"""One step of sphere tracing with steps as long as the values permit, which keeps samples that came too early.

Around each sample lies a free ball, and the balls must touch: Keinert et al., "Enhanced Sphere Tracing" (2014). How far
the next one may lie away follows from how fast values fall: Balint and Valasek, "Accelerating Sphere Tracing" (2018). A
sample whose ball begins too far ahead is not lost: the space in between is looked at, then the ray goes on behind it.
Gaps of `thinnest` between balls are left open, so that a ray crosses the surface instead of creeping up to it; the
crossing is then closed in by a bracket.
"""

import warp as wp

from warpdvr.kernels.cones import ROUNDING, leap, relative_slope
from warpdvr.kernels.ray_state import RayLines, RayState, note_value
from warpdvr.kernels.status import GAVE_UP, HIT, INSIDE, MISS

memory = wp.types.vector(length=6, dtype=wp.float32)
"""The memory of a ray: FREE_UNTIL .. STEEPEST."""
FREE_UNTIL = wp.constant(0)  # up to here it is free, but for gaps of `thinnest`
FALL = wp.constant(1)  # how fast values fell between the last two samples, in units of the bound
SPACING = wp.constant(2)  # and how far apart these were
SAMPLE_AHEAD = wp.constant(3)  # a sample that was taken too early, NaN if there is none
VALUE_AHEAD = wp.constant(4)  # the value there
STEEPEST = wp.constant(5)  # the steepest difference of values, in units of the bound

GAP_SHARE = wp.constant(0.95)  # share of the permitted gap that steps make use of
PAST_ROOT = wp.constant(1.05)  # how far past the expected root a ray lands, so that the sample closes a bracket
CAUTION = wp.constant(2.0)  # factor on slopes between samples, where a part may hide between two of them
SHALLOW = wp.constant(0.8)  # the lowest point of a parabola is sampled if it is below this share of the samples


@wp.struct
class Settings:
    """Step lengths of a ray."""

    lipschitz: float  # an upper bound of |grad value|
    relaxation: float  # the longest step, as a factor on the free distance
    thinnest: float  # the shortest step, and the longest gap between balls
    pixel: float  # width of a pixel at distance 1


@wp.kernel(enable_backward=False)
def propose(
    lines: RayLines,
    index: wp.array[wp.int32],
    # state
    rays: RayState,
    # outputs
    x: wp.array[wp.vec3],
):
    """The point of each active ray at which the field is evaluated."""
    i = wp.tid()
    r = index[i]
    x[i] = lines.origin[r] + lines.direction[r] * rays.high[r]


@wp.func
def step_ahead(here: float, free: float, relaxation: float, thinnest: float, m: memory) -> float:
    """Where to look after a sample at `here`."""
    fall = wp.clamp(m[FALL], 0.0, 1.0)
    if free * (1.0 - fall) <= fall * thinnest:  # the ball nearly touches the root
        return here + float(wp.max(PAST_ROOT * free / fall + 0.05 * thinnest, thinnest))
    t = leap(m[FREE_UNTIL] + GAP_SHARE * thinnest, free, fall, here, 0.0)
    return wp.max(wp.min(t, here + relaxation * free + thinnest), here + thinnest)


@wp.func
def step_between(low: float, free: float, fall: float, thinnest: float, m: memory, lipschitz: float) -> float:
    """Where to look between a sample and one that was taken too early."""
    end = m[SAMPLE_AHEAD] - wp.abs(m[VALUE_AHEAD]) / lipschitz
    t = leap(m[FREE_UNTIL] + GAP_SHARE * thinnest, free, wp.clamp(fall, 0.0, 1.0), low, 0.0)
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
def place_behind(
    low: float,
    f_low: float,
    here: float,
    f: float,
    thinnest: float,
    early: wp.bool,
    lipschitz: float,
    old: memory,
    m: memory,
) -> float:
    """Where to look between the last sample and this one, at `here`; NaN if nothing hides there.

    Something may if this sample came too early, or if values may be low in between. `old` is what was remembered
    before this sample.
    """
    if early:
        m[SAMPLE_AHEAD] = here
        m[VALUE_AHEAD] = f
        return step_between(low, f_low / lipschitz, m[FALL], thinnest, m, lipschitz)
    if f > 0.0 and wp.isnan(m[SAMPLE_AHEAD]):
        lowest = dip(f_low, f, here - low, old[FALL] * lipschitz, old[SPACING])
        if lowest > 0.0:
            return low + lowest
    return wp.nan


@wp.func
def place_ahead(
    here: float, f: float, thinnest: float, first: wp.bool, lipschitz: float, old: memory, m: memory
) -> float:
    """Where to look between this sample and the one that came too early; NaN if nothing hides there.

    `old` is what was remembered before the slope between the two was.
    """
    end = m[SAMPLE_AHEAD] - wp.abs(m[VALUE_AHEAD]) / lipschitz
    hidden = float(0.0)
    if m[FREE_UNTIL] + thinnest < end and here + 1.001 * thinnest < m[SAMPLE_AHEAD]:
        hidden = step_between(here, wp.abs(f) / lipschitz, m[FALL], thinnest, m, lipschitz) - here
    elif m[FREE_UNTIL] < end and m[VALUE_AHEAD] > 0.0 and m[SPACING] > 0.25 * thinnest and not first:
        hidden = dip(f, m[VALUE_AHEAD], m[SPACING], old[FALL] * lipschitz, old[SPACING])
    return wp.where(hidden > 0.0, here + hidden, wp.nan)


@wp.func
def take_in(f: float, r: int, lines: RayLines, settings: Settings, rays: RayState, memories: wp.array[memory]):
    """Take in the value at t of ray r: decide it, or look elsewhere. `low` is the last sample that all is known up to.

    It is NaN before the first. A ray that hits leaves its bracket in (low, t), with values f_low > 0 and f_high <= 0.
    """
    here = rays.high[r]
    note_value(rays, r, here, f)
    if wp.isnan(f) or f == wp.inf:  # an infinite value proves nothing: no bound of the slope holds there
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
    free = wp.abs(f) / lipschitz
    thinnest = wp.max(settings.thinnest, settings.pixel * here)
    off = wp.length(lines.origin[r]) + here
    low = rays.low[r]
    f_low = rays.f_low[r]
    old = memories[r]
    m = memories[r]
    if not first:
        m = note_slope(m, f_low, f, here - low, lipschitz, off)
    early = here - free > m[FREE_UNTIL] + thinnest and (first or here > low + 1.001 * thinnest)
    before = float(wp.nan)  # where to look before this sample
    if first and (f <= 0.0 or early):  # where it should be free
        if here <= m[FREE_UNTIL]:
            m[FREE_UNTIL] = near
            if free > ROUNDING * off:
                m[STEEPEST] = wp.max(m[STEEPEST], 2.0)  # but this should have been free: the bound is none
        before = m[FREE_UNTIL]
    elif not first and here - free > m[FREE_UNTIL]:
        before = place_behind(low, f_low, here, f, thinnest, early, lipschitz, old, m)
    if not wp.isnan(before):
        m[SAMPLE_AHEAD] = here
        m[VALUE_AHEAD] = f
        rays.high[r] = before
        memories[r] = m
        return
    if f > 0.0:
        m[FREE_UNTIL] = wp.max(m[FREE_UNTIL], here + free)
    if f > 0.0 and m[SAMPLE_AHEAD] > here:  # not NaN
        old = m
        m = note_slope(m, f, m[VALUE_AHEAD], m[SAMPLE_AHEAD] - here, lipschitz, off)
        rays.low[r] = here
        rays.f_low[r] = f
        hidden = place_ahead(here, f, thinnest, first, lipschitz, old, m)
        if not wp.isnan(hidden):
            rays.high[r] = hidden
            memories[r] = m
            return
        here = m[SAMPLE_AHEAD]
        f = m[VALUE_AHEAD]
        free = wp.abs(f) / lipschitz
        m[SAMPLE_AHEAD] = wp.nan
        m[FREE_UNTIL] = wp.where(f > 0.0, wp.max(m[FREE_UNTIL], here + free), m[FREE_UNTIL])
    if f <= 0.0:
        rays.status[r] = HIT
        rays.high[r] = here
        rays.f_high[r] = f
    else:
        far = lines.far[r]
        rays.low[r] = here
        rays.f_low[r] = f
        if m[FREE_UNTIL] > far or here >= far:
            rays.status[r] = MISS
        rays.high[r] = wp.min(step_ahead(here, free, settings.relaxation, thinnest, m), far)
    memories[r] = m


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
    """Take in the values at t of the active rays."""
    i = wp.tid()
    take_in(value[i], index[i], lines, settings, rays, memories)

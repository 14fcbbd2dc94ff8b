"""One step of sphere tracing that looks as far ahead as values let it hope, and keeps what it saw too early.

Around each sample lies a free ball, and the balls must touch: Keinert et al., "Enhanced Sphere Tracing" (2014). How far
the next one may lie away follows from how fast values fall: Balint and Valasek, "Accelerating Sphere Tracing" (2018). A
sample whose ball begins too far ahead is not lost: the space in between is looked at, then the ray goes on behind it.
Gaps of `thinnest` between balls are left open, so that a ray crosses the surface instead of creeping up to it; the
crossing is then closed in by a bracket.
"""

import warp as wp

from warpdvr.kernels.cone import ROUNDING, leap, seen
from warpdvr.kernels.status import GAVE_UP, HIT, INSIDE, MISS

memory = wp.types.vector(length=6, dtype=wp.float32)
"""What a ray remembers: SURE .. STEEPEST."""
SURE = wp.constant(0)  # up to here it is free, but for gaps of `thinnest`
FALL = wp.constant(1)  # how fast values fell between the last two samples, in units of the bound
APART = wp.constant(2)  # and how far apart these were
AHEAD = wp.constant(3)  # a sample that was taken too early, NaN if there is none
VALUE = wp.constant(4)  # the value there
STEEPEST = wp.constant(5)  # the steepest difference seen, in units of the bound

SLACK = wp.constant(0.95)  # part of the open gap that is counted on
BEHIND = wp.constant(1.05)  # how far behind the expected root a ray lands, so that the sample closes a bracket
CAUTION = wp.constant(2.0)  # factor on slopes seen, where a part may hide between two samples
SHALLOW = wp.constant(0.8)  # the lowest point of a parabola is looked at if it is lower than this part of the samples


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


@wp.func
def ahead(here: float, reach: float, relaxation: float, thinnest: float, m: memory) -> float:
    """Where to look after a sample at `here`."""
    fall = wp.clamp(m[FALL], 0.0, 1.0)
    if reach * (1.0 - fall) <= fall * thinnest:  # the ball nearly touches the root
        return here + float(wp.max(BEHIND * reach / fall + 0.05 * thinnest, thinnest))
    t = leap(m[SURE] + SLACK * thinnest, reach, fall, here, 0.0)
    return wp.max(wp.min(t, here + relaxation * reach + thinnest), here + thinnest)


@wp.func
def between(low: float, reach: float, fall: float, thinnest: float, m: memory, lipschitz: float) -> float:
    """Where to look between a sample and one that was taken too early."""
    end = m[AHEAD] - wp.abs(m[VALUE]) / lipschitz
    t = leap(m[SURE] + SLACK * thinnest, reach, wp.clamp(fall, 0.0, 1.0), low, 0.0)
    t = wp.min(t, 0.5 * (m[SURE] + end))
    return wp.max(t, wp.max(m[SURE], low + thinnest))  # type: ignore[return-value]


@wp.func
def dip(a: float, b: float, step: float, before: float, apart: float) -> float:
    """How far behind a values may have their lowest point, 0 if there is no hint that it is low.

    The values a and b lie `step` apart, and in front of a they fell by `before` for each unit of length. The hints are
    the parabola through the three samples, and lines of `CAUTION` times the steepest slope seen, which meet at a kink.
    """
    now = (a - b) / step
    bend = 2.0 * (before - now) / (step + apart)
    if bend > 0.0:
        first = now + 0.5 * bend * step
        at = first / bend
        if at > 0.05 * step and at < 0.95 * step and a - 0.5 * first * at < SHALLOW * wp.min(a, b):
            return at
    steep = CAUTION * wp.max(before, wp.abs(now))
    if a + b < steep * step:
        return wp.clamp(0.5 * (step + (a - b) / steep), 0.1 * step, 0.9 * step)
    return 0.0


@wp.kernel(enable_backward=False)
def narrow(
    value: wp.array[float],
    origin: wp.array[wp.vec3],
    near: wp.array[float],
    far: wp.array[float],
    lipschitz: float,
    relaxation: float,
    shortest: float,
    pixel: float,
    ray: wp.array[wp.int32],
    # state
    status: wp.array[wp.int32],
    low: wp.array[float],
    t: wp.array[float],
    f_low: wp.array[float],
    f_high: wp.array[float],
    nearest: wp.array[float],
    f_nearest: wp.array[float],
    remembered: wp.array[memory],
):
    """Take in the value at t: decide the ray, or look elsewhere. `low` is the last sample that all is known up to.

    It is NaN before the first. A ray that hits leaves its bracket in (low, t), with values f_low > 0 and f_high <= 0.
    """
    i = wp.tid()
    r = ray[i]
    f = value[i]
    here = t[r]
    m = remembered[r]
    reach = wp.abs(f) / lipschitz
    thinnest = wp.max(shortest, pixel * here)
    off = wp.length(origin[r]) + here
    first = wp.isnan(low[r])
    if f < f_nearest[r]:
        f_nearest[r] = f
        nearest[r] = here
    if wp.isnan(f):
        status[r] = GAVE_UP
        return
    if first and f <= 0.0 and here <= near[r]:
        status[r] = wp.where(f < 0.0, INSIDE, HIT)
        low[r] = here
        f_low[r] = f
        f_high[r] = f
        return
    before = m[FALL]
    apart = m[APART]
    if not first:
        m[FALL] = (f_low[r] - f) / ((here - low[r]) * lipschitz)
        m[APART] = here - low[r]
        m[STEEPEST] = wp.max(m[STEEPEST], seen((f_low[r] - f) / lipschitz, m[APART], off))
    fell = m[FALL] * lipschitz
    stride = m[APART]
    early = here - reach > m[SURE] + thinnest and (first or here > low[r] + 1.001 * thinnest)
    if first and (f <= 0.0 or early):  # look where it should be free
        if here <= m[SURE]:
            m[SURE] = near[r]
            if reach > ROUNDING * off:
                m[STEEPEST] = wp.max(m[STEEPEST], 2.0)  # but this should have been free: the bound is none
        m[AHEAD] = here
        m[VALUE] = f
        t[r] = m[SURE]
        remembered[r] = m
        return
    lowest = float(0.0)
    if not early and not first and f > 0.0 and here - reach > m[SURE] and wp.isnan(m[AHEAD]):
        lowest = dip(f_low[r], f, here - low[r], before * lipschitz, apart)
    if early or lowest > 0.0:
        m[AHEAD] = here
        m[VALUE] = f
        t[r] = low[r] + lowest
        if early:
            t[r] = between(low[r], f_low[r] / lipschitz, m[FALL], thinnest, m, lipschitz)
        remembered[r] = m
        return
    if f <= 0.0:
        status[r] = HIT
        f_high[r] = f
        remembered[r] = m
        return
    m[SURE] = wp.max(m[SURE], here + reach)
    if m[AHEAD] > here:  # not NaN
        m[FALL] = (f - m[VALUE]) / ((m[AHEAD] - here) * lipschitz)
        m[APART] = m[AHEAD] - here
        m[STEEPEST] = wp.max(m[STEEPEST], seen((f - m[VALUE]) / lipschitz, m[APART], off))
        low[r] = here
        f_low[r] = f
        end = m[AHEAD] - wp.abs(m[VALUE]) / lipschitz
        hidden = float(0.0)
        if m[SURE] + thinnest < end and here + 1.001 * thinnest < m[AHEAD]:
            hidden = between(here, reach, m[FALL], thinnest, m, lipschitz) - here
        elif m[SURE] < end and m[VALUE] > 0.0 and m[APART] > 0.25 * thinnest and not first:
            hidden = dip(f, m[VALUE], m[APART], fell, stride)
        if hidden > 0.0:
            t[r] = here + hidden
            remembered[r] = m
            return
        here = m[AHEAD]
        f = m[VALUE]
        reach = wp.abs(f) / lipschitz
        m[AHEAD] = wp.nan
        if f <= 0.0:
            status[r] = HIT
            t[r] = here
            f_high[r] = f
            remembered[r] = m
            return
        m[SURE] = wp.max(m[SURE], here + reach)
    low[r] = here
    f_low[r] = f
    if m[SURE] > far[r] or here >= far[r]:
        status[r] = MISS
    t[r] = wp.min(ahead(here, reach, relaxation, thinnest, m), far[r])
    remembered[r] = m

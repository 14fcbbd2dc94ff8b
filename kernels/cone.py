"""One step of sphere tracing with a cone, which decides for many rays from one eye at once.

A sample on the axis with a free ball around it proves every ray of the cone free between the two places where the ball
lets the cone's edge out. Rays take over where that ends.
"""

import warp as wp

GOING = wp.constant(wp.int32(0))
ENDED = wp.constant(wp.int32(1))  # the surface is too near: narrower cones, or rays, must go on
MISSED = wp.constant(wp.int32(2))  # no ray of the cone meets the surface

SAME = wp.constant(1.0e-5)  # samples closer together tell nothing of a slope [scene unit]
SLACK = wp.constant(0.9)  # part of the gap that may stay open between two balls that is counted on
ROUNDING = wp.constant(5.0e-7)  # of values where the bound is 1, as a part of how far off the eye and the origin lie


@wp.func
def leap(sure: float, reach: float, fall: float, here: float, sine: float) -> float:
    """Where to look next: where the ball is expected to begin at `sure`; `sure` itself if it cannot be large enough.

    Its radius, `reach` at `here`, is expected to shrink by `fall` for each unit of length (Balint and Valasek,
    "Accelerating Sphere Tracing", 2018, for rays; here with the edge of the cone taken into account).
    """
    at = reach - fall * (sure - here)
    edge = sure * sine
    if at <= edge:
        return sure
    return sure + (at * at - edge * edge) / (at * fall + wp.sqrt(at * at - edge * edge * (1.0 - fall * fall)))


@wp.func
def seen(change: float, apart: float, off: float) -> float:
    """How steep values are that changed by so much, in units of the bound, as far as that is none of rounding."""
    return (wp.abs(change) - ROUNDING * off) / apart


@wp.kernel(enable_backward=False)
def begin(
    sine: wp.array[float],
    enter: wp.array[float],
    leave: wp.array[float],
    thinnest: float,
    # state
    state: wp.array[wp.int32],
    sure: wp.array[float],
    t: wp.array[float],
    last: wp.array[float],
    reach: wp.array[float],
    fall: wp.array[float],
):
    """Let each cone look where the one that it is a part of lets it hope for free space, or end where there is none.

    Only the part of the axis between `enter` and `leave`, inside of the bounds, is looked at.
    """
    i = wp.tid()
    t[i] = sure[i]
    from_here = sure[i] + SLACK * thinnest
    if not wp.isnan(last[i]):
        t[i] = leap(from_here, reach[i], fall[i], last[i], sine[i])
    hopeless = t[i] <= from_here and not wp.isnan(last[i])
    t[i] = wp.clamp(t[i], enter[i], leave[i])
    if state[i] == GOING:
        if hopeless or enter[i] > leave[i]:
            state[i] = ENDED
        else:
            last[i] = wp.nan  # that was on another axis


@wp.kernel(enable_backward=False)
def widen(
    value: wp.array[float],
    origin: wp.array[wp.vec3],
    cosine: wp.array[float],
    sine: wp.array[float],
    far: wp.array[float],
    enter: wp.array[float],
    leave: wp.array[float],
    lipschitz: float,
    thinnest: float,
    cone: wp.array[wp.int32],
    # state
    state: wp.array[wp.int32],
    sure: wp.array[float],
    t: wp.array[float],
    last: wp.array[float],
    reach: wp.array[float],
    fall: wp.array[float],
    where: wp.array[float],
    least: wp.array[float],
    steepest: wp.array[float],
):
    """Take in the value at t on the axis: all rays of the cone are free up to `sure`, but for gaps of `thinnest`."""
    k = cone[wp.tid()]
    f = value[wp.tid()]
    here = t[k]
    ball = f / lipschitz
    edge = here * sine[k]
    if wp.abs(here - last[k]) > SAME:
        change = (reach[k] - ball) / (here - last[k])
        steepest[k] = wp.max(steepest[k], seen(reach[k] - ball, wp.abs(here - last[k]), wp.length(origin[0]) + here))
        fall[k] = wp.clamp(change, 0.0, 1.0)
    last[k] = here
    reach[k] = ball
    if f < least[k]:
        least[k] = f
        where[k] = here
    half = float(0.0)
    if ball > edge:
        half = wp.sqrt(ball * ball - edge * edge)
    if half == 0.0 or here * cosine[k] - half > sure[k] + thinnest:
        t[k] = wp.clamp(sure[k], enter[k], leave[k])  # there a ball begins early enough, if it is large enough at all
        if here <= t[k] + SAME:
            state[k] = ENDED
        return
    end = here * cosine[k] + half
    gain = end - sure[k]
    sure[k] = wp.max(sure[k], end)
    if sure[k] > far[k]:
        state[k] = MISSED
        return
    from_here = sure[k] + SLACK * thinnest
    t[k] = wp.clamp(leap(from_here, ball, fall[k], here, sine[k]), enter[k], leave[k])
    if gain < 0.3 * edge or t[k] <= from_here or t[k] <= here + SAME:
        state[k] = ENDED

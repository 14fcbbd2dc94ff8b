"""One step of sphere tracing with a cone, which decides about many rays from one eye at once.

A sample on the axis with a free ball around it proves that every ray of the cone is free between the two places where
the edge of the cone crosses the ball. Rays continue where that ends.
"""

import warp as wp

GOING = wp.constant(wp.int32(0))
ENDED = wp.constant(wp.int32(1))  # the surface is too near: narrower cones, or rays, must go on
MISSED = wp.constant(wp.int32(2))  # no ray of the cone meets the surface

MIN_COSINE = wp.constant(0.5)  # of half the opening angle of a cone that is marched as a whole
WHOLE_SPACE = wp.constant(1.0e6)  # the sine of one that is not

GAP_SHARE = wp.constant(0.9)  # share of the permitted gap between two balls that steps make use of
ROUNDING = wp.constant(5.0e-7)  # of values where the bound is 1, relative to the distances from the eye and the origin


@wp.struct
class Cones:
    """Cones around bundles of rays from one eye."""

    sine: wp.array[float]  # of half the opening
    cosine: wp.array[float]
    far: wp.array[float]  # where the last of the rays leaves the bounds
    enter: wp.array[float]  # the axis lies inside of the bounds from here ...
    leave: wp.array[float]  # ... to here
    status: wp.array[wp.int32]  # GOING, ENDED or MISSED
    free_until: wp.array[float]  # all rays are free up to here, but for gaps of `thinnest`
    t: wp.array[float]  # the sample on the axis
    last: wp.array[float]  # the one before it, NaN if there is none on this axis
    radius: wp.array[float]  # of the free ball around that one
    fall: wp.array[float]  # how fast the radius falls there
    nearest: wp.array[float]  # where the smallest value was found
    f_nearest: wp.array[float]  # and that value
    steepest: wp.array[float]  # the steepest difference of values, in units of the bound


@wp.func
def leap(free_until: float, radius: float, fall: float, here: float, sine: float) -> float:
    """Where to look next: where the ball is expected to begin at `free_until`; there if it cannot be large enough.

    Its radius, `radius` at `here`, is expected to shrink by `fall` for each unit of length (Balint and Valasek,
    "Accelerating Sphere Tracing", 2018, for rays; here with the edge of the cone taken into account).
    """
    at = radius - fall * (free_until - here)
    edge = free_until * sine
    if at <= edge:
        return free_until
    return free_until + (at * at - edge * edge) / (at * fall + wp.sqrt(at * at - edge * edge * (1.0 - fall * fall)))


@wp.func
def relative_slope(change: float, spacing: float, off: float) -> float:
    """The slope of a change of the value over `spacing`, in units of the bound, less the rounding error."""
    return (wp.abs(change) - ROUNDING * off) / spacing


@wp.func
def place_first(i: int, thinnest: float, cones: Cones):
    """Place the first sample of a cone where its parent cone leaves hope for free space; end it if there is none.

    Samples lie on the part of the axis between `enter` and `leave`, inside the bounds.
    """
    t = cones.free_until[i]
    from_here = t + GAP_SHARE * thinnest
    narrower = not wp.isnan(cones.last[i])
    if narrower:
        t = leap(from_here, cones.radius[i], cones.fall[i], cones.last[i], cones.sine[i])
    hopeless = t <= from_here and narrower
    cones.t[i] = wp.clamp(t, cones.enter[i], cones.leave[i])
    if cones.status[i] == GOING:
        if hopeless or cones.enter[i] > cones.leave[i]:
            cones.status[i] = ENDED
        else:
            cones.last[i] = wp.nan  # that was on another axis


@wp.func
def take_in(f: float, k: int, eye: wp.vec3, lipschitz: float, thinnest: float, min_spacing: float, cones: Cones):
    """Take in the value f at t on the axis of cone k: all rays are free up to `free_until`, but for gaps of `thinnest`.

    Samples that are closer together than `min_spacing` give no reliable slope.
    """
    if f == wp.inf:  # proves nothing, see kernels/sphere_trace.py
        cones.status[k] = ENDED
        return
    here = cones.t[k]
    last = cones.last[k]
    ball = f / lipschitz
    edge = here * cones.sine[k]
    if wp.abs(here - last) > min_spacing:
        change = cones.radius[k] - ball
        slope = relative_slope(change, wp.abs(here - last), wp.length(eye) + here)
        cones.steepest[k] = wp.max(cones.steepest[k], slope)
        cones.fall[k] = wp.clamp(change / (here - last), 0.0, 1.0)
    cones.last[k] = here
    cones.radius[k] = ball
    if f < cones.f_nearest[k]:
        cones.f_nearest[k] = f
        cones.nearest[k] = here
    free_until = cones.free_until[k]
    half = float(0.0)
    if ball > edge:
        half = wp.sqrt(ball * ball - edge * edge)
    if half == 0.0 or here * cones.cosine[k] - half > free_until + thinnest:
        # where it is free up to, a ball begins early enough, if it is large enough at all
        cones.t[k] = wp.clamp(free_until, cones.enter[k], cones.leave[k])
        if here <= cones.t[k] + min_spacing:
            cones.status[k] = ENDED
        return
    end = here * cones.cosine[k] + half
    gain = end - free_until
    free_until = wp.max(free_until, end)
    cones.free_until[k] = free_until
    if free_until > cones.far[k]:
        cones.status[k] = MISSED
        return
    from_here = free_until + GAP_SHARE * thinnest
    t = wp.clamp(leap(from_here, ball, cones.fall[k], here, cones.sine[k]), cones.enter[k], cones.leave[k])
    cones.t[k] = t
    if gain < 0.3 * edge or t <= from_here or t <= here + min_spacing:
        cones.status[k] = ENDED


@wp.kernel(enable_backward=False)
def begin(
    thinnest: float,
    # state
    cones: Cones,
):
    """Place the first sample of each cone."""
    place_first(int(wp.tid()), thinnest, cones)  # type: ignore[arg-type]


@wp.kernel(enable_backward=False)
def widen(
    value: wp.array[float],
    eye: wp.vec3,
    lipschitz: float,
    thinnest: float,
    min_spacing: float,
    index: wp.array[wp.int32],
    # state
    cones: Cones,
):
    """Take in the values at t on the axes of cones that are still going."""
    i = wp.tid()
    take_in(value[i], index[i], eye, lipschitz, thinnest, min_spacing, cones)

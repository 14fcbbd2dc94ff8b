"""Steps of a root finder in a bracket: Chandrupatla's method, which always converges.

T. R. Chandrupatla, "A new hybrid quadratic/bisection algorithm for finding the zero of a nonlinear function without
using derivatives", Advances in Engineering Software 28 (1997). Inverse quadratic interpolation where it is safe,
bisection elsewhere; only the first step is a secant, because fields are nearly linear across a short bracket.
A bracket is one row (x1, x2, x3, f1, f2, f3): x1 the newest point, x2 the other end, x3 the end that was given up.
"""

import warp as wp

MAX_STEPS = wp.constant(40)  # more than bisection needs from the longest ray down to neighbouring float32 numbers
MAX_BEND = wp.constant(4.0)  # slopes on both sides of a point may differ by this factor, if the root is to be near

bracket = wp.types.vector(length=6, dtype=wp.float32)


@wp.func
def fraction(s: bracket, tolerance: float) -> float:
    """Where in [x1, x2] to look next; a fraction next to an end steps across the root, so that both ends close in."""
    x1, x2, x3 = s[0], s[1], s[2]
    f1, f2, f3 = s[3], s[4], s[5]
    t = float(0.5)
    if x3 == x1:
        t = f1 / (f1 - f2)
    else:
        xi = (x1 - x2) / (x3 - x2)
        phi = (f1 - f2) / (f3 - f2)
        if 1.0 - wp.sqrt(1.0 - xi) < phi and phi < wp.sqrt(xi):
            alpha = (x3 - x1) / (x2 - x1)
            t = f1 / (f1 - f2) * f3 / (f3 - f2) - alpha * f1 / (f3 - f1) * f2 / (f2 - f3)
    edge = wp.min(0.5 * tolerance / wp.abs(x2 - x1), 0.5)
    return wp.clamp(t, edge, 1.0 - edge)


@wp.func
def tightened(s: bracket, t: float, f: float) -> bracket:
    """The bracket after a value f at t in it: it replaces the end of the same sign."""
    if (f > 0.0) == (s[3] > 0.0):
        s[2] = s[0]
        s[5] = s[3]
    else:
        s[2] = s[1]
        s[5] = s[4]
        s[1] = s[0]
        s[4] = s[3]
    s[0] = t
    s[3] = f
    return s


@wp.func
def is_found(s: bracket, tolerance: float) -> wp.bool:
    """Whether an end is exactly 0 or the root surely within `tolerance` of one.

    That is where the ends are so close, or where the newest is: the slopes on both sides of it are about alike, and by
    the smaller one the root lies within a quarter of `tolerance`.
    """
    f = s[3]
    # halving a bracket of neighbouring floats changes nothing any more
    width = wp.abs(s[1] - s[0])
    outer = wp.abs(s[5] - f) / wp.max(wp.abs(s[2] - s[0]), 1.0e-30)  # type: ignore[call-overload]
    inner = wp.abs(s[4] - f) / wp.max(width, 1.0e-30)  # type: ignore[call-overload]
    flatter = wp.min(outer, inner)
    close = 4.0 * wp.abs(f) <= tolerance * flatter and wp.max(outer, inner) <= MAX_BEND * flatter
    done = f == 0.0 or wp.isnan(f) or width <= tolerance or close
    return done or width <= 2.4e-7 * wp.abs(s[0])  # type: ignore[return-value]


@wp.kernel(enable_backward=False)
def propose(
    brackets: wp.array[bracket],
    origin: wp.array[wp.vec3],
    direction: wp.array[wp.vec3],
    tolerance: float,
    active: wp.array[wp.int32],
    # outputs
    t: wp.array[float],
    x: wp.array[wp.vec3],
):
    """The next point inside of each active bracket."""
    i = wp.tid()
    k = active[i]
    s = brackets[k]
    t[i] = s[0] + fraction(s, tolerance) * (s[1] - s[0])
    x[i] = origin[k] + direction[k] * t[i]


@wp.kernel(enable_backward=False)
def narrow(
    t: wp.array[float],
    value: wp.array[float],
    tolerance: float,
    active: wp.array[wp.int32],
    # state
    brackets: wp.array[bracket],
    # outputs
    done: wp.array[wp.bool],
):
    """Take in the values at t, see `tightened`; `done` as `is_found` says."""
    i = wp.tid()
    s = tightened(brackets[active[i]], t[i], value[i])
    brackets[active[i]] = s
    done[i] = is_found(s, tolerance)

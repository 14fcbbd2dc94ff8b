"""How a ray crosses one box of a BoundGrid of which only bounds of the value and the slope are known.

See kernels/grid_march.py.
"""

import warp as wp

from warpdvr.kernels.grid_narrow import (
    FREE_UNTIL,
    LOWEST,
    LOWEST_AT,
    RISE,
    SAMPLED_FALL,
    Settings,
    memory,
)

OVERSHOOT = wp.constant(1.05)  # a Newton step aims a little behind the root, so that the next sample closes a bracket
HUGE = wp.constant(1.0e29)  # larger values and slopes mean unknown
BLIND_STEP = wp.constant(16.0)  # the step where nothing is known, in shortest steps


@wp.struct
class Line:
    """A ray; lengths count from `near`, where they are exact."""

    o: wp.vec3  # its position at `near`, in sides of the largest boxes
    e: wp.vec3  # its direction, in the same units
    near: float
    length: float  # of the part inside the bounds


@wp.struct
class Stretch:
    """The part of a ray in one box, [a, b], and how fast the value can change on it."""

    a: float
    b: float
    corner: wp.vec3  # of the box
    side: float  # of the box, in sides of the largest boxes
    along: float  # middle of the possible slopes along the ray
    spread: float  # largest deviation of the slope from that
    fall: float  # how fast the value can fall
    rise: float  # how fast it can rise


@wp.struct
class Walk:
    """How far a ray has come."""

    t: float  # the sample that it proposes, NaN before there is one
    low: float  # the last point that is known to be positive
    free: float  # a lower bound of the value where the ray is now
    start: float  # where the current step began
    sampled: bool  # whether the field was evaluated at `start`
    falling: bool  # the value may have come down to 0 after FREE_UNTIL, and has been falling since
    m: memory


@wp.func
def newton(s: Stretch, free: float, sampled_fall: float, settings: Settings) -> float:
    """Where to sample a stretch, with a value of at least `free` at its start that may fall to 0 on it."""
    end = s.a + wp.max(settings.relaxation * free / s.fall, settings.thinnest)
    if s.rise <= 0.0:
        end = s.a + OVERSHOOT * free / -s.along + settings.thinnest  # it falls all the way, so no crossing is skipped
    elif s.fall < 10.0 * sampled_fall and free < 4.0 * settings.thinnest * s.fall:
        end = wp.max(end, s.a + 1.3 * free / sampled_fall)  # the falling samples show the surface ahead: try behind it
    return wp.min(end, wp.max(s.b, s.a + settings.thinnest))


@wp.func
def pass_free(w: Walk, s: Stretch, lower: float, upper: float, rest: float, line: Line) -> Walk:
    """Cross a box whose bounds exclude the surface."""
    if lower + upper < 2.0 * w.m[LOWEST]:
        w.m[LOWEST] = 0.5 * (lower + upper)
        w.m[LOWEST_AT] = line.near + 0.5 * (s.a + s.b)
    if not w.sampled:
        w.low = line.near + s.b
    w.free = wp.max(rest, lower)
    w.falling = False
    return w


@wp.func
def step_blindly(w: Walk, s: Stretch, line: Line, settings: Settings) -> Walk:
    """Propose a sample in a box that has only bounds of the slope, or not even these."""
    certain = s.a + w.free / s.fall
    end = certain
    if w.sampled and s.spread > HUGE:
        certain = s.a + BLIND_STEP * settings.thinnest
        end = certain
    elif w.sampled:
        sampled_fall = wp.where(s.a == w.start, w.m[SAMPLED_FALL], 0.0)
        end = newton(s, w.free, sampled_fall, settings)
        end = wp.max(end, w.start + settings.thinnest)
    if not w.falling:
        w.m[FREE_UNTIL] = line.near + wp.min(certain, line.length)
        w.m[RISE] = s.rise
    w.m[RISE] = wp.max(w.m[RISE], s.rise)
    w.t = line.near + wp.min(end, line.length)
    return w

"""The way from a guess to a hit in one kernel, for fields whose value is a Warp function as well.

See warpdvr/intersection/cached.py, which does the same step by step with Torch: a ray that passes close by is sampled
again, twice, and a crossing is corrected by the secant method.
"""

from functools import cache
from types import SimpleNamespace
from typing import Any

import warp as wp

from warpdvr.kernels.status import GAVE_UP, HIT

SIDES = 4
"""Samples on either side of the nearest point, twice: across a cell, then across a part of it."""

samples = wp.types.vector(2 * SIDES, wp.float32)

STEEP = wp.constant(0.1)  # a secant flatter than this share of the last slope is none
SETTLED = wp.constant(0.25)  # the last step of a hit, in cells, is shorter


@wp.struct
class Settings:
    """Lengths of the corrections."""

    width: float  # of a cell, the longest step
    least: float  # a step that is shorter gives no slope
    corrections: int


@wp.struct
class Crossing:
    """Where values change their sign."""

    found: bool
    t: float
    descent: float  # how fast they fall there


@wp.func
def first_crossing(coarse_t: samples, coarse: samples, fine_t: samples, fine: samples) -> Crossing:
    """The first change from positive to not positive in two rows of samples, taken together in their order."""
    c = Crossing()
    c.t = wp.nan
    c.descent = wp.nan
    i = int(0)
    j = int(0)
    before = float(wp.nan)
    f = float(wp.nan)
    for _ in range(4 * SIDES):
        use_fine = i >= 2 * SIDES
        if i < 2 * SIDES and j < 2 * SIDES:
            use_fine = fine_t[j] < coarse_t[i]
        at = float(0.0)
        g = float(0.0)
        if use_fine:
            at = fine_t[j]
            g = fine[j]
            j += 1
        else:
            at = coarse_t[i]
            g = coarse[i]
            i += 1
        if not c.found and f > 0.0 and g <= 0.0:
            c.found = True
            c.descent = (f - g) / (at - before)
            c.t = before + f / c.descent
        before = at
        f = g
    return c


@cache
def kernels(value: Any, parameters: Any) -> SimpleNamespace:
    """Return the kernel for one function of a point and its parameters, see `warpdvr.kernels.fused.kernels`."""

    @wp.func
    def sampled(o: wp.vec3, d: wp.vec3, center: float, spacing: float, p: parameters):
        """Return places around `center`, the values there, and the place of the smallest one."""
        t = samples()
        f = samples()
        lowest = int(0)
        for k in range(2 * SIDES):
            t[k] = center + spacing * (float(k - SIDES) + 0.5)
            f[k] = value(o + d * t[k], p)
            if f[k] < f[lowest]:
                lowest = k
        return t, f, t[lowest]

    @wp.func
    def corrected(o: wp.vec3, d: wp.vec3, t: float, descent: float, s: Settings, p: parameters) -> float:
        """The crossing after steps of the secant method; NaN if the last one was not small."""
        before = t
        f = value(o + d * t, p)
        t += wp.clamp(f / descent, -s.width, s.width)
        for _ in range(s.corrections):
            g = value(o + d * t, p)
            step = t - before
            secant = (f - g) / step
            # between nearly equal values or points the last slope is the better one
            if wp.abs(step) > s.least and secant > STEEP * descent:
                descent = secant
            before = t
            f = g
            t += wp.clamp(f / descent, -s.width, s.width)
        return wp.where(wp.abs(t - before) < SETTLED * s.width, t, wp.nan)

    @wp.kernel(enable_backward=False, module=f"{__name__}.{value.key}.{parameters.key}")
    def settle(
        first: int,
        p: parameters,
        origin: wp.array[wp.vec3],
        direction: wp.array[wp.vec3],
        s: Settings,
        # state, as kernels/cached.py leaves it
        status: wp.array[wp.int32],
        t: wp.array[float],
        descent: wp.array[float],
        nearest: wp.array[float],
        close: wp.array[wp.bool],
        # outputs
        evaluations: wp.array[wp.int32],
    ):
        """Sample again where a ray passes close by, and correct the crossings of those that hit."""
        r = first + wp.tid()
        o = origin[r]
        d = direction[r]
        count = int(0)
        if close[r]:
            coarse_t, coarse, lowest = sampled(o, d, nearest[r], s.width / float(SIDES), p)
            fine_t, fine, least = sampled(o, d, lowest, 0.5 * s.width / float(SIDES * SIDES), p)
            nearest[r] = least
            c = first_crossing(coarse_t, coarse, fine_t, fine)
            count += 4 * SIDES
            if c.found:
                status[r] = HIT
                t[r] = c.t
                descent[r] = c.descent
        if status[r] == HIT:
            at = corrected(o, d, t[r], descent[r], s, p)
            count += s.corrections + 1
            if wp.isnan(at):
                status[r] = GAVE_UP
            else:
                t[r] = at
                nearest[r] = at
        evaluations[r] = count

    return SimpleNamespace(settle=settle)

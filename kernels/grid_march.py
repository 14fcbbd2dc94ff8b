"""Steps of a march through a BoundGrid, which asks the field only where a surface can be.

The grid's arrays have one row per node: the least and the largest value in the box, and (g, r): every gradient in it is
within r of g. A march keeps a lower bound of the value along the ray: it falls no faster than the slopes allow (Ban and
Valasek, "Generalized Lipschitz Tracing of Implicit Surfaces", 2024, with the direction of the ray taken into account)
and rises to the least value of a box for free. Where it reaches 0, the field is asked. A step may hope for more; where
a crossing could hide in front of what was asked, that is halved until none can (`AHEAD`, a positive value), or until it
is short and another crossing was found (`END`).

In the boxes that may hold the surface the grid knows more: a model of the field (kernels/box_model.py). The field is
then asked where the model is 0, and what it answers is corrected by the slope there: the ray has landed if the
correction is certain enough.
"""

import warp as wp

from warpdvr.kernels import box_model as _model
from warpdvr.kernels.grid import NUDGE, find, leave
from warpdvr.kernels.grid_narrow import (
    AHEAD,
    CORRECTIONS,
    DOUBT,
    DROP,
    END,
    F_AHEAD,
    FALL,
    GENTLE,
    LEAST,
    RISE,
    STEEP,
    SURE,
    TRIES,
    TRUST,
    WHERE,
    back,
    memory,
)
from warpdvr.kernels.status import HIT, MISS

OVERSHOOT = wp.constant(1.05)  # a Newton step aims a little behind the root, so that the next sample closes a bracket
HUGE = wp.constant(1.0e29)  # values above, and slopes, are taken for unknown
BLIND = wp.constant(16.0)  # the step where nothing is known, in shortest steps
FLAT = wp.constant(1.0e-20)  # the smallest slope
ROUNDING = wp.constant(2.4e-7)  # of the length of a ray: less than that is no way forward


@wp.func
def ahead(
    a: float,
    b: float,
    free: float,
    fall: float,
    rise: float,
    along: float,
    drop: float,
    relaxation: float,
    thinnest: float,
) -> float:
    """Where to ask in the box [a, b], with a value of at least `free` at a that may fall to 0 inside of it."""
    end = a + wp.max(relaxation * free / fall, thinnest)
    if rise <= 0.0:
        end = a + OVERSHOOT * free / -along + thinnest  # the value falls all the way: no crossing can be stepped over
    elif fall < 10.0 * drop and free < 4.0 * thinnest * fall:
        end = wp.max(end, a + 1.3 * free / drop)  # as the samples fall, the surface is right ahead: try behind it
    return wp.min(end, wp.max(b, a + thinnest))


@wp.kernel(enable_backward=False)
def propose(
    origin: wp.array[wp.vec3],
    direction: wp.array[wp.vec3],
    near: wp.array[float],
    far: wp.array[float],
    base: wp.vec3,
    sides: wp.vec3,
    cells: wp.vec3i,
    child: wp.array[wp.int32],
    lower: wp.array[float],
    upper: wp.array[float],
    slope: wp.array[wp.vec4],
    models: wp.array[_model.model],
    lipschitz: float,
    relaxation: float,
    thinnest: float,
    gap: float,
    walks: wp.array[wp.bool],
    ray: wp.array[wp.int32],
    # state
    status: wp.array[wp.int32],
    low: wp.array[float],
    t: wp.array[float],
    f_low: wp.array[float],
    remembered: wp.array[memory],
    # outputs
    x: wp.array[wp.vec3],
):
    """Go on from t, where the value is f_low (or unknown: NaN), to the next point that must be asked."""
    i = wp.tid()
    r = ray[i]
    if walks[i]:
        m = remembered[r]
        m[FALL] = 0.0
        d = direction[r]
        o = wp.cw_div(origin[r] + near[r] * d - base, sides)  # lengths count from near, where they are exact
        e = wp.cw_div(d, sides)
        last = far[r] - near[r]
        nudge = wp.max(NUDGE * wp.min(sides[0], wp.min(sides[1], sides[2])), ROUNDING * last)
        asked = f_low[r] > 0.0
        start = t[r] - near[r]
        a = float(start)
        free = wp.where(asked and f_low[r] < HUGE, f_low[r], 0.0)
        open = bool(False)  # the value may have come down to 0 after SURE, and falls ever since
        t[r] = wp.nan
        while a < last and wp.isnan(t[r]):
            node, corner, side, row = find(o + e * (a + nudge), cells, child)
            b = wp.min(wp.max(leave(o, e, corner, side), a + nudge), last)
            s = slope[node]
            along = s[0] * d[0] + s[1] * d[1] + s[2] * d[2]
            steep = wp.clamp(s[3] - along, FLAT, lipschitz)
            rise = wp.min(s[3] + along, lipschitz)
            rest = free - steep * (b - a)
            if lower[node] > 0.0:
                if lower[node] + upper[node] < 2.0 * m[LEAST]:
                    m[LEAST] = 0.5 * (lower[node] + upper[node])
                    m[WHERE] = near[r] + 0.5 * (a + b)
                if not asked:
                    low[r] = near[r] + b
                free = wp.max(rest, lower[node])
                open = False
            elif rest > 0.0:
                free = rest
                open = False
            elif row <= -2 and m[DOUBT] == 0.0:
                k = models[-2 - row]
                length = b - a
                q = _model.cubic(k, (o + e * a - corner) / side, e * length / side)
                error = k[_model.ERROR]
                here = asked and a == start
                tilt = _model.KINK * error / (side * wp.min(sides[0], wp.min(sides[1], sides[2])))
                known = wp.vec4(free, q[1] - tilt * length, q[2], q[3])
                sure = wp.max(_model.reach(q, 0.0, error), free / (steep * length))
                if free > 0.0:
                    sure = wp.max(sure, _model.reach(known, 0.0, 0.0))
                if sure >= 1.0:
                    end_free = wp.max(rest, _model.at(q, 1.0) - error)
                    if free > 0.0:
                        end_free = wp.max(end_free, _model.at(known, 1.0))
                    free = end_free
                    if not asked:
                        low[r] = near[r] + b
                    open = False
                else:
                    if here:
                        q = wp.vec4(free, q[1], q[2], q[3])
                    root = _model.reach(q, sure, 0.0)
                    range = _model.steepest(q, sure, wp.clamp(2.0 * root - sure, sure, 1.0))
                    rise_here = wp.min(rise, range[1] / length + tilt)
                    if sure > 0.0 or not open:
                        open = False
                        m[SURE] = near[r] + a + sure * length
                        m[RISE] = rise_here
                        if not asked:
                            low[r] = m[SURE]
                    m[RISE] = wp.max(m[RISE], rise_here)
                    if root > 1.0 and rise_here <= 0.0:
                        open = True
                        free = 0.0
                    elif root > 1.0:
                        end = a + length * _model.lowest(q, sure)
                        if here:
                            end = a + wp.max(relaxation * sure * length, thinnest)
                        t[r] = near[r] + wp.min(end, last)
                    else:
                        end = a + root * length
                        fall = -_model.slope_at(q, root) / length
                        m[TRUST] = error
                        gentle = wp.max(fall - tilt, -along - s[3])
                        if gentle > 0.0 and m[RISE] <= 0.0:
                            m[GENTLE] = gentle
                            m[STEEP] = wp.min(wp.min(fall + tilt, s[3] - along), lipschitz)
                            m[FALL] = wp.clamp(fall, m[GENTLE], m[STEEP])
                            m[TRIES] = CORRECTIONS
                        elif asked:
                            end = wp.max(end, start + thinnest)
                        t[r] = near[r] + wp.min(end, last)
            else:
                certain = a + free / steep
                end = certain
                if asked and s[3] > HUGE:
                    certain = a + BLIND * thinnest
                    end = certain
                elif asked:
                    drop = wp.where(a == start, m[DROP], 0.0)
                    end = ahead(a, b, free, steep, rise, along, drop, relaxation, thinnest)
                    end = wp.max(end, start + thinnest)
                if not open:
                    m[SURE] = near[r] + wp.min(certain, last)
                    m[RISE] = rise
                m[RISE] = wp.max(m[RISE], rise)
                t[r] = near[r] + wp.min(end, last)
            a = b
            if not wp.isnan(t[r]) and m[AHEAD] > m[SURE]:
                if back(m) <= m[SURE] + thinnest:
                    low[r] = m[AHEAD]
                    f_low[r] = m[F_AHEAD]
                    asked = True
                    start = m[AHEAD] - near[r]
                    a = float(start)
                    free = m[F_AHEAD]
                    open = False
                    t[r] = wp.nan
                    m[AHEAD] = wp.nan
                    m[FALL] = 0.0
                elif m[FALL] == 0.0:
                    t[r] = wp.min(t[r], 0.5 * (m[SURE] + back(m)))
        if not wp.isnan(m[END]):
            if wp.isnan(t[r]) or m[END] - m[SURE] <= gap or t[r] >= m[END]:
                status[r] = HIT
                t[r] = m[END]
            elif m[FALL] == 0.0:
                t[r] = wp.min(t[r], 0.5 * (m[SURE] + m[END]))
        if wp.isnan(t[r]):
            t[r] = far[r]
            if not open:
                status[r] = MISS
        remembered[r] = m
    x[i] = origin[r] + direction[r] * t[r]

"""Steps of a march through a BoundGrid, which evaluates the field only where a surface can be.

The grid's arrays have one row per node: the least and the largest value in the box, and (g, r): every gradient in it is
within r of g. A march keeps a lower bound of the value along the ray: it falls no faster than the slopes allow (Ban and
Valasek, "Generalized Lipschitz Tracing of Implicit Surfaces", 2024, with the direction of the ray taken into account)
and rises to the least value of a box for free. Where it reaches 0, the field is evaluated. A step may go further;
where a crossing could hide in front of a sample, the way to it is halved until none can (`SAMPLE_AHEAD`, a positive
value), or until it is short and another crossing was found (`CROSSING`).

In the boxes that may hold the surface the grid knows more: a model of the field (kernels/box_model.py). The field is
then evaluated where the model is 0, and the place is corrected by the value and the slope there: the ray has landed if
the correction is certain enough.
"""

import warp as wp

from warpdvr.kernels import box_model as _model
from warpdvr.kernels.grid import NUDGE, Tree, find, leave
from warpdvr.kernels.grid_narrow import (
    CAUTION,
    CORRECTIONS_LEFT,
    CROSSING,
    FALL,
    FREE_UNTIL,
    MAX_CORRECTIONS,
    MAX_FALL,
    MIN_FALL,
    MIN_SLOPE,
    MODEL_FAILED,
    MODEL_TOLERANCE,
    RISE,
    SAMPLE_AHEAD,
    STEEPEST_FALL,
    STEEPEST_RISE,
    VALUE_AHEAD,
    Settings,
    may_hide,
    memory,
    positive_from,
)
from warpdvr.kernels.grid_step import HUGE, Line, Stretch, Walk, pass_free, step_blindly
from warpdvr.kernels.ray_state import RayLines, RayState
from warpdvr.kernels.status import HIT, MISS

IRREGULAR = wp.constant(1.5)  # slopes vary so much more than their mean where nobody knows how steep parts are
CAREFUL = wp.constant(0.8)  # share of the free length that is stepped there
ROUNDING = wp.constant(2.4e-7)  # relative to the length of a ray: the shortest step that advances


@wp.func
def land_on_model(
    w: Walk,
    s: Stretch,
    q: wp.vec4,
    root: float,
    tilt: float,
    lipschitz: float,
    line: Line,
    thinnest: float,
) -> Walk:
    """Propose the root of the model, as a landing if the value certainly falls there."""
    length = s.b - s.a
    end = s.a + root * length
    fall = -_model.slope_at(q, root) / length
    gentle = wp.max(fall - tilt, -s.along - s.spread)
    if gentle > 0.0 and w.m[RISE] <= 0.0:
        w.m[MIN_FALL] = gentle
        w.m[MAX_FALL] = wp.min(wp.min(fall + tilt, s.spread - s.along), lipschitz)
        w.m[FALL] = wp.clamp(fall, w.m[MIN_FALL], w.m[MAX_FALL])
        w.m[CORRECTIONS_LEFT] = MAX_CORRECTIONS
    elif w.sampled:
        end = wp.max(end, w.start + thinnest)
    w.t = line.near + wp.min(end, line.length)
    return w


@wp.func
def follow_model(w: Walk, s: Stretch, k: _model.model, tree: Tree, line: Line, rest: float, settings: Settings) -> Walk:
    """Cross a box whose model excludes the surface on the ray, or propose a sample where it has its root."""
    length = s.b - s.a
    q = _model.cubic(k, (line.o + line.e * s.a - s.corner) / s.side, line.e * length / s.side)  # type: ignore[arg-type]
    error = k[_model.ERROR]
    at_sample = w.sampled and s.a == w.start
    tilt = _model.KINK * error / (s.side * wp.min(tree.side[0], wp.min(tree.side[1], tree.side[2])))
    steepest = wp.vec4(w.free, q[1] - tilt * length, q[2], q[3])  # from the value at a, it falls no faster than this
    free_share = wp.max(_model.first_below(q, 0.0, error), w.free / (s.fall * length))
    if w.free > 0.0:
        free_share = wp.max(free_share, _model.first_below(steepest, 0.0, 0.0))
    if free_share >= 1.0:
        free = wp.max(rest, _model.at(q, 1.0) - error)
        if w.free > 0.0:
            free = wp.max(free, _model.at(steepest, 1.0))
        w.free = free
        if not w.sampled:
            w.low = line.near + s.b
        w.falling = False
        return w
    if at_sample:
        q = wp.vec4(w.free, q[1], q[2], q[3])
    root = _model.first_below(q, free_share, 0.0)
    slopes = _model.slope_range(q, free_share, wp.clamp(2.0 * root - free_share, free_share, 1.0))
    rise = wp.min(s.rise, slopes[1] / length + tilt)
    if free_share > 0.0 or not w.falling:
        w.falling = False
        w.m[FREE_UNTIL] = line.near + s.a + free_share * length
        w.m[RISE] = rise
        if not w.sampled:
            w.low = w.m[FREE_UNTIL]
    w.m[RISE] = wp.max(w.m[RISE], rise)
    if root > 1.0 and rise <= 0.0:
        w.falling = True
        w.free = 0.0
    elif root > 1.0:
        end = s.a + length * _model.lowest_place(q, free_share)
        if at_sample:
            end = s.a + wp.max(settings.relaxation * free_share * length, settings.thinnest)
        w.t = line.near + wp.min(end, line.length)
    else:
        w.m[MODEL_TOLERANCE] = error
        w = land_on_model(w, s, q, root, tilt, tree.lipschitz, line, settings.thinnest)
    return w


@wp.func
def cross_box(w: Walk, a: float, nudge: float, d: wp.vec3, tree: Tree, line: Line, settings: Settings):
    """Cross the box behind a, or propose a sample in it; return how far the ray has come, and where the box ends."""
    node, corner, side, child = find(line.o + line.e * (a + nudge), tree)  # type: ignore[arg-type]
    g = tree.slope[node]
    s = Stretch()
    s.a = a
    s.b = wp.min(wp.max(leave(line.o, line.e, corner, side), a + nudge), line.length)
    s.corner = corner
    s.side = side
    s.along = g[0] * d[0] + g[1] * d[1] + g[2] * d[2]
    caution = w.m[CAUTION]
    s.spread = g[3]
    if caution > 1.0:
        s.spread = caution * (g[3] + wp.length(wp.vec3(g[0], g[1], g[2])))
    s.fall = wp.clamp(s.spread - s.along, MIN_SLOPE, tree.lipschitz)
    s.rise = wp.min(s.spread + s.along, tree.lipschitz)
    w.m[STEEPEST_FALL] = wp.max(w.m[STEEPEST_FALL], s.fall)
    w.m[STEEPEST_RISE] = wp.max(w.m[STEEPEST_RISE], s.rise)
    rest = wp.where(s.fall > HUGE, 0.0, w.free - s.fall * (s.b - a))
    if tree.lower[node] > 0.0:
        w = pass_free(w, s, tree.lower[node], tree.upper[node], rest, line)
    elif rest > 0.0:
        w.free = rest
        w.falling = False
    elif child <= -2 and w.m[MODEL_FAILED] == 0.0:
        w = follow_model(w, s, tree.models[-2 - child], tree, line, rest, settings)
    else:
        w = step_blindly(w, s, line, settings)
    irregular = g[3] > IRREGULAR * wp.length(wp.vec3(g[0], g[1], g[2]))
    if irregular and tree.lipschitz > HUGE and not wp.isnan(w.t) and w.sampled and w.m[FALL] == 0.0:
        start = wp.max(s.a, w.start)
        w.t = wp.min(w.t, line.near + start + wp.max(settings.rough_step, CAREFUL * w.free / s.fall))
    return w, s.b


@wp.kernel(enable_backward=False)
def propose(
    lines: RayLines,
    tree: Tree,
    settings: Settings,
    advances: wp.array[wp.bool],
    index: wp.array[wp.int32],
    # state
    rays: RayState,
    memories: wp.array[memory],
    # outputs
    x: wp.array[wp.vec3],
):
    """Go on from t, where the value is f_low (or unknown: NaN), to the next point that must be sampled."""
    i = wp.tid()
    r = index[i]
    if advances[i]:
        d = lines.direction[r]
        line = Line()
        line.near = lines.near[r]
        line.o = wp.cw_div(lines.origin[r] + line.near * d - tree.low, tree.side)
        line.e = wp.cw_div(d, tree.side)
        line.length = lines.far[r] - line.near
        nudge = wp.max(NUDGE * wp.min(tree.side[0], wp.min(tree.side[1], tree.side[2])), ROUNDING * line.length)
        w = Walk()
        w.m = memories[r]
        w.m[FALL] = 0.0
        w.m[STEEPEST_FALL] = 0.0
        w.m[STEEPEST_RISE] = 0.0
        w.t = wp.nan
        w.low = rays.low[r]
        w.start = rays.high[r] - line.near
        w.sampled = rays.f_low[r] > 0.0
        w.free = wp.where(w.sampled and rays.f_low[r] < HUGE, rays.f_low[r], 0.0)
        a = float(w.start)
        while a < line.length and wp.isnan(w.t):
            w, a = cross_box(w, a, nudge, d, tree, line, settings)
            if not wp.isnan(w.t) and w.m[SAMPLE_AHEAD] > w.m[FREE_UNTIL]:
                if (
                    positive_from(w.m) <= w.m[FREE_UNTIL] + settings.thinnest
                ):  # everything is known up to there: go on behind it
                    w.low = w.m[SAMPLE_AHEAD]
                    w.free = w.m[VALUE_AHEAD]
                    w.sampled = True
                    w.start = w.low - line.near
                    w.falling = False
                    w.t = wp.nan
                    w.m[SAMPLE_AHEAD] = wp.nan
                    w.m[FALL] = 0.0
                    w.m[STEEPEST_FALL] = 0.0
                    w.m[STEEPEST_RISE] = 0.0
                    a = float(w.start)
                    rays.f_low[r] = w.free
                elif w.m[FALL] == 0.0:
                    w.t = wp.min(w.t, 0.5 * (w.m[FREE_UNTIL] + positive_from(w.m)))
        if not wp.isnan(w.m[CROSSING]):
            front = w.m[FREE_UNTIL]
            certain = w.m[RISE] <= 0.0 or w.m[FALL] > 0.0
            if wp.isnan(w.t) or not may_hide(front, w.m[CROSSING], settings, w.m) or (w.t >= w.m[CROSSING] and certain):
                rays.status[r] = HIT
                w.t = w.m[CROSSING]
            elif w.m[FALL] == 0.0:
                w.t = wp.min(w.t, 0.5 * (w.m[FREE_UNTIL] + w.m[CROSSING]))
        if wp.isnan(w.t):
            w.t = lines.far[r]
            if not w.falling:
                rays.status[r] = MISS
        rays.low[r] = w.low
        rays.high[r] = w.t
        memories[r] = w.m
    x[i] = lines.origin[r] + lines.direction[r] * rays.high[r]

"""Steps of a march through a BoundGrid, which asks the field only where a surface can be.

A grid is a tree: `cells` boxes of size `side` from the corner `low` on, row-major, each with `child`, the first of its
eight halves, or -1. Its arrays have one row per node: the least and the largest value in the box, and (g, r): every
gradient in it is within r of g. A march keeps a lower bound of the value along the ray: it falls no faster than the
slopes allow (Ban and Valasek, "Generalized Lipschitz Tracing of Implicit Surfaces", 2024, with the direction of the ray
taken into account) and rises to the least value of a box for free. Where it reaches 0, the field is asked.
"""

import warp as wp

from warpdvr.kernels.status import ACTIVE, GAVE_UP, HIT, INSIDE, MISS

memory = wp.types.vector(length=6, dtype=wp.float32)
"""What a march remembers of a ray: SURE .. LEAST."""
SURE = wp.constant(0)  # up to here no crossing can hide in front of the proposed sample
RISE = wp.constant(1)  # how fast the value may rise between SURE and it
DROP = wp.constant(2)  # how fast the value fell between the last two samples
BEHIND = wp.constant(3)  # a point with a value <= 0 that was met before any positive one; NaN if there is none
WHERE = wp.constant(4)  # middle of the box with the smallest mean of bounds, of those that were crossed for free
LEAST = wp.constant(5)  # and that mean

OVERSHOOT = wp.constant(1.05)  # a Newton step aims a little behind the root, so that the next sample closes a bracket
HUGE = wp.constant(1.0e29)  # values above, and slopes, are taken for unknown
BLIND = wp.constant(16.0)  # the step where nothing is known, in shortest steps
FLAT = wp.constant(1.0e-20)  # the smallest slope
NUDGE = wp.constant(1.0e-4)  # how far behind its border a box is looked up, in the largest sides


@wp.func
def find(x: wp.vec3, cells: wp.vec3i, child: wp.array[wp.int32]):
    """The leaf that x lies in (or is nearest to), its lowest corner and its side, all in units of the largest cells."""
    i = wp.clamp(int(wp.floor(x[0])), 0, cells[0] - 1)
    j = wp.clamp(int(wp.floor(x[1])), 0, cells[1] - 1)
    k = wp.clamp(int(wp.floor(x[2])), 0, cells[2] - 1)
    node = (i * cells[1] + j) * cells[2] + k
    corner = wp.vec3(float(i), float(j), float(k))
    side = float(1.0)
    first = child[node]
    while first >= 0:
        side = 0.5 * side
        i = wp.where(x[0] >= corner[0] + side, 1, 0)
        j = wp.where(x[1] >= corner[1] + side, 1, 0)
        k = wp.where(x[2] >= corner[2] + side, 1, 0)
        corner = wp.vec3(corner[0] + side * float(i), corner[1] + side * float(j), corner[2] + side * float(k))
        node = first + 4 * i + 2 * j + k
        first = child[node]
    return node, corner, side


@wp.func
def leave(o: wp.vec3, d: wp.vec3, corner: wp.vec3, side: float) -> float:
    """Where the ray leaves a box."""
    t = float(1.0e30)
    for a in range(3):
        if d[a] > 0.0:
            t = wp.min(t, (corner[a] + side - o[a]) / d[a])
        if d[a] < 0.0:
            t = wp.min(t, (corner[a] - o[a]) / d[a])
    return t


@wp.kernel(enable_backward=False)
def leaf(
    point: wp.array[wp.vec3],
    low: wp.vec3,
    side: wp.vec3,
    cells: wp.vec3i,
    child: wp.array[wp.int32],
    # outputs
    node: wp.array[wp.int32],
):
    """The leaf that each point lies in."""
    i = wp.tid()
    found, _corner, _side = find(wp.cw_div(point[i] - low, side), cells, child)
    node[i] = found


@wp.func
def first_inside(here: float, near: float, low: float, thinnest: float, m: memory) -> float:
    """Where to look for a positive value, after a value <= 0 that no positive sample came before."""
    if wp.isnan(m[BEHIND]) and not wp.isnan(low):
        return low  # the grid calls it positive
    return wp.max(near, here - 2.0 * wp.max(m[BEHIND] - here, thinnest))


@wp.kernel(enable_backward=False)
def judge(
    value: wp.array[float],
    near: wp.array[float],
    far: wp.array[float],
    thinnest: float,
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
    # outputs
    walks: wp.array[wp.bool],
):
    """Take in the value at t: decide the ray, send it back, or let it walk on from (low, f_low).

    `f_low` is NaN where `low` was not asked, but is called positive by the grid.
    """
    i = wp.tid()
    r = ray[i]
    f = value[i]
    here = t[r]
    m = remembered[r]
    walks[i] = False
    if f < f_nearest[r]:
        f_nearest[r] = f
        nearest[r] = here
    if wp.isnan(f):
        status[r] = GAVE_UP
        return
    if f <= 0.0:
        status[r] = HIT
        f_high[r] = f
        if f_low[r] > 0.0:
            return
        if here <= near[r]:
            status[r] = wp.where(f < 0.0, INSIDE, HIT)
            low[r] = here
            f_low[r] = f
            return
        status[r] = ACTIVE
        t[r] = first_inside(here, near[r], low[r], thinnest, m)
        m[BEHIND] = here
        remembered[r] = m
        return
    if not wp.isnan(m[BEHIND]):
        status[r] = HIT
        low[r] = here
        f_low[r] = f
        t[r] = m[BEHIND]
        return
    if f_low[r] > 0.0:
        m[DROP] = (f_low[r] - f) / (here - low[r])
        if m[RISE] > 0.0 and here - f / m[RISE] > m[SURE] + thinnest:
            t[r] = wp.max(m[SURE], low[r] + thinnest)
            m[SURE] = t[r]
            remembered[r] = m
            return
    remembered[r] = m
    low[r] = here
    f_low[r] = f
    walks[i] = here < far[r]
    if here >= far[r]:
        status[r] = MISS


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
def walk(
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
    lipschitz: float,
    relaxation: float,
    thinnest: float,
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
        d = direction[r]
        o = wp.cw_div(origin[r] + near[r] * d - base, sides)  # lengths count from near, where they are exact
        e = wp.cw_div(d, sides)
        last = far[r] - near[r]
        nudge = NUDGE * wp.min(sides[0], wp.min(sides[1], sides[2]))
        asked = f_low[r] > 0.0
        start = t[r] - near[r]
        a = float(start)
        free = wp.where(asked and f_low[r] < HUGE, f_low[r], 0.0)
        t[r] = wp.nan
        while a < last and wp.isnan(t[r]):
            node, corner, side = find(o + e * (a + nudge), cells, child)
            b = wp.min(wp.max(leave(o, e, corner, side), a + nudge), last)
            s = slope[node]
            along = s[0] * d[0] + s[1] * d[1] + s[2] * d[2]
            steep = wp.clamp(s[3] - along, FLAT, lipschitz)
            rest = free - steep * (b - a)
            if lower[node] > 0.0:
                if lower[node] + upper[node] < 2.0 * m[LEAST]:
                    m[LEAST] = 0.5 * (lower[node] + upper[node])
                    m[WHERE] = near[r] + 0.5 * (a + b)
                if not asked:
                    low[r] = near[r] + b
                free = wp.max(rest, lower[node])
            elif rest > 0.0:
                free = rest
            else:
                certain = a + free / steep
                end = certain
                rise = wp.min(s[3] + along, lipschitz)
                if asked and s[3] > HUGE:
                    certain = a + BLIND * thinnest
                    end = certain
                elif asked:
                    drop = wp.where(a == start, m[DROP], 0.0)
                    end = ahead(a, b, free, steep, rise, along, drop, relaxation, thinnest)
                    end = wp.max(end, start + thinnest)
                m[SURE] = near[r] + wp.min(certain, last)
                m[RISE] = rise
                t[r] = near[r] + wp.min(end, last)
            a = b
        if wp.isnan(t[r]):
            status[r] = MISS
            t[r] = far[r]
        remembered[r] = m
    x[i] = origin[r] + direction[r] * t[r]

"""The inverse of a lens's distortion, in float64: Newton's method, first for the radial part in a bracket.

`terms` holds the distortion as one row: `TOP` coefficients of the radial numerator in q = |p|^2, `BOTTOM` of the
denominator, p1, p2, then s1 to s4, in OpenCV's order.
"""

import warp as wp

TOP = wp.constant(7)
BOTTOM = wp.constant(4)

STEPS = wp.constant(60)  # of each search at most: 5 are usual, halvings of a bracket need 52
NEAR = wp.constant(wp.float64(1e-14))  # residual at which a search ends, in units of the plane
FOUND = wp.constant(wp.float64(1e-11))  # residual up to which a point counts as the inverse
LEAST = wp.constant(wp.float64(1e-4))  # part of a step below which a search gives up


@wp.struct
class Moved:
    place: wp.vec2d
    jacobian: wp.mat22d


@wp.func
def length(v: wp.vec2d) -> wp.float64:
    """The length of a vector."""
    return wp.sqrt(v[0] * v[0] + v[1] * v[1])


@wp.func
def determinant(m: wp.mat22d) -> wp.float64:
    """The determinant of a matrix."""
    return m[0, 0] * m[1, 1] - m[0, 1] * m[1, 0]


@wp.func
def ratio(terms: wp.array[wp.float64], q: wp.float64) -> wp.vec2d:
    """The radial factor and its derivative by q."""
    top = wp.float64(0.0)
    rise = wp.float64(0.0)
    for i in range(TOP):
        rise = rise * q + top
        top = top * q + terms[TOP - 1 - i]
    bottom = wp.float64(0.0)
    fall = wp.float64(0.0)
    for i in range(BOTTOM):
        fall = fall * q + bottom
        bottom = bottom * q + terms[TOP + BOTTOM - 1 - i]
    scale = top / bottom
    return wp.vec2d(scale, (rise - scale * fall) / bottom)


@wp.func
def decentred(terms: wp.array[wp.float64], p: wp.vec2d) -> Moved:
    """The tangential and prism terms of a point."""
    p1 = terms[TOP + BOTTOM]
    p2 = terms[TOP + BOTTOM + 1]
    s1 = terms[TOP + BOTTOM + 2]
    s2 = terms[TOP + BOTTOM + 3]
    s3 = terms[TOP + BOTTOM + 4]
    s4 = terms[TOP + BOTTOM + 5]
    two = wp.float64(2.0)
    six = wp.float64(6.0)
    x = p[0]
    y = p[1]
    q = x * x + y * y
    moved = Moved()
    moved.place = wp.vec2d(
        two * p1 * x * y + p2 * (q + two * x * x) + s1 * q + s2 * q * q,
        two * p2 * x * y + p1 * (q + two * y * y) + s3 * q + s4 * q * q,
    )
    along_x = two * (s1 + two * s2 * q)
    along_y = two * (s3 + two * s4 * q)
    mixed = two * (p1 * x + p2 * y)
    moved.jacobian = wp.mat22d(
        two * p1 * y + six * p2 * x + along_x * x,
        mixed + along_x * y,
        mixed + along_y * x,
        two * p2 * x + six * p1 * y + along_y * y,
    )
    return moved


@wp.func
def apply(terms: wp.array[wp.float64], chained: bool, p: wp.vec2d) -> Moved:
    """Where a point is moved, and the Jacobian."""
    radial = ratio(terms, p[0] * p[0] + p[1] * p[1])
    eye = wp.identity(n=2, dtype=wp.float64)
    bend = wp.float64(2.0) * radial[1]
    jacobian = radial[0] * eye + bend * wp.mat22d(p[0] * p[0], p[0] * p[1], p[0] * p[1], p[1] * p[1])
    moved = Moved()
    if chained:
        rest = decentred(terms, radial[0] * p)
        moved.jacobian = (eye + rest.jacobian) * jacobian
        moved.place = radial[0] * p + rest.place
    else:
        rest = decentred(terms, p)
        moved.jacobian = jacobian + rest.jacobian
        moved.place = radial[0] * p + rest.place
    return moved


@wp.func
def radial_inverse(terms: wp.array[wp.float64], target: wp.float64, limit: wp.float64) -> wp.float64:
    """The radius that the radial part moves to `target`; a little within `limit` if there is none."""
    half = wp.float64(0.5)
    low = wp.float64(0.0)
    high = wp.float64(1.0)
    if high > limit:
        high = limit
    while high < limit and high * ratio(terms, high * high)[0] < target:
        high = wp.min(wp.float64(2.0) * high, limit)
    goal = wp.min(target, wp.float64(0.999) * high * ratio(terms, high * high)[0])
    r = wp.min(goal, half * high)
    for _ in range(STEPS):
        radial = ratio(terms, r * r)
        miss = r * radial[0] - goal
        if wp.abs(miss) <= NEAR * (wp.float64(1.0) + goal):
            break
        if miss < wp.float64(0.0):
            low = r
        else:
            high = r
        r = r - miss / (radial[0] + wp.float64(2.0) * r * r * radial[1])
        if not (r > low and r < high):
            r = half * (low + high)
    return r


@wp.kernel(enable_backward=False)
def invert(
    moved: wp.array[wp.vec2d],
    terms: wp.array[wp.float64],
    chained: bool,
    limit: wp.float64,
    # outputs
    place: wp.array[wp.vec2d],
    exists: wp.array[wp.bool],
):
    """The points that the distortion takes to `moved`, within the radius `limit` and unfolded; 0 for none.

    A step that comes no nearer, or leaves the radius, is halved.
    """
    i = wp.tid()
    goal = moved[i]
    target = length(goal)
    p = wp.vec2d()
    if target > wp.float64(0.0):
        p = goal * (radial_inverse(terms, target, limit) / target)
    now = apply(terms, chained, p)
    part = wp.float64(1.0)
    for _ in range(STEPS):
        miss = length(goal - now.place)
        if miss <= NEAR * (wp.float64(1.0) + target) or part < LEAST:
            break
        j = now.jacobian
        rest = goal - now.place
        scale = part / determinant(j)
        trial = p + scale * wp.vec2d(j[1, 1] * rest[0] - j[0, 1] * rest[1], j[0, 0] * rest[1] - j[1, 0] * rest[0])
        there = apply(terms, chained, trial)
        if length(goal - there.place) < miss and length(trial) < limit:
            p = trial
            now = there
            part = wp.float64(1.0)
        else:
            part = wp.float64(0.5) * part
    found = length(goal - now.place) < FOUND * (wp.float64(1.0) + target) and length(p) < limit
    exists[i] = found and determinant(now.jacobian) > wp.float64(0.0)
    if exists[i]:
        place[i] = p

"""The model of the field in a box of a BoundGrid that may hold the surface, with a bound of its error.

The model is the trilinear interpolant of the values at the corners, corrected by the second differences of the box.
Along a ray it is a cubic, q[0] + q[1] s + q[2] s^2 + q[3] s^3, with s from 0 to 1 across the box.
"""

import warp as wp

model = wp.types.vector(length=12, dtype=wp.float32)
"""Values at the corners, in the order of the halves; second differences along each axis; the error of the value."""
BEND = wp.constant(8)
ERROR = wp.constant(11)

KINK = wp.constant(4.0)  # a kink with an error e midway between two points h apart changes the slope by 4 e / h
BISECTIONS = wp.constant(22)  # about one for each bit of precision of a float32
NO_ROOT = wp.constant(2.0)  # a place behind the box


@wp.func
def cubic(c: model, p: wp.vec3, v: wp.vec3) -> wp.vec4:
    """The model along p + s v, both in sides of the box."""
    q = trilinear(c, p, v)
    for a in range(3):
        half = 0.5 * c[BEND + a]
        q -= half * wp.vec4(p[a] * (1.0 - p[a]), v[a] * (1.0 - 2.0 * p[a]), -v[a] * v[a], 0.0)
    return q


@wp.func
def trilinear(c: model, p: wp.vec3, v: wp.vec3) -> wp.vec4:
    """The interpolant along p + s v."""
    x = c[4] - c[0]
    y = c[2] - c[0]
    z = c[1] - c[0]
    xy = c[6] - c[4] - y
    xz = c[5] - c[4] - z
    yz = c[3] - c[2] - z
    xyz = c[7] - c[6] - c[5] + c[4] - yz
    near = wp.vec3(xyz * p[1] * p[2], xyz * p[0] * p[2], xyz * p[0] * p[1])
    slope = wp.vec3(x + xy * p[1] + xz * p[2], y + xy * p[0] + yz * p[2], z + xz * p[0] + yz * p[1]) + near
    value = c[0] + p[0] * (x + xy * p[1] + xz * p[2] + xyz * p[1] * p[2]) + p[1] * (y + yz * p[2]) + p[2] * z
    bend = v[0] * v[1] * (xy + xyz * p[2]) + v[0] * v[2] * (xz + xyz * p[1]) + v[1] * v[2] * (yz + xyz * p[0])
    return wp.vec4(value, wp.dot(slope, v), bend, xyz * v[0] * v[1] * v[2])


@wp.func
def at(q: wp.vec4, s: float) -> float:
    """Value of a cubic."""
    return q[0] + s * (q[1] + s * (q[2] + s * q[3]))


@wp.func
def slope_at(q: wp.vec4, s: float) -> float:
    """Slope of a cubic."""
    return q[1] + s * (2.0 * q[2] + s * 3.0 * q[3])


@wp.func
def slope_range(q: wp.vec4, a: float, b: float) -> wp.vec2:
    """The lowest and the highest slope of a cubic from a to b."""
    f = slope_at(q, a)
    g = slope_at(q, b)
    lowest_slope = wp.min(f, g)
    highest_slope = wp.max(f, g)
    turn = -q[2] / wp.where(q[3] == 0.0, 1.0e-30, 3.0 * q[3])
    if turn > a and turn < b:
        h = slope_at(q, turn)
        lowest_slope = wp.min(lowest_slope, h)
        highest_slope = wp.max(highest_slope, h)
    return wp.vec2(lowest_slope, highest_slope)


@wp.func
def turning_points(q: wp.vec4) -> wp.vec2:
    """Where the slope of a cubic is 0, ascending, each moved into [0, 1]."""
    half = q[2] * q[2] - 3.0 * q[1] * q[3]
    if half <= 0.0:
        return wp.vec2(0.0, 0.0)
    root = -(q[2] + wp.where(q[2] < 0.0, -wp.sqrt(half), wp.sqrt(half)))
    first = wp.where(q[3] == 0.0, 0.0, root / wp.where(q[3] == 0.0, 1.0, 3.0 * q[3]))
    second = wp.where(root == 0.0, 0.0, q[1] / wp.where(root == 0.0, 1.0, root))
    first = wp.clamp(first, 0.0, 1.0)
    second = wp.clamp(second, 0.0, 1.0)
    return wp.vec2(wp.min(first, second), wp.max(first, second))


@wp.func
def first_below(q: wp.vec4, a: float, level: float) -> float:
    """The first place from a to 1 where a cubic is at or below `level`, NO_ROOT if there is none."""
    if at(q, a) <= level:
        return a
    turn = turning_points(q)
    low = float(a)
    for i in range(3):
        high = wp.where(i < 2, turn[wp.min(i, 1)], 1.0)
        if high > low:
            if at(q, high) <= level:
                for _ in range(BISECTIONS):
                    middle = 0.5 * (low + high)
                    if at(q, middle) <= level:
                        high = middle
                    else:
                        low = middle
                return high
            low = high
    return NO_ROOT


@wp.func
def lowest_place(q: wp.vec4, a: float) -> float:
    """Where from a to 1 a cubic is smallest."""
    turn = turning_points(q)
    best = wp.where(at(q, 1.0) < at(q, a), 1.0, a)
    for i in range(2):
        if turn[i] > a and at(q, turn[i]) < at(q, best):
            best = turn[i]
    return best

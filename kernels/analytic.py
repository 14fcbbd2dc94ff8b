"""Exact distances and their operators as one Warp function: a program of a few instructions, run at a point.

So one compiled kernel serves every combination of shapes. The instructions are in postfix order, as on a calculator:
a shape puts its distance on a stack, a union takes the two uppermost and puts the smaller one there. What lies between
MOVE and BACK sees the point moved. fields/analytic.py holds the same shapes in Torch, and the source of the distances.
"""

import warp as wp

END = wp.constant(0)
SPHERE = wp.constant(1)  # radius, centre (3)
BOX = wp.constant(2)  # size (3), centre (3)
TORUS = wp.constant(3)  # radius of the ring, radius of the tube
PLANE = wp.constant(4)  # normal (3), offset
UNION = wp.constant(5)
SMOOTH_UNION = wp.constant(6)  # blend
MOVE = wp.constant(7)  # matrix (9, by rows) and offset (3): the point is matrix x - offset until BACK
BACK = wp.constant(8)  # a factor on the distance

MAX_CODE = 64
"""Most instructions of a program, END included."""
MAX_DEPTH = 8
"""Most distances, and most moved points, on their stacks."""

stack = wp.types.vector(MAX_DEPTH, wp.float32)
points = wp.types.matrix((MAX_DEPTH, 3), wp.float32)


@wp.struct
class Program:
    """Instructions, and the numbers that they take one after the other."""

    code: wp.types.vector(MAX_CODE, wp.int32)
    numbers: wp.array[float]


@wp.func
def vec3_at(a: wp.array[float], k: int) -> wp.vec3:
    """Three numbers as a vector."""
    return wp.vec3(a[k], a[k + 1], a[k + 2])


@wp.func
def box(q: wp.vec3) -> float:
    """Distance to a box, with q = |x - centre| - size / 2."""
    outside = wp.length(wp.max(q, wp.vec3()))
    distance = wp.where(outside > 0.0, outside, wp.min(wp.max(q), 0.0))
    return wp.where(wp.isnan(q[0] + q[1] + q[2]), wp.nan, distance)


@wp.func
def moved(x: wp.vec3, n: wp.array[float], k: int) -> wp.vec3:
    """The point matrix x - offset."""
    return wp.vec3(
        wp.dot(vec3_at(n, k), x) - n[k + 9],
        wp.dot(vec3_at(n, k + 3), x) - n[k + 10],
        wp.dot(vec3_at(n, k + 6), x) - n[k + 11],
    )


@wp.func
def distance(x: wp.vec3, p: Program) -> float:
    """The distance that a program computes at a point."""
    n = p.numbers
    values = stack()
    before = points()
    top = int(-1)
    level = int(0)
    k = int(0)
    i = int(0)
    op = int(p.code[0])
    while op != END:
        if op == SPHERE:
            top += 1
            values[top] = wp.length(x - vec3_at(n, k + 1)) - n[k]
            k += 4
        elif op == BOX:
            top += 1
            values[top] = box(wp.abs(x - vec3_at(n, k + 3)) - 0.5 * vec3_at(n, k))  # type: ignore[arg-type]
            k += 6
        elif op == TORUS:
            top += 1
            values[top] = wp.length(wp.vec2(wp.length(wp.vec2(x[0], x[1])) - n[k], x[2])) - n[k + 1]
            k += 2
        elif op == PLANE:
            top += 1
            values[top] = wp.dot(x, wp.normalize(vec3_at(n, k))) - n[k + 3]
            k += 4
        elif op == UNION:
            f, g = values[top - 1], values[top]
            top -= 1
            values[top] = wp.where(wp.isnan(f) or f < g, f, g)
        elif op == SMOOTH_UNION:
            f, g = values[top - 1], values[top]
            top -= 1
            values[top] = wp.min(f, g) - n[k] * wp.log(1.0 + wp.exp(-wp.abs(f - g) / n[k]))
            k += 1
        elif op == MOVE:
            before[level] = x
            level += 1
            x = moved(x, n, k)
            k += 12
        else:
            level -= 1
            x = before[level]
            values[top] = n[k] * values[top]
            k += 1
        i += 1
        op = p.code[i]
    return values[0]

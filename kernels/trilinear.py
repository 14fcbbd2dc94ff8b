"""Trilinear interpolation on a grid: the cell of a point, the weights of its corners, and their derivatives.

Corner k of a cell has the bits (x, y, z), lowest first; data of the corners is a vector of 8.
"""

from typing import Any

import warp as wp


@wp.func
def cells_per_unit(r: int, bounds: wp.array[Any]):
    """Cells per unit along each axis."""
    side = bounds[1] - bounds[0]
    n = type(side[0])(r)
    return type(side)(n / side[0], n / side[1], n / side[2])


@wp.func
def locate(x: Any, low: Any, scale: Any, r: int):
    """Cell, place in it in [0, 1], and slope of the place [cells per unit]: 0 along axes that x was moved along."""
    zero = type(scale[0])(0.0)
    last = type(scale[0])(r)
    p = wp.cw_mul(x - low, scale)
    slope = scale
    cell = wp.vec3i()
    for a in range(3):
        c = wp.min(wp.max(p[a], zero), last)  # with wp.clamp, a CPU kernel takes up to twice as long
        slope[a] = wp.where(c == p[a], scale[a], zero)
        cell[a] = wp.min(int(c), r - 1)
        p[a] = c - type(zero)(cell[a])
    return cell, p, slope


@wp.func
def weights(w: Any, at: Any, out: Any):
    """Trilinear weights of the corners, times w."""
    one = type(w)(1.0)
    v = at[1]
    h = at[2]
    edge = wp.vector((one - v) * (one - h) * w, v * (one - h) * w, (one - v) * h * w, v * h * w)
    for k in range(4):
        out[2 * k + 1] = at[0] * edge[k]
        out[2 * k] = edge[k] - out[2 * k + 1]
    return out


@wp.func
def changes(w: Any, at: Any, q: Any, out: Any):
    """Change of the trilinear weights, times w, where the place moves by q."""
    one = type(w)(1.0)
    v = at[1]
    h = at[2]
    edge = wp.vector((one - v) * (one - h), v * (one - h), (one - v) * h, v * h)
    turn = wp.vector(
        -q[1] * (one - h) - q[2] * (one - v), q[1] * (one - h) - q[2] * v,
        q[2] * (one - v) - q[1] * h, q[1] * h + q[2] * v,
    )  # fmt: skip
    for k in range(4):
        out[2 * k + 1] = w * (at[0] * turn[k] + q[0] * edge[k])
        out[2 * k] = w * turn[k] - out[2 * k + 1]
    return out


@wp.func
def slopes(s: Any, at: Any):
    """Slope of the trilinear interpolant of s along each axis."""
    u = at[0]
    v = at[1]
    h = at[2]
    return wp.vector(
        wp.lerp(wp.lerp(s[1] - s[0], s[3] - s[2], v), wp.lerp(s[5] - s[4], s[7] - s[6], v), h),
        wp.lerp(wp.lerp(s[2] - s[0], s[3] - s[1], u), wp.lerp(s[6] - s[4], s[7] - s[5], u), h),
        wp.lerp(wp.lerp(s[4] - s[0], s[5] - s[1], u), wp.lerp(s[6] - s[2], s[7] - s[3], u), v),
    )


@wp.func
def bends(s: Any, at: Any, q: Any):
    """Slope of (q . slopes): the interpolant is linear along each axis, so only mixed second derivatives are left."""
    xy = wp.lerp(s[3] - s[2] - s[1] + s[0], s[7] - s[6] - s[5] + s[4], at[2])
    xz = wp.lerp(s[5] - s[4] - s[1] + s[0], s[7] - s[6] - s[3] + s[2], at[1])
    yz = wp.lerp(s[6] - s[4] - s[2] + s[0], s[7] - s[5] - s[3] + s[1], at[0])
    return wp.vector(q[1] * xy + q[2] * xz, q[0] * xy + q[2] * yz, q[0] * xz + q[1] * yz)

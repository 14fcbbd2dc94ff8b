"""The multiresolution hash encoding (Mueller et al., "Instant NGP", 2022), its gradient, and the gradient of that.

Each level is a grid of r cells along each axis of a box; the features of a point are those of the 8 corners around it,
trilinear. A row of `levels` describes a level: its resolution r, its first row in the table, two strides, a mask.
Corner (i, j, k) is row i + j * stride_y + k * stride_z of a level whose corners are all stored (mask 0), and row
(i xor j * stride_y xor k * stride_z) & mask of a hashed one (eq. 4 of the paper; there the strides are its primes).

A thread takes one level and `span` points: on a CPU, where a launch is a loop, the data of the level is read once; on
CUDA a span is one point. A launch may be one part of the whole, starting at `first`: kernels that read the table are
split by points, those that write to it by levels, so that no two parts write to the same row. Reading and writing in
one kernel is up to four times slower on a CPU, whenever table and gradient have the same address modulo a page.

A level of weight 0 costs nothing. Points outside the box are moved to its boundary, with no slope in the direction of
that move. A NaN point has NaN features, and adds nothing to the gradient of the table.
"""

import math
from functools import cache
from types import SimpleNamespace
from typing import Any

import warp as wp

from warpdvr.kernels.corners import corners, fetch_ahead, is_cached, strides
from warpdvr.kernels.trilinear import bends, cells_per_unit, changes, locate, slopes, weights


@cache
def kernels(features: int, scalar: Any, stored: Any, fetching: bool) -> SimpleNamespace:
    """Return the kernels for a number of features per level and two precisions; each is compiled when first launched.

    Args:
        features: width of a row of the table.
        scalar: type of positions, outputs and all sums.
        stored: type of the table, `scalar` or `wp.float16`.
        fetching: prefetch rows some points before their use; for tables larger than the cache, on a CPU.
    """
    vec = wp.types.vector(features, scalar)
    row_vec = wp.types.vector(features, stored)
    vec3 = wp.types.vector(3, scalar)
    vec8 = wp.types.vector(8, scalar)
    zero = wp.constant(scalar(0.0))
    nan = wp.constant(scalar(math.nan))

    @wp.kernel(enable_backward=False, module="unique")
    def encode(
        first: int,
        x: wp.array[vec3],
        table: wp.array[row_vec],
        bounds: wp.array[vec3],
        weight: wp.array[scalar],
        levels: wp.array2d[wp.int32],
        span: int,
        # outputs
        y: wp.array2d[vec],
    ):
        """Features of each point at each level."""
        l, block = wp.tid()
        start = (first + block) * span
        w = weight[l]
        r = levels[l, 0]
        low = bounds[0]
        scale = cells_per_unit(r, bounds)
        level = strides(l, levels)
        far = not is_cached(level, r)
        for i in range(start, wp.min(start + span, x.shape[0])):
            if wp.static(fetching):
                if far:
                    fetch_ahead(table, x, i, low, scale, r, level)
            p = x[i]
            sum = vec()
            if w != zero:
                if not_a_number(p):
                    sum = vec(nan)
                else:
                    cell, at, _slope = locate(p, low, scale, r)
                    row = corners(cell, level)
                    part = weights(w, at, vec8())
                    for k in range(8):
                        sum += part[k] * vec(table[row[k]])
            y[i, l] = sum

    @wp.kernel(enable_backward=False, module="unique")
    def slope(
        first: int,
        grad: wp.array2d[vec],
        x: wp.array[vec3],
        table: wp.array[row_vec],
        bounds: wp.array[vec3],
        weight: wp.array[scalar],
        levels: wp.array2d[wp.int32],
        span: int,
        # outputs
        grad_x: wp.array2d[vec3],
    ):
        """Gradient by position, each level's part of it."""
        l, block = wp.tid()
        start = (first + block) * span
        w = weight[l]
        r = levels[l, 0]
        low = bounds[0]
        scale = cells_per_unit(r, bounds)
        level = strides(l, levels)
        far = not is_cached(level, r)
        for i in range(start, wp.min(start + span, x.shape[0])):
            if wp.static(fetching):
                if far:
                    fetch_ahead(table, x, i, low, scale, r, level)
            p = x[i]
            sum = vec3()
            if w != zero:
                if not_a_number(p):
                    sum = vec3(nan)
                else:
                    g = w * grad[i, l]
                    cell, at, turn = locate(p, low, scale, r)
                    row = corners(cell, level)
                    s = vec8()
                    for k in range(8):
                        s[k] = wp.dot(g, vec(table[row[k]]))
                    sum = wp.cw_mul(turn, slopes(s, at))
            grad_x[l, i] = sum

    @wp.kernel(enable_backward=False, module="unique")
    def bend(
        first: int,
        along: wp.array[vec3],
        grad: wp.array2d[vec],
        x: wp.array[vec3],
        table: wp.array[row_vec],
        bounds: wp.array[vec3],
        weight: wp.array[scalar],
        levels: wp.array2d[wp.int32],
        span: int,
        # outputs
        grad_grad: wp.array2d[vec],
        grad_x: wp.array2d[vec3],
    ):
        """Gradients of (along . the gradient by position): by `grad`, and by position if `grad_x` has rows."""
        l, block = wp.tid()
        start = (first + block) * span
        w = weight[l]
        r = levels[l, 0]
        low = bounds[0]
        scale = cells_per_unit(r, bounds)
        level = strides(l, levels)
        far = not is_cached(level, r)
        for i in range(start, wp.min(start + span, x.shape[0])):
            if wp.static(fetching):
                if far:
                    fetch_ahead(table, x, i, low, scale, r, level)
            p = x[i]
            sum = vec()
            sum_x = vec3()
            if w != zero:
                if not_a_number(p):
                    sum = vec(nan)
                    sum_x = vec3(nan)
                else:
                    g = w * grad[i, l]
                    cell, at, turn = locate(p, low, scale, r)
                    row = corners(cell, level)
                    q = wp.cw_mul(turn, along[i])
                    part = changes(w, at, q, vec8())
                    s = vec8()
                    for k in range(8):
                        t = vec(table[row[k]])
                        sum += part[k] * t
                        s[k] = wp.dot(g, t)
                    sum_x = wp.cw_mul(turn, bends(s, at, q))
            grad_grad[i, l] = sum
            if grad_x.shape[0] > 0:
                grad_x[l, i] = sum_x

    @wp.kernel(enable_backward=False, module="unique")
    def scatter(
        first: int,
        along: wp.array[vec3],
        grad: wp.array2d[vec],
        x: wp.array[vec3],
        bounds: wp.array[vec3],
        weight: wp.array[scalar],
        levels: wp.array2d[wp.int32],
        span: int,
        # outputs
        grad_table: wp.array[vec],
    ):
        """Gradient by table of the features, or of (along . their gradient by position) if `along` has rows."""
        part_l, block = wp.tid()
        l = first + part_l
        start = block * span
        w = weight[l]
        r = levels[l, 0]
        low = bounds[0]
        scale = cells_per_unit(r, bounds)
        level = strides(l, levels)
        far = not is_cached(level, r)
        if w == zero:
            return
        for i in range(start, wp.min(start + span, x.shape[0])):
            if wp.static(fetching):
                if far:
                    fetch_ahead(grad_table, x, i, low, scale, r, level)
            p = x[i]
            if not not_a_number(p):
                g = grad[i, l]
                cell, at, turn = locate(p, low, scale, r)
                row = corners(cell, level)
                part = vec8()
                if along.shape[0] > 0:
                    part = changes(w, at, wp.cw_mul(turn, along[i]), vec8())
                else:
                    part = weights(w, at, vec8())
                for k in range(8):
                    wp.atomic_add(grad_table, row[k], part[k] * g)  # type: ignore[call-overload]

    return SimpleNamespace(encode=encode, slope=slope, bend=bend, scatter=scatter)


@wp.func
def not_a_number(x: Any):
    """Whether a component of x is not a number; `wp.isnan` is a call on a CPU, and takes as long as some look-ups."""
    s = x[0] + x[1] + x[2]  # may be infinity - infinity
    return s != s and (x[0] != x[0] or x[1] != x[1] or x[2] != x[2])

"""Find the corners of a cell in the table of a hash encoding; kernels/encode.py describes the rows of `levels`.

Corner k of a cell has the bits (x, y, z), lowest first.
"""

from typing import Any

import warp as wp

from warpdvr.kernels.trilinear import locate

rows8 = wp.types.vector(8, wp.int32)

CACHED_ROWS = 2**16
"""Rows of a level that fit into the cache of a core, without fetching."""

PREFETCH_POINTS = 4
"""Number of points between fetching a row and using it."""


@wp.func
def strides(l: int, levels: wp.array2d[wp.int32]):
    """First row, strides along y and z, and mask of a level."""
    return wp.vec4ui(wp.uint32(levels[l, 1]), wp.uint32(levels[l, 2]), wp.uint32(levels[l, 3]), wp.uint32(levels[l, 4]))


@wp.func
def corners(cell: wp.vec3i, level: wp.vec4ui):
    """Rows of the corners of a cell."""
    ax = wp.uint32(cell[0])
    ay = wp.uint32(cell[1]) * level[1]
    az = wp.uint32(cell[2]) * level[2]
    bx = ax + wp.uint32(1)
    by = ay + level[1]
    bz = az + level[2]
    mask = level[3]
    row = rows8()
    if mask == wp.uint32(0):
        for k in range(8):
            row[k] = positive(level[0] + wp.where(k & 1, bx, ax) + wp.where(k & 2, by, ay) + wp.where(k & 4, bz, az))
    else:
        for k in range(8):
            hash = wp.where(k & 1, bx, ax) ^ wp.where(k & 2, by, ay) ^ wp.where(k & 4, bz, az)
            row[k] = positive(level[0] + (hash & mask))
    return row


@wp.func
def positive(row: wp.uint32):
    """A row as an integer that the compiler knows to be >= 0, so that it does not test for a negative index."""
    return int(row & wp.uint32(0x7FFFFFFF))


@wp.func
def is_cached(level: wp.vec4ui, r: int):
    """Whether the rows of a level with r cells along an axis fit into a cache."""
    return wp.where(level[3] == wp.uint32(0), (r + 1) * (r + 1) * (r + 1), int(level[3])) < CACHED_ROWS


@wp.func
def fetch_ahead(table: wp.array[Any], x: wp.array[Any], i: int, low: Any, scale: Any, r: int, level: wp.vec4ui):
    """Prefetch the rows of the point `PREFETCH_POINTS` after point i, so that they are in the cache when needed."""
    cell, _at, _slope = locate(x[wp.min(i + PREFETCH_POINTS, x.shape[0] - 1)], low, scale, r)
    fetch(table, corners(cell, level))


@wp.func_native("""
#if !defined(__CUDA_ARCH__)
for (int k = 0; k < 8; k += 2) __builtin_prefetch(table.data + row[k]);  // corners k and k + 1 are neighbours
#endif
""")
def fetch(table: wp.array[Any], row: rows8): ...

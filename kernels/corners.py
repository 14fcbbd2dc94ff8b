"""Where the corners of a cell are in the table of a hash encoding; see kernels/encode.py for what a row of `levels` is.

Corner k of a cell has the bits (x, y, z), lowest first.
"""

from typing import Any

import warp as wp

from warpdvr.kernels.trilinear import locate

rows8 = wp.types.vector(8, wp.int32)

HELD = 2**16
"""Rows of a level that stay in the cache of a core by themselves."""

AHEAD = 4
"""Points that lie between fetching a row and using it."""


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
    """A row as an integer whose sign the compiler knows: it need not look whether to count from the end."""
    return int(row & wp.uint32(0x7FFFFFFF))


@wp.func
def is_held(level: wp.vec4ui, r: int):
    """Whether the rows of a level of r cells along an axis stay in a cache."""
    return wp.where(level[3] == wp.uint32(0), (r + 1) * (r + 1) * (r + 1), int(level[3])) < HELD


@wp.func
def fetch_ahead(table: wp.array[Any], x: wp.array[Any], i: int, low: Any, scale: Any, r: int, level: wp.vec4ui):
    """Ask for the rows of the point `AHEAD` of point i, so that they are in the cache when it is their turn."""
    cell, _at, _slope = locate(x[wp.min(i + AHEAD, x.shape[0] - 1)], low, scale, r)
    fetch(table, corners(cell, level))


@wp.func_native("""
#if !defined(__CUDA_ARCH__)
for (int k = 0; k < 8; k += 2) __builtin_prefetch(table.data + row[k]);  // corners k and k + 1 are neighbours
#endif
""")
def fetch(table: wp.array[Any], row: rows8): ...

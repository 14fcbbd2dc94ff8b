"""The value of a grid of voxels at a point: that of its eight corners, trilinear."""

import warp as wp

from warpdvr.kernels.trilinear import cells_per_unit, locate


@wp.struct
class Voxels:
    """A grid of values, cells along each axis of a box; the value of a field is offset + sign * that of the grid."""

    table: wp.array[float]  # x varies fastest, then y, then z
    bounds: wp.array[wp.vec3]  # of the box: low, high
    cells: int
    sign: float
    offset: float


@wp.func
def voxels(x: wp.vec3, p: Voxels) -> float:
    """The value at a point; outside of the box that of the nearest point inside, NaN for a NaN point."""
    n = p.cells
    cell, at, _slope = locate(x, p.bounds[0], cells_per_unit(n, p.bounds), n)
    m = n + 1
    row = cell[0] + m * (cell[1] + m * cell[2])
    near = wp.lerp(
        wp.lerp(p.table[row], p.table[row + 1], at[0]), wp.lerp(p.table[row + m], p.table[row + m + 1], at[0]), at[1]
    )
    row += m * m
    far = wp.lerp(
        wp.lerp(p.table[row], p.table[row + 1], at[0]), wp.lerp(p.table[row + m], p.table[row + m + 1], at[0]), at[1]
    )
    return wp.where(wp.isnan(x[0] + x[1] + x[2]), wp.nan, p.offset + p.sign * wp.lerp(near, far, at[2]))

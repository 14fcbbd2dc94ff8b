"""Colours of rays through voxels of density: samples, opacity and compositing in one loop per ray, and its gradient.

A row of `Voxels.table` belongs to a corner: its density as a logit, and its colour, trilinear in between. Where the
logit is l, a step has the opacity sigmoid(l), as in Oechsle et al., "UNISURF" (2021), so that l = 0 is a surface.
Nothing is kept of the samples: the gradient goes the same way once more and takes the colour behind a sample from the
sum (as in Fridovich-Keil et al., "Plenoxels", 2022).
"""

import warp as wp

STEEPNESS = wp.constant(15.0)  # logit per unit of the table, whose columns change at one rate
OPAQUE = wp.constant(1e-3)  # a ray ends where less than this part of its light is left
MOST = wp.constant(float(1 << 24))  # samples on a ray, which float32 counts
BLOCK = wp.constant(8)  # cells along each side of a block that is skipped if it is empty
BLOCK_BITS = wp.constant(3)


@wp.struct
class Voxels:
    """Cells that may hold something, and the rows of their corners."""

    low: wp.vec3  # lowest corner
    per_side: wp.vec3  # cells per unit, along each axis
    row: wp.array3d[wp.int32]  # of each corner, -1 where no occupied cell meets it
    occupied: wp.array3d[wp.bool]
    block: wp.array3d[wp.bool]  # whether any cell of a block of 8^3 is occupied
    table: wp.array2d[float]


@wp.func
def cell_of(x: float, n: int):
    return wp.min(wp.max(int(x), 0), n - 1)


@wp.func
def axis_exit(p: float, d: float, cell: int):
    """Ray length until the block of a cell is left along an axis."""
    edge = float((cell >> BLOCK_BITS) << BLOCK_BITS)
    if d > 0.0:
        return (edge + float(BLOCK) - p) / d
    if d < 0.0:
        return (edge - p) / d
    return float(wp.inf)


@wp.func
def steps_to_exit(p: wp.vec3, d: wp.vec3, cell: wp.vec3i, step: float):
    """Number of steps until the block of a cell is left."""
    t = wp.min(axis_exit(p[0], d[0], cell[0]), wp.min(axis_exit(p[1], d[1], cell[1]), axis_exit(p[2], d[2], cell[2])))
    return wp.max(int(wp.ceil(t / step)), 1)


@wp.func
def corner_weight(place: wp.vec3, i: int):
    return (
        wp.where((i & 1) == 1, place[0], 1.0 - place[0])
        * wp.where((i & 2) == 2, place[1], 1.0 - place[1])
        * wp.where((i & 4) == 4, place[2], 1.0 - place[2])
    )


@wp.func
def look_up(voxels: Voxels, cell: wp.vec3i, place: wp.vec3):
    """The row of the table at a place in a cell, in [0, 1]."""
    found = wp.vec4(0.0, 0.0, 0.0, 0.0)
    for i in range(8):
        row = voxels.row[cell[0] + (i & 1), cell[1] + ((i >> 1) & 1), cell[2] + (i >> 2)]
        w = corner_weight(place, i)
        found += w * wp.vec4(voxels.table[row, 0], voxels.table[row, 1], voxels.table[row, 2], voxels.table[row, 3])
    return found


@wp.func
def sample_count(near: float, far: float, step: float):
    """Number of samples on a ray: counted, so that it ends where a step is less than the rounding of a ray length."""
    return int(wp.min(wp.ceil((far - near) / step), MOST))


@wp.func
def cell_at(voxels: Voxels, p: wp.vec3):
    """The cell that a place in cells lies in, or the nearest one."""
    return wp.vec3i(
        cell_of(p[0], voxels.occupied.shape[0]),
        cell_of(p[1], voxels.occupied.shape[1]),
        cell_of(p[2], voxels.occupied.shape[2]),
    )


@wp.func
def is_skipped(voxels: Voxels, cell: wp.vec3i):
    """Whether the whole block of a cell is empty."""
    return not voxels.block[cell[0] >> BLOCK_BITS, cell[1] >> BLOCK_BITS, cell[2] >> BLOCK_BITS]


@wp.func
def place_in(cell: wp.vec3i, p: wp.vec3):
    """The place in a cell, in [0, 1]."""
    return wp.vec3(p[0] - float(cell[0]), p[1] - float(cell[1]), p[2] - float(cell[2]))


@wp.kernel(enable_backward=False)
def composite(
    origin: wp.array[wp.vec3],
    direction: wp.array[wp.vec3],
    near: wp.array[float],
    far: wp.array[float],
    step: float,
    voxels: Voxels,
    # outputs
    color: wp.array[wp.vec3],
    left: wp.array[float],
    t: wp.array[float],
):
    """Sum of the colours of a ray's samples by their weights, the light that is left behind them, and the ray length at
    which half of it is: infinity where more than half passes."""
    r = wp.tid()
    light = float(1.0)
    total = wp.vec3(0.0, 0.0, 0.0)
    t[r] = wp.inf
    samples = sample_count(near[r], far[r], step)
    o = wp.cw_mul(origin[r] - voxels.low, voxels.per_side)
    d = wp.cw_mul(direction[r], voxels.per_side)
    sample = int(0)
    while sample < samples:
        at = near[r] + float(sample) * step
        p = o + at * d
        cell = cell_at(voxels, p)
        if is_skipped(voxels, cell):
            sample += steps_to_exit(p, d, cell, step)
            continue
        if voxels.occupied[cell[0], cell[1], cell[2]]:
            place = place_in(cell, p)
            q = look_up(voxels, cell, place)
            clear = 1.0 / (1.0 + wp.exp(STEEPNESS * q[0]))  # the part of the light that passes the step
            total += light * (1.0 - clear) * wp.vec3(q[1], q[2], q[3])
            if light > 0.5 and light * clear <= 0.5:  # it falls by equal factors in the step around the sample
                t[r] = at + step * (wp.log(0.5 / light) / wp.log(clear) - 0.5)
            light *= clear
            if light < OPAQUE:
                break
        sample += 1
    color[r] = total
    left[r] = light


@wp.kernel(enable_backward=False)
def composite_backward(
    origin: wp.array[wp.vec3],
    direction: wp.array[wp.vec3],
    near: wp.array[float],
    far: wp.array[float],
    step: float,
    voxels: Voxels,
    color: wp.array[wp.vec3],
    left: wp.array[float],
    by_color: wp.array[wp.vec3],
    by_left: wp.array[float],
    by_table: wp.array2d[float],
):
    """Add the gradient with respect to the table, given that by `color` and `left`, the outputs of `composite`."""
    r = wp.tid()
    light = float(1.0)
    g = by_color[r]
    behind = wp.dot(g, color[r]) + by_left[r] * left[r]
    samples = sample_count(near[r], far[r], step)
    o = wp.cw_mul(origin[r] - voxels.low, voxels.per_side)
    d = wp.cw_mul(direction[r], voxels.per_side)
    sample = int(0)
    while sample < samples:
        at = near[r] + float(sample) * step
        p = o + at * d
        cell = cell_at(voxels, p)
        if is_skipped(voxels, cell):
            sample += steps_to_exit(p, d, cell, step)
            continue
        if voxels.occupied[cell[0], cell[1], cell[2]]:
            place = place_in(cell, p)
            q = look_up(voxels, cell, place)
            clear = 1.0 / (1.0 + wp.exp(STEEPNESS * q[0]))
            weight = light * (1.0 - clear)
            own = wp.dot(g, wp.vec3(q[1], q[2], q[3]))
            behind -= weight * own
            light *= clear
            by_row = wp.vec4(
                STEEPNESS * (light * own - behind) * (1.0 - clear),
                weight * g[0],
                weight * g[1],
                weight * g[2],
            )
            for i in range(8):
                row = voxels.row[cell[0] + (i & 1), cell[1] + ((i >> 1) & 1), cell[2] + (i >> 2)]
                w = corner_weight(place, i)
                for k in range(4):
                    wp.atomic_add(by_table, row, k, w * by_row[k])  # type: ignore[call-overload]
            if light < OPAQUE:
                break
        sample += 1

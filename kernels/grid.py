"""The tree of a BoundGrid: `cells` boxes of size `side` from the corner `low` on, row-major.

Each has `child`: the first of its eight halves; -1 for none; or -2 - i where row i of the grid's models tells more.
"""

import warp as wp

NUDGE = wp.constant(1.0e-4)  # how far behind its border a box is looked up, in the largest sides


@wp.func
def find(x: wp.vec3, cells: wp.vec3i, child: wp.array[wp.int32]):
    """The leaf that x lies in (or is nearest to), its lowest corner and its side, and its `child`.

    Places are in units of the largest cells.
    """
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
    return node, corner, side, first


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
    found, _corner, _side, _child = find(wp.cw_div(point[i] - low, side), cells, child)
    node[i] = found

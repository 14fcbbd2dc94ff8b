"""The tree of a BoundGrid: boxes that are divided into eight halves, and these again."""

import warp as wp

from warpdvr.kernels import box_model as _model

NUDGE = wp.constant(1.0e-4)  # how far behind its border a box is looked up, in the largest sides


@wp.struct
class Tree:
    """The boxes of a BoundGrid; the arrays have one row for each, the largest first, row-major."""

    low: wp.vec3  # corner of the first box
    side: wp.vec3  # of the largest boxes
    cells: wp.vec3i  # how many of them lie along each axis
    child: wp.array[wp.int32]  # the first of its halves; -1 for none; or -2 - i where row i of `models` tells more
    lower: wp.array[float]  # bounds of the value
    upper: wp.array[float]
    slope: wp.array[wp.vec4]  # (g, r): every gradient in the box lies within r of g
    models: wp.array[_model.model]
    lipschitz: float  # an upper bound of |grad value|, infinity if there is none


@wp.func
def find(x: wp.vec3, tree: Tree):
    """The leaf that x lies in (or is nearest to), its lowest corner and its side, and its `child`.

    Places are in units of the largest cells.
    """
    i = wp.clamp(int(wp.floor(x[0])), 0, tree.cells[0] - 1)
    j = wp.clamp(int(wp.floor(x[1])), 0, tree.cells[1] - 1)
    k = wp.clamp(int(wp.floor(x[2])), 0, tree.cells[2] - 1)
    node = (i * tree.cells[1] + j) * tree.cells[2] + k
    corner = wp.vec3(float(i), float(j), float(k))
    side = float(1.0)
    first = tree.child[node]
    while first >= 0:
        side = 0.5 * side
        i = wp.where(x[0] >= corner[0] + side, 1, 0)
        j = wp.where(x[1] >= corner[1] + side, 1, 0)
        k = wp.where(x[2] >= corner[2] + side, 1, 0)
        corner = wp.vec3(corner[0] + side * float(i), corner[1] + side * float(j), corner[2] + side * float(k))
        node = first + 4 * i + 2 * j + k
        first = tree.child[node]
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
    tree: Tree,
    # outputs
    node: wp.array[wp.int32],
):
    """The leaf that each point lies in."""
    i = wp.tid()
    leaf_node, _corner, _side, _child = find(wp.cw_div(point[i] - tree.low, tree.side), tree)
    node[i] = leaf_node

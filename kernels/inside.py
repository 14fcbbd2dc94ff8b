"""Find the points that a closed triangle mesh encloses."""

import warp as wp


@wp.func
def crosses_oddly(mesh: wp.uint64, point: wp.vec3, direction: wp.vec3):
    return wp.mesh_query_ray_count_intersections(mesh, point, direction) % 2 == 1


@wp.kernel(enable_backward=False)
def inside(
    mesh: wp.uint64,
    point: wp.array[wp.vec3],
    # outputs
    within: wp.array[wp.bool],
):
    """Tell which points lie inside of `mesh`, which must be closed; the orientation of its faces does not matter.

    A ray from inside leaves the mesh one time more than it enters. One that grazes an edge may be counted wrongly, so
    two of three must agree. None of them runs along an axis or a diagonal, where edges of built things lie.
    """
    i = wp.tid()
    first = crosses_oddly(mesh, point[i], wp.vec3(0.8627, 0.3011, 0.4063))
    second = crosses_oddly(mesh, point[i], wp.vec3(-0.3571, 0.8831, -0.3041))
    within[i] = first
    if first != second:
        within[i] = crosses_oddly(mesh, point[i], wp.vec3(-0.2617, -0.4409, 0.8586))

"""The nearest point of a triangle mesh."""

import warp as wp


@wp.kernel(enable_backward=False)
def distance(
    mesh: wp.uint64,
    point: wp.array[wp.vec3],
    far: float,
    # outputs
    d: wp.array[float],
):
    """Unsigned distance from each point to the surface of `mesh`; `far` where there is none within `far`."""
    i = wp.tid()
    query = wp.mesh_query_point_no_sign(mesh, point[i], far)
    d[i] = far
    if query.result:
        d[i] = wp.length(wp.mesh_eval_position(mesh, query.face, query.u, query.v) - point[i])

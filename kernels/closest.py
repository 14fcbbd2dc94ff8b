"""The nearest point of a triangle mesh."""

import warp as wp


@wp.kernel(enable_backward=False)
def nearest(
    mesh: wp.uint64,
    point: wp.array[wp.vec3],
    far: float,
    # outputs
    d: wp.array[float],
    face: wp.array[wp.int32],
):
    """Unsigned distance from each point to the surface of `mesh`, and the face it is nearest to.

    `face` is -1, and `d` is `far`, where there is none within `far`. Warp ignores faces next to needles.
    """
    i = wp.tid()
    query = wp.mesh_query_point_no_sign(mesh, point[i], far)
    d[i] = far
    face[i] = -1
    if query.result:
        d[i] = wp.length(wp.mesh_eval_position(mesh, query.face, query.u, query.v) - point[i])
        face[i] = query.face

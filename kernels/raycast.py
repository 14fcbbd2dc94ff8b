"""Cast rays at a triangle mesh."""

import warp as wp


@wp.kernel(enable_backward=False)
def first_hit(
    mesh: wp.uint64,
    origin: wp.array[wp.vec3],
    direction: wp.array[wp.vec3],
    # outputs
    face: wp.array[wp.int32],
    t: wp.array[float],
    weight: wp.array[wp.vec3],
):
    """Find where each ray first meets the mesh: `face` is -1 for a miss, which leaves the other outputs unchanged.

    `weight` are the barycentric weights of the face's three corners; `t` is in lengths of `direction`.
    """
    ray = wp.tid()
    hit = wp.mesh_query_ray(mesh, origin[ray], direction[ray], float(wp.inf))
    face[ray] = -1
    if hit.result:
        face[ray] = hit.face
        t[ray] = hit.t
        weight[ray] = wp.vec3(hit.u, hit.v, 1.0 - hit.u - hit.v)

"""Rays through pixels, and the part of each ray that lies inside the bounds."""

import warp as wp

ROUNDING = wp.constant(1.0e-5)  # the length of a unit direction differs from 1 by less than this


@wp.func
def on_plane(k: wp.mat33, pixel: wp.vec2) -> wp.vec2:
    """Return (x, y) with (u, v, 1) = K (x, y, 1)."""
    y = (pixel[1] - k[1, 2]) / k[1, 1]
    return wp.vec2((pixel[0] - k[0, 2] - k[0, 1] * y) / k[0, 0], y)


@wp.kernel(enable_backward=False)
def perspective(
    K: wp.array[wp.mat33],
    pose: wp.array[wp.mat44],
    view: wp.array[wp.int32],
    pixel: wp.array[wp.vec2],
    # outputs
    origin: wp.array[wp.vec3],
    direction: wp.array[wp.vec3],
):
    """Unit rays of pinhole cameras: `pixel` holds positions (u, v) [pixel], the centre of pixel (0, 0) is (.5, .5)."""
    ray = wp.tid()
    p = on_plane(K[view[ray]], pixel[ray])
    m = pose[view[ray]]
    origin[ray] = wp.vec3(m[0, 3], m[1, 3], m[2, 3])
    direction[ray] = wp.normalize(wp.transform_vector(m, wp.vec3(p[0], p[1], 1.0)))


@wp.kernel(enable_backward=False)
def orthographic(
    K: wp.array[wp.mat33],
    pose: wp.array[wp.mat44],
    view: wp.array[wp.int32],
    pixel: wp.array[wp.vec2],
    # outputs
    origin: wp.array[wp.vec3],
    direction: wp.array[wp.vec3],
):
    """Unit rays of orthographic cameras, from the plane through the camera centre; K in pixels per scene unit."""
    ray = wp.tid()
    p = on_plane(K[view[ray]], pixel[ray])
    m = pose[view[ray]]
    origin[ray] = wp.transform_point(m, wp.vec3(p[0], p[1], 0.0))
    direction[ray] = wp.normalize(wp.transform_vector(m, wp.vec3(0.0, 0.0, 1.0)))


@wp.func
def clipped(o: wp.vec3, d: wp.vec3, low: wp.vec3, high: wp.vec3) -> wp.vec2:
    """Signed slab test against a box: near and far, `near` never behind the origin, `near > far` where the ray misses.

    Rays parallel to a face take no part in that slab's division, so that edges and corners count as inside.
    """
    t0 = float(0.0)
    t1 = float(wp.inf)
    for axis in range(3):
        if d[axis] != 0.0:
            a = (low[axis] - o[axis]) / d[axis]
            b = (high[axis] - o[axis]) / d[axis]
            t0 = wp.max(t0, wp.min(a, b))
            t1 = wp.min(t1, wp.max(a, b))
        elif o[axis] < low[axis] or o[axis] > high[axis]:
            t1 = float(-1.0)
    return wp.vec2(t0, t1)


@wp.kernel(enable_backward=False)
def clip(
    origin: wp.array[wp.vec3],
    direction: wp.array[wp.vec3],
    box: wp.array[wp.vec3],
    # outputs
    near: wp.array[float],
    far: wp.array[float],
):
    """The part of each ray in a box (low, high), see `clipped`."""
    ray = wp.tid()
    ends = clipped(origin[ray], direction[ray], box[0], box[1])
    near[ray] = ends[0]
    far[ray] = ends[1]

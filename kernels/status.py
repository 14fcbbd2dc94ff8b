"""The status of a ray, shared by all kernels that move rays, and by `warpdvr.intersection.hit.Status`."""

import warp as wp

ACTIVE = wp.constant(wp.int32(0))
HIT = wp.constant(wp.int32(1))
MISS = wp.constant(wp.int32(2))
INSIDE = wp.constant(wp.int32(3))
GAVE_UP = wp.constant(wp.int32(4))

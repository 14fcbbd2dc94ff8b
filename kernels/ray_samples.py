"""Cut rays into sections of one length, and keep those in cells that may hold something."""

import warp as wp


@wp.func
def may_hold(occupied: wp.array3d[wp.bool], low: wp.vec3, per_side: wp.vec3, x: wp.vec3) -> bool:
    """Whether the cell at x may hold something; outside of the cells, the nearest one."""
    p = wp.cw_mul(x - low, per_side)
    i = wp.clamp(int(p[0]), 0, occupied.shape[0] - 1)
    j = wp.clamp(int(p[1]), 0, occupied.shape[1] - 1)
    k = wp.clamp(int(p[2]), 0, occupied.shape[2] - 1)
    return occupied[i, j, k]


@wp.func
def section_holds(
    occupied: wp.array3d[wp.bool],
    low: wp.vec3,
    per_side: wp.vec3,
    o: wp.vec3,
    d: wp.vec3,
    start: float,
    end: float,
    looks: int,
) -> bool:
    """Whether one of `looks` places in a section lies in a cell that may hold something."""
    for i in range(looks):
        t = start + (end - start) * (float(i) + 0.5) / float(looks)
        x = o + d * t
        if may_hold(occupied, low, per_side, x):  # type: ignore[arg-type]
            return True
    return False


@wp.func
def section_end(near: float, far: float, size: float, offset: float, i: int) -> float:
    """Where section i of a ray ends; the first one is `offset` sections long, the last one ends with the ray."""
    return wp.min(near + (float(i) + offset) * size, far)


@wp.func
def kept(
    occupied: wp.array3d[wp.bool],
    low: wp.vec3,
    per_side: wp.vec3,
    o: wp.vec3,
    d: wp.vec3,
    near: float,
    far: float,
    offset: float,
    size: float,
    side: float,
) -> wp.vec2i:
    """Number of sections of a ray that are kept, and of the points at their ends, of which neighbours share one."""
    sections = int(0)
    points = int(0)
    before = int(-2)
    t = float(near)
    i = int(0)
    looks = int(wp.ceil(size / side))
    while t < far:
        t_next = section_end(near, far, size, offset, i)
        if t_next > t and section_holds(occupied, low, per_side, o, d, t, t_next, looks):
            points += wp.where(before == i - 1, 1, 2)
            before = i
            sections += 1
        t = t_next
        i += 1
    return wp.vec2i(sections, points)


@wp.kernel(enable_backward=False)
def count(
    origin: wp.array[wp.vec3],
    direction: wp.array[wp.vec3],
    near: wp.array[float],
    far: wp.array[float],
    offset: wp.array[float],
    occupied: wp.array3d[wp.bool],
    low: wp.vec3,
    per_side: wp.vec3,
    step: float,
    side: float,
    most: int,
    # outputs
    sections: wp.array[wp.int64],
    points: wp.array[wp.int64],
    size: wp.array[float],
):
    """Count what `kept` counts. Where that is more than `most`, sections are made longer than `step`: `size`."""
    r = wp.tid()
    o = origin[r]
    d = direction[r]
    length = float(step)
    n = kept(occupied, low, per_side, o, d, near[r], far[r], offset[r], length, side)
    while n[0] > most:
        length *= wp.max(float(n[0]) / float(most), 1.02)
        n = kept(occupied, low, per_side, o, d, near[r], far[r], offset[r], length, side)
    sections[r] = wp.int64(n[0])
    points[r] = wp.int64(n[1])
    size[r] = length


@wp.kernel(enable_backward=False)
def place(
    origin: wp.array[wp.vec3],
    direction: wp.array[wp.vec3],
    near: wp.array[float],
    far: wp.array[float],
    offset: wp.array[float],
    size: wp.array[float],
    occupied: wp.array3d[wp.bool],
    low: wp.vec3,
    per_side: wp.vec3,
    side: float,
    first_section: wp.array[wp.int64],
    first_point: wp.array[wp.int64],
    # outputs, at the sections and points of the ray
    start: wp.array[wp.int64],
    point: wp.array[float],
):
    """Ray lengths of the points, and for each section the index of the point where it starts; it ends at the next."""
    r = wp.tid()
    s = int(first_section[r])
    p = int(first_point[r])
    looks = int(wp.ceil(size[r] / side))
    before = int(-2)
    t = float(near[r])
    i = int(0)
    while t < far[r]:
        t_next = section_end(near[r], far[r], size[r], offset[r], i)
        if t_next > t and section_holds(occupied, low, per_side, origin[r], direction[r], t, t_next, looks):
            if before != i - 1:
                point[p] = t
                p += 1
            start[s] = wp.int64(p - 1)
            point[p] = t_next
            p += 1
            before = i
            s += 1
        t = t_next
        i += 1

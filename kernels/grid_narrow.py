"""What a march through a BoundGrid remembers of a ray, and what it makes of the values that the field answers with.

See kernels/grid_march.py.
"""

import warp as wp

from warpdvr.kernels.status import ACTIVE, GAVE_UP, HIT, INSIDE, MISS

memory = wp.types.vector(length=16, dtype=wp.float32)
"""What a march remembers of a ray: SURE .. END."""
SURE = wp.constant(0)  # up to here no crossing can hide in front of the proposed sample
RISE = wp.constant(1)  # how fast the value may rise between SURE and it
DROP = wp.constant(2)  # how fast the value fell between the last two samples
BEHIND = wp.constant(3)  # a point with a value <= 0 that was met before any positive one; NaN if there is none
WHERE = wp.constant(4)  # middle of the box with the smallest mean of bounds, of those that were crossed for free
LEAST = wp.constant(5)  # and that mean
FALL = wp.constant(6)  # how fast the value falls where it is asked, by the model; 0 if this is no landing
GENTLE = wp.constant(7)  # and how fast at least
STEEP = wp.constant(8)  # and at most
TRUST = wp.constant(9)  # the largest |value| that agrees with the model
TRIES = wp.constant(10)  # how many corrections of a landing are left
DOUBT = wp.constant(11)  # 1 after a value that did not agree: models count for nothing from there on
AHEAD = wp.constant(12)  # a point with a positive value, between which and SURE a crossing may hide; NaN for none
F_AHEAD = wp.constant(13)  # that value
CLIMB = wp.constant(14)  # how fast the value may rise in front of AHEAD
END = wp.constant(15)  # a point with a value <= 0, in front of which another crossing may hide; NaN for none

CORRECTIONS = wp.constant(3.0)  # how often a landing may be corrected


@wp.func
def first_inside(here: float, near: float, low: float, thinnest: float, m: memory) -> float:
    """Where to look for a positive value, after a value <= 0 that no positive sample came before."""
    if wp.isnan(m[BEHIND]) and not wp.isnan(low):
        return low  # the grid calls it positive
    return wp.max(near, here - 2.0 * wp.max(m[BEHIND] - here, thinnest))


@wp.func
def off(f: float, m: memory) -> float:
    """How far off f / FALL may be at most, as the way from a point with the value f to the root."""
    return wp.abs(f) * wp.max(1.0 / m[GENTLE] - 1.0 / m[FALL], 1.0 / m[FALL] - 1.0 / m[STEEP])


@wp.func
def back(m: memory) -> float:
    """From here to AHEAD the value stays positive."""
    return m[AHEAD] - m[F_AHEAD] / m[CLIMB]


@wp.kernel(enable_backward=False)
def narrow(
    value: wp.array[float],
    near: wp.array[float],
    far: wp.array[float],
    thinnest: float,
    gap: float,
    tolerance: float,
    ray: wp.array[wp.int32],
    # state
    status: wp.array[wp.int32],
    low: wp.array[float],
    t: wp.array[float],
    f_low: wp.array[float],
    f_high: wp.array[float],
    nearest: wp.array[float],
    f_nearest: wp.array[float],
    remembered: wp.array[memory],
    # outputs
    walks: wp.array[wp.bool],
):
    """Take in the value at t: decide the ray, send it back, or let it walk on from (low, f_low).

    `f_low` is NaN where `low` was not asked, but is called positive by the grid. A ray that landed has no bracket left:
    `low` and `t` are where it did.
    """
    i = wp.tid()
    r = ray[i]
    f = value[i]
    here = t[r]
    m = remembered[r]
    met = m[BEHIND]  # Warp forgets what a constant is that it meets first in both branches of an inner `if`
    walks[i] = False
    if f < f_nearest[r]:
        f_nearest[r] = f
        nearest[r] = here
    if wp.isnan(f):
        status[r] = GAVE_UP
        return
    if m[FALL] > 0.0:
        trusted = wp.abs(f) <= wp.max(m[TRUST], tolerance * m[FALL])
        if trusted and off(f, m) <= tolerance:
            status[r] = HIT
            t[r] = here + f / m[FALL]
            low[r] = t[r]
            f_low[r] = f
            f_high[r] = f
            return
        if trusted and m[TRIES] > 0.0:
            t[r] = here + f / m[FALL]
            m[TRUST] = m[FALL] * off(f, m) * wp.max(1.0, m[STEEP] / m[FALL])
            m[TRIES] = m[TRIES] - 1.0
            if f <= 0.0:
                m[BEHIND] = here
                f_high[r] = f
                if here < m[END]:
                    m[END] = here
            elif not here >= met:
                low[r] = here
                f_low[r] = f
            remembered[r] = m
            return
        m[FALL] = 0.0
        m[DOUBT] = 1.0
        if here >= met and f > 0.0:
            t[r] = m[SURE]
            remembered[r] = m
            return
        if f <= 0.0:
            m[BEHIND] = wp.nan
    if f <= 0.0:
        status[r] = HIT
        f_high[r] = f
        if f_low[r] > 0.0:
            front = wp.max(m[SURE], low[r])
            if m[RISE] > 0.0 and here - front > gap:
                status[r] = ACTIVE
                m[END] = here
                m[AHEAD] = wp.nan
                t[r] = 0.5 * (front + here)
                remembered[r] = m
            return
        if here <= near[r]:
            status[r] = wp.where(f < 0.0, INSIDE, HIT)
            low[r] = here
            f_low[r] = f
            return
        status[r] = ACTIVE
        t[r] = first_inside(here, near[r], low[r], thinnest, m)
        m[BEHIND] = here
        remembered[r] = m
        return
    if not wp.isnan(m[BEHIND]):
        status[r] = HIT
        low[r] = here
        f_low[r] = f
        t[r] = m[BEHIND]
        if m[RISE] > 0.0 and t[r] - here > gap:
            status[r] = ACTIVE
            m[END] = t[r]
            m[BEHIND] = wp.nan
            m[AHEAD] = wp.nan
            t[r] = here
            walks[i] = True
            remembered[r] = m
        return
    if f_low[r] > 0.0:
        m[DROP] = (f_low[r] - f) / (here - low[r])
    if f_low[r] > 0.0 or m[DOUBT] == 0.0:
        if m[RISE] > 0.0 and here - f / m[RISE] > m[SURE] + thinnest:
            m[AHEAD] = here
            m[F_AHEAD] = f
            m[CLIMB] = m[RISE]
            t[r] = 0.5 * (m[SURE] + back(m))
            remembered[r] = m
            return
    remembered[r] = m
    low[r] = here
    f_low[r] = f
    walks[i] = here < far[r]
    if here >= far[r]:
        status[r] = MISS

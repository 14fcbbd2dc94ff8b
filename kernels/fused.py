"""Whole marches in one kernel, for fields whose value is a Warp function as well.

A ray is marched to its end where the other kernels take one step and wait for Torch to evaluate the field. The steps
are the same functions, so that both find the same hits but for the rounding of the values.
"""

from functools import cache
from types import SimpleNamespace
from typing import Any

import warp as wp

from warpdvr.kernels import cones as _cones
from warpdvr.kernels import sphere_trace as _trace
from warpdvr.kernels.ray_state import RayLines, RayState
from warpdvr.kernels.rays import clipped
from warpdvr.kernels.root import MAX_STEPS, bracket, fraction, is_found, tightened
from warpdvr.kernels.status import ACTIVE, GAVE_UP, HIT, MISS


@wp.struct
class ConeSettings:
    """How cones are marched; one is made of `size` rays in a row, inside of one of `wider_size`."""

    low: wp.vec3  # of the box in which the surface is searched
    high: wp.vec3
    min_spacing: float  # samples on an axis that are closer together give no reliable slope
    max_steps: int
    size: int
    wider_size: int  # 0: there is none


@wp.func
def blank(k: int, cones: _cones.Cones):
    """Forget what a cone's memory holds: it has found nothing."""
    cones.status[k] = _cones.ENDED
    cones.t[k] = wp.nan
    cones.last[k] = wp.nan
    cones.radius[k] = wp.nan
    cones.nearest[k] = wp.nan
    cones.f_nearest[k] = wp.inf
    cones.fall[k] = 0.0
    cones.steepest[k] = 0.0


@wp.func
def inherit(k: int, w: int, cones: _cones.Cones, wider: _cones.Cones):
    """Take on what the wider cone w has found."""
    if wider.status[w] == _cones.MISSED:
        cones.status[k] = _cones.MISSED
    cones.free_until[k] = wp.max(cones.free_until[k], wider.free_until[w])
    cones.last[k] = wider.last[w]
    cones.radius[k] = wider.radius[w]
    cones.fall[k] = wider.fall[w]
    cones.nearest[k] = wider.nearest[w]
    cones.f_nearest[k] = wider.f_nearest[w]


@wp.func
def bundle(k: int, s: ConeSettings, lines: RayLines, cones: _cones.Cones):
    """Lay cone k around its rays that meet the box; return its eye and its axis.

    It is not marched where they start at different points, or point too far apart.
    """
    start = k * s.size
    end = wp.min(start + s.size, lines.origin.shape[0])
    eye = wp.vec3()
    axis = wp.vec3()
    near = float(wp.inf)
    far = float(-1.0)
    one = bool(True)
    for r in range(start, end):
        if lines.near[r] <= lines.far[r]:
            if far < 0.0:
                eye = lines.origin[r]
            one = one and lines.origin[r] == eye
            axis += lines.direction[r]
            near = wp.min(near, lines.near[r])
            far = wp.max(far, lines.far[r])
    axis = wp.normalize(axis)  # type: ignore[assignment]
    chord = float(0.0)
    for r in range(start, end):
        if lines.near[r] <= lines.far[r]:
            chord = wp.max(chord, wp.length(lines.direction[r] - axis))
    chord = chord * (1.0 + 1.0e-5) + 1.0e-6  # and a margin for rounding
    cosine = 1.0 - 0.5 * chord * chord
    ends = clipped(eye, axis, s.low, s.high)
    cones.free_until[k] = near
    cones.far[k] = far
    cones.cosine[k] = cosine
    sine = chord * wp.sqrt(wp.max(1.0 - 0.25 * chord * chord, 0.0))
    cones.sine[k] = wp.where(cosine > _cones.MIN_COSINE, sine, _cones.WHOLE_SPACE)
    cones.enter[k] = ends[0]
    cones.leave[k] = ends[1]
    if far >= 0.0 and one:
        cones.status[k] = _cones.GOING
    return eye, axis


@wp.func
def hand_over(r: int, k: int, thinnest: float, lines: RayLines, cones: _cones.Cones, rays: RayState) -> _trace.memory:
    """Start ray r where its cone k has ended, or decide it; return its memory."""
    m = _trace.memory()
    m[_trace.FREE_UNTIL] = lines.near[r]
    m[_trace.SAMPLE_AHEAD] = wp.nan
    m[_trace.SPACING] = thinnest
    if k < 0:
        return m
    # until the ray has a sample of its own, even one that is larger than that of the axis
    rays.nearest[r] = cones.nearest[k]
    free_until = wp.max(cones.free_until[k], lines.near[r])
    if cones.status[k] == _cones.MISSED or free_until > lines.far[r]:
        rays.status[r] = MISS
        return m
    fall = cones.fall[k]
    m[_trace.FREE_UNTIL] = free_until
    m[_trace.FALL] = fall
    hoped = free_until + 0.5 * thinnest
    # where a ball that begins at `hoped` has its middle, see kernels/cones.py
    t = (hoped + cones.radius[k] + fall * cones.last[k]) / (1.0 + fall)
    rays.high[r] = wp.where(t > free_until, wp.min(t, lines.far[r]), free_until)
    return m


@cache
def kernels(value: Any, parameters: Any) -> SimpleNamespace:
    """Return the kernels for one function of a point and its parameters; each is compiled when first launched.

    Args:
        value: a `wp.func` of a `wp.vec3` and a struct that returns a float.
        parameters: that struct.
    """
    module = f"{__name__}.{value.key}.{parameters.key}"

    @wp.kernel(enable_backward=False, module=module)
    def evaluate(
        first: int,
        p: parameters,
        x: wp.array[wp.vec3],
        # outputs
        y: wp.array[float],
    ):
        """Values at points."""
        i = first + wp.tid()
        y[i] = value(x[i], p)

    @wp.kernel(enable_backward=False, module=module)
    def cones(
        first: int,
        p: parameters,
        lines: RayLines,
        settings: _trace.Settings,
        cone_settings: ConeSettings,
        wider: _cones.Cones,
        # state
        cones: _cones.Cones,
        # outputs
        evaluations: wp.array[wp.int32],
    ):
        """March cones around rays in a row, see kernels/cones.py."""
        k = first + wp.tid()
        s = cone_settings
        blank(k, cones)
        eye, axis = bundle(k, s, lines, cones)
        if s.wider_size > 0:
            inherit(k, k * s.size // s.wider_size, cones, wider)
        _cones.place_first(k, settings.thinnest, cones)
        step = int(0)
        while step < s.max_steps and cones.status[k] == _cones.GOING:
            f = value(eye + axis * cones.t[k], p)
            _cones.take_in(f, k, eye, settings.lipschitz, settings.thinnest, s.min_spacing, cones)
            step += 1
        evaluations[k] = step

    @wp.func
    def root(o: wp.vec3, d: wp.vec3, s: bracket, tolerance: float, p: parameters):
        """Narrow a bracket, see kernels/root.py; return the root, NaN if there is no number, and the evaluations."""
        step = int(0)
        if s[3] != 0.0 and s[4] != 0.0 and s[1] - s[0] > tolerance:
            found = bool(False)
            while step < MAX_STEPS and not found:
                t = s[0] + fraction(s, tolerance) * (s[1] - s[0])
                s = tightened(s, t, value(o + d * t, p))
                found = bool(is_found(s, tolerance))
                step += 1
        f, g = s[3], s[4]
        t = wp.where(wp.abs(f) <= wp.abs(g), s[0], s[1])
        if wp.abs(s[1] - s[0]) <= tolerance and f * g != 0.0 and f != g:
            t = s[0] + (s[1] - s[0]) * (f / (f - g))
        return wp.where(wp.isnan(f), wp.nan, t), step

    @wp.kernel(enable_backward=False, module=module)
    def sphere_trace(
        first: int,
        p: parameters,
        lines: RayLines,
        settings: _trace.Settings,
        tolerance: float,
        max_steps: int,
        cones: _cones.Cones,
        cone_size: int,
        # state
        rays: RayState,
        memories: wp.array[_trace.memory],
        # outputs
        evaluations: wp.array[wp.int32],
    ):
        """Trace each ray to its root, see kernels/sphere_trace.py; a `cone_size` of 0 begins at the border."""
        r = first + wp.tid()
        step = int(0)
        if rays.status[r] == ACTIVE:
            cone = int(-1)
            if cone_size > 0:
                cone = r // cone_size
            memories[r] = hand_over(r, cone, settings.thinnest, lines, cones, rays)
            o = lines.origin[r]
            d = lines.direction[r]
            while step < max_steps and rays.status[r] == ACTIVE:
                _trace.take_in(value(o + d * rays.high[r], p), r, lines, settings, rays, memories)
                step += 1
            if rays.status[r] == ACTIVE:
                rays.status[r] = GAVE_UP
            if rays.status[r] == HIT:
                f, g = rays.f_low[r], rays.f_high[r]
                s = bracket(rays.low[r], rays.high[r], rays.low[r], f, g, f)
                t, for_root = root(o, d, s, wp.max(tolerance, 0.1 * settings.pixel * rays.high[r]), p)
                rays.high[r] = t
                rays.nearest[r] = t
                step += for_root
                if wp.isnan(t):
                    rays.status[r] = GAVE_UP
        else:
            memories[r] = _trace.memory()
        evaluations[r] = step

    return SimpleNamespace(evaluate=evaluate, cones=cones, sphere_trace=sphere_trace)

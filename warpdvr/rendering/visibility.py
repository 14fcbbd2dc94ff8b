"""Visibility gradients: the derivative of an image with respect to the position of its outlines."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.fields.base import Field, select_shape
from warpdvr.fields.gradient import evaluations_per_gradient, gradient, unit, value_and_gradient
from warpdvr.intersection.base import Solver
from warpdvr.intersection.hit import Status
from warpdvr.runtime.autograd import once_differentiable
from warpdvr.runtime.memory import in_parts
from warpdvr.shading.shade import Shader, SurfacePoints, shade

ONCE = "boundary: second derivatives of the outline term are not provided; render without outline for them"

HALVINGS = 3
"""Bisections between two pixels to find the outline there: down to an eighth of a pixel."""

BEND = 0.5
"""Distance of a neighbour from the surface's tangent plane above which an outline is searched [pixel's size]."""

STEPS = (-1.0, 0.0, *(2.0**k for k in range(8)))
"""Offsets from the near surface between which the ray's grazing point is searched [pixel's size]."""

TURNS = 5
"""Bisections between two such places."""

GRAZING = 0.05
"""Least slope in the image per unit of the field's slope: a smaller one would make an outline infinitely fast."""


@dataclass(frozen=True)
class VisibleImage:
    """The surface that the rays of some images see, one ray per pixel, image by image and row by row."""

    rays: Rays
    """n = count * height * width rays, differentiable."""
    shape: tuple[int, int, int]
    """Count, height and width of the images."""
    status: Int[Tensor, " n"]
    """A `Status` for every ray, int32."""
    t: Float[Tensor, " n"]
    """Ray length to the surface, anything where there is none [scene unit]."""
    normal: Float[Tensor, "n 3"]
    """Unit normal of the surface, 0 where there is none."""
    background: Float[Tensor, "n 3"]
    """sRGB colour where no ray hits."""


def boundary(
    field: Field, image: VisibleImage, intersect: Solver, *, chunk: int | None = None, shader: Shader = shade
) -> tuple[Float[Tensor, "n 3"], int]:
    """Return 0 for all colours, with the gradient of the outlines between them; and the evaluations.

    The integral of colour over an image moves with its discontinuities by

        d/dtheta = integral over the outlines of (inside - outside) v dl,   v = -F_theta / |grad_u F|,

    (Li et al. 2018, "Differentiable Monte Carlo Ray Tracing through Edge Sampling"), where F(u) is the smallest value
    of the field on the ray through u: 0 on the outline, > 0 outside of it, and by the envelope theorem F_theta =
    f_theta and grad_u F = t grad f . dd/du at the point where the ray is tangent to the surface. Wang et al. 2024, "A
    Simple Approach to Differentiable Rendering of SDFs", widen the curve to a band of rays; here it stays a curve, and
    its integral is a sum over the places where outlines cross the lines between neighbouring pixels. With n the
    outline's normal in the image, rows have the share n_x^4 / (n_x^4 + n_y^4) in dl = dy / |n_x|, columns the rest: no
    crossing is infinitely heavy, and no random number is drawn. A crossing is shared by its two pixels as a point
    between them is: the gradient is that of pixels that are tents, two pixels wide along rows and columns.

    Rays from `intersect` halve the way between two pixels of which one sees a surface and the other does not, or
    something farther, `HALVINGS` times. The colours of the two sides are those in the limit, so that one part of an
    object in front of another counts right. Where f has a kink at the tangent point, as a network of ReLUs has
    everywhere and a box at its edges, its slopes on both sides are mixed so that along the ray there is none.

    It costs `HALVINGS` rays, 17 values with gradients and 2 colours for each pair of pixels with an outline between
    them, and some rays for nothing where a surface bends sharply. Where one outline ends at another the sum is off by
    up to half a pixel. Missed are outlines that leave both pixels the same, all but one of several between two pixels,
    those in the outer half of the pixels at the image's border, and those across less than half a pixel of depth.
    Creases, the edges of the bounds and lines painted on a surface are not outlines: their position has no gradient.

    Args:
        field: a `Field`.
        image: the images.
        intersect: finds the surface.
        chunk: number of pairs of pixels at a time; None for all.
        shader: colours surface points.
    """
    zero = image.background.new_zeros(len(image.rays), 3, dtype=field.bounds.dtype)
    if not torch.is_grad_enabled():
        return zero, 0
    rays, length = image.rays.normalised()
    image = replace(image, rays=rays, t=image.t * length.detach().to(image.t))
    pairs, evaluations = _candidate_pairs(image), 0

    def contribute(subset: Int[Tensor, "k 3"]) -> tuple[Int[Tensor, "m 3"], Float[Tensor, "2 m 3"], int]:
        crossing, for_rays = _bisect(field, image, subset, intersect)
        crossing, for_grazing = _grazing_points(field, image, crossing)
        contributions, for_colors = _contributions(field, image, crossing, shader)
        return crossing.pair, contributions, for_rays + for_grazing + for_colors

    for pair, contributions, n in in_parts(contribute, pairs.split(chunk or len(pairs)) if len(pairs) else ()):
        evaluations += n
        for i in (0, 1):
            zero = zero.index_add(0, pair[:, i], contributions[i])
    return zero, evaluations


@dataclass(frozen=True)
class _Crossing:
    """Outlines between m pairs of pixels, and the rays that just miss them."""

    pair: Int[Tensor, "m 3"]
    """The pixel that sees the near surface, the one that does not, and a neighbour of the first."""
    low: Float[Tensor, " m"]
    """Fraction of the way from the first to the second up to which the near surface is seen."""
    high: Float[Tensor, " m"]
    """Fraction of the way from which on it is not seen."""
    near: Float[Tensor, " m"]
    """Ray length to the near surface at `low` [scene unit]."""
    far: Float[Tensor, " m"]
    """Ray length to what is seen at `high`, NaN for nothing [scene unit]."""
    graze: Float[Tensor, "m 2"]
    """Ray lengths at `high` between which the field's value is smallest [scene unit]."""

    def __getitem__(self, index: Tensor) -> "_Crossing":
        return _Crossing(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


@torch.no_grad()
def _candidate_pairs(image: VisibleImage) -> Int[Tensor, "m 3"]:
    """Return neighbours between which there may be an outline, as `_Crossing.pair`."""
    _, height, width = image.shape
    index = torch.arange(len(image.rays), device=image.t.device).view(image.shape)
    pairs = []
    for axis, other, size in ((1, 2, width), (2, 1, height)):
        neighbour = torch.arange(size, device=index.device) + 1
        neighbour[-1] = max(size - 2, 0)
        length = image.shape[axis] - 1
        ends = index.narrow(axis, 0, length), index.narrow(axis, 1, length)
        pairs.append(torch.stack([*ends, *(end.index_select(other, neighbour) for end in ends)], -1).view(-1, 4))
    pair = torch.cat(pairs)
    hit, miss = image.status == int(Status.HIT), image.status == int(Status.MISS)
    t = torch.where(hit, image.t, torch.inf)
    pair = torch.where((t[pair[:, 0]] <= t[pair[:, 1]])[:, None], pair, pair[:, [1, 0, 3, 2]])[:, :3]
    a, b = pair[:, 0], pair[:, 1]
    x = image.rays.at(torch.where(hit, image.t, torch.nan))
    off = torch.stack([((x[b] - x[a]) * image.normal[i]).sum(-1).abs() for i in (a, b)]).amax(0)
    hidden = off > BEND * _footprint(image.rays, pair, 1, image.t[a]).norm(dim=-1)
    return pair[hit[a] & (miss[b] | (hit[b] & hidden))]


@torch.no_grad()
def _bisect(field: Field, image: VisibleImage, pair: Int[Tensor, "m 3"], intersect: Solver) -> tuple[_Crossing, int]:
    """Bisect between pairs of pixels; the half with the larger step in depth is kept."""
    t = torch.where(image.status == int(Status.HIT), image.t, torch.nan)
    near, far = t[pair[:, 0]], t[pair[:, 1]]
    low, high = torch.zeros_like(near), torch.ones_like(near)
    evaluations = 0
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        hit = intersect(field, _interpolated(image.rays, pair, middle))
        t = torch.full_like(near, torch.nan).index_copy(0, hit.ray, hit.t.to(near))
        first = (t - near).abs() < (far - t).abs().nan_to_num(torch.inf)
        low, near = torch.where(first, middle, low), torch.where(first, t, near)
        high, far = torch.where(first, high, middle), torch.where(first, far, t)
        evaluations += hit.evaluations
    return _Crossing(pair, low, high, near, far, torch.stack([near, near], 1)), evaluations


@torch.no_grad()
def _grazing_points(field: Field, image: VisibleImage, crossing: _Crossing) -> tuple[_Crossing, int]:
    """Keep the crossings whose outer ray passes a minimum of the value in front of what it sees, and bracket it.

    On a surface that continues behind the pixel's edge, values only fall from the near to the far point.
    """
    pair, rays = crossing.pair, _interpolated(image.rays, crossing.pair, crossing.high)
    end = torch.where(crossing.far.isnan(), rays.clip(field.bounds)[1].to(crossing.far), crossing.far)
    size = _footprint(image.rays, pair, 1, crossing.near).norm(dim=-1)
    t = crossing.near[:, None] + size[:, None] * torch.tensor(STEPS).to(size)
    t = torch.minimum(t, end[:, None])
    k = t.shape[1]
    index = torch.arange(len(pair), device=t.device).repeat_interleave(k)
    slope = _slope(field, rays[index], t.view(-1))[1].view(-1, k)
    turn = (slope[:, :-1] < 0) & (slope[:, 1:] >= 0)
    keep = torch.nonzero(turn.any(1))[:, 0]
    first = turn[keep].to(torch.int8).argmax(1, keepdim=True)
    low, high = (t[keep].gather(1, first + i)[:, 0] for i in (0, 1))
    for _ in range(TURNS):
        middle = 0.5 * (low + high)
        falls = _slope(field, rays[keep], middle)[1] < 0
        low, high = torch.where(falls, middle, low), torch.where(falls, high, middle)
    return replace(crossing[keep], graze=torch.stack([low, high], 1)), t.numel() + TURNS * len(keep)


def _contributions(
    field: Field, image: VisibleImage, crossing: _Crossing, shader: Shader
) -> tuple[Float[Tensor, "2 m 3"], int]:
    """Return the terms that each crossing adds to the colours of its two pixels, 0 in value, and the evaluations."""
    pair = crossing.pair
    rays = _interpolated(image.rays, pair, crossing.high)
    sides = [_slope(field, rays, t) for t in crossing.graze.unbind(1)]
    (f_low, s_low, g_low), (f_high, s_high, g_high) = sides
    share = (s_high / (s_high - s_low)).nan_to_num(0.5).clamp(0, 1)
    value, slope = share * f_low + (1 - share) * f_high, share[:, None] * g_low + (1 - share)[:, None] * g_high
    t = share * crossing.graze[:, 0] + (1 - share) * crossing.graze[:, 1]
    along, across = ((slope * _footprint(image.rays, pair, i, t)).sum(-1) for i in (1, 2))
    min_slope = torch.stack([g_low, g_high]).norm(dim=-1).amax(0) * _footprint(image.rays, pair, 1, t).norm(dim=-1)
    steep = torch.hypot(along, across)
    close_enough = value.detach().abs() <= 4 * (crossing.high - crossing.low) * steep
    tiny = torch.finfo(steep.dtype).tiny
    a, b = along.abs() / (steep + tiny), across / (steep + tiny)
    share = a**3 / (a**4 + b**4 + tiny) / torch.maximum(steep, GRAZING * min_slope + tiny)
    value = once_differentiable(value, ONCE)
    move = (value.detach() - value) * torch.where(close_enough, share, 0)
    jump, evaluations = _color_jump(field, image, crossing, rays, t, shader)
    place = torch.where(close_enough, crossing.high - value.detach() / along, 0.5).nan_to_num(0.5)
    place = torch.minimum(torch.maximum(place, crossing.low), crossing.high)
    part = move[:, None] * jump
    return torch.stack([(1 - place)[:, None] * part, place[:, None] * part]), 2 * len(t) + evaluations


@torch.no_grad()
def _color_jump(
    field: Field, image: VisibleImage, crossing: _Crossing, rays: Rays, t: Float[Tensor, " m"], shader: Shader
) -> tuple[Float[Tensor, "m 3"], int]:
    """Return the colour on the near side of each crossing minus that on its far side, and the evaluations."""
    hit = torch.nonzero(~crossing.far.isnan())[:, 0]
    far_color = image.background[crossing.pair[:, 1]].to(field.bounds.dtype)
    far_color = far_color.index_copy(0, hit, _color(field, rays[hit], crossing.far[hit], shader))
    return _color(field, rays, t, shader) - far_color, evaluations_per_gradient(field) * (len(t) + len(hit))


def _color(field: Field, rays: Rays, t: Float[Tensor, " n"], shader: Shader) -> Float[Tensor, "n 3"]:
    x, d = rays.at(t).to(field.bounds.dtype), rays.direction.to(field.bounds.dtype)
    field = select_shape(field, rays.shape_index)
    _, slope, feature = gradient(field, x)
    return shader(SurfacePoints(field, x, unit(slope), d, feature))


def _slope(
    field: Field, rays: Rays, t: Float[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, "n 3"]]:
    """Return the value, its slope along the rays and its gradient at ray lengths `t`.

    The value is differentiable with respect to the field and the rays where autograd is recording, the others not.
    """
    x = rays.at(t.to(rays.origin)).to(field.bounds.dtype)
    value, slope = value_and_gradient(select_shape(field, rays.shape_index).value, x)
    return value, (slope * rays.direction.detach()).sum(-1), slope


def _interpolated(rays: Rays, pair: Int[Tensor, "m 3"], part: Float[Tensor, " m"]) -> Rays:
    """Return rays at a fraction of the way from the first to the second of each pair; differentiable."""
    a, b = rays[pair[:, 0]], rays[pair[:, 1]]
    part = part[:, None].to(a.origin)
    return Rays(
        a.origin + part * (b.origin - a.origin), unit(a.direction + part * (b.direction - a.direction)), a.shape_index
    )


def _footprint(rays: Rays, pair: Int[Tensor, "m 3"], other: int, t: Float[Tensor, " m"]) -> Float[Tensor, "m 3"]:
    """Return the offset of points at lengths `t` from the first to another ray of each pair [scene unit]."""
    a, b = (Rays(rays.origin.detach()[i], rays.direction.detach()[i]) for i in (pair[:, 0], pair[:, other]))
    return b.origin - a.origin + t[:, None] * (b.direction - a.direction)

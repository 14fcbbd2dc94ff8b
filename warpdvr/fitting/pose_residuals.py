"""Residuals of a field's picture against a photograph, with derivatives with respect to the camera's pose.

What a pixel shows depends on its own ray alone, so that one backward pass to the rays gives the derivatives of all
pixels.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from warpdvr.cameras.pose import scene_origin
from warpdvr.cameras.rays import Rays
from warpdvr.fields.base import Field
from warpdvr.fields.bounds import longest_side
from warpdvr.fitting.image_pyramid import Level
from warpdvr.intersection.base import Solver
from warpdvr.intersection.lowest import bracket_lowest, lengths_behind, refine_lowest
from warpdvr.rendering.surface import Surface, shaded

BEHIND = 12
"""Points on a ray behind its hit at which the smallest value is looked for."""

SOLID = 0.999
"""Part of a pixel that the object must cover for its colour and depth to be compared, and for a hit to settle its
mask."""


@dataclass(frozen=True)
class Scale:
    """The weight of the differences of one kind: number * mean of huber(difference / sigma)."""

    number: float
    """How many pixels count."""
    sigma: float
    """The assumed standard deviation of the differences."""
    robust: float
    """Beyond this many sigma a difference counts by its size, not its square (Huber 1964)."""


SCALES = {"color": Scale(1, 1.0, 0.1), "mask": Scale(1, 1.0, math.inf), "depth": Scale(1, 0.1, 0.1)}
"""For cameras that may be far off: masks alone count then, if there are any. From the second size of the pictures on,
each kind counts according to its own scatter."""

MIN_SIGMA = {"color": 0.004, "mask": 0.01, "depth": 1e-4}
"""The smallest standard deviations that are assumed [sRGB, part of a pixel, half the longest side of the bounds]."""

DEEP = 0.01
"""How far beside the nearest point of a ray the smallest value is looked for [longest side of the bounds]."""


class PoseResiduals:
    """The loss of a pose at one size of the picture: silhouette, colour and depth as in Liu et al., "DIST" (2020)."""

    def __init__(self, field: Field, level: Level, colored: bool, solver: Solver, pose: Float[Tensor, "4 4"]):
        """Measure at a first pose how steep the field is at its surface: 1 for distances, anything for other kinds."""
        self.field, self.level, self.colored, self.solver = field, level, colored, solver
        self.scales = SCALES
        with torch.no_grad():
            visible = shaded(field, level.rays(pose), solver)
        steep = float(visible.slope.median()) if len(visible.slope) else 1.0
        self.length = 0.5 * longest_side(field.bounds)
        """The unit of the differences of depths [scene unit]."""
        z = float((field.bounds.detach().cpu().double().mean(0) - pose[:3, 3]) @ pose[:3, 2])
        pixel = level.pixel_size(max(z, 1e-3 * self.length))
        # the profile of an outline and sigmoid(sharpness x) both have this standard deviation
        self.sharpness = math.pi / math.sqrt(3) / (level.blur * pixel * max(steep, 1e-9))

    def __call__(self, pose: Float[Tensor, "4 4"]) -> tuple[float, Float[Tensor, "6"], Float[Tensor, "6 6"]]:
        """Return the loss of a pose, its derivatives, and its second derivatives by Gauss and Newton, float64.

        The loss is infinite where nothing can be compared.
        """
        rays, terms = self._compare(pose)
        parts = [term.derivatives(rays, pose, self.scales[term.kind]) for term in terms if term.kind in self.scales]
        total, g, H = 0.0, torch.zeros(6, dtype=torch.float64), torch.zeros(6, 6, dtype=torch.float64)
        for value, first, second in parts:
            total, g, H = total + value, g + first, H + second
        return (total if bool((H.diagonal() > 0).all()) else math.inf), g, H

    def measure_scales(self, pose: Float[Tensor, "4 4"]) -> dict[str, Scale]:
        """Return the scales of all kinds of differences, from their scatter at a pose."""
        _, terms = self._compare(pose)
        scales = {}
        for kind, min_sigma in MIN_SIGMA.items():
            if of_kind := [term for term in terms if term.kind == kind]:
                r = torch.cat([self._informative(term) for term in of_kind]).detach().abs()
                sigma = max(1.48 * float(r.median()) if len(r) else 0.0, min_sigma)  # the median of |r| is 0.67 sigma
                scales[kind] = Scale(max(len(r), 1), sigma, 2.5)
        return {**SCALES, **scales}

    def _informative(self, term: "_Term") -> Float[Tensor, " m"]:
        """Return the informative differences: of masks, those at the outline."""
        if term.kind != "mask":
            return term.difference
        cover = self.level.cover[term.ray]
        return term.difference[(cover > 1 - SOLID) & (cover < SOLID)]

    def _compare(self, pose: Float[Tensor, "4 4"]) -> tuple[Rays, list["_Term"]]:
        rays = self.level.rays(pose)
        rays = Rays(rays.origin.requires_grad_(), rays.direction.requires_grad_())
        with torch.enable_grad():
            visible = shaded(self.field, rays, self.solver)
            terms = [*self._mask(rays, visible), *self._inner(rays, visible, pose)]
        return rays, [term for term in terms if len(term.ray)]

    def _mask(self, rays: Rays, visible: Surface) -> list["_Term"]:
        """Compare soft masks; rays that hit where the object fills the pixel are left out."""
        cover, hit = self.level.cover, visible.hit
        has_mask = ~cover.isnan()
        if not has_mask.any():
            return []
        settled = torch.zeros_like(has_mask)
        settled[hit.ray] = cover[hit.ray] > SOLID
        ray = torch.nonzero(has_mask & ~settled)[:, 0]
        hits = torch.full_like(rays.origin[:, 0], torch.nan).index_copy(0, hit.ray, hit.t.to(rays.origin))[ray]
        t = _deepest(self.field, rays[ray], hit.nearest[ray], hits)
        meets_bounds = ~t.isnan()
        x = rays[ray[meets_bounds]].at(t[meets_bounds]).to(self.field.bounds.dtype)
        value = torch.sigmoid(-self.sharpness * self.field.value(x))
        soft = torch.zeros_like(t).masked_scatter(meets_bounds, value)
        return [_Term("mask", soft - cover[ray], ray, int(has_mask.sum()))]

    def _inner(self, rays: Rays, visible: Surface, pose: Float[Tensor, "4 4"]) -> list["_Term"]:
        """Compare colour and depth at hits."""
        level, ray = self.level, visible.hit.ray
        terms = []
        solid = ~(level.cover[ray] <= SOLID)  # also where the mask is unknown
        if self.colored:
            off = (visible.color - level.color[ray])[solid]
            terms += [_Term("color", channel, ray[solid], len(off)) for channel in off.unbind(1)]
        has_depth = solid & ~level.depth[ray].isnan()
        if has_depth.any():
            forward = rays.direction.detach() @ pose[:3, 2].to(rays.direction)
            off = (visible.t * forward[ray] - level.depth[ray])[has_depth] / self.length
            terms.append(_Term("depth", off, ray[has_depth], len(off)))
        return terms


@dataclass(frozen=True)
class _Term:
    """Differences of one kind, each of one ray."""

    kind: str
    """A key of `SCALES`."""
    difference: Float[Tensor, " k"]
    """Differentiable with respect to the rays."""
    ray: Int[Tensor, " k"]
    """The ray of each difference."""
    n: int
    """Number of differences that the mean is taken over; those that are missing count as 0."""

    def derivatives(
        self, rays: Rays, pose: Float[Tensor, "4 4"], scale: Scale
    ) -> tuple[float, Float[Tensor, "6"], Float[Tensor, "6 6"]]:
        """Return the term, and its first and second derivatives with respect to the pose, float64."""
        r = self.difference.detach().cpu().double() / scale.sigma
        damping = (scale.robust / r.abs().clamp_min(1e-30)).clamp_max(1)
        weight = scale.number / self.n
        total = weight * float(
            (r * r * (2 * damping - damping * damping)).sum()
        )  # of r^2, or of 2 robust |r| - robust^2
        by = torch.autograd.grad(
            self.difference.sum(), (rays.origin, rays.direction), retain_graph=True, materialize_grads=True
        )
        R = pose[:3, :3]
        start = rays.origin - pose[:3, 3].to(rays.origin)
        by_o, by_d, d, p = (a[self.ray].detach().to(R) @ R for a in (*by, rays.direction, start))  # in camera axes
        # after a motion (w, u), a ray from p along d starts at p + u + w x (p - o) along d + w x d, see `perturb`
        by_w = torch.linalg.cross(d, by_d) + torch.linalg.cross(p - scene_origin(pose[None]), by_o)
        J = torch.cat([by_w, by_o], 1) / scale.sigma
        weighted = weight * damping[:, None] * J
        return total, (weighted.mT @ r).cpu(), (weighted.mT @ J).cpu()


@torch.no_grad()
def _deepest(field: Field, rays: Rays, nearest: Float[Tensor, " n"], hit: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return the ray length of the smallest value on each of n rays, NaN for those that do not meet the bounds.

    A smooth outline is stationary there, so the place may be kept constant when the value is differentiated.

    Args:
        field: any field of one shape.
        rays: the rays.
        nearest: ray length at the smallest value that an intersector met.
        hit: ray length of a hit, NaN for a ray without one; the smallest value lies behind it.
    """
    _, far = rays.clip(field.bounds)
    t, width = nearest.clone(), torch.full_like(nearest, DEEP * longest_side(field.bounds))
    hits = torch.nonzero(~hit.isnan())[:, 0]
    if len(hits):
        lengths = lengths_behind(hit[hits], (far - hit)[hits], BEHIND)
        t[hits], width[hits] = bracket_lowest(field, rays[hits], lengths)
    return refine_lowest(field, rays, t, width)

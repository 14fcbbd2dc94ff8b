"""Photographs compared with photographs: what one shows around a hit, with what others show at the same place.

The surface at a hit is taken for a plane through the point x with its unit normal n. The rays of a small patch of
pixels around the hit are met with that plane, and the points are projected to other views. For pinholes without
distortion that is, by construction, the homography `K_s (R - t n^T / d) K_r^-1` of Geo-NeuS (Fu et al. 2022, section
3.3), NeuralWarp (Darmon et al. 2022) and PGSR (Chen et al. 2024); written with rays and projections it is right for
lenses as well.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from warpdvr.cameras.camera import mixed_rays
from warpdvr.cameras.rays import Rays
from warpdvr.datasets.sampling import grey, in_image, on_background, project
from warpdvr.fields.bounds import longest_side
from warpdvr.fitting.terms import TermContext

CANDIDATES = 8
"""Other views that are asked at a hit."""

BEST = 4
"""Those of them that count: the most similar ones, since some see the point badly (Geo-NeuS, section 3.3)."""

MIN_ANGLE = 0.05
"""Directions to two cameras that are closer do not tell depths, such as those of neighbouring frames [radian]."""

MAX_ANGLE = 1.0
"""Directions that are farther apart show too different pictures [radian]."""

MIN_COSINE = 0.2
"""A camera grazes the surface below this cosine of the angle between the ray and the normal."""

MIN_CONTRAST = 0.01
"""A patch whose grey values have a smaller standard deviation has no texture [sRGB]."""

MIN_NCC = 0.1
"""Patches whose correlation is lower do not show the same (`1 - NCC < 0.9` in the code of PGSR)."""

TOLERANCE = 0.01
"""How much nearer the hit of a ray to x may be before something hides x [longest side of the bounds]."""


@dataclass(frozen=True)
class Pairs:
    """Patches that are to be compared."""

    row: Int[Tensor, " q"]
    """The reference patch of each pair."""
    source: Int[Tensor, " q"]
    """The training view that it is compared with."""

    def __getitem__(self, kept: Bool[Tensor, " q"]) -> "Pairs":
        return Pairs(self.row[kept], self.source[kept])


@dataclass(frozen=True)
class ReferencePatches:
    """Patches of pixels around hits, each in the view that the ray of the hit belongs to."""

    view: Int[Tensor, " p"]
    """Training view of the patch."""
    hit: Int[Tensor, " p"]
    """Hit of the surface."""
    plane: Float[Tensor, "p m 3"]
    """Where the rays of the pixels meet the plane of the hit [scene unit]; differentiable."""
    value: Float[Tensor, "p m"]
    """Grey of the photograph at these pixels, sRGB in [0, 1]."""

    def __getitem__(self, kept: Bool[Tensor, " p"]) -> "ReferencePatches":
        return ReferencePatches(self.view[kept], self.hit[kept], self.plane[kept], self.value[kept])


@dataclass(frozen=True)
class Patches:
    """1 - NCC of patches around hits that show the object and the same places in the most similar other views.

    The mean over the hits that any other view confirms, of the mean over at most `BEST` of their `CANDIDATES` nearest
    views. A view does not count if the point is hidden in it or grazed by its ray, if the patch leaves its image or the
    mask of its object, or if there is no texture or no similarity. The gradient moves the point and turns the normal;
    cameras that are refined at the same time get theirs from all of both views. Which patches count is a constant.
    """

    name: ClassVar[str] = "patches"
    weight: float
    rays: int
    """Largest number of hits in a step that are compared."""
    side: int = 5
    """Pixels along a side of a patch."""
    stride: int = 2
    """Distance of neighbouring pixels of a patch [pixel]."""

    def __call__(self, context: TermContext) -> tuple[Float[Tensor, ""], int]:
        reference = self.reference_patches(context)
        with torch.no_grad():
            pairs, evaluations = visible_pairs(context, reference)
            pairs = best_pairs(context, reference, pairs)
        ncc = similarity(context, reference, pairs)
        count = torch.bincount(pairs.row, minlength=len(reference.hit)).to(ncc)
        loss = ((1 - ncc) / count[pairs.row]).sum() / max(int((count > 0).sum()), 1)
        return loss + 0 * context.surface.x.sum(), evaluations

    def reference_patches(self, context: TermContext) -> ReferencePatches:
        """Return patches around random hits, in the image and on the object, that their ray does not graze."""
        batch, surface = context.batch, context.surface
        cosine = -(batch.rays.direction[surface.hit.ray] * surface.normal).detach().sum(-1)
        hit = torch.nonzero(context.object_hits() & (cosine > MIN_COSINE))[:, 0]
        if len(hit) > self.rays:
            hit = hit[torch.randperm(len(hit), generator=context.generator)[: self.rays].to(hit.device)]
        ray = surface.hit.ray[hit]
        view, pixel = batch.view[ray], batch.pixel[ray]
        along = self.stride * (torch.arange(self.side, device=pixel.device) - (self.side - 1) / 2)
        place = pixel[:, None] + torch.cartesian_prod(along, along).to(pixel)
        shown = in_image(context.pixels, view, place).all(1)
        shown[shown.clone()] = ~on_background(context.pixels, view[shown], place[shown]).any(1)
        view, hit, place = view[shown], hit[shown], place[shown]
        x, n = surface.x[hit], surface.normal[hit]
        rays = _rays(context, view.repeat_interleave(self.side**2), place.view(-1, 2), x.dtype)
        o, d = (a.view(*place.shape[:2], 3) for a in (rays.origin, rays.direction))
        descent = (d @ n[..., None])[..., 0]
        t = ((x[:, None] - o) @ n[..., None])[..., 0] / descent
        value = grey(context.pixels, view, place.to(x))
        kept = ((t > 0) & (descent < -MIN_COSINE / 2)).all(1) & _textured(value)
        return ReferencePatches(view, hit, o + t[..., None] * d, value)[kept]


def visible_pairs(context: TermContext, reference: ReferencePatches) -> tuple[Pairs, int]:
    """Return the views among the nearest to each patch that see its middle, and the field evaluations for that."""
    pixels, surface, hit = context.pixels, context.surface, reference.hit
    x, n = surface.x[hit], surface.normal[hit]
    pairs = _nearest_views(context, reference, x, n)
    place, z = project(pixels, context.batch.pose, pairs.source, x[pairs.row, None])
    inside = (in_image(pixels, pairs.source, place) & (z > 0))[:, 0]
    pairs, place = pairs[inside], place[inside]
    on_object = ~on_background(pixels, pairs.source, place)[:, 0]
    pairs, place = pairs[on_object], place[on_object]
    rays = _rays(context, pairs.source, place[:, 0], x.dtype)
    distance = ((x[pairs.row] - rays.origin) * rays.direction).sum(-1)
    facing = -(rays.direction * n[pairs.row]).sum(-1) > MIN_COSINE
    pairs, rays, distance = pairs[facing], rays[facing], distance[facing]
    found = context.solver(context.field, rays)
    tolerance = TOLERANCE * longest_side(context.field.bounds)
    seen = (found.t - distance[found.ray]).abs() < tolerance
    return Pairs(pairs.row[found.ray][seen], pairs.source[found.ray][seen]), found.evaluations


def best_pairs(context: TermContext, reference: ReferencePatches, pairs: Pairs) -> Pairs:
    """Return the `BEST` most similar pairs of each patch, of those that can be compared and are similar at all."""
    pixels = context.pixels
    place, z = project(pixels, context.batch.pose, pairs.source, reference.plane[pairs.row])
    inside = (in_image(pixels, pairs.source, place) & (z > 0)).all(1)
    pairs, place = pairs[inside], place[inside]
    value = grey(pixels, pairs.source, place)
    good = ~on_background(pixels, pairs.source, place).any(1) & _textured(value)
    pairs, value = pairs[good], value[good]
    ncc = correlation(reference.value[pairs.row], value)
    pairs, ncc = pairs[ncc > MIN_NCC], ncc[ncc > MIN_NCC]
    order = ncc.argsort(descending=True, stable=True)
    order = order[pairs.row[order].argsort(stable=True)]  # by patch, the most similar first
    count = torch.bincount(pairs.row, minlength=len(reference.hit))
    rank = torch.arange(len(order), device=order.device) - (count.cumsum(0) - count)[pairs.row[order]]
    chosen = order[rank < BEST]
    return Pairs(pairs.row[chosen], pairs.source[chosen])


def similarity(context: TermContext, reference: ReferencePatches, pairs: Pairs) -> Float[Tensor, " q"]:
    """Return the normalised cross correlation of each pair; differentiable by the points, the normals and cameras."""
    place, _ = project(context.pixels, context.batch.pose, pairs.source, reference.plane[pairs.row])
    return correlation(reference.value[pairs.row], grey(context.pixels, pairs.source, place))


def correlation(a: Float[Tensor, "q m"], b: Float[Tensor, "q m"]) -> Float[Tensor, " q"]:
    """Return the normalised cross correlation of rows, in [-1, 1]: the same if one of them is brighter or steeper."""
    a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
    return torch.nn.functional.cosine_similarity(a, b, dim=1)


def _nearest_views(
    context: TermContext, reference: ReferencePatches, x: Float[Tensor, "p 3"], n: Float[Tensor, "p 3"]
) -> Pairs:
    """Return the nearest views to each patch by the angle at the point, of those that it faces."""
    towards = torch.nn.functional.normalize(context.batch.pose[:, :3, 3].to(x) - x[:, None], dim=-1)
    own = towards[torch.arange(len(x), device=x.device), reference.view]
    angle = (towards @ own[..., None])[..., 0].clamp(-1, 1).arccos()
    facing = (towards @ n[..., None])[..., 0] > MIN_COSINE
    angle = torch.where(facing & (angle > MIN_ANGLE) & (angle < MAX_ANGLE), angle, torch.inf)
    angle.scatter_(1, reference.view[:, None], torch.inf)
    nearest = angle.topk(min(CANDIDATES, angle.shape[1]), largest=False)
    row, column = torch.nonzero(nearest.values.isfinite(), as_tuple=True)
    return Pairs(row, nearest.indices[row, column])


def _rays(context: TermContext, view: Int[Tensor, " n"], place: Float[Tensor, "n 2"], dtype: torch.dtype) -> Rays:
    pixels = context.pixels
    return mixed_rays(pixels.projections, pixels.K, context.batch.pose, view, place, dtype=dtype)


def _textured(value: Float[Tensor, "q m"]) -> Bool[Tensor, " q"]:
    return (value - value.mean(1, keepdim=True)).square().mean(1) > MIN_CONTRAST**2

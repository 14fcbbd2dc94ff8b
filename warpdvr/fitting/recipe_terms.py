"""The terms of a recipe; `warpdvr.fitting.losses` states the set that each is a mean over."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.datasets.pixels import BACKGROUND, OBJECT, UNKNOWN, Pixels
from warpdvr.fields.base import Field
from warpdvr.fields.bounds import longest_side
from warpdvr.fitting import losses
from warpdvr.fitting.exposure import Exposure
from warpdvr.fitting.patch_term import Patches
from warpdvr.fitting.recipe import WEIGHTS, Recipe
from warpdvr.fitting.samples import SlopeSampler, SpaceSampler, nearest_values
from warpdvr.fitting.terms import Term, TermContext
from warpdvr.rendering.background import Background
from warpdvr.rendering.visibility import VisibleImage, boundary

Evaluated = tuple[Float[Tensor, ""], int]
"""A term before its weight, and the number of field evaluations [point]."""


@dataclass(frozen=True)
class Photometric:
    """Compares colours; differences up to `square` times their median count by their square, larger ones by their
    size."""

    square: float
    exposure: Exposure | None = None

    def __call__(
        self,
        color: Float[Tensor, "k 3"],
        target: Float[Tensor, "k 3"],
        view: Int[Tensor, " k"],
        *,
        learn: bool = True,
    ) -> Float[Tensor, ""]:
        """Return the photometric loss of colours of the field and those that photographs of some views have there."""
        color = self.exposed(color, target, view, learn=learn)
        if not self.square or not len(color):
            return losses.photometric(color, target)
        median = float((color.detach() - target).abs().median())
        return losses.photometric(color, target, self.square * median)

    def exposed(self, color: Tensor, target: Tensor, view: Tensor, *, learn: bool = True) -> Tensor:
        """Return colours of the field as photographs of some views would show them, see `Exposure`."""
        return color if self.exposure is None else self.exposure(color, target, view, learn=learn)


@dataclass(frozen=True)
class Color:
    """Colours of hits that show the object."""

    name: ClassVar[str] = "color"
    weight: float
    compare: Photometric

    def __call__(self, context: TermContext) -> Evaluated:
        ray, right = context.surface.hit.ray, context.object_hits()
        batch, ray = context.batch, ray[right]
        return self.compare(context.surface.color[right], batch.color[ray], batch.view[ray]), 0


@dataclass(frozen=True)
class ImageGradient:
    """Image gradients in blocks of 2 x 2 pixels that show the object in every pixel."""

    name: ClassVar[str] = "gradient"
    weight: float
    rays: int
    """Rays in a step; those of blocks come first."""
    compare: Photometric

    def __call__(self, context: TermContext) -> Evaluated:
        batch, surface = context.batch, context.surface
        ray, right, n = surface.hit.ray, context.object_hits(), 4 * (self.rays // 4)
        whole = torch.zeros_like(batch.label, dtype=torch.bool).index_copy(0, ray, right)[:n].view(-1, 4).all(1)
        shown = self.compare.exposed(surface.color, batch.color[ray], batch.view[ray])
        color = torch.zeros_like(batch.color).index_copy(0, ray, shown.to(batch.color))
        patches = (a[:n].view(-1, 2, 2, 3)[whole] for a in (color, batch.color))
        return losses.image_gradient(*patches), 0


@dataclass(frozen=True)
class BackgroundColor:
    """Colours of pixels beside the object, whatever the field shows there; rays of the object do not count."""

    name: ClassVar[str] = "background_color"
    weight: float
    background: Background
    compare: Photometric

    def __call__(self, context: TermContext) -> Evaluated:
        batch = context.batch
        ray = torch.nonzero(batch.label == BACKGROUND)[:, 0]
        rays = Rays(batch.rays.origin[ray].detach(), batch.rays.direction[ray].detach())
        color: Tensor = self.background(rays)
        return self.compare(color, batch.color[ray], batch.view[ray], learn=False), 0  # the object must not feel it


@dataclass(frozen=True)
class Depth:
    """Depths of hits that show the object, where they are known."""

    name: ClassVar[str] = "depth"
    weight: float

    def __call__(self, context: TermContext) -> Evaluated:
        batch, surface = context.batch, context.surface
        ray = surface.hit.ray
        target, label = batch.depth[ray], batch.label[ray]
        right = ~target.isnan() & (label == OBJECT)
        unmasked = torch.nonzero(~target.isnan() & (label == UNKNOWN))[:, 0]
        if len(unmasked):  # no mask says whether the point of known depth is one of the object
            x = batch.rays[ray[unmasked]].at((target / batch.forward[ray])[unmasked]).detach()
            right[unmasked] = context.pixels.inside(x, batch.pose)
        z = surface.t * batch.forward[ray]
        return losses.depth(z[right], target[right].to(z)), 0


@dataclass(frozen=True)
class OnSurface:
    """Values at points of known depth."""

    name: ClassVar[str] = "on_surface"
    weight: float

    def __call__(self, context: TermContext) -> Evaluated:
        return losses.on_surface(context.field, context.batch, context.pixels)


@dataclass(frozen=True)
class Outline:
    """All colours of whole blocks. A block holds half of each pixel's neighbours, hence the factor of 2."""

    name: ClassVar[str] = "outline"
    weight: float
    rays: int
    """Rays in a step; those of blocks come first."""
    background: tuple[float, ...]
    """sRGB colour in [0, 1] where nothing is hit."""
    compare: Photometric

    def __call__(self, context: TermContext) -> Evaluated:
        batch, surface = context.batch, context.surface
        n = 4 * (self.rays // 4)
        hits = int((surface.hit.ray < n).sum())
        ray = surface.hit.ray[:hits]
        color = self.compare.exposed(surface.color[:hits], batch.color[ray], batch.view[ray])
        background = torch.tensor(self.background).to(color).expand(n, 3)
        t = surface.t.new_full((n,), torch.nan).index_copy(0, ray, surface.t[:hits]).detach()
        normal = torch.zeros_like(background).index_copy(0, ray, surface.normal[:hits]).detach()
        image = VisibleImage(batch.rays[:n], (n // 4, 2, 2), surface.hit.status[:n], t, normal, background)
        outline_color, evaluations = boundary(context.field, image, context.solver)
        rgb = background.index_copy(0, ray, color) + 2 * outline_color
        return losses.photometric(rgb, batch.color[:n].to(rgb)), evaluations


@dataclass(frozen=True)
class Mask:
    """The silhouette, as cross entropy of a soft mask."""

    name: ClassVar[str] = "mask"
    weight: float
    sharpness: Callable[[float], float]

    def __call__(self, context: TermContext) -> Evaluated:
        nearest, evaluations = context.sample(nearest_values)
        sharpness, growth = self.sharpness(context.sharpening), self.sharpness(context.sharpening) / self.sharpness(0.0)
        entered = None if context.sharpened is None else nearest.entered
        return losses.silhouette(-sharpness * nearest.value, nearest.target, nearest.n, entered) / growth, evaluations


@dataclass(frozen=True)
class Hinge:
    """The silhouette, by how far it is wrong."""

    name: ClassVar[str] = "hinge"
    weight: float

    def __call__(self, context: TermContext) -> Evaluated:
        nearest, evaluations = context.sample(nearest_values)
        field, margin = context.field, losses.MARGIN
        if field.kind == "distance":  # whose values are lengths
            margin *= 0.5 * longest_side(field.bounds)
        return losses.hinge(nearest.value, nearest.target, nearest.n, margin), evaluations


@dataclass(frozen=True)
class Freespace:
    """Free space on rays beside the object, at the hit if there is one."""

    name: ClassVar[str] = "freespace"
    weight: float
    sampler: SpaceSampler

    def __call__(self, context: TermContext) -> Evaluated:
        logits, evaluations = context.sample(self.sampler)
        return losses.freespace(logits.free, logits.n), evaluations


@dataclass(frozen=True)
class Occupied:
    """Occupied space on rays of the object that do not hit it."""

    name: ClassVar[str] = "occupancy"
    weight: float
    sampler: SpaceSampler

    def __call__(self, context: TermContext) -> Evaluated:
        logits, evaluations = context.sample(self.sampler)
        return losses.occupancy(logits.occupied, logits.n), evaluations


@dataclass(frozen=True)
class Smooth:
    """Normals of hits, and of points near them."""

    name: ClassVar[str] = "smooth"
    weight: float
    sampler: SlopeSampler

    def __call__(self, context: TermContext) -> Evaluated:
        slopes, evaluations = context.sample(self.sampler)
        return losses.smoothness(context.surface.normal[slopes.pick], slopes.neighbour), evaluations


@dataclass(frozen=True)
class Eikonal:
    """Slopes of a distance at hits, near them and anywhere."""

    name: ClassVar[str] = "eikonal"
    weight: float
    sampler: SlopeSampler

    def __call__(self, context: TermContext) -> Evaluated:
        slopes, evaluations = context.sample(self.sampler)
        return losses.eikonal(torch.cat([slopes.length, context.surface.slope])), evaluations


def recipe_terms(
    recipe: Recipe, field: Field, background: Background | None = None, exposure: Exposure | None = None
) -> list[Term]:
    """Return the terms that have a weight in a recipe, in the order in which they draw random numbers.

    Args:
        recipe: weights and schedules.
        field: the field to fit; eikonal is for distances, and occupancy logits need no sharpness.
        background: the surroundings of the object, if they are learnt.
        exposure: those of the training views, if they are learnt.

    Raises:
        ValueError: if eikonal alone has a weight but the field is not a distance, so that nothing would be learnt.
    """
    is_distance = field.kind == "distance"
    if not is_distance and not any(getattr(recipe, name) for name in WEIGHTS if name != "eikonal"):
        raise ValueError(
            f"fit: the recipe weighs eikonal alone, which is for distances, but {field.name}.kind is {field.kind!r}"
        )
    compare = Photometric(recipe.square, exposure)
    sharpness = partial(recipe.sharp, side=longest_side(field.bounds)) if is_distance else _constant
    space = SpaceSampler(recipe.freespace > 0, recipe.occupancy > 0, sharpness)
    eikonal = recipe.eikonal if is_distance else 0.0
    slopes = SlopeSampler(recipe.rays // 8, everywhere=eikonal > 0)
    terms: list[Term] = [Color(recipe.color, compare), ImageGradient(recipe.gradient, recipe.rays, compare)]
    if background is not None:
        terms.append(BackgroundColor(1.0, background, compare))
    terms += [
        Depth(recipe.depth),
        OnSurface(recipe.on_surface),
        Outline(recipe.outline, recipe.rays, recipe.background, compare),
        Mask(recipe.mask, sharpness),
        Hinge(recipe.hinge),
        Freespace(recipe.freespace, space),
        Occupied(recipe.occupancy, space),
        Smooth(recipe.smooth, slopes),
        Eikonal(eikonal, slopes),
        Patches(recipe.patches, recipe.patch_rays),
    ]
    return [term for term in terms if term.weight > 0]


def new_background(recipe: Recipe, pixels: Pixels, bounds: Float[Tensor, "2 3"], seed: int) -> Background | None:
    """Return a background to learn, if colours are learnt and any pixel shows it."""
    learnt = recipe.learn_background and recipe.color > 0
    shown = learnt and bool((pixels.label == BACKGROUND).any())
    return Background.new(seed, bounds.device, bounds) if shown else None


def _constant(progress: float) -> float:
    """Return the sharpness of occupancy logits, which are sharp by themselves."""
    return 1.0

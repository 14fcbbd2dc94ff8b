"""What a fit makes small: the terms of its loss, for a batch of rays and what they see."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.datasets.pixels import BACKGROUND, OBJECT, UNKNOWN, PixelBatch, Pixels
from warpdvr.fields.base import Field
from warpdvr.fields.gradient import evaluations_per_gradient, gradient, unit
from warpdvr.fitting import losses as loss
from warpdvr.fitting.losses import on_surface
from warpdvr.fitting.recipe import WEIGHTS, Recipe
from warpdvr.intersection.base import Solver
from warpdvr.intersection.default import default_intersect
from warpdvr.intersection.hit import Status
from warpdvr.rendering.background import Background
from warpdvr.rendering.surface import Surface
from warpdvr.rendering.visibility import VisibleImage, boundary

NEAR = 0.02
"""Standard deviation of the way from a hit to the point whose normal should be alike [scene unit]."""

GUESSES = 16
"""Places on a ray that are tried, where a point of it is wanted that lies in the hull of the masks."""


class Objective:
    """The terms that a recipe gives a weight, each a mean over the set that `warpdvr.fitting.losses` states for it."""

    def __init__(
        self,
        field: Field,
        recipe: Recipe,
        pixels: Pixels,
        generator: torch.Generator,
        backdrop: Background | None = None,
    ):
        """Keep what is needed; without a `backdrop` there is no term for it.

        Raises:
            ValueError: if eikonal alone has a weight, but the field is no distance: nothing would be learnt.
        """
        self.field, self.recipe, self.pixels, self.generator = field, recipe, pixels, generator
        self.backdrop = backdrop
        self.is_distance = field.kind == "distance"
        if not self.is_distance and not any(getattr(recipe, name) for name in WEIGHTS if name != "eikonal"):
            raise ValueError(
                f"fit: the recipe weighs eikonal alone, which is for distances, but {field.name}.kind is {field.kind!r}"
            )

    def __call__(
        self, drawn: PixelBatch, seen: Surface, progress: float, intersect: Solver | None = None
    ) -> tuple[dict[str, Tensor], int]:
        """Return the terms by name, before their weights, and how often the field was asked, shading included.

        Only terms with a weight are there, and nothing is asked for the others. The total is differentiable with
        respect to the field and, through the rays, to the cameras.

        Args:
            drawn: rays and what the photographs say; in blocks of 2 x 2 pixels if `Recipe.blocks`.
            seen: what they see.
            progress: of the fit, from 0 to 1.
            intersect: how the surface is found, for the term `outline`; by default as in `warpdvr.render`.
        """
        recipe, asked = self.recipe, (1 + evaluations_per_gradient(self.field)) * len(seen.hit.ray)
        terms: dict[str, Tensor] = {}
        for wanted, term in (
            (recipe.color > 0 or recipe.gradient > 0, self._color),
            (self.backdrop is not None, partial(self._behind, self.backdrop)),
            (recipe.depth > 0, self._depth),
            (recipe.known > 0, self._beside),
            (recipe.outline > 0, partial(self._outline, intersect or default_intersect(self.field))),
            (recipe.mask > 0 or recipe.hinge > 0, self._mask),
            (recipe.freespace > 0 or recipe.occupancy > 0, self._occupancy),
            (recipe.smooth > 0 or (recipe.eikonal > 0 and self.is_distance), self._slopes),
        ):
            if wanted:
                some, evaluations = term(drawn, seen, progress)
                terms |= some
                asked += evaluations
        return terms, asked

    def _color(self, drawn: PixelBatch, seen: Surface, progress: float) -> tuple[dict[str, Tensor], int]:
        ray, right, terms = seen.hit.ray, self._right(drawn, seen), {}
        if self.recipe.color > 0:
            terms["color"] = self._photometric(seen.color[right], drawn.color[ray][right])
        if self.recipe.gradient > 0:
            n = 4 * (self.recipe.rays // 4)
            whole = torch.zeros_like(drawn.label, dtype=torch.bool).index_copy(0, ray, right)[:n].view(-1, 4).all(1)
            color = torch.zeros_like(drawn.color).index_copy(0, ray, seen.color.to(drawn.color))
            patches = (a[:n].view(-1, 2, 2, 3)[whole] for a in (color, drawn.color))
            terms["gradient"] = loss.image_gradient(*patches)
        return terms, 0

    def _photometric(self, color: Tensor, target: Tensor) -> Tensor:
        """Differences are squared up to some times their median: small ones keep their say as a fit gets better."""
        if not self.recipe.square or not len(color):
            return loss.photometric(color, target)
        middle = float((color.detach() - target).abs().median())
        return loss.photometric(color, target, self.recipe.square * middle)

    def _behind(
        self, backdrop: Any, drawn: PixelBatch, seen: Surface, progress: float
    ) -> tuple[dict[str, Tensor], int]:
        """Pixels beside the object, whatever the field is like; rays through it that miss it at first say nothing."""
        at = torch.nonzero(drawn.label == BACKGROUND)[:, 0]
        rays = Rays(drawn.rays.origin[at].detach(), drawn.rays.direction[at].detach())
        return {"backdrop": self._photometric(backdrop(rays), drawn.color[at])}, 0

    def _outline(
        self, intersect: Solver, drawn: PixelBatch, seen: Surface, progress: float
    ) -> tuple[dict[str, Tensor], int]:
        """All colours of whole blocks. A pixel has half of its neighbours in its block, hence the factor of 2."""
        n = 4 * (self.recipe.rays // 4)
        hits = int((seen.hit.ray < n).sum())
        ray, color = seen.hit.ray[:hits], seen.color[:hits]
        behind = torch.tensor(self.recipe.background).to(color).expand(n, 3)
        t = seen.t.new_full((n,), torch.nan).index_copy(0, ray, seen.t[:hits]).detach()
        normal = torch.zeros_like(behind).index_copy(0, ray, seen.normal[:hits]).detach()
        image = VisibleImage(drawn.rays[:n], (n // 4, 2, 2), seen.hit.status[:n], t, normal, behind)
        moved, evaluations = boundary(self.field, image, intersect)
        rgb = behind.index_copy(0, ray, color) + 2 * moved
        return {"outline": loss.photometric(rgb, drawn.color[:n].to(rgb))}, evaluations

    def _depth(self, drawn: PixelBatch, seen: Surface, progress: float) -> tuple[dict[str, Tensor], int]:
        ray = seen.hit.ray
        target, label = drawn.depth[ray], drawn.label[ray]
        right = ~target.isnan() & (label == OBJECT)
        unsure = torch.nonzero(~target.isnan() & (label == UNKNOWN))[:, 0]
        if len(unsure):  # no mask says whether the known point is one of the object
            known = drawn.rays[ray[unsure]].at((target / drawn.forward[ray])[unsure]).detach()
            right[unsure] = self.pixels.inside(known, drawn.pose)
        z = seen.t * drawn.forward[ray]
        return {"depth": loss.depth(z[right], target[right].to(z))}, 0

    def _beside(self, drawn: PixelBatch, seen: Surface, progress: float) -> tuple[dict[str, Tensor], int]:
        term, asked = on_surface(self.field, drawn, self.pixels)
        return {"known": term}, asked

    def _mask(self, drawn: PixelBatch, seen: Surface, progress: float) -> tuple[dict[str, Tensor], int]:
        known = self._known(drawn, seen)
        n, known = int(known.sum()), known & self._open(drawn, seen)
        sharpness, growth = self._sharpness(progress)
        x = drawn.rays.at(seen.hit.nearest.nan_to_num())[known].to(self.field.bounds.dtype)
        value, target, terms = self.field.value(x), drawn.label[known] == OBJECT, {}
        if self.recipe.mask > 0:
            terms["mask"] = loss.silhouette(-sharpness * value, target, n) / growth
        if self.recipe.hinge > 0:
            terms["hinge"] = loss.hinge(value, target, n)
        return terms, len(x)

    def _occupancy(self, drawn: PixelBatch, seen: Surface, progress: float) -> tuple[dict[str, Tensor], int]:
        """Free space on rays beside the object, at the hit if there is one; occupancy on its rays that do not hit."""
        x, inside, _ = self._places(drawn, seen)
        wanted = torch.where(inside, self.recipe.occupancy > 0, self.recipe.freespace > 0)
        x, inside = x[wanted], inside[wanted]
        logit = -self._sharpness(progress)[0] * self.field.value(x)
        n = int(self._known(drawn, seen).sum())
        terms = {"freespace": loss.freespace(logit[~inside], n), "occupancy": loss.occupancy(logit[inside], n)}
        return {name: term for name, term in terms.items() if getattr(self.recipe, name) > 0}, len(x)

    def _slopes(self, drawn: PixelBatch, seen: Surface, progress: float) -> tuple[dict[str, Tensor], int]:
        points, pick = self._around(seen.x.detach())
        distances = self.recipe.eikonal > 0 and self.is_distance
        points = points if distances else points[len(points) - len(pick) :]
        _, slope, _ = gradient(self.field, points.requires_grad_())
        terms = {}
        if self.recipe.smooth > 0:
            terms["smooth"] = loss.smoothness(seen.normal[pick], unit(slope[len(slope) - len(pick) :]))
        if distances:
            terms["eikonal"] = loss.eikonal(torch.cat([slope.norm(dim=-1), seen.slope]))
        return terms, evaluations_per_gradient(self.field) * len(points)

    def _right(self, drawn: PixelBatch, seen: Surface) -> Tensor:
        """Return which hits show the object, (k,): the mask says so or, in a view without one, those of the others."""
        label = drawn.label[seen.hit.ray]
        right = label == OBJECT
        unsure = torch.nonzero(label == UNKNOWN)[:, 0]
        if len(unsure):
            right[unsure] = self.pixels.inside(seen.x.detach()[unsure].float(), drawn.pose)
        return right

    def _known(self, drawn: PixelBatch, seen: Surface) -> Tensor:
        """Return which rays meet the bounds and have a mask, (n,)."""
        return (drawn.label != UNKNOWN) & ~seen.hit.nearest.isnan()

    def _open(self, drawn: PixelBatch, seen: Surface) -> Tensor:
        """Return which rays are not settled, (n,): their mask is known, and they do not hit the object where it is."""
        ray = seen.hit.ray
        settled = torch.zeros_like(drawn.label, dtype=torch.bool)
        settled = settled.index_copy(0, ray, drawn.label[ray] == OBJECT)
        return (drawn.label != UNKNOWN) & ~settled

    def _sharpness(self, progress: float) -> tuple[float, float]:
        """Return the factor from values to logits, and by how much it has grown; occupancy logits are what they are."""
        if not self.is_distance:
            return 1.0, 1.0
        sharpness = self.recipe.sharp(progress)
        return sharpness, sharpness / self.recipe.sharpness[0]

    @torch.no_grad()
    def _places(self, drawn: PixelBatch, seen: Surface) -> tuple[Tensor, Tensor, Tensor]:
        """Return a point on each of some open rays, (m, 3), whether it should be inside, (m,), and the rays, (m,).

        For a ray beside the object that is its hit, or a random place between the ends of the bounds; for a ray of the
        object its known depth, or one of `GUESSES` places that lies in the hull of the masks: if none does, nothing is
        asked (Niemeyer et al. 2020, section 3.4 and supplement). A ray whose first sample is inside already should find
        its beginning free, whatever it is a ray of.
        """
        near, far = drawn.rays.clip(self.field.bounds)
        some = torch.nonzero(self._open(drawn, seen) & (near <= far))[:, 0]
        rays, near, far = drawn.rays[some], near[some], far[some]
        begins = seen.hit.status[some] == int(Status.INSIDE)
        inside = (drawn.label[some] == OBJECT) & ~begins
        part = torch.rand(len(some), GUESSES, generator=self.generator).to(near)
        t = near[:, None] + (far - near)[:, None] * part
        x = rays.origin[:, None] + t[..., None] * rays.direction[:, None]
        wanted = torch.zeros_like(t, dtype=torch.bool)
        wanted[inside] = self._in_hull(x[inside].view(-1, 3), drawn.pose).view(-1, GUESSES)
        t = t.gather(1, wanted.to(torch.int8).argmax(1, keepdim=True))[:, 0]
        depth = (drawn.depth / drawn.forward)[some]
        known = inside & (near <= depth) & (depth <= far)
        hit = torch.full_like(drawn.forward, torch.nan).index_copy(0, seen.hit.ray, seen.hit.t)[some]
        for where, place in ((known, depth), (~inside & ~hit.isnan(), hit), (begins, near)):
            t = torch.where(where, place, t)
        asked = ~inside | known | wanted.any(1)
        x = (rays.origin + t[:, None] * rays.direction).to(self.field.bounds.dtype)
        return x[asked], inside[asked], some[asked]

    def _in_hull(self, x: Tensor, pose: Tensor) -> Tensor:
        """Return whether no view sees background at points (n, 3), and at least half of them look there, (n,)."""
        against, within = self.pixels.votes(x, pose)
        return (against == 0) & (2 * within >= len(pose))

    def _around(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return random points of the bounds and then, if there are hits `x`, near to hits, and near to which.

        There are an eighth as many of both as there are rays.
        """
        n, generator = self.recipe.rays // 8, self.generator
        low, high = self.field.bounds
        points = low + (high - low) * torch.rand(n, 3, generator=generator).to(low)
        pick = torch.randint(max(len(x), 1), (n if len(x) else 0,), generator=generator).to(x.device)
        aside = NEAR * torch.randn(len(pick), 3, generator=generator).to(x)
        return torch.cat([points, x[pick] + aside]), pick

"""Where the terms of a fit ask the field, apart from hits: nearest points of rays, free space, points near hits.

Each sampler is called with a `TermContext` and returns its sample with the number of field evaluations. Terms share
samples through `TermContext.sample`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from warpdvr.datasets.pixels import OBJECT
from warpdvr.fields.gradient import evaluations_per_gradient, gradient, unit
from warpdvr.fitting.terms import TermContext
from warpdvr.intersection.hit import Status

NEAR = 0.02
"""Standard deviation of the offset from a hit to the point whose normal should be alike [scene unit]."""

GUESSES = 16
"""Places on a ray that are tried, where a point of it is wanted that lies in the hull of the masks."""


@dataclass(frozen=True)
class NearestValues:
    """Values at the nearest points of rays whose mask does not agree with what they hit."""

    value: Tensor
    """Smallest value on the ray, (k,); differentiable."""
    target: Tensor
    """Whether the mask has the object, (k,)."""
    n: int
    """Rays that meet the bounds and have a mask."""


def nearest_values(context: TermContext) -> tuple[NearestValues, int]:
    """Ask at the nearest point of each ray with a mask that does not hit the object where the mask has it."""
    masked = context.masked()
    chosen = masked & context.unsettled()
    x = context.batch.rays.at(context.surface.hit.nearest.nan_to_num())[chosen].to(context.field.bounds.dtype)
    target = context.batch.label[chosen] == OBJECT
    return NearestValues(context.field.value(x), target, int(masked.sum())), len(x)


@dataclass(frozen=True)
class SpaceLogits:
    """Logits of occupancy at points of rays that should be free, and of rays that should be occupied."""

    free: Tensor
    """(f,); differentiable."""
    occupied: Tensor
    """(o,); differentiable."""
    n: int
    """Rays that meet the bounds and have a mask."""


@dataclass(frozen=True)
class SpaceSampler:
    """Ask at a point of each ray beside the object, or of the object, that does not hit it."""

    free: bool
    """Whether rays beside the object are wanted."""
    occupied: bool
    """Whether rays of the object are wanted."""
    sharpness: Callable[[float], float]
    """The factor from minus a value to a logit, for a progress."""

    def __call__(self, context: TermContext) -> tuple[SpaceLogits, int]:
        x, inside, _ = self.places(context)
        wanted = torch.where(inside, self.occupied, self.free)
        x, inside = x[wanted], inside[wanted]
        logit = -self.sharpness(context.progress) * context.field.value(x)
        return SpaceLogits(logit[~inside], logit[inside], int(context.masked().sum())), len(x)

    @torch.no_grad()
    def places(self, context: TermContext) -> tuple[Tensor, Tensor, Tensor]:
        """Return a point on each of m unsettled rays, (m, 3), whether it should be inside, (m,), and the rays, (m,).

        For a ray beside the object that is its hit, or a random place between the ends of the bounds; for a ray of the
        object its known depth, or one of `GUESSES` places that lies in the hull of the masks: if none does, nothing is
        asked (Niemeyer et al. 2020, section 3.4 and supplement). A ray whose first sample is inside already should find
        its beginning free, whatever it is a ray of.
        """
        batch, hit = context.batch, context.surface.hit
        near, far = batch.rays.clip(context.field.bounds)
        ray = torch.nonzero(context.unsettled() & (near <= far))[:, 0]
        rays, near, far = batch.rays[ray], near[ray], far[ray]
        begins = hit.status[ray] == int(Status.INSIDE)
        inside = (batch.label[ray] == OBJECT) & ~begins
        part = torch.rand(len(ray), GUESSES, generator=context.generator).to(near)
        t = near[:, None] + (far - near)[:, None] * part
        x = rays.origin[:, None] + t[..., None] * rays.direction[:, None]
        in_hull = torch.zeros_like(t, dtype=torch.bool)
        in_hull[inside] = _in_hull(context, x[inside].view(-1, 3)).view(-1, GUESSES)
        t = t.gather(1, in_hull.to(torch.int8).argmax(1, keepdim=True))[:, 0]
        depth = (batch.depth / batch.forward)[ray]
        deep = inside & (near <= depth) & (depth <= far)
        at_hit = torch.full_like(batch.forward, torch.nan).index_copy(0, hit.ray, hit.t)[ray]
        for where, place in ((deep, depth), (~inside & ~at_hit.isnan(), at_hit), (begins, near)):
            t = torch.where(where, place, t)
        chosen = ~inside | deep | in_hull.any(1)
        x = (rays.origin + t[:, None] * rays.direction).to(context.field.bounds.dtype)
        return x[chosen], inside[chosen], ray[chosen]


def _in_hull(context: TermContext, x: Tensor) -> Tensor:
    """Return whether no view sees background at points (n, 3), and at least half of them look there, (n,)."""
    against, within = context.pixels.votes(x, context.batch.pose)
    return (against == 0) & (2 * within >= len(context.batch.pose))


@dataclass(frozen=True)
class Slopes:
    """Gradients of the field at points near hits and, if wanted, at points anywhere in the bounds."""

    length: Tensor
    """|grad value| at all points, (n,); differentiable."""
    neighbour: Tensor
    """Unit normals near hits, (m, 3); differentiable."""
    pick: Tensor
    """The hit that each of these is near to, (m,)."""


@dataclass(frozen=True)
class SlopeSampler:
    """Ask for slopes at `n` points near hits and, with `everywhere`, at n points of the bounds."""

    n: int
    everywhere: bool

    def __call__(self, context: TermContext) -> tuple[Slopes, int]:
        points, pick = self.points(context)
        points = points if self.everywhere else points[len(points) - len(pick) :]
        _, slope, _ = gradient(context.field, points.requires_grad_())
        neighbour = unit(slope[len(slope) - len(pick) :])
        return Slopes(slope.norm(dim=-1), neighbour, pick), evaluations_per_gradient(context.field) * len(points)

    def points(self, context: TermContext) -> tuple[Tensor, Tensor]:
        """Return n random points of the bounds followed, if there are hits, by n near to hits, and near to which."""
        x, generator = context.surface.x.detach(), context.generator
        low, high = context.field.bounds
        points = low + (high - low) * torch.rand(self.n, 3, generator=generator).to(low)
        pick = torch.randint(max(len(x), 1), (self.n if len(x) else 0,), generator=generator).to(x.device)
        offset = NEAR * torch.randn(len(pick), 3, generator=generator).to(x)
        return torch.cat([points, x[pick] + offset]), pick

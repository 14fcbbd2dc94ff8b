"""Samples of the field that the terms of a fit need besides hits: nearest points of rays, free space, points near hits.

Each sampler is called with a `TermContext` and returns its sample and the number of field evaluations. Terms share
samples through `TermContext.sample`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from warpdvr.datasets.pixels import OBJECT
from warpdvr.fields.bounds import longest_side
from warpdvr.fields.gradient import evaluations_per_gradient, gradient, unit
from warpdvr.fitting.terms import TermContext
from warpdvr.intersection.hit import Status
from warpdvr.runtime.autograd import once_differentiable

ONCE = "nearest_values: second derivatives of the smallest values on rays are not provided"

NEAR = 0.01
"""Standard deviation of the offset from a hit to the point whose normal should be similar [longest side of the
bounds]."""

GUESSES = 16
"""Random points on a ray among which one in the hull of the masks is looked for."""


@dataclass(frozen=True)
class NearestValues:
    """Values at the nearest points of the rays that do not hit the object where the mask has it."""

    value: Float[Tensor, " k"]
    """Smallest value on the ray; differentiable."""
    target: Bool[Tensor, " k"]
    """Whether the mask has the object."""
    entered: Bool[Tensor, " k"]
    """Whether the ray hits, so that the value is 0 and the smallest one lies deeper."""
    n: int
    """Number of rays that meet the bounds and have a mask."""


def nearest_values(context: TermContext) -> tuple[NearestValues, int]:
    """Evaluate the nearest point of each ray with a mask that does not hit the object where the mask has it."""
    masked = context.masked()
    unsettled = masked & context.unsettled()
    x = context.batch.rays.at(context.surface.hit.nearest.nan_to_num())[unsettled].to(context.field.bounds.dtype)
    target = context.batch.label[unsettled] == OBJECT
    value = once_differentiable(context.field.value(x), ONCE)
    entered = context.surface.hit.status[unsettled] == int(Status.HIT)
    return NearestValues(value, target, entered, int(masked.sum())), len(x)


@dataclass(frozen=True)
class SpaceLogits:
    """Logits of occupancy at points that should be free, and at points that should be occupied; differentiable."""

    free: Float[Tensor, " f"]
    """At points of rays beside the object."""
    occupied: Float[Tensor, " o"]
    """At points of rays of the object."""
    n: int
    """Number of rays that meet the bounds and have a mask."""


@dataclass(frozen=True)
class SpaceSampler:
    """Evaluates a point of each ray that does not hit the object where the mask has it."""

    free: bool
    """Whether rays beside the object are evaluated."""
    occupied: bool
    """Whether rays of the object are evaluated."""
    sharpness: Callable[[float], float]
    """The factor from minus a value to a logit, as a function of `TermContext.sharpening`."""

    def __call__(self, context: TermContext) -> tuple[SpaceLogits, int]:
        x, inside, _ = self.places(context)
        evaluated = torch.where(inside, self.occupied, self.free)
        x, inside = x[evaluated], inside[evaluated]
        logit = -self.sharpness(context.sharpening) * context.field.value(x)
        return SpaceLogits(logit[~inside], logit[inside], int(context.masked().sum())), len(x)

    @torch.no_grad()
    def places(self, context: TermContext) -> tuple[Float[Tensor, "m 3"], Bool[Tensor, " m"], Int[Tensor, " m"]]:
        """Return a point on each of m unsettled rays, whether it should be inside, and the rays.

        For a ray beside the object that is its hit, or a random place inside of the bounds; for a ray of the object its
        known depth, or one of `GUESSES` places that lies in the hull of the masks: if none does, the ray is left out
        (Niemeyer et al. 2020, section 3.4 and supplement). If the first sample of a ray is inside already, its start
        should be free, whatever the mask says.
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
        at_hit = torch.full_like(batch.forward, torch.nan).index_copy(0, hit.ray, hit.t.to(batch.forward))[ray]
        for condition, place in ((deep, depth), (~inside & ~at_hit.isnan(), at_hit), (begins, near)):
            t = torch.where(condition, place, t)
        evaluated = ~inside | deep | in_hull.any(1)
        x = (rays.origin + t[:, None] * rays.direction).to(context.field.bounds.dtype)
        return x[evaluated], inside[evaluated], ray[evaluated]


def _in_hull(context: TermContext, x: Float[Tensor, "n 3"]) -> Bool[Tensor, " n"]:
    """Return whether no view sees background at a point, and at least half of them have it in their image."""
    background_views, views = context.pixels.votes(x, context.batch.pose)
    return (background_views == 0) & (2 * views >= len(context.batch.pose))


@dataclass(frozen=True)
class Slopes:
    """Gradients of the field at points near hits and, if asked for, at random points of the bounds; differentiable."""

    length: Float[Tensor, " n"]
    """|grad value| at all points."""
    neighbour: Float[Tensor, "m 3"]
    """Unit normals near hits."""
    pick: Int[Tensor, " m"]
    """The hit that each of these normals is near to."""


@dataclass(frozen=True)
class SlopeSampler:
    """Takes gradients at `n` points near hits and, with `everywhere`, at n random points of the bounds."""

    n: int
    everywhere: bool

    def __call__(self, context: TermContext) -> tuple[Slopes, int]:
        points, pick = self.points(context)
        points = points if self.everywhere else points[len(points) - len(pick) :]
        _, slope, _ = gradient(context.field, points.requires_grad_())
        neighbour = unit(slope[len(slope) - len(pick) :])
        return Slopes(slope.norm(dim=-1), neighbour, pick), evaluations_per_gradient(context.field) * len(points)

    def points(self, context: TermContext) -> tuple[Float[Tensor, "p 3"], Int[Tensor, " m"]]:
        """Return n random points of the bounds, followed by n points near hits if there are any, and those hits."""
        x, generator = context.surface.x.detach(), context.generator
        low, high = context.field.bounds
        points = low + (high - low) * torch.rand(self.n, 3, generator=generator).to(low)
        pick = torch.randint(max(len(x), 1), (self.n if len(x) else 0,), generator=generator).to(x.device)
        offset = NEAR * longest_side(context.field.bounds) * torch.randn(len(pick), 3, generator=generator).to(x)
        return torch.cat([points, x[pick] + offset]), pick

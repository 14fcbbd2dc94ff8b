"""Colours of a surface that stays: its points are found once, and seen in many steps."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.datasets.pixels import PixelBatch, Pixels
from warpdvr.fields.base import Field
from warpdvr.fitting.recipe_terms import Photometric
from warpdvr.fitting.terms import object_hits
from warpdvr.intersection.base import Solver
from warpdvr.rendering.surface import trace
from warpdvr.shading.shade import SurfacePoints, shade

RAYS = 1 << 17
"""Rays whose points are kept at a time."""

CHUNK = 1 << 14
"""Rays that are traced at once."""

BATCH = 1 << 13
"""Points in a step."""

STEPS = 128
"""Steps for which points are kept: each is seen 8 times if all rays hit."""


COUNTED = "surface_colors"
"""Its name in the state of a fit."""


class SurfaceColors:
    """Points of a surface and the colours that photographs show there, for steps that change the colours alone.

    While a surface stays, neither its hits nor their slopes change, and what a step costs is the colours of its points:
    a tenth of a step that moves the surface, per point. Points are drawn anew every `STEPS` steps, and depend on the
    seed and the number of the step alone, so that a fit that is resumed keeps the same ones.
    """

    def __init__(self, field: Field, pixels: Pixels, compare: Photometric, seed: int):
        self.field, self.pixels, self.compare, self.seed = field, pixels, compare, seed
        self.turn, self.counted = -1, -1
        """Which points are kept, and the last ones whose evaluations were counted."""
        self.points: tuple[Tensor, ...] = ()

    def __call__(
        self, step: int, solver: Solver, draw: Callable[[int, torch.Generator], PixelBatch], generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], int]:
        """Return how much the colours of some points differ from photographs, and the field evaluations.

        Args:
            step: the number of the step.
            solver: finds the surface.
            draw: draws a number of rays.
            generator: picks some of the points that are kept.
        """
        evaluations = 0
        if step // STEPS != self.turn:
            self.turn = step // STEPS
            found = self._find(solver, draw)
            evaluations = found if self.turn > self.counted else 0  # a fit that is resumed finds some of them again
            self.counted = max(self.turn, self.counted)
        n = len(self.points[0])
        pick = torch.randint(max(n, 1), (min(n, BATCH),), generator=generator).to(self.points[0].device)
        x, normal, direction, target, view, *feature = (points[pick] for points in self.points)
        color = shade(SurfacePoints(self.field, x, normal, direction, feature[0] if feature else None))
        return self.compare(color, target, view), evaluations + len(pick)

    def state(self) -> dict[str, Tensor]:
        """Return what `resume` needs."""
        return {COUNTED: torch.tensor([self.counted])} if self.counted >= 0 else {}

    def resume(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state`."""
        if COUNTED in state:
            self.counted = int(state[COUNTED])

    @torch.no_grad()
    def _find(self, solver: Solver, draw: Callable[[int, torch.Generator], PixelBatch]) -> int:
        generator = torch.Generator().manual_seed(self.seed + 1 + self.turn)
        parts, evaluations = [], 0
        for _ in range(RAYS // CHUNK):
            batch = draw(CHUNK, generator)
            traced = trace(self.field, batch.rays, solver)
            at, ray = traced.points, traced.hit.ray
            feature = [] if at.feature is None else [at.feature]
            right = object_hits(self.pixels, batch, ray, at.x)
            shown = batch.color[ray], batch.view[ray]
            parts.append([a[right] for a in (at.x, at.normal, at.direction, *shown, *feature)])
            evaluations += traced.evaluations
        self.points = tuple(torch.cat(part) for part in zip(*parts, strict=True))
        return evaluations

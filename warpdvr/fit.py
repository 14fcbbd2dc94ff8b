"""Fit a field to photographs: draw rays, see what they hit, compare, step."""

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from warpdvr import loss
from warpdvr.intersect import DenseMarch, Intersect, SphereTrace, Status
from warpdvr.pixels import OBJECT, UNKNOWN, Batch, Pixels
from warpdvr.render import Surface, surface
from warpdvr.shade import gradient
from warpdvr.threads import one_thread
from warpdvr.views import Views

PATIENCE = 50
"""Steps in a row without a hit after which a fit gives up."""

MEASURE = 100
"""Steps between two measurements of the field's Lipschitz bound, for fields that can measure it."""

EARLY = (5, 10, 20, 35, 50, 75)
"""Steps at which it is measured besides: at first the field changes fast."""


@dataclass(frozen=True)
class Recipe:
    """How a field is fitted. What changes over time follows the fit's progress from 0 to 1."""

    rays: int = 1024
    """Rays in a step."""
    rate: float = 2e-3
    """Highest learning rate of Adam; it rises over the first 2 % and falls to a twentieth by half a cosine."""
    color: float = 1.0
    """Weight of the photometric loss."""
    mask: float = 1.0
    """Weight of the silhouette loss, which is divided by the growth of its sharpness."""
    eikonal: float = 0.1
    """Weight of the eikonal loss; for fields with a Lipschitz bound, which are meant to be distances."""
    sharpness: tuple[float, float] = (30.0, 300.0)
    """Of the soft mask, first and last [1 / scene unit]; occupancy logits are sharp by themselves and take 1."""

    def __post_init__(self) -> None:
        if self.rays < 1 or not all(0 < a < math.inf for a in (self.rate, *self.sharpness)):
            raise ValueError(f"fit: rays, rate and sharpness must be positive, got {self}")
        if min(self.color, self.mask, self.eikonal) < 0:
            raise ValueError(f"fit: no weight may be negative, got {self}")


@dataclass(frozen=True)
class Step:
    """One step of a fit, as it is reported."""

    iteration: int
    """Counted from 1."""
    progress: float
    """From 0 to 1: of the iterations or the minutes, whichever was given."""
    seconds: float
    """Time spent fitting, earlier sessions included, without the time that reports take."""
    losses: dict[str, float]
    """`color`, `mask` and `eikonal` before their weights, and the weighted sum as `total`."""
    evaluations: int
    """Field evaluations so far, counted in points."""


class Fit:
    """A field on its way from a sphere to the surface in the photographs.

    `for step in Fit(field, views, minutes=5): ...` runs it. Between two steps its state can be saved and the field be
    rendered; the time that takes is not counted. Deterministic for a seed and a number of iterations, on one device.
    """

    def __init__(
        self,
        field: Any,
        views: Views,
        *,
        minutes: float | None = None,
        iterations: int | None = None,
        recipe: Recipe | None = None,
        seed: int = 0,
        intersect: Intersect | None = None,
    ):
        """Prepare a fit; the field is changed in place.

        Args:
            field: any module that meets the contract of `warpdvr.Field`.
            views: photographs with masks; only the training views are used.
            minutes, iterations: how long; exactly one of them.
            recipe: weights and schedules.
            seed: of the rays that are drawn.
            intersect: how the surface is found; by default a quick `SphereTrace` or `DenseMarch`.

        Raises:
            ValueError: if not exactly one positive duration is given, or no training view has a mask.
        """
        if (minutes is None) == (iterations is None):
            raise ValueError(f"fit: give minutes or iterations, one of them; got {minutes} and {iterations}")
        if not 0 < (minutes or iterations or 0) < math.inf:
            name, given = ("minutes", minutes) if iterations is None else ("iterations", iterations)
            raise ValueError(f"fit: {name} must be positive, got {given}")
        self.field, self.recipe = field, recipe or Recipe()
        self.minutes, self.iterations = minutes, iterations
        self.pixels = Pixels(views, field.bounds.device)
        self.generator = torch.Generator().manual_seed(seed)
        self.optimizer = torch.optim.AdamW(field.parameters(), lr=self.recipe.rate, weight_decay=0.0)
        self.is_distance = getattr(field, "lipschitz", None) is not None
        self.intersect = intersect or _quick(self.is_distance)
        self.iteration, self.evaluations, self.seconds = 0, 0, 0.0
        self.without_hit = 0

    def __iter__(self) -> "Fit":
        return self

    def __next__(self) -> Step:
        """Take one step.

        Raises:
            StopIteration: at the end.
            RuntimeError: if the level set has vanished or fills the view, so that there is nothing to learn from, or
                the loss is not a number. The field then still has its last weights.
        """
        progress = self.progress
        if progress >= 1:
            self._measure()
            raise StopIteration
        start = time.perf_counter()
        with one_thread():
            losses = self._step(progress)
        self.iteration += 1
        self.seconds += time.perf_counter() - start
        return Step(self.iteration, self.progress, self.seconds, losses, self.evaluations)

    @property
    def progress(self) -> float:
        """How much of the fit is done, from 0 to 1."""
        if self.iterations is not None:
            return min(self.iteration / self.iterations, 1.0)
        return min(self.seconds / (60 * (self.minutes or 1)), 1.0)

    def state(self) -> dict[str, Tensor]:
        """Return all that a later session needs beside the field's weights, as tensors."""
        moments = {
            f"{i}.{name}": torch.as_tensor(value).clone()
            for i, state in self.optimizer.state_dict()["state"].items()
            for name, value in state.items()
        }
        counts = torch.tensor([self.iteration, self.evaluations, self.seconds], dtype=torch.float64)
        return {**moments, "counts": counts, "generator": self.generator.get_state()}

    def resume(self, state: dict[str, Tensor]) -> None:
        """Go on from a `state`; the field must have the weights that belong to it.

        Raises:
            ValueError: if the state is of another field, or none.
        """
        if not {"counts", "generator"} <= set(state):
            raise ValueError("fit: expected what `Fit.state` returns, got something else: nothing to go on from")
        self.iteration, self.evaluations = int(state["counts"][0]), int(state["counts"][1])
        self.seconds = float(state["counts"][2])
        self.generator.set_state(state["generator"].cpu())
        packed = self.optimizer.state_dict()
        for key, value in state.items():
            index, _, name = key.partition(".")
            if name:
                packed["state"].setdefault(int(index), {})[name] = value.clone()
        parameters = list(self.field.parameters())
        for index, moments in packed["state"].items():
            if index >= len(parameters) or moments["exp_avg"].shape != parameters[index].shape:
                raise ValueError("fit: the saved state belongs to a field with other parameters")
        self.optimizer.load_state_dict(packed)

    def _step(self, progress: float) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate * schedule(progress)
        if self.iteration % MEASURE == 0 or self.iteration in EARLY:
            self._measure()
        batch = self.pixels.draw(self.recipe.rays, self.generator)
        seen = surface(self.field, batch.rays, self.intersect)
        self._check(seen)
        losses = self._losses(batch, seen, progress)
        total = sum(getattr(self.recipe, name) * term for name, term in losses.items())
        self._descend(total)
        return {name: float(term.detach()) for name, term in {**losses, "total": total}.items()}

    def _losses(self, batch: Batch, seen: Surface, progress: float) -> dict[str, Tensor]:
        ray = seen.hit.ray
        right = batch.label[ray] == OBJECT
        decided = torch.zeros_like(batch.label, dtype=torch.bool).index_copy(0, ray, right)
        known = (batch.label != UNKNOWN) & ~seen.hit.nearest.isnan()
        open_ = known & ~decided
        first, last = self.recipe.sharpness if self.is_distance else (1.0, 1.0)
        sharpness = first * (last / first) ** progress
        x = batch.rays.at(seen.hit.nearest.nan_to_num())[open_].to(self.field.bounds.dtype)
        soft = -sharpness * self.field.value(x)
        losses = {
            "color": loss.photometric(seen.color[right], batch.color[ray][right]),
            "mask": loss.silhouette(soft, batch.label[open_] == OBJECT, int(known.sum())) * first / sharpness,
        }
        self.evaluations += seen.hit.evaluations + 2 * len(ray) + len(x)
        if self.is_distance and self.recipe.eikonal:
            losses["eikonal"] = loss.eikonal(torch.cat([self._slope(seen.x.detach()), seen.slope]))
        return losses

    def _slope(self, x: Tensor) -> Tensor:
        """Return |grad value| at random points: a quarter as many as rays, half of them within about 0.05 of hits."""
        low, high = self.field.bounds
        n = self.recipe.rays // 8
        points = low + (high - low) * torch.rand(n, 3, generator=self.generator).to(low)
        if len(x):
            pick = torch.randint(len(x), (n,), generator=self.generator).to(x.device)
            points = torch.cat([points, x[pick] + 0.05 * torch.randn(n, 3, generator=self.generator).to(x)])
        self.evaluations += len(points)
        _, slope, _ = gradient(self.field, points.requires_grad_())
        lengths: Tensor = torch.linalg.vector_norm(slope, dim=-1)
        return lengths

    def _measure(self) -> None:
        if hasattr(self.field, "bound_slope"):
            self.evaluations += self.field.bound_slope()

    def _descend(self, total: Any) -> None:
        if not bool(torch.isfinite(total)):
            raise RuntimeError(
                f"fit: the loss is {float(total.detach())} at step {self.iteration + 1}; try a smaller rate"
            )
        self.optimizer.zero_grad()
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.field.parameters(), 1.0)
        if not bool(torch.isfinite(norm)):
            raise RuntimeError(f"fit: the gradient is not finite at step {self.iteration + 1}; try a smaller rate")
        self.optimizer.step()

    def _check(self, seen: Surface) -> None:
        self.without_hit = 0 if len(seen.hit.ray) else self.without_hit + 1
        if self.without_hit < PATIENCE:
            return
        inside = float((seen.hit.status == int(Status.INSIDE)).float().mean())
        what = "fills the cameras' surroundings" if inside > 0.5 else "is empty"
        raise RuntimeError(
            f"fit: the level set {what}, no ray has hit it for {PATIENCE} steps (step {self.iteration + 1}); "
            "check that masks are white on the object and that cameras and images belong together"
        )


def schedule(progress: float) -> float:
    """Return the learning rate's factor: rises over the first 2 %, then falls to a twentieth by half a cosine."""
    return min(1.0, 0.05 + progress / 0.02) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))


def _quick(is_distance: bool) -> Intersect:
    """What finds the surface during a fit: a hit a little beside the surface teaches the same."""
    if is_distance:
        return SphereTrace(thinnest=1e-2, tolerance=1e-4, max_steps=32)
    return DenseMarch(n=64, splits=0, tolerance=1e-4)

"""Fit a field to photographs: draw rays, see what they hit, compare, step."""

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.pose import Poses
from warpdvr.datasets.pixels import BACKGROUND, Pixels
from warpdvr.datasets.views import Views
from warpdvr.fields.adapter import as_field
from warpdvr.fields.base import FieldLike
from warpdvr.fitting.objective import Objective
from warpdvr.fitting.optimizer import pack, unpack
from warpdvr.fitting.recipe import Recipe, schedule
from warpdvr.intersection.base import Solver
from warpdvr.intersection.cached import CachedMarch
from warpdvr.intersection.dense import DenseMarch
from warpdvr.intersection.hit import Hit, Status
from warpdvr.rendering.background import RATE, Background
from warpdvr.rendering.surface import surface
from warpdvr.runtime.threads import one_thread

PATIENCE = 50
"""Steps in a row without a hit after which a fit gives up."""

MEASURE = 100
"""Steps between two measurements of the field's Lipschitz bound, for fields that can measure it."""

REFRESH = 16
"""Steps after which an intersector that remembers the field looks at it again."""

EARLY = (5, 10, 20, 35, 50, 75)
"""Steps at which both is done besides: at first the field changes fast."""


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
    """The terms of the recipe by name before their weights, `prior` as the field weighs it, and the
    weighted sum as `total`."""
    evaluations: int
    """Field evaluations so far, counted in points."""


class Fit:
    """A field on its way from a sphere to the surface in the photographs.

    `for step in Fit(field, views, minutes=5): ...` runs it. Between two steps its state can be saved and the field be
    rendered; the time that takes is not counted. Deterministic for a seed and a number of iterations, on one device.
    """

    def __init__(
        self,
        field: FieldLike,
        views: Views,
        *,
        minutes: float | None = None,
        iterations: int | None = None,
        recipe: Recipe | None = None,
        seed: int = 0,
        intersect: Solver | None = None,
    ):
        """Prepare a fit; the field is changed in place.

        Args:
            field: a `Field`, or what `as_field` makes one of; parameters that want no gradient are kept.
            views: photographs with masks; only the training views are used.
            minutes, iterations: how long; exactly one of them.
            recipe: weights and schedules.
            seed: of the rays that are drawn.
            intersect: how the surface is found; by default a `CachedMarch`, or what the recipe's `samples` say. That,
                or the `grid` of another one, is refreshed as the field changes.

        Raises:
            ValueError: if not exactly one positive duration is given, no training view has a mask or depth, depth is
                to be learnt from and none is known, or there is nothing to change.
        """
        field = as_field(field)
        if (minutes is None) == (iterations is None):
            raise ValueError(f"fit: give minutes or iterations, one of them; got {minutes} and {iterations}")
        if not 0 < (minutes or iterations or 0) < math.inf:
            name, given = ("minutes", minutes) if iterations is None else ("iterations", iterations)
            raise ValueError(f"fit: {name} must be positive, got {given}")
        self.field, self.recipe = field, recipe or Recipe()
        self.minutes, self.iterations = minutes, iterations
        self.pixels = Pixels(views, field.bounds.device)
        if not self.pixels.deep and (self.recipe.depth or self.recipe.known):
            raise ValueError("fit: the recipe weighs depth, but none of the training views has any")
        self.generator = torch.Generator().manual_seed(seed)
        self.parameters = [p for p in field.parameters() if p.requires_grad]
        groups = self.recipe.groups(field, field.rates)
        self.views = views
        self.poses = Poses(self.pixels.pose) if self.recipe.cameras else None
        if self.poses:
            self.parameters += self.poses.parameters()
            groups.append({"params": list(self.poses.parameters()), "rate": self.recipe.cameras})
        if not self.parameters:
            raise ValueError(f"fit: no parameter of {field.name} wants a gradient, and cameras are kept")
        beside = self.recipe.backdrop and self.recipe.color > 0 and bool((self.pixels.label == BACKGROUND).any())
        self.backdrop = Background.new(seed, field.bounds.device) if beside else None
        if self.backdrop:
            groups.append({"params": list(self.backdrop.parameters()), "rate": RATE})
        self.optimizer = torch.optim.Adam(groups, lr=0.0, betas=(0.9, 0.99), eps=1e-15, fused=True)
        self.objective = Objective(field, self.recipe, self.pixels, self.generator, self.backdrop)
        self.intersect = intersect or (
            DenseMarch(n, splits=0) if (n := self.recipe.march(0.0)) else CachedMarch(field, cells=self.recipe.cells)
        )
        self.scheduled = intersect is None and bool(self.recipe.samples)
        self.iteration, self.evaluations, self.seconds = 0, field.probed, 0.0
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
            self.evaluations += self.field.bound_slope()
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

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """The cameras of all views, those of the training views as they are refined [scene unit]."""
        found = list(self.views.cameras)
        if self.poses:
            for view, pose in zip(self.views.train, self.poses().detach().cpu().double(), strict=True):
                found[view] = replace(found[view], pose=pose)
        return tuple(found)

    def state(self) -> dict[str, Tensor]:
        """Return all that a later session needs beside the field's weights, as tensors."""
        counts = torch.tensor([self.iteration, self.evaluations, self.seconds], dtype=torch.float64)
        state = {**pack(self.optimizer), "counts": counts, "generator": self.generator.get_state()}
        if isinstance(self.intersect, CachedMarch):
            state["remembered"] = self.intersect.state()
        if self.poses:
            state["cameras"] = self.poses.moved.detach().clone()
        if self.backdrop:
            state |= self.backdrop.state()
        return state

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
        if isinstance(self.intersect, CachedMarch) and "remembered" in state:
            self.intersect.resume(state["remembered"])
        if self.poses:
            if "cameras" not in state:
                raise ValueError(
                    "fit: cameras are to be refined, but the saved state is of a fit that took them as given"
                )
            self.poses.resume(state["cameras"])
        saved = Background.saved(state)
        if saved and not self.backdrop:
            raise ValueError("fit: the saved state is of a fit that learnt a backdrop, but now there is to be none")
        if saved and self.backdrop:
            self.backdrop.load_state_dict(saved.state_dict())
        unpack(self.optimizer, state)

    def _step(self, progress: float) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * schedule(progress)
        self.field.anneal(progress)
        self._look(self.iteration)
        pose = self.poses() if self.poses else None
        drawn = self.pixels.draw(self.recipe.rays, self.generator, patches=self.recipe.blocks, pose=pose)
        solver = self._solver(progress)
        seen = surface(self.field, drawn.rays, solver)
        self._check(seen.hit)
        losses, asked = self.objective(drawn, seen, progress, solver)
        if (prior := self.field.prior()) is not None:
            losses["prior"] = prior
        self.evaluations += seen.hit.evaluations + asked
        known = {name: float(term.detach()) for name, term in losses.items()}
        if wrong := [name for name, value in known.items() if not math.isfinite(value)]:
            raise RuntimeError(
                f"fit: the loss {' and '.join(wrong)} is {known[wrong[0]]} at step {self.iteration + 1}; the "
                "weights of the step before are kept, try a smaller rate"
            )
        total: Any = sum(getattr(self.recipe, name, 1.0) * term for name, term in losses.items())
        self._descend(total)
        return known | {"total": float(total.detach())}

    def _solver(self, progress: float) -> Solver:
        n = self.recipe.march(progress) if self.scheduled else None
        return self.intersect if n is None else DenseMarch(n, splits=0)

    def _look(self, iteration: int) -> None:
        """Bring what is remembered of the field up to date."""
        early = iteration in EARLY
        if early or iteration % MEASURE == 0:
            self.evaluations += self.field.bound_slope()
        if (early or iteration % REFRESH == 0) and isinstance(self.intersect, CachedMarch):
            self.evaluations += self.intersect.refresh(self.field, full=iteration <= EARLY[-1])
        if (grid := getattr(self.intersect, "grid", None)) is not None:
            self.evaluations += grid.refresh(self.field)

    def _descend(self, total: Any) -> None:
        self.optimizer.zero_grad()
        behind = self.backdrop.parameters() if self.backdrop else ()
        total.backward(inputs=[*self.parameters, *behind])  # no gradient by the points, which nobody asks for
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        if not bool(torch.isfinite(norm)):
            raise RuntimeError(
                f"fit: the gradient is not finite at step {self.iteration + 1}; the weights of the step before are "
                "kept, try a smaller rate"
            )
        self.optimizer.step()

    def _check(self, hit: Hit) -> None:
        self.without_hit = 0 if len(hit.ray) else self.without_hit + 1
        if self.without_hit < PATIENCE or self.recipe.known:  # which brings a surface to where none is
            return
        inside = float((hit.status == int(Status.INSIDE)).float().mean())
        what = "fills the cameras' surroundings" if inside > 0.5 else "is empty"
        raise RuntimeError(
            f"fit: the level set {what}, no ray has hit it for {PATIENCE} steps (step {self.iteration + 1}); "
            "check that masks are white on the object and that cameras and images belong together"
        )

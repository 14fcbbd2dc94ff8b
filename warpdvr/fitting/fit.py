"""Fit a field to photographs: draw rays, find what they hit, compare colours and masks, take a step."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.intrinsics import Intrinsics
from warpdvr.cameras.pose import Poses
from warpdvr.datasets.pixels import Pixels
from warpdvr.datasets.views import Views, check_views
from warpdvr.fields.adapter import as_field
from warpdvr.fields.base import FieldLike
from warpdvr.fitting.distillation import PROBES, value_parameters
from warpdvr.fitting.loop import TrainingLoop
from warpdvr.fitting.mask_trust import MaskTrust
from warpdvr.fitting.optimizer import frozen, new_optimizer, slowed
from warpdvr.fitting.recipe import WEIGHTS, Recipe, find_recipe
from warpdvr.fitting.recipe_terms import Photometric, new_background, recipe_terms
from warpdvr.fitting.refined_cameras import RefinedCameras
from warpdvr.fitting.surface_colors import SurfaceColors
from warpdvr.fitting.terms import Term, TermContext, check_terms, evaluate_terms
from warpdvr.fitting.volume_start import (
    COLORS_ALONE,
    REFINING,
    REFINING_RATE,
    SHARPENED,
    VolumeStart,
    exposure_rate,
    new_start,
    take_surface,
)
from warpdvr.intersection.base import EARLY, Solver, SolverLike, as_solver
from warpdvr.intersection.cached import CachedMarch
from warpdvr.intersection.dense_march import DenseMarch
from warpdvr.intersection.diagnosis import check_start, nothing_hit
from warpdvr.intersection.hit import Hit
from warpdvr.rendering.background import RATE, Background
from warpdvr.rendering.surface import shaded
from warpdvr.runtime.inference_mode import outside_inference

PATIENCE = 50
"""Steps in a row without a hit after which a fit gives up."""

CHECKED = 256
"""Number of rays whose starts are checked before a fit."""

MEASURE = 100
"""Steps between two measurements of the field's Lipschitz bound, for fields that can measure it."""


class Fit(TrainingLoop):
    """The fit of a field to photographs: `for step in Fit(field, views, minutes=5): ...`.

    Between steps its state can be saved and the field rendered, untimed. Deterministic on a CPU (docs/promises).
    """

    smaller = "take fewer rays in a step (rays of the recipe, --rays), or smaller pictures (--max-pixels)"

    @outside_inference
    def __init__(
        self,
        field: FieldLike | object,
        views: Views | object,
        *,
        minutes: float | object | None = None,
        iterations: float | object | None = None,
        recipe: Recipe | str | object | None = None,
        terms: Iterable[Term] | object = (),
        seed: int | object = 0,
        intersect: SolverLike | object | None = None,
    ):
        """Prepare a fit; the field is changed in place.

        Args:
            field: a `Field`, or what `as_field` turns into one; parameters that require no gradient stay fixed.
            views: photographs with masks, as `warpdvr.load(folder)` returns them; only the training views are used.
            minutes, iterations: the duration; give exactly one of them, iterations as a whole number.
            recipe: weights and schedules, or the name of one in `RECIPES`, such as "dvr"; by default "quick".
            terms: a list of `Term` (`warpdvr.fitting.terms`), besides those of the recipe.
            seed: seed of the rays that are drawn.
            intersect: the solver that finds the surface; by default a `CachedMarch`, or a `DenseMarch` if the recipe
                has `samples`. Values that it remembers, or its `grid`, are refreshed as the field changes.

        Raises:
            ValueError: if `views` is a folder, not exactly one positive duration is given, no training view has a mask
                or depth, depth is to be learnt from and none is known, the name of the recipe is unknown, a term makes
                no sense, there is nothing to optimise, no value of the field is negative, or all rays start inside.
        """
        field, views = as_field(field), check_views("fit", views)
        super().__init__("fit", minutes=minutes, iterations=iterations, seed=seed, single_thread=True)
        self.field, self.recipe, self.evaluations = field, find_recipe(recipe), field.probed
        self.pixels = Pixels(views, field.bounds.device)
        if not self.pixels.has_depth and (self.recipe.depth or self.recipe.on_surface):
            raise ValueError("fit: the recipe weighs depth, but none of the training views has any")
        self.views = views
        self.clipped: list[Tensor] = [p for p in field.parameters() if p.requires_grad]
        groups = self.recipe.groups(field, field.rates)
        self.refined = RefinedCameras(self.recipe, views, self.pixels, field.bounds.device)
        self.background = new_background(self.recipe, self.pixels, field.bounds, self.generator.initial_seed())
        groups += self._other_groups()
        if not self.clipped:
            raise ValueError(f"fit: no parameter of {field.name} wants a gradient, and cameras stay fixed")
        self.trust = MaskTrust(self.pixels)
        exposure = self.refined.exposure
        self.start = new_start(
            self.recipe, field, self.pixels, exposure, minutes=self.minutes, iterations=self.iterations
        )
        self.refining = self.start is not None  # the surface of a volume
        self.groups, self.shape = groups, set(self.start.shape) if self.start else set()
        self.evaluations += PROBES if self.start else 0
        compare = Photometric(self.recipe.square, exposure)
        self.colors = SurfaceColors(field, self.pixels, compare, self.generator.initial_seed())
        self.optimizer = self._new_optimizer()
        weighted = recipe_terms(self.recipe, field, self.background, exposure)
        self.terms = [*weighted, *check_terms(terms, [*WEIGHTS, "prior", "total", *(term.name for term in weighted)])]
        self._check_start(self.generator.initial_seed(), has_own_terms=len(self.terms) > len(weighted))
        self.intersect = as_solver(self._usual_solver() if intersect is None else intersect).prepare(field)
        self.scheduled = intersect is None and bool(self.recipe.samples)
        self.without_hit, self.has_hit = 0, 0

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """The cameras of all views, as refined so far [scene unit]: the poses of the training views, and intrinsics."""
        return self.refined.cameras

    @property
    def poses(self) -> Poses | None:
        """The poses of the training views, if they are refined."""
        return self.refined.poses

    @property
    def intrinsics(self) -> Intrinsics | None:
        """The intrinsics of all views, if they are refined."""
        return self.refined.intrinsics

    def state(self) -> dict[str, Tensor]:
        """Return everything that a later session needs besides the field's weights, as tensors."""
        state = super().state() | self.intersect.state()
        state["without_hit"] = torch.tensor([self.without_hit, self.has_hit])
        state |= self.refined.state()
        if self.background:
            state |= self.background.state()
        state |= self.trust.state() | self.colors.state()
        if self.start:
            state |= self.start.state()
        elif self.refining:
            state[REFINING] = torch.ones(1)
        return state

    def resume(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state`; the field must have the weights that belong to it.

        Raises:
            ValueError: if the state belongs to another field, or is no state of a fit.
        """
        self._resume_counts(state)
        self.without_hit, self.has_hit = map(int, state.get("without_hit", (0, 0)))
        self.intersect.resume(state)
        self.refined.resume(state)
        saved = Background.saved(state)
        if saved and not self.background:
            raise ValueError("fit: the saved state is of a fit that learnt a background, but now there is to be none")
        if saved and self.background:
            self.background.load_state_dict(saved.state_dict())
        self.trust.resume(state)
        self.colors.resume(state)
        self.start = VolumeStart.saved(state, self.pixels, self.field.bounds, self.refined.exposure)
        self.refining = self.start is not None or REFINING in state
        self.shape = self.shape or (value_parameters(self.field) if self.refining else set())
        self.optimizer = self._new_optimizer()
        self._resume_optimizer(state)

    def is_finite(self) -> bool:
        """Return whether all parameters, the volume and what the optimizers remember of them are finite."""
        return super().is_finite() and (self.start is None or self.start.is_finite())

    @property
    def collapsed(self) -> bool:
        """Whether no ray hits any more, though one did before; a recipe that pulls surfaces needs no hits.

        Where none of the last step did, many others are asked.
        """
        if not self.without_hit or not self.has_hit or self.recipe.on_surface:
            return False
        with torch.no_grad():
            rays = self.pixels.draw(16 * CHECKED, torch.Generator().manual_seed(0)).rays
            return len(DenseMarch(64)(self.field, rays).ray) == 0

    def phase(self, progress: float) -> float:
        """The learning rate rises and falls once, after the volume."""
        share = self.recipe.volume if self.refining else 0.0
        return max(0.0, progress - share) / (1 - share)

    def colors_alone(self, progress: float) -> bool:
        """Whether the colours of a surface are learnt that was taken from a volume, before they move it."""
        return self.refining and self.phase(progress) < COLORS_ALONE and {*self.clipped} > self.shape

    def losses(self, progress: float) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Draw rays, find what they see, and compare it with the photographs.

        Raises:
            RuntimeError: if the level set has vanished or fills the view, so that there is nothing to learn from.
        """
        alone, progress = self.colors_alone(progress), self.phase(progress)
        self.field.anneal(1.0 if self.refining else progress)
        self._refresh(self.iteration)
        if alone:
            loss, evaluations = self.colors(self.iteration, self._solver(progress), self.refined.draw, self.generator)
            self.evaluations += evaluations
            return {"color": loss}, {"color": self.recipe.color}
        batch = self.refined.draw(self.recipe.rays, self.generator)
        solver = self._solver(progress)
        visible = shaded(self.field, batch.rays, solver)
        self._check(visible.hit)
        context = TermContext(self.field, self.pixels, batch, visible, solver, progress, self.generator)
        if self.refining:
            context = replace(context, sharpened=SHARPENED[0] + progress * (SHARPENED[1] - SHARPENED[0]))
        losses, evaluations = evaluate_terms(self.terms, context)
        weights = {term.name: term.weight for term in self.terms}
        if (prior := self.field.prior()) is not None:
            losses["prior"], weights["prior"] = prior, 1.0
        self.evaluations += visible.hit.evaluations + evaluations
        return losses, weights

    def _step(self, progress: float) -> dict[str, float]:
        if self.start and progress < self.recipe.volume:
            return dict.fromkeys(("volume", "total"), self.start.step(progress / self.recipe.volume, self.generator))
        if self.start:
            self._take_surface(self.start)
        with frozen(self.shape if self.colors_alone(progress) else ()):
            return super()._step(progress)

    def _descend(self, total: Tensor) -> None:
        if not self.refining or total.requires_grad:  # what sees no colours teaches none
            super()._descend(total)

    def _take_surface(self, start: VolumeStart) -> None:
        self.field.anneal(1.0)
        taken, contradicted = take_surface(self.field, start, self.views, self.minutes)
        self.trust.withdraw(contradicted)
        self.start, self.refining = None, taken > 0  # 0 if the volume holds no surface
        self.optimizer = self._new_optimizer()
        self.evaluations += taken + self.field.bound_slope() + self.intersect.refresh(self.field)

    def finish(self) -> None:
        """Measure the slope of the field's last weights."""
        if self.start:  # its share is so large that no step came after it
            self._take_surface(self.start)
        self.evaluations += self.field.bound_slope()

    def _usual_solver(self) -> Solver:
        n = self.recipe.march(0.0)
        return DenseMarch(n, splits=0) if n else CachedMarch(cells=self.recipe.cells)

    def _solver(self, progress: float) -> Solver:
        n = self.recipe.march(progress) if self.scheduled else None
        return self.intersect if n is None else DenseMarch(n, splits=0)

    def _refresh(self, iteration: int) -> None:
        """Bring what is remembered of the field up to date."""
        if iteration in EARLY or iteration % MEASURE == 0:
            self.evaluations += self.field.bound_slope()
        self.evaluations += self.intersect.refresh(self.field, iteration)

    def _new_optimizer(self) -> torch.optim.Optimizer:
        return new_optimizer(slowed(self.groups, self.shape, REFINING_RATE) if self.refining else self.groups)

    def _other_groups(self) -> list[dict[str, Any]]:
        """Return the parameters of cameras, whose gradients are clipped with those of the field, and of what else the
        photographs show."""
        groups = self.refined.groups
        self.clipped.extend(p for group in groups for p in group["params"])
        if exposure := self.refined.exposure:
            rate = exposure_rate(self.recipe, self.minutes, self.iterations)
            groups.append({"params": list(exposure.parameters()), "rate": rate})
        if self.background:
            groups.append({"params": list(self.background.parameters()), "rate": RATE})
        return groups

    def _check_start(self, seed: int, *, has_own_terms: bool) -> None:
        """Refuse a field whose surface no ray hits, unless a term works at places where there is none.

        Terms of masks create a surface in a network of logits with random weights, but a distance begins with one.
        """
        if (recipe := self.recipe).on_surface:
            return
        masks = max(recipe.mask, recipe.hinge, recipe.freespace, recipe.occupancy)
        creates = (self.field.kind == "occupancy" and masks > 0) or has_own_terms
        rays = self.pixels.draw(CHECKED, torch.Generator().manual_seed(seed)).rays
        self.evaluations += check_start("fit", self.field, rays, creates=creates)

    def _check(self, hit: Hit) -> None:
        self.without_hit = 0 if len(hit.ray) else self.without_hit + 1
        self.has_hit |= len(hit.ray) > 0
        if self.without_hit >= PATIENCE and not self.recipe.on_surface:  # which pulls a surface to where there is none
            raise RuntimeError(nothing_hit(hit, PATIENCE, self.iteration + 1))

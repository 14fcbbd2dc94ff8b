"""Learn a category: pictures in, shapes out, compared with other pictures of the same objects."""

import math
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.datasets.views import Views
from warpdvr.fields.base import box, select_shape
from warpdvr.fields.conditional import Shapes
from warpdvr.fitting import losses as loss
from warpdvr.fitting.optimizer import pack, unpack
from warpdvr.fitting.recipe import schedule
from warpdvr.intersection.dense_march import DenseMarch
from warpdvr.intersection.lowest import lowest_on
from warpdvr.rendering.surface import Surface, surface
from warpdvr.singleview.augmentation import Augmentation
from warpdvr.singleview.category import Category, Pool
from warpdvr.singleview.preprocess import disturbed, prepared
from warpdvr.singleview.reconstructor import Reconstructor
from warpdvr.singleview.shape_bank import ShapeBank

SPREAD = 0.05
"""Standard deviation of free codes at first; small, so that like objects come to have like ones."""

PAUSE = 4
"""Steps of the encoder in one of which a shape is imagined."""

CODES = 5.0
"""Learning rate of free codes, as a multiple of the others'."""


BEHIND, REACH = 6, 0.4
"""Points on a ray behind its hit, and how far they reach [scene unit], among which the smallest value is looked for."""


@dataclass(frozen=True)
class TrainingConfig:
    """How a category is learnt."""

    objects: int = 16
    """Objects in a step, one picture of each for the encoder."""
    rays: int = 96
    """Rays for each of them, through any of its pictures."""
    points: int = 256
    """Points for each of them, in and beside its visual hull."""
    samples: int = 16
    """Samples on a ray, as in DVR at first (`DenseMarch`)."""
    splits: int = 2
    """How often an interval between two of them that may hide a thin part is halved (`DenseMarch`)."""
    rate: float = 1e-3
    """Highest learning rate of Adam, see `warpdvr.fitting.recipe.schedule`."""
    color: float = 1.0
    """Weight of the photometric loss."""
    mask: float = 1.0
    """Weight of the silhouette loss."""
    hull: float = 1.0
    """Weight of the occupancy loss at points of which the masks say that they are inside or outside, which is learnt
    far sooner than by rays; what is hollow is left to the others."""
    depth: float = 0.0
    """Weight of the depth loss, for categories with depth maps (2.5D supervision; DVR takes 10)."""
    decoder: float = 0.65
    """Progress up to which the decoder learns, each object having a free code, as in an auto-decoder (Park et al.,
    "DeepSDF", 2019); from then on the encoder learns to guess these codes from pictures."""
    pictures: int = 64
    """Pictures in a step of the encoder alone."""
    imagined: float = 0.5
    """Share of them that the decoder makes, of known shapes and mixtures of them
    (`warpdvr.singleview.augmentation`)."""
    zoom: float = 0.1
    """How much a picture is enlarged or made smaller by chance, so that the encoder does not learn it by heart."""
    noise: float = 0.03
    """Standard deviation of what is added to free codes, so that near codes come to mean like shapes."""
    tint: float = 0.2
    """How much its colours are changed by chance."""

    def __post_init__(self) -> None:
        if not 0 < self.decoder <= 1:
            raise ValueError(f"train-category: decoder must be a share above 0 and at most 1, got {self.decoder}")
        for name in ("objects", "rays", "pictures"):
            if getattr(self, name) < 1:
                raise ValueError(f"train-category: {name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.rate < math.inf:
            raise ValueError(f"train-category: rate must be positive and finite, got {self.rate}")
        if not 0 <= self.imagined <= 1:
            raise ValueError(f"train-category: imagined must be a share from 0 to 1, got {self.imagined}")
        if self.samples < 2:
            raise ValueError(f"train-category: samples must be at least 2, got {self.samples}")
        for name in ("color", "mask", "hull", "depth", "zoom", "tint", "noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"train-category: {name} must be finite and not negative, got {getattr(self, name)}")


class Trainer:
    """A reconstructor on its way; `for step in Learning(...)` runs it, each step being its losses by name."""

    def __init__(
        self,
        model: Reconstructor,
        category: Category,
        *,
        minutes: float,
        lesson: TrainingConfig | None = None,
        seed: int = 0,
    ):
        """Prepare to learn from the category's training objects; the model is changed in place.

        Args:
            model: the reconstructor.
            category: its held-out objects are not looked at.
            minutes: how long to learn; only steps count.
            lesson: weights, rates and sizes.
            seed: of the objects, pictures and rays that are drawn.

        Raises:
            ValueError: if the duration is not positive, or depth is to be learnt from and some object has none.
        """
        if not 0 < minutes < math.inf:
            raise ValueError(f"train-category: minutes must be positive, got {minutes}")
        self.model, self.minutes, self.lesson = model, minutes, lesson or TrainingConfig()
        chosen = [category.views[i] for i in category.train]
        if self.lesson.depth and (without := [i for i in category.train if not category.views[i].depths]):
            raise ValueError(
                f"train-category: depth is to be learnt from, but {category.names[without[0]]} has none "
                f"({len(without)} objects without)"
            )
        self.pictures = [pictures(views) for views in chosen]
        self.pool = Pool(chosen, box(model.decode.bounds) if self.lesson.hull else None)
        self.generator = torch.Generator().manual_seed(seed)
        self.codes = torch.nn.Parameter(SPREAD * torch.randn(len(chosen), model.decode.code, generator=self.generator))
        groups = [{"params": list(model.parameters()), "rate": 1.0}, {"params": [self.codes], "rate": CODES}]
        self._known = ShapeBank.of(self.codes, chosen)
        self._imagination: Augmentation | None = None
        self._outlined: frozenset[int] = frozenset()
        self._steps = 0
        self.optimizer = torch.optim.Adam(groups, lr=0.0, betas=(0.9, 0.99))
        self.iteration, self.seconds, self.evaluations = 0, 0.0, 0

    def __iter__(self) -> "Trainer":
        return self

    def __next__(self) -> dict[str, float]:
        """Take one step.

        Raises:
            StopIteration: at the end.
            RuntimeError: if the loss is not a number.
        """
        if self.progress >= 1:
            self.model.eval()
            raise StopIteration
        start = time.perf_counter()
        low, high = (0.0, self.lesson.decoder) if self.progress < self.lesson.decoder else (self.lesson.decoder, 1.0)
        for group in self.optimizer.param_groups:  # the rate rises and falls for each
            group["lr"] = group["rate"] * self.lesson.rate * schedule((self.progress - low) / (high - low))
        self.model.train()
        terms = self._guess() if low else self._decode()
        losses = {name: float(term.detach()) for name, term in terms.items()}
        if wrong := [name for name, value in losses.items() if not math.isfinite(value)]:
            raise RuntimeError(
                f"train-category: the loss {wrong[0]} is {losses[wrong[0]]} at step {self.iteration + 1}"
            )
        total = torch.stack([getattr(self.lesson, name, 1.0) * term for name, term in terms.items()]).sum()
        self.optimizer.zero_grad()
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        if not bool(torch.isfinite(norm)):
            raise RuntimeError(
                f"train-category: the gradient is not finite at step {self.iteration + 1}; the weights of the step "
                "before are kept, try a smaller rate"
            )
        self.optimizer.step()
        self.iteration += 1
        self.seconds += time.perf_counter() - start
        return losses | {"total": float(total.detach())}

    @property
    def progress(self) -> float:
        """How much is done, from 0 to 1."""
        return min(self.seconds / (60 * self.minutes), 1.0)

    def known(self) -> ShapeBank:
        """Return what a reconstruction needs to know of the objects, with their present codes."""
        known = replace(self._known, codes=self.codes.detach().clone())
        return known.joined(self._imagination.outlines) if self._imagination else known

    def state(self) -> dict[str, Tensor]:
        """Return all that a later session needs beside the model's weights, as tensors."""
        counts = torch.tensor([self.iteration, self.evaluations, self.seconds], dtype=torch.float64)
        return {
            **pack(self.optimizer),
            "counts": counts,
            "generator": self.generator.get_state(),
            "codes": self.codes.detach().clone(),
        }

    def resume(self, state: dict[str, Tensor], known: ShapeBank | None = None) -> None:
        """Go on from a `state`; the model must have the weights that belong to it.

        Args:
            state: of the learning that was stopped.
            known: what it knew then; its outlines are kept if the decoder learns no more.
        """
        self.iteration, self.evaluations = int(state["counts"][0]), int(state["counts"][1])
        self.seconds = float(state["counts"][2])
        self.generator.set_state(state["generator"])
        with torch.no_grad():
            self.codes.copy_(state["codes"])
        unpack(self.optimizer, state)
        if known and self.progress >= self.lesson.decoder:
            self._outlined = frozenset(known.shape_index[len(self._known.shape_index) :].tolist())
            self._known = known

    def _guess(self) -> dict[str, Tensor]:
        """Return how far the codes that the encoder guesses are from those of the shapes in the pictures.

        At each step one more shape is imagined, as long as there are any.
        """
        lesson = self.lesson
        pictures, codes = self._imagined(round(lesson.imagined * lesson.pictures))
        objects = torch.randint(len(self.pictures), (lesson.pictures - len(codes),), generator=self.generator)
        pictures, codes = torch.cat([pictures, self._drawn(objects)]), torch.cat([codes, self.codes[objects].detach()])
        mirrored = self.model.decode.symmetric is not None  # then a mirrored picture shows the same shape
        seen = disturbed(pictures, self.generator, zoom=lesson.zoom, tint=lesson.tint, mirrored=mirrored)
        return {"code": (self.model.encode(seen) - codes).square().mean()}

    def _imagined(self, n: int) -> tuple[Tensor, Tensor]:
        """Return up to n imagined pictures, two of a shape at first, and the codes of their shapes.

        One more shape is imagined in one of `PAUSE` steps: it takes as long as two steps.
        """
        if n:
            if self._imagination is None:
                self._imagination = Augmentation(self.model.decode, self.known(), self.generator, self._outlined)
            if self._steps % PAUSE == 0:
                self._imagination.more()
            self._steps += 1
            if self._imagination.codes:
                return self._imagination.draw(min(n, 2 * len(self._imagination.codes)))
        return self.pictures[0][:0], self.codes[:0].detach()

    def _decode(self) -> dict[str, Tensor]:
        """Return the terms of rays and points of some objects, decoded from their free codes."""
        n = min(self.lesson.objects, len(self.pictures))
        objects = torch.randperm(len(self.pictures), generator=self.generator)[:n]
        noise = self.lesson.noise * torch.randn(n, self.codes.shape[1], generator=self.generator)
        shapes = Shapes(self.model.decode, self.codes[objects] + noise)
        rays, color, label, t = self.pool.draw(objects, self.lesson.rays, self.generator)
        seen = surface(shapes, rays, DenseMarch(self.lesson.samples, splits=self.lesson.splits, block=8))
        return self._terms(shapes, rays, (color, label, t), seen) | self._hull(shapes, objects)

    def _terms(
        self, shapes: Shapes, rays: Rays, said: tuple[Tensor, Tensor, Tensor], seen: Surface
    ) -> dict[str, Tensor]:
        """Return the terms of rays, of which the pictures `said` colours, whether they see the object, and depths.

        All rays that meet the bounds count in the silhouette's, those that hit by how deep they go. With only the
        others, those beside the object push the surface inwards and nothing pushes back: thin parts become thinner.
        """
        (color, label, t), ray = said, seen.hit.ray
        right = label[ray]
        deepest, behind = lowest_on(shapes, rays, seen.hit, depths=BEHIND, max_depth=REACH)
        asked = ~deepest.isnan()
        x = rays.at(deepest.nan_to_num())[asked]
        soft = -select_shape(shapes, rays.shape_index, asked).value(x)
        self.evaluations += seen.hit.evaluations + behind + 2 * len(ray) + len(x)
        terms = {
            "color": loss.photometric(seen.color[right], color[ray][right]),
            "mask": loss.silhouette(soft, label[asked], len(x)),
        }
        if self.lesson.depth:
            known = right & ~t[ray].isnan()
            terms["depth"] = loss.depth(seen.t[known], t[ray][known])
        return terms

    def _hull(self, shapes: Shapes, objects: Tensor) -> dict[str, Tensor]:
        if not self.lesson.hull:
            return {}
        x, shape_index, inside = self.pool.points(objects, self.lesson.points, self.generator)
        self.evaluations += len(x)
        return {"hull": loss.silhouette(-shapes.select(shape_index).value(x), inside, len(x))}

    def _drawn(self, objects: Tensor) -> Tensor:
        """Return a picture of each of some objects, (b, 3, SIZE, SIZE), uint8."""
        some = [self.pictures[i] for i in objects.tolist()]
        shape_index = [int(torch.randint(len(one), (1,), generator=self.generator)) for one in some]
        none = self.pictures[0][:0]  # there may be no objects
        return torch.cat([none, *(one[i : i + 1] for one, i in zip(some, shape_index, strict=True))])


def pictures(views: Views) -> Tensor:
    """Return the pictures of an object as the encoder sees them, (v, 3, SIZE, SIZE), uint8; not those held out."""
    cut = [prepared(views.images[i], mask) for i in views.train if (mask := views.masks[i]) is not None]
    return (torch.stack(cut) * 255).round().to(torch.uint8)

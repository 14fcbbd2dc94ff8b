"""Learn a category: pictures in, shapes out, compared with other pictures of the same objects."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.datasets.views import Views
from warpdvr.fields.base import box, select_shape
from warpdvr.fields.conditional import Shapes
from warpdvr.fitting import losses
from warpdvr.fitting.loop import TrainingLoop
from warpdvr.intersection.dense_march import DenseMarch
from warpdvr.intersection.lowest import lowest_on
from warpdvr.rendering.surface import Surface, surface
from warpdvr.singleview.augmentation import Augmentation
from warpdvr.singleview.category import Category, Pool
from warpdvr.singleview.preprocess import jitter, square_picture
from warpdvr.singleview.reconstructor import Reconstructor
from warpdvr.singleview.shape_bank import ShapeBank

SPREAD = 0.05
"""Standard deviation of free codes at first; small, so that similar objects come to have similar ones."""

PAUSE = 4
"""Steps of the encoder in one of which the decoder renders one more shape."""

CODES = 5.0
"""Learning rate of free codes, as a multiple of the others'."""

BEHIND, REACH = 6, 0.4
"""Points on a ray behind its hit, and how far they reach [scene unit], among which the smallest value is looked for."""


@dataclass(frozen=True)
class TrainingConfig:
    """How a category is learnt. Weights are per unit of what they weigh."""

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
    """Weight of the photometric loss [1 / sRGB difference]."""
    mask: float = 1.0
    """Weight of the silhouette loss [1 / nat]."""
    hull: float = 1.0
    """Weight of the occupancy loss at points that the masks call inside or outside [1 / nat]. It is learnt from far
    sooner than rays are; what is hollow is left to these."""
    depth: float = 0.0
    """Weight of the depth loss [1 / scene unit], for categories with depth maps (2.5D supervision; DVR takes 10)."""
    decoder: float = 0.65
    """Progress up to which the decoder learns, each object having a free code, as in an auto-decoder (Park et al.,
    "DeepSDF", 2019); from then on the encoder learns to guess these codes from pictures."""
    pictures: int = 64
    """Pictures in a step of the encoder alone."""
    rendered: float = 0.5
    """Share of them that the decoder makes, of known shapes and mixtures of them
    (`warpdvr.singleview.augmentation`)."""
    zoom: float = 0.1
    """Share by which a picture is enlarged or shrunk by chance, so that the encoder does not learn it by heart."""
    noise: float = 0.03
    """Standard deviation of what is added to free codes, so that near codes come to mean similar shapes."""
    tint: float = 0.2
    """Share by which its colours are changed by chance."""

    def __post_init__(self) -> None:
        if not 0 < self.decoder <= 1:
            raise ValueError(f"train-category: decoder must be a share above 0 and at most 1, got {self.decoder}")
        for name in ("objects", "rays", "pictures"):
            if getattr(self, name) < 1:
                raise ValueError(f"train-category: {name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.rate < math.inf:
            raise ValueError(f"train-category: rate must be positive and finite, got {self.rate}")
        if not 0 <= self.rendered <= 1:
            raise ValueError(f"train-category: rendered must be a share from 0 to 1, got {self.rendered}")
        if self.samples < 2:
            raise ValueError(f"train-category: samples must be at least 2, got {self.samples}")
        for name in ("color", "mask", "hull", "depth", "zoom", "tint", "noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"train-category: {name} must be finite and not negative, got {getattr(self, name)}")


class Trainer(TrainingLoop):
    """A reconstructor on its way: `for step in Trainer(...)` trains it."""

    def __init__(
        self,
        model: Reconstructor,
        category: Category,
        *,
        minutes: float,
        config: TrainingConfig | None = None,
        seed: int = 0,
    ):
        """Prepare to learn from the category's training objects; the model is changed in place.

        Args:
            model: the reconstructor.
            category: its held-out objects are not looked at.
            minutes: how long to train; only steps count.
            config: weights, rates and sizes.
            seed: of the objects, pictures and rays that are drawn.

        Raises:
            ValueError: if the duration is not positive, or depth is to be learnt from and some object has none.
        """
        super().__init__("train-category", minutes=minutes, iterations=None, seed=seed, single_thread=False)
        self.model, self.config = model, config or TrainingConfig()
        objects = [category.views[i] for i in category.train]
        if self.config.depth and (without := [i for i in category.train if not category.views[i].depths]):
            raise ValueError(
                f"train-category: depth is to be learnt from, but {category.names[without[0]]} has none "
                f"({len(without)} objects without)"
            )
        self.pictures = [pictures(views) for views in objects]
        self.pool = Pool(objects, box(model.decode.bounds) if self.config.hull else None)
        self.codes = torch.nn.Parameter(SPREAD * torch.randn(len(objects), model.decode.code, generator=self.generator))
        self.clipped = list(model.parameters())
        rate = self.config.rate
        groups = [{"params": self.clipped, "rate": rate}, {"params": [self.codes], "rate": CODES * rate}]
        self.optimizer = torch.optim.Adam(groups, lr=0.0, betas=(0.9, 0.99))
        self._shape_bank = ShapeBank.of(self.codes, objects)
        self._augmentation: Augmentation | None = None
        self._outlined: frozenset[int] = frozenset()
        self._encoder_steps = 0

    def phase(self, progress: float) -> float:
        """The learning rate rises and falls for the decoder, and again for the encoder."""
        low, high = (0.0, self.config.decoder) if progress < self.config.decoder else (self.config.decoder, 1.0)
        return (progress - low) / (high - low)

    def losses(self, progress: float) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Return the terms of the decoder, and later those of the encoder."""
        self.model.train()
        if progress >= self.config.decoder:
            return {"code": self._encoder_loss()}, {"code": 1.0}
        weights = {name: getattr(self.config, name) for name in ("color", "mask", "depth", "hull")}
        return self._decoder_losses(), weights

    def finish(self) -> None:
        """Leave the model ready to be used."""
        self.model.eval()

    def shape_bank(self) -> ShapeBank:
        """Return what a reconstruction needs to know of the objects, with their present codes."""
        bank = replace(self._shape_bank, codes=self.codes.detach().clone())
        return bank.joined(self._augmentation.outlines) if self._augmentation else bank

    def state(self) -> dict[str, Tensor]:
        """Return all that a later session needs beside the model's weights, as tensors."""
        return {**super().state(), "codes": self.codes.detach().clone()}

    def resume(self, state: dict[str, Tensor], shape_bank: ShapeBank | None = None) -> None:
        """Go on from a `state`; the model must have the weights that belong to it.

        Args:
            state: of the training that was stopped.
            shape_bank: what it knew of the objects; its outlines are kept if the decoder learns no more.
        """
        self._resume_counts(state)
        with torch.no_grad():
            self.codes.copy_(state["codes"])
        self._resume_optimizer(state)
        if shape_bank and self.progress >= self.config.decoder:
            self._outlined = frozenset(shape_bank.shape_index[len(self._shape_bank.shape_index) :].tolist())
            self._shape_bank = shape_bank

    def _encoder_loss(self) -> Tensor:
        """Return how far the codes that the encoder guesses are from those of the shapes in the pictures.

        Every `PAUSE` steps one more shape is rendered, as long as there are any.
        """
        config = self.config
        pictures, codes = self._rendered(round(config.rendered * config.pictures))
        objects = torch.randint(len(self.pictures), (config.pictures - len(codes),), generator=self.generator)
        pictures = torch.cat([pictures, self._photographs(objects)])
        codes = torch.cat([codes, self.codes[objects].detach()])
        mirrored = self.model.decode.symmetric is not None  # then a mirrored picture shows the same shape
        shown = jitter(pictures, self.generator, zoom=config.zoom, tint=config.tint, mirrored=mirrored)
        guessed: Tensor = self.model.encode(shown)
        return (guessed - codes).square().mean()

    def _rendered(self, n: int) -> tuple[Tensor, Tensor]:
        """Return up to n pictures that the decoder makes, two of a shape at first, and the codes of their shapes.

        One more shape is rendered in one of `PAUSE` steps: it takes as long as two steps.
        """
        if n:
            if self._augmentation is None:
                self._augmentation = Augmentation(self.model.decode, self.shape_bank(), self.generator, self._outlined)
            if self._encoder_steps % PAUSE == 0:
                self._augmentation.render_next()
            self._encoder_steps += 1
            if self._augmentation.codes:
                return self._augmentation.draw(min(n, 2 * len(self._augmentation.codes)))
        return self.pictures[0][:0], self.codes[:0].detach()

    def _decoder_losses(self) -> dict[str, Tensor]:
        """Return the terms of rays and points of some objects, decoded from their free codes."""
        config, n = self.config, min(self.config.objects, len(self.pictures))
        objects = torch.randperm(len(self.pictures), generator=self.generator)[:n]
        noise = config.noise * torch.randn(n, self.codes.shape[1], generator=self.generator)
        shapes = Shapes(self.model.decode, self.codes[objects] + noise)
        batch = self.pool.draw(objects, config.rays, self.generator)
        visible = surface(shapes, batch[0], DenseMarch(config.samples, splits=config.splits, block=8))
        terms = self._ray_losses(shapes, batch, visible)
        if config.hull:
            x, shape_index, inside = self.pool.points(objects, config.points, self.generator)
            self.evaluations += len(x)
            terms["hull"] = losses.silhouette(-shapes.select(shape_index).value(x), inside, len(x))
        return terms

    def _ray_losses(
        self, shapes: Shapes, batch: tuple[Rays, Tensor, Tensor, Tensor], visible: Surface
    ) -> dict[str, Tensor]:
        """Return the terms of rays, given with their colours, whether they see the object, and their depths.

        All rays that meet the bounds count in the silhouette's, those that hit by how deep they go. With only the
        others, those beside the object push the surface inwards and nothing pushes back: thin parts become thinner.
        """
        (rays, color, label, t), ray = batch, visible.hit.ray
        right = label[ray]
        lowest, behind = lowest_on(shapes, rays, visible.hit, depths=BEHIND, max_depth=REACH)
        crosses = ~lowest.isnan()
        x = rays.at(lowest.nan_to_num())[crosses]
        logit = -select_shape(shapes, rays.shape_index, crosses).value(x)
        self.evaluations += visible.hit.evaluations + behind + 2 * len(ray) + len(x)
        terms = {
            "color": losses.photometric(visible.color[right], color[ray][right]),
            "mask": losses.silhouette(logit, label[crosses], len(x)),
        }
        if self.config.depth:
            deep = right & ~t[ray].isnan()
            terms["depth"] = losses.depth(visible.t[deep], t[ray][deep])
        return terms

    def _photographs(self, objects: Tensor) -> Tensor:
        """Return a picture of each of some objects, (b, 3, SIZE, SIZE), uint8."""
        stacks = [self.pictures[i] for i in objects.tolist()]
        chosen = [int(torch.randint(len(stack), (1,), generator=self.generator)) for stack in stacks]
        none = self.pictures[0][:0]  # there may be no objects
        return torch.cat([none, *(stack[i : i + 1] for stack, i in zip(stacks, chosen, strict=True))])


def pictures(views: Views) -> Tensor:
    """Return the pictures of an object as the encoder sees them, (v, 3, SIZE, SIZE), uint8; not those held out."""
    squares = [square_picture(views.images[i], mask) for i in views.train if (mask := views.masks[i]) is not None]
    return (torch.stack(squares) * 255).round().to(torch.uint8)

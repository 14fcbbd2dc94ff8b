"""Train a reconstructor: from a picture to a shape, which is compared with other pictures of the same object."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from warpdvr.cameras.rays import Rays
from warpdvr.datasets.views import Views
from warpdvr.fields.base import select_shape
from warpdvr.fields.bounds import box
from warpdvr.fields.conditional import Shapes
from warpdvr.fitting import losses
from warpdvr.fitting.loop import TrainingLoop
from warpdvr.intersection.dense_march import DenseMarch
from warpdvr.intersection.lowest import lowest_on
from warpdvr.rendering.surface import Surface, shaded
from warpdvr.singleview.augmentation import Augmentation
from warpdvr.singleview.category import Category, Pool
from warpdvr.singleview.preprocess import jitter, square_picture
from warpdvr.singleview.reconstructor import Reconstructor
from warpdvr.singleview.shape_bank import ShapeBank

SPREAD = 0.05
"""Standard deviation of free codes at the start; small, so that similar objects come to have similar codes."""

PAUSE = 4
"""The decoder renders one more shape in one of this many steps of the encoder."""

CODES = 5.0
"""Learning rate of free codes, as a multiple of that of the weights."""

DEPTHS, MAX_DEPTH = 6, 0.4
"""Points on a ray behind its hit among which the smallest value is looked for, and how far they extend [scene unit]."""


@dataclass(frozen=True)
class TrainingConfig:
    """Weights, rates and sizes of the training of a category."""

    objects: int = 16
    """Objects in a step, one picture of each for the encoder."""
    rays: int = 96
    """Rays for each object, through any of its pictures."""
    points: int = 256
    """Points for each object, in and beside its visual hull."""
    samples: int = 16
    """Samples on each ray, as in DVR at the start (`DenseMarch`)."""
    splits: int = 2
    """How often an interval between two samples that may hide a thin part is halved (`DenseMarch`)."""
    rate: float = 1e-3
    """Highest learning rate of Adam, see `warpdvr.fitting.recipe.schedule`."""
    color: float = 1.0
    """Weight of the photometric loss [1 / sRGB difference]."""
    mask: float = 1.0
    """Weight of the silhouette loss [1 / nat]."""
    hull: float = 1.0
    """Weight of the occupancy loss at points that the masks place inside or outside [1 / nat]. It is learnt from much
    sooner than from rays; hollow parts are left to the rays."""
    depth: float = 0.0
    """Weight of the depth loss [1 / scene unit], for categories with depth maps (2.5D supervision; DVR takes 10)."""
    decoder: float = 0.65
    """Progress up to which the decoder learns, with a free code for each object, as in an auto-decoder (Park et al.,
    "DeepSDF", 2019); after that the encoder learns to guess these codes from pictures."""
    pictures: int = 64
    """Pictures in a step of the encoder alone."""
    rendered: float = 0.5
    """Share of these pictures that the decoder renders, of learnt shapes and mixtures of them
    (`warpdvr.singleview.augmentation`)."""
    zoom: float = 0.1
    """Largest share by which a picture is randomly enlarged or shrunk, so that the encoder does not memorise it."""
    noise: float = 0.03
    """Standard deviation of the noise on free codes, so that similar codes come to mean similar shapes."""
    tint: float = 0.2
    """Largest share by which the colours of a picture are randomly changed."""

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
    """The training of a reconstructor: `for step in Trainer(...)` runs it."""

    smaller = "lower objects, rays or pictures below [training] in category.toml, and go on with --resume"

    def __init__(
        self,
        model: Reconstructor,
        category: Category,
        *,
        minutes: float,
        config: TrainingConfig | None = None,
        seed: int = 0,
    ):
        """Prepare to train on the category's training objects; the model is changed in place, on its device.

        Args:
            model: the reconstructor.
            category: the objects; its held-out ones are not used.
            minutes: duration of the training [min]; only the time of steps counts.
            config: weights, rates and sizes.
            seed: seed of the objects, pictures and rays that are drawn.

        Raises:
            ValueError: if the duration is not positive, or depth is to be learnt from and some object has none.
        """
        super().__init__("train-category", minutes=minutes, iterations=None, seed=seed, single_thread=False)
        self.model, self.config = model, config or TrainingConfig()
        objects = [category.views[i] for i in category.train]
        if self.config.depth and (without_depth := [i for i in category.train if not category.views[i].depths]):
            raise ValueError(
                f"train-category: depth is to be learnt from, but {category.names[without_depth[0]]} has none "
                f"({len(without_depth)} objects without)"
            )
        self.pictures = [pictures(views).to(model.device) for views in objects]
        self.pool = Pool(objects, box(model.decode.bounds) if self.config.hull else None, model.device)
        codes = SPREAD * torch.randn(len(objects), model.decode.code, generator=self.generator)
        self.codes = torch.nn.Parameter(codes.to(model.device))
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
        """Return the shape bank of the objects with their current codes, which a reconstruction needs."""
        bank = replace(self._shape_bank, codes=self.codes.detach().clone())
        return bank.joined(self._augmentation.outlines) if self._augmentation else bank

    def state(self) -> dict[str, Tensor]:
        """Return everything that a later session needs besides the model's weights, as tensors."""
        return {**super().state(), "codes": self.codes.detach().clone()}

    def resume(self, state: dict[str, Tensor], shape_bank: ShapeBank | None = None) -> None:
        """Continue from a `state`; the model must have the weights that belong to it.

        Args:
            state: state of the training that was stopped.
            shape_bank: its shape bank, on the device of the model; the outlines are kept if the decoder has finished
                learning.
        """
        self._resume_counts(state)
        with torch.no_grad():
            self.codes.copy_(state["codes"])
        self._resume_optimizer(state)
        if shape_bank and self.progress >= self.config.decoder:
            self._outlined = frozenset(shape_bank.shape_index[len(self._shape_bank.shape_index) :].tolist())
            self._shape_bank = shape_bank

    def _encoder_loss(self) -> Float[Tensor, ""]:
        """Return the mean squared difference of the codes that the encoder guesses from those of the shapes.

        Every `PAUSE` steps one more shape is rendered, as long as any are left.
        """
        config = self.config
        pictures, codes = self._rendered(round(config.rendered * config.pictures))
        objects = torch.randint(len(self.pictures), (config.pictures - len(codes),), generator=self.generator)
        pictures = torch.cat([pictures, self._photographs(objects)])
        codes = torch.cat([codes, self.codes[objects].detach()])
        mirrored = self.model.decode.symmetric is not None  # then a mirrored picture shows the same shape
        jittered = jitter(pictures, self.generator, zoom=config.zoom, tint=config.tint, mirrored=mirrored)
        guessed: Tensor = self.model.encode(jittered)
        return (guessed - codes).square().mean()

    def _rendered(self, n: int) -> tuple[UInt8[Tensor, "m 3 size size"], Float[Tensor, "m code"]]:
        """Return up to n pictures that the decoder renders, at first two of each shape, and the codes of their shapes.

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
        """Return the terms of rays and points of random objects, decoded from their free codes."""
        config, n = self.config, min(self.config.objects, len(self.pictures))
        objects = torch.randperm(len(self.pictures), generator=self.generator)[:n]
        noise = config.noise * torch.randn(n, self.codes.shape[1], generator=self.generator).to(self.codes)
        shapes = Shapes(self.model.decode, self.codes[objects] + noise)
        batch = self.pool.draw(objects, config.rays, self.generator)
        visible = shaded(shapes, batch[0], DenseMarch(config.samples, splits=config.splits, block=8))
        terms = self._ray_losses(shapes, batch, visible)
        if config.hull:
            x, shape_index, inside = self.pool.points(objects, config.points, self.generator)
            self.evaluations += len(x)
            terms["hull"] = losses.silhouette(-shapes.select(shape_index).value(x), inside, len(x))
        return terms

    def _ray_losses(
        self,
        shapes: Shapes,
        batch: tuple[Rays, Float[Tensor, "n 3"], Bool[Tensor, " n"], Float[Tensor, " n"]],
        visible: Surface,
    ) -> dict[str, Tensor]:
        """Return the terms of rays, which come with their colours, whether they see the object, and their depths.

        All rays that meet the bounds count in the silhouette term; those that hit, by how deep they go. Without these,
        rays beside the object push the surface inwards and nothing pushes back, so that thin parts become thinner.
        """
        (rays, color, label, t), ray = batch, visible.hit.ray
        right = label[ray]
        lowest, evaluations = lowest_on(shapes, rays, visible.hit, depths=DEPTHS, max_depth=MAX_DEPTH)
        crosses = ~lowest.isnan()
        x = rays.at(lowest.nan_to_num())[crosses]
        logit = -select_shape(shapes, rays.shape_index, crosses).value(x)
        self.evaluations += visible.hit.evaluations + evaluations + 2 * len(ray) + len(x)
        terms = {
            "color": losses.photometric(visible.color[right], color[ray][right]),
            "mask": losses.silhouette(logit, label[crosses], len(x)),
        }
        if self.config.depth:
            deep = right & ~t[ray].isnan()
            terms["depth"] = losses.depth(visible.t[deep], t[ray][deep])
        return terms

    def _photographs(self, objects: Int[Tensor, " b"]) -> UInt8[Tensor, "b 3 size size"]:
        """Return a random picture of each object."""
        stacks = [self.pictures[i] for i in objects.tolist()]
        index = [int(torch.randint(len(stack), (1,), generator=self.generator)) for stack in stacks]
        empty = self.pictures[0][:0]  # there may be no objects
        return torch.cat([empty, *(stack[i : i + 1] for stack, i in zip(stacks, index, strict=True))])


def pictures(views: Views) -> UInt8[Tensor, "v 3 size size"]:
    """Return the training pictures of an object as the encoder sees them."""
    squares = [square_picture(views.images[i], mask) for i in views.train if (mask := views.masks[i]) is not None]
    return (torch.stack(squares) * 255).round().to(torch.uint8)

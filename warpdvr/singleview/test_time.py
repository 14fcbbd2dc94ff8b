"""Refine a reconstruction at test time: fit code, proportions and camera to the picture."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from warpdvr.cameras.pose import rotation
from warpdvr.cameras.projection import PINHOLE
from warpdvr.cameras.rays import Rays
from warpdvr.datasets.morphology import dilate, outline_band
from warpdvr.fields.base import select_shape
from warpdvr.fields.conditional import Shapes
from warpdvr.fitting.recipe import decay
from warpdvr.intersection.dense_march import DenseMarch
from warpdvr.intersection.diagnosis import NOTHING_INSIDE, lowest_value
from warpdvr.intersection.lowest import lowest_on
from warpdvr.singleview.preprocess import FINE, InputPicture
from warpdvr.singleview.reconstructor import Reconstructor
from warpdvr.singleview.shape_bank import ShapeBank
from warpdvr.singleview.training import DEPTHS, MAX_DEPTH

AROUND = 8
"""Largest distance from the outline at which rays are drawn [pixel]."""

EDGE = 3
"""Largest distance from the outline at which half of the rays are drawn [pixel]."""

MAX_ENCODED = 2
"""Largest number of the best starts that have the encoder's code, with different cameras."""

SIGHT = 3.0
"""Factor of the weight of a stretch along the line of sight, which a picture hardly shows."""


@dataclass(frozen=True)
class Refinement:
    """How code, proportions and camera are fitted to a picture."""

    steps: int = 150
    """Number of steps: a quarter of them for the cameras of all starts, the rest for cameras, codes and stretch of the
    best; 0: the encoder's code is the result."""
    starts: int = 12
    """Number of learnt shapes to start from, and of cameras for the encoder's shape."""
    best: int = 6
    """Number of starts that are continued, at most `MAX_ENCODED` of them with the encoder's code."""
    rays: int = 3840
    """Rays in a step, for all starts together."""
    samples: int = 24
    """Samples on each ray (`DenseMarch`)."""
    rate: float = 0.015
    """Highest learning rate of Adam for codes [standard deviation of the learnt codes along each of their axes]."""
    move: float = 0.005
    """Highest learning rate for cameras [radian and scene unit]."""
    stretch: float = 0.008
    """Highest learning rate for the logarithms of the factors by which a shape is stretched along each axis."""
    prior: float = 0.01
    """Weight of the squared distance to the code at the start [1 / squared standard deviation]."""
    stretched: float = 2.0
    """Weight of the squares of these logarithms, and `SIGHT` times as much along the line of sight."""

    def __post_init__(self) -> None:
        if self.steps < 0 or min(self.starts, self.best) < 1:
            raise ValueError(
                "refinement: steps must not be negative, starts and best at least 1, got "
                f"{self.steps}, {self.starts} and {self.best}"
            )


def refine(
    model: Reconstructor, shape_bank: ShapeBank, picture: InputPicture, refinement: Refinement | None = None
) -> Shapes:
    """Return a shape that looks like a picture, by analysis by synthesis.

    The camera is unknown. The outlines in the shape bank that are most similar to the picture's suggest cameras and
    shapes to start from, and the encoder suggests another shape. From each start, first the camera and then camera,
    code and proportions are fitted to the silhouette, as DVR fits a shape (Niemeyer et al. 2020), but with one picture.
    The code is kept near its start, where shapes resemble those that the decoder learnt. Colours do not count, since
    they say little about a shape.
    """
    settings = refinement or Refinement()
    encoded: Tensor = model.encode(picture.small).detach()
    if settings.steps < 1 or not picture.mask.any():
        return Shapes(model.decode, encoded)
    axes = shape_bank.axes()
    nearest, pose, K = shape_bank.nearest(picture.mask, settings.starts, symmetric=model.decode.symmetric)
    codes = torch.cat([encoded.expand(len(nearest), -1), shape_bank.codes[nearest]])
    if all(lowest_value(Shapes(model.decode, code[None]))[0] >= 0 for code in codes):  # usually the first has a shape
        raise ValueError(
            f"no mesh can be made of what the network sees (refine: of no code to start from; {NOTHING_INSIDE})"
        )
    attempt = _Attempt(model, picture.mask, settings, codes, pose.repeat(2, 1, 1), K.repeat(2, 1, 1), axes)
    cost = attempt.run((settings.steps + 3) // 4, 0, fit_shapes=False)
    worse = cost[: len(nearest)].argsort()[MAX_ENCODED:]  # the encoder's code comes first, with every camera
    cost[worse] = torch.inf
    best = cost.topk(min(settings.best, int(cost.isfinite().sum())), largest=False).indices
    attempt.keep(best)
    cost = attempt.run(settings.steps - (settings.steps + 3) // 4, 1, fit_shapes=True)
    return attempt.shape(int(cost.argmin()))


class _Attempt:
    """k shapes and cameras that are fitted to a picture in parallel."""

    def __init__(
        self,
        model: Reconstructor,
        mask: Bool[Tensor, "s s"],
        settings: Refinement,
        codes: Float[Tensor, "k code"],
        pose: Float[Tensor, "k 4 4"],
        K: Float[Tensor, "k 3 3"],
        axes: Float[Tensor, "a code"],
    ):
        self.decoder, self.mask, self.settings, self.axes = model.decode, mask, settings, axes
        self.start, self.pose, self.K = codes, pose, K
        sizes = len(axes), 6, 3
        self.code_offset, self.pose_offset, self.log_stretch = (codes.new_zeros(len(codes), n) for n in sizes)
        self.near = dilate(mask, AROUND)
        edge = outline_band(mask, EDGE)
        self.edge = edge if edge.any() else self.near

    def shapes(self) -> Shapes:
        """Return the k shapes."""
        return Shapes(self.decoder, self.start + self.code_offset @ self.axes, self.log_stretch.exp())

    def shape(self, k: int) -> Shapes:
        """Return the shape of an index, without a gradient."""
        code = self.start[k] + self.code_offset[k].detach() @ self.axes
        return Shapes(self.decoder, code[None], self.log_stretch[k : k + 1].detach().exp())

    def keep(self, index: Int[Tensor, " m"]) -> None:
        """Drop all shapes and cameras but those of an index."""
        for name in ("start", "pose", "K", "code_offset", "pose_offset", "log_stretch"):
            setattr(self, name, getattr(self, name)[index])

    def run(self, steps: int, seed: int, *, fit_shapes: bool) -> Float[Tensor, " k"]:
        """Take steps; return the cost of each of the k, the mean over the last third of the steps.

        Args:
            steps: number of steps.
            seed: seed of the rays.
            fit_shapes: whether codes and proportions are fitted too, not only the cameras.
        """
        generator = torch.Generator().manual_seed(seed)
        rates = {"pose_offset": self.settings.move}
        if fit_shapes:
            rates |= {"code_offset": self.settings.rate, "log_stretch": self.settings.stretch}
        for name in rates:
            setattr(self, name, getattr(self, name).detach().requires_grad_())
        optimizer = torch.optim.Adam(
            [{"params": [getattr(self, name)], "rate": rate} for name, rate in rates.items()], lr=0.0, betas=(0.9, 0.99)
        )
        costs = []
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * decay(step / steps)
            cost = self._cost(generator)
            optimizer.zero_grad()
            cost.sum().backward(inputs=[getattr(self, name) for name in rates])
            optimizer.step()
            costs.append(cost.detach())
        return torch.stack(costs[-max(steps // 3, 1) :]).mean(0) if costs else self.start.new_zeros(len(self.start))

    def _cost(self, generator: torch.Generator) -> Float[Tensor, " k"]:
        """Return the cost of each of the k, at random rays."""
        k, n = len(self.start), max(self.settings.rays // len(self.start), 2)
        pixel = torch.cat([_draw_pixels(mask, n // 2, generator) for mask in (self.edge, self.near)])
        label = self.mask[pixel[:, 0], pixel[:, 1]].repeat(k)
        entropy = self._entropy(self._rays(pixel.flip(1) + 0.5), label).view(k, -1).mean(1)
        sight = 1 + (SIGHT - 1) * self.pose[:, :3, 2].square()
        stretched = self.settings.stretched * (sight * self.log_stretch.square()).sum(1)
        return entropy + self.settings.prior * self.code_offset.square().sum(1) + stretched

    def _entropy(self, rays: Rays, label: Bool[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Return the cross entropy of the silhouette on each ray, at its smallest value."""
        shapes = self.shapes()
        with torch.no_grad():
            hit = DenseMarch(self.settings.samples, splits=1, block=8)(shapes, rays)
            lowest, _ = lowest_on(shapes, rays, hit, depths=DEPTHS, max_depth=MAX_DEPTH)
        at = torch.nonzero(~lowest.isnan())[:, 0]
        value = select_shape(shapes, rays.shape_index, at).value(rays[at].at(lowest[at]))
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(-value, label[at].float(), reduction="none")
        return entropy.new_zeros(len(rays)).index_copy(0, at, entropy)

    def _rays(self, pixel: Float[Tensor, "n 2"]) -> Rays:
        """Return rays through pixels of each of the k cameras, which are turned about the origin and shifted."""
        k, n = len(self.pose), len(pixel)
        _, local = PINHOLE.local_rays(self.K.repeat_interleave(n, 0), (pixel / FINE).repeat(k, 1))
        turn = rotation(self.pose_offset[:, :3])
        axes = (turn @ self.pose[:, :3, :3]).transpose(1, 2)
        d = torch.nn.functional.normalize(local.view(k, n, 3) @ axes, dim=-1)
        o = (turn @ self.pose[:, :3, 3:])[..., 0] + self.pose_offset[:, 3:]
        shape_index = torch.arange(k, device=o.device).repeat_interleave(n)
        return Rays(o[:, None].expand(k, n, 3).reshape(-1, 3), d.reshape(-1, 3), shape_index)


def _draw_pixels(mask: Bool[Tensor, "h w"], n: int, generator: torch.Generator) -> Int[Tensor, "m 2"]:
    """Return row and column of n random pixels of a mask."""
    pixel = torch.nonzero(mask)
    return pixel[torch.randint(len(pixel), (n,), generator=generator).to(pixel.device)]

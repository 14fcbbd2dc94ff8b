"""Refine a reconstruction at test time: code, proportions and camera are fitted to the one picture."""

from dataclasses import dataclass

import torch
from torch import Tensor

from warpdvr.cameras.pose import rotation
from warpdvr.cameras.rays import Rays
from warpdvr.datasets.morphology import dilate, outline_band
from warpdvr.fields.base import select_shape
from warpdvr.fields.conditional import Shapes
from warpdvr.fitting.recipe import decay
from warpdvr.intersection.dense_march import DenseMarch
from warpdvr.intersection.lowest import lowest_on
from warpdvr.singleview.preprocess import FINE, InputPicture
from warpdvr.singleview.reconstructor import Reconstructor
from warpdvr.singleview.shape_bank import ShapeBank
from warpdvr.singleview.training import BEHIND, REACH

AROUND = 8
"""How far from the outline rays are drawn [pixel]."""

EDGE = 3
"""How close to the outline half of the rays are drawn [pixel]."""

OWN = 2
"""How many of those that go on may be the encoder's shape, from different cameras."""

UNSEEN = 3.0
"""How much more a stretch along the line of sight counts, of which a picture says little."""


@dataclass(frozen=True)
class Refinement:
    """How code, proportions and camera are fitted."""

    steps: int = 150
    """A quarter of them for the cameras of all starts, the rest for cameras, codes and stretch of the best; 0 leaves it
    with the encoder's code."""
    starts: int = 12
    """Known shapes to start from, and cameras for the encoder's shape."""
    best: int = 6
    """How many of them go on, at most `OWN` of them with the encoder's shape."""
    rays: int = 3840
    """Rays in a step, for all that are fitted together."""
    samples: int = 24
    """Samples on a ray (`DenseMarch`)."""
    rate: float = 0.015
    """Highest learning rate of Adam for codes [standard deviation of the known ones, along each of their axes]."""
    move: float = 0.005
    """The same for cameras [radian, scene unit]."""
    stretch: float = 0.008
    """The same for the logarithms of how many times as long as the decoder makes it a shape is along each axis."""
    prior: float = 0.01
    """Weight of the squared distance to the code that is started from, in standard deviations."""
    stretched: float = 2.0
    """Weight of the squares of those logarithms across the line of sight, and `UNSEEN` times as much along it."""

    def __post_init__(self) -> None:
        if self.steps < 0 or min(self.starts, self.best) < 1:
            raise ValueError(
                "refinement: steps must not be negative, starts and best at least 1, got "
                f"{self.steps}, {self.starts} and {self.best}"
            )


def refine(
    model: Reconstructor, shape_bank: ShapeBank, picture: InputPicture, refinement: Refinement | None = None
) -> Shapes:
    """Return a shape that looks like a picture, by analysis and synthesis.

    The camera is not known. Known outlines that are like the picture's say where it may stand and what the shape may
    be, and so does the encoder. From each of these starts first the camera, and then camera, code and proportions
    are fitted to the silhouette, as DVR fits a shape (Niemeyer et al. 2020) with one picture instead of many. The code
    is held near its start, where shapes are like those that the decoder learnt. Colours do not count: a livery says
    nothing about shapes.
    """
    settings = refinement or Refinement()
    own: Tensor = model.encode(picture.small).detach()
    if settings.steps < 1 or not picture.mask.any():
        return Shapes(model.decode, own)
    axes = shape_bank.axes()
    chosen, pose, K = shape_bank.nearest(picture.mask, settings.starts, symmetric=model.decode.symmetric)
    codes = torch.cat([own.expand(len(chosen), -1), shape_bank.codes[chosen]])
    attempt = _Attempt(model, picture.mask, settings, codes, pose.repeat(2, 1, 1), K.repeat(2, 1, 1), axes)
    cost = attempt.run((settings.steps + 3) // 4, 0, moving=False)
    worse = cost[: len(chosen)].argsort()[OWN:]  # cameras of the encoder's shape, which comes first
    cost[worse] = torch.inf
    best = cost.topk(min(settings.best, int(cost.isfinite().sum())), largest=False).indices
    attempt.keep(best)
    cost = attempt.run(settings.steps - (settings.steps + 3) // 4, 1, moving=True)
    return attempt.shape(int(cost.argmin()))


class _Attempt:
    """k shapes and cameras that are fitted to a picture side by side."""

    def __init__(
        self,
        model: Reconstructor,
        mask: Tensor,
        settings: Refinement,
        codes: Tensor,
        pose: Tensor,
        K: Tensor,
        axes: Tensor,
    ):
        self.decoder, self.mask, self.settings, self.axes = model.decode, mask, settings, axes
        self.start, self.pose, self.K = codes, pose, K
        self.code_offset, self.pose_offset = torch.zeros(len(codes), len(axes)), torch.zeros(len(codes), 6)
        self.log_stretch = torch.zeros(len(codes), 3)
        self.near = dilate(mask, AROUND)
        edge = outline_band(mask, EDGE)
        self.edge = edge if edge.any() else self.near

    def shapes(self) -> Shapes:
        """Return the k shapes."""
        return Shapes(self.decoder, self.start + self.code_offset @ self.axes, self.log_stretch.exp())

    def shape(self, k: int) -> Shapes:
        """Return one of them, without a gradient."""
        code = self.start[k] + self.code_offset[k].detach() @ self.axes
        return Shapes(self.decoder, code[None], self.log_stretch[k : k + 1].detach().exp())

    def keep(self, chosen: Tensor) -> None:
        """Go on with some of them."""
        for name in ("start", "pose", "K", "code_offset", "pose_offset", "log_stretch"):
            setattr(self, name, getattr(self, name)[chosen])

    def run(self, steps: int, seed: int, *, moving: bool) -> Tensor:
        """Take steps; return what each of the k costs, (k,), the mean over their last third.

        Args:
            steps: how many.
            seed: of the rays.
            moving: whether codes and proportions are fitted, beside the cameras.
        """
        generator = torch.Generator().manual_seed(seed)
        rates = {"pose_offset": self.settings.move}
        if moving:
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
        return torch.stack(costs[-max(steps // 3, 1) :]).mean(0) if costs else torch.zeros(len(self.start))

    def _cost(self, generator: torch.Generator) -> Tensor:
        """Return what each of the k costs at rays that are drawn, (k,)."""
        k, n = len(self.start), max(self.settings.rays // len(self.start), 2)
        pixel = torch.cat([_draw_pixels(where, n // 2, generator) for where in (self.edge, self.near)])
        label = self.mask[pixel[:, 0], pixel[:, 1]].repeat(k)
        each = self._entropy(self._rays(pixel.flip(1) + 0.5), label).view(k, -1).mean(1)
        sight = 1 + (UNSEEN - 1) * self.pose[:, :3, 2].square()
        stretched = self.settings.stretched * (sight * self.log_stretch.square()).sum(1)
        return each + self.settings.prior * self.code_offset.square().sum(1) + stretched

    def _entropy(self, rays: Rays, label: Tensor) -> Tensor:
        """Return the cross entropy of the silhouette of each ray (n,), at its smallest value."""
        shapes = self.shapes()
        with torch.no_grad():
            hit = DenseMarch(self.settings.samples, splits=1, block=8)(shapes, rays)
            lowest, _ = lowest_on(shapes, rays, hit, depths=BEHIND, max_depth=REACH)
        at = torch.nonzero(~lowest.isnan())[:, 0]
        value = select_shape(shapes, rays.shape_index, at).value(rays[at].at(lowest[at]))
        entropy = torch.nn.functional.binary_cross_entropy_with_logits(-value, label[at].float(), reduction="none")
        return torch.zeros(len(rays)).index_copy(0, at, entropy)

    def _rays(self, place: Tensor) -> Rays:
        """Return rays through places (n, 2) [pixel] of each of the k cameras, turned about the origin and shifted."""
        k, n = len(self.pose), len(place)
        local = torch.cat([place / FINE, torch.ones(n, 1)], 1) @ torch.linalg.inv(self.K).transpose(1, 2)
        turn = rotation(self.pose_offset[:, :3])
        d = torch.nn.functional.normalize(local @ (turn @ self.pose[:, :3, :3]).transpose(1, 2), dim=-1)
        o = (turn @ self.pose[:, :3, 3:])[..., 0] + self.pose_offset[:, 3:]
        shape_index = torch.arange(k).repeat_interleave(n)
        return Rays(o[:, None].expand(k, n, 3).reshape(-1, 3), d.reshape(-1, 3), shape_index)


def _draw_pixels(where: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Return n pixels (n, 2), row and column, drawn from those of a mask."""
    pixel = torch.nonzero(where)
    return pixel[torch.randint(len(pixel), (n,), generator=generator)]

"""All pixels of the training views in one pool, from which a fit draws its rays."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from warpdvr.camera import Rays, rays_of
from warpdvr.views import Views

UNKNOWN, BACKGROUND, OBJECT = -1, 0, 1
SHARES = 0.7, 0.2
"""Parts of a batch that lie on objects or near them, and on both sides of outlines; the rest lies anywhere."""

RIM = 4
"""How far from the outline a pixel may lie to be of the second part [pixel]."""


@dataclass(frozen=True)
class Batch:
    """Rays with what the photographs say about them."""

    rays: Rays
    """n rays in the scene frame."""
    color: Tensor
    """sRGB in [0, 1], shape (n, 3)."""
    label: Tensor
    """OBJECT, BACKGROUND or UNKNOWN, shape (n,)."""

    def __getitem__(self, index: Any) -> "Batch":
        return Batch(self.rays[index], self.color[index], self.label[index])


class Pixels:
    """The pixels of the training views. What lies outside of an image is in no pixel: nothing is claimed about it."""

    def __init__(self, views: Views, device: torch.device | str = "cpu"):
        """Flatten the training views.

        Raises:
            ValueError: if no training view has a mask: nothing would say where the object ends.
        """
        chosen = views.train
        if all(views.masks[i] is None for i in chosen):
            raise ValueError("fit: none of the training views has a mask, at least one is needed to find the outline")
        self.color = torch.cat([views.images[i].reshape(-1, 3) for i in chosen]).to(device)
        self.label = torch.cat([_label(views.images[i], views.masks[i]) for i in chosen]).to(device)
        self.K = torch.stack([views.cameras[i].K for i in chosen]).float().to(device)
        self.pose = torch.stack([views.cameras[i].pose for i in chosen]).float().to(device)
        size = [views.images[i].shape[:2] for i in chosen]
        self.width = torch.tensor([w for _, w in size], device=device)
        self.start = torch.tensor([0, *[h * w for h, w in size]], device=device).cumsum(0)
        near = torch.cat([_near(views.masks[i], views.images[i]) for i in chosen]).to(device)
        rim = torch.cat([_rim(views.masks[i], views.images[i]) for i in chosen]).to(device)
        self.near, self.rim = torch.nonzero(near)[:, 0], torch.nonzero(rim)[:, 0]

    def draw(self, n: int, generator: torch.Generator) -> Batch:
        """Return n random pixels as rays: `SHARES` around the object and its outline, the rest anywhere.

        Pixels on both sides of an outline are drawn equally often, else the surface would shrink or grow.
        """
        counts = int(SHARES[0] * n), int(SHARES[1] * n)
        where = torch.cat(
            [
                self._choose(self.near, counts[0], generator),
                self._choose(self.rim, counts[1], generator),
                self._choose(None, n - sum(counts), generator),
            ]
        )
        view = torch.searchsorted(self.start, where, right=True) - 1
        inside = where - self.start[view]
        width = self.width[view]
        pixel = torch.stack([inside % width, inside // width], -1) + 0.5
        rays = rays_of(self.K, self.pose, view, pixel)
        return Batch(rays, self.color[where].float() / 255, self.label[where])

    def _choose(self, among: Tensor | None, n: int, generator: torch.Generator) -> Tensor:
        size = len(self.color) if among is None or len(among) == 0 else len(among)
        pick = torch.randint(size, (n,), generator=generator).to(self.color.device)
        return pick if among is None or len(among) == 0 else among[pick]


def _label(image: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return torch.full((image.shape[0] * image.shape[1],), UNKNOWN, dtype=torch.int8)
    return mask.reshape(-1).to(torch.int8)


def _near(mask: Tensor | None, image: Tensor) -> Tensor:
    """True on the object and within about a twentieth of the image's width around it, in blocks."""
    if mask is None:
        return torch.zeros(image.shape[0] * image.shape[1], dtype=torch.bool)
    height, width = mask.shape
    block = max(1, width // 60)
    coarse = torch.nn.functional.max_pool2d(mask[None, None].float(), block, ceil_mode=True)
    grown = torch.nn.functional.max_pool2d(coarse, 7, stride=1, padding=3)[0, 0] > 0
    return grown.repeat_interleave(block, 0).repeat_interleave(block, 1)[:height, :width].reshape(-1)


def _rim(mask: Tensor | None, image: Tensor) -> Tensor:
    """True within `RIM` of the object's outline, on both sides."""
    if mask is None:
        return torch.zeros(image.shape[0] * image.shape[1], dtype=torch.bool)
    solid = mask[None, None].float()
    both = torch.cat([solid, 1 - solid])
    grown: Tensor = torch.nn.functional.max_pool2d(both, 2 * RIM + 1, stride=1, padding=RIM) > 0
    return grown.all(0).reshape(-1)

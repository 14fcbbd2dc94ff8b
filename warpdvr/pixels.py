"""All pixels of the training views in one pool, from which a fit draws its rays."""

from dataclasses import dataclass

import torch
from torch import Tensor

from warpdvr.camera import Rays, rays_of
from warpdvr.views import Views

UNKNOWN, BACKGROUND, OBJECT = -1, 0, 1
SHARES = 0.5, 0.4
"""Parts of a batch that lie on objects, and next to them; the rest lies anywhere."""


@dataclass(frozen=True)
class Batch:
    """Rays with what the photographs say about them."""

    rays: Rays
    """n rays in the scene frame."""
    color: Tensor
    """sRGB in [0, 1], shape (n, 3)."""
    label: Tensor
    """OBJECT, BACKGROUND or UNKNOWN, shape (n,)."""


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
        close = torch.cat([_close(views.masks[i], views.images[i]) for i in chosen]).to(device)
        self.object = torch.nonzero(self.label == OBJECT)[:, 0]
        self.close = torch.nonzero(close & (self.label != OBJECT))[:, 0]

    def draw(self, n: int, generator: torch.Generator) -> Batch:
        """Return n random pixels as rays: `SHARES` on and next to the object, the rest anywhere."""
        counts = int(SHARES[0] * n), int(SHARES[1] * n)
        where = torch.cat(
            [
                self._choose(self.object, counts[0], generator),
                self._choose(self.close, counts[1], generator),
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


def _close(mask: Tensor | None, image: Tensor) -> Tensor:
    """True within about a twentieth of the image's width around the object, in blocks."""
    if mask is None:
        return torch.zeros(image.shape[0] * image.shape[1], dtype=torch.bool)
    height, width = mask.shape
    block = max(1, width // 60)
    coarse = torch.nn.functional.max_pool2d(mask[None, None].float(), block, ceil_mode=True)
    grown = torch.nn.functional.max_pool2d(coarse, 7, stride=1, padding=3)[0, 0] > 0
    return grown.repeat_interleave(block, 0).repeat_interleave(block, 1)[:height, :width].reshape(-1)

"""Where masks disagree with what the photographs of all views form together: such pixels teach no outlines."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from warpdvr.datasets.pixels import UNKNOWN, Pixels
from warpdvr.datasets.views import Views

CERTAIN = 0.1
"""A mask is contradicted where it has the object and less than this share of a ray is lost in the volume, or where it
has background and less than this share is left."""

DISTRUSTED = "distrusted"
"""The name of the packed pixels in the state of a fit."""

RADIUS = 2
"""Half side of the smallest square of pixels that counts, of views with `depth_fusion.PER_CELL` pixels per cell of the
volume: thin parts and ragged borders may be the fault of the volume."""


OUTVOTED = 0.2
"""Share of the views that may see background where the object is, because their masks are wrong there.

With a twentieth of each mask wrong, at random, more than a tenth of 60 views are at one place in twenty."""


def contradicted(share: Float[Tensor, "h w"], left: Float[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    """Return where a volume that is fitted to all colours and masks contradicts the mask of a view.

    Where one mask is wrong, the others outvote it. Areas count that hold a square of `RADIUS`, grown by two pixels.

    Args:
        share: of each pixel, how much of it the mask calls the object.
        left: the part of its light that passes the volume.
    """
    return _opened(((left < CERTAIN) & (share == 0)) | ((left > 1 - CERTAIN) & (share == 1)))


def _opened(wrong: Bool[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    """Return what squares of `RADIUS` within the True pixels cover, grown by two pixels."""
    side = 2 * RADIUS + 1
    eroded = 1 - torch.nn.functional.max_pool2d(1 - wrong[None, None].float(), side, 1, RADIUS)
    grown = torch.nn.functional.max_pool2d(eroded, side + 4, 1, RADIUS + 2)
    return grown[0, 0] > 0


class MaskTrust:
    """Which pixels of the training views have masks that a fit does not trust."""

    def __init__(self, pixels: Pixels):
        self.pixels = pixels
        self.distrusted = torch.zeros(len(pixels.label), dtype=torch.bool)

    def withdraw(self, distrusted: Bool[Tensor, " n"]) -> None:
        """Take the masks of these pixels as unknown."""
        self.distrusted = distrusted
        self.pixels.label[distrusted.to(self.pixels.label.device)] = UNKNOWN

    def state(self) -> dict[str, Tensor]:
        """Return what `resume` needs: a bit for each pixel, or nothing if all are trusted."""
        if not bool(self.distrusted.any()):
            return {}
        return {DISTRUSTED: torch.from_numpy(np.packbits(self.distrusted.numpy()))}

    def resume(self, state: dict[str, Tensor]) -> None:
        """Withdraw trust where a `state` says so.

        Raises:
            ValueError: if it is that of other photographs.
        """
        if DISTRUSTED in state:
            self.withdraw(unpack_pixels(state[DISTRUSTED], len(self.distrusted)))


def unpack_pixels(packed: UInt8[Tensor, " m"], n: int) -> Bool[Tensor, " n"]:
    """Return the n pixels of a state of `MaskTrust`.

    Raises:
        ValueError: if they are not n.
    """
    if len(packed) != math.ceil(n / 8) or packed.dtype != torch.uint8:
        raise ValueError("fit: the saved state distrusts pixels of other photographs")
    return torch.from_numpy(np.unpackbits(packed.cpu().numpy(), count=n)).bool()


def distrusted_in(state: Mapping[str, Tensor], views: Views) -> Bool[Tensor, " n"]:
    """Return the pixels of the training views whose masks a fit did not trust, from its state.

    Raises:
        ValueError: if the state is that of other photographs.
    """
    n = sum(views.cameras[i].height * views.cameras[i].width for i in views.train)
    return unpack_pixels(state[DISTRUSTED], n) if DISTRUSTED in state else torch.zeros(n, dtype=torch.bool)


def trust_picture(views: Views, distrusted: Bool[Tensor, " n"]) -> UInt8[Tensor, "h w 3"]:
    """Return the photograph with the most distrusted pixels, and these in red: where the mask has background, or blue:
    where it has the object."""
    sizes = [views.cameras[i].height * views.cameras[i].width for i in views.train]
    parts = distrusted.split(sizes)
    worst = max(range(len(parts)), key=lambda k: int(parts[k].sum()))
    i = views.train[worst]
    image: Float[Tensor, "h w 3"] = 0.5 * views.images[i].float()
    mask, wrong = views.masks[i], parts[worst].view(image.shape[:2])
    for color, where in (
        ((255.0, 40.0, 40.0), wrong if mask is None else wrong & ~mask),
        ((60.0, 90.0, 255.0), wrong if mask is None else wrong & mask),
    ):
        image[where] = 0.3 * image[where] + 0.7 * torch.tensor(color)
    return image.byte()

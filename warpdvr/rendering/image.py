"""An image, and the pictures that are made of it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor

from warpdvr.runtime.files import replacing


@dataclass(frozen=True)
class Image:
    """A rendered view of h x w pixels."""

    rgb: Tensor
    """sRGB colour in [0, 1] over the background, shape (h, w, 3); differentiable, with moving outlines if asked for."""
    depth: Tensor
    """Depth along the camera's forward axis (not ray length), shape (h, w) [scene unit]; differentiable, NaN where the
    ray does not hit."""
    normal: Tensor
    """Outward unit normal in the world, shape (h, w, 3), 0 where the ray does not hit; differentiable."""
    mask: Tensor
    """True where the ray hits, shape (h, w), bool."""
    status: Tensor
    """A `Status` for every pixel, shape (h, w), int32."""
    evaluations: int
    """How often the field was asked, counted in points: for the hits, their colours and normals, edges and masks."""
    silhouette: Tensor | None = None
    """Soft mask in (0, 1), shape (h, w), if asked for: sigmoid(-sharpness * value) at the smallest value met on the ray
    (Yariv et al. 2020, eq. 7), behind the first surface too; differentiable with respect to the field."""

    def save(self, path: Path | str, what: str = "rgb") -> None:
        """Write an 8-bit picture of `rgb`, `normal`, `depth` (near is bright) or `mask`, as the suffix says."""
        with replacing(Path(path)) as unfinished:
            PIL.Image.fromarray(self.picture(what)).save(unfinished)

    def picture(self, what: str = "rgb") -> NDArray[np.uint8]:
        """Return `rgb`, `normal`, `depth` or `mask` as 8-bit values, shape (h, w, 3) or (h, w)."""
        if what == "rgb":
            shown = self.rgb
        elif what == "normal":
            shown = torch.where(self.mask[..., None], normal_color(self.normal), 1.0)
        elif what == "depth":
            shown = _bright_when_near(self.depth, self.mask)
        elif what == "mask":
            shown = self.mask.float()
        else:
            raise ValueError(f"image: cannot show {what!r}; known are rgb, normal, depth and mask")
        pixels: NDArray[np.uint8] = (shown.detach().float().clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().numpy()
        return pixels


def normal_color(normal: Tensor) -> Tensor:
    """Return unit normals (..., 3) as colours in [0, 1], the usual way: 0.5 n + 0.5."""
    return 0.5 * normal + 0.5


def _bright_when_near(depth: Tensor, mask: Tensor) -> Tensor:
    if not mask.any():
        return torch.zeros_like(depth)
    low, high = depth[mask].min(), depth[mask].max()
    return torch.where(mask, 1 - 0.8 * (depth - low) / (high - low).clamp_min(1e-12), 0.0)

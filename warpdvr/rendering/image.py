"""A rendered image, and the pictures that are written from it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from warpdvr.intersection.hit import outcomes
from warpdvr.runtime.files import replacing


@dataclass(frozen=True)
class Image:
    """A rendered view of h x w pixels; `print(image)` says in a line what became of its rays."""

    rgb: Float[Tensor, "h w 3"]
    """sRGB colour in [0, 1] over the background; differentiable, and with `outline` so are the places of outlines."""
    depth: Float[Tensor, "h w"]
    """Depth along the camera's forward axis (not ray length) [scene unit]; differentiable, NaN where the
    ray does not hit."""
    normal: Float[Tensor, "h w 3"]
    """Outward unit normal in the world, 0 where the ray does not hit; differentiable."""
    mask: Bool[Tensor, "h w"]
    """True where the ray hits; with an opacity, from 0.5 on."""
    status: Int[Tensor, "h w"]
    """A `Status` for every pixel, int32."""
    evaluations: int
    """Points at which the field was evaluated: for the hits, their colours and normals, edges and masks."""
    flat: int = 0
    """Number of pixels that hit where the value has no slope: their depth has no gradient and their normal is 0."""
    silhouette: Float[Tensor, "h w"] | None = None
    """Soft mask in (0, 1), None where it is left out: sigmoid(-sharpness * value) at the smallest value met on the ray
    (Yariv et al. 2020, eq. 7), behind the first surface too; differentiable with respect to the field."""
    opacity: Float[Tensor, "h w"] | None = None
    """How much of the background a pixel does not show, in [0, 1]; None with `HitPoint`, which is all or nothing.
    Differentiable. Depth is then the mean over what a ray sees, the normal the direction of the mean."""

    def __repr__(self) -> str:
        height, width = self.status.shape
        return f"Image({width} x {height} pixels: {outcomes(self.status, self.evaluations)})"

    def save(self, path: Path | str, what: str = "rgb") -> None:
        """Write an 8-bit picture of `rgb`, `normal`, `depth` (near is bright) or `mask`, as the suffix says.

        Raises:
            ValueError: if `what` is unknown, or there is no picture format of this suffix.
        """
        path = Path(path)
        if PIL.Image.registered_extensions().get(path.suffix.lower()) not in PIL.Image.SAVE:
            raise ValueError(
                f"{path}: a picture is written as .png, .jpg or another format of Pillow, "
                f"not as {path.suffix or 'a file without suffix'}"
            )
        with replacing(path) as unfinished:
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


def normal_color(normal: Float[Tensor, "*shape 3"]) -> Float[Tensor, "*shape 3"]:
    """Return unit normals as colours in [0, 1], the usual way: 0.5 n + 0.5."""
    return 0.5 * normal + 0.5


def _bright_when_near(depth: Float[Tensor, "h w"], mask: Bool[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    if not mask.any():
        return torch.zeros_like(depth)
    low, high = depth[mask].min(), depth[mask].max()
    return torch.where(mask, 1 - 0.8 * (depth - low) / (high - low).clamp_min(1e-12), 0.0)

"""Where points of the scene appear in the photographs of a pool, and what these show between their pixels."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from warpdvr.cameras.projection import PINHOLE, Pinhole
from warpdvr.datasets.pixels import BACKGROUND, Pixels

LUMA = 0.299, 0.587, 0.114
"""Weights of red, green and blue in the grey of a pixel (ITU-R BT.601)."""


def project(
    pixels: Pixels, pose: Float[Tensor, "v 4 4"], view: Int[Tensor, " p"], x: Float[Tensor, "p m 3"]
) -> tuple[Float[Tensor, "p m 2"], Float[Tensor, "p m"]]:
    """Return where points appear in the photographs [pixel], and their depths along the forward axis [scene unit].

    Differentiable with respect to the points and the cameras. Places of points with a depth <= 0 are meaningless.

    Args:
        pixels: all pixels of the training views, with their projections.
        pose: camera-to-world matrices of the training views.
        view: the training view of each row of points.
        x: the points [scene unit]; the result has their precision.
    """
    camera = pose.to(x)[view]
    local = (x - camera[:, None, :3, 3]) @ camera[:, :3, :3]
    if all(isinstance(projection, Pinhole) for projection in pixels.projections):
        flat = (local @ pixels.K.to(x)[view].mT).view(-1, 3)  # one call for all: (u, v, 1) = (K x) / z
        return PINHOLE.local_project(torch.eye(3).to(x), flat).view(*local.shape[:2], 2), local[..., 2]
    order = view.argsort(stable=True)
    seen, counts = view[order].unique_consecutive(return_counts=True)
    parts = [
        pixels.projections[i].local_project(pixels.K[i].to(x), part.reshape(-1, 3)).to(x).view(*part.shape[:2], 2)
        for i, part in zip(seen.tolist(), local[order].split(counts.tolist()), strict=True)
    ]
    place = torch.cat(parts)[order.argsort()] if parts else local[..., :2]
    return place, local[..., 2]


def in_image(pixels: Pixels, view: Int[Tensor, " p"], place: Float[Tensor, "p m 2"]) -> Bool[Tensor, "p m"]:
    """Return whether places lie between the centres of four pixels of their image; those that are no numbers do not."""
    size = torch.stack([pixels.width, pixels.height], 1)[view][:, None]
    return ((place >= 0.5) & (place <= size - 0.5)).all(-1)


def on_background(pixels: Pixels, view: Int[Tensor, " p"], place: Float[Tensor, "p m 2"]) -> Bool[Tensor, "p m"]:
    """Return whether the mask has background at places in the image; where there is no mask it does not."""
    u, v = place.floor().long().unbind(-1)
    index = pixels.start[view][:, None] + v * pixels.width[view][:, None] + u
    return (pixels.label.index_select(0, index.view(-1)) == BACKGROUND).view(index.shape)


def grey(pixels: Pixels, view: Int[Tensor, " p"], place: Float[Tensor, "p m 2"]) -> Float[Tensor, "p m"]:
    """Return the grey that the photographs show, interpolated between the four nearest pixels; sRGB in [0, 1].

    Differentiable with respect to the places: the derivative is that of the bilinear interpolant.

    Args:
        pixels: all pixels of the training views.
        view: the training view of each row of places.
        place: places in the image [pixel], as `in_image` says; others count as the nearest of those.
    """
    width = pixels.width[view][:, None]
    last = torch.stack([pixels.width, pixels.height], 1)[view][:, None] - 1
    at = torch.minimum(place - 0.5, last.to(place)).clamp_min(0)
    corner = torch.minimum(at.detach().long(), last - 1).clamp_min(0)
    s, t = (at - corner).unbind(-1)
    u, v = corner.unbind(-1)
    index = pixels.base[view][:, None] + v * width + u
    right, below = (last[..., 0] > 0).long(), (last[..., 1] > 0).long() * width
    weight = torch.tensor(LUMA).to(place) / 255
    first, second, third, fourth = (
        (pixels.color.index_select(0, (index + step).view(-1)).to(place) @ weight).view(index.shape)
        for step in (0, right, below, right + below)
    )
    above = first + s * (second - first)
    return above + t * (third + s * (fourth - third) - above)

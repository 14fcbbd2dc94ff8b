"""How good a field is: rendered views against photographs that were held out."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.rays import pixel_centres
from warpdvr.datasets.views import Views
from warpdvr.evaluation.overlap import iou
from warpdvr.fields.adapter import as_field
from warpdvr.fields.base import FieldLike
from warpdvr.intersection.base import SolverLike
from warpdvr.intersection.default import gridded_intersect
from warpdvr.rendering.antialias import SMOOTH
from warpdvr.rendering.background import Background
from warpdvr.rendering.image import Image
from warpdvr.rendering.render import render

CHUNK = 2**16
"""Rays for which a background is evaluated at a time."""


@dataclass(frozen=True)
class Scores:
    """Means over views."""

    psnr: float
    """Peak signal-to-noise ratio of sRGB colours inside of the true masks, mean over views [dB]; NaN without masks. A
    background raises it, where nothing is hit and on edges: compare like with like."""
    iou: float
    """Intersection over union of rendered and true masks, mean over views; NaN without masks."""
    views: int
    """Number of views that were compared."""
    field_evaluations: int
    """How often the field was evaluated to render them, counted in points."""


@torch.no_grad()
def evaluate(
    field: FieldLike,
    views: Views,
    indices: Iterable[int] | None = None,
    *,
    intersect: SolverLike | None = None,
    longest: int | None = None,
    background: Background | None = None,
    shown: Callable[[int, Image, Tensor], None] | None = None,
) -> Scores:
    """Render views and compare them with their photographs, inside of their masks.

    Where the object should be but no ray hits, a pixel has the colour of the background, if there is one, and is black
    otherwise. Views without a mask, or with an empty one, are left out.

    Args:
        field: a `Field`, or what `as_field` makes one of.
        views: photographs, masks and cameras.
        indices: which views; the held-out ones if not given.
        intersect: how the surface is found; by default with a `BoundGrid`, whose making is counted too.
        longest: views are compared at this size of their longer side at most [pixel]; None takes them as they are.
        background: what is behind the object; edges are then smooth.
        shown: called with the index, the rendered image and the photograph (h, w, 3) of each view.
    """
    field = as_field(field)
    psnr, overlaps, evaluations = [], [], 0
    wanted = views.test if indices is None else indices
    chosen = [(i, mask) for i in wanted if (mask := views.masks[i]) is not None]
    if intersect is None and chosen:
        intersect, evaluations = gridded_intersect(field)
    for i, mask in chosen:
        camera = views.cameras[i]
        photograph = views.images[i].float() / 255
        side = max(camera.width, camera.height)
        if longest is not None and side > longest:
            camera = camera.resized(round(camera.width * longest / side), round(camera.height * longest / side))
            photograph, mask = _shrink(photograph, camera.height, camera.width), _shrink_mask(mask, camera)
        if not mask.any():
            continue
        if background is None:
            image = render(field, camera, intersect=intersect, background=(0.0, 0.0, 0.0))
        else:
            behind = _background(background.to(field.bounds.device), camera.to(field.bounds.device))
            image = render(field, camera, intersect=intersect, background=behind, antialias=SMOOTH)
        evaluations += image.evaluations
        psnr.append(_psnr(image.rgb.cpu(), photograph, mask))
        overlaps.append(float(iou(image.mask.cpu(), mask)))
        if shown is not None:
            shown(i, image, photograph)
    return Scores(_mean(psnr), _mean(overlaps), len(overlaps), evaluations)


def _background(background: Background, camera: Camera) -> Tensor:
    """Return a picture (h, w, 3) of what is behind the object."""
    pixel = pixel_centres(camera.width, camera.height, camera.K.device)
    parts = [background(camera.rays(subset)) for subset in pixel.split(CHUNK)]
    return torch.cat(parts).view(camera.height, camera.width, 3)


def _psnr(rgb: Tensor, photograph: Tensor, mask: Tensor) -> float:
    error = float((rgb - photograph)[mask].square().mean())
    return -10 * math.log10(max(error, 1e-12))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _shrink(image: Tensor, height: int, width: int) -> Tensor:
    small = torch.nn.functional.interpolate(image.permute(2, 0, 1)[None], size=(height, width), mode="area")
    return small[0].permute(1, 2, 0)


def _shrink_mask(mask: Tensor, camera: Camera) -> Tensor:
    return _shrink(mask[..., None].float(), camera.height, camera.width)[..., 0] > 0.5

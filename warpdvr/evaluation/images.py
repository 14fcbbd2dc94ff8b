"""Score a field: rendered views against held-out photographs."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.rays import pixel_centres
from warpdvr.datasets.views import Views, check_views
from warpdvr.evaluation.overlap import iou
from warpdvr.fields.adapter import as_field
from warpdvr.fields.base import FieldLike
from warpdvr.intersection.base import SolverLike
from warpdvr.intersection.default import default_intersect_for_pictures
from warpdvr.rendering.antialias import SMOOTH
from warpdvr.rendering.background import Background
from warpdvr.rendering.image import Image
from warpdvr.rendering.pictures import each_picture
from warpdvr.rendering.render import render

CHUNK = 2**16
"""Number of rays in one evaluation of a background."""


@dataclass(frozen=True)
class Scores:
    """Means over views."""

    psnr: float
    """Peak signal-to-noise ratio of sRGB colours inside the true masks, mean over views [dB]; NaN without masks. A
    background raises it at missed pixels and edges: compare only scores with a background, or only scores without."""
    iou: float
    """Intersection over union of rendered and true masks, mean over views; NaN without masks."""
    views: int
    """Number of views compared."""
    field_evaluations: int
    """Number of points at which the field was evaluated to render them."""


@torch.no_grad()
def evaluate(
    field: FieldLike | object,
    views: Views | object,
    indices: Iterable[int] | None = None,
    *,
    intersect: SolverLike | object | None = None,
    longest: int | None = None,
    background: Background | None = None,
    shown: Callable[[int, Image, Tensor], None] | None = None,
) -> Scores:
    """Render views and compare them with their photographs, inside their masks.

    A pixel of the mask whose ray misses has the colour of the background, or is black without one. Views without a
    mask, or with an empty one, are skipped.

    Args:
        field: a `Field`, or anything that `as_field` accepts.
        views: photographs, masks and cameras.
        indices: indices of the views; the held-out views by default.
        intersect: the solver; by default `default_intersect_for_pictures`, whose preparation is counted too. Views are
            rendered on several threads where they may be (`warpdvr.rendering.pictures`).
        longest: largest size of the longer side at which views are compared [pixel]; None keeps their size.
        background: what is behind the object; if given, edges are antialiased. Pictures with alpha show nothing of it:
            they are compared with the colours of the object alone.
        shown: called with the index, the rendered image and the photograph (h, w, 3) of each view.
    """
    field, views = as_field(field), check_views("evaluate", views)
    psnr, overlaps, evaluations = [], [], 0
    indices = views.test if indices is None else indices
    masked = [(i, mask) for i in indices if (mask := views.masks[i]) is not None]
    warn = intersect is None  # of a solver for fits it is no news that it leaves rays undecided
    if intersect is None and masked:
        intersect, evaluations = default_intersect_for_pictures(field)

    def compared(view: tuple[int, Tensor]) -> tuple[Image, Tensor, Tensor] | None:
        """Return the picture, the photograph and the mask of a view, None if the mask is empty."""
        i, mask = view
        camera, photograph, mask = _reduced(views.cameras[i], views.images[i].float() / 255, mask, longest)
        if not mask.any():
            return None
        backdrop = None
        if background is not None and not views.straight:
            backdrop = _background(background.to(field.bounds.device), camera.to(field.bounds.device))
        smooth = 1 if background is None else SMOOTH
        image = render(field, camera, intersect=intersect, background=backdrop, antialias=smooth, warn=warn)
        return image, photograph, mask

    for (i, _), seen in zip(masked, each_picture(compared, masked, field, intersect), strict=True):
        if seen is None:
            continue
        image, photograph, mask = seen
        evaluations += image.evaluations
        psnr.append(_psnr(image.rgb.cpu(), photograph, mask))
        overlaps.append(float(iou(image.mask.cpu(), mask)))
        if shown is not None:
            shown(i, image, photograph)
    return Scores(_mean(psnr), _mean(overlaps), len(overlaps), evaluations)


def _reduced(
    camera: Camera, photograph: Float[Tensor, "_ _ 3"], mask: Bool[Tensor, "_ _"], longest: int | None
) -> tuple[Camera, Float[Tensor, "h w 3"], Bool[Tensor, "h w"]]:
    """Return a view whose longer side has at most `longest` pixels."""
    side = max(camera.width, camera.height)
    if longest is None or side <= longest:
        return camera, photograph, mask
    camera = camera.resized(round(camera.width * longest / side), round(camera.height * longest / side))
    return camera, _shrink(photograph, camera.height, camera.width), _shrink_mask(mask, camera)


def _background(background: Background, camera: Camera) -> Float[Tensor, "h w 3"]:
    """Return a picture of what is behind the object."""
    pixel = pixel_centres(camera.width, camera.height, camera.K.device)
    parts = [background(camera.rays(subset)) for subset in pixel.split(CHUNK)]
    return torch.cat(parts).view(camera.height, camera.width, 3)


def _psnr(rgb: Float[Tensor, "h w 3"], photograph: Float[Tensor, "h w 3"], mask: Bool[Tensor, "h w"]) -> float:
    """Return the peak signal-to-noise ratio inside the mask [dB]."""
    error = float((rgb - photograph)[mask].square().mean())
    return -10 * math.log10(max(error, 1e-12))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _shrink(image: Float[Tensor, "_ _ c"], height: int, width: int) -> Float[Tensor, "h w c"]:
    """Return the image at a smaller size, averaged over areas."""
    small = torch.nn.functional.interpolate(image.permute(2, 0, 1)[None], size=(height, width), mode="area")
    return small[0].permute(1, 2, 0)


def _shrink_mask(mask: Bool[Tensor, "_ _"], camera: Camera) -> Bool[Tensor, "h w"]:
    """Return the mask at the size of the camera: the pixels of which more than half is on the object."""
    return _shrink(mask[..., None].float(), camera.height, camera.width)[..., 0] > 0.5

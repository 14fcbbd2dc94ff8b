"""Masks of an object that photographs were taken of without any: its colours differ from those of its surroundings.

All cameras look at the object, so that its colours are in the middle of the views, and those at their borders are of
something else (Campbell et al., "Automatic 3D object segmentation in multiple views using volumetric graph-cuts",
2010). Histograms of both tell which pixels show it, and what few views contradict is the hull of the object, whose
pictures tell in turn where its colours are.
"""

import math
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv3d, interpolate, pad

from warpdvr.cameras.camera import Camera
from warpdvr.datasets.morphology import dilate
from warpdvr.datasets.normalise import extent_from_axes, meeting_point
from warpdvr.datasets.views import Views
from warpdvr.runtime.files import make_folder, replacing
from warpdvr.runtime.threads import one_thread

LONGEST = 200
"""Pixels along the longer side of the pictures that the hull is carved by."""

PASSES = 5
"""How often hull and colours are found by each other."""

CELLS = 64
"""Cells along each side of the box around the object."""

CORE, ROOM = 0.25, 1.1
"""What lies within the first distance of the centre is taken for the object, and beyond the second for its
surroundings, in radii of what the views show [1]."""

BORDER = 0.02
"""Pixels this near the border of a picture are taken for surroundings [longer side]."""

BINS = 32
"""Bins of a histogram along red, green and blue."""

SHADE, SHADOWS = 0.05, (0.85, 0.7, 0.55, 0.4)
"""Surroundings also have their colours darkened by these factors, as in the object's shadow, each with this weight."""

SURE = 4.0
"""The largest logarithm of a ratio of likelihoods that a single pixel counts with."""

PRIOR = 0.5
"""The one that the picture of the hull adds."""

CONTRADICTED = 0.1
"""The share of the views that may see surroundings where a point of the hull is."""

AGREEMENT, DOUBTFUL = 0.7, 0.85
"""Median overlap of masks and hull below which masks are refused, and warned of [intersection over union]."""

ALONE = 0.6
"""Overlap with the hull below which the mask of a single view is not used."""

LARGEST = 0.9
"""The largest share of the pictures that may be the object."""

WANTED = "give masks that are white on the object, in a folder mask or masks"


def derive_masks(views: Views) -> Views:
    """Return views whose training views have masks, found by colours; views with any mask are returned unchanged.

    The object must be where all cameras look, differ in colour from most of what is around it, and not fill the
    pictures up to their borders. Views that contradict the others keep no mask. Held-out views get none: a mask that
    was derived is no truth to measure by.

    Args:
        views: photographs and cameras.

    Raises:
        ValueError: if the cameras do not look at a common point, or no object stands out from its surroundings; the
            message says what to do.
    """
    if any(mask is not None for mask in views.masks):
        return views
    with torch.no_grad(), one_thread():
        seen, ratio = _separate(views)
        overlaps = torch.tensor([_overlap(picture.label, picture.hull) for picture in seen])
        _check(overlaps, seen)
        masks: list[Tensor | None] = [None] * len(views)
        for i, picture, overlap in zip(views.train, seen, overlaps.tolist(), strict=True):
            masks[i] = _refined(views.images[i], picture, ratio) if overlap >= ALONE else None
    fills = [float(mask.float().mean()) for mask in masks if mask is not None]
    fill, middle = 100 * sum(fills) / len(fills), 100 * float(overlaps.median())
    text = f"Masks derived from colours for {len(fills)} of {len(views.train)} views to fit, the object fills "
    text += f"{fill:.0f} % of them; they agree to {middle:.0f} % with their hull."
    return replace(views, masks=tuple(masks), summary=f"{views.summary} {text}")


def write_masks(folder: Path, views: Views) -> None:
    """Write the masks of the training views as pictures, white on the object, with the names of their views."""
    make_folder(folder)
    for i in views.train:
        mask = views.masks[i]
        if mask is not None:
            with replacing(folder / f"{views.names[i]}.png") as unfinished:
                Image.fromarray(mask.cpu().numpy().astype(np.uint8) * np.uint8(255)).save(unfinished, format="png")


@dataclass
class _Picture:
    """A small picture, and what is known of it."""

    camera: Camera
    color: Float[Tensor, "h w 3"]
    """sRGB in [0, 1]."""
    distance: Float[Tensor, "h w"]
    """Distance of each ray from the centre [radius]."""
    label: Bool[Tensor, "h w"]
    """Where colours show the object, without holes."""
    hull: Bool[Tensor, "h w"]
    """Where the hull is."""


def _separate(views: Views) -> tuple[list[_Picture], Float[Tensor, " b"]]:
    """Return small pictures of the training views, and how much likelier each bin of colours is on the object [log]."""
    cameras = [views.cameras[i] for i in views.train]
    centre, radius = torch.zeros(3), 1.0
    if float(meeting_point(cameras)[0].norm()) >= 1:  # not in the scene frame
        centre, radius = extent_from_axes(cameras)
        centre = centre.float()
    seen = [_small(views.images[i], views.cameras[i], centre, radius) for i in views.train]
    inner = [picture.distance < CORE for picture in seen]
    outer = [(picture.distance > ROOM) | _border(picture.distance) for picture in seen]
    side = 2 * ROOM * radius / CELLS
    line = (torch.arange(CELLS) + 0.5) * side - ROOM * radius
    cells = centre + torch.cartesian_prod(line, line, line)
    for k in range(PASSES):
        ratio = (_histogram(seen, inner).log() - _histogram(seen, outer, SHADOWS).log()).clamp(-SURE, SURE)
        for picture in seen:
            value = _smooth(ratio[_bin(picture.color)], 3)
            if k:
                value = value + torch.where(picture.hull, PRIOR, -PRIOR)
            picture.label = _without_holes((value > 0) & (picture.distance < 1.3 * ROOM))
        hull = _carve(cells, seen)
        if k == PASSES - 1:
            half = side / 4
            hull = (hull[:, None] + torch.cartesian_prod(*[torch.tensor([-half, half])] * 3)).view(-1, 3)
            hull, side = _carve(hull, seen), side / 2
        if len(hull) == 0:
            raise ValueError(
                "fit: there are no masks, and no object stands out in the middle of the photographs: what differs from "
                f"the colours at their borders does not meet in one place; {WANTED}"
            )
        for picture in seen:
            picture.hull = _project(hull, side, picture.camera)
        inner = [_eroded(picture.label & picture.hull, 2) for picture in seen]
        outer = [~dilate(picture.label | picture.hull, 2) for picture in seen]
    for picture in seen:
        picture.label &= dilate(picture.hull, 12)  # not what is elsewhere
    return seen, ratio


def _check(overlaps: Float[Tensor, " v"], seen: list[_Picture]) -> None:
    """Refuse or warn of masks that do not agree with one another.

    Raises:
        ValueError: if they contradict each other, or show no surroundings.
    """
    fill = float(torch.stack([picture.label.float().mean() for picture in seen]).median())
    middle = float(overlaps.median())
    if fill > LARGEST:
        raise ValueError(
            f"fit: there are no masks, and the object cannot be told from its surroundings: its colours fill "
            f"{100 * fill:.0f} % of the photographs; {WANTED}"
        )
    found = f"masks derived from colours agree to {100 * middle:.0f} % with the hull that they form"
    if middle < AGREEMENT:
        raise ValueError(
            f"fit: there are no masks, and the object cannot be told from its surroundings by its colours: {found}; "
            f"{WANTED}"
        )
    if middle < DOUBTFUL:
        warnings.warn(f"fit: {found}: parts of the surroundings may be taken for the object; {WANTED}", stacklevel=3)


def _small(image: Tensor, camera: Camera, centre: Float[Tensor, "3"], radius: float) -> _Picture:
    """Return a picture of at most `LONGEST` pixels along its longer side."""
    factor = max(1.0, max(camera.width, camera.height) / LONGEST)
    camera = camera.resized(max(1, round(camera.width / factor)), max(1, round(camera.height / factor)))
    size = camera.height, camera.width
    color = interpolate(image.permute(2, 0, 1)[None].float() / 255, size=size, mode="area")[0].permute(1, 2, 0)
    rays = camera.rays(dtype=torch.float32)
    offset = (rays.origin - centre.to(rays.origin)) / radius
    along = (offset * rays.direction).sum(-1, keepdim=True)
    distance = (offset - along * rays.direction).norm(dim=-1).view(size)
    nothing = torch.zeros(size, dtype=torch.bool)
    return _Picture(camera, color, distance, nothing, nothing)


def _border(like: Float[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    """Return which pixels are near the border."""
    width, border = max(1, round(BORDER * max(like.shape))), torch.ones_like(like, dtype=torch.bool)
    border[width:-width, width:-width] = False
    return border


def _bin(color: Float[Tensor, "*n 3"]) -> Int[Tensor, "*n"]:
    """Return the bin of a histogram that a colour is in."""
    r, g, b = (color * BINS).long().clamp(0, BINS - 1).unbind(-1)
    return (r * BINS + g) * BINS + b


def _histogram(
    seen: list[_Picture], chosen: list[Bool[Tensor, "_ _"]], shadows: tuple[float, ...] = ()
) -> Float[Tensor, " b"]:
    """Return the probability of each bin among the chosen pixels, smoothed."""
    count = torch.zeros(BINS**3)
    for picture, where in zip(seen, chosen, strict=True):
        color = picture.color[where]
        count += torch.bincount(_bin(color), minlength=BINS**3)
        for shadow in shadows:
            count += SHADE * torch.bincount(_bin(shadow * color), minlength=BINS**3)
    smooth = count.view(1, 1, BINS, BINS, BINS)
    kernel = torch.tensor([0.25, 0.5, 0.25])
    for axis in range(3):
        shape, padding = [1, 1, 1, 1, 1], [0, 0, 0]
        shape[2 + axis], padding[axis] = 3, 1
        smooth = conv3d(smooth, kernel.view(shape), padding=padding)
    probability = smooth.flatten() + 1e-6 * smooth.sum() + 1e-3
    return probability / probability.sum()


def _smooth(value: Float[Tensor, "h w"], width: int) -> Float[Tensor, "h w"]:
    """Return the mean over squares of an odd width."""
    return avg_pool2d(pad(value[None, None], (width // 2,) * 4, mode="replicate"), width, stride=1)[0, 0]


def _eroded(mask: Bool[Tensor, "h w"], radius: int) -> Bool[Tensor, "h w"]:
    return ~dilate(~mask, radius)


def _without_holes(mask: Bool[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    """Return a mask with all that does not touch the border through its outside."""
    outside = ~mask
    reached = outside & _border(mask.float())
    while True:
        grown = dilate(reached, 1) & outside
        if torch.equal(grown, reached):
            return ~reached
        reached = grown


def _carve(x: Float[Tensor, "n 3"], seen: list[_Picture]) -> Float[Tensor, "k 3"]:
    """Return the points that half of the views have in their image, and all but a few of these on the object."""
    total, against = torch.zeros(2, len(x))
    for picture in seen:
        pixel, _, visible = picture.camera.pixel_index(x)
        total, against = total + visible, against + (visible & ~picture.label.flatten()[pixel])
        left = against <= CONTRADICTED * len(seen)
        x, total, against = x[left], total[left], against[left]
    return x[(against <= CONTRADICTED * total) & (total >= len(seen) / 2)]


def _project(x: Float[Tensor, "n 3"], side: float, camera: Camera) -> Bool[Tensor, "h w"]:
    """Return which pixels show cells of a side around the points [scene unit]."""
    pixel, _, visible = camera.pixel_index(x)
    mask = torch.zeros(camera.height * camera.width, dtype=torch.bool)
    mask[pixel[visible]] = True
    radius = math.ceil(side * float(camera.K[0, 0] / (x.mean(0) - camera.centre.to(x)).norm()) / 2)
    return _eroded(dilate(mask.view(camera.height, camera.width), radius), radius)


def _overlap(a: Bool[Tensor, "h w"], b: Bool[Tensor, "h w"]) -> float:
    return float((a & b).sum() / (a | b).sum().clamp_min(1))


def _refined(image: Tensor, picture: _Picture, ratio: Float[Tensor, " b"]) -> Bool[Tensor, "_ _"]:
    """Return the mask of a whole picture: along the outline of the small one, its own colours decide."""
    size = (image.shape[0], image.shape[1])

    def enlarged(mask: Bool[Tensor, "_ _"]) -> Float[Tensor, "_ _"]:
        return interpolate(mask[None, None].float(), size=size, mode="bilinear")[0, 0]

    width = 2 * (max(size) // (2 * 2 * LONGEST)) + 1
    value = _smooth(ratio[_bin(image.float() / 255)], width) + PRIOR * (2 * enlarged(picture.hull) - 1)
    label = picture.label & dilate(picture.hull, 4)
    inside, near = enlarged(_eroded(label, 2)) > 0.5, enlarged(dilate(label, 1)) > 0.5
    return inside | (near & (value > 0))

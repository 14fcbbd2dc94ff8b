"""How well cameras and masks agree where two views see the same tangent plane, in pixels.

A plane through two camera centres that touches the object touches its outline in both pictures. So of all planes
through the baseline that meet the outline, the first and the last are the same in both views, whatever the object's
shape and texture (Porrill and Pollard 1991; Wong and Cipolla 2001). How far they differ is measured here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.projection import Orthographic
from warpdvr.datasets.check_cameras import evenly
from warpdvr.datasets.views import Views

WITNESSES, DIRECTIONS, LARGEST = 24, 360, 1600
"""Views that all others are compared with, directions in which an outline's outermost points are taken, and the size
above which masks are reduced [pixel]."""

BORDER, BEYOND = 4, 0.2
"""Points nearer than BORDER to the border of a picture are cut there [pixel]. A tangent does not count if its plane is
nearer to such a point's than by the share BEYOND of all planes that meet the outline: the object may go on outside."""

WIDEST = 2.5
"""If the planes that meet the outline span more than this, the baseline nearly passes through the object [radian]."""

FEW = 20
"""With fewer tangents nothing is said of all cameras; for one view, a third of them is enough."""

Change = Callable[[Camera], Camera]


@dataclass(frozen=True)
class Rim:
    """The outline of one view."""

    camera: Camera
    """The camera; its picture may be reduced."""
    pixel: Float[Tensor, "_ 2"]
    """Outermost points of the mask, one in each of the `DIRECTIONS`, float64 [pixel]; empty if there are none."""


def rims(views: Views) -> tuple[Rim, ...]:
    """Return the outlines of the views with masks."""
    masked = (i for i, mask in enumerate(views.masks) if mask is not None)
    return tuple(_rim(views.cameras[i], views.masks[i]) for i in masked)


def distances(
    group: Sequence[Rim], witnesses: Sequence[Rim], change: Change = lambda camera: camera
) -> Float[Tensor, "v w 2"]:
    """Return how far the two tangents of each view and each witness lie apart, with a sign [pixel].

    The distance is how far the points of both outlines would have to move at least, taken together, for the tangents to
    meet (Sampson 1982). It is NaN where nothing is known: for a view and itself, where the object may go on beyond the
    border of a picture, where the baseline nearly passes through the object, and for orthographic cameras.

    Args:
        group: views.
        witnesses: the views that they are compared with.
        change: is applied to every camera before.
    """
    own, others = _bundle(group, change), _bundle(witnesses, change)
    return torch.stack([_apart(own, i, others) for i in range(len(group))])


def view_distances(group: Sequence[Rim]) -> tuple[float, ...]:
    """Return for each view the median distance of its tangents from the others' [pixel]; NaN where few are known."""
    apart = distances(group, evenly(group, WITNESSES)).abs().flatten(1)
    known = apart.isfinite().sum(1) >= FEW // 3
    return tuple(torch.where(known, apart.nanmedian(1).values, torch.nan).tolist())


def median_distance(group: Sequence[Rim], change: Change = lambda camera: camera) -> float:
    """Return the median distance of all tangents [pixel]; NaN where fewer than `FEW` are known."""
    apart = pairwise(group, change).abs()
    return float(apart.nanmedian()) if int(apart.isfinite().sum()) >= FEW else torch.nan


def pairwise(group: Sequence[Rim], change: Change = lambda camera: camera) -> Float[Tensor, " n"]:
    """Return the distances of the tangents of all pairs of at most `WITNESSES` views, each pair once [pixel]."""
    few = evenly(group, WITNESSES)
    above = torch.ones(len(few), len(few), dtype=torch.bool).triu(1)
    return distances(few, few, change)[above].flatten()


def _rim(camera: Camera, mask: Tensor | None) -> Rim:
    """Return the outermost points of a mask, between pixels: where its average over 3 x 3 pixels is a half."""
    if mask is None or isinstance(camera.projection, Orthographic):
        return Rim(camera, torch.zeros(0, 2).double())
    block = -(-max(mask.shape) // LARGEST)
    share = avg_pool2d(avg_pool2d(mask.float()[None], block), 3, 1, 1, count_include_pad=False)[0].double() - 0.5
    found = []
    for table, order in ((share, (0, 1)), (share.T, (1, 0))):
        before, after = table[:, :-1], table[:, 1:]
        row, column = torch.nonzero((before > 0) != (after > 0), as_tuple=True)
        part = before[row, column] / (before[row, column] - after[row, column])
        found.append(torch.stack([column + 0.5 + part, row + 0.5], 1)[:, list(order)] * block)
    pixel = torch.cat(found)
    angle = torch.arange(DIRECTIONS).double() * (2 * torch.pi / DIRECTIONS)
    outermost = (pixel @ torch.stack([angle.cos(), angle.sin()])).argmax(0) if len(pixel) else slice(0)
    return Rim(camera, pixel[outermost])


@dataclass(frozen=True)
class Bundle:
    """The rays through the outermost points of outlines."""

    centre: Float[Tensor, "v 3"]
    """Camera centres [unit of the data]."""
    direction: Float[Tensor, "v d 3"]
    """Unit vectors."""
    pixel: Float[Tensor, " v"]
    """The angle of a pixel at the optical axis [radian]."""
    inside: Bool[Tensor, "v d"]
    """Whether points are away from the border of the picture."""


def _bundle(group: Sequence[Rim], change: Change) -> Bundle:
    parts = [_rays(change(rim.camera), rim.pixel) for rim in group]
    return Bundle(*(torch.stack([part[k] for part in parts]) for k in range(4)))


def _rays(camera: Camera, pixel: Float[Tensor, "_ 2"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what a bundle holds of one view; where nothing is inside, no tangent is known."""
    centre = camera.centre.detach().double()
    angle = camera.projection.pixel_size(camera.K.detach().double(), 1.0).min()
    if len(pixel) == 0:
        return centre, torch.ones(DIRECTIONS, 3).double(), angle, torch.zeros(DIRECTIONS, dtype=torch.bool)
    direction = camera.rays(pixel, dtype=torch.float64).direction.detach()
    size = torch.tensor([camera.width, camera.height]).double()
    inside = ((pixel > BORDER) & (pixel < size - BORDER)).all(1)
    return centre, direction / direction.norm(dim=1, keepdim=True), angle, inside


def _apart(own: Bundle, i: int, others: Bundle) -> Float[Tensor, "w 2"]:
    """Return the distances of the tangents of view i from those of others."""
    baseline = others.centre - own.centre[i]
    length = baseline.norm(dim=1)
    axis = baseline / length.clamp_min(1e-30)[:, None]
    middle = own.direction[i].mean(0)
    ahead = middle - (axis @ middle)[:, None] * axis
    aside = ahead.norm(dim=1)
    zero = ahead / aside.clamp_min(1e-30)[:, None]  # planes are counted from the one through the middle of the outline
    frame = torch.stack([zero, torch.linalg.cross(axis, zero), axis], 1)
    one = Bundle(*(table[i : i + 1] for table in (own.centre, own.direction, own.pixel, own.inside)))
    here, there = _first_and_last(one, frame), _first_and_last(others, frame)
    apart = (here[0] - there[0]) / (here[1] ** 2 + there[1] ** 2).sqrt()
    return torch.where(((length > 0) & (aside > 0.2))[:, None], apart, torch.nan)


def _first_and_last(bundle: Bundle, frame: Float[Tensor, "w 3 3"]) -> tuple[Float[Tensor, "w 2"], Float[Tensor, "w 2"]]:
    """Return the angles of the first and the last plane that meet an outline, and what a pixel is worth there [radian].

    Args:
        bundle: one view, or as many as there are baselines.
        frame: rows are the axes that the angle is counted from and towards, and the unit baseline.
    """
    d = bundle.direction.expand(len(frame), -1, -1)
    x, y, along = torch.einsum("wdk,wak->awd", d, frame)
    plane = torch.atan2(y, x)
    ends = torch.stack([plane.argmin(1), plane.argmax(1)], 1)
    angle = plane.gather(1, ends)
    span = angle.diff(dim=1)
    low, high = _at_border(plane, bundle.inside), -_at_border(-plane, bundle.inside)
    gap = torch.stack([low - angle[:, 0], angle[:, 1] - high], 1)
    known = (span < WIDEST) & (gap > BEYOND * span)
    sine = (1 - along.gather(1, ends) ** 2).clamp_min(1e-12).sqrt()
    return torch.where(known, angle, torch.nan), bundle.pixel[:, None] / sine


def _at_border(plane: Float[Tensor, "w d"], inside: Bool[Tensor, "_ d"]) -> Float[Tensor, " w"]:
    """Return the least angle of the points at the border of the picture; infinite if there are none."""
    return torch.where(inside, torch.inf, plane).amin(1)

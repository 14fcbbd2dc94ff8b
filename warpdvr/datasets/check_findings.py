"""What check-data says of what it measured: each finding with its remedy."""

from collections.abc import Sequence, Set
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.rotation import MIRRORED
from warpdvr.datasets.check_colours import EXPOSURE, Colours
from warpdvr.datasets.check_hull import Outline
from warpdvr.datasets.check_intrinsics import PrincipalPoint
from warpdvr.datasets.check_views import Agreement, belongs_to, same_mask
from warpdvr.datasets.views import Views

LOW, FAIR = 0.5, 0.8
"""Median overlap of hull and masks below which the data are wrong, and below which they are doubtful."""

APART, TIMES = 1.5, 6.0
"""A view is named if the tangents of its outline lie apart from the others' by more than APART pixels, and by TIMES the
median of all views. On right data the worst view has 0.1 to 0.6 pixels, at most twice the median."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or may be."""

    kind: str
    """Short name, such as "inverted-poses"."""
    severity: int
    """1: doubtful, 2: wrong."""
    text: str
    """What was found, for the user."""
    remedy: str = ""
    """What to do."""
    views: tuple[str, ...] = ()
    """Names of the views that it concerns; () if it concerns all."""

    def __str__(self) -> str:
        return f"{self.text}; try: {self.remedy}" if self.remedy else self.text


def unreadable(message: str) -> Finding:
    """Return the finding for data that cannot be read; a rotation of determinant -1 is a mirrored frame."""
    if MIRRORED in message:
        remedy = "negate one axis of the world, or one axis of every camera, so that the determinant is +1"
        return Finding("mirrored-frame", 2, f"the frame is mirrored (determinant -1): {message}", remedy)
    return Finding("unreadable", 2, message)


def check_places(views: Views) -> list[Finding]:
    """Find cameras that stand in one place."""
    centres = torch.stack([camera.centre.detach().double() for camera in views.cameras])
    spread = float((centres - centres.mean(0)).norm(dim=1).max())
    if len(views) > 1 and spread <= 1e-9 * float(centres.norm(dim=1).max()):
        text = "all cameras stand in one place, so nothing can be seen of the object's shape"
        return [Finding("one-place", 2, text, "give every picture of a turntable its own pose")]
    return []


def check_overlap(median: float) -> list[Finding]:
    """Find masks that do not agree, for no reason that is known."""
    if median >= FAIR:
        return []
    text = f"masks and cameras do not agree: the projected hull covers {100 * median:.0f} % of the masks"
    remedy = "check the masks and the calibration; none of the conventions that were tried fits clearly better"
    return [Finding("overlap", 2 if median < LOW else 1, text, remedy)]


def check_focal(factor: float, before: float, after: float) -> list[Finding]:
    """Find a wrong focal length; `before` and `after` are the distances of tangents without and with the factor."""
    if factor == 1:
        return []
    text = (
        f"the focal length is wrong: with {factor:.3g} times K's the outlines are {after:.1f} pixels apart in place of "
        f"{before:.1f}"
    )
    remedy = f"multiply fx and fy of every K by {factor:.3g}; do pictures and K have one size, and is f in pixels?"
    return [Finding("focal-length", 2, text, remedy)]


def check_half_pixel(point: PrincipalPoint | None) -> list[Finding]:
    """Find pixels that are counted from their centres where they should be from their corners, or the reverse."""
    if point is None or not point.half_pixel:
        return []
    x, y = point.shift.tolist()
    text = f"all principal points are off by half a pixel: outlines ask for ({x:+.2f}, {y:+.2f})"
    remedy = f"{'add' if point.half_pixel > 0 else 'subtract'} 0.5 {'to' if point.half_pixel > 0 else 'from'} cx and cy"
    return [Finding("half-pixel", 1, text, f"{remedy} of every K")]


def check_views(
    group: Sequence[Outline],
    agreed: Agreement,
    apart: Sequence[float],
    swapped: tuple[int, int] | None,
    names: Sequence[str],
) -> list[Finding]:
    """Find out what is wrong with the views that disagree: by their hull, or as their tangents lie apart [pixel].

    Two of them have changed places if each mask fits the other's camera, or if colours say so (`swapped`).
    """
    median = float(torch.tensor(apart).nanmedian())
    far = [i for i in range(len(apart)) if apart[i] > max(APART, TIMES * median)]
    owner = {i: belongs_to(group, agreed, i) for i in dict.fromkeys([*agreed.outliers, *far])}
    if swapped and owner.keys() >= set(swapped):
        owner |= {swapped[0]: swapped[1], swapped[1]: swapped[0]}
    findings: list[Finding] = []
    done: set[int] = set()
    for i, j in owner.items():
        if i in done:
            continue
        if j is not None and owner.get(j) == i:
            pair = tuple(sorted((names[i], names[j])))
            findings.append(Finding("swapped-pictures", 2, *_swapped(pair), pair))
            done.add(j)
        elif j is not None and same_mask(group[i], group[j]):
            text = f"the mask of {names[i]} is that of {names[j]}"
            findings.append(Finding("mask-of-another-view", 2, text, "give the view its own mask", (names[i],)))
        else:
            like = f" (its mask fits the camera of {names[j]})" if j is not None else ""
            by = f", its outline is {apart[i]:.1f} pixels off" if apart[i] == apart[i] else ""
            text = f"view {names[i]} disagrees with all others: overlap {agreed.overlap[i]:.2f}{by}{like}"
            remedy = "correct its pose or its mask, or leave it out"
            findings.append(Finding("wrong-pose", 2, text, remedy, (names[i],)))
    return findings


def _swapped(pair: tuple[str, ...]) -> tuple[str, str]:
    return f"the pictures of {pair[0]} and {pair[1]} have changed places", "swap them"


def check_colours(colours: Colours, names: Sequence[str]) -> list[Finding]:
    """Find pictures whose colours do not fit, though the outlines do."""
    if colours.swapped:
        pair = tuple(names[i] for i in colours.swapped)
        return [Finding("swapped-pictures", 2, *_swapped(pair), pair)]
    if not colours.odd:
        return []
    odd = tuple(names[i] for i in colours.odd)
    text = f"the colours of {', '.join(odd)} do not fit those of the neighbours, though the outlines do"
    return [Finding("wrong-pose", 1, text, "check poses and pictures, or leave them out", odd)]


def check_frame(views: Views, x: Float[Tensor, "n 3"]) -> list[Finding]:
    """Find a scene frame that does not hold the object; the data's own frame promises nothing."""
    if torch.equal(views.transform.matrix, torch.eye(4).to(views.transform.matrix)):
        return []
    middle, radius = (x.amin(0) + x.amax(0)) / 2, float((x - x.mean(0)).norm(dim=1).max())
    farthest = float(x.norm(dim=1).max())
    if radius > 0.25 and farthest < 1.6:
        return []
    text = (
        f"the scene frame does not fit the object: its middle is at ({', '.join(f'{c:.2f}' for c in middle.tolist())}) "
        f"and its radius {radius:.2f}, expected it to fill the unit sphere"
    )
    return [Finding("scene-frame", 2, text, "correct scale_mat, or leave it out of the file")]


def check_exposures(exposure: Sequence[float], names: Sequence[str], named: Set[str]) -> list[Finding]:
    """Find pictures that are brighter or darker than those of the nearest views."""
    odd = [
        i
        for i, ratio in enumerate(exposure)
        if not 1 / EXPOSURE < ratio < EXPOSURE and ratio == ratio and names[i] not in named
    ]
    if not odd:
        return []
    listed = ", ".join(f"{names[i]} ({exposure[i]:.2f} times)" for i in odd[:5])
    text = f"{len(odd)} views differ in brightness from their neighbours: {listed}"
    remedy = "develop all photographs with the same exposure and white balance"
    return [Finding("exposure", 1, text, remedy, tuple(names[i] for i in odd))]

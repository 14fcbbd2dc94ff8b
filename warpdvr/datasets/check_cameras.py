"""Other conventions that cameras and masks may have, each judged by how well its visual hull fits the masks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.datasets.check_hull import Outline, carve

VIEWS, PER_SIDE = 16, 36
"""Views and cells along each side with which candidates are compared; on right data the score is 0.88 to 0.96."""

MARGIN, ENOUGH = 0.08, 0.7
"""A candidate is named if its score is higher by this much, and at least this high. The nearest rival of a right
calibration is a turntable in a mirror: on the photographs of a figure by a ring of cameras it has 0.82 against 0.93."""

CLEAR = 0.85
"""A hull that all views agree on to this extent needs no other to compare with."""

T = TypeVar("T")

Change = Callable[[Sequence[Outline]], tuple[Outline, ...]]


@dataclass(frozen=True)
class Candidate:
    """Another reading of the same numbers."""

    kind: str
    """Short name of the fault."""
    fault: str
    """What is wrong with the data if this fits better."""
    remedy: str
    """What to do."""
    change: Change
    """Returns the views in this reading."""


def score(group: Sequence[Outline]) -> float:
    """Return the median intersection over union of the hull's outlines and the masks, 0 to 1.

    The better of two hulls counts: one that all views agree on, and one from which an eighth of them may dissent, so
    that a single bad view does not spoil the score.
    """
    group = evenly(group, VIEWS)
    strict = _median_overlap(group, 0)
    if strict >= CLEAR or len(group) < 8:
        return strict
    return max(strict, _median_overlap(group, len(group) // 8))


def evenly(group: Sequence[T], count: int) -> tuple[T, ...]:
    """Return at most `count` of the items, evenly spread."""
    if len(group) <= count:
        return tuple(group)
    return tuple(group[int((i + 0.5) * len(group) / count)] for i in range(count))


def candidates(group: Sequence[Outline], opengl: bool) -> tuple[Candidate, ...]:
    """Return all other readings that are tried; `opengl` says whether the format has OpenGL axes."""
    axes = ("opencv-axes", "OpenCV", "OpenGL") if opengl else ("opengl-axes", "OpenGL", "OpenCV")
    return (
        Candidate(
            axes[0],
            f"the poses have {axes[1]} axes, but the format has {axes[2]} ones",
            "flip the y and z axes of every camera (multiply its camera-to-world rotation by diag(1, -1, -1) from the "
            "right)",
            lambda views: _turned(views, (1, -1, -1)),
        ),
        Candidate(
            "inverted-poses",
            "the poses are inverted (camera to world in place of world to camera, or the reverse)",
            "invert every 4 x 4 pose",
            _inverted,
        ),
        Candidate(
            "mirrored-frame",
            "the frame is mirrored: one axis has the wrong sign (left-handed coordinates, determinant -1)",
            "negate the x axis of every camera, or turn the pictures and masks over, left to right",
            lambda views: _turned(views, (-1, 1, 1)),
        ),
        Candidate(
            "mirrored-frame",
            "the frame is mirrored and seen from behind: the matrices have determinant -1",
            "negate one axis of the world in cameras and points",
            lambda views: _turned(views, (-1, -1, -1)),
        ),
        Candidate(
            "mirrored-frame",
            "the frame is mirrored: the z axes of the cameras have the wrong sign (determinant -1)",
            "negate the z axis of every camera",
            lambda views: _turned(views, (1, 1, -1)),
        ),
        *(_sized(factor) for factor in _factors(group)),
        Candidate("inverted-masks", "the masks are inverted: white is the background", "invert the masks", _negative),
        *(_ordered(step) for step in (1, -1)),
    )


def _turned(views: Sequence[Outline], signs: tuple[int, int, int]) -> tuple[Outline, ...]:
    sign = torch.tensor(signs, dtype=torch.float32)[:, None]
    return tuple(replace(view, turn=sign * view.turn) for view in views)


def _inverted(views: Sequence[Outline]) -> tuple[Outline, ...]:
    """Return views with inverted poses: the rotation transposed, the centre where the shift was."""
    return tuple(replace(view, turn=view.turn.T, centre=-view.turn @ view.centre) for view in views)


def _negative(views: Sequence[Outline]) -> tuple[Outline, ...]:
    return tuple(replace(view, mask=~view.mask) for view in views)


def _sized(factor: float) -> Candidate:
    """Return the candidate whose K is for pictures `factor` times as large as these."""
    scale = torch.tensor([1 / factor, 1 / factor, 1.0])[:, None]
    return Candidate(
        "picture-size",
        f"K is for pictures {factor:.4g} times as large as these",
        f"divide the first two rows of every K by {factor:.4g}, or give the pictures that the calibration was made for",
        lambda views: tuple(replace(view, K=scale * view.K) for view in views),
    )


def _factors(group: Sequence[Outline]) -> tuple[float, ...]:
    """Return sizes of pictures that K may be for, relative to these: common ones, and that of the principal point."""
    common = (2.0, 0.5, 4.0, 0.25)
    sizes = torch.tensor([view.mask.shape[::-1] for view in group]).float()
    middle = torch.stack([view.K[:2, 2] for view in group])
    guess = float((2 * middle / sizes).median())
    known = any(abs(guess / factor - 1) < 0.05 for factor in (1.0, *common))
    return common if known or not 0.1 < guess < 10 else (*common, guess)


def _ordered(step: int) -> Candidate:
    """Return the candidate whose masks belong to the next or the last camera."""

    def change(views: Sequence[Outline]) -> tuple[Outline, ...]:
        return tuple(replace(view, mask=views[(i + step) % len(views)].mask) for i, view in enumerate(views))

    where = "later" if step > 0 else "earlier"
    return Candidate(
        "order",
        f"pictures and cameras are in different orders: every camera fits the mask one place {where}",
        "compare the names of the pictures with the order of the cameras (1, 10, 2 or 1, 2, 10)",
        change,
    )


def best_candidate(
    group: Sequence[Outline], shift: Float[Tensor, "3"], opengl: bool, least: float
) -> tuple[Candidate | None, float]:
    """Return the reading with the highest score, and that score; None if none is clearly better than `least`.

    Args:
        group: views with masks, in a frame whose origin is at `shift` of the data's.
        shift: the origin [unit of the data]; inverted poses are tried in the data's own frame.
        opengl: whether the format has OpenGL axes.
        least: the score of the views as they are.
    """
    found: tuple[Candidate | None, float] = (None, 0.0)
    for candidate in candidates(group, opengl):
        own = _moved(group, shift) if candidate.change is _inverted else group
        if candidate.kind != "order":
            own = evenly(own, VIEWS)
        if (value := score(candidate.change(own))) > found[1]:
            found = candidate, value
    clear = found[1] >= max(least + MARGIN, ENOUGH)
    return found if clear else (None, found[1])


def _moved(views: Sequence[Outline], shift: Float[Tensor, "3"]) -> tuple[Outline, ...]:
    return tuple(replace(view, centre=(view.centre.double() + shift).float()) for view in views)


def _median_overlap(group: Sequence[Outline], dissent: int) -> float:
    hull = carve(group, dissent, PER_SIDE)
    if len(hull.x) == 0:
        return 0.0
    return float(torch.tensor([hull.overlap(view) for view in group]).median())

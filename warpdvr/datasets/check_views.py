"""Single views that disagree with the others, and which of them have changed places."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import interpolate

from warpdvr.datasets.check_cameras import evenly
from warpdvr.datasets.check_hull import Hull, Outline, carve

SUSPECTS, CARVERS, WITNESSES, CELLS = 4, 30, 20, 48
"""How many of the views that fit the hull worst are tried at a time, how many others carve it and judge it, and the
cells along each side of its box."""

CONTROLS = 4
"""How many views that agree are left out for comparison: thin parts fray, so that any view may be worth leaving out."""

GAIN, DROP = 0.008, 0.05
"""A view disagrees if the other views' overlap rises by GAIN more without it than without any of the controls, and its
own is DROP below their median."""


@dataclass(frozen=True)
class Agreement:
    """How well every view agrees with the hull of those that agree."""

    hull: Hull
    """Carved from the views that agree."""
    overlap: tuple[float, ...]
    """Per view, intersection over union of the hull's outline and its mask."""
    outliers: tuple[int, ...]
    """Views that disagree, the worst first."""

    @property
    def median(self) -> float:
        """The median overlap of the views."""
        return float(torch.tensor(self.overlap).median())


def agreement(group: Sequence[Outline]) -> Agreement:
    """Find the views that disagree, one after the other, and carve the hull of the others; at most a fifth are found.

    With fewer than five views nobody can tell who is wrong: then none is named.
    """
    inside, removed = list(range(len(group))), []
    for _ in range(max(2, len(group) // 5) if len(group) >= 5 else 0):
        worst = _worst(group, inside)
        if worst is None:
            break
        inside.remove(worst)
        removed.append(worst)
    hull = carve([group[i] for i in inside])
    overlap = tuple(hull.overlap(view) for view in group)
    median = float(torch.tensor([overlap[i] for i in inside]).median())
    outliers = tuple(i for i in removed if overlap[i] < median - DROP)
    return Agreement(hull, overlap, outliers)


def _worst(group: Sequence[Outline], inside: Sequence[int]) -> int | None:
    """Return the view without which the others agree best, if that is a clear gain."""
    own = [group[i] for i in evenly(inside, CARVERS)]
    robust = carve(own, 2 if len(own) >= 12 else 1, CELLS)
    overlap = {i: robust.overlap(group[i]) for i in inside}
    median = float(torch.tensor([*overlap.values()]).median())
    suspects = [i for i in sorted(inside, key=lambda i: overlap[i]) if overlap[i] < median - DROP / 2][:SUSPECTS]
    if not suspects:
        return None
    others = [i for i in evenly(inside, CARVERS) if i not in suspects]
    witnesses = [group[i] for i in evenly(others, WITNESSES)]

    def mean_overlap(carvers: Sequence[int]) -> float:
        hull = carve([group[i] for i in carvers], 0, CELLS)
        return float(torch.tensor([hull.overlap(view) for view in witnesses]).mean())

    base = mean_overlap([*others, *suspects])
    gains = {i: mean_overlap([*others, *(j for j in suspects if j != i)]) - base for i in suspects}
    best = max(gains, key=lambda i: gains[i])
    if gains[best] <= GAIN:
        return None
    if any(same_mask(group[best], view) for j, view in enumerate(group) if j != best):
        return best  # a mask that occurs twice needs no further witness
    controls = [mean_overlap([*(j for j in others if j != i), *suspects]) - base for i in evenly(others, CONTROLS)]
    return best if gains[best] > GAIN + max(0.0, *controls) else None


def belongs_to(group: Sequence[Outline], agreed: Agreement, i: int) -> int | None:
    """Return the view whose camera the mask of view `i` fits, or None if it fits no other clearly better."""
    mask = group[i].mask
    fits = {
        j: _intersection(mask, _drawn(agreed.hull, view))
        for j, view in enumerate(group)
        if j != i and view.mask.shape == mask.shape
    }
    if not fits:
        return None
    best = max(fits, key=lambda j: fits[j])
    return best if fits[best] > max(agreed.median - DROP, agreed.overlap[i] + DROP) else None


def same_mask(a: Outline, b: Outline) -> bool:
    """Return whether two views have one and the same mask."""
    return a.mask.shape == b.mask.shape and _intersection(a.mask, b.mask) > 0.995


def _drawn(hull: Hull, view: Outline) -> Bool[Tensor, "_ _"]:
    """Return the hull's outline in the pixels of a view."""
    drawn, _ = hull.silhouette(view)
    return interpolate(drawn[None, None].float(), size=view.mask.shape, mode="bilinear")[0, 0] > 0.5


def _intersection(a: Bool[Tensor, "h w"], b: Bool[Tensor, "h w"]) -> float:
    """Return the intersection over union."""
    return float((a & b).sum()) / max(1, int((a | b).sum()))

"""A data doctor: whether photographs, masks and cameras agree, and what would fit better."""

import json
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.rotation import MIRRORED
from warpdvr.datasets.check_cameras import VIEWS, best_candidate, evenly, score
from warpdvr.datasets.check_colours import EXPOSURE, compare_colours
from warpdvr.datasets.check_hull import Hull, Outline, outlines
from warpdvr.datasets.check_shift import best_shift, shift_errors
from warpdvr.datasets.check_views import Agreement, agreement, belongs_to, same_mask
from warpdvr.datasets.formats import ReadOptions
from warpdvr.datasets.load import detect, require_folder
from warpdvr.datasets.views import Views

LOW, FAIR = 0.5, 0.8
"""Median overlap of hull and masks below which the data are wrong, and below which they are doubtful."""

STATUS = ("good", "check", "wrong")
"""The first word of a verdict, by its exit status."""


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


@dataclass(frozen=True)
class DataReport:
    """What was found about a data set."""

    summary: str
    """What was read, or why it could not be."""
    findings: tuple[Finding, ...]
    """What is wrong, the worst first; empty if all is well."""
    score: float | None = None
    """Median intersection over union of masks and the projected hull, 0 to 1; None without masks."""
    overlap: tuple[tuple[str, float], ...] = ()
    """The same per view with a mask, by name."""
    exposure: tuple[tuple[str, float], ...] = ()
    """Brightness relative to the nearest views, per view with a mask; NaN where nothing is seen by both."""
    hull: Float[Tensor, "n 3"] | None = None
    """Centres of the hull's cells, float32 [scene unit of the views]; None without masks."""
    views: Views | None = None
    """The views; None if they could not be read."""

    @property
    def status(self) -> int:
        """0: good, 1: doubtful, 2: wrong, or cannot be read."""
        return max((finding.severity for finding in self.findings), default=0)

    @property
    def verdict(self) -> str:
        """One line: "good", "check: ..." or "wrong: ...; try: ..."."""
        if not self.findings:
            return STATUS[0]
        more = f" (and {len(self.findings) - 1} more)" if len(self.findings) > 1 else ""
        return f"{STATUS[self.status]}: {self.findings[0]}{more}"

    def to_json(self) -> str:
        """Return everything but the views and the hull as JSON; what is not a number is null."""
        finite = {name: value if value == value else None for name, value in self.exposure}
        table = {
            "verdict": self.verdict,
            "status": self.status,
            "summary": self.summary,
            "findings": [finding.__dict__ for finding in self.findings],
            "score": self.score,
            "overlap": dict(self.overlap),
            "exposure": finite,
        }
        return json.dumps(table, indent=2)


def check_data(
    source: Path | str | Views, *, cameras: str | None = None, options: ReadOptions | None = None
) -> DataReport:
    """Examine whether photographs, masks and cameras agree, and what would fit better; nothing is differentiable.

    The visual hull of the masks is carved and projected back into every view. Other conventions of the cameras, other
    sizes and orders of the pictures are named if their hull fits the masks clearly better. Views that disagree with the
    others are named, and so are pictures that have changed places, exposures that differ, and a scene frame that does
    not hold the object. Pictures are reduced to 200 pixels; a set takes seconds.

    Without masks only the places of the cameras are examined.

    Args:
        source: folder of a data set, or views; nothing is refused, a folder that cannot be read is a finding.
        cameras: name of the camera file in the folder, if it holds several.
        options: how the folder is read; none is held out, and one view is enough.
    """
    if isinstance(source, Views):
        return _examine(source)
    try:
        detection = detect(require_folder(Path(source)), cameras=cameras)
        reading = replace(options or ReadOptions(), hold_out=0, min_views=1, locate=False)
        views = detection.format.read(detection, reading)
    except (ValueError, OSError) as error:
        return DataReport("", (_unreadable(str(error)),))
    return _examine(views)


def refuse_contradictions(views: Views, source: Path | str) -> None:
    """Refuse views whose masks and cameras contradict each other, with a guess at the reason; under two seconds.

    Views without three masks are not examined.

    Args:
        views: what was loaded; at most 20 of them are looked at.
        source: where they come from, for the message.

    Raises:
        ValueError: if the median overlap of masks and projected hull is below `LOW`, or below `FAIR` while another
            reading of the cameras or masks fits clearly better.
    """
    group, shift = _group(views.in_data_frame(), VIEWS)
    if len(group) < 3 or (found := score(group)) >= FAIR:
        return
    better, _ = best_candidate(group, shift, "OpenGL axes" in views.summary, found)
    if found >= LOW and not better:
        return
    guess = f"it seems that {better.fault}; {better.remedy}" if better else "run `warpdvr check-data` on the folder"
    raise ValueError(
        f"{source}: masks and cameras contradict each other: the hull of the masks covers {100 * found:.0f} % of them, "
        f"expected more than {100 * FAIR:.0f} %; {guess}; --no-check fits them all the same"
    )


def _unreadable(message: str) -> Finding:
    """Return the finding for data that cannot be read; a rotation of determinant -1 is a mirrored frame."""
    if MIRRORED in message:
        remedy = "negate one axis of the world, or one axis of every camera, so that the determinant is +1"
        return Finding("mirrored-frame", 2, f"the frame is mirrored (determinant -1): {message}", remedy)
    return Finding("unreadable", 2, message)


def _group(views: Views, most: int | None = None) -> tuple[tuple[Outline, ...], Float[Tensor, "3"]]:
    """Return the views with masks, all or evenly spread, and the origin of their frame."""
    shift = torch.stack([camera.centre.detach() for camera in views.cameras]).double().mean(0)
    masked = [i for i, mask in enumerate(views.masks) if mask is not None]
    return outlines(views, shift, masked if most is None else evenly(masked, most)), shift


def _examine(views: Views) -> DataReport:
    """Examine views."""
    data = views.in_data_frame()
    group, shift = _group(data)
    placed = _check_places(views)
    if len(group) < 3 or placed:
        few = Finding(
            "no-masks",
            1,
            f"{len(group)} of {len(views)} views have a mask, so only the places of the cameras could be examined",
            "give masks, or pictures with alpha",
        )
        return DataReport(views.summary, tuple(placed) or (few,), views=views)
    found = score(group)
    better, value = best_candidate(group, shift, "OpenGL axes" in views.summary, found)
    names = [name for name, mask in zip(views.names, views.masks, strict=True) if mask is not None]
    if better:
        rates = f"the hull of the masks then covers {100 * value:.0f} % of them in place of {100 * found:.0f} %"
        finding = Finding(better.kind, 2, f"{better.fault} ({rates})", better.remedy)
        return DataReport(views.summary, (finding,), found, views=views)
    agreed = agreement(group)
    findings = _check_overlap(agreed.median) + _check_views(group, agreed, names)
    colours = compare_colours(agreed.hull, group)
    if colours.swapped and not findings:
        pair = tuple(names[i] for i in colours.swapped)
        findings.append(Finding("swapped-pictures", 2, *_swapped(pair), pair))
    elif colours.odd and not findings:
        odd = tuple(names[i] for i in colours.odd)
        text = f"the colours of {', '.join(odd)} do not fit those of the neighbours, though the outlines do"
        findings.append(Finding("wrong-pose", 1, text, "check poses and pictures, or leave them out", odd))
    x = (agreed.hull.x.double() + shift) if len(agreed.hull.x) else agreed.hull.x.double()
    scene = views.transform.inverse().apply(x).float()
    if not findings:
        findings += _check_frame(views, scene) or _check_shift(data, agreed.hull, shift)
    named = {name for finding in findings for name in finding.views}  # whose colours are those of other views
    findings += _check_exposure(colours.exposure, names, named)
    return DataReport(
        views.summary,
        tuple(sorted(findings, key=lambda finding: -finding.severity)),
        agreed.median,
        tuple(zip(names, agreed.overlap, strict=True)),
        tuple(zip(names, colours.exposure, strict=True)),
        scene,
        views,
    )


def _check_places(views: Views) -> list[Finding]:
    """Find cameras that stand in one place."""
    centres = torch.stack([camera.centre.detach().double() for camera in views.cameras])
    spread = float((centres - centres.mean(0)).norm(dim=1).max())
    if len(views) > 1 and spread <= 1e-9 * float(centres.norm(dim=1).max()):
        text = "all cameras stand in one place, so nothing can be seen of the object's shape"
        return [Finding("one-place", 2, text, "give every picture of a turntable its own pose")]
    return []


def _check_overlap(median: float) -> list[Finding]:
    """Find masks that do not agree, for no reason that is known."""
    if median >= FAIR:
        return []
    text = f"masks and cameras do not agree: the projected hull covers {100 * median:.0f} % of the masks"
    remedy = "check the masks and the calibration; none of the conventions that were tried fits clearly better"
    return [Finding("overlap", 2 if median < LOW else 1, text, remedy)]


def _check_views(group: Sequence[Outline], agreed: Agreement, names: Sequence[str]) -> list[Finding]:
    """Find out what is wrong with the views that disagree."""
    owner = {i: belongs_to(group, agreed, i) for i in agreed.outliers}
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
            text = f"view {names[i]} disagrees with all others: overlap {agreed.overlap[i]:.2f}{like}"
            findings.append(
                Finding("wrong-pose", 2, text, "correct its pose or its mask, or leave it out", (names[i],))
            )
    return findings


def _swapped(pair: tuple[str, ...]) -> tuple[str, str]:
    return f"the pictures of {pair[0]} and {pair[1]} have changed places", "swap them"


def _check_frame(views: Views, x: Float[Tensor, "n 3"]) -> list[Finding]:
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


def _check_shift(data: Views, hull: Hull, shift: Float[Tensor, "3"]) -> list[Finding]:
    """Find a shift of half a pixel."""
    errors = shift_errors(data, hull, shift)
    best = best_shift(errors)
    if best == 0:
        return []
    text = (
        f"the outlines of all views agree better by {errors[0.0] - errors[best]:.2f} pixels if shifted by half a pixel"
    )
    remedy = f"{'subtract' if best > 0 else 'add'} 0.5 {'from' if best > 0 else 'to'} cx and cy of every K"
    return [Finding("half-pixel", 1, text, remedy)]


def _check_exposure(exposure: Sequence[float], names: Sequence[str], named: Set[str]) -> list[Finding]:
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

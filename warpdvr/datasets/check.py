"""A data doctor: whether photographs, masks and cameras agree, and what would fit better."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.datasets.check_cameras import VIEWS, best_candidate, evenly, score
from warpdvr.datasets.check_colours import compare_colours
from warpdvr.datasets.check_findings import (
    FAIR,
    LOW,
    Finding,
    check_colours,
    check_exposures,
    check_focal,
    check_frame,
    check_half_pixel,
    check_overlap,
    check_places,
    check_views,
    unreadable,
)
from warpdvr.datasets.check_hull import Outline, outlines
from warpdvr.datasets.check_intrinsics import PrincipalPoint, best_focal, principal_point, unseen
from warpdvr.datasets.check_tangents import Rim, median_distance, rims, view_distances
from warpdvr.datasets.check_views import agreement
from warpdvr.datasets.formats import ReadOptions
from warpdvr.datasets.load import detect, require_folder
from warpdvr.datasets.views import Views

STATUS = ("good", "check", "wrong")
"""The first word of a verdict, by its exit status."""

MASKLESS = "everything but the places of the cameras, without masks"
REST = "what else may be wrong, before this is corrected"
"""What is said not to have been seen."""


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
    epipolar: float | None = None
    """Median distance of the tangent planes that two views share [pixel]; None if it is unknown."""
    distances: tuple[tuple[str, float], ...] = ()
    """The same per view with a mask, by name; NaN where it is unknown."""
    principal_point: PrincipalPoint | None = None
    """What all principal points would have to be moved by; None if it is unknown."""
    unseen: tuple[str, ...] = ()
    """Faults that these data do not show, if they have them."""

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
        table = {
            "verdict": self.verdict,
            "status": self.status,
            "summary": self.summary,
            "findings": [finding.__dict__ for finding in self.findings],
            "score": self.score,
            "overlap": dict(self.overlap),
            "exposure": _finite(self.exposure),
            "epipolar": self.epipolar,
            "distances": _finite(self.distances),
            "principal_point": None if self.principal_point is None else self.principal_point.table(),
            "unseen": self.unseen,
        }
        return json.dumps(table, indent=2)


def _finite(values: Sequence[tuple[str, float]]) -> dict[str, float | None]:
    return {name: value if value == value else None for name, value in values}


def check_data(
    source: Path | str | Views, *, cameras: str | None = None, options: ReadOptions | None = None
) -> DataReport:
    """Examine whether photographs, masks and cameras agree, and what would fit better; nothing is differentiable.

    The visual hull of the masks is carved and projected back into every view. Other conventions of the cameras, other
    sizes and orders of the pictures are named if their hull fits the masks clearly better. Views that disagree with the
    others are named, and so are pictures that have changed places, exposures that differ, and a scene frame that does
    not hold the object. Tangents of the outlines in the planes that two views share tell a wrong focal length, half a
    pixel and single wrong poses. What could not be seen is said. For the hull pictures are reduced to 200 pixels; a set
    takes seconds.

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
        return DataReport("", (unreadable(str(error)),))
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


def _group(views: Views, most: int | None = None) -> tuple[tuple[Outline, ...], Float[Tensor, "3"]]:
    """Return the views with masks, all or evenly spread, and the origin of their frame."""
    shift = torch.stack([camera.centre.detach() for camera in views.cameras]).double().mean(0)
    masked = [i for i, mask in enumerate(views.masks) if mask is not None]
    return outlines(views, shift, masked if most is None else evenly(masked, most)), shift


def _examine(views: Views) -> DataReport:
    """Examine views: first their places, then what all have in common, then single ones."""
    data = views.in_data_frame()
    group, origin = _group(data)
    placed = check_places(views)
    if len(group) < 3 or placed:
        few = Finding(
            "no-masks",
            1,
            f"{len(group)} of {len(views)} views have a mask, so only the places of the cameras could be examined",
            "give masks, or pictures with alpha",
        )
        return DataReport(views.summary, tuple(placed) or (few,), views=views, unseen=(MASKLESS,))
    found = score(group)
    better, value = best_candidate(group, origin, "OpenGL axes" in views.summary, found)
    if better:
        rates = f"the hull of the masks then covers {100 * value:.0f} % of them in place of {100 * found:.0f} %"
        finding = Finding(better.kind, 2, f"{better.fault} ({rates})", better.remedy)
        return DataReport(views.summary, (finding,), found, views=views, unseen=(REST,))
    rim = rims(data)
    factor, after = best_focal(rim)
    before = median_distance(rim)
    if focal := check_focal(factor, before, after):
        return DataReport(views.summary, tuple(focal), found, views=views, epipolar=before, unseen=(REST,))
    return _examine_views(views, group, origin, rim)


def _examine_views(
    views: Views, group: Sequence[Outline], origin: Float[Tensor, "3"], rim: Sequence[Rim]
) -> DataReport:
    """Examine views one by one; `group` and `rim` are those with masks, `origin` is that of the group's frame."""
    names = [name for name, mask in zip(views.names, views.masks, strict=True) if mask is not None]
    agreed, apart, point = agreement(group), view_distances(rim), principal_point(rim)
    colours = compare_colours(agreed.hull, group)
    x = agreed.hull.x.double()
    scene = views.transform.inverse().apply(x + origin if len(x) else x).float()
    findings = check_overlap(agreed.median) + check_views(group, agreed, apart, colours.swapped, names)
    findings = findings or check_colours(colours, names) or check_frame(views, scene) or check_half_pixel(point)
    named = {name for finding in findings for name in finding.views}  # whose colours are those of other views
    findings += check_exposures(colours.exposure, names, named)
    epipolar = median_distance(rim)
    return DataReport(
        views.summary,
        tuple(sorted(findings, key=lambda finding: -finding.severity)),
        agreed.median,
        tuple(zip(names, agreed.overlap, strict=True)),
        tuple(zip(names, colours.exposure, strict=True)),
        scene,
        views,
        epipolar if epipolar == epipolar else None,
        tuple(zip(names, apart, strict=True)),
        point,
        unseen(rim, point),
    )

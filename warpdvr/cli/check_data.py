"""The command that examines a data set before it is fitted."""

from dataclasses import dataclass, field
from pathlib import Path

from warpdvr.cli.arguments import FromFolder, named, positional
from warpdvr.datasets.check import DataReport, check_data
from warpdvr.datasets.check_picture import draw_report
from warpdvr.datasets.formats import ReadOptions
from warpdvr.datasets.load import FORMATS
from warpdvr.datasets.unrecognised import describe_formats
from warpdvr.runtime.files import check_file, following_links


@dataclass(frozen=True, kw_only=True)
class CheckDataArguments(FromFolder):
    """Find out whether photographs, masks and cameras agree, and what would fit better.

    The exit status is 0 if the data are good, 1 if they are doubtful, and 2 if they are wrong or cannot be read.
    """

    folder: Path = field(metadata=positional("FOLDER"))
    """Photographs with cameras, and masks."""
    cameras: str | None = field(default=None, metadata=named("FILE", usual="the only one"))
    """Name of the camera file in FOLDER, where it holds several."""
    out: Path = field(default=Path("check-data.png"), metadata=named("FILE.png"))
    """Picture of the cameras, of the hull and of the views that fit it worst."""
    json: bool = False
    """Print the findings as JSON, and nothing else."""


CheckDataArguments.__doc__ = f"{CheckDataArguments.__doc__}\n    Formats that are read: {describe_formats(FORMATS)}.\n"


def check(options: CheckDataArguments) -> int:
    """Examine a data set, draw it, and print what was found; return the exit status."""
    check_file(options.out, (".png",), "the picture")
    with following_links(options.follow_links):
        report = check_data(options.folder, cameras=options.cameras, options=ReadOptions(**options.photographs))
    drawn = report.views is not None
    if report.views is not None:
        draw_report(report, options.out)
    if options.json:
        print(report.to_json())
    else:
        _print(report, options.out if drawn else None)
    return report.status


def _print(report: DataReport, picture: Path | None) -> None:
    """Print what was read, the scores of the worst views, all findings, and the verdict in the last line."""
    if report.summary:
        print(report.summary)
    if report.score is not None:
        print(f"hull       covers {100 * report.score:.1f} % of the masks (median of the views)")
    if report.overlap:
        worst = sorted(report.overlap, key=lambda pair: pair[1])[:3]
        print(f"worst      {', '.join(f'{name} {100 * value:.1f} %' for name, value in worst)}")
    if report.epipolar is not None:
        print(f"epipolar   outlines are {report.epipolar:.2f} pixels apart in the planes that two views share (median)")
    if report.principal_point is not None:
        print(f"pixels     outlines agree best with all principal points moved by {report.principal_point}")
    for fault in report.unseen:
        print(f"unseen     {fault}")
    if picture is not None:
        print(f"picture    {picture}")
    for finding in report.findings[1:]:
        print(f"also       {finding}")
    print(report.verdict)

"""The command that refines cameras against the shape of a run, and the cameras that a run leaves behind."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from warpdvr.cameras.alignment import camera_errors
from warpdvr.cameras.camera import Camera
from warpdvr.datasets.load import load, write_cameras
from warpdvr.datasets.views import Views
from warpdvr.evaluation.images import evaluate
from warpdvr.fields.base import Field
from warpdvr.fitting.pose_refinement import Refined, refine
from warpdvr.fitting.pose_residuals import SCALES
from warpdvr.rendering.background import Background
from warpdvr.runs.run import Run


def add(command: Any) -> None:
    """Add the command.

    Args:
        command: called with name, function and text; returns the parser of a command.
    """
    one = command("refine-cameras", _refine, "refine cameras against the shape of a run, which is kept")
    one.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    one.add_argument(
        "folder", type=Path, nargs="?", metavar="FOLDER", help="photographs in the frame of the run's (default: those)"
    )
    one.add_argument("--out", type=Path, required=True, metavar="FOLDER2", help="folder for the camera files")
    one.add_argument("--cameras", metavar="FILE", help="name of the camera file in FOLDER, where it holds several")
    one.add_argument("--views", nargs="+", metavar="NAME", help="refine these only, or: held-out (default: all)")
    one.add_argument(
        "--by", nargs="+", metavar="KIND", default=list(SCALES), help=f"what is compared (default: {' '.join(SCALES)})"
    )
    one.add_argument("--size", type=int, default=400, metavar="PIXELS", help="longer side at most (default: 400)")


def write_run(run: Run, views: Views) -> list[Path]:
    """Write the cameras of a run, if they were refined and came from files, to `cameras/`; return what was written.

    Cameras of held-out views are as they were given: nothing was compared with them.
    """
    scene = run.scene()
    if not scene.recipe.cameras or "folder" not in scene.views:
        return []
    own = run.load().cameras
    return write_cameras(scene.views["folder"], views, own, run.folder / "cameras", name=scene.views.get("cameras"))


def of_run(run: Run, folder: Path | None, name: str | None = None) -> tuple[Path, str | None, Views]:
    """Return photographs in the scene frame of a run, with their folder and the name of their camera file.

    Args:
        run: whose frame is meant.
        folder: of photographs whose cameras are given in the frame of the run's data; None: the run's own, with its
            cameras as they were refined.
        name: of the camera file, where the folder holds several.

    Raises:
        ValueError: if the run has no photographs in a folder, or they cannot be read.
    """
    held, scene = run.load(), run.scene()
    if folder is not None:
        return folder, name, load(folder, cameras=name, hold_out=0, normalise=False).in_scene(held.transform)
    if "folder" not in scene.views:
        raise ValueError(
            f"{run.folder}: the run has no cameras in files, its views are rendered; give a folder of photographs"
        )
    if name is not None:
        raise ValueError("--cameras names a file in FOLDER, but none is given")
    views = scene.load_views()
    return Path(scene.views["folder"]), scene.views.get("cameras"), replace(views, cameras=held.cameras)


def _refine(options: argparse.Namespace) -> None:
    run = Run.open(options.run)
    folder, name, views = of_run(run, options.folder, options.cameras)
    indices = _chosen(views, options.views)
    field = run.field(options.device)
    print(f"{len(indices)} of {len(views)} cameras are refined")

    def shown(i: int, one: Refined) -> None:
        print(f"{views.names[i]:>12}  loss {one.before:.4g} -> {one.after:.4g}  {one.tried} poses tried", flush=True)

    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"{options.out}: expected a folder for the cameras, found a file")
    cameras = refine(field, views, indices, kinds=options.by, longest=options.size, shown=shown)
    background = (
        Background.saved(run.load().fit) if options.folder is None else None
    )  # others stand before something else
    _report(field, views, cameras, indices, options.size, background)
    for path in write_cameras(folder, views, cameras, options.out, name=name):
        print(path)


def _chosen(views: Views, names: list[str] | None) -> Sequence[int]:
    """Return the indices of views by name."""
    if names is None:
        return range(len(views))
    if names == ["held-out"]:
        if not views.test:
            raise ValueError("--views held-out: no view is held out")
        return views.test
    if unknown := [name for name in names if name not in views.names]:
        raise ValueError(f"--views: there is no view {unknown[0]!r}; known are {', '.join(views.names)}")
    return [views.names.index(name) for name in names]


def _report(
    field: Field,
    views: Views,
    cameras: tuple[Camera, ...],
    indices: Sequence[int],
    longest: int,
    background: Background | None,
) -> None:
    moved = camera_errors([cameras[i] for i in indices], [views.cameras[i] for i in indices], aligned=False)
    print(f"moved by {moved} [scene unit]".replace(" off", ""))
    before, after = (
        evaluate(field, replace(views, cameras=some), indices, longest=longest, background=background)
        for some in (views.cameras, cameras)
    )
    if after.views:
        print(f"before   {before.psnr:.2f} dB inside of the mask, IoU {before.iou:.4f}, {before.views} views")
        print(f"after    {after.psnr:.2f} dB inside of the mask, IoU {after.iou:.4f}")

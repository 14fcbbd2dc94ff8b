"""The command that refines cameras against the shape of a run, and the camera files of a run."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from warpdvr.cameras.alignment import camera_errors
from warpdvr.cameras.camera import Camera
from warpdvr.cli.arguments import OnDevice, named, positional
from warpdvr.datasets.load import load, write_cameras
from warpdvr.datasets.views import Views
from warpdvr.evaluation.images import evaluate
from warpdvr.fields.base import Field
from warpdvr.fitting.pose_refinement import RefinedCamera, check_refinement, refine
from warpdvr.fitting.pose_residuals import SCALES
from warpdvr.rendering.background import Background
from warpdvr.runs.run import Run
from warpdvr.runtime.files import check_parents


@dataclass(frozen=True, kw_only=True)
class RefineCamerasArguments(OnDevice):
    """Refine cameras against the surface of a run.

    The surface does not change.
    """

    run: Path = field(metadata=positional("RUN"))
    """Folder of a run."""
    folder: Path | None = field(default=None, metadata=positional("FOLDER") | {"usual": "those of the run"})
    """Photographs whose cameras are in the same frame as those of the run."""
    out: Path = field(metadata=named("OUT"))
    """Folder for the refined camera files."""
    cameras: str | None = field(default=None, metadata=named("FILE", usual="the only one"))
    """Name of the camera file in FOLDER, where it holds several."""
    views: tuple[str, ...] | None = field(default=None, metadata=named("NAME ...", usual="all"))
    """Names of the views to refine, or held-out."""
    by: tuple[str, ...] = field(default=tuple(SCALES), metadata=named("KIND ..."))
    """What is compared: color, mask, depth."""
    size: int = field(default=400, metadata=named("PIXELS"))
    """Largest size of the longer side of the pictures that are compared [pixel]."""


def write_refined(run: Run, views: Views) -> list[Path]:
    """Write the cameras of a run to `cameras/` if they were refined and came from files; return the paths.

    Cameras of held-out views are unchanged, since nothing was compared with them.
    """
    scene = run.scene()
    if not scene.recipe.cameras or "folder" not in scene.views:
        return []
    refined = run.load().cameras
    folder = run.folder / "cameras"
    links = scene.views.get("follow_links", False)
    name = scene.views.get("cameras")
    return write_cameras(scene.views["folder"], views, refined, folder, name=name, follow_links=links)


def views_of_run(run: Run, folder: Path | None, name: str | None = None) -> tuple[Path, str | None, Views]:
    """Return photographs in the scene frame of a run, with their folder and the name of their camera file.

    Args:
        run: the run whose frame is used.
        folder: photographs whose cameras are in the frame of the run's data; None: those of the run, with its refined
            cameras.
        name: name of the camera file, where the folder holds several.

    Raises:
        ValueError: if the run has no photographs in a folder, or they cannot be read.
    """
    checkpoint, scene = run.load(), run.scene()
    if folder is not None:
        views = load(folder, cameras=name, hold_out=0, normalise=False)
        return folder, name, views.in_scene_frame(checkpoint.transform)
    if "folder" not in scene.views:
        raise ValueError(
            f"{run.folder}: the run has no cameras in files, its views are rendered; give a folder of photographs"
        )
    if name is not None:
        raise ValueError("--cameras names a file in FOLDER, but none is given")
    views = scene.load_views()
    return Path(scene.views["folder"]), scene.views.get("cameras"), replace(views, cameras=checkpoint.cameras)


def refine_cameras(options: RefineCamerasArguments) -> None:
    """Refine cameras, write them, and print how far they moved and how much that improved the scores."""
    run = Run.open(options.run)
    check_refinement(options.by, options.size)
    check_parents(options.out)
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"{options.out}: expected a folder for the cameras, found a file")
    folder, name, views = views_of_run(run, options.folder, options.cameras)
    indices = _view_indices(views, options.views)
    field = run.field(options.torch_device)
    print(f"{len(indices)} of {len(views)} cameras will be refined", flush=True)

    def report_camera(i: int, refined: RefinedCamera) -> None:
        loss = f"loss {refined.before:.4g} -> {refined.after:.4g}"
        print(f"{views.names[i]:>12}  {loss}  {refined.poses_tried} poses tried", flush=True)

    cameras = refine(field, views, indices, kinds=list(options.by), longest=options.size, callback=report_camera)
    background = None  # other photographs may have another background
    if options.folder is None:
        background = Background.saved(run.load().fit)
    _report(field, views, cameras, indices, options.size, background)
    for path in write_cameras(folder, views, cameras, options.out, name=name):
        print(path)


def _view_indices(views: Views, names: Sequence[str] | None) -> Sequence[int]:
    """Return the indices of views by name."""
    if names is None:
        return range(len(views))
    if not names:
        raise ValueError("--views: expected at least one name of a view, or held-out")
    if tuple(names) == ("held-out",):
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
    """Print how far cameras moved, and the scores before and after."""
    motion = camera_errors([cameras[i] for i in indices], [views.cameras[i] for i in indices], aligned=False)
    print(f"moved by {motion} [scene unit]".replace(" off", ""))
    before, after = (
        evaluate(field, replace(views, cameras=group), indices, longest=longest, background=background)
        for group in (views.cameras, cameras)
    )
    if after.views:
        print(f"before   {before.psnr:.2f} dB inside of the mask, IoU {before.iou:.4f}, {before.views} views")
        print(f"after    {after.psnr:.2f} dB inside of the mask, IoU {after.iou:.4f}")

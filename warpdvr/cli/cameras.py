"""The commands that refine cameras against the shape of a run and write cameras in other formats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from warpdvr.cameras.alignment import camera_errors
from warpdvr.cameras.camera import Camera
from warpdvr.cli.arguments import FromFolder, OnDevice, named, positional
from warpdvr.datasets.export import export_cameras, format_names
from warpdvr.datasets.files import PICTURE_SUFFIXES
from warpdvr.datasets.load import detect, load, write_cameras
from warpdvr.datasets.views import Views
from warpdvr.evaluation.images import evaluate
from warpdvr.fields.base import Field
from warpdvr.fitting.pose_refinement import RefinedCamera, check_refinement, refine
from warpdvr.fitting.pose_residuals import SCALES
from warpdvr.rendering.background import Background
from warpdvr.runs.run import Run
from warpdvr.runtime.files import check_parents, following_links

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class RefineCamerasArguments(FromFolder, OnDevice):
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


@dataclass(frozen=True, kw_only=True)
class ExportCamerasArguments(FromFolder):
    """Write the cameras of a run or of photographs in another format.

    They are in the frame and the unit of the data; those of a run are the refined ones, if it refined them. The
    pictures are not copied.
    """

    source: Path = field(metadata=positional("RUN_OR_FOLDER"))
    """Folder of a run, or of photographs with cameras."""
    format: str = field(metadata=named("NAME"))
    """Format, such as colmap, nerfstudio, idr, openmvg, metashape; a name that is unknown lists all of them."""
    out: Path = field(metadata=named("OUT"))
    """Folder for the camera files."""
    cameras: str | None = field(default=None, metadata=named("FILE", usual="the only one"))
    """Name of the camera file in a folder of photographs, where it holds several."""


def export(options: ExportCamerasArguments) -> None:
    """Write cameras in another format, and print the files."""
    check_parents(options.out)
    if (options.source / "config.toml").is_file():
        if options.cameras is not None:
            raise ValueError("--cameras names a file in a folder of photographs, but RUN_OR_FOLDER is a run")
        options.refuse_reading("is for a folder of photographs, but RUN_OR_FOLDER is a run")
        run = Run.open(options.source)
        views = replace(run.scene().load_views(), cameras=run.load().cameras)
        folder = run.scene().views.get("folder")
    else:
        folder, views = options.source, load(options.source, cameras=options.cameras, hold_out=0, **options.reading)
    for path in export_cameras(views, options.out, format=options.format, pictures=_picture_names(folder, views)):
        print(path)


def _picture_names(folder: Path | str | None, views: Views) -> dict[str, str]:
    """Return the file names of the pictures, by view; those of other suffixes than .png must be found."""
    if folder is None:
        return {}
    files = (f for f in sorted(Path(folder).rglob("*")) if f.suffix.lower() in PICTURE_SUFFIXES)
    others = ("mask", "depth")  # folders of files with the names of the pictures, and suffixes of their own
    return {f.stem: f.name for f in files if f.stem in views.names and not f.parent.name.lower().startswith(others)}


def write_refined(run: Run, views: Views) -> list[Path]:
    """Write the cameras of a run to `cameras/` if they were refined and came from files; return the paths.

    Poses of held-out views are unchanged, since nothing was compared with them.
    """
    scene = run.scene()
    if not (scene.recipe.cameras or scene.recipe.intrinsics) or "folder" not in scene.views:
        return []
    photographs, out = Path(scene.views["folder"]), run.folder / "cameras"
    links, name = scene.views.get("follow_links", False), scene.views.get("cameras")
    refined, intrinsics = run.load().cameras, scene.recipe.intrinsics > 0
    return _write(photographs, views, refined, out, name=name, follow_links=links, intrinsics=intrinsics)


def _write(
    folder: Path,
    views: Views,
    cameras: Sequence[Camera],
    out: Path,
    *,
    name: str | None,
    follow_links: bool,
    intrinsics: bool,
) -> list[Path]:
    """Write cameras in the format of the data that they belong to; return the paths.

    New poses are written over those in a copy of the files. With new intrinsics the files are written anew, without
    anything else that the old ones hold.
    """
    if not intrinsics:
        return write_cameras(folder, views, cameras, out, name=name, follow_links=follow_links)
    with following_links(follow_links):
        format = detect(folder, cameras=name).format
    refined = replace(views, cameras=tuple(cameras))
    return export_cameras(refined, out, format=format_names(format)[0], pictures=_picture_names(folder, views))


def views_of_run(
    run: Run, folder: Path | None, name: str | None = None, reading: Mapping[str, Any] = NO_OPTIONS
) -> tuple[Path, str | None, Views]:
    """Return photographs in the scene frame of a run, with their folder and the name of their camera file.

    Args:
        run: the run whose frame is used.
        folder: photographs whose cameras are in the frame of the run's data; None: those of the run, with its refined
            cameras.
        name: name of the camera file, where the folder holds several.
        reading: further options of `load` for the folder.

    Raises:
        ValueError: if the run has no photographs in a folder, or they cannot be read.
    """
    checkpoint, scene = run.load(), run.scene()
    if folder is not None:
        views = load(folder, cameras=name, hold_out=0, normalise=False, **reading)
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
    if options.folder is None:
        options.refuse_reading("is for FOLDER, but none is given; the photographs of the run are read as for the run")
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"{options.out}: expected a folder for the cameras, found a file")
    folder, name, views = views_of_run(run, options.folder, options.cameras, options.reading)
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
    links, intrinsics = options.follow_links, False
    if options.folder is None:
        scene = run.scene()
        links, intrinsics = scene.views.get("follow_links", False), scene.recipe.intrinsics > 0
    for path in _write(folder, views, cameras, options.out, name=name, follow_links=links, intrinsics=intrinsics):
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

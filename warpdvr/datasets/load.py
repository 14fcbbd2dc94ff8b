"""Read photographs, masks and cameras into the scene frame, with the object in the unit sphere.

The scene frame follows from a file (scale_mat of IDR and DVR), else from the visual hull of the masks, else from where
the cameras look (`normalise.normalise_views`); with `load(folder, normalise=False)` it is the frame of the data.

`load` reads a folder in one of several formats (`FORMATS`), `mesh_views` renders a mesh. Both return `Views`.
`write_cameras` writes cameras in the format that they were read from. `register_format` adds a format.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets.arkit import ARKit
from warpdvr.datasets.blendedmvs import BlendedMVS
from warpdvr.datasets.bundler import Bundler
from warpdvr.datasets.colmap import COLMAP
from warpdvr.datasets.depth import attach_points_file
from warpdvr.datasets.dvr import DVR
from warpdvr.datasets.files import error_inside
from warpdvr.datasets.formats import Detection, Format, ReadOptions
from warpdvr.datasets.idr import IDR
from warpdvr.datasets.llff import LLFF
from warpdvr.datasets.matrices_text import ProjectionMatrices
from warpdvr.datasets.metashape import Metashape
from warpdvr.datasets.middlebury import Middlebury
from warpdvr.datasets.nerfstudio import Nerfstudio
from warpdvr.datasets.nsvf import NSVF
from warpdvr.datasets.openmvg import OpenMVG
from warpdvr.datasets.polycam import Polycam
from warpdvr.datasets.realitycapture import RealityCapture
from warpdvr.datasets.record3d import Record3D
from warpdvr.datasets.scannet import ScanNet
from warpdvr.datasets.sdfstudio import SDFStudio
from warpdvr.datasets.synthetic import mesh_views
from warpdvr.datasets.unrecognised import describe_unrecognised
from warpdvr.datasets.views import SparseDepth, Views
from warpdvr.runtime.files import following_links, make_folder, path_inside, replacing

__all__ = [
    "FORMATS",
    "SceneTransform",
    "SparseDepth",
    "Views",
    "detect",
    "load",
    "mesh_views",
    "register_format",
    "write_cameras",
]

FORMATS: list[Format] = [
    DVR(),
    IDR(),
    Middlebury(),
    Nerfstudio(),
    SDFStudio(),
    COLMAP(),
    LLFF(),
    NSVF(),
    BlendedMVS(),
    ScanNet(),
    OpenMVG(),
    Bundler(),
    Metashape(),
    RealityCapture(),
    Polycam(),
    Record3D(),
    ARKit(),
    ProjectionMatrices(),
]
"""The known formats, in the order in which they are tried; the module of each describes its files and conventions."""


def register_format(format: Format) -> None:
    """Make a format known to `load`, `detect` and `write_cameras`; it is tried before those already registered.

    Raises:
        ValueError: if a format of that title is registered already.
    """
    if any(existing.title == format.title for existing in FORMATS):
        raise ValueError(f"format {format.title!r} is registered already, choose another title")
    FORMATS.insert(0, format)


def detect(folder: Path | str, *, cameras: str | None = None) -> Detection:
    """Return the format of a folder and its camera files.

    Args:
        folder: the data set.
        cameras: name of the camera file in `folder`, if it holds several.

    Raises:
        ValueError: if it is of no known format; says what was found, what is missing, and what to do.
    """
    folder = Path(folder)
    for format in FORMATS:
        if detection := format.detect(folder, cameras):
            return detection
    for path in (f for format in FORMATS for f in format.files(folder) if cameras in (None, f.name)):
        path_inside(folder, path.relative_to(folder))  # it may be one, but a link out of the folder was not opened
    raise ValueError(describe_unrecognised(folder, FORMATS, cameras))


def load(
    folder: Path | str,
    *,
    hold_out: int = 8,
    cameras: str | None = None,
    depth_scale: float = 1.0,
    normalise: bool = True,
    max_pixels: int | None = None,
    follow_links: bool = False,
    progress: Callable[[float, str], None] | None = None,
    notice: Callable[[str], None] | None = None,
    turntable: float | None = None,
) -> Views:
    """Read the photographs, masks and cameras in `folder`; its format is detected by the files in it.

    `Views.summary` says what was read. No file outside of `folder` is read, nothing is unpickled.

    Depth is read if there is any: a map per picture in `depth/`, what a format has in addition (see its module), and
    sparse points in `points.npz`, arrays `points` (m, 3) in the data's own unit and frame and `visible` (v, m), bool,
    in the order of the views. Maps are z-depth along the camera's forward axis, not ray length; zeros, negatives, NaN
    and infinities are missing. Depth that contradicts the masks is rejected, see `depthcheck.check_depth`.

    Views whose camera, picture or mask is missing or damaged are left out, with a warning that names them, unless they
    are one in ten or more. Loading takes 6 bytes per pixel of all pictures, and 8 to 14 per pixel of the largest file.

    Args:
        folder: the data set.
        hold_out: views 0, hold_out, 2 hold_out, ... are held out from training; 0 holds out none. None is held out of
            2 or 3 views, unless `hold_out` is so small. A test split that comes with the data is used instead.
        cameras: name of the camera file in `folder`, if it holds several.
        depth_scale: factor from the unit of the depth maps to the data's own, that of the cameras' positions.
        max_pixels: pictures of more pixels are scaled down to at most so many, with their masks and cameras.
        follow_links: let symbolic links lead out of the folder, to pictures that lie elsewhere.
        progress: called with the share of the pictures that are read, from 0 to 1, and a text.
        notice: called with a sentence before pictures are decoded, if there are no masks.
        normalise: move the object into the unit sphere. With False the scene frame is the data's own, for fields with a
            fixed frame, such as trained decoders; then one view is enough.
        turntable: by how much the object turned between pictures of one camera [degree], see `turntable.place_cameras`.

    Raises:
        ValueError: if a file is missing, damaged or in an unexpected form, or if files contradict each other.
    """
    folder = require_folder(Path(folder))
    options = ReadOptions(
        hold_out=hold_out,
        depth_scale=depth_scale,
        min_views=2 if normalise else 1,
        max_pixels=max_pixels,
        progress=progress,
        notice=notice,
        turntable=turntable,
    )
    with following_links(follow_links), error_inside(folder):
        detection = detect(folder, cameras=cameras)
        views = detection.format.read(detection, options)
        if depth_scale != 1 and not views.depths:
            raise ValueError(f"{folder}: depth_scale is {depth_scale:g}, but there is no depth to scale; leave it out")
        views = attach_points_file(folder, views)
    return views if normalise else views.in_data_frame()


def require_folder(folder: Path) -> Path:
    """Return a folder; ValueError if there is nothing to read."""
    if not folder.is_dir():
        raise ValueError(
            f"{folder}: expected a folder of photographs, found {'a file' if folder.exists() else 'nothing'}"
        )
    if not any(folder.iterdir()):
        raise ValueError(f"{folder}: expected photographs and cameras, found an empty folder")
    return folder


def write_cameras(
    folder: Path | str,
    views: Views,
    cameras: Sequence[Camera],
    out: Path,
    *,
    name: str | None = None,
    follow_links: bool = False,
) -> list[Path]:
    """Write camera poses in the format, the frame and the file names of the data set that they belong to.

    What else the files hold is kept: the image size that intrinsics refer to, scale_mat, names of pictures, depth
    bounds. Not so for Bundler, OpenMVG, Metashape, RealityCapture, NSVF and ScanNet: their files are written anew with
    cameras alone, under the name that the format usually has; a warning says what is lost, such as points. Views that
    were left out keep their cameras, but are not in files that are written anew.

    Refined intrinsics are not written everywhere: `warpdvr.export_cameras` writes them.

    Args:
        folder: the data set; it is not changed unless `out` is the same.
        views: the views that `load` returned.
        cameras: the cameras of all views, in the scene frame.
        out: folder for the files; created if it does not exist.
        name: name of the camera file, if `folder` holds several; the argument `cameras` of `load`.
        follow_links: let symbolic links lead out of the folder, as in `load`.

    Returns:
        The files that were written.

    Raises:
        ValueError: if the number of cameras differs from that of the views, or the projection of one from its view.
    """
    if len(cameras) != len(views):
        raise ValueError(f"{folder}: expected a camera for each of {len(views)} views, got {len(cameras)}")
    folder = Path(folder)
    for camera, old, view in zip(cameras, views.cameras, views.names, strict=True):
        if camera.projection != old.projection:
            kinds = f"{old.projection.name} in the data set, got {camera.projection.name}"
            raise ValueError(f"{folder}: poses alone are written, but the camera of {view} is {kinds}")
    in_data_frame = [views.transform.to_data(camera.to("cpu")) for camera in cameras]
    if views.stored_sizes:
        in_data_frame = [c.resized(*size) for c, size in zip(in_data_frame, views.stored_sizes, strict=True)]
    with following_links(follow_links), error_inside(folder):
        detection = replace(detect(folder, cameras=name), listed=views.listed or None)
        files = detection.format.write_cameras(detection, in_data_frame)
    make_folder(out)
    paths = []
    for file, content in files.items():
        make_folder((out / file).parent)
        with replacing(out / file) as unfinished:
            unfinished.write_bytes(content)
        paths.append(out / file)
    return paths

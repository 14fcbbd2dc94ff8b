"""Read nerfstudio, instant-ngp and Blender data, and write its cameras.

They are in `transforms.json`, or in `transforms_train.json` and `transforms_test.json`.

Camera to world, OpenGL axes, pixel centres at +0.5 (docs.nerf.studio, "Data conventions"; NVlabs/instant-ngp,
docs/nerf_dataset_tips.md). The world is taken as it is given: `applied_transform` is not undone.

Depth is z-depth in units of the data. `depth_file_path` of a frame names its map; else `depth_train.npz` beside
`transforms_train.json` (`depth.npz` beside `transforms.json`) holds an array `depth` (frames, h, w); else there is a
map per picture in `depth/`. What the numbers mean, and which files are read: `depthfile.single`.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from warpdvr.cameras.camera import OPENGL, Camera
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets import files
from warpdvr.datasets.depth import attached
from warpdvr.datasets.depthfile import DepthMap, in_folder, single, stacked
from warpdvr.datasets.normalise import normalised
from warpdvr.datasets.views import Views, cover, held_out, sizes, split
from warpdvr.runtime.files import within

PATTERN = "transforms*.json"
TITLE = "nerfstudio / instant-ngp / Blender"

MODELS = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "RADIAL", "SIMPLE_RADIAL")
"""Values of camera_model that are pinholes as long as the distortion is zero."""

DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")


@dataclass(frozen=True)
class _Frame:
    table: dict[str, Any]
    """What the file says about this view: its own entries over those of the whole file."""
    file: Path
    """The JSON file."""
    where: str
    """File and frame, for messages."""


def read(folder: Path, found: list[Path], *, hold_out: int, depth_scale: float = 1.0, least: int = 2) -> Views:
    """Read the data set in `folder`, whose camera files are `found`; a validation split is left aside."""
    one, *rest = _paths(folder, found)
    frames = _frames(folder, one)
    n_train, shipped = len(frames), bool(rest)
    for path in rest:
        frames += _frames(folder, path)
    files.enough(one, len(frames), least)
    paths = [_picture_path(folder, frame) for frame in frames]
    pictures = [files.picture(f) for f in paths]
    images = tuple(image for image, _ in pictures)
    cameras = tuple(map(_camera, frames, images))
    masks, source = _masks(folder, frames, paths, pictures)
    train, test = split(len(frames), hold_out)
    if shipped:
        train, test = tuple(range(n_train)), tuple(range(n_train, len(frames)))
    said = (
        f"{TITLE}, {one.name}{' and transforms_test.json' if shipped else ''}: {len(images)} views of {sizes(images)} "
        f"pixels, OpenGL axes, pixel centres at +0.5{_rescaled(frames, images)}. {cover(masks, source)}. "
        f"{held_out(train, test)}{' (the split of the data)' if shipped else ''}."
    )
    names = files.unique_names(paths)
    views = normalised(Views(images, masks, cameras, names, train, test, SceneTransform.identity(), said), folder)
    return attached(views, _depths(folder, frames, paths), depth_scale)


def rewritten(folder: Path, found: list[Path], cameras: Sequence[Camera]) -> dict[str, bytes]:
    """Return the camera files with other cameras, given in the data's own frame: transform_matrix changes."""
    paths = _paths(folder, found)
    counts = [len(_frames(folder, path)) for path in paths]
    files.matching(paths[0], sum(counts), len(cameras))
    poses, written = iter(cameras), {}
    for path in paths:
        table = json.loads(path.read_text(encoding="utf-8"))
        for frame in table["frames"]:
            frame["transform_matrix"] = (next(poses).pose.double() @ OPENGL).tolist()
        written[path.name] = (json.dumps(table, indent=2) + "\n").encode()
    return written


def _paths(folder: Path, found: list[Path]) -> list[Path]:
    """Return the files that are read: that of all views, or those of the training and of the held-out views."""
    by_name = {f.name: f for f in found}
    one = by_name.get("transforms.json", by_name.get("transforms_train.json", found[0] if len(found) == 1 else None))
    if one is None:
        raise ValueError(f"{folder}: expected transforms.json or transforms_train.json, found {', '.join(by_name)}")
    shipped = "transforms_test.json" in by_name and one.name == "transforms_train.json"
    return [one, by_name["transforms_test.json"]] if shipped else [one]


def _frames(folder: Path, path: Path) -> list[_Frame]:
    path = within(folder, path.name)
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected a JSON file, found one that cannot be read ({error})") from error
    frames = table.pop("frames", None) if isinstance(table, dict) else None
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise ValueError(f"{path}: expected an entry `frames`, a list of tables, found none")
    if not frames:
        raise ValueError(f"{path}: expected at least one frame, found an empty list")
    return [_Frame({**table, **frame}, path, f"{path}: frame {i}") for i, frame in enumerate(frames)]


def _picture_path(folder: Path, frame: _Frame, key: str = "file_path") -> Path:
    """Return the picture that a frame names, with or without its extension."""
    name = frame.table.get(key)
    if not isinstance(name, str) or not name or "\0" in name:
        raise ValueError(f"{frame.where}: expected {key} to name a picture, found {name!r}")
    with files.naming(frame.where):
        tries = [within(folder, name + suffix) for suffix in ("", *files.SUFFIXES)]
    path = next((f for f in tries if f.is_file()), None)
    if path is None:
        raise ValueError(f"{frame.where}: {key} {name!r} names a picture that is missing, looked for it as {tries[0]}")
    return path


def _camera(frame: _Frame, image: Tensor) -> Camera:
    _refuse_distortion(frame)
    height, width = image.shape[:2]
    w, h = _number(frame, "w", width), _number(frame, "h", height)
    if not (w > 0 and h > 0) or abs(w * height - h * width) > max(w, h):  # a pixel of rounding
        raise ValueError(f"{frame.where}: expected an image of {w:g} x {h:g} pixels, found one of {width} x {height}")
    fx = _focal(frame, "x", w, None)
    fy = _focal(frame, "y", h, fx)
    cx, cy = _number(frame, "cx", w / 2), _number(frame, "cy", h / 2)
    rows = [[fx * width / w, 0, cx * width / w], [0, fy * height / h, cy * height / h], [0, 0, 1]]
    pose = _pose(frame) @ OPENGL
    with files.naming(frame.where):
        return Camera(torch.tensor(rows, dtype=torch.float64), pose, width, height)


def _refuse_distortion(frame: _Frame) -> None:
    model = frame.table.get("camera_model", "OPENCV")
    if model not in MODELS or frame.table.get("is_fisheye"):
        raise ValueError(
            f"{frame.where}: expected a pinhole camera, found camera_model {model!r}; undistort the images first, for "
            "instance with `colmap image_undistorter`"
        )
    bent = [f"{key} = {_number(frame, key, 0.0):g}" for key in DISTORTION if _number(frame, key, 0.0) != 0]
    if bent:
        raise ValueError(
            f"{frame.where}: expected images without lens distortion, found {', '.join(bent)}; undistort the images "
            "first, for instance with `colmap image_undistorter`, and set these to 0"
        )


def _focal(frame: _Frame, axis: str, size: float, default: float | None) -> float:
    """Return the focal length along an axis [pixel], from fl_ or from camera_angle_ [radian]."""
    focal = _number(frame, f"fl_{axis}", math.nan)
    angle = _number(frame, f"camera_angle_{axis}", math.nan)
    if f"fl_{axis}" not in frame.table and 0 < angle < math.pi:
        focal = 0.5 * size / math.tan(angle / 2)
    elif f"fl_{axis}" not in frame.table and f"camera_angle_{axis}" not in frame.table and default is not None:
        focal = default
    if not 0 < focal < math.inf:
        raise ValueError(
            f"{frame.where}: expected fl_{axis} or camera_angle_{axis} to be positive, found {focal} and {angle}"
        )
    return focal


def _number(frame: _Frame, key: str, default: float) -> float:
    try:
        return float(frame.table.get(key, default))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{frame.where}: expected {key} to be a number, found {frame.table[key]!r}") from error


def _pose(frame: _Frame) -> Tensor:
    """Return the camera-to-world matrix (4, 4), OpenGL axes."""
    rows = frame.table.get("transform_matrix")
    try:
        matrix = torch.tensor(rows, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{frame.where}: expected transform_matrix to be 4 x 4 numbers, found {rows!r}") from error
    if tuple(matrix.shape) not in ((4, 4), (3, 4)):
        raise ValueError(f"{frame.where}: expected transform_matrix to be 4 x 4, found {tuple(matrix.shape)}")
    if not matrix.isfinite().all():
        raise ValueError(f"{frame.where}: transform_matrix holds a number that is not finite")
    R = matrix[:3, :3]
    if (R @ R.T - torch.eye(3)).abs().max() > 1e-3 or R.det() < 0:
        raise ValueError(f"{frame.where}: expected transform_matrix to hold a rotation, found {R.tolist()}")
    return torch.cat([matrix[:3], torch.tensor([[0.0, 0.0, 0.0, 1.0]]).to(matrix)])


def _masks(
    folder: Path, frames: list[_Frame], paths: list[Path], pictures: list[tuple[Tensor, Tensor | None]]
) -> tuple[tuple[Tensor | None, ...], str]:
    """Return the masks that the file names, else those in the alpha channels, else those in a folder."""
    if any("mask_path" in frame.table for frame in frames):
        named = [_picture_path(folder, f, "mask_path") if "mask_path" in f.table else None for f in frames]
        return _read_masks(named, pictures), "mask_path (white = object)"
    alphas = [alpha for _, alpha in pictures]
    if any(alpha is not None and bool((alpha < 255).any()) for alpha in alphas):
        cut = zip(alphas, paths, strict=True)
        return tuple(None if a is None else files.filled(a > 127, f) for a, f in cut), "alpha (above 127 = object)"
    home = files.subfolder(folder, "masks", "mask")
    if home is None:
        return (None,) * len(paths), "nowhere"
    return _read_masks(files.masks_of(paths, home, folder), pictures), f"{home.name}/ (white = object)"


def _read_masks(paths: list[Path | None], pictures: list[tuple[Tensor, Tensor | None]]) -> tuple[Tensor | None, ...]:
    return tuple(None if f is None else files.mask(f, image) for f, (image, _) in zip(paths, pictures, strict=True))


def _depths(folder: Path, frames: list[_Frame], paths: list[Path]) -> list[DepthMap | None]:
    """Return the depth maps that the file names, else those beside the file, else those in a folder."""
    if any("depth_file_path" in frame.table for frame in frames):
        return [_named_depth(folder, f) if "depth_file_path" in f.table else None for f in frames]
    maps: list[DepthMap | None] = []
    for file in dict.fromkeys(frame.file for frame in frames):
        n = sum(frame.file == file for frame in frames)
        path = within(folder, file.stem.replace("transforms", "depth", 1) + ".npz")
        maps += stacked(path, n) if path.is_file() else [None] * n
    return maps if any(maps) else in_folder(folder, paths)


def _named_depth(folder: Path, frame: _Frame) -> DepthMap:
    name = frame.table["depth_file_path"]
    if not isinstance(name, str) or not name or "\0" in name:
        raise ValueError(f"{frame.where}: expected depth_file_path to name a depth map, found {name!r}")
    with files.naming(frame.where):
        return single(within(folder, name))


def _rescaled(frames: list[_Frame], images: tuple[Tensor, ...]) -> str:
    size = _number(frames[0], "w", images[0].shape[1])
    return (
        ""
        if size == images[0].shape[1]
        else f", intrinsics scaled by {images[0].shape[1] / size:.3g} to the images' size"
    )

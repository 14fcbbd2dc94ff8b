"""Read nerfstudio, instant-ngp and Blender data, and write its cameras.

Cameras are in `transforms.json`, or in `transforms_train.json` and `transforms_test.json`.

Camera to world, OpenGL axes, pixel centres at +0.5 (docs.nerf.studio, "Data conventions"; NVlabs/instant-ngp,
docs/nerf_dataset_tips.md). The world frame is kept: `applied_transform` is not undone.

Depth is z-depth in units of the data. `depth_file_path` of a frame names its map; else `depth_train.npz` beside
`transforms_train.json` (`depth.npz` beside `transforms.json`) holds an array `depth` (frames, h, w); else there is a
map per picture in `depth/`. See `depthfile.read_depth_map` for the units and the kinds of files.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from warpdvr.cameras.camera import OPENGL, Camera
from warpdvr.datasets.depthfile import DepthMap, read_depth_folder, read_depth_map, read_depth_stack
from warpdvr.datasets.files import (
    PICTURE_SUFFIXES,
    error_prefix,
    find_subfolder,
    require_camera_count,
    require_view_count,
)
from warpdvr.datasets.formats import Capture, Detection, Format, ReadOptions
from warpdvr.datasets.images import MaskSet, Photographs, masks_from_alpha, match_masks, read_masks, read_photographs
from warpdvr.datasets.nerfstudio_frame import Frame, read_frames
from warpdvr.datasets.views import Views
from warpdvr.runtime.files import path_inside


class Nerfstudio(Format):
    """`transforms.json`, or `transforms_train.json` and `transforms_test.json`; a validation split is ignored."""

    title = "nerfstudio / instant-ngp / Blender"
    pattern = "transforms*.json"

    def read(self, data: Detection, options: ReadOptions) -> Views:
        """Return the data set with its object, located by the masks or the cameras, in the unit sphere."""
        files = _choose_files(data)
        per_file = [read_frames(data.folder, path) for path in files]
        frames = [frame for group in per_file for frame in group]
        require_view_count(files[0], len(frames), options.min_views)
        photographs = read_photographs([_find_picture(data.folder, frame) for frame in frames])
        cameras = tuple(frame.camera(*size) for frame, size in zip(frames, photographs.sizes, strict=True))
        capture = Capture(
            photographs,
            _masks(data.folder, frames, photographs),
            cameras,
            camera_file=" and ".join(path.name for path in files),
            conventions=f"OpenGL axes, pixel centres at +0.5{_describe_scaling(frames[0], photographs.sizes[0][0])}",
            test=tuple(range(len(per_file[0]), len(frames))) if len(files) > 1 else None,
            depth_maps=_depth_maps(data.folder, frames, photographs.paths),
        )
        return capture.views(data, options)

    def write_cameras(self, data: Detection, cameras: Sequence[Camera]) -> dict[str, bytes]:
        """Return the camera files with new transform_matrix; all other entries are kept."""
        files = _choose_files(data)
        require_camera_count(files[0], sum(len(read_frames(data.folder, path)) for path in files), len(cameras))
        remaining, contents = iter(cameras), {}
        for path in files:
            table = json.loads(path.read_text(encoding="utf-8"))
            for frame in table["frames"]:
                frame["transform_matrix"] = (next(remaining).pose.double() @ OPENGL).tolist()
            contents[path.name] = (json.dumps(table, indent=2) + "\n").encode()
        return contents


def _choose_files(data: Detection) -> list[Path]:
    """Return the files to read: the file of all views, or those of the training and the held-out views."""
    by_name = {path.name: path for path in data.camera_files}
    if "transforms.json" not in by_name and {"transforms_train.json", "transforms_test.json"} <= by_name.keys():
        return [by_name["transforms_train.json"], by_name["transforms_test.json"]]
    for name in ("transforms.json", "transforms_train.json"):
        if name in by_name:
            return [by_name[name]]
    if len(by_name) == 1:
        return [*by_name.values()]
    raise ValueError(f"{data.folder}: expected transforms.json or transforms_train.json, found {', '.join(by_name)}")


def _find_picture(folder: Path, frame: Frame, key: str = "file_path") -> Path:
    """Return the picture that a frame names, with or without its extension."""
    name = frame.file_name(key, "picture")
    with error_prefix(frame.label):
        candidates = [path_inside(folder, name + suffix) for suffix in ("", *PICTURE_SUFFIXES)]
    path = next((f for f in candidates if f.is_file()), None)
    if path is None:
        raise ValueError(
            f"{frame.label}: {key} {name!r} names a picture that is missing, expected it at {candidates[0]}"
        )
    return path


def _masks(folder: Path, frames: list[Frame], photographs: Photographs) -> MaskSet:
    """Return the masks that the file names, else those in the alpha channels, else those in a folder."""
    if any("mask_path" in frame.entries for frame in frames):
        paths = [_find_picture(folder, f, "mask_path") if "mask_path" in f.entries else None for f in frames]
        return read_masks(paths, photographs, "mask_path (white = object)")
    if masks := masks_from_alpha(photographs):
        return masks
    subfolder = find_subfolder(folder, "masks", "mask")
    if subfolder is None:
        return MaskSet.empty(len(photographs))
    paths = match_masks(photographs.paths, subfolder, folder)
    return read_masks(paths, photographs, f"{subfolder.name}/ (white = object)")


def _depth_maps(folder: Path, frames: list[Frame], pictures: Sequence[Path]) -> list[DepthMap | None]:
    """Return the depth maps that the file names, else those beside the file, else those in a folder."""
    if any("depth_file_path" in frame.entries for frame in frames):
        return [_find_depth_map(folder, f) if "depth_file_path" in f.entries else None for f in frames]
    maps: list[DepthMap | None] = []
    for file in dict.fromkeys(frame.file for frame in frames):
        n = sum(frame.file == file for frame in frames)
        path = path_inside(folder, file.stem.replace("transforms", "depth", 1) + ".npz")
        maps += read_depth_stack(path, n) if path.is_file() else [None] * n
    return maps if any(maps) else read_depth_folder(folder, pictures)


def _find_depth_map(folder: Path, frame: Frame) -> DepthMap:
    name = frame.file_name("depth_file_path", "depth map")
    with error_prefix(frame.label):
        return read_depth_map(path_inside(folder, name))


def _describe_scaling(frame: Frame, width: int) -> str:
    """Describe by how much the intrinsics were scaled; empty if the image has the width that they are for."""
    expected = frame.number("w", width)
    return "" if expected == width else f", intrinsics scaled by {width / expected:.3g} to the images' size"

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
from dataclasses import replace
from pathlib import Path

from warpdvr.cameras.camera import OPENGL, Camera
from warpdvr.datasets.depthfile import DepthMap, read_depth_map, read_depth_stack
from warpdvr.datasets.entries import Entry, Listing
from warpdvr.datasets.files import error_prefix
from warpdvr.datasets.formats import Detection, Format, ReadOptions
from warpdvr.datasets.gather import gather
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
        held_out = [len(files) > 1 and i >= len(per_file[0]) for i in range(len(frames))]
        listing = Listing(
            tuple(
                _entry(frame, held if len(files) > 1 else None) for frame, held in zip(frames, held_out, strict=True)
            ),
            camera_file=" and ".join(path.name for path in files),
            conventions="OpenGL axes, pixel centres at +0.5",
            mask_source="mask_path (white = object)",
        )
        capture = gather(data, listing, options)
        kept = [frames[i] for i in capture.listed or range(len(frames))]
        stacks = _depth_stacks(data.folder, frames)
        maps: Sequence[DepthMap | None] | None = None
        if any("depth_file_path" in frame.entries for frame in kept):
            maps = [_find_depth_map(data.folder, f) if "depth_file_path" in f.entries else None for f in kept]
        elif any(stacks):
            maps = [stacks[i] for i in capture.listed or range(len(frames))]
        stored = capture.stored_sizes or capture.photographs.sizes
        conventions = listing.conventions + _describe_scaling(kept[0], stored[0][0])
        return replace(capture, depth_maps=maps, conventions=conventions).views(data, options)

    def write_cameras(self, data: Detection, cameras: Sequence[Camera]) -> dict[str, bytes]:
        """Return the camera files with new transform_matrix; all other entries are kept."""
        files = _choose_files(data)
        n = sum(len(read_frames(data.folder, path)) for path in files)
        remaining, contents = iter(data.spread(cameras, n)), {}
        for path in files:
            table = json.loads(path.read_text(encoding="utf-8-sig"))
            for frame in table["frames"]:
                if (camera := next(remaining)) is not None:
                    frame["transform_matrix"] = (camera.pose.double() @ OPENGL).tolist()
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


def _entry(frame: Frame, held_out: bool | None) -> Entry:
    """Return a frame as it is listed; what is wrong with its names is kept for the message."""
    picture, mask, broken = "", None, None
    try:
        picture = frame.file_name("file_path", "picture")
        mask = frame.file_name("mask_path", "mask") if "mask_path" in frame.entries else None
    except ValueError as error:
        broken = str(error)
    return Entry(picture, frame.camera, frame.label, mask, held_out=held_out, broken=broken)


def _depth_stacks(folder: Path, frames: list[Frame]) -> list[DepthMap | None]:
    """Return the depth maps of all frames that lie in one file beside that of the cameras."""
    maps: list[DepthMap | None] = []
    for file in dict.fromkeys(frame.file for frame in frames):
        n = sum(frame.file == file for frame in frames)
        path = path_inside(folder, file.stem.replace("transforms", "depth", 1) + ".npz")
        maps += read_depth_stack(path, n) if path.is_file() else [None] * n
    return maps


def _find_depth_map(folder: Path, frame: Frame) -> DepthMap:
    name = frame.file_name("depth_file_path", "depth map")
    with error_prefix(frame.label):
        return read_depth_map(path_inside(folder, name))


def _describe_scaling(frame: Frame, width: int) -> str:
    """Describe by how much the intrinsics were scaled; empty if the image has the width that they are for."""
    expected = frame.number("w", width)
    return "" if expected == width else f", intrinsics scaled by {width / expected:.3g} to the images' size"

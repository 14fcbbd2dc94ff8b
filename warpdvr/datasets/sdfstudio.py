"""Read sdfstudio data, `meta_data.json`, and write its cameras.

Camera to world with OpenCV axes, pixel centres at +0.5, intrinsics without distortion per frame (autonomousvision/
sdfstudio, docs/sdfstudio-data.md and nerfstudio/data/dataparsers/sdfstudio_dataparser.py).

The data's own frame is the one that `worldtogt` leads to, in which the true meshes are. Masks are `foreground_mask`;
depth is `sensor_depth_path`, z-depth in the unit of `camtoworld`; monocular depth and normals are guesses and not read.
"""

import json
from collections.abc import Sequence
from dataclasses import replace

import torch

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.projection import Pinhole
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets.calibration import Calibration, describe_scaling
from warpdvr.datasets.files import error_prefix
from warpdvr.datasets.formats import Detection, ReadOptions
from warpdvr.datasets.listing import Entry, ListedFormat, Listing, NamedCamera, read_listing
from warpdvr.datasets.nerfstudio_frame import (
    Frame,
    frames_of,
    intrinsic_matrix,
    read_table,
    rigid_matrix,
    similarity_matrix,
)
from warpdvr.datasets.views import Views


class SDFStudio(ListedFormat):
    """`meta_data.json` with a list of frames."""

    title = "sdfstudio"
    pattern = "meta_data.json"

    def listing(self, data: Detection, options: ReadOptions) -> Listing:
        """Return the frames in the frame of the true mesh."""
        path = data.choose(self.pattern)
        table = read_table(data.folder, path)
        frames = frames_of(path, table)
        to_gt = _to_ground_truth(frames[0])
        frame = ", in the frame of worldtogt" if "worldtogt" in table else ""
        return Listing(
            tuple(_entry(frame, to_gt) for frame in frames),
            camera_file=path.name,
            conventions=f"OpenCV axes, pixel centres at +0.5{frame}",
            pictures=("",),
        )

    def read(self, data: Detection, options: ReadOptions) -> Views:
        """Return the data set with its object, located by the masks or the cameras, in the unit sphere."""
        path = data.choose(self.pattern)
        frames = frames_of(path, read_table(data.folder, path))
        scaled = replace(options, depth_scale=options.depth_scale * _to_ground_truth(frames[0]).scale)
        views = read_listing(data, self.listing(data, options), scaled)
        return describe_scaling(views, [frame.number("width", 0) or None for frame in frames])

    def export(self, cameras: Sequence[NamedCamera]) -> dict[str, bytes]:
        """Return a `meta_data.json` for pictures in `images/`; all must be pinholes of one size."""
        sizes = {(named.camera.width, named.camera.height) for named in cameras}
        if len(sizes) != 1:
            raise ValueError(f"meta_data.json holds cameras of one size of picture, found {len(sizes)} sizes")
        width, height = sizes.pop()
        frames = []
        for named in cameras:
            if not isinstance(named.camera.projection, Pinhole):
                kind = named.camera.projection.name
                raise ValueError(f"meta_data.json holds pinholes only, the camera of {named.name} is {kind}")
            intrinsics = torch.eye(4, dtype=torch.float64)
            intrinsics[:3, :3] = named.camera.K
            pose = named.camera.pose.double()
            frames.append(
                {"rgb_path": f"images/{named.name}", "camtoworld": pose.tolist(), "intrinsics": intrinsics.tolist()}
            )
        identity = torch.eye(4).tolist()
        box = {
            "aabb": [[-1, -1, -1], [1, 1, 1]],
            "near": 0.01,
            "far": 1000.0,
            "radius": 1.0,
            "collider_type": "near_far",
        }
        table = {"camera_model": "OPENCV", "width": width, "height": height, "worldtogt": identity, "scene_box": box}
        flags = {"has_mono_prior": False, "has_sensor_depth": False, "has_foreground_mask": False}
        return {self.pattern: _json({**table, **flags, "frames": frames})}

    def write_cameras(self, data: Detection, cameras: Sequence[Camera]) -> dict[str, bytes]:
        """Return the file with new camtoworld; all other entries are kept."""
        path = data.choose(self.pattern)
        table = read_table(data.folder, path)
        frames = frames_of(path, table)
        to_gt = _to_ground_truth(frames[0])
        stored: list[dict[str, object]] = table["frames"]  # type: ignore[assignment]
        for entries, camera in zip(stored, data.spread(cameras, len(frames)), strict=True):
            if camera is None:
                continue
            entries["camtoworld"] = to_gt.to_scene(camera).pose.double().tolist()
        return {path.name: _json(table)}


def _json(table: dict[str, object]) -> bytes:
    return (json.dumps(table, indent=2) + "\n").encode()


def _to_ground_truth(frame: Frame) -> SceneTransform:
    """Return `worldtogt`, the identity if there is none."""
    if frame.entries.get("worldtogt") is None:
        return SceneTransform.identity()
    matrix = similarity_matrix(str(frame.file), "worldtogt", frame.entries["worldtogt"])
    with error_prefix(f"{frame.file}: worldtogt"):
        return SceneTransform(matrix)


def _entry(frame: Frame, to_gt: SceneTransform) -> Entry:
    def camera(width: int, height: int) -> Camera:
        K = intrinsic_matrix(frame.label, "intrinsics", frame.entries.get("intrinsics"))
        pose = rigid_matrix(frame.label, "camtoworld", frame.entries.get("camtoworld"))
        w, h = frame.number("width", width), frame.number("height", height)
        return to_gt.to_data(Calibration(K, pose, w, h, frame.label)(width, height))

    def name(key: str, kind: str) -> str | None:
        return frame.file_name(key, kind) if frame.entries.get(key) is not None else None

    try:
        picture = frame.file_name("rgb_path", "picture")
        mask, depth = name("foreground_mask", "mask"), name("sensor_depth_path", "depth map")
    except ValueError as error:
        return Entry("", camera, frame.label, broken=str(error))
    return Entry(picture, camera, frame.label, mask, depth)

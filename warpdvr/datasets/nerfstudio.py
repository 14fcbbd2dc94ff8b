"""Read nerfstudio, instant-ngp, NeuS2 and Blender data, and write its cameras.

Cameras are in `transforms.json`, or in `transforms_train.json` and `transforms_test.json`; NeuS2 calls the latter
`transform_train.json` and `transform_test.json`.

Camera to world, OpenGL axes (OpenCV axes if `from_na` is true), pixel centres at +0.5 (docs.nerf.studio, "Data
conventions"; NVlabs/instant-ngp, docs/nerf_dataset_tips.md; 19reborn/NeuS2, nerf_loader.h).

The data's own frame is the one before `applied_transform` and `applied_scale`, that of the reconstruction which the
cameras come from: x_file = applied_scale (applied_transform x). Meshes and points are written in it; cameras are
written back in the frame of the file. instant-ngp's `scale`, `offset` and `aabb_scale` concern its own grid and are
ignored.

Points of `ply_file_path` are in the frame of the file, and become `Views.cloud`: nothing says which views see them.

`train_filenames`, `val_filenames` and `test_filenames` are the split of the data: what is not in the first, or in one
of the others, is held out.

Depth is z-depth in units of the data. `depth_file_path` of a frame names its map; else `depth_train.npz` beside
`transforms_train.json` (`depth.npz` beside `transforms.json`) holds an array `depth` (frames, h, w); else there is a
map per picture in `depth/`. See `depthfile.read_depth_map` for the units and the kinds of files.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cameras.camera import OPENGL, Camera
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets.calibration import describe_scaling
from warpdvr.datasets.depth import attach_depth
from warpdvr.datasets.depthfile import DepthMap, read_depth_stack
from warpdvr.datasets.files import error_prefix
from warpdvr.datasets.formats import Detection, ReadOptions
from warpdvr.datasets.listing import Entry, ListedFormat, Listing, NamedCamera, read_listing
from warpdvr.datasets.nerfstudio_frame import Frame, frames_of, lens_entries, read_table, similarity_matrix
from warpdvr.datasets.views import Views
from warpdvr.geometry.mesh import read_mesh
from warpdvr.runtime.files import path_inside

SPLITS = ("train_filenames", "val_filenames", "test_filenames")


class Nerfstudio(ListedFormat):
    """`transforms.json`, or `transforms_train.json` and `transforms_test.json`; their validation split is ignored."""

    title = "nerfstudio / instant-ngp / Blender"
    pattern = "transform*.json"

    def listing(self, data: Detection, options: ReadOptions) -> Listing:
        """Return the frames of the files, in the frame before `applied_transform`."""
        files = _choose_files(data)
        tables = [read_table(data.folder, path) for path in files]
        frames = [frames_of(path, table) for path, table in zip(files, tables, strict=True)]
        entries, points = list[Entry](), None
        for i, (path, table, group) in enumerate(zip(files, tables, frames, strict=True)):
            original = _original_frame(path, table)
            held_out = _split(path, table, group) if len(files) == 1 else [i > 0] * len(group)
            pairs = zip(group, held_out, strict=True)
            entries += [_entry(frame, original, held) for frame, held in pairs]
            points = _points(data.folder, path, table, original) if points is None else points
        lens = ", ".join(sorted({str(f.entries.get("camera_model", "OPENCV")) for group in frames for f in group}))
        axes = "OpenCV" if frames[0][0].entries.get("from_na") else "OpenGL"
        undone = ", the frame before applied_transform" if "applied_transform" in tables[0] else ""
        return Listing(
            tuple(entries),
            camera_file=" and ".join(path.name for path in files),
            conventions=f"{axes} axes, pixel centres at +0.5, {lens}{undone}",
            mask_source="mask_path (white = object)",
            points=points,
        )

    def read(self, data: Detection, options: ReadOptions) -> Views:
        """Return the data set with its object, located by the masks or the cameras, in the unit sphere."""
        views = read_listing(data, self.listing(data, options), options)
        files = _choose_files(data)
        frames = [frame for path in files for frame in frames_of(path, read_table(data.folder, path))]
        views = _attach_stacks(views, frames, data.folder, options)
        return describe_scaling(views, [_stated_width(frame) for frame in frames])

    def export(self, cameras: Sequence[NamedCamera]) -> dict[str, bytes]:
        """Return a `transforms.json` for pictures in `images/`; intrinsics are per frame unless all are equal."""
        lenses = []
        for named in cameras:
            with error_prefix(f"the camera of {named.name}"):
                lenses.append(lens_entries(named.camera))
        shared = all(lens == lenses[0] for lens in lenses)
        frames = [
            {
                **({} if shared else lens),
                "file_path": f"images/{named.name}",
                "transform_matrix": (named.camera.pose.double() @ OPENGL).tolist(),
            }
            for named, lens in zip(cameras, lenses, strict=True)
        ]
        models = {lens["camera_model"] for lens in lenses}
        common = lenses[0] if shared else {"camera_model": models.pop()} if len(models) == 1 else {}
        return {"transforms.json": _json({**common, "frames": frames})}

    def write_cameras(self, data: Detection, cameras: Sequence[Camera]) -> dict[str, bytes]:
        """Return the camera files with new transform_matrix, in their own frames; all other entries are kept."""
        files = _choose_files(data)
        tables = [read_table(data.folder, path) for path in files]
        groups = [frames_of(path, table) for path, table in zip(files, tables, strict=True)]
        remaining, contents = iter(data.spread(cameras, sum(map(len, groups)))), {}
        for path, table, group in zip(files, tables, groups, strict=True):
            original = _original_frame(path, table)
            stored: list[dict[str, object]] = table["frames"]  # type: ignore[assignment]
            for frame, entries in zip(group, stored, strict=True):
                if (camera := next(remaining)) is not None:
                    pose = original.to_scene(camera).pose.double()
                    entries["transform_matrix"] = (pose if frame.entries.get("from_na") else pose @ OPENGL).tolist()
            contents[path.name] = _json(table)
        return contents


def _json(table: Mapping[str, object]) -> bytes:
    return (json.dumps(table, indent=2) + "\n").encode()


def _choose_files(data: Detection) -> list[Path]:
    """Return the files to read: the file of all views, or those of the training and the held-out views."""
    by_name = {path.name: path for path in data.camera_files}
    for stem in ("transforms", "transform"):
        if f"{stem}.json" in by_name:
            return [by_name[f"{stem}.json"]]
        parts = [[f"{stem}_train.json", f"{stem}_{part}.json"] for part in ("test", "val")]
        for names in (*parts, [f"{stem}_train.json"]):
            if by_name.keys() >= set(names):
                return [by_name[name] for name in names]
    if len(by_name) == 1:
        return [*by_name.values()]
    raise ValueError(f"{data.folder}: expected transforms.json or transforms_train.json, found {', '.join(by_name)}")


def _entry(frame: Frame, original: SceneTransform, held_out: bool | None) -> Entry:
    """Return a frame as a view in the original frame; what is wrong with its names is kept for the message."""

    def camera(width: int, height: int) -> Camera:
        return original.to_data(frame.camera(width, height))

    def name(key: str, kind: str) -> str | None:
        return frame.file_name(key, kind) if key in frame.entries else None

    try:
        picture = frame.file_name("file_path", "picture")
        mask, depth = name("mask_path", "mask"), name("depth_file_path", "depth map")
    except ValueError as error:
        return Entry("", camera, frame.label, held_out=held_out, broken=str(error))
    return Entry(picture, camera, frame.label, mask, depth, held_out)


def _original_frame(path: Path, table: Mapping[str, object]) -> SceneTransform:
    """Return the transform from the frame of the file to the one before `applied_transform` and `applied_scale`."""
    applied = torch.eye(4, dtype=torch.float64)
    if table.get("applied_transform") is not None:
        applied = similarity_matrix(str(path), "applied_transform", table["applied_transform"])
    scale = Frame({**table}, path, str(path)).number("applied_scale", 1.0)
    with error_prefix(f"{path}: applied_transform and applied_scale"):
        if not 0 < scale < float("inf"):
            raise ValueError(f"expected a positive scale, found {scale}")
        return SceneTransform(torch.diag(torch.tensor([scale] * 3 + [1.0], dtype=torch.float64)) @ applied).inverse()


def _split(path: Path, table: Mapping[str, object], frames: Sequence[Frame]) -> list[bool | None]:
    """Return which frames the lists of names hold out; None for each if there are no lists."""
    lists: dict[str, set[str]] = {}
    for key in SPLITS:
        names = table.get(key)
        if names is None:
            continue
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{path}: expected {key} to be a list of names of pictures, found {names!r}")
        lists[key] = {_plain(name) for name in names}
    known = [_plain(str(frame.entries.get("file_path"))) for frame in frames]
    for key, found in lists.items():
        if unknown := sorted(found - set(known)):
            raise ValueError(f"{path}: {key} names {unknown[0]!r}, which is the file_path of no frame")
    if "train_filenames" in lists:
        return [name not in lists["train_filenames"] for name in known]
    held_out = set().union(*lists.values())
    return [name in held_out if lists else None for name in known]


def _plain(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).as_posix()


def _points(
    folder: Path, path: Path, table: Mapping[str, object], original: SceneTransform
) -> Float[Tensor, "m 3"] | None:
    """Return the points of `ply_file_path` in the original frame, None if there are none."""
    if table.get("ply_file_path") is None:
        return None
    name = Frame({**table}, path, str(path)).file_name("ply_file_path", "file of points")
    file = path_inside(folder, name)
    if not file.is_file():
        return None
    return original.apply(read_mesh(file).vertices.double())


def _attach_stacks(views: Views, frames: Sequence[Frame], folder: Path, options: ReadOptions) -> Views:
    """Return `views` with the depth beside the camera files, if there is any and the frames name none."""
    maps: list[DepthMap | None] = []
    if any("depth_file_path" in frame.entries for frame in frames):
        return views
    for file in dict.fromkeys(frame.file for frame in frames):
        n = sum(frame.file == file for frame in frames)
        path = path_inside(folder, file.stem.replace("transforms", "depth", 1) + ".npz")
        maps += read_depth_stack(path, n) if path.is_file() else [None] * n
    return attach_depth(views, [maps[i] for i in views.listed or range(len(maps))], options.depth_scale)


def _stated_width(frame: Frame) -> float | None:
    """Return the width that the intrinsics of a frame are for; None if it does not say."""
    try:
        return frame.number("w", 0) or None
    except ValueError:  # the view is left out
        return None

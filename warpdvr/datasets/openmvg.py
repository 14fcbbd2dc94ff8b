"""Read OpenMVG scenes, and write their cameras: `sfm_data.json`.

Layout as in openMVG/openMVG (docs, "SfM_Data format", and src/openMVG/sfm/sfm_data_io.hpp): `views` name pictures and
refer to `intrinsics` and `extrinsics` by number. Intrinsics have one focal length and a principal point [pixel] and
are `pinhole`, `pinhole_radial_k1`, `pinhole_radial_k3`, `pinhole_brown_t2` (k1, k2, k3, t1, t2: OpenCV's k1, k2, k3,
p1, p2) or `fisheye` (k1 .. k4 of the angle). Extrinsics are a rotation, world to camera, OpenCV axes, and the centre
of the camera. Where pixel centres are is not defined; they are taken to be at +0.5, since its converter to COLMAP
(main_openMVG2Colmap.cpp) copies the principal point, and COLMAP's are. The file tells a type's name once, where it
first occurs; further ones refer to it by number. Points in `structure` are read with the views that see them.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.lenses import FisheyeLens
from warpdvr.cameras.projection import PINHOLE, Projection
from warpdvr.datasets.camera_numbers import (
    intrinsics,
    inverse_pose,
    make_camera,
    parameters_of,
    refuse_equirectangular,
    seen_by_none,
)
from warpdvr.datasets.entries import Entry, Listing, NamedCamera
from warpdvr.datasets.formats import Detection, ReadOptions
from warpdvr.datasets.lens_coefficients import Brown, brown_of, fisheye_of
from warpdvr.datasets.listing import ListedFormat
from warpdvr.datasets.textfiles import (
    get_list,
    get_name,
    get_number,
    get_table,
    read_json,
    shorten,
    to_matrix,
    to_numbers,
)

NEW_TYPE = 1 << 31
"""Added by cereal to the number of a type, or of an object, where it occurs first."""


class OpenMVG(ListedFormat):
    """`sfm_data*.json`: `views`, `intrinsics` with a lens, and `extrinsics`, a rotation and a centre."""

    title = "OpenMVG"
    pattern = "sfm_data*.json"
    besides = "structure, control points and the sharing of intrinsics"

    def listing(self, data: Detection, options: ReadOptions) -> Listing:
        """Return a view per picture; the camera of one without a pose raises a sentence that says so."""
        path = data.choose("sfm_data.json")
        table = read_json(path)
        lenses = _intrinsics(str(path), table)
        poses = {str(e.get("key")): e.get("value") for e in _tables(str(path), table, "extrinsics")}
        entries, keys = [], []
        for view in _tables(str(path), table, "views"):
            label = f"{path}: view {shorten(view.get('key'))}"
            content = get_table(label, get_table(label, get_table(label, view, "value"), "ptr_wrapper"), "data")
            name = get_name(f"{label}: filename", content.get("filename"))
            local = content.get("local_path") or ""
            picture = str(PurePosixPath(str(local).lstrip("/"), name)) if "\0" not in str(local) else name
            lens, pose = lenses.get(str(content.get("id_intrinsic"))), poses.get(str(content.get("id_pose")))
            entries.append(Entry(picture, partial(_camera, label, lens, pose), label))
            keys.append(view.get("key"))
        points, visible = _structure(str(path), table, keys)
        words = "rotation world to camera and centre, OpenCV axes, pixel centres taken to be at +0.5 (not defined)"
        return Listing(tuple(entries), path.name, words, points=points, visible=visible)

    def export(self, cameras: Sequence[NamedCamera]) -> dict[str, bytes]:
        """Return `sfm_data.json` without points; each picture has its own intrinsics."""
        table: dict[str, object] = {"sfm_data_version": "0.3", "root_path": ""}
        table["views"] = [_view(i, named) for i, named in enumerate(cameras)]
        first: dict[str, int] = {}
        table["intrinsics"] = [_lens(i, named, first) for i, named in enumerate(cameras)]
        table["extrinsics"] = [_pose(i, named) for i, named in enumerate(cameras)]
        table |= {"structure": [], "control_points": []}
        return {"sfm_data.json": (json.dumps(table, indent=1) + "\n").encode()}


def _tables(label: str, table: Mapping[str, object], key: str) -> list[dict[str, object]]:
    """Return a list of tables."""
    entries = [entry for entry in get_list(label, table, key) if isinstance(entry, dict)]
    if len(entries) != len(get_list(label, table, key)):
        raise ValueError(f"{label}: expected {key} to be a list of tables, found something else in it")
    return entries


def _intrinsics(path: str, table: Mapping[str, object]) -> dict[str, tuple[str, dict[str, object]]]:
    """Return the type and the numbers of all intrinsics, by key."""
    names: dict[int, str] = {}
    found: dict[str, tuple[str, dict[str, object]]] = {}
    for entry in _tables(path, table, "intrinsics"):
        label = f"{path}: intrinsics {shorten(entry.get('key'))}"
        value = get_table(label, entry, "value")
        number = int(get_number(label, value, "polymorphic_id", 0.0))
        if "polymorphic_name" in value:
            names[number % NEW_TYPE] = str(value["polymorphic_name"])
        data = get_table(label, get_table(label, value, "ptr_wrapper"), "data")
        found[str(entry.get("key"))] = names.get(number % NEW_TYPE, "pinhole"), data
    return found


def _camera(label: str, lens: tuple[str, dict[str, object]] | None, pose: object, width: int, height: int) -> Camera:
    if lens is None or not isinstance(pose, dict):
        raise ValueError(
            f"{label}: there is no {'pose' if lens else 'intrinsics'} for this picture, it was not located"
        )
    kind, numbers = lens
    if kind == "spherical":
        refuse_equirectangular(label, "intrinsics of type spherical")
    projection = _projection(label, kind, numbers)
    base = numbers.get("value0") if isinstance(numbers.get("value0"), dict) else numbers
    assert isinstance(base, dict)
    f = get_number(label, base, "focal_length")
    cx, cy = to_numbers(f"{label}: principal_point", base.get("principal_point"), 2)
    stored = get_number(label, base, "width"), get_number(label, base, "height")
    R = to_matrix(f"{label}: rotation", pose.get("rotation"), 3, 3)
    centre = torch.tensor(to_numbers(f"{label}: center", pose.get("center"), 3), dtype=torch.float64)
    own = inverse_pose(label, R, -R @ centre)
    K = intrinsics(f, f, cx, cy)
    return make_camera(label, K, own, (width, height), stored=stored, projection=projection)


def _projection(label: str, kind: str, numbers: Mapping[str, object]) -> Projection:
    """Return the lens of a type."""
    if kind == "pinhole":
        return PINHOLE
    if kind == "pinhole_radial_k1":
        return Brown(*to_numbers(f"{label}: disto_k1", numbers.get("disto_k1"), 1)).projection()
    if kind == "pinhole_radial_k3":
        return Brown(*to_numbers(f"{label}: disto_k3", numbers.get("disto_k3"), 3)).projection()
    if kind == "pinhole_brown_t2":
        return Brown(*to_numbers(f"{label}: disto_t2", numbers.get("disto_t2"), 5)).projection()
    if kind == "fisheye":
        k1, k2, k3, k4 = to_numbers(f"{label}: fisheye", numbers.get("fisheye"), 4)
        return FisheyeLens([k1, k2, k3, k4])
    raise ValueError(f"{label}: expected a pinhole, radial, brown or fisheye lens, found {kind!r}")


def _structure(
    path: str, table: Mapping[str, object], keys: list[object]
) -> tuple[Float[Tensor, "m 3"] | None, Bool[Tensor, "n m"] | None]:
    """Return the points, and which view sees which; None without any."""
    landmarks = _tables(path, table, "structure") if table.get("structure") else []
    if not landmarks:
        return None, None
    index = {str(key): i for i, key in enumerate(keys)}
    visible = seen_by_none(path, len(keys), len(landmarks))
    points = []
    for j, landmark in enumerate(landmarks):
        label = f"{path}: structure {j}"
        value = get_table(label, landmark, "value")
        points.append(to_numbers(f"{label}: X", value.get("X"), 3))
        for observation in _tables(label, value, "observations"):
            key = str(observation.get("key"))
            if key not in index:
                raise ValueError(
                    f"{label}: expected observations in views, found view {shorten(key)}, which is not one"
                )
            visible[index[key], j] = True
    return torch.tensor(points, dtype=torch.float64), visible


def _view(i: int, named: NamedCamera) -> dict[str, object]:
    c = named.camera
    numbers = {"width": c.width, "height": c.height, "id_view": i, "id_intrinsic": i, "id_pose": i}
    data = {"local_path": "", "filename": named.name, **numbers}
    return {"key": i, "value": {"polymorphic_id": 1 << 30, "ptr_wrapper": {"id": NEW_TYPE + 1 + i, "data": data}}}


def _lens(i: int, named: NamedCamera, first: dict[str, int]) -> dict[str, object]:
    """Return the intrinsics of a camera; `first` holds the numbers of the types so far."""
    p = parameters_of(named, OpenMVG.title, square=True)
    base = {"width": p.width, "height": p.height, "focal_length": p.fx, "principal_point": [p.cx, p.cy]}
    if angles := fisheye_of(named):
        kind, data = "fisheye", {"value0": base, "fisheye": [*angles]}
    else:
        b = brown_of(named, OpenMVG.title)
        kind, data = "pinhole_brown_t2", {"value0": base, "disto_t2": [b.k1, b.k2, b.k3, b.p1, b.p2]}
    new = kind not in first
    number = first.setdefault(kind, len(first) + 1)
    value: dict[str, object] = {"polymorphic_id": number + NEW_TYPE if new else number}
    if new:
        value["polymorphic_name"] = kind
    value["ptr_wrapper"] = {"id": NEW_TYPE + 100_001 + i, "data": data}
    return {"key": i, "value": value}


def _pose(i: int, named: NamedCamera) -> dict[str, object]:
    p = parameters_of(named, OpenMVG.title, square=True)
    return {"key": i, "value": {"rotation": p.R.tolist(), "center": p.pose[:3, 3].tolist()}}

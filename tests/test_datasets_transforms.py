"""transforms.json with lenses, as colmap2nerf, ns-process-data and NeuS2 write it, and sdfstudio's meta_data.json."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.colmap_models import colmap_projection
from warpdvr.cameras.projection import PINHOLE, Projection
from warpdvr.datasets.formats import ReadOptions
from warpdvr.datasets.listing import NamedCamera
from warpdvr.datasets.load import detect, load, write_cameras
from warpdvr.datasets.nerfstudio import Nerfstudio
from warpdvr.datasets.sdfstudio import SDFStudio
from warpdvr.datasets.views import Views

WIDTH, HEIGHT, N = 32, 24, 5
NAMES = [f"frame_{i:05d}.png" for i in range(N)]
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
APPLIED = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]])
"""What ns-process-data writes for COLMAP: rows 0, 2, 1, the last one negative."""
X = np.random.default_rng(0).normal(0, 0.4, (40, 3))
INTRINSICS = {"fl_x": 30.0, "fl_y": 31.0, "cx": 15.0, "cy": 12.5, "w": WIDTH, "h": HEIGHT}
Table = dict[str, object]


def poses() -> list[np.ndarray]:
    """Camera to world with OpenCV axes, on a ring that looks at the origin."""
    found = []
    for i in range(N):
        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_euler("yxz", [70 * i, 10 * (i % 3), 5 * i], degrees=True).as_matrix()
        pose[:3, 3] = pose[:3, :3] @ [0.02 * i, -0.03, -3.0]
        found.append(pose)
    return found


def save_pictures(folder: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(NAMES):
        pixels = np.random.default_rng(i).integers(0, 255, (size[1], size[0], 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name)


def frames(matrices: list[np.ndarray] | None = None) -> list[Table]:
    given = [pose @ OPENGL for pose in poses()] if matrices is None else matrices
    return [{"file_path": f"images/{n}", "transform_matrix": m.tolist()} for n, m in zip(NAMES, given, strict=True)]


def write(folder: Path, table: Table, name: str = "transforms.json") -> Path:
    save_pictures(folder / "images")
    (folder / name).write_text(json.dumps(table))
    return folder


def opencv(plane: np.ndarray, c: Table) -> np.ndarray:
    """OpenCV's distortion of points on the plane z = 1, from its documentation."""
    k1, k2, p1, p2, k3 = (float(c.get(key, 0)) for key in ("k1", "k2", "p1", "p2", "k3"))  # type: ignore[arg-type]
    x, y = plane.T
    r = x * x + y * y
    radial = 1 + k1 * r + k2 * r**2 + k3 * r**3
    u = x * radial + 2 * p1 * x * y + p2 * (r + 2 * x * x)
    v = y * radial + p1 * (r + 2 * y * y) + 2 * p2 * x * y
    return np.stack([u, v], 1)


def fisheye(plane: np.ndarray, c: Table) -> np.ndarray:
    """OpenCV's fisheye of points on the plane z = 1, from its documentation."""
    r = np.linalg.norm(plane, axis=1, keepdims=True)
    theta = np.arctan(r)
    powers = sum(float(c.get(f"k{i}", 0)) * theta ** (2 * i + 1) for i in range(1, 5))  # type: ignore[arg-type]
    bent: np.ndarray = plane * (theta + powers) / r
    return bent


def pixels(pose: np.ndarray, c: Table, bend: Callable[[np.ndarray, Table], np.ndarray] = opencv) -> np.ndarray:
    local = (X - pose[:3, 3]) @ pose[:3, :3]
    bent: np.ndarray = bend(local[:, :2] / local[:, 2:], c) * [30.0, 31.0] + [15.0, 12.5]
    return bent


def agrees(views: Views, c: Table, bend: Callable[[np.ndarray, Table], np.ndarray] = opencv) -> None:
    """All cameras project points of the original frame as the formula does."""
    for camera, pose in zip(views.cameras, poses(), strict=True):
        found = views.transform.to_data(camera).project(torch.from_numpy(X))[0].numpy()
        assert np.abs(found - pixels(pose, c, bend)).max() < 1e-6


LENSES: dict[str, tuple[Table, Callable[[np.ndarray, Table], np.ndarray]]] = {
    "colmap2nerf": (  # RADIAL, with all keys, w and h as floats
        {
            "k1": 0.058,
            "k2": -0.01,
            "k3": 0,
            "k4": 0,
            "p1": 0,
            "p2": 0,
            "is_fisheye": False,
            "w": 32.0,
            "aabb_scale": 32,
        },
        opencv,
    ),
    "colmap2nerf fisheye": ({"k1": 0.05, "k2": -0.01, "k3": 2e-3, "k4": -1e-3, "is_fisheye": True}, fisheye),
    "ns-process-data": ({"camera_model": "OPENCV", "k1": 0.06, "k2": -0.02, "p1": 1e-3, "p2": -2e-3}, opencv),
    "ns-process-data fisheye": (
        {"camera_model": "OPENCV_FISHEYE", "k1": 0.05, "k2": -0.01, "k3": 0, "k4": 1e-3},
        fisheye,
    ),
    "equidistant": ({"camera_model": "OPENCV_FISHEYE"}, fisheye),
    "k3": ({"k1": 0.06, "k2": -0.02, "k3": 0.01, "p1": 1e-3}, opencv),
    "pinhole": ({"camera_model": "PINHOLE"}, opencv),
    "simple radial": ({"camera_model": "SIMPLE_RADIAL", "k1": 0.058}, opencv),
}


@pytest.mark.parametrize("name", LENSES)
def test_lenses_of_transforms(tmp_path: Path, name: str) -> None:
    lens, bend = LENSES[name]
    agrees(load(write(tmp_path / "a", {**INTRINSICS, **lens, "frames": frames()})), lens, bend)
    per_frame = [{**frame, **INTRINSICS, **lens} for frame in frames()]
    views = load(write(tmp_path / "b", {"frames": per_frame}))
    agrees(views, lens, bend)
    if name in ("pinhole",):
        assert all(camera.projection is PINHOLE for camera in views.cameras)


def test_frames_may_have_different_lenses(tmp_path: Path) -> None:
    lenses: list[Table] = [{"k1": 0.01 * i, "p2": 1e-3 * i} for i in range(N)]
    table = [{**frame, **INTRINSICS, **lens} for frame, lens in zip(frames(), lenses, strict=True)]
    views = load(write(tmp_path, {"frames": table}))
    for camera, pose, lens in zip(views.cameras, poses(), lenses, strict=True):
        found = views.transform.to_data(camera).project(torch.from_numpy(X))[0].numpy()
        assert np.abs(found - pixels(pose, lens)).max() < 1e-6


def test_distortion_params_of_nerfstudio(tmp_path: Path) -> None:
    table = {**INTRINSICS, "distortion_params": [0.06, -0.02, 0.0, 0.0, 1e-3, -2e-3], "frames": frames()}
    agrees(load(write(tmp_path, table)), {"k1": 0.06, "k2": -0.02, "p1": 1e-3, "p2": -2e-3})


def applied_frames(scale: float) -> list[Table]:
    full = np.vstack([APPLIED, [0, 0, 0, 1]])
    full[:3, 3] = [0.1, -0.2, 0.3]
    matrices = [full @ pose @ OPENGL for pose in poses()]
    for matrix in matrices:
        matrix[:3, 3] *= scale
    return frames(matrices)


def test_applied_transform_is_undone_and_put_back(tmp_path: Path) -> None:
    applied = APPLIED.copy()
    applied[:, 3] = [0.1, -0.2, 0.3]
    points = np.random.default_rng(1).normal(0, 0.3, (6, 3))
    body = "".join("{:.8f} {:.8f} {:.8f} 1 2 3\n".format(*(2.5 * (applied[:, :3] @ x + applied[:, 3]))) for x in points)
    channels = "".join(f"property uint8 {c}\n" for c in ("red", "green", "blue"))
    header = (
        f"ply\nformat ascii 1.0\nelement vertex 6\nproperty float x\nproperty float y\nproperty float z\n{channels}"
    )
    table = {
        **INTRINSICS,
        "k1": 0.058,
        "applied_transform": applied.tolist(),
        "applied_scale": 2.5,
        "ply_file_path": "sparse_pc.ply",
        "frames": applied_frames(2.5),
    }
    write(tmp_path, table)
    (tmp_path / "sparse_pc.ply").write_text(f"{header}end_header\n{body}")
    views = load(tmp_path)
    agrees(views, {"k1": 0.058})
    assert "the frame before applied_transform" in views.summary
    found = Nerfstudio().listing(detect(tmp_path), ReadOptions()).points
    assert found is not None and np.abs(found.numpy() - points).max() < 1e-6
    assert views.cloud is not None and np.abs(views.transform.apply(views.cloud).numpy() - points).max() < 1e-6
    own = views.in_data_frame()
    assert own.cloud is not None and np.abs(own.cloud.numpy() - points).max() < 1e-6
    back = own.in_scene_frame(views.transform).cloud
    assert back is not None and torch.allclose(back, views.cloud) and not views.points
    assert "6 points named by transforms.json come without the views that see them" in views.summary
    (path,) = write_cameras(tmp_path, views, views.cameras, tmp_path / "out")
    again = json.loads(path.read_text())
    assert again.keys() == table.keys() and again["applied_scale"] == 2.5
    for new, old in zip(again["frames"], applied_frames(2.5), strict=True):
        assert np.abs(np.array(new["transform_matrix"]) - np.array(old["transform_matrix"])).max() < 1e-12


def test_an_applied_transform_that_is_none_is_refused(tmp_path: Path) -> None:
    mirror = np.eye(4)[:3]
    mirror[0, 0] = -1
    for entry, message in (
        ({"applied_transform": mirror.tolist()}, "applied_transform and applied_scale: .*one scale, a rotation"),
        ({"applied_transform": [[1, 2], [3, 4]]}, "expected applied_transform to be 4 x 4"),
        ({"applied_scale": 0}, "applied_transform and applied_scale: expected a positive scale, found 0"),
    ):
        with pytest.raises(ValueError, match=rf"transforms\.json: {message}"):
            load(write(tmp_path, {**INTRINSICS, **entry, "frames": frames()}))


def test_lists_of_names_are_the_split(tmp_path: Path) -> None:
    named = [f"./images/{name}" for name in NAMES]
    table = {**INTRINSICS, "frames": frames()}
    lists = {"train_filenames": named[:3], "val_filenames": named[3:4], "test_filenames": named[4:]}
    views = load(write(tmp_path, table | lists))
    assert (views.train, views.test) == ((0, 1, 2), (3, 4)) and "(the split of the data)" in views.summary
    assert load(write(tmp_path, table | {"test_filenames": named[:1]})).test == (0,)
    assert load(write(tmp_path, table), hold_out=2).test == (0, 2, 4)
    with pytest.raises(ValueError, match=r"transforms\.json: test_filenames names 'images/x\.png', .* of no frame"):
        load(write(tmp_path, table | {"test_filenames": ["images/x.png"]}))
    with pytest.raises(ValueError, match=r"transforms\.json: expected train_filenames to be a list of names"):
        load(write(tmp_path, table | {"train_filenames": "all"}))


def test_files_of_several_splits(tmp_path: Path) -> None:
    for stem, part in (("transforms", "test"), ("transforms", "val"), ("transform", "test")):
        folder = tmp_path / f"{stem}_{part}"
        write(folder, {**INTRINSICS, "frames": frames()[:3]}, f"{stem}_train.json")
        write(folder, {**INTRINSICS, "frames": frames()[3:]}, f"{stem}_{part}.json")
        views = load(folder)
        agrees(views, {})
        assert (views.train, views.test) == ((0, 1, 2), (3, 4))


def test_neus2_has_opencv_axes_and_a_matrix_per_frame(tmp_path: Path) -> None:
    K = [[30.0, 0.0, 15.0, 0.0], [0.0, 31.0, 12.5, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    own = [{**frame, "intrinsic_matrix": K} for frame in frames(poses())]
    table = {
        "w": WIDTH,
        "h": HEIGHT,
        "aabb_scale": 1.0,
        "scale": 0.5,
        "offset": [0.5] * 3,
        "from_na": True,
        "frames": own,
    }
    views = load(write(tmp_path, table, "transform_train.json"))
    agrees(views, {})
    assert "OpenCV axes" in views.summary
    (path,) = write_cameras(tmp_path, views, views.cameras, tmp_path / "out")
    for frame, pose in zip(json.loads(path.read_text())["frames"], poses(), strict=True):
        assert np.abs(np.array(frame["transform_matrix"]) - pose).max() < 1e-9


def test_names_without_suffix_and_a_byte_order_mark(tmp_path: Path) -> None:
    own = [{**frame, "file_path": str(frame["file_path"]).removesuffix(".png")} for frame in frames()]
    write(tmp_path, {})
    (tmp_path / "transforms.json").write_text("\ufeff" + json.dumps({**INTRINSICS, "frames": own}), encoding="utf-8")
    agrees(load(tmp_path), {})


REFUSED: dict[str, tuple[Table, str]] = {
    "panorama": ({"camera_model": "EQUIRECTANGULAR"}, r"frame 0: the photographs are panoramas .* cut them"),
    "panorama of instant-ngp": ({"equirectangular": True}, r"frame 0: the photographs are panoramas"),
    "unknown": ({"camera_model": "FISHEYE624"}, r"frame 0: .*found camera_model 'FISHEYE624'; undistort"),
    "k4": ({"k4": 0.1}, r"frame 0: OPENCV has k1, k2, p1, p2 and k3, found k4 = 0\.1; undistort"),
    "p1": ({"is_fisheye": True, "p1": 0.1}, r"frame 0: a fisheye has k1 to k4, found p1 = 0\.1; undistort"),
    "word": ({"k1": "strong"}, r"frame 0: expected k1 to be a number, found 'strong'"),
    "infinite": ({"k1": float("inf")}, r"frame 0: .*finite"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_lenses_are_refused(tmp_path: Path, name: str) -> None:
    entries, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path, {**INTRINSICS, **entries, "frames": frames()}))


def test_smaller_pictures_scale_the_intrinsics(tmp_path: Path) -> None:
    write(tmp_path, {**INTRINSICS, "k1": 0.058, "frames": frames()})
    save_pictures(tmp_path / "images", (WIDTH // 2, HEIGHT // 2))
    views = load(tmp_path)
    for camera, pose in zip(views.cameras, poses(), strict=True):
        found = views.transform.to_data(camera).project(torch.from_numpy(X))[0].numpy()
        assert np.abs(found - pixels(pose, {"k1": 0.058}) / 2).max() < 1e-6
    assert "32 pixels wide, were scaled by 0.5" in views.summary


MODELS = {
    "PINHOLE": (),
    "OPENCV": (0.06, -0.02, 1e-3, -2e-3),
    "OPENCV_FISHEYE": (0.05, -0.01, 2e-3, -1e-3),
    "FULL_OPENCV": (0.06, -0.02, 1e-3, -2e-3, 0.01, 0.02, -0.01, 0.005),
}


def cameras_of(projections: list[Projection]) -> list[NamedCamera]:
    K = np.array([[30.0, 0, 15.0], [0, 31.0, 12.5], [0, 0, 1]])
    pairs = zip(NAMES, poses(), projections, strict=True)
    return [NamedCamera(name, Camera(K, pose, WIDTH, HEIGHT, projection)) for name, pose, projection in pairs]


def same(named: list[NamedCamera], views: Views) -> None:
    for old, camera in zip(named, views.cameras, strict=True):
        expected = old.camera.project(torch.from_numpy(X))[0]
        assert (camera.project(torch.from_numpy(X))[0] - expected).abs().max() < 1e-6


@pytest.mark.parametrize("model", [*MODELS, "mixed"])
def test_cameras_there_and_back(tmp_path: Path, model: str) -> None:
    kinds = [*MODELS, "PINHOLE"] if model == "mixed" else [model] * N
    named = cameras_of([colmap_projection(kind, (30, 31, 15, 12.5, *MODELS[kind]))[1] for kind in kinds])
    save_pictures(tmp_path / "images")
    ((name, content),) = Nerfstudio().export(named).items()
    (tmp_path / name).write_bytes(content)
    same(named, load(tmp_path, normalise=False))
    table = json.loads(content)
    assert ("fl_x" in table) == (model != "mixed") == ("camera_model" in table)
    if model == "OPENCV":
        assert [table[key] for key in ("k1", "k2", "p1", "p2")] == [0.06, -0.02, 1e-3, -2e-3]


def test_lenses_that_the_file_cannot_hold_are_refused() -> None:
    named = cameras_of([colmap_projection("FOV", (30, 31, 15, 12.5, 0.5))[1]] * N)
    with pytest.raises(ValueError, match=r"the camera of frame_00000\.png: transforms\.json holds no lens .* FOV"):
        Nerfstudio().export(named)
    with pytest.raises(ValueError, match=r"meta_data\.json holds pinholes only, the camera of frame_00000\.png is"):
        SDFStudio().export(named)


def sdfstudio(folder: Path, scale: float, shift: list[float]) -> Table:
    """A data set whose world is (x - shift) / scale, with masks and depth."""
    to_gt = np.diag([scale, scale, scale, 1.0])
    to_gt[:3, 3] = shift
    K = [[30.0, 0.2, 15.0, 0.0], [0.0, 31.0, 12.5, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    own: list[Table] = []
    save_pictures(folder)
    for i, (name, pose) in enumerate(zip(NAMES, poses(), strict=True)):
        normalised = pose.copy()
        normalised[:3, 3] = (pose[:3, 3] - shift) / scale
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[6:18, 8:24] = 255
        Image.fromarray(mask).save(folder / f"{i:06d}_foreground_mask.png")
        np.save(folder / f"{i:06d}_sensor_depth.npy", np.full((HEIGHT, WIDTH), 3.0 / scale, np.float32))
        entries = {"rgb_path": name, "camtoworld": normalised.tolist(), "intrinsics": K}
        files = {"foreground_mask": f"{i:06d}_foreground_mask.png", "sensor_depth_path": f"{i:06d}_sensor_depth.npy"}
        own.append({**entries, **files, "mono_depth_path": f"{i:06d}_depth.npy"})
    return {"camera_model": "OPENCV", "height": HEIGHT, "width": WIDTH, "worldtogt": to_gt.tolist(), "frames": own}


def test_sdfstudio_is_read_in_the_frame_of_the_true_mesh(tmp_path: Path) -> None:
    table = sdfstudio(tmp_path, 2.0, [0.1, -0.1, 0.2])
    (tmp_path / "meta_data.json").write_text(json.dumps(table))
    views = load(tmp_path)
    for camera, pose in zip(views.cameras, poses(), strict=True):
        found = views.transform.to_data(camera).project(torch.from_numpy(X))[0].numpy()
        local = (X - pose[:3, 3]) @ pose[:3, :3]
        expected = pixels(pose, {}) + np.stack([0.2 * local[:, 1] / local[:, 2], np.zeros(len(X))], 1)  # skew
        assert np.abs(found - expected).max() < 1e-6
    assert all(mask is not None and int(mask.sum()) == 12 * 16 for mask in views.masks)
    for depth in views.depths:
        assert depth is not None and abs(float(depth[12, 16]) * views.transform.scale - 3.0) < 1e-5
    assert "sdfstudio, meta_data.json" in views.summary and "in the frame of worldtogt" in views.summary
    (path,) = write_cameras(tmp_path, views, views.cameras, tmp_path / "out")
    again = json.loads(path.read_text())
    for new, old in zip(again["frames"], table["frames"], strict=True):  # type: ignore[call-overload]
        assert np.abs(np.array(new["camtoworld"]) - np.array(old["camtoworld"])).max() < 1e-9


def test_sdfstudio_there_and_back(tmp_path: Path) -> None:
    named = cameras_of([PINHOLE] * N)
    save_pictures(tmp_path / "images")
    ((name, content),) = SDFStudio().export(named).items()
    (tmp_path / name).write_bytes(content)
    same(named, load(tmp_path, normalise=False))


def test_sdfstudio_refuses_what_is_no_camera(tmp_path: Path) -> None:
    table = sdfstudio(tmp_path, 1.0, [0, 0, 0])
    for key, value, message in (
        ("camtoworld", [[1, 2]], "frame 0: expected camtoworld to be 4 x 4"),
        ("intrinsics", "none", "frame 0: expected intrinsics to be 3 x 3 numbers"),
        ("rgb_path", None, "frame 0: expected rgb_path to name a picture, found None"),
    ):
        spoilt = [{**frame, key: value} for frame in table["frames"]]  # type: ignore[attr-defined]
        (tmp_path / "meta_data.json").write_text(json.dumps({**table, "frames": spoilt}))
        with pytest.raises(ValueError, match=message):
            load(tmp_path)

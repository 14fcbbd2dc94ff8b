"""DVR's own layout: against its formulas written out, and there and back."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_datasets import edit_npz

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets.dvr import DVR, write
from warpdvr.datasets.load import load
from warpdvr.datasets.synthetic import mesh_views
from warpdvr.datasets.views import Views

WIDTH, HEIGHT, N = 48, 36, 5


def box(scale: float = 2.0) -> Views:
    """Views of random pictures, unlike one another, with depth and a turned transform."""
    rng = np.random.default_rng(0)
    turn = Camera.look_at((1.0, 2.0, 3.0)).pose
    transform = SceneTransform(turn @ torch.diag(torch.tensor([scale, scale, scale, 1.0]).double()))
    cameras = []
    for i in range(N):
        camera = Camera.look_at(rng.normal(size=3) * 0.1 + 3 * turn[i % 3, :3].numpy(), width=WIDTH, height=HEIGHT)
        K = camera.K + torch.tensor([[3, 0.2, 1.5], [0, 0, -2.25], [0, 0, 0]]) * (i + 1) / N
        cameras.append(replace(camera, K=K))
    images = tuple(torch.from_numpy(rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)) for _ in range(N))
    masks = tuple(torch.from_numpy(rng.random((HEIGHT, WIDTH)) < 0.5) for _ in range(N))
    names, train = tuple(f"v{i}" for i in range(N)), tuple(range(N))
    return Views(images, masks, tuple(cameras), names, train, (), transform, "made")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "x", box())
    return tmp_path / "x"


def same(found: Views, made: Views) -> None:
    assert (found.transform.matrix - made.transform.matrix).abs().max() < 1e-12
    for a, b in zip(found.cameras, made.cameras, strict=True):
        assert (a.K - b.K).abs().max() < 1e-6 and (a.pose - b.pose).abs().max() < 1e-6
        assert (a.width, a.height) == (b.width, b.height)
    assert all(torch.equal(a, b) for a, b in zip(found.images, made.images, strict=True))
    for mask, own in zip(found.masks, made.masks, strict=True):
        assert mask is own if mask is None or own is None else torch.equal(mask, own)


def test_there_and_back(folder: Path) -> None:
    found = load(folder, hold_out=2)
    same(found, box())
    assert found.summary.startswith("DVR, cameras.npz") and found.test == (0, 2, 4) and found.depths == ()


def test_depth_there_and_back(tmp_path: Path) -> None:
    """A rendered mesh, whose depth passes the test for the unit; in the file it is in the mesh's own unit."""
    made = mesh_views("warp:bunny", count=6, test=2, size=40)
    lump = [
        c.centre.norm().float() - 0.3 * m.float()
        for c, m in zip(made.cameras, made.masks, strict=True)
        if m is not None
    ]
    depths = tuple(d.masked_fill(d == d.max(), torch.nan) for d in lump)
    made = replace(made, depths=(*depths[:-1], None))
    write(tmp_path, made)
    stored = np.load(tmp_path / "depth/0001.npy")
    assert (stored == 0).sum() == depths[1].isnan().sum() and not (tmp_path / "depth/0007.npy").exists()
    assert stored.max() == pytest.approx(float(depths[1].nan_to_num().max()) * made.transform.scale)
    found = load(tmp_path)
    same(found, made)
    assert found.depths[-1] is None
    for a, b in zip(found.depths[:-1], depths[:-1], strict=True):
        assert a is not None and torch.allclose(a, b, rtol=1e-6, equal_nan=True)


def test_some_views_without_mask(tmp_path: Path) -> None:
    made = box()
    made = replace(made, masks=(made.masks[0], None, None, *made.masks[3:]))
    write(tmp_path, made)
    same(load(tmp_path), made)


def hand_made(folder: Path, *, scale: float = 1.0, scale_mat: bool = True) -> dict[str, np.ndarray]:
    """Write a data set in DVR's form without our writer; `scale` multiplies [R | t]."""
    arrays = {}
    rng = np.random.default_rng(1)
    (folder / "image").mkdir(parents=True)
    for i in range(N):
        Image.fromarray(rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(folder / f"image/{i}.jpg")
        z = np.array([np.cos(i), np.sin(i), 0.3])
        z /= np.linalg.norm(z)
        x = np.cross(z, [0.0, 0.0, 1.0])
        x /= np.linalg.norm(x)
        R = np.stack([x, np.cross(z, x), z])
        world = np.eye(4)
        world[:3, :3], world[:3, 3] = R, [0.02 * i, -0.03, 4.0]
        arrays[f"world_mat_{i}"] = np.diag([scale, scale, scale, 1]) @ world
        K = np.array([[2.4, 0, 0.05, 0], [0, 3.1, -0.1, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        arrays[f"camera_mat_{i}"] = K.astype(np.float32)
        if scale_mat:
            arrays[f"scale_mat_{i}"] = np.array([[1.5, 0, 0, 0.1], [0, 1.5, 0, 0.2], [0, 0, 1.5, 0.3], [0, 0, 0, 1]])
    np.savez(folder / "cameras.npz", **arrays)  # type: ignore[arg-type]
    return arrays


@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("scale_mat", [True, False])
def test_cameras_are_those_of_its_formulas(tmp_path: Path, scale: float, scale_mat: bool) -> None:
    """arange_pixels and transform_to_world of im2mesh/common.py, in float64."""
    arrays = hand_made(tmp_path, scale=scale, scale_mat=scale_mat)
    depth = np.random.default_rng(2).uniform(3, 5, (HEIGHT, WIDTH)).astype(np.float32)
    (tmp_path / "depth").mkdir()
    for i in range(N):
        np.save(tmp_path / f"depth/{i:02d}.npy", depth)
    views = load(tmp_path)
    assert views.transform.scale == pytest.approx(1.5 if scale_mat else 1.0)
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    one = np.ones((HEIGHT, WIDTH))
    pixels = np.stack([2.0 * column / (WIDTH - 1) - 1.0, 2.0 * row / (HEIGHT - 1) - 1.0, one, one])
    pixels[:3] *= depth
    for k, camera in enumerate(views.cameras):
        S = arrays.get(f"scale_mat_{k}", np.eye(4))
        back = np.linalg.inv(S) @ np.linalg.inv(arrays[f"world_mat_{k}"]) @ np.linalg.inv(arrays[f"camera_mat_{k}"])
        p = (back @ pixels.reshape(4, -1))[:3].T
        uv, z = camera.project(torch.from_numpy(p))
        assert np.abs(uv[:, 0].numpy() - column.reshape(-1) - 0.5).max() < 1e-5
        assert np.abs(uv[:, 1].numpy() - row.reshape(-1) - 0.5).max() < 1e-5
        own = views.depths[k]
        assert own is not None and np.abs(z.numpy() - own.double().numpy().reshape(-1)).max() < 1e-5


def test_alpha_is_the_mask(folder: Path) -> None:
    shutil.rmtree(folder / "mask")
    made = box()
    for i, (image, mask) in enumerate(zip(made.images, made.masks, strict=True)):
        assert mask is not None
        Image.fromarray(np.dstack([image.numpy(), 255 * mask.numpy()]).astype(np.uint8)).save(
            folder / f"image/{i:04d}.png"
        )
    found = load(folder)
    same(found, made)
    assert f"Masks from alpha (above 127 = object) for {N} of {N}" in found.summary


def test_masks_of_other_names_go_by_order(folder: Path) -> None:
    for path in list((folder / "mask").iterdir()):
        path.rename(path.with_name(f"m{int(path.stem)}.png"))
    same(load(folder), box())


def test_the_skull_stays_idr(data: Path, folder: Path) -> None:
    """Its file has camera_mat too, but K in world_mat."""
    for name in ("cameras_sphere.npz", "cameras_linear_init.npz"):
        assert not DVR().recognises(data / "dtu_scan65" / name)
    assert DVR().recognises(folder / "cameras.npz")
    assert load(data / "dtu_scan65").summary.startswith("IDR / NeuS, cameras_sphere.npz")


def without_scale(arrays: dict[str, np.ndarray]) -> None:
    for i in range(N):
        del arrays[f"scale_mat_{i}"]


def test_without_scale_mat_the_frame_stays_if_it_is_one_of_a_unit_sphere(tmp_path: Path) -> None:
    made = replace(box(), transform=SceneTransform.identity())
    write(tmp_path / "x", made)
    edit_npz(without_scale)(tmp_path / "x")
    same(load(tmp_path / "x"), made)
    far = SceneTransform.around(torch.tensor([0.0, 0.0, 640.0]), 160.0)
    moved = replace(made, cameras=tuple(map(far.to_data, made.cameras)), masks=(None,) * N)
    write(tmp_path / "y", moved)
    found = load(tmp_path / "y")
    assert (found.transform.matrix[:3, 3] - far.matrix[:3, 3]).norm() < 0.2 * far.scale
    assert 0.2 < found.transform.scale / far.scale < 2 and "optical axes" in found.summary


@pytest.mark.parametrize("form", ["mask", "index"])
def test_points_of_its_cloud(tmp_path: Path, form: str) -> None:
    """p_proj = K Rt p, d its third component, as in im2mesh/data/fields.py; only points in the visual hull."""
    arrays = hand_made(tmp_path)
    rng = np.random.default_rng(3)
    p, hull = rng.normal(size=(50, 3)) * 0.3, rng.random(50) < 0.7
    seen = {f"visibility_{i:04d}": rng.random(50) < 0.5 for i in range(N)}
    stored = seen if form == "mask" else {key: row.nonzero()[0] for key, row in seen.items()}
    np.savez(tmp_path / "pcl.npz", points=p, is_in_visual_hull=hull, colors=np.zeros((50, 3)), **stored)
    views = load(tmp_path)
    for i, points in enumerate(views.points):
        chosen = p[seen[f"visibility_{i:04d}"] & hull]
        h = (
            np.c_[chosen, np.ones(len(chosen))]
            @ (arrays[f"camera_mat_{i}"].astype(np.float64) @ arrays[f"world_mat_{i}"]).T
        )
        u, v = ((h[:, k] / h[:, 2] + 1) / 2 * (n - 1) for k, n in ((0, WIDTH), (1, HEIGHT)))
        inside = (np.abs(u - (WIDTH - 1) / 2) < WIDTH / 2) & (np.abs(v - (HEIGHT - 1) / 2) < HEIGHT / 2)
        assert points is not None and len(points) == inside.sum() > 3
        assert np.abs(points.pixel.numpy() - np.stack([u, v], 1)[inside] - 0.5).max() < 1e-3
        assert np.abs(points.depth.numpy() - h[inside, 2] / 1.5).max() < 1e-5


def hull_depth(folder: Path) -> None:
    (folder / "visual_hull_depth").mkdir()
    (folder / "visual_hull_depth/0000.exr").write_bytes(b"?")


def test_the_depth_of_the_visual_hull_is_left_aside(folder: Path) -> None:
    hull_depth(folder)
    assert load(folder).depths == ()


def exr(folder: Path) -> None:
    (folder / "depth").mkdir()
    (folder / "depth/0000.exr").write_bytes(b"?")


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "camera missing": (edit_npz(lambda a: a.pop("camera_mat_3")), r"cameras\.npz: camera_mat_3 is missing"),
    "last camera missing": (
        edit_npz(lambda a: [a.pop(f"{k}_mat_4") for k in ("camera", "world")]),
        r"image: expected 4 pictures.* found 5",
    ),
    "image missing": (
        lambda f: (f / "image/0002.png").unlink(),
        r"image/0002\.png' is missing",
    ),
    "mirror": (
        edit_npz(lambda a: a.update(camera_mat_2=np.diag([1.0, -1, 1, 1]))),
        "camera_mat_2 and world_mat_2 make a mirror",
    ),
    "mixed": (edit_npz(lambda a: a.update(world_mat_2=np.diag([9.0, 9, 1, 1]))), r"world_mat_2 is not \[R \| t\]"),
    "scales": (edit_npz(lambda a: a.update(scale_mat_2=np.eye(4))), "scale_mat_2 differs from scale_mat_0"),
    "scale": (
        edit_npz(lambda a: a.update({f"scale_mat_{i}": np.diag([1.0, 2, 1, 1]) for i in range(N)})),
        r"scale_mat_0: .*one scale",
    ),
    "NaN": (edit_npz(lambda a: a["world_mat_2"].fill(np.nan)), r"world_mat_2 holds a number that is not finite"),
    "exr": (exr, r"depth: expected depth maps as \.npy.* such as \.exr"),
    "cloud": (lambda f: np.savez(f / "pcl.npz", points=np.ones((2, 3))), "pcl.npz: expected visibility_0000"),
    "cloud index": (
        lambda f: np.savez(f / "pcl.npz", points=np.ones((2, 3)), visibility_0000=np.array([7])),
        "does not fit",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_bad_data_are_named(folder: Path, name: str) -> None:
    spoil, message = SPOILT[name]
    spoil(folder)
    with pytest.raises(ValueError, match=message):
        load(folder)


@pytest.mark.parametrize("name", ["image", "mask", "depth", "cameras.npz"])
def test_nothing_is_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=f"{name}: expected a folder without data"):
        write(tmp_path, box())

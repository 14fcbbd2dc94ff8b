"""Depth beside photographs: against the true mesh, a ball's closed form, and in every wrong unit."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from test_datasets import CENTRE, HEIGHT, RADIUS, WIDTH, WRITERS, N, cameras, edit_json

from warpdvr.cameras.camera import Camera
from warpdvr.datasets.depth import attach_depth
from warpdvr.datasets.depthcheck import depth_agreement
from warpdvr.datasets.depthfile import DepthMap, read_depth_map
from warpdvr.datasets.load import load
from warpdvr.datasets.views import SparseDepth, Views


def pixel_directions(camera: Camera) -> np.ndarray:
    """Directions in the world with forward component 1 through all pixel centres (h, w, 3), by K^-1 written out."""
    K, pose = camera.K.numpy(), camera.pose.numpy()
    v, u = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    local = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u)], -1)
    return local @ pose[:3, :3].T


def ball_depth(camera: Camera) -> np.ndarray:
    """The ball's z-depth (h, w), float64 [unit of the data]: |o + z d - c|^2 = r^2; 0 for a miss."""
    d, away = pixel_directions(camera), camera.pose[:3, 3].numpy() - CENTRE.numpy()
    a, b, c = (d * d).sum(-1), d @ away, away @ away - RADIUS**2
    root = b * b - a * c
    return np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, 0)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The ball in each format, with depth/; not to be changed."""
    folders = {name: tmp_path_factory.mktemp(name) for name in WRITERS}
    for name, write in WRITERS.items():
        write(folders[name])
        (folders[name] / "depth").mkdir()
        for i, camera in enumerate(cameras()):
            np.save(folders[name] / f"depth/{i:04d}.npy", ball_depth(camera).astype(np.float32))
    return folders


@pytest.fixture(scope="module")
def spot(data: Path) -> Views:
    return load(data / "renders/spot")


@pytest.fixture
def ball(good: dict[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(good["transforms"], tmp_path / "x")


def agrees(views: Views, skip: tuple[int, ...] = ()) -> None:
    """Compare all maps, but those of `skip`, with the closed form."""
    assert len(views.depths) == N
    for i, (depth, camera) in enumerate(zip(views.depths, cameras(), strict=True)):
        if i in skip:
            assert depth is None
            continue
        true = ball_depth(camera)
        assert depth is not None and depth.dtype == torch.float32
        assert (depth.isnan().numpy() == (true == 0)).all()
        found = depth.double().numpy() * views.transform.scale
        assert np.abs(found - true)[true > 0].max() < 1e-5


def change(folder: Path, how: Callable[[np.ndarray], np.ndarray]) -> None:
    for path in sorted((folder / "depth").iterdir()):
        np.save(path, how(np.load(path)))


def test_spot_has_the_depth_of_its_mesh(spot: Views, data: Path) -> None:
    """From the matrices of the file and the triangles' planes, in the data's own unit and in float64."""
    mesh = trimesh.load_mesh(data / "renders/spot/mesh_gt.ply", process=False)
    table = json.loads((data / "renders/spot/transforms_train.json").read_text())
    v, u = (a.reshape(-1) for a in np.mgrid[:400, :400] + 0.5)
    local = np.stack([(u - 200) / table["fl_x"], -(v - 200) / table["fl_x"], -np.ones_like(u)], 1)
    for i in (0, 17, 59):
        pose = np.array(table["frames"][i]["transform_matrix"])
        d = local @ pose[:3, :3].T
        o = np.broadcast_to(pose[:3, 3], d.shape)
        index = mesh.ray.intersects_first(o, d)
        depth = spot.depths[i]
        assert depth is not None
        stored = depth.double().numpy().reshape(-1) * spot.transform.scale
        assert (np.isnan(stored) != (index < 0)).sum() <= 2
        hit = (index >= 0) & ~np.isnan(stored)
        n = mesh.face_normals[index[hit]]
        z = ((mesh.triangles[index[hit], 0] - o[hit]) * n).sum(1) / (d[hit] * n).sum(1)
        assert np.quantile(np.abs(stored[hit] - z), 0.999) < 1e-4
    assert "Depth from depth_train.npz and depth_test.npz for 80 of 80 views, missing on 0.01" in spot.summary


@pytest.mark.parametrize("kind", WRITERS)
def test_ball_has_its_depth_in_every_format(good: dict[str, Path], kind: str) -> None:
    views = load(good[kind])
    agrees(views)
    assert f"Depth from depth/ for {N} of {N} views" in views.summary
    assert views.points == ()


def test_half_of_the_maps_go_by_name(ball: Path) -> None:
    for i in range(N):
        path = ball / f"depth/{i:04d}.npy"
        path.unlink() if i % 2 else path.rename(ball / f"depth/r_{i}.npy")
    agrees(load(ball), skip=tuple(range(1, N, 2)))


@pytest.mark.parametrize("form", [".npy", ".npz", ".png", "integers", "channel"])
def test_frames_name_their_maps(ball: Path, form: str) -> None:
    shutil.move(ball / "depth", ball / "else")
    suffix = form if form.startswith(".") else ".npy"
    for i in range(N):
        path = ball / f"else/{i:04d}{suffix}"
        depth = np.load(path.with_suffix(".npy"))
        thousandths = (1000 * depth).round().astype(np.uint16)
        if form == ".npz":
            np.savez_compressed(path, depth=depth, other=depth)
        elif form == ".png":
            Image.fromarray(thousandths).save(path)
        else:
            np.save(path, thousandths if form == "integers" else depth[..., None] if form == "channel" else depth)
    edit_json(
        lambda t: [f.update(depth_file_path=f"else/{i:04d}{suffix}") for i, f in enumerate(t["frames"])],
    )(ball)
    views = load(ball)
    coarse = form in (".png", "integers")
    for depth, camera in zip(views.depths, cameras(), strict=True):
        true = ball_depth(camera)
        assert depth is not None
        off = np.abs(depth.double().numpy() * views.transform.scale - true)[true > 0]
        assert off.max() < (6e-4 if coarse else 1e-5)


def test_invalid_depth_is_missing(ball: Path) -> None:
    clean = load(ball)
    values = np.array([0.0, -1.0, np.nan, np.inf, -np.inf], dtype=np.float32)
    spoilt = np.random.default_rng(0).integers(0, 25, (N, HEIGHT, WIDTH))
    for i in range(N):
        path = ball / f"depth/{i:04d}.npy"
        depth = np.load(path)
        depth[spoilt[i] < 5] = values[spoilt[i][spoilt[i] < 5]]
        np.save(path, depth)
    views = load(ball)
    share = []
    for depth, whole, mask, bad in zip(views.depths, clean.depths, views.masks, spoilt, strict=True):
        assert depth is not None and whole is not None and mask is not None
        expected = np.where(bad < 5, np.nan, whole.numpy())
        assert np.array_equal(depth.numpy(), expected, equal_nan=True)
        share.append(np.isnan(expected)[mask.numpy()].mean())
    assert f"missing on {100 * np.mean(share):.3g} % of the object" in views.summary


@pytest.mark.parametrize("factor", [1e-3, 1e-2, 0.1, 10.0, 100.0, 1000.0])
def test_another_unit_is_refused_with_the_factor_that_helps(good: dict[str, Path], factor: float) -> None:
    views = load(good["idr"])  # the quickest to read
    unit = views.transform.scale / factor
    maps = [DepthMap(d * unit, Path(f"x/{i}.npy")) for i, d in enumerate(views.depths) if d is not None]
    with pytest.raises(ValueError, match=rf"x/0\.npy: only .* %.*: pass depth_scale={factor:g}$"):
        attach_depth(views, maps)
    with pytest.raises(ValueError, match=rf"pass depth_scale={factor:g}$"):
        attach_depth(views, maps, 10 * factor if factor < 100 else factor / 10)
    agrees(attach_depth(views, maps, factor))


def test_millimetres_are_loaded_by_a_scale(ball: Path) -> None:
    change(ball, lambda depth: 1000 * depth)
    with pytest.raises(ValueError, match=r"0000\.npy: only .*: pass depth_scale=0\.001$"):
        load(ball)
    agrees(load(ball, depth_scale=1e-3))


def test_no_factor_helps_against_wrong_cameras(ball: Path) -> None:
    change(ball, lambda depth: np.float32(0.4) * depth)
    with pytest.raises(ValueError, match="no power of ten"):
        load(ball)


@pytest.mark.parametrize("name", ["spot", "fandisk"])
def test_ray_length_is_told_from_depth(data: Path, name: str) -> None:
    views = load(data / "renders" / name)
    inside, before = depth_agreement(views)
    assert inside > 0.97 and before < 0.02
    maps = []
    for camera, depth in zip(views.cameras, views.depths, strict=True):
        assert depth is not None
        cosine = (camera.rays().direction @ camera.pose[:3, 2].float()).reshape(depth.shape)
        maps.append(DepthMap(depth / cosine * views.transform.scale, Path("d/x.npy")))
    assert depth_agreement(replace(views, depths=tuple(m.depth / views.transform.scale for m in maps)), ray=True) == (
        pytest.approx((inside, before), abs=2e-3)
    )
    with pytest.raises(ValueError, match=r"x\.npy: .* ray length instead of z-depth"):
        attach_depth(views, maps)


def test_noise_and_holes_are_no_reason_to_refuse(spot: Views) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = []
    for depth in spot.depths:
        assert depth is not None
        noise = 1 + 0.03 * torch.randn(depth.shape, generator=generator)
        holes = torch.rand(depth.shape, generator=generator) < 0.3
        maps.append(DepthMap((depth * noise * spot.transform.scale).masked_fill(holes, 0.0), Path("x.npy")))
    views = attach_depth(spot, maps)
    assert "missing on 30.1 % of the object" in views.summary


def test_without_masks_depth_is_taken_as_it_is(ball: Path) -> None:
    for path in ball.glob("train/*.png"):
        with Image.open(path) as image:
            image.convert("RGB").save(path)
    change(ball, lambda depth: 1000 * depth)
    views = load(ball)
    assert "of the pixels." in views.summary and len(views.depths) == N


def sparse(folder: Path, m: int = 40) -> tuple[np.ndarray, list[np.ndarray]]:
    """Write points.npz: `m` pixels on the ball per view, back-projected by hand; return their pixels and depths."""
    points, visible, pixels = [], np.zeros((N, N * m), dtype=bool), []
    for i, camera in enumerate(cameras()):
        depth = ball_depth(camera)
        v, u = depth.nonzero()
        chosen = np.random.default_rng(i).choice(len(u), m, replace=False)
        u, v = u[chosen], v[chosen]
        points.append(camera.pose[:3, 3].numpy() + depth[v, u, None] * pixel_directions(camera)[v, u])
        visible[i, i * m : (i + 1) * m] = True
        pixels.append(np.stack([u + 0.5, v + 0.5, depth[v, u]], 1))
    np.savez(folder / "points.npz", points=np.concatenate(points), visible=visible)
    return visible, pixels


@pytest.mark.parametrize("kind", WRITERS)
def test_sparse_points_have_the_exact_depth(good: dict[str, Path], tmp_path: Path, kind: str) -> None:
    folder = shutil.copytree(good[kind], tmp_path / "x")
    _, expected = sparse(folder)
    views = load(folder)
    assert len(views.points) == N and f"{40 * N} sparse points from points.npz, 40 per view." in views.summary
    for points, true in zip(views.points, expected, strict=True):
        assert points is not None and len(points) == 40
        assert np.abs(points.pixel.numpy() - true[:, :2]).max() < 1e-3
        assert np.abs(points.depth.numpy() * views.transform.scale - true[:, 2]).max() < 1e-5


def test_points_behind_and_beside_the_image_are_left_out(ball: Path) -> None:
    sparse(ball)
    with np.load(ball / "points.npz") as file:
        points, visible = file["points"], file["visible"]
    eye, forward, right = (cameras()[0].pose[:3, i].numpy() for i in (3, 2, 0))
    points[0], points[1], points[2] = eye - forward, eye + forward + 5 * right, np.nan
    np.savez(ball / "points.npz", points=points, visible=visible)
    found = load(ball).points
    assert [len(p) for p in found if p is not None] == [37] + [40] * (N - 1)


def bad_npz(**arrays: np.ndarray) -> Callable[[Path], object]:
    return lambda folder: np.savez(folder / "points.npz", **arrays)  # type: ignore[arg-type]


def only_exr(folder: Path) -> None:
    for path in (folder / "depth").iterdir():
        path.rename(path.with_suffix(".exr"))


def eight_bits(folder: Path) -> None:
    Image.fromarray(np.ones((HEIGHT, WIDTH), dtype=np.uint8)).save(folder / "x.png")
    edit_json(lambda t: t["frames"][2].update(depth_file_path="x.png"))(folder)


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "size": (lambda f: np.save(f / "depth/0003.npy", np.ones((9, 8))), r"0003\.npy: .* map of 8 x 9, image of 80 x 60"),
    "dimensions": (lambda f: np.save(f / "depth/0003.npy", np.ones(8)), r"0003\.npy: .* shape \(h, w\), found \(8,\)"),
    "pickle": (lambda f: np.save(f / "depth/0003.npy", np.array([{}])), r"0003\.npy: expected an npy file of plain"),
    "words": (lambda f: np.save(f / "depth/0003.npy", np.array([["a"]])), r"0003\.npy: expected depth as numbers"),
    "cut": (lambda f: (f / "depth/0003.npy").write_bytes(b"?"), r"0003\.npy: expected an npy file"),
    "stray": (
        lambda f: (f / "depth/0003.npy").unlink(),
        r"depth: the depth map 0000\.npy belongs to no image.* r_0\.npy",
    ),
    "exr": (only_exr, r"depth: expected depth maps as \.npy, .* such as \.exr"),
    "8 bits": (eight_bits, r"x\.png: expected a grey PNG of 16 bits"),
    "named and missing": (
        edit_json(lambda t: t["frames"][2].update(depth_file_path="n.npy")),
        r"frame 2: .*n\.npy: .*missing",
    ),
    "named outside": (edit_json(lambda t: t["frames"][2].update(depth_file_path="../x.npy")), "leads outside"),
    "named by number": (edit_json(lambda t: t["frames"][2].update(depth_file_path=3)), "frame 2: .* found 3"),
    "stack": (
        lambda f: np.savez(f / "depth.npz", depth=np.ones((3, 4, 4))),
        r"depth\.npz: .* \(10, h, w\).*\(3, 4, 4\)",
    ),
    "stack without": (lambda f: np.savez(f / "depth.npz", a=np.ones(3), b=np.ones(3)), r"called `depth`, found \['a'"),
    "points alone": (bad_npz(points=np.ones((2, 3))), r"points\.npz: expected arrays .* found \['points'\]"),
    "points flat": (bad_npz(points=np.ones(3), visible=np.ones((N, 1), bool)), r"`points` to be numbers \(m, 3\)"),
    "points turned": (
        bad_npz(points=np.ones((2, 3)), visible=np.ones((2, N), bool)),
        r"`visible` to be bool \(10, 2\)",
    ),
    "points seen 0/1": (bad_npz(points=np.ones((2, 3)), visible=np.ones((N, 2), int)), "found int64"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_bad_depth_is_named(ball: Path, name: str) -> None:
    spoil, message = SPOILT[name]
    spoil(ball)
    with pytest.raises(ValueError, match=message):
        load(ball)


def test_a_scale_needs_depth(data: Path, ball: Path) -> None:
    shutil.rmtree(ball / "depth")
    with pytest.raises(ValueError, match="there is no depth to scale"):
        load(ball, depth_scale=2)
    for wrong in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="depth_scale must be positive"):
            load(ball, depth_scale=wrong)
    assert load(ball).depths == ()
    with pytest.raises(ValueError, match="the depth map is missing"):
        read_depth_map(ball / "x.npy")


def test_views_check_the_sizes(good: dict[str, Path]) -> None:
    views = load(good["idr"])
    with pytest.raises(ValueError, match=r"10 images, but 1 depths"):
        replace(views, depths=(None,))
    with pytest.raises(ValueError, match=r"10 images, but 1 points"):
        replace(views, points=(None,))
    with pytest.raises(ValueError, match=r"the depth of 000 is \(4, 4\), expected \(60, 80\)"):
        replace(views, depths=(torch.ones(4, 4),) * N)
    with pytest.raises(ValueError, match=r"pixel \(m, 2\) and depth \(m,\)"):
        SparseDepth(torch.ones(3, 2), torch.ones(2))
    with pytest.raises(ValueError, match="positive and finite"):
        SparseDepth(torch.ones(2, 2), torch.tensor([1.0, torch.nan]))

"""Views of the shared data sets against what is known about them: true meshes, depth maps, boxes, calibrations."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from scipy.ndimage import binary_dilation
from torch import Tensor

from warpdvr.datasets.load import load
from warpdvr.datasets.normalise import extent_from_masks
from warpdvr.datasets.views import Views


@pytest.fixture(scope="module")
def spot(data: Path) -> Views:
    return load(data / "renders/spot")


@pytest.fixture(scope="module")
def skull(data: Path) -> Views:
    return load(data / "dtu_scan65")


@pytest.fixture(scope="module")
def dino(data: Path) -> Views:
    return load(data / "middlebury_dino")


def read_mesh(path: Path) -> Any:
    return trimesh.load_mesh(path, process=False)


def hull_iou(views: Views, n: int = 64) -> Tensor:
    """Carve n^3 points of the cube at +-1 by all masks, splat them back, and compare; as the data set's README does."""
    side = torch.linspace(-1 + 1 / n, 1 - 1 / n, n, dtype=torch.float64)
    x = torch.cartesian_prod(side, side, side)
    known = [(c, m.numpy()) for c, m in zip(views.cameras, views.masks, strict=True) if m is not None]
    for camera, mask in known:
        uv, _ = camera.project(x)
        u, v = uv.floor().long().unbind(1)
        seen = (u >= 0) & (v >= 0) & (u < camera.width) & (v < camera.height)
        keep = ~seen
        keep[seen] = torch.from_numpy(mask)[v[seen], u[seen]]
        x = x[keep]
    found = []
    for camera, mask in known[::4]:
        uv, z = camera.project(x)
        u, v = uv.floor().long().unbind(1)
        seen = (u >= 0) & (v >= 0) & (u < camera.width) & (v < camera.height)
        drawn = np.zeros_like(mask)
        drawn[v[seen].numpy(), u[seen].numpy()] = True
        reach = int(float(camera.K[0, 0] / z.mean()) / n)  # half a cell [pixel]
        drawn = binary_dilation(drawn, np.ones((3, 3)), iterations=reach)
        found.append((drawn & mask).sum() / (drawn | mask).sum())
    return torch.tensor(found)


@pytest.mark.parametrize("name", ["spot", "rocker_arm", "fandisk"])
def test_renders_are_normalised_by_their_hull(data: Path, name: str) -> None:
    views = load(data / "renders" / name)
    vertices = torch.from_numpy(np.array(read_mesh(data / "renders" / name / "mesh_gt.ply").vertices))
    assert views.transform.scale == pytest.approx(1, abs=0.03)  # the data has its farthest vertex at 0.9 already
    assert views.transform.matrix[:3, 3].norm() < 0.02
    assert views.transform.inverse().apply(vertices).norm(dim=1).max() == pytest.approx(0.9, abs=0.025)
    assert (len(views.train), len(views.test)) == (60, 20) and views.truth is None
    assert len(set(views.names)) == 80


def test_vertices_of_spot_lie_in_its_masks(spot: Views, data: Path) -> None:
    vertices = torch.from_numpy(np.array(read_mesh(data / "renders/spot/mesh_gt.ply").vertices))
    x = spot.transform.inverse().apply(vertices)
    inside = []
    for camera, mask in zip(spot.cameras, spot.masks, strict=True):
        assert mask is not None
        u, v = camera.project(x)[0].floor().long().unbind(1)
        wide = binary_dilation(
            mask.numpy(), np.ones((3, 3))
        )  # alpha > 127 cuts half a pixel off; README allows a pixel
        inside.append(wide[v.numpy(), u.numpy()].mean())
    assert min(inside) > 0.999


@pytest.mark.parametrize("view", [0, 13])
def test_rays_of_spot_meet_the_true_mesh_at_the_true_depth(spot: Views, data: Path, view: int) -> None:
    with np.load(data / "renders/spot/depth_test.npz") as file:
        depth = file["depth"][view]
    camera = spot.cameras[spot.test[view]]
    rays = camera.rays()
    z = (rays.direction.double() @ camera.pose[:3, 2]) * torch.from_numpy(depth.reshape(-1)) / spot.transform.scale
    hit = torch.from_numpy(depth.reshape(-1) > 0)
    cosine = rays.direction.double() @ camera.pose[:3, 2]
    t = torch.from_numpy(depth.reshape(-1)).double() / spot.transform.scale / cosine
    x = spot.transform.apply(rays.origin.double() + t[:, None] * rays.direction.double())[hit]
    mesh = read_mesh(data / "renders/spot/mesh_gt.ply")
    o = spot.transform.apply(rays.origin.double())
    index = mesh.ray.intersects_first(o.numpy(), rays.direction.numpy())
    assert ((index >= 0) != hit.numpy()).sum() <= 2
    corners = mesh.triangles[index[hit.numpy()]]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    off = np.abs(((x.numpy() - corners[:, 0]) * normal).sum(1))
    assert np.quantile(off, 0.999) < 2e-4 and z.isfinite().all()


def test_colours_and_masks_are_those_of_the_file(spot: Views, data: Path) -> None:
    from PIL import Image

    with Image.open(data / "renders/spot/test/004.png") as image:
        rgba = np.asarray(image)
    i = spot.names.index("test_004")
    mask = spot.masks[i]
    assert mask is not None
    assert (spot.images[i].numpy() == rgba[..., :3]).all() and (mask.numpy() == (rgba[..., 3] > 127)).all()


def test_lego_fits(data: Path) -> None:
    views = load(data / "nerf_lego")
    assert views.names[:4] == ("r_0", "r_1", "r_2", "r_3")  # in the order of the file
    assert float(views.cameras[0].K[0, 0]) == pytest.approx(555.56, abs=0.01)
    centres = views.transform.apply(torch.stack([c.centre for c in views.cameras]))
    assert torch.allclose(centres.norm(dim=1), torch.tensor(4.031).double(), atol=1e-3)
    box = views.transform.inverse().apply(1.2 * torch.tensor([[-1.0, -1, -0.5], [1, 1, 0.85]]))
    assert 0.6 < box.abs().max() < 0.9
    assert hull_iou(views).min() > 0.85


def test_skull_has_the_calibration_of_its_readme(skull: Views) -> None:
    assert "2 times as large" in skull.summary
    K = skull.cameras[0].K
    known = torch.tensor([2892.33 / 2, 2883.18 / 2, (823.2 + 0.5) / 2, (619.1 + 0.5) / 2]).double()
    assert torch.allclose(torch.stack([K[0, 0], K[1, 1], K[0, 2], K[1, 2]]), known, atol=0.06)
    distance = torch.stack([c.centre for c in skull.cameras]).norm(dim=1)
    assert distance.min() == pytest.approx(3.95, abs=0.01) and distance.max() == pytest.approx(4.17, abs=0.01)
    assert skull.transform.scale == pytest.approx(164.6, abs=0.01)


def test_skull_projects_by_the_formula_of_its_readme(skull: Views, data: Path) -> None:
    x = torch.rand(50, 3, dtype=torch.float64) - 0.5
    half = np.array([[0.5, 0, -0.25], [0, 0.5, -0.25], [0, 0, 1]])
    with np.load(data / "dtu_scan65/cameras_sphere.npz") as file:
        for i in (0, 20, 48):
            world, scale = (file[f"{kind}_mat_{i}"].astype(np.float64) for kind in ("world", "scale"))
            h = np.c_[x.numpy(), np.ones(50)] @ (half @ (world @ scale)[:3]).T
            assert np.abs(skull.cameras[i].project(x)[0].numpy() - (h[:, :2] / h[:, 2:] + 0.5)).max() < 1e-6


def test_skull_agrees_with_its_masks(skull: Views) -> None:
    assert hull_iou(skull).mean() > 0.94
    centre, radius = extent_from_masks(skull.cameras, [m for m in skull.masks if m is not None])
    assert centre.norm() < 0.25 and 0.8 < radius < 1.2


def test_other_camera_file_by_name(data: Path) -> None:
    views = load(data / "dtu_scan65", cameras="cameras_linear_init.npz")
    assert views.transform.scale == pytest.approx(240.87, abs=0.01) and "cameras_linear_init" in views.summary


def test_dino_is_in_its_box(dino: Views) -> None:
    assert [i for i, mask in enumerate(dino.masks) if mask is None] == [5]
    assert dino.test == (0, 8)
    box = torch.tensor([[-0.061897, -0.018874, -0.057845], [0.010897, 0.068227, 0.015495]], dtype=torch.float64)
    low, high = dino.transform.inverse().apply(box)
    assert ((low + high) / 2).norm() < 0.1
    assert 0.55 < (high - low).min() / 2 and (high - low).max() / 2 < 0.75  # a cube of 0.52 would fill the ball of 0.9
    assert hull_iou(dino).mean() > 0.9

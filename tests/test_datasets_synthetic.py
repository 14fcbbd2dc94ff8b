"""Rendered views of the embedded bunny against Embree."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import trimesh

from warpdvr.cameras.rays import pixel_centres
from warpdvr.datasets.synthetic import SAMPLES, mesh_views
from warpdvr.datasets.views import Views
from warpdvr.geometry.search import first_hit, triangle_mesh


@pytest.fixture(scope="module")
def bunny() -> Views:
    return mesh_views("warp:bunny", count=6, test=2, size=100)


def test_bunny_is_a_closed_mesh_in_the_sphere(bunny: Views) -> None:
    assert bunny.truth is not None and "closed" in bunny.summary and "y is up" in bunny.summary
    mesh = trimesh.Trimesh(bunny.truth.vertices.numpy(), bunny.truth.faces.numpy(), process=False)
    assert mesh.is_watertight and mesh.volume > 0
    scene = bunny.transform.inverse().apply(bunny.truth.vertices)
    assert scene.norm(dim=1).max() == pytest.approx(0.9, abs=1e-5)
    assert len(bunny.train) == 6 and len(bunny.test) == 2
    assert all(bool(camera.project(torch.zeros(1, 3))[1] > 2) for camera in bunny.cameras)
    uv = [camera.project(torch.tensor([[0.0, 0, 0], [0, 0.1, 0]]))[0] for camera in bunny.cameras]
    assert all(b[1] < a[1] for a, b in uv)  # up in the mesh is up in the image


@pytest.mark.parametrize("view", range(8))
def test_silhouette_and_shape_are_those_of_embree(bunny: Views, view: int) -> None:
    assert bunny.truth is not None
    mesh = trimesh.Trimesh(bunny.truth.vertices.numpy(), bunny.truth.faces.numpy(), process=False)
    camera, mask = bunny.cameras[view], bunny.masks[view]
    assert mask is not None
    shift = torch.tensor(SAMPLES) - 0.5
    pixel = (pixel_centres(100, 100)[:, None] + shift).reshape(-1, 2)
    rays = camera.rays(pixel)
    face = mesh.ray.intersects_first(bunny.transform.apply(rays.origin).numpy(), rays.direction.numpy())
    covered = (face >= 0).reshape(-1, 4).sum(1).reshape(100, 100)
    assert ((covered > 2) != mask.numpy()).sum() <= 2
    image = bunny.images[view].numpy()
    assert (image[covered == 0] == 0).all() and (image[covered == 4].max(1) > 20).all()


def test_depth_is_that_of_embree() -> None:
    views = mesh_views("warp:bunny", count=2, test=0, size=40, depth=True, points=30)
    assert views.truth is not None and views.points is not None
    mesh = trimesh.Trimesh(views.truth.vertices.numpy(), views.truth.faces.numpy(), process=False)
    for camera, depth, some in zip(views.cameras, views.depths, views.points, strict=True):
        assert depth is not None and some is not None
        rays = camera.rays()
        origin = views.transform.apply(rays.origin).numpy()
        at, ray, _ = mesh.ray.intersects_location(origin, rays.direction.numpy(), multiple_hits=False)
        x = views.transform.inverse().apply(torch.from_numpy(at))
        expected = torch.full((1600,), torch.nan, dtype=torch.float64)
        expected[torch.from_numpy(ray)] = camera.project(x)[1]
        same = expected.view(40, 40).isnan() == depth.isnan()
        assert (~same).sum() <= 1 and (expected.view(40, 40) - depth)[same].nan_to_num().abs().max() < 1e-4
        column, row = some.pixel.long().unbind(1)
        assert len(some) == 30 and torch.equal(some.depth, depth[row, column]) and (some.pixel % 1 == 0.5).all()
    assert mesh_views("warp:bunny", count=2, test=0, size=8).depths == ()


def test_hit_is_where_its_weights_and_embree_say(bunny: Views) -> None:
    assert bunny.truth is not None
    vertices, faces = bunny.truth.vertices, bunny.truth.faces
    rays = bunny.cameras[0].rays()
    o = bunny.transform.apply(rays.origin)
    face, t, weight = first_hit(triangle_mesh(vertices, faces), o, rays.direction)
    hit = face >= 0
    x = (vertices[faces[face[hit].long()]] * weight[hit, :, None]).sum(1)
    assert (x - (o + t[:, None] * rays.direction)[hit]).abs().max() < 1e-5
    mesh = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
    at, ray, _ = mesh.ray.intersects_location(o.numpy(), rays.direction.numpy(), multiple_hits=False)
    found = torch.zeros(len(o), 3, dtype=torch.float64)
    found[ray] = torch.from_numpy(at)
    assert (found[hit] - x).abs().max() < 1e-4


def test_colours_are_those_of_one_object(bunny: Views) -> None:
    """A point of the surface has the same colour in each view that sees it: matte, lit by a lamp that stands still."""
    assert bunny.truth is not None
    mesh = trimesh.Trimesh(bunny.truth.vertices.numpy(), bunny.truth.faces.numpy(), process=False)
    x = bunny.truth.vertices[::7]
    scene = bunny.transform.inverse().apply(x).double()
    seen: list[list[np.ndarray]] = [[] for _ in x]
    for camera, image in zip(bunny.cameras, bunny.images, strict=True):
        o = bunny.transform.apply(camera.centre[None])[0].numpy()
        d = x.numpy() - o
        length = np.linalg.norm(d, axis=1)
        at, ray, _ = mesh.ray.intersects_location(np.tile(o, (len(x), 1)), d / length[:, None], multiple_hits=False)
        free = np.zeros(len(x), bool)
        free[ray] = np.linalg.norm(at - o, axis=1) > length[ray] - 1e-3
        u, v = camera.project(scene)[0].floor().long().unbind(1)
        for i in np.flatnonzero(free):
            seen[i].append(image[v[i], u[i]].numpy().astype(float))
    spread = [np.ptp(c, axis=0).max() for c in map(np.array, seen) if len(c) > 1]
    assert len(spread) > 500 and np.median(spread) < 10


def test_views_are_the_same_every_time(bunny: Views) -> None:
    again, other = (mesh_views("warp:bunny", count=2, test=0, size=20, seed=s) for s in (0, 1))
    same = mesh_views("warp:bunny", count=2, test=0, size=20)
    assert all(torch.equal(a, b) for a, b in zip(again.images, same.images, strict=True))
    assert not torch.equal(again.cameras[0].pose, other.cameras[0].pose)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("warp:rabbit", {}, "no such asset, expected one of .*bunny"),
        ("warp:bunny", {"up": "x"}, "up must be 'y' or 'z', found 'x'"),
        ("warp:bunny", {"count": 0}, "count >= 1"),
        ("warp:bunny", {"distance": 0.5}, "distance > 1"),
    ],
)
def test_bad_arguments(source: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mesh_views(source, **options)  # type: ignore[arg-type]


def test_importing_views_loads_no_usd_and_no_viewer() -> None:
    code = "import sys, warpdvr.datasets; assert not {'pxr', 'polyscope'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

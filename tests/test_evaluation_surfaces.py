"""Distances between surfaces, against closed forms and a KD-tree."""

import math

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import cKDTree

from warpdvr.evaluation.surfaces import chamfer, sample
from warpdvr.geometry.distance import surface_distance
from warpdvr.geometry.mesh import Mesh, read_mesh


def mesh_of(body):
    return Mesh(torch.tensor(body.vertices, dtype=torch.float32), torch.tensor(np.array(body.faces), dtype=torch.int64))


def ball(radius):
    return mesh_of(trimesh.creation.icosphere(5, radius))


def square(height, side=2.0):
    x = side / 2
    return Mesh(
        torch.tensor([[-x, -x, height], [x, -x, height], [x, x, height], [-x, x, height]]),
        torch.tensor([[0, 1, 2], [0, 2, 3]]),
    )


def test_concentric_spheres_are_their_radii_apart():
    found = chamfer(ball(0.8), ball(1.0), samples=20_000)
    assert found.accuracy == pytest.approx(0.2, abs=1e-3)
    assert found.completeness == pytest.approx(0.2, abs=1e-3)
    assert found.chamfer_l1 == (found.accuracy + found.completeness) / 2
    assert found.extent == pytest.approx(2, abs=1e-6)
    assert found.samples == 20_000


def test_concentric_spheres_in_the_unit_of_dvr():
    """A tenth of the box of the true sphere, 0.2, is 1; DVR's own way with points (`im2mesh/eval.py`) reads as much."""
    small, large = ball(0.8), ball(1.0)
    found = chamfer(small, large, samples=20_000)
    assert found.chamfer_dvr == pytest.approx(0.2 / 0.2, rel=5e-3)
    a, b = sample(small, 50_000).numpy() / 2, sample(large, 50_000, seed=1).numpy() / 2
    point_to_point = (cKDTree(b).query(a)[0].mean() + cKDTree(a).query(b)[0].mean()) / 2
    assert found.chamfer_dvr == pytest.approx(10 * point_to_point, rel=5e-3)
    assert chamfer(large, small, samples=20_000).chamfer_dvr == pytest.approx(0.2 / 0.16, rel=5e-3)  # of the true one


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e3])
def test_the_f_score_is_counted_in_shares_of_the_extent(size):
    """Spheres of radius 0.97 and 1 are 0.015 of the large one's box apart."""
    small, large = ball(0.97 * size), ball(size)
    assert chamfer(small, large, samples=2000, threshold=0.0145).f_score == 0
    found = chamfer(small, large, samples=2000, threshold=0.0155)
    assert found.f_score == 1
    assert found.volume_iou == pytest.approx(0.97**3, abs=5e-3)


@pytest.mark.parametrize("radius, expected", [(0.985, 1.0), (0.975, 0.0)])
def test_the_f_score_is_taken_at_a_hundredth_of_the_extent(radius, expected):
    assert chamfer(ball(radius), ball(1.0), samples=500).f_score == expected


def test_the_f_score_is_the_harmonic_mean_of_precision_and_recall():
    """A unit square in one of side 3, within 0.5 of which lie its own area, four strips and four quarters of a disc."""
    recall = (1 + 4 * 0.5 + math.pi / 4) / 9
    found = chamfer(square(0.0, 1.0), square(0.0, 3.0), samples=20_000, threshold=0.5 / 3).f_score
    assert found == pytest.approx(2 * recall / (1 + recall), abs=0.01)
    back = chamfer(square(0.0, 3.0), square(0.0, 1.0), samples=20_000, threshold=0.5).f_score
    assert back == pytest.approx(found, abs=0.01)


@pytest.mark.parametrize("angle", [0.0, 30.0, 60.0, 90.0, 150.0])
def test_normals_of_a_tilted_plane(angle):
    turn = torch.eye(4)
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    turn[:3, :3] = torch.tensor([[1, 0, 0], [0, c, -s], [0, s, c]])
    found = chamfer(square(0.0).transformed(turn), square(0.0), samples=500)
    assert found.normal_consistency == pytest.approx(abs(c), abs=1e-6)
    assert found.volume_iou is None


def test_normals_of_one_mesh_agree_however_it_is_wound(data):
    mesh = read_mesh(data / "meshes" / "bunny.off")
    found = chamfer(mesh, Mesh(mesh.vertices, mesh.faces.flip(1)), samples=5000)
    assert found.normal_consistency == pytest.approx(1, abs=1e-3)  # a point on an edge is on two faces
    assert found.f_score == 1
    assert found.volume_iou == 1


def test_normals_of_a_cube_around_a_sphere():
    """The nearest point of the sphere has the normal x / |x|, of a cube around it the largest |x| has its face."""
    cube, sphere = mesh_of(trimesh.creation.box((4, 4, 4))), ball(1.0)
    u = torch.rand(200_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    over_cube = float((1 / (1 + u.square().sum(1)).sqrt()).mean())
    x = torch.nn.functional.normalize(torch.randn(200_000, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    over_sphere = float(x.abs().amax(1).mean())
    for pair in ((cube, sphere), (sphere, cube)):
        found = chamfer(*pair, samples=20_000).normal_consistency
        assert found == pytest.approx((over_cube + over_sphere) / 2, abs=3e-3)


def test_the_two_ways_are_not_mixed_up():
    """A small square in the middle of a large one: it is accurate, but leaves much uncovered."""
    found = chamfer(square(0.0, 1.0), square(0.0, 3.0), samples=20_000)
    assert found.accuracy == pytest.approx(0, abs=1e-6)
    # by the closed form: over the frame around a unit square, four strips (mean .5) and four corners (1 x 1)
    corner = (math.sqrt(2) + math.log(1 + math.sqrt(2))) / 3
    assert found.completeness == pytest.approx((4 * 0.5 + 4 * corner) / 9, rel=0.02)
    assert found.extent == 3


def test_parallel_squares():
    found = chamfer(square(0.25), square(0.0), samples=1000)
    assert found.accuracy == pytest.approx(0.25, abs=1e-6)
    assert found.completeness == pytest.approx(0.25, abs=1e-6)


def test_a_mesh_is_at_no_distance_from_itself_however_few_the_samples(data):
    mesh = read_mesh(data / "meshes" / "bunny.off")
    assert chamfer(mesh, mesh, samples=500).chamfer_l1 < 1e-7


def test_a_far_frame_does_no_harm():
    shift = torch.eye(4)
    shift[:3, 3] = 1000.0
    near, far = (chamfer(a, b, samples=5000) for a, b in (
        (ball(0.8), ball(1.0)), (ball(0.8).transformed(shift), ball(1.0).transformed(shift))
    ))  # fmt: skip
    assert near.chamfer_l1 == pytest.approx(far.chamfer_l1, abs=1e-4)


def test_points_far_from_and_near_to_a_scan(data):
    """No farther than the nearest of many points on it, nearer than that by their spacing at most."""
    mesh = read_mesh(data / "meshes" / "bunny.off")
    point = (torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)) - 0.5) * 0.5
    d = surface_distance(point, mesh).numpy()
    upper, _ = cKDTree(sample(mesh, 100_000).numpy()).query(point.numpy())
    assert (d <= upper + 1e-6).all()
    assert (upper - d).max() < 3e-3
    exact = trimesh.proximity.closest_point_naive(
        trimesh.Trimesh(mesh.vertices, mesh.faces, process=False), point[:20]
    )[1]
    assert np.abs(d[:20] - exact).max() < 1e-6


def test_samples_are_spread_evenly_over_the_area():
    """Two triangles, one with four times the area of the other, as far as a binomial of 40 000 may stray."""
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 0, 0], [7, 0, 0], [5, 2, 0]])
    x = sample(Mesh(vertices, torch.tensor([[0, 1, 2], [3, 4, 5]])), 40_000)
    small = x[:, 0] < 3
    assert abs(float(small.float().mean()) - 0.2) < 4 * math.sqrt(0.16 / 40_000)
    assert torch.allclose(x[small].mean(0), torch.tensor([1 / 3, 1 / 3, 0]), atol=0.01)
    assert torch.allclose(x[~small].mean(0), torch.tensor([5 + 2 / 3, 2 / 3, 0]), atol=0.02)


def test_a_seed_gives_the_same_points():
    assert torch.equal(sample(ball(1), 10, seed=3), sample(ball(1), 10, seed=3))
    assert not torch.equal(sample(ball(1), 10, seed=3), sample(ball(1), 10, seed=4))


def test_what_has_no_surface_is_told():
    empty = Mesh(torch.zeros(3, 3), torch.zeros(0, 3, dtype=torch.int64))
    flat = Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]]))
    with pytest.raises(ValueError, match="no faces"):
        surface_distance(torch.zeros(1, 3), empty)
    for mesh in (empty, flat):
        with pytest.raises(ValueError, match="no area"):
            chamfer(mesh, ball(1))
    with pytest.raises(ValueError, match="at least one"):
        chamfer(ball(1), ball(1), samples=0)
    with pytest.raises(ValueError, match="threshold"):
        chamfer(ball(1), ball(1), threshold=0.0)
    needle = Mesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [0.5, 1e-9, 0]]), torch.tensor([[0, 1, 2]]))
    with pytest.raises(ValueError, match="needles"):
        surface_distance(torch.zeros(1, 3), needle)
    with pytest.raises(ValueError, match="finite"):
        surface_distance(torch.full((1, 3), float("nan")), ball(1))

"""Distances between surfaces, against closed forms and a KD-tree."""

import math

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import cKDTree

from warpdvr.distance import chamfer, sample, surface_distance
from warpdvr.mesh import Mesh, read_mesh


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
    with pytest.raises(ValueError, match="finite"):
        surface_distance(torch.full((1, 3), float("nan")), ball(1))

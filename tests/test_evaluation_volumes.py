"""The overlap of solids, against closed forms and Embree."""

import math

import numpy as np
import pytest
import torch
import trimesh

from warpdvr.evaluation.volumes import volume_iou
from warpdvr.geometry.distance import inside, is_closed
from warpdvr.geometry.mesh import Mesh, read_mesh


def mesh_of(body, shift=(0.0, 0.0, 0.0)):
    vertices = torch.tensor(body.vertices + np.array(shift), dtype=torch.float32)
    return Mesh(vertices, torch.tensor(np.array(body.faces), dtype=torch.int64))


def cube(shift=(0.0, 0.0, 0.0), side=1.0):
    return mesh_of(trimesh.creation.box((side, side, side)), shift)


def joined(*meshes):
    """Several meshes as one; none of their vertices are shared."""
    start = np.cumsum([0] + [len(m.vertices) for m in meshes])
    faces = [m.faces + int(n) for m, n in zip(meshes, start, strict=False)]
    return Mesh(torch.cat([m.vertices for m in meshes]), torch.cat(faces))


def soup(mesh):
    """The same faces, each with vertices of its own."""
    return Mesh(mesh.vertices[mesh.faces.reshape(-1)], torch.arange(3 * len(mesh.faces)).reshape(-1, 3))


def points(n, size, seed=0):
    return (torch.rand(n, 3, generator=torch.Generator().manual_seed(seed)) - 0.5) * size


@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5, 0.9, 1.5])
@pytest.mark.parametrize("diagonal", [False, True])
def test_shifted_cubes(shift, diagonal):
    common = max(1 - shift, 0) ** (3 if diagonal else 1)
    moved = cube((shift, shift, shift) if diagonal else (0, shift, 0))
    expected = common / (2 - common)
    assert volume_iou(moved, cube()) == pytest.approx(expected, abs=4 * math.sqrt(expected / 2e4))
    assert volume_iou(cube(), moved) == pytest.approx(expected, abs=4 * math.sqrt(expected / 2e4))


@pytest.mark.parametrize("frame", [0.0, 1000.0])
def test_concentric_spheres(frame, device):
    """r^3 / R^3, and as much of a frame in which a float32 is good for 6e-5 only."""
    small, large = (trimesh.creation.icosphere(4, r) for r in (0.6, 1.0))
    expected = small.volume / large.volume
    a, b = mesh_of(small, [frame] * 3), mesh_of(large, [frame] * 3)
    a, b = (Mesh(m.vertices.to(device), m.faces.to(device)) for m in (a, b))
    assert volume_iou(a, b) == pytest.approx(expected, abs=4 * math.sqrt(expected / 5e4))
    assert expected == pytest.approx(0.6**3, rel=1e-6)  # of two spheres with the same facets


@pytest.mark.parametrize("name", ["bunny.off", "fandisk.off", "3holes.off"])
def test_inside_agrees_with_embree(data, name):
    mesh = read_mesh(data / "meshes" / name)
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    x = (low + high) / 2 + points(20_000, 1.1) * (high - low)
    body = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    assert torch.equal(inside(x, mesh), torch.from_numpy(body.ray.contains_points(x.numpy())))


def test_points_whose_rays_would_graze_edges_and_corners():
    """A lattice of points in line with all edges, corners and diagonals of a finely cut cube."""
    body = trimesh.creation.box((1, 1, 1)).subdivide().subdivide().subdivide()
    step = torch.arange(-10, 11) / 16 + 1e-7
    x = torch.cartesian_prod(step, step, step)
    assert torch.equal(inside(x, mesh_of(body)), (x.abs() < 0.5).all(1))


@pytest.mark.parametrize(
    "direction", [(0.8627, 0.3011, 0.4063), (-0.3571, 0.8831, -0.3041), (-0.2617, -0.4409, 0.8586)]
)
def test_a_ray_through_corners_and_edges_is_outvoted(direction):
    """Warp counts a face on each side of an edge that is hit exactly: the rays of `kernels/inside.py` do so here."""
    body = trimesh.creation.box((1, 1, 1)).subdivide().subdivide()
    on_edges = torch.tensor(np.concatenate([body.vertices, body.vertices[body.edges_unique].mean(1)]))
    x = torch.cat([on_edges.float() - s * torch.tensor(direction) for s in (0.125, 0.25, 0.5, 2.0)])
    x = x[((x.abs() - 0.5).abs() > 1e-3).all(1)]
    expected = (x.abs() < 0.5).all(1)
    assert expected.sum() > 50
    assert torch.equal(inside(x, mesh_of(body)), expected)


def test_a_cavity_is_outside_however_its_wall_is_wound():
    hollow = joined(cube(side=2.0), cube(side=1.0))
    x = points(5000, 3.0)
    expected = (x.abs() < 1).all(1) & ~(x.abs() < 0.5).all(1)
    for mesh in (hollow, Mesh(hollow.vertices, torch.cat([hollow.faces[:12], hollow.faces[12:].flip(1)]))):
        assert torch.equal(inside(x, mesh), expected)


def test_closed_and_open():
    whole = cube()
    assert is_closed(whole)
    assert is_closed(soup(whole))
    assert is_closed(joined(whole, cube((1, 1, 0))))  # four faces at the edge that they share
    hole = Mesh(whole.vertices, whole.faces[1:])
    assert not is_closed(hole)
    assert not is_closed(Mesh(whole.vertices, whole.faces[:0]))
    sliver = torch.cat([whole.faces, torch.tensor([[0, 1, 1]])])
    assert is_closed(Mesh(whole.vertices, sliver))
    assert volume_iou(hole, whole) is None
    assert volume_iou(whole, hole) is None
    with pytest.raises(ValueError, match="open"):
        inside(torch.zeros(1, 3), hole)


def test_a_soup_overlaps_as_the_mesh_does():
    assert volume_iou(soup(cube((0.5, 0, 0))), soup(cube())) == volume_iou(cube((0.5, 0, 0)), cube())


def test_a_truth_without_an_inside_has_no_overlap():
    assert volume_iou(cube(), joined(cube(), cube())) is None
    assert volume_iou(joined(cube(), cube()), cube()) == 0


def test_what_makes_no_sense_is_told():
    with pytest.raises(ValueError, match="at least one"):
        volume_iou(cube(), cube(), samples=0)
    with pytest.raises(ValueError, match="finite"):
        inside(torch.full((1, 3), float("nan")), cube())
    assert inside(torch.zeros(0, 3), cube()).shape == (0,)


def test_a_seed_gives_the_same_points():
    def iou(seed):
        return volume_iou(cube((0.3, 0, 0)), cube(), samples=2000, seed=seed)

    assert iou(1) == iou(1) != iou(2)

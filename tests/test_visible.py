"""What is seen of a mesh, against meshes whose inner parts are known, and Embree."""

import numpy as np
import pytest
import torch
import trimesh

from warpdvr.geometry.mesh import Mesh
from warpdvr.geometry.visible import visible_surface


def mesh_of(body):
    return Mesh(torch.tensor(body.vertices, dtype=torch.float32), torch.tensor(np.array(body.faces), dtype=torch.int64))


def joined(*meshes):
    """Several meshes as one; none of their vertices are shared."""
    start = np.cumsum([0] + [len(m.vertices) for m in meshes])
    faces = [m.faces + int(n) for m, n in zip(meshes, start, strict=False)]
    return Mesh(torch.cat([m.vertices for m in meshes]), torch.cat(faces))


def ball(radius, cuts=3):
    return mesh_of(trimesh.creation.icosphere(cuts, radius))


def cube(side):
    return mesh_of(trimesh.creation.box((side, side, side)))


def same(a, b):
    return torch.equal(a.vertices, b.vertices) and torch.equal(a.faces, b.faces)


@pytest.mark.parametrize("cuts", [0, 3, 5])
def test_a_sphere_hides_the_one_inside(cuts):
    """Of faces far larger and far smaller than a pixel none is missed, and none of the inner ones is seen."""
    outer, inner = ball(1.0, cuts), ball(0.5, cuts)
    for mesh in (joined(outer, inner), joined(inner, outer)):
        assert same(visible_surface(mesh, size=32), outer)


def test_a_sheet_is_seen_from_both_sides_and_a_box_without_a_lid_from_within():
    sheet = Mesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), torch.tensor([[0, 1, 2]]))
    for faces in (sheet.faces, sheet.faces.flip(1)):
        assert len(visible_surface(Mesh(sheet.vertices, faces), views=1).faces) == 1
    box = cube(1.0)
    top = (box.vertices[box.faces][..., 2] > 0).all(1)
    opened, small = Mesh(box.vertices, box.faces[~top]), cube(0.3)
    assert len(visible_surface(joined(opened, small)).faces) == 10 + 12 - 2  # its bottom looks at the box's
    assert same(visible_surface(joined(box, small)), box)


@pytest.mark.parametrize("frame", [0.0, 20.0])
def test_a_face_is_seen_by_its_smallest_part(frame):
    """A triangle in a flat box, out of which a strip of it peeps, a hundredth of its area in all."""
    tip = Mesh(torch.tensor([[-0.5, 0, 0], [0.5, -0.5, 0], [0.5, 0.5, 0]]), torch.tensor([[0, 1, 2]]))
    box = mesh_of(trimesh.creation.box(bounds=[[-0.6, -0.6, -0.05], [0.495, 0.6, 0.05]]))
    whole = joined(box, tip)
    shown = visible_surface(Mesh(whole.vertices + frame, whole.faces), views=16, size=256)
    assert torch.equal(shown.faces, whole.faces)
    within = mesh_of(trimesh.creation.box(bounds=[[-0.6, -0.6, -0.05], [0.505, 0.6, 0.05]]))
    whole = joined(within, tip)
    shown = visible_surface(Mesh(whole.vertices + frame, whole.faces), views=16, size=256)
    assert torch.equal(shown.faces, within.faces)


def test_of_doubled_faces_the_first_stays():
    mesh = ball(1.0, 2)
    turned = Mesh(mesh.vertices, mesh.faces.flip(1))
    assert same(visible_surface(joined(mesh, mesh)), mesh)
    assert same(visible_surface(joined(mesh, turned)), mesh)
    assert same(visible_surface(joined(turned, mesh, turned)), turned)


def test_the_frame_and_the_unit_do_not_matter():
    mesh = joined(ball(1.0, 2), ball(0.5, 2))
    far = Mesh(mesh.vertices * 100 + 1000, mesh.faces)
    assert torch.equal(visible_surface(far).faces, visible_surface(mesh).faces)


def test_rays_from_outside_meet_what_they_met_before():
    """By Embree: pieces at random, some of them inside of others, seen along rays that were not used to choose."""
    rng = np.random.default_rng(0)
    parts = [trimesh.creation.icosphere(2, r) for r in rng.uniform(0.1, 0.5, 40)]
    for part in parts:
        part.apply_translation(rng.uniform(-0.5, 0.5, 3))
    whole = joined(*map(mesh_of, parts))
    shown = visible_surface(whole)
    assert 0.1 < len(shown.faces) / len(whole.faces) < 0.6
    d = rng.normal(size=(20_000, 3))
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    o = rng.uniform(-1, 1, (20_000, 3)) - 5 * d
    before, after = (first(mesh, o, d) for mesh in (whole, shown))
    assert (before < 100).sum() > 5000
    assert (np.abs(before - after) < 1e-4).mean() > 0.999


def first(mesh, o, d):
    """Where rays first meet a mesh, 1000 where they do not."""
    body = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    where, ray, _ = body.ray.intersects_location(o, d, multiple_hits=False)
    t = np.full(len(o), 1000.0)
    t[ray] = ((where - o[ray]) * d[ray]).sum(1)
    return t


def test_what_belongs_to_the_vertices_stays_with_them():
    mesh = joined(ball(0.5, 1), ball(1.0, 1))
    normals = torch.nn.functional.normalize(mesh.vertices, dim=1)
    shown = visible_surface(Mesh(mesh.vertices, mesh.faces, normals, mesh.vertices.abs()))
    assert shown.normals is not None and shown.colors is not None
    assert torch.allclose(shown.normals, shown.vertices, atol=1e-6)
    assert torch.equal(shown.colors, shown.vertices.abs())


def test_what_makes_no_sense_is_told():
    for views, size in ((0, 8), (8, 0)):
        with pytest.raises(ValueError, match="views >= 1 and size >= 1"):
            visible_surface(ball(1.0), views=views, size=size)
    for vertices in (torch.zeros(3, 3), torch.full((3, 3), float("nan"))):
        with pytest.raises(ValueError, match="size"):
            visible_surface(Mesh(vertices, torch.tensor([[0, 1, 2]])))
    with pytest.raises(ValueError, match="no faces"):
        visible_surface(Mesh(torch.rand(3, 3), torch.zeros(0, 3, dtype=torch.int64)))

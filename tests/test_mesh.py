"""Meshes out of fields and files, against closed forms, trimesh and dense marching cubes."""

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
import warp as wp
import warp.geometry as wg
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from warpdvr.fields.analytic import Box, Plane, Sphere, Torus, Union
from warpdvr.fields.base import Field
from warpdvr.fields.occupancy import Occupancy
from warpdvr.geometry.distance import is_closed
from warpdvr.geometry.isosurface import _component_roots, extract, mesh_of_lattice
from warpdvr.geometry.mesh import Mesh, read_mesh


class Through(Field):
    """Another field's value through a function; counts the points it is asked for."""

    def __init__(self, part, function=lambda v: v, lipschitz=None):
        super().__init__(part.bounds)
        self.part, self.function, self.lipschitz, self.asked = part, function, lipschitz, 0

    def value(self, x):
        self.asked += len(x)
        return self.function(self.part.value(x))


class Network(Field):
    """A network of the form that the data folder's README.md tells: NNNN.op.name, in order."""

    def __init__(self, path):
        super().__init__(1.0)
        with np.load(path) as file:
            self.weights = {tuple(key.split(".")): torch.from_numpy(file[key]) for key in sorted(file.files)}

    def value(self, x):
        for step, kind in sorted({key[:2] for key in self.weights}):
            if kind == "dense":
                x = x @ self.weights[step, kind, "A"] + self.weights[step, kind, "b"]
            else:
                x = {"relu": torch.relu, "elu": torch.nn.functional.elu, "squeeze_last": lambda y: y[:, 0]}[kind](x)
        return x


def trained(data, name):
    return Network(data / "weights" / "neural_implicit_queries" / f"{name}.npz")


class Slab(Field):
    """Distance along x only, to two planes: the bounds decide about the rest."""

    def value(self, x):
        return (x[:, 0] - 0.1).abs() - 0.25


def solid(mesh):
    return trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)


def normals(mesh):
    assert mesh.normals is not None
    return mesh.normals


def colors(mesh):
    assert mesh.colors is not None
    return mesh.colors


def closed(mesh):
    """Return the mesh as trimesh sees it, after what must hold for every extracted mesh."""
    body = solid(mesh)
    assert body.is_watertight
    assert body.is_winding_consistent
    assert body.volume > 0
    assert body.area_faces.min() > 0
    assert len(np.unique(mesh.faces)) == len(mesh.vertices)
    assert torch.allclose(normals(mesh).norm(dim=-1), torch.ones(len(mesh.vertices)), atol=1e-5)
    return body


@pytest.fixture
def small():
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    normals = torch.nn.functional.normalize(vertices - 0.25, dim=-1)
    return Mesh(vertices, faces, normals, torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0.2, 0.4, 0.6]]))


def test_a_sphere_has_its_area_and_volume():
    mesh = extract(Sphere(0.5), resolution=64)
    body = closed(mesh)
    assert body.euler_number == 2
    assert abs(body.volume / (math.pi / 6) - 1) < 3e-3
    assert abs(body.area / math.pi - 1) < 3e-3
    assert (mesh.vertices.norm(dim=-1) - 0.5).abs().max() < 1e-6
    assert torch.allclose(normals(mesh), mesh.vertices / 0.5, atol=1e-5)


def test_a_torus_has_a_hole():
    body = closed(extract(Torus(0.6, 0.25), resolution=64))
    assert body.euler_number == 0
    assert abs(body.volume / (2 * math.pi**2 * 0.6 * 0.25**2) - 1) < 6e-3


@pytest.mark.parametrize(
    "function", [lambda v: torch.tanh(40 * v), lambda v: 3 * v, lambda v: 1e-3 * v], ids=["occupancy", "triple", "flat"]
)
def test_values_that_are_no_distances_give_the_same_surface(function):
    plain, other = (extract(f, resolution=48) for f in (Torus(), Through(Torus(), function)))
    assert (len(plain.vertices), len(plain.faces)) == (len(other.vertices), len(other.faces))
    assert abs(closed(other).volume - closed(plain).volume) < 1e-3
    assert Torus().value(other.vertices).abs().max() < 1e-4


def test_the_sparse_way_finds_the_dense_surface_with_fewer_questions():
    sparse, dense = Through(Torus(), lambda v: 3 * v, 3.0), Through(Torus(), lambda v: 3 * v)
    a, b = extract(sparse, resolution=64), extract(dense, resolution=64, grid=False)
    assert a.vertices.shape == b.vertices.shape
    order = [np.lexsort(np.round(m.vertices.numpy(), 4).T) for m in (a, b)]
    assert np.abs(a.vertices.numpy()[order[0]] - b.vertices.numpy()[order[1]]).max() < 2e-3
    assert dense.asked == 66**3 + 4 * len(b.vertices)  # corners, then three gradients and one colour per vertex
    assert sparse.asked < 12 * len(a.vertices)


@pytest.mark.parametrize("lipschitz", [1.0, None])
def test_boxes_of_any_shape(lipschitz):
    bounds = torch.tensor([[-1.0, 0.2, -0.1], [0.3, 0.9, 0.7]])
    sphere = Sphere(0.25, (-0.4, 0.5, 0.3), bounds=bounds)
    body = closed(extract(Through(sphere, lipschitz=lipschitz), resolution=60))
    assert abs(body.volume / (4 / 3 * math.pi * 0.25**3) - 1) < 2e-2
    assert np.allclose(body.centroid, [-0.4, 0.5, 0.3], atol=1e-3)


@pytest.mark.parametrize("lipschitz", [1.0, None])
def test_a_surface_that_leaves_the_bounds_is_closed_on_them(lipschitz):
    mesh = extract(Through(Plane((0.0, 0.0, 1.0), 0.3), lipschitz=lipschitz), resolution=32)
    body = closed(mesh)
    assert body.euler_number == 2
    assert abs(body.volume - 2 * 2 * 1.3) < 0.05  # its edges are cut by half a cell
    assert body.bounds[0] == pytest.approx([-1, -1, -1])
    assert body.bounds[1] == pytest.approx([1, 1, 0.3], abs=1e-6)
    down = mesh.vertices[:, 2] == -1
    assert down.sum() == 32**2
    assert torch.equal(normals(mesh)[down], torch.tensor([0.0, 0, -1]).expand(int(down.sum()), 3))


def test_a_body_that_touches_two_sides_gets_two_caps():
    body = closed(extract(Slab(((-1, -0.5, -0.25), (1, 0.5, 0.25))), resolution=64))
    assert body.extents == pytest.approx([0.5, 1, 0.5], abs=1e-5)


@pytest.mark.parametrize("lipschitz", [1.0, None])
@pytest.mark.parametrize("radius, low", [(3.0, "-3"), (-1.0, "1")], ids=["full", "empty"])
def test_a_field_without_a_surface_is_told(radius, low, lipschitz):
    with pytest.raises(ValueError, match=rf"no surface inside its bounds: its values lie in \[{low}"):
        extract(Through(Sphere(radius), lipschitz=lipschitz), resolution=16)


@pytest.mark.parametrize("order", [1, -1])
def test_only_the_largest_piece_is_kept_if_wanted(order):
    """Three balls along x, the middle one the largest, so that neither the first nor the last piece will do."""
    parts = [Sphere(0.15, (-0.7, 0, 0)), Sphere(0.3, (0, 0, 0)), Sphere(0.2, (0.7, 0, 0))][::order]
    every = extract(Union(parts), resolution=48)
    one = extract(Union(parts), resolution=48, largest=True)
    assert closed(every).body_count == 3
    assert closed(one).body_count == 1
    assert (one.vertices.norm(dim=-1) - 0.3).abs().max() < 1e-6
    assert torch.allclose(normals(one), one.vertices / 0.3, atol=1e-5)
    whole = extract(Torus(), resolution=24)
    assert torch.equal(extract(Torus(), resolution=24, largest=True).faces, whole.faces)


def test_the_largest_piece_has_most_area_not_most_faces():
    box, ball = Box((0.5, 0.5, 0.5), (-0.5, 0, 0)), Sphere(0.33, (0.5, 0, 0))
    left, right = (extract(part, resolution=48) for part in (box, ball))
    assert len(left.faces) < len(right.faces)
    one = extract(Union([box, ball]), resolution=48, largest=True)
    assert closed(one).area == pytest.approx(closed(left).area, rel=1e-3)
    assert one.vertices[:, 0].max() < 0


def test_the_wall_of_a_cavity_is_a_piece_of_its_own():
    shell = Through(Sphere(0.6), lambda v: (v + 0.1).abs() - 0.1)
    assert closed(extract(shell, resolution=32)).body_count == 2
    assert extract(shell, resolution=32, largest=True).vertices.norm(dim=-1).min() > 0.59


def test_walls_of_cavities_are_left_out_if_wanted():
    """A shell and a ball beside it: both are seen from outside, the inner wall of the shell is not."""
    shell = Through(Sphere(0.4, (-0.5, 0, 0)), lambda v: (v + 0.1).abs() - 0.1)
    both = Union([shell, Sphere(0.3, (0.5, 0, 0))])
    assert closed(extract(both, resolution=48)).body_count == 3
    seen = extract(both, resolution=48, cavities=False)
    assert closed(seen).body_count == 2
    assert closed(seen).volume == pytest.approx(4 / 3 * math.pi * (0.4**3 + 0.3**3), rel=0.01)


def test_small_pieces_are_left_out_if_wanted():
    """Balls whose volumes are 1, 1/8 and 1/64 of the largest, and a cavity in it of 1/8."""
    shell = Through(Sphere(0.3, (-0.5, 0, 0)), lambda v: (v + 0.1).abs() - 0.1)  # outer radius 0.3, inner 0.1
    balls = Union([shell, Sphere(0.15, (0.3, 0, 0)), Sphere(0.075, (0.8, 0, 0))])
    volumes = {
        share: sorted(b.volume for b in closed(extract(balls, resolution=96, smallest=share, cavities=False)).split())
        for share in (0.0, 1 / 32, 1 / 4)
    }
    assert [len(v) for v in volumes.values()] == [3, 2, 1]
    assert volumes[1 / 4][0] == pytest.approx(4 / 3 * math.pi * 0.3**3, rel=0.01)
    whole = [closed(extract(balls, resolution=96, smallest=share)).body_count for share in (0.0, 1 / 32, 1 / 4)]
    assert whole == [4, 3, 1]  # the wall of the cavity encloses 1/27


@pytest.mark.parametrize("share", [-0.1, 1, math.nan, "large", True, None])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match=r"^extract: smallest must be a share from 0 to less than 1, got"):
        extract(Sphere(0.5), resolution=16, smallest=share)


@pytest.mark.parametrize("n_pair", [0, 40, 120, 400])
def test_pieces_are_those_that_scipy_finds(n_pair):
    pairs = torch.randint(200, (n_pair, 2), generator=torch.Generator().manual_seed(n_pair))
    graph = coo_array((np.ones(n_pair), pairs.numpy().T), shape=(200, 200))
    piece = connected_components(graph, directed=False)[1]
    smallest = np.array([np.flatnonzero(piece == p)[0] for p in piece])
    assert _component_roots(200, pairs).tolist() == smallest.tolist()


def test_values_that_are_not_numbers_are_told():
    with pytest.raises(ValueError, match="not finite"):
        extract(Through(Sphere(), torch.log), resolution=16)


@pytest.mark.parametrize("name", ["hammer", "birdcage_occ"])
def test_trained_networks_give_what_dense_marching_cubes_gives(data, name):
    field = Through(trained(data, name))
    n, step = 65, 2 / 64
    mesh = extract(field, resolution=64, project=0, colors=False)
    axis = torch.linspace(-1 - step / 2, 1 + step / 2, n + 1)
    with torch.no_grad():
        value = field.value(torch.cartesian_prod(axis, axis, axis)).reshape(n + 1, n + 1, n + 1)
    grid: Any = wp.array(value.numpy(), dtype=float, device="cpu")
    v, f = wg.IsoSurfaceMarchingCubes.extract(grid)
    dense = trimesh.Trimesh(v.numpy(), f.numpy().reshape(-1, 3))
    body = closed(mesh)
    assert body.body_count == dense.body_count == 1
    assert body.euler_number == dense.euler_number
    assert body.volume / step**3 == pytest.approx(dense.volume, rel=1e-4)


def test_newton_steps_bring_a_network_closer(data):
    field = trained(data, "bunny")
    error = [
        float(field.value(extract(field, resolution=24, project=k, colors=False).vertices).detach().abs().mean())
        for k in (0, 2)
    ]
    assert error[1] < 1e-6 < 1e-4 < error[0]


def test_no_sliver_is_left_and_nothing_torn():
    """Newton steps onto the sides of a crystal squeeze some faces flat; they must go without opening the mesh."""

    class Crystal(Field):
        def value(self, x):
            side = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
            return (x @ torch.nn.functional.normalize(side, dim=-1).T).amax(-1) - 0.5

    mesh = extract(Crystal(), resolution=32, project=3)
    assert closed(mesh).area_faces.min() >= 0.9e-6 * (2 / 32) ** 2


def test_colors_are_those_of_the_field_seen_along_the_normal():
    class Painted(Sphere):
        def geometry(self, x):
            return self.value(x), x * 0.5 + 0.5

        def color(self, x, normal, direction, feature):
            assert torch.allclose((normal * direction).sum(-1), -torch.ones(len(x)), atol=1e-5)
            return feature

    mesh = extract(Painted(0.5), resolution=24)
    assert torch.allclose(colors(mesh), mesh.vertices * 0.5 + 0.5, atol=1e-6)
    assert extract(Painted(0.5), resolution=8, colors=False).colors is None


@pytest.mark.parametrize("suffix", ["ply", "obj"])
def test_written_files_are_read_by_trimesh_and_by_us(tmp_path, small, suffix):
    path = tmp_path / f"mesh.{suffix}"
    small.save(path)
    other = trimesh.load(path, process=False, force="mesh")
    back = read_mesh(path)
    assert np.allclose(other.vertices, small.vertices)
    assert np.array_equal(other.faces, small.faces)
    assert np.abs(other.visual.vertex_colors[:, :3] / 255 - small.colors.numpy()).max() < 3e-3
    for name, tolerance in (("vertices", 0), ("faces", 0), ("normals", 1e-6), ("colors", 2e-3)):
        assert torch.allclose(getattr(back, name), getattr(small, name), atol=tolerance), name
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_normals_are_written_for_others(tmp_path, small):
    """Trimesh makes its own normals, but keeps what a PLY said; the lines of an OBJ are read here."""
    small.save(tmp_path / "mesh.ply")
    vertex = trimesh.load(tmp_path / "mesh.ply", process=False).metadata["_ply_raw"]["vertex"]["data"]
    assert np.allclose(np.stack([vertex[k] for k in ("nx", "ny", "nz")], 1).reshape(4, 3), small.normals)
    small.save(tmp_path / "mesh.obj")
    lines = [line.split() for line in (tmp_path / "mesh.obj").read_text().splitlines()]
    assert np.allclose([[float(a) for a in line[1:]] for line in lines if line[0] == "vn"], small.normals)
    assert lines[-4] == ["f", "1//1", "3//3", "2//2"]


def test_a_save_that_fails_leaves_the_old_file(tmp_path, small, monkeypatch):
    path = tmp_path / "mesh.ply"
    path.write_text("old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        small.save(path)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_other_suffixes_are_refused(tmp_path, small):
    with pytest.raises(ValueError, match=r"\.stl"):
        small.save(tmp_path / "mesh.stl")
    with pytest.raises(ValueError, match=r"\.stl"):
        read_mesh(tmp_path / "mesh.stl")
    with pytest.raises(ValueError, match="no folder"):
        small.save(tmp_path / "nowhere" / "mesh.ply")


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
def test_plys_of_trimesh_are_read(tmp_path, small, encoding):
    body = solid(small)
    body.vertex_attributes["quality"] = np.arange(4, dtype=np.float64)
    body.visual.vertex_colors = np.array([[255, 0, 51, 255]] * 4, np.uint8)
    (tmp_path / "mesh.ply").write_bytes(body.export(file_type="ply", encoding=encoding))
    mesh = read_mesh(tmp_path / "mesh.ply")
    assert torch.equal(mesh.vertices, small.vertices)
    assert torch.equal(mesh.faces, small.faces)
    assert torch.allclose(colors(mesh), torch.tensor([1.0, 0, 0.2]).expand(4, 3))


def test_a_binary_ply_may_mix_triangles_and_quads(tmp_path):
    header = "ply\nformat binary_little_endian 1.0\ncomment x\nelement vertex 5\nproperty double x\nproperty double y\n"
    header += (
        "property double z\nelement face 2\nproperty list uchar int vertex_index\nproperty uchar flag\nend_header\n"
    )
    points = np.arange(15, dtype="<f8").tobytes()
    faces = b"".join(bytes([len(p)]) + np.array(p, "<i4").tobytes() + b"\x07" for p in ([0, 1, 2, 3], [2, 3, 4]))
    (tmp_path / "mesh.ply").write_bytes(header.encode() + points + faces)
    mesh = read_mesh(tmp_path / "mesh.ply")
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3], [2, 3, 4]]
    assert mesh.vertices[4].tolist() == [12, 13, 14]


def test_obj_faces_in_all_their_forms(tmp_path):
    text = "# x\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvn 0 0 1\nf 1 2 3 4 # quad\nf 1/1 2/1 3/1\nf -4 -3 -2\n"
    (tmp_path / "a.obj").write_text(text)
    assert read_mesh(tmp_path / "a.obj").faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 2], [0, 1, 2]]
    (tmp_path / "b.obj").write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nvn 0 0 1\nvn 0 1 0\nf 1//1 2//1 3//-1\n")
    assert normals(read_mesh(tmp_path / "b.obj")).tolist() == [[0, 0, 1], [0, 0, 1], [0, 1, 0]]
    (tmp_path / "c.obj").write_text(
        "v 0 0 0\nv 1 0 0\nv 1 1 0\nvn 0 0 1\nvn 0 1 0\nf 1//1 2//1 3//1\nf 1//2 2//1 3//1\n"
    )
    assert read_mesh(tmp_path / "c.obj").normals is None


@pytest.mark.parametrize("name", ["3holes.off", "bunny.off", "rocker-arm.obj", "armadillo.obj", "spot/spot.obj"])
def test_meshes_from_elsewhere_read_as_trimesh_reads_them(data, name):
    path = data / "meshes" / name
    mesh, other = read_mesh(path), trimesh.load(path, process=False, force="mesh", maintain_order=True)
    assert len(mesh.faces) == len(other.faces)
    assert solid(mesh).volume == pytest.approx(other.volume, rel=1e-5)
    assert solid(mesh).is_watertight


BAD = {
    "missing.ply": (None, "no such file"),
    "word.off": (b"OOF 1 1 1\n", "OFF"),
    "short.off": (b"OFF\n3 1 0\n0 0 0\n1 0 0\n", "3 vertices"),
    "face.off": (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1\n", "announces"),
    "range.off": (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 3\n", "vertex 3 of 3"),
    "nan.off": (b"OFF\n3 1 0\n0 0 nan\n1 0 0\n0 1 0\n3 0 1 2\n", "finite"),
    "range.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 4\n", "vertex 3 of 3"),
    "zero.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 1 2\n", "number 0"),
    "back.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 -4\n", "number -4"),
    "two.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2\n", "fewer than 3"),
    "nothing.obj": (b"", "no vertices"),
    "text.obj": (b"v 0 zero 0\n", "could not convert"),
    "head.ply": (b"plx\nend_header\n", "header"),
    "empty.ply": (b"", "header"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_told_in_one_sentence(tmp_path, name):
    content, word = BAD[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}.*{word}") as caught:
        read_mesh(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
def test_a_ply_cut_anywhere_is_refused(tmp_path, small, encoding):
    whole = solid(small).export(file_type="ply", encoding=encoding).rstrip()
    for n in range(0, len(whole) - 1, 7):
        (tmp_path / "cut.ply").write_bytes(whole[:n])
        with pytest.raises(ValueError, match=r"cut\.ply"):
            read_mesh(tmp_path / "cut.ply")


def test_a_similarity_keeps_normals_unit_and_outward(small):
    turn = torch.linalg.matrix_exp(torch.tensor([[0.0, -0.3, 0.2], [0.3, 0, -0.5], [-0.2, 0.5, 0]]))
    matrix = torch.eye(4)
    matrix[:3, :3], matrix[:3, 3] = 2.5 * turn, torch.tensor([1.0, 2, 3])
    for flip in (torch.eye(4), torch.diag(torch.tensor([-1.0, 1, 1, 1]))):
        moved = small.transformed(matrix @ flip)
        assert solid(moved).volume == pytest.approx(2.5**3 / 6, rel=1e-5)
        centre = moved.vertices.mean(0)
        assert torch.allclose(moved.normals, torch.nn.functional.normalize(moved.vertices - centre, dim=-1), atol=1e-5)
    with pytest.raises(ValueError, match="similarity"):
        small.transformed(torch.diag(torch.tensor([1.0, 2, 1, 1])))


def test_wrong_shapes_are_told(small):
    with pytest.raises(ValueError, match=r"normals must have shape \(4, 3\)"):
        Mesh(small.vertices, small.faces, small.normals[:2])
    with pytest.raises(ValueError, match="names vertex 4"):
        Mesh(small.vertices, small.faces + 1)


def test_the_import_loads_no_viewer_and_no_usd():
    code = "import sys, warpdvr.geometry.mesh, warpdvr.usd.scene\n"
    code += "print([m for m in ('pxr', 'polyscope') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_fields_in_double_precision_are_extracted(device):
    field = Occupancy().double().to(device)
    mesh = extract(field, resolution=24)
    assert mesh.vertices.dtype == torch.float32 and len(mesh.faces) > 100


@pytest.mark.parametrize("resolution", [2049, 10**6])
def test_a_resolution_that_no_memory_holds_is_refused(resolution):
    with pytest.raises(ValueError, match=rf"^extract: resolution must be at most 2048, .* got {resolution}$"):
        extract(Sphere(), resolution=resolution)


def test_an_error_of_the_system_names_the_path_that_was_given(tmp_path, small, monkeypatch):
    path = tmp_path / "mesh.ply"

    def refuse(source, target):
        raise PermissionError(13, "Permission denied", str(source))

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(OSError, match=rf"^{path}: the file could not be written: Permission denied$"):
        small.save(path)
    assert not any(tmp_path.iterdir())


def test_the_surface_of_a_lattice_is_closed_at_its_border_and_has_no_cavities():
    """A ball with a hole inside, and half of one that the lattice cuts off."""
    line = torch.linspace(-1, 1, 41)
    x = torch.stack(torch.meshgrid(line, 0.5 * line, line, indexing="ij"), -1)
    whole = (x.norm(dim=-1) - 0.3).abs() - 0.1  # a shell
    mesh = mesh_of_lattice(whole, torch.tensor([-1.0, -0.5, -1.0]), torch.tensor([0.05, 0.025, 0.05]))
    radius = mesh.vertices.norm(dim=1)
    assert is_closed(mesh) and (radius - 0.4).abs().max() < 0.01  # the wall of the cavity, at 0.2, is left out
    half = (x - torch.tensor([1.0, 0.0, 0.0])).norm(dim=-1) - 0.4
    cut = mesh_of_lattice(half, torch.tensor([-1.0, -0.5, -1.0]), torch.tensor([0.05, 0.025, 0.05]))
    assert is_closed(cut) and 1 <= float(cut.vertices[:, 0].max()) <= 1.05
    assert len(mesh_of_lattice(torch.ones(4, 4, 4), torch.zeros(3), 1.0).faces) == 0

"""The visual hull and what no silhouette shows, against closed forms."""

import json
import math
from itertools import pairwise

import pytest
import tomli_w
import torch

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.paths import fibonacci_sphere
from warpdvr.cameras.transform import SceneTransform
from warpdvr.cli.main import main
from warpdvr.datasets.hull import carve, inside_hull
from warpdvr.datasets.synthetic import mesh_views
from warpdvr.datasets.thinning import thinned, without_held_out
from warpdvr.datasets.views import Views
from warpdvr.evaluation.concave import concave_distance
from warpdvr.evaluation.surfaces import chamfer
from warpdvr.fields.analytic import Sphere
from warpdvr.geometry.distance import is_closed
from warpdvr.geometry.isosurface import extract
from warpdvr.geometry.mesh import Mesh, read_mesh
from warpdvr.geometry.solids import courtyard


def ball_views(n=40, radius=0.6, size=200, *, scale=1.0):
    """Views whose masks are the exact outlines of a ball: rays that pass its centre at less than the radius."""
    cameras = [Camera.look_at(3 * e, up=(0.1, 0.9, 0.2), fov=40, width=size, height=size) for e in fibonacci_sphere(n)]
    masks = []
    for camera in cameras:
        rays = camera.rays()
        o, d = rays.origin, rays.direction
        masks.append(((o - (o * d).sum(1, keepdim=True) * d).norm(dim=1) < radius).view(size, size))
    images = tuple(torch.zeros(size, size, 3, dtype=torch.uint8) for _ in cameras)
    names = tuple(map(str, range(n)))
    transform = SceneTransform.around(torch.tensor([5.0, 0, 0], dtype=torch.float64), scale)
    return Views(images, tuple(masks), tuple(cameras), names, tuple(range(n)), (), transform, "balls")


@pytest.fixture(scope="module")
def balls():
    return ball_views()


@pytest.fixture(scope="module")
def yard():
    return mesh_views("solid:courtyard", count=60, test=8, size=160, lowest=-15)


def test_the_hull_of_a_ball_is_the_ball(balls):
    mesh = carve(balls, resolution=96)
    radius = (mesh.vertices - torch.tensor([5.0, 0, 0])).norm(dim=1)
    assert is_closed(mesh) and radius.min() > 0.6 - 3 / 275 and radius.mean() == pytest.approx(0.6, rel=0.01)
    assert radius.max() < 0.6 / math.cos(math.radians(15))  # great circles of 40 views leave hardly larger gaps
    a, b, c = (mesh.vertices[mesh.faces] - torch.tensor([5.0, 0, 0])).double().unbind(1)
    volume = float((a * torch.linalg.cross(b, c)).sum() / 6)
    assert volume == pytest.approx(4 / 3 * math.pi * 0.6**3, rel=0.03)  # positive: wound outwards


def test_the_hull_is_in_the_unit_of_the_data():
    near, far = (carve(ball_views(6, size=60, scale=s), resolution=40) for s in (1.0, 10.0))
    assert (far.vertices.amax(0) - far.vertices.amin(0)) / (near.vertices.amax(0) - near.vertices.amin(0)) == (
        pytest.approx(torch.full((3,), 10.0), rel=1e-4)
    )


def test_the_hull_of_one_view_is_a_cone_that_ends_at_the_box():
    mesh = carve(ball_views(1, size=60), resolution=64)
    assert is_closed(mesh) and float(mesh.vertices[:, 1].amax()) > 1.0 and float(mesh.vertices[:, 1].amin()) < -1.0


def test_balls_are_inside_up_to_the_outlines(balls):
    """A point at 0.4 in a ball of 0.6 leaves room for 0.2, less what a bound for balls near a camera adds."""
    x = torch.tensor([[0.0, 0, 0], [0.4, 0, 0], [0, 0, -0.4]])
    assert inside_hull(x, balls, radius=0.18).all() and inside_hull(x[:1], balls, radius=0.45).all()
    assert inside_hull(x, balls, radius=0.25).tolist() == [True, False, False]
    assert inside_hull(torch.tensor([[0.59, 0, 0], [0.65, 0, 0]]), balls).tolist() == [True, False]


def test_the_share_of_the_yard_and_the_door_is_that_of_their_areas(yard):
    """All of them that lies deeper than the margin below the planes of their openings."""
    margin = 0.01 * 2.0
    floor, around = 0.5 * 1.0 + 0.9 * 0.5, 2 * (1.4 + 1.0)
    back, jambs = 0.4 * 0.52, 2 * (0.4 + 0.52)
    area = 2 * (2 * 0.9 + 2 * 1.6 + 0.9 * 1.6) + around * 0.6 + jambs * 0.15
    expected = (floor + around * (0.6 - margin) + back + jambs * (0.15 - margin)) / area
    found = concave_distance(yard.truth, yard.truth, yard, samples=20_000)
    assert found.concave_share == pytest.approx(expected, abs=0.012)  # and a little where flat sides bulge
    assert found.concave_l1 is not None and found.concave_l1 < 1e-6


def concave_patches(margin):
    """Midpoints of small cells, and their areas, on floor, walls, back and jambs, deeper than the margin."""
    h, top = 0.6 - margin, 0.15 - margin
    rows = [  # a corner and two edges of each
        [-0.7, 0.3, -0.5, 0.5, 0, 0, 0, 0, 0.5],
        [-0.7, 0.3, 0, 1.4, 0, 0, 0, 0, 0.5],
        [0.2, 0.12, 0.65, 0.4, 0, 0, 0, 0.52, 0],
    ]
    walls = [[-0.7, -0.5, 0, 1], [-0.7, 0.5, 1.4, 0], [0.7, 0, 0, 0.5], [-0.2, 0, 0.9, 0], [-0.2, -0.5, 0, 0.5]]
    rows += [[x, 0.3, z, u, 0, w, 0, h, 0] for x, z, u, w in [*walls, [-0.7, -0.5, 0.5, 0]]]
    rows += [[x, 0.12, 0.65, 0, 0.52, 0, 0, 0, top] for x in (0.2, 0.6)]
    rows += [[0.2, y, 0.65, 0.4, 0, 0, 0, 0, top] for y in (0.12, 0.64)]
    step = (torch.arange(50, dtype=torch.float64) + 0.5) / 50
    points, areas = [], []
    for o, u, v in torch.tensor(rows, dtype=torch.float64).reshape(-1, 3, 3):
        points.append((o + step[:, None, None] * u + step[:, None] * v).reshape(-1, 3))
        areas.append(torch.full((2500,), float(torch.linalg.cross(u, v).norm()) / 2500, dtype=torch.float64))
    return torch.cat(points), torch.cat(areas)


def test_the_block_without_yard_and_door_is_as_far_from_them_as_they_are_deep(yard):
    """The distance to the nearest of the block's six sides, integrated over the concave part."""
    low, high = yard.truth.vertices.amin(0).double(), yard.truth.vertices.amax(0).double()
    corner = torch.cartesian_prod(*[torch.stack([low[i], high[i]]) for i in range(3)])
    quads = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    block = Mesh(corner, torch.tensor([[q[0], q[i], q[i + 1]] for q in quads for i in (1, 2)]))
    x, area = concave_patches(0.02)
    expected = float((torch.minimum(x - low, high - x).amin(1) * area).sum() / area.sum())
    found = concave_distance(block, yard.truth, yard, samples=20_000)
    assert found.concave_l1 == pytest.approx(expected, rel=0.04) and 0.15 < expected < 0.3


def test_a_ball_has_no_part_that_no_silhouette_shows(balls):
    truth = extract(Sphere(0.6), resolution=48, colors=False).transformed(balls.transform.matrix)
    found = concave_distance(truth, truth, balls, samples=5000, margin=0.02)
    assert found.concave_share == 0 and found.concave_l1 is None


def test_without_masks_nothing_is_known(balls):
    blind = Views(
        balls.images, (None,) * len(balls), balls.cameras, balls.names, balls.train, (), balls.transform, "blind"
    )
    truth = extract(Sphere(0.6), resolution=24, colors=False)
    found = concave_distance(truth, truth, blind, samples=10)
    assert found.concave_l1 is None and found.concave_share is None
    with pytest.raises(ValueError, match="no view has a mask"):
        carve(blind)
    with pytest.raises(ValueError, match="margin must be positive, got 0"):
        concave_distance(truth, truth, blind, margin=0.0)


def test_masks_that_contradict_each_other_leave_nothing(balls):
    empty = tuple(torch.zeros_like(mask) for mask in balls.masks)
    none = Views(balls.images, empty, balls.cameras, balls.names, balls.train, (), balls.transform, "empty")
    with pytest.raises(ValueError, match="nothing is left of it: masks and cameras contradict each other"):
        carve(none, resolution=16)


def test_views_are_thinned_evenly_and_held_out_ones_stay(yard):
    few = thinned(yard, 8)
    assert len(few.train) == 8 and [few.names[i] for i in few.test] == [yard.names[i] for i in yard.test]
    at = [yard.train.index(yard.names.index(few.names[i])) for i in few.train]
    assert max(b - a for a, b in pairwise(at)) <= 8 and at[0] <= 4 and at[-1] >= 55
    assert all(few.masks[i] is yard.masks[few.listed[i]] for i in range(len(few)))
    scores = [concave_distance(yard.truth, yard.truth, views, samples=2000) for views in (few, yard)]
    assert scores[0] == scores[1]  # at the same points, whatever was left out
    assert "8 are used, evenly chosen" in few.summary and len(without_held_out(few)) == 8
    assert [thinned(yard, 60).names[i] for i in thinned(yard, 60).train] == [yard.names[i] for i in yard.train]
    for n in (0, 61):
        with pytest.raises(ValueError, match=f"a number from 1 to 60, as many as there are to fit, got {n}"):
            thinned(yard, n)


def test_the_command_writes_and_scores_the_hull(tmp_path, capsys):
    tables = {"views": {"mesh": "solid:courtyard", "count": 20, "test": 2, "size": 80, "lowest": -10}}
    path = tmp_path / "scene.toml"
    path.write_text(tomli_w.dumps(tables))
    out = tmp_path / "hull.ply"
    assert main(["hull", str(path), "--resolution", "64", "--views", "16", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "Of the 20 views to fit, 16 are used" in said and "carved from 16 views" in said
    assert "true mesh  Chamfer-L1" in said and "where no silhouette shows it" in said
    assert 0.02 < chamfer(read_mesh(out), courtyard(), samples=5000).chamfer_l1 < 0.2
    assert main(["hull", str(path), "--views", "21", "--out", str(out)]) == 2
    assert "a number from 1 to 20" in capsys.readouterr().err


def test_a_fit_to_fewer_views_says_so_and_scores_the_concavities(tmp_path, capsys):
    tables = {
        "views": {"mesh": "solid:courtyard", "count": 12, "test": 2, "size": 48},
        "field": {"kind": "sdf", "width": 16, "depth": 2},
        "mesh": {"resolution": 24},
    }
    path, run = tmp_path / "scene.toml", tmp_path / "run"
    path.write_text(tomli_w.dumps(tables))
    main(["fit", str(path), "--views", "4", "--iterations", "3", "--out", str(run)])
    assert "Of the 12 views to fit, 4 are used" in capsys.readouterr().out
    scores = json.loads((run / "eval.json").read_text())
    assert scores["views"] == 2 and 0 < scores["concave_share"] < 1 and scores["concave_l1"] > 0
    assert "train = 4" in (run / "config.toml").read_text()
    assert main(["fit", "--out", str(run), "--resume", "--views", "5", "--iterations", "4"]) == 2
    assert "--views: a run that is resumed keeps its views" in capsys.readouterr().err

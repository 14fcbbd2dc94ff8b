"""The solids of the scenes: closed, of known volume and area, and photographed with their concavities in view."""

import math

import pytest
import torch
import trimesh

from warpdvr.datasets.synthetic import mesh_views
from warpdvr.datasets.texture import DARK, value_noise
from warpdvr.geometry.search import first_hit, triangle_mesh
from warpdvr.geometry.solids import bowl, courtyard, from_cells
from warpdvr.shading.srgb import encode


def body(mesh):
    return trimesh.Trimesh(mesh.vertices.double().numpy(), mesh.faces.numpy(), process=False)


def test_the_courtyard_is_a_block_without_its_yard_and_its_door():
    found = body(courtyard())
    yard, door = 0.5 * 1.0 + 0.9 * 0.5, 0.4 * 0.52
    assert found.is_watertight and found.is_winding_consistent and found.body_count == 1
    assert found.volume == pytest.approx(2 * 0.9 * 1.6 - yard * 0.6 - door * 0.15, rel=1e-6)
    block = 2 * (2 * 0.9 + 2 * 1.6 + 0.9 * 1.6)
    walls = 2 * (1.4 + 1.0) * 0.6 + 2 * (0.4 + 0.52) * 0.15  # floors and tops cancel, as do the back and the front
    assert found.area == pytest.approx(block + walls, rel=1e-6)


def test_the_bowl_is_one_closed_surface_around_balls_and_a_box():
    """The volume of a spherical shell between two planes in closed form, plus what lies in it, less what is sunk."""
    found = body(bowl())

    def slice_of_ball(r):  # between the base, y = -0.95, or the ball's lowest point, and the rim, y = -0.2
        low = -min(r, 0.95)
        return math.pi * (r**2 * (-0.2 - low) - ((-0.2) ** 3 - low**3) / 3)

    shell = slice_of_ball(1.0) - slice_of_ball(0.88)
    content = 4 / 3 * math.pi * (0.24**3 + 0.16**3) + 0.28**3
    assert found.is_watertight and found.is_winding_consistent and found.body_count == 1
    assert shell + 0.97 * content < found.volume < shell + content


def test_cells_that_touch_are_joined():
    planes = torch.tensor([0.0, 1.0, 3.0])
    both = body(from_cells(torch.ones(2, 2, 2, dtype=torch.bool), planes, planes, planes))
    one = torch.zeros(2, 2, 2, dtype=torch.bool)
    one[1, 0, 1] = True
    corner = body(from_cells(one, planes, planes, planes))
    assert both.volume == pytest.approx(27) and both.area == pytest.approx(54) and both.is_watertight
    assert corner.volume == pytest.approx(4) and corner.bounds.tolist() == [[1, 0, 1], [3, 1, 3]]


def test_the_texture_is_strong_everywhere_and_has_no_seams():
    """In every cube of a tenth of the scene colours spread widely, and nearby points have nearby colours."""
    x = torch.rand(200_000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    color = encode(value_noise(x))
    assert color.min() >= DARK - 1e-3 and color.max() <= 1
    block = ((x + 1) / 0.2).long().clamp_max(9) @ torch.tensor([100, 10, 1])
    order = block.argsort()
    spread = torch.stack([c.std(0).mean() for c in color[order].split(torch.bincount(block, minlength=1000).tolist())])
    assert spread.min() > 0.1 and spread.mean() > 0.15
    near = encode(value_noise(x + 1e-4 * torch.randn_like(x)))
    assert (near - color).abs().max() < 0.06


@pytest.fixture(scope="module")
def yard():
    return mesh_views("solid:courtyard", count=60, test=8, size=64, lowest=-15)


def test_several_views_see_the_floor_of_the_yard_and_the_back_of_the_door(yard):
    """By rays of our own from the points to the cameras."""
    tree = triangle_mesh(yard.truth.vertices, yard.truth.faces)
    floor = torch.cartesian_prod(torch.linspace(-0.6, -0.3, 4), torch.tensor([0.3]), torch.linspace(-0.4, 0.4, 5))
    door = torch.cartesian_prod(torch.linspace(0.25, 0.55, 3), torch.linspace(0.2, 0.6, 3), torch.tensor([0.65]))
    for points, least in ((floor, 5), (door, 3)):
        seen = torch.zeros(len(points))
        for i in yard.train:
            eye = yard.transform.apply(yard.cameras[i].centre[None]).float()
            towards = torch.nn.functional.normalize(points - eye, dim=1)
            t = first_hit(tree, eye.expand(len(points), 3).contiguous(), towards.contiguous())[1]
            seen += (t - (points - eye).norm(dim=1)).abs() < 1e-3
        assert seen.min() >= least


def test_no_camera_stands_below_the_lowest_elevation(yard):
    height = torch.stack([camera.centre[1] / camera.centre.norm() for camera in yard.cameras])
    assert height.min() > math.sin(math.radians(-17)) and height.min() < math.sin(math.radians(-12))
    assert height.max() > 0.98
    expected = torch.linspace(math.sin(math.radians(-15)), 1, len(height) + 1).diff().mean()
    assert (height.sort().values.diff() - expected).abs().max() < 0.06  # equal areas: heights are evenly spread


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("solid:courtyart", {}, "no such solid, expected one of courtyard, bowl; did you mean courtyard"),
        ("solid:bowl", {"lowest": 90.0}, "lowest must be an elevation from -90 to below 90 degrees, found 90"),
    ],
)
def test_bad_names_and_elevations(source, options, message):
    with pytest.raises(ValueError, match=message):
        mesh_views(source, **options)

"""Voxel fields: what they start as, their Lipschitz bound, and that they can be rendered and fitted like any field."""

import pytest
import torch
from reference import double
from torch.autograd import grad

from warpdvr import Camera, DenseMarch, SphereTrace, render
from warpdvr.fields.voxel import VoxelOccupancy, VoxelSDF
from warpdvr.testing.field import check_field

BOUNDS = ((-1.0, -0.8, -0.6), (1.0, 0.9, 0.7))
KINDS = {"voxel-sdf": VoxelSDF, "voxel-occupancy": VoxelOccupancy}


def points(n, device, size=1.0):
    x = 2 * torch.rand(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    return (size * x).to(device)


def rough(device, bounds=BOUNDS):
    field = double(VoxelSDF(resolution=5, bounds=bounds)).to(device)
    noise = torch.randn(6**3, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    field.distance.table.data.copy_(noise)
    assert field.bound_slope() == 0
    return field


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("options", [{}, {"resolution": 7, "bounds": BOUNDS}, {"resolution": 2}])
def test_the_contract_of_a_field_is_kept(name, options):
    check_field(KINDS[name](**options))


@pytest.mark.parametrize("name", KINDS)
def test_a_grid_starts_as_a_sphere(name, device):
    field = double(KINDS[name](resolution=64, radius=0.4, bounds=BOUNDS)).to(device)
    x = points(3000, device, 0.6)
    scale = 10 if name == "voxel-occupancy" else 1
    error = (field.value(x) / scale - (x.norm(dim=-1) - 0.4)).abs()
    assert error[x.norm(dim=-1) > 0.2].max() < 0.1 * 2 / 64 and error.max() < 2 / 64  # of a cell


def test_an_occupancy_is_a_logit(device):
    field = double(VoxelOccupancy(resolution=32, radius=0.5, level=0.2)).to(device)
    x = points(500, device)
    probability = torch.sigmoid(field.logit(x)[:, 0])
    assert torch.equal(field.value(x) < 0, probability > 0.2)
    assert field.lipschitz is None


def test_the_bound_is_never_less_than_a_slope_and_not_much_more(device):
    """Slopes inside of cells are largest at their corners, so there they are looked for."""
    field = rough(device)
    low, high = field.bounds
    beside = torch.tensor([1e-9, 1 - 1e-9], dtype=torch.float64)
    line = ((torch.arange(5, dtype=torch.float64)[:, None] + beside).flatten() / 5).to(device)
    x = (low + (high - low) * torch.cartesian_prod(line, line, line)).requires_grad_()
    (slope,) = grad(field.value(x).sum(), x)
    steepest = float(slope.norm(dim=-1).max())
    assert steepest <= field.lipschitz < 1.3 * steepest
    a, b = points(20000, device, 1.5).split(10000)
    assert ((field.value(a) - field.value(b)).abs() <= field.lipschitz * (a - b).norm(dim=-1)).all()


def test_the_bound_of_a_plane_is_its_slope(device):
    field = double(VoxelSDF(resolution=6, bounds=BOUNDS)).to(device)
    low, high = field.bounds
    line = torch.linspace(0, 1, 7, dtype=torch.float64, device=device)
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")
    corner = low + (high - low) * torch.stack([x, y, z], -1).reshape(-1, 3)
    field.distance.table.data = (corner @ torch.tensor([[2.0], [-3.0], [6.0]]).to(corner)).clone()
    assert field.bound_slope() == 0 and abs(field.lipschitz - 7) < 1e-3
    assert 0.95 < VoxelSDF(resolution=32).lipschitz < 1.15


def test_both_intersectors_see_the_same_voxels(device):
    field = VoxelSDF(resolution=24, radius=0.6).to(device)
    noise = torch.randn(field.distance.table.shape, generator=torch.Generator().manual_seed(3))
    field.distance.table.data += 0.01 * noise.to(device)
    field.bound_slope()
    camera = Camera.look_at(eye=(0, -3, 0.5), width=32, height=32).to(device)
    with torch.no_grad():
        march, trace = (render(field, camera, intersect=how) for how in (DenseMarch(256), SphereTrace()))
    assert (march.mask == trace.mask).float().mean() > 0.99
    both = (march.mask > 0) & (trace.mask > 0)
    assert both.sum() > 100 and (march.depth - trace.depth)[both].abs().median() < 1e-4


@pytest.mark.parametrize("name", KINDS)
def test_colours_and_values_have_gradients_of_their_own(name, device):
    field = KINDS[name](resolution=8).to(device)
    x = points(50, device).float()
    value, feature = field.geometry(x)
    color = field.color(x, x, x, feature)
    assert torch.allclose(color, torch.full_like(color, 0.5), atol=1e-4)
    weights = dict(field.named_parameters())
    assert set(weights) == {"radiance.table", "distance.table" if name == "voxel-sdf" else "logit.table"}
    by_value = grad(value.sum(), list(weights.values()), allow_unused=True)
    by_color = grad(color.sum(), list(weights.values()), allow_unused=True)
    assert [g is None for g in by_value] == ["radiance" in w for w in weights]
    assert [g is None for g in by_color] == ["radiance" not in w for w in weights]


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("voxel-sdf", {"resolution": 1}, "voxel-sdf: needs a resolution of 2 to 1289 and a radius > 0, got 1 and 0.5"),
        ("voxel-sdf", {"resolution": 1290}, "voxel-sdf: needs a resolution of 2 to 1289"),
        (
            "voxel-occupancy",
            {"radius": -1},
            "voxel-occupancy: needs a resolution of 2 to 1289 and a radius > 0, got 64",
        ),
        ("voxel-occupancy", {"level": 1.0}, "voxel-occupancy: level must lie between 0 and 1, got 1.0"),
        ("voxel-sdf", {"bounds": 0}, "bounds must be a positive number or two corners"),
    ],
)
def test_bad_options_are_said_in_one_sentence(name, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        KINDS[name](**options)

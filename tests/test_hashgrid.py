"""Fields on hash grids: the contract, what they start as, and what a fit shows of them."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from warpdvr import make, render
from warpdvr.cameras.camera import Camera
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets.synthetic import mesh_views
from warpdvr.evaluation.images import evaluate
from warpdvr.fields.gradient import gradient
from warpdvr.fields.hashgrid import HashGrid, HashGridOccupancy, active_levels
from warpdvr.fitting.checkpoint import Checkpoint, load
from warpdvr.fitting.fit import Fit
from warpdvr.fitting.recipe import Recipe
from warpdvr.testing.field import check_field

SMALL = {"levels": 5, "coarsest": 4, "finest": 64, "size": 2**10, "width": 16, "color_levels": 3, "color_width": 16}
KINDS = {"hashgrid": HashGrid, "hashgrid-occupancy": HashGridOccupancy}


def small(kind: str, seed: int = 0, **options):
    torch.manual_seed(seed)
    field = make(kind, **{**SMALL, **options})
    assert isinstance(field, KINDS[kind])
    return field


def learned(kind: str, **options):
    """A field whose tables hold more than what they start with, so that every level can be seen."""
    field = small(kind, **options)
    with torch.no_grad():
        for name, parameter in field.named_parameters():
            if name.endswith("table"):
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
            if kind == "hashgrid-occupancy" and name == "perceptron.layers.1.weight":
                parameter[0] = 0.1
    return field


def points(n: int, device) -> Tensor:
    return (2 * torch.rand(n, 3, generator=torch.Generator().manual_seed(0)) - 1).to(device)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options", [{}, {"levels": 1, "finest": 4}, {"bounds": ((-1, -2, 0), (1, 0, 3))}, {"depth": 3}]
)
def test_they_keep_the_contract(kind, options, device):
    check_field(small(kind, **options).to(device))
    field = learned(kind, **options).to(device)
    if kind == "hashgrid":
        field.slope_points = 100_000
        field.bound_slope()
    check_field(field)


@pytest.mark.parametrize("radius", [0.3, 0.5, 0.8])
def test_a_hash_grid_starts_as_about_a_sphere(radius, device):
    x = points(2000, device)
    n = nn.functional.normalize(x, dim=-1)
    t, slopes = torch.linspace(0, 2, 201, device=device) * radius, []
    for seed in range(4):
        field = small("hashgrid", seed, width=64, radius=radius).to(device)
        with torch.no_grad():
            outside = field.value((t[:, None, None] * n[:300]).flatten(0, 1)).view(201, 300) > 0
        assert not outside[t < 0.5 * radius].any()
        assert abs(t[outside.int().argmax(0)].mean().item() / radius - 1) < 0.1
        _, slope, _ = gradient(field, x)
        slopes.append(slope.norm(dim=-1).mean().item())
        assert slope.norm(dim=-1).max() <= field.lipschitz
    assert abs(sum(slopes) / 4 - 1) < 0.15


@pytest.mark.parametrize("level", [0.5, 0.2])
def test_an_occupancy_starts_as_its_sphere(level, device):
    field, x = small("hashgrid-occupancy", radius=0.6, steepness=7.0, level=level).to(device), points(500, device)
    logit = math.log(level / (1 - level))
    assert torch.allclose(field.value(x), logit + 7.0 * (x.norm(dim=-1) - 0.6), atol=1e-5)
    assert field.lipschitz is None and field.step is None


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_learns_from_the_start(kind):
    """A first layer that ignored the table, or a table of zeros, would keep still."""
    field, x = small(kind), points(2000, "cpu")
    target = (x - 0.1).norm(dim=-1) - 0.4
    optimizer = torch.optim.Adam(field.parameters(), lr=1e-3)
    for _ in range(1 if kind == "hashgrid" else 2):  # at the first step an occupancy's last layer is 0
        optimizer.zero_grad()
        value, feature = field.geometry(x)
        color = field.color(x, nn.functional.normalize(x, dim=-1), nn.functional.normalize(-x, dim=-1), feature)
        ((value - target).square().mean() + (color - 0.3).square().mean()).backward()
        optimizer.step()
    for name, parameter in field.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_shows_one_level_after_the_other(kind, device):
    """Levels that are hidden have no say; they fade in, and after 0.6 of the fit all are there."""
    field, x = learned(kind).to(device), points(500, device)
    whole = field.value(x)
    seen, active = [], []
    for progress in (0.0, 0.2, 0.3, 0.45, 0.6, 1.0):
        field.anneal(progress)
        active.append(field.encode.active)
        seen.append(field.value(x))
    assert active == pytest.approx([3, 3 + 2 / 3, 4, 4.5, 5, 5])
    assert torch.equal(seen[-1], whole) and torch.equal(seen[-2], whole)
    assert all((a - b).abs().max() > 1e-3 for a, b in pairwise(seen[:5]))
    field.anneal(0.0)
    rows = [min((r + 1) ** 3, SMALL["size"]) for r in field.encode.resolutions]
    with torch.no_grad():
        field.encode.table[sum(rows[:3]) :] = 1e3  # what is hidden
    assert torch.equal(field.value(x), seen[0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_grids_of_the_colour_are_shown_alike(kind):
    field = small(kind, color_levels=5)
    for progress in (0.0, 0.3, 0.6):
        field.anneal(progress)
        assert field.radiance.encode.active == field.encode.active == pytest.approx(3 + 2 * progress / 0.6)


def test_levels_shown():
    assert [active_levels(8, p) for p in (0.0, 0.3, 0.6, 0.9)] == pytest.approx([3, 5.5, 8, 8])
    assert [active_levels(2, p) for p in (0.0, 0.5, 1.0)] == [2, 2, 2] and active_levels(3, 0.4) == 3
    assert active_levels(10, 0.5, first=4, by=1.0) == pytest.approx(7)


def test_normals_by_differences_step_one_cell_of_the_finest_level_shown(device):
    field, exact, x = (
        learned("hashgrid", numerical=True).to(device),
        learned("hashgrid").to(device),
        points(200, device),
    )
    assert exact.step is None
    steps = []
    for progress in (0.0, 0.3, 1.0):
        field.anneal(progress)
        steps.append(field.step)
        with torch.no_grad():
            value, slope, _ = gradient(field, x)
            shift = 0.5 * field.step * torch.eye(3, device=device)
            expected = torch.stack([field.value(x + s) - field.value(x - s) for s in shift], 1) / field.step
        assert torch.allclose(slope, expected, atol=1e-4) and torch.equal(value, field.value(x).detach())
    assert steps == pytest.approx([2 / r for r in (field.encode.resolutions[i] for i in (2, 3, 4))])
    assert (gradient(exact, x)[1] - slope).norm(dim=-1).mean() > 0.01  # they are not the same on a rough field


def test_smooth_fields_have_the_same_normals_either_way(device):
    field, exact = small("hashgrid", numerical=True).to(device), small("hashgrid").to(device)
    x = nn.functional.normalize(points(300, device), dim=-1) * 0.5
    with torch.no_grad():
        both = [nn.functional.normalize(gradient(f, x)[1], dim=-1) for f in (field, exact)]
    assert (both[0] * both[1]).sum(-1).mean() > 0.98


@pytest.mark.parametrize("kind", KINDS)
def test_a_point_that_is_not_a_number_harms_itself_alone(kind, device):
    field, x = learned(kind).to(device), points(40, device)
    broken = x.clone()
    broken[7, 1] = torch.nan
    good = torch.arange(40, device=device) != 7
    value, feature = field.geometry(broken)
    expected, also = field.geometry(x)
    assert value[7].isnan() and torch.equal(value[good], expected[good]) and torch.equal(feature[good], also[good])
    table = field.encode.table
    ours, theirs = (torch.autograd.grad(v[good].square().sum(), table)[0] for v in (value, expected))
    assert ours.isfinite().all() and torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_gives_the_same_field(kind, tmp_path, device):
    options = {**SMALL, **({"numerical": True} if kind == "hashgrid" else {"level": 0.3})}
    field = learned(kind, **options)
    field.anneal(0.4)
    camera = Camera.look_at((3.0, 0.0, 0.0), width=4, height=4)
    saved = Checkpoint(kind, options, field.state_dict(), SceneTransform.identity(), (0.0, 0.0, 1.0), (camera,), {})
    saved.save(tmp_path / "a.safetensors")
    other: Any = load(tmp_path / "a.safetensors").field()
    x = points(100, "cpu")
    ray = nn.functional.normalize(x, dim=-1)
    colors = [f.color(x, ray, -ray, f.geometry(x)[1]) for f in (field, other)]
    assert torch.equal(other.value(x), field.value(x)) and torch.equal(*colors)
    assert other.encode.active == field.encode.active == pytest.approx(3 + 2 * 0.4 / 0.6)
    assert (other.lipschitz, other.step) == (field.lipschitz, field.step)


def test_the_slope_bound_follows_the_weights():
    field = small("hashgrid")
    before = field.lipschitz
    with torch.no_grad():
        field.perceptron.layers[-1].weight *= 3
    assert field.bound_slope() == 8192 and field.lipschitz == pytest.approx(3 * before, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_tables_learn_at_a_rate_of_their_own_and_what_moves_a_whole_distance_slowest(kind):
    field = small(kind)
    groups = Recipe().groups(field, field.rates)
    rates = {id(parameter): group["rate"] for group in groups for parameter in group["params"]}
    assert rates.pop(id(field.encode.table)) == 2e-3
    assert {rates.pop(id(parameter)) for parameter in field.perceptron.parameters()} == {
        1e-3 if kind == "hashgrid" else 1e-2
    }
    assert set(rates) == {*map(id, field.radiance.parameters())} and set(rates.values()) == {1e-2}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"levels": 0}, "needs levels >= 1"),
        ({"size": 1000}, "size must be a power of two, got 1000"),
        ({"coarsest": 100, "finest": 50}, "needs 1 <= coarsest <= finest"),
        ({"color_levels": 1}, "one level has one resolution"),
        ({"width": 0}, "needs width >= 1 and depth >= 1, got 0 and 1"),
        ({"color_depth": 0}, "needs width >= 1 and depth >= 1, got 16 and 0"),
        ({"bounds": 0.0}, "bounds must be a positive number or two corners"),
        ({"girth": 3}, "has no option 'girth'; its options are levels, coarsest"),
    ],
)
def test_bad_options_are_said_in_one_sentence(kind, wrong, said):
    with pytest.raises(ValueError, match=said) as caught:
        small(kind, **wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.5, math.nan])
def test_a_level_is_a_probability(level):
    with pytest.raises(ValueError, match=r"^hashgrid-occupancy: level must lie between 0 and 1, got "):
        small("hashgrid-occupancy", level=level)


def test_a_sharpness_must_be_positive():
    with pytest.raises(ValueError, match=r"sharpness must be positive, got 0\.0"):
        small("hashgrid", sharpness=0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_colour_needs_features(kind):
    x = points(3, "cpu")
    with pytest.raises(ValueError, match="color needs the features that geometry returns"):
        small(kind).color(x, x, x, None)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("hashgrid", {}), ("hashgrid", {"numerical": True}), ("hashgrid-occupancy", {})],
    ids=["distance", "differences", "occupancy"],
)
def test_they_learn_a_bunny(kind, options, device):
    views = mesh_views("warp:bunny", count=6, test=2, size=48)
    field = small(kind, bounds=1.1, **options).to(device)
    before = evaluate(field, views)
    steps = list(Fit(field, views, iterations=60, recipe=Recipe(rays=512)))
    after = evaluate(field, views)
    first, last = (sum(step.losses["total"] for step in some) for some in (steps[:5], steps[-5:]))
    assert last < 0.8 * first
    assert after.iou > before.iou + 0.03 and after.psnr > before.psnr + 1
    assert field.encode.active == 5


@pytest.mark.parametrize(("kind", "dtype"), [("hashgrid", "float16"), ("hashgrid-occupancy", torch.float16)])
def test_tables_in_half_precision_show_the_same(kind, dtype, device):
    field, half = learned(kind).to(device), small(kind, dtype=dtype).to(device)
    half.load_state_dict(field.state_dict())
    types = {name: p.dtype for name, p in half.named_parameters()}
    assert {t for name, t in types.items() if name.endswith("table")} == {torch.float16}
    assert {t for name, t in types.items() if not name.endswith("table")} == {torch.float32}
    check_field(half)
    x = points(2000, device)
    assert torch.allclose(half.value(x), field.value(x), atol=2e-3)
    camera = Camera.look_at((0.0, -2.5, 0.3), width=24, height=24)
    with torch.no_grad():
        ours, expected = (render(f, camera, warn=False) for f in (half, field))
    assert float((ours.mask ^ expected.mask).float().mean()) < 0.01
    both = ours.mask & expected.mask
    assert float((ours.rgb - expected.rgb)[both].abs().mean()) < 1e-2


def test_a_fit_refuses_tables_in_half_precision():
    views = mesh_views("warp:sphere", count=3, test=1, size=16)
    with pytest.raises(ValueError, match=r"^fit: encode.table is torch.float16, in which small steps are lost; make"):
        Fit(small("hashgrid", dtype="float16"), views, iterations=2)


@pytest.mark.parametrize("dtype", ["float64", "half", torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_other_types_of_tables_are_refused(kind, dtype):
    with pytest.raises(
        ValueError, match=rf"^{kind}: dtype, the type of the tables, must be 'float32' or 'float16', got"
    ):
        small(kind, dtype=dtype)

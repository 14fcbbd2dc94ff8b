"""A BoundGrid excludes no surface: bounds against values, hits against samples, counts, refreshing, and meshes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import SLOPE, TRAINED, trained, view, views
from reference import Asked, aimed, beams, clip, double, first_crossing, in_double, plane_t, sphere_t
from torch import Tensor

from warpdvr import DenseMarch, Hit, Rays, SphereTrace, Status, extract
from warpdvr.fields.analytic import Box, Sphere, Torus
from warpdvr.intersection.box_models import model_error
from warpdvr.intersection.boxes import bounds, corners, differences, dilate, dilate_blocks
from warpdvr.intersection.grid import BoundGrid
from warpdvr.intersection.repeat_log import RepeatLog
from warpdvr.kernels import grid as _grid
from warpdvr.runtime.launch import launch

DOWN = (0.0, 0.0, -1.0)
Function = Callable[[Tensor], Tensor]


def ball(x: Tensor) -> Tensor:
    return x.norm(dim=-1) - 0.5


def wire(x: Tensor) -> Tensor:
    """A rod of radius 0.004, a quarter of the finest box, askew and through no corner."""
    axis = torch.tensor([0.48, 0.6, 0.64]).to(x)
    y = x - torch.tensor([0.013, -0.021, 0.037]).to(x)
    return (y - (y @ axis)[:, None] * axis).norm(dim=-1) - 0.004


HARD: dict[str, tuple[Function, float | None]] = {
    "slab of 0.006": (lambda x: (x[:, 2] - 0.0123).abs() - 0.003, None),
    "wire": (wire, None),
    "slab, a distance": (lambda x: (x[:, 2] - 0.0123).abs() - 0.003, 1.0),
    "wire, a distance": (wire, 1.0),
    "slopes from 1 to 1000": (lambda x: ball(x) * torch.exp(3.45 * (1 + x[:, 0])), None),
    "slopes from 1 to 1000, wire": (lambda x: wire(x) * torch.exp(3.45 * (1 + x[:, 1])), None),
    "steep occupancy": (lambda x: torch.tanh(200 * torch.minimum(ball(x), (x - 0.6).norm(dim=-1) - 0.06)), None),
    "plateau": (lambda x: ball(x).clamp(-0.01, 0.01), None),
    "plateau with waves": (lambda x: (ball(x) + 0.02 * torch.sin(40 * x).prod(-1)).clamp(-0.05, 0.01), None),
    "cut": (lambda x: torch.where(ball(x) < 0, -3.0, 5.0) + 0 * x[:, 0], None),
}
"""Fields and their Lipschitz bounds."""


def moved(rays: Rays, device: torch.device) -> Rays:
    return Rays(rays.origin.to(device), rays.direction.to(device))


def lengths(hit: Hit) -> Tensor:
    """Return a ray length for every ray, NaN where it does not hit, in float64 on the CPU."""
    t = torch.full((len(hit.status),), torch.nan, dtype=torch.float64)
    t[hit.ray.cpu()] = hit.t.double().cpu()
    return t


def both(grid: BoundGrid) -> list[Any]:
    return [DenseMarch(grid=grid), SphereTrace(grid=grid, thinnest=1e-4, tolerance=5e-6)]


def leaves(grid: BoundGrid, x: Tensor) -> Tensor:
    node = torch.empty(len(x), dtype=torch.int32, device=x.device)
    launch(_grid.leaf, len(x), [x, grid.tree.packed()], [node])
    return node.long()


# ---- no hit is lost


@pytest.fixture(scope="module", params=list(TRAINED))
def network(request: pytest.FixtureRequest, data: Path, device: torch.device) -> tuple[str, Any, BoundGrid]:
    field = trained(data, request.param).to(device)
    return request.param, field, BoundGrid(field)


def expected_hits(name: str, field: Any, rays: Rays) -> Tensor:
    precise, (o, d) = double(field).cpu(), in_double(rays)
    return first_crossing(precise, o, d, clip(o, d, precise.bounds), 1024, SLOPE[name])


BUDGET = {"bunny": 0.4, "fox": 0.5, "hammer": 0.9, "birdcage_occ": 3.2}
"""Queries per ray."""


def test_the_hits_of_1024_samples_for_four_queries_per_ray(
    network: tuple[str, Any, BoundGrid], device: torch.device
) -> None:
    name, field, grid = network
    rays = view(64, distance=2.5)
    expected = expected_hits(name, field, rays)
    for solve in both(grid):
        hit = solve(field, moved(rays, device))
        t = lengths(hit)
        assert torch.equal(t.isnan(), expected.isnan())
        assert (t - expected).abs().nan_to_num(0).max() < 1e-4
        assert hit.evaluations < BUDGET[name] * len(rays)
        assert not (hit.status == Status.GAVE_UP).any()
    assert grid.evaluations < 5e5


def test_no_hit_is_lost_from_anywhere(network: tuple[str, Any, BoundGrid], device: torch.device) -> None:
    """Six random views; what is seen beyond 1024 samples is there, and what is seen nearer too."""
    name, field, grid = network
    rays = views(40)
    expected = expected_hits(name, field, rays)
    precise, (o, d) = double(field).cpu(), in_double(rays)
    for solve in both(grid):
        t = lengths(solve(field, moved(rays, device)))
        assert not (t.isnan() & ~expected.isnan()).any()
        assert not (t > expected + 1e-4).any()
        found = ~t.isnan()
        front, behind = (precise.value(o[found] + (t[found] + e)[:, None] * d[found]) for e in (-1e-5, 1e-5))
        assert ((front > 0) & (behind < 0)).all()


GRAZING = {
    "hammer": ([], [38399, 197252]),
    "birdcage_occ": ([113451, 121697], [358971, 362587, 390187, 390694, 419769]),
}
"""Rays of `view(512, distance=2.5)`, and of `views(512, 2)`, that enter a thin part for 1e-4 to 1e-2 and meet another
later, or that run beside one for long."""


@pytest.mark.parametrize("name", GRAZING)
def test_a_part_that_is_grazed_is_met_before_the_next(name: str, data: Path, device: torch.device) -> None:
    field, (outer, near) = trained(data, name), GRAZING[name]
    sets = [view(512, distance=2.5)[torch.tensor(outer).long()], views(512, 2)[torch.tensor(near).long()]]
    rays = Rays(torch.cat([r.origin for r in sets]), torch.cat([r.direction for r in sets]))
    precise, (o, d) = double(field), in_double(rays)
    expected = first_crossing(precise, o, d, clip(o, d, precise.bounds), 16384, SLOPE[name])
    field = field.to(device)
    grid = BoundGrid(field)
    for solve in (DenseMarch(grid=grid), SphereTrace(grid=grid)):
        t = lengths(solve(field, moved(rays, device)))
        assert not expected.isnan().any()
        assert not t.isnan().any()
        assert (t - expected).max() < 1e-4


@pytest.mark.parametrize("name", HARD)
def test_no_hit_is_lost_where_a_field_is_hard(name: str, device: torch.device) -> None:
    function, lipschitz = HARD[name]
    field = Asked(function, 1.0, lipschitz).to(device)
    rays = aimed(3000, seed=5)
    o, d = in_double(rays)
    expected = first_crossing(Asked(function), o, d, clip(o, d, field.bounds.cpu()), 2000)
    grid = BoundGrid(field)
    for solve in both(grid):
        hit = solve(field, moved(rays, device))
        t = lengths(hit)
        assert not (t.isnan() & ~expected.isnan()).any()
        assert not (t > expected + 1e-4).any()
        assert not (hit.status == Status.GAVE_UP).any()
        assert hit.evaluations < 16 * len(rays)


def test_bounds_hold(network: tuple[str, Any, BoundGrid], device: torch.device) -> None:
    _, field, grid = network
    generator = torch.Generator().manual_seed(0)
    x = (2 * torch.rand(100_000, 3, generator=generator) - 1).to(device).requires_grad_()
    value = field.value(x)
    (slope,) = torch.autograd.grad(value.sum(), x)
    node = leaves(grid, x.detach())
    assert ((grid.tree.lower[node] <= value) & (value <= grid.tree.upper[node])).all()
    off = (slope - grid.tree.slope[node, :3]).norm(dim=1) > grid.tree.slope[node, 3]
    assert off.float().mean() < 0.006
    assert (grid.signs(x.detach()) != 0).float().mean() > 0.93
    assert ((grid.signs(x.detach()) * value.sign()) >= 0).all()


def test_the_halves_know_their_neighbours(device: torch.device) -> None:
    """Blocks of 2 x 2 x 2 boxes, in any order, are dilated as if they lay in one lattice."""
    generator = torch.Generator().manual_seed(0)
    value = torch.rand(1, 9, 9, 9, generator=generator).to(device)
    side = torch.tensor([0.25, 0.5, 1.0], device=device)
    whole = dilate(differences(value, side))[:, 0]
    order = torch.randperm(64, generator=generator)
    cell = torch.cartesian_prod(*[torch.arange(4)] * 3)[order].to(device)
    found = differences(value, side)[:, 0]
    blocks = torch.stack([found[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, 2 * k : 2 * k + 2] for i, j, k in cell], 1)
    expected = torch.stack([whole[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, 2 * k : 2 * k + 2] for i, j, k in cell], 1)
    assert torch.equal(dilate_blocks(blocks, cell, 4, torch.zeros(9, 64, device=device) - 1e9), expected)
    alone = dilate_blocks(blocks[:, :1], cell[:1], 4, torch.full((9, 1), 7.0, device=device))
    assert (alone == 7).all()  # differences are below 4: every box of a lonely block has neighbours that are not there


def test_bounds_of_a_plane_and_of_a_square(device: torch.device) -> None:
    """Exact differences; the value of a plane is bounded by its corners, that of a square by a quarter of h^2 more."""
    axis = torch.arange(5.0, device=device)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    for value, g, bend in ((2 * x - 3 * y + z, (2.0, -3.0, 1.0), 0.0), (x * x, None, 0.5)):
        side = torch.ones(3, device=device)
        around = differences(value[None], side)
        lower, upper, slope = bounds(corners(value[None]).reshape(8, -1), around.reshape(9, -1), side, 1.0, 2.0, 1e9)
        corner = corners(value[None]).reshape(8, -1)
        assert torch.allclose(lower, corner.amin(0) - bend, atol=1e-4)
        assert torch.allclose(upper, corner.amax(0) + bend, atol=1e-4)
        if g is not None:
            assert torch.allclose(slope[:, :3], torch.tensor(g, device=device).expand(len(slope), 3), atol=1e-5)
            assert torch.allclose(slope[:, 3], torch.tensor(0.05 * 14**0.5, device=device), atol=1e-5)


# ---- what is asked, and what is not


def test_the_grid_asks_its_corners_and_those_of_halves_once(device: torch.device) -> None:
    field = Asked(ball, lipschitz=1.0).to(device)
    grid = BoundGrid(field, cells=8, finest=8)
    assert grid.evaluations == field.asked == 9**3
    assert len(grid.tree.lower) == 8**3
    halved = BoundGrid(field, cells=8, finest=16)
    open_ = (len(halved.tree.lower) - 8**3) // 8
    assert 100 < open_ < 300
    assert 8 * open_ < halved.evaluations - 9**3 < 19 * open_  # 27 points less 8 corners, and most are shared
    flat = Asked(lambda x: torch.ones_like(x[:, 0])).to(device)
    assert BoundGrid(flat, cells=8, finest=64).evaluations == 9**3


def test_a_ray_is_asked_only_where_the_surface_can_be(device: torch.device) -> None:
    field = Asked(ball, lipschitz=1.0).to(device)
    grid = BoundGrid(field)
    field.asked = 0
    miss = DenseMarch(grid=grid)(field, beams((0.7, 0.0, 2.0), DOWN, device))
    assert (miss.evaluations, field.asked) == (0, 0)
    assert miss.status.tolist() == [Status.MISS]
    hit = DenseMarch(grid=grid)(field, beams((0.1, 0.05, 2.0), DOWN, device))
    assert hit.evaluations == field.asked <= 5
    assert hit.t.item() == pytest.approx(2 - (0.25 - 0.0125) ** 0.5, abs=2e-6)


def test_a_start_inside_is_asked_unless_it_is_excluded(device: torch.device) -> None:
    field = Asked(ball).to(device)
    grid = BoundGrid(field)
    field.asked = 0
    hit = DenseMarch(grid=grid)(field, beams(((0, 0, 0.3), (0, 0, 0.499), (0, 0, 0.8)), DOWN, device))
    assert hit.status.tolist() == [Status.INSIDE, Status.INSIDE, Status.HIT]
    assert field.asked == hit.evaluations <= 2 + 5


def test_a_miss_that_was_not_asked_tells_where_it_came_nearest(device: torch.device) -> None:
    field = Asked(ball).to(device)
    rays = beams(((0.7, 0.0, 2.0), (0.52, 0.0, 2.0)), DOWN, device)
    hit = DenseMarch(grid=BoundGrid(field))(field, rays)
    assert hit.status.tolist() == [Status.MISS] * 2
    assert hit.nearest.cpu() == pytest.approx(torch.tensor([2.0, 2.0]), abs=0.1)
    behind = DenseMarch(grid=BoundGrid(field))(field, beams((0.0, 0.0, -3.0), DOWN, device))
    assert behind.nearest.isnan().all()


def test_evaluations_are_counted_and_a_ray_is_decided_alone(device: torch.device) -> None:
    field = Asked(lambda x: wire(x) * torch.exp(3 * x[:, 0])).to(device)
    rays = aimed(400, device=device)
    for solve in both(BoundGrid(field)):
        field.asked = 0
        whole = solve(field, rays)
        assert whole.evaluations == field.asked
        half = solve(field, rays[100:200])
        assert torch.equal(whole.status[100:200], half.status)
        assert torch.equal(lengths(whole)[100:200].nan_to_num(9), lengths(half).nan_to_num(9))


def test_values_that_are_no_numbers_exclude_nothing(device: torch.device) -> None:
    field = Asked(lambda x: torch.where(x[:, 0] > 0.5, torch.nan, x[:, 2])).to(device)
    for solve in both(BoundGrid(field, cells=16)):
        hit = solve(field, beams(((0.9, 0, 1), (0, 0, 1), (0.45, 0, 1)), DOWN, device))
        assert hit.status.tolist() == [Status.GAVE_UP, Status.HIT, Status.HIT]
    for endless, status in ((torch.inf, Status.HIT), (1e20, Status.HIT)):
        field = Asked(lambda x, e=endless: torch.where(x[:, 2] > 0.3, e, x[:, 2])).to(device)  # type: ignore[misc]
        hit = DenseMarch(grid=BoundGrid(field, cells=16))(field, beams((0, 0, 1), DOWN, device))
        assert hit.status.tolist() == [status]


def test_bounds_that_are_no_cube_and_a_far_camera(device: torch.device) -> None:
    field = Box((1.0, 0.5, 0.2), (0.0, 0.0, 0.0), bounds=((-2.0, -0.6, -0.3), (1.0, 0.7, 0.3))).to(device)
    grid = BoundGrid(field, cells=24, finest=48)
    assert grid.layout.cells == (24, 11, 5)
    rays = aimed(500, seed=1, distance=50.0, spread=0.3, device=device)
    for solve in both(grid):
        with_grid, without = solve(field, rays), SphereTrace(thinnest=2e-4, max_steps=2000)(field, rays)
        assert torch.equal(with_grid.status, without.status)
        assert (with_grid.t - without.t).abs().max() < 5e-5


# ---- wrong estimates


def test_a_stale_grid_gives_true_hits_and_no_false_start(device: torch.device) -> None:
    """The ball grew and moved in a fit: every hit still lies on it, and who starts inside is told so."""
    old, new = Sphere(0.4).to(device), Sphere(0.5, (0.05, 0.0, 0.0)).to(device)
    grid = BoundGrid(old)
    old.load_state_dict(new.state_dict())
    assert grid.refresh(old, 0) == 0
    new = old
    rays = aimed(1000, seed=3, spread=0.5, device=device)
    for solve in both(grid):
        hit, right = solve(new, rays), SphereTrace()(new, rays)
        assert new.value(rays[hit.ray].at(hit.t)).abs().max() < 1e-5
        both_hit = torch.isin(right.ray, hit.ray)
        assert both_hit.float().mean() > 0.6
        assert torch.allclose(right.t[both_hit], hit.t[torch.isin(hit.ray, right.ray)], atol=2e-5)
        inside = solve(new, beams((0.0, 0.0, 0.47), DOWN, device))
        assert inside.status.tolist() == [Status.INSIDE]


@pytest.mark.parametrize("cut", [0.01, 0.1])
def test_a_model_that_is_wrong_is_found_out(cut: float, device: torch.device) -> None:
    """The ball shrank in a fit: what lands lies on the new one, and no ray lands beside it."""
    new = Sphere(0.5).to(device)
    grid = BoundGrid(new)
    with torch.no_grad():
        new.radius.sub_(cut)
    assert grid.refresh(new, 0) == 0
    rays = aimed(1000, seed=3, spread=0.3, device=device)
    for solve in both(grid):
        hit = solve(new, rays)
        assert new.value(rays[hit.ray].at(hit.t)).abs().max() < 2e-5
        assert not ((hit.status == Status.HIT) & ~(SphereTrace()(new, rays).status == Status.HIT)).any()


# ---- models: a hit for one or two queries


MODELLED: dict[str, tuple[Function, float, int]] = {
    "ball": (lambda x: x.norm(dim=-1) - 0.4, 1.0, 2),
    "bumpy": (
        lambda x: 0.7 * (x.norm(dim=-1) - 0.35 + 0.03 * torch.sin(x * torch.tensor([20.0, 17, 23]).to(x)).prod(-1)),
        1.2,
        2,
    ),
}


@pytest.mark.parametrize("name", MODELLED)
def test_two_queries_are_enough_for_a_hit(name: str, device: torch.device) -> None:
    """All queries of 256 x 256 rays over those that hit; hits and depths are those without a grid."""
    function, lipschitz, most = MODELLED[name]
    field = Asked(function, lipschitz=lipschitz).to(device)
    rays = moved(view(256), device)
    grid = BoundGrid(field)
    for solve, plain in ((DenseMarch(grid=grid), DenseMarch()), (SphereTrace(grid=grid), SphereTrace(tolerance=1e-6))):
        field.asked = 0
        hit = solve(field, rays)
        assert field.asked == hit.evaluations <= most * len(hit.t)
        right = plain(field, rays)
        assert torch.equal(hit.ray, right.ray)
        assert (hit.t - right.t).abs().max() < (1e-5 if isinstance(solve, DenseMarch) else 5e-5)


def test_two_queries_are_enough_for_a_hit_on_a_network(data: Path, device: torch.device) -> None:
    field = trained(data, "bunny").to(device)
    rays = moved(view(256, distance=2.5), device)
    hit, right = DenseMarch(grid=BoundGrid(field))(field, rays), SphereTrace(tolerance=1e-6)(field, rays)
    assert hit.evaluations <= 2 * len(hit.t)
    assert torch.equal(hit.ray, right.ray)
    assert (hit.t - right.t).abs().max() < 2e-5  # of a tolerance of 5e-5; rounding differs between processors


def test_the_model_of_a_quadratic_is_exact(device: torch.device) -> None:
    """Second-order terms and all mixed ones of a box are what kernels/box_model.py takes a field for."""
    bend = torch.tensor([1.0, -2.0, 3.0])
    lattice = torch.cartesian_prod(*[torch.linspace(0, 1, 3)] * 3)

    def quadratic(x: Tensor) -> Tensor:
        return (bend * x * x).sum(-1) / 2 + x.prod(-1) + x[:, 0] * x[:, 1] - x[:, 2] + 0.3

    corner = quadratic(torch.cartesian_prod(*[torch.arange(2.0)] * 3))[:, None].to(device)
    found = model_error(corner, bend[:, None].to(device), quadratic(lattice).view(1, 3, 3, 3).to(device))
    assert found.item() < 1e-6
    assert (
        model_error(corner, 0 * bend[:, None].to(device), quadratic(lattice).view(1, 3, 3, 3).to(device)).item() > 0.1
    )


# ---- sharpening


@pytest.mark.parametrize("name", ["fox", "hammer"])
def test_from_the_second_picture_on_two_queries_are_enough(name: str, data: Path, device: torch.device) -> None:
    """Networks with thin parts and slopes that vary by a factor of 1000; hits are those without a grid."""
    field = trained(data, name).to(device)
    grid, rays = BoundGrid(field), moved(view(256, distance=2.5), device)
    solve = SphereTrace(grid=grid)
    first = solve(field, rays)
    assert first.evaluations > 3 * len(first.t)
    grid.sharpen(field)
    second, right = solve(field, rays), DenseMarch()(field, rays)
    assert second.evaluations <= 2 * len(second.t)
    t, expected = lengths(second), lengths(right)
    assert not (t.isnan() & ~expected.isnan()).any()
    assert ((t.isnan() != expected.isnan()) | ((t - expected).abs() > 5e-5)).sum() <= 7  # thinner than its samples see


def test_sharpening_asks_where_rays_did_and_only_then(device: torch.device) -> None:
    field = Asked(lambda x: wire(x) * torch.exp(3 * x[:, 0])).to(device)
    grid = BoundGrid(field)
    assert grid.sharpen(field) == 0
    rays = aimed(400, device=device)
    first = DenseMarch(grid=grid)(field, rays)
    boxes, asked = len(grid.tree.child), field.asked
    new = grid.sharpen(field)
    assert new == field.asked - asked
    assert grid.sharpen(field) == 0
    assert grid.evaluations == field.asked - first.evaluations
    assert 0 < new < 19 / 8 * (len(grid.tree.child) - boxes) < 0.02 * asked  # a small part of the wire's boxes
    second = DenseMarch(grid=grid)(field, rays)
    assert second.evaluations < 0.5 * first.evaluations
    assert torch.equal(first.status, second.status)
    assert (first.t - second.t).abs().max() < 1e-5


@pytest.mark.parametrize("name", HARD)
def test_no_hit_is_lost_by_sharpening(name: str, device: torch.device) -> None:
    """Seen from elsewhere than where it was sharpened, and bounds hold."""
    function, lipschitz = HARD[name]
    field = Asked(function, 1.0, lipschitz).to(device)
    grid = BoundGrid(field)
    solve = SphereTrace(grid=grid, thinnest=1e-4, max_steps=1024, tolerance=5e-6)
    asked = 0
    for seed in (1, 2):
        solve(field, aimed(3000, seed=seed, device=device))
        asked += grid.sharpen(field)
    assert asked > 0 or name == "slopes from 1 to 1000"  # whose models are good already
    rays = aimed(3000, seed=5)
    o, d = in_double(rays)
    expected = first_crossing(Asked(function), o, d, clip(o, d, field.bounds.cpu()), 2000)
    hit = solve(field, moved(rays, device))
    t = lengths(hit)
    assert not (t.isnan() & ~expected.isnan()).any()
    assert not (t > expected + 1e-4).any()
    assert not (hit.status == Status.GAVE_UP).any()
    x = rays.at(torch.rand(3000, generator=torch.Generator().manual_seed(0)) * 2).to(device).clamp(-1, 1)
    if "cut" not in name and "plateau" not in name:
        x = torch.cat([x, moved(rays, device)[hit.ray].at(hit.t + 1e-4)])
    value, node = field.value(x), leaves(grid, x)
    assert ((grid.tree.lower[node] <= value) & (value <= grid.tree.upper[node])).float().mean() > 0.9995


def test_what_rays_asked_is_forgotten_once_it_was_used_or_is_old(device: torch.device) -> None:
    field = Asked(wire).to(device)
    grid = BoundGrid(field)
    fresh = grid.tree.child
    for seed in (1, 2):
        DenseMarch(grid=grid)(field, aimed(300, seed=seed, device=device))
        assert grid.sharpen(field) > 0
        assert len(grid.repeats.boxes(grid.layout.low, grid.layout.side)) == 0
    DenseMarch(grid=grid)(field, aimed(300, seed=3, device=device))
    grid.refresh(field, full=True)
    assert torch.equal(grid.tree.child, fresh)
    assert grid.sharpen(field) == 0


def test_models_of_a_grid_of_one_size_become_good_by_sharpening(device: torch.device) -> None:
    """Nothing was known of how wrong they are."""
    field = Sphere(0.5).to(device)
    grid = BoundGrid(field, cells=32, finest=32)
    rays = aimed(1000, spread=0.4, device=device)
    first = SphereTrace(grid=grid)(field, rays)
    assert 0 < grid.sharpen(field) < 30_000
    second = SphereTrace(grid=grid)(field, rays)
    assert second.evaluations < 0.6 * first.evaluations
    assert torch.equal(first.ray, second.ray) and (first.t - second.t).abs().max() < 5e-5


def test_of_too_many_stretches_an_even_part_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warpdvr.intersection.repeat_log.MAX_SEGMENTS", 100)
    repeats, x = RepeatLog(), torch.linspace(0, 1, 1000)[:, None].expand(1000, 3)
    for part in x.split(90):
        repeats.add(part, part)
    found = repeats.boxes(torch.zeros(3), torch.full((3,), 0.05))[:, 0]
    assert torch.equal(found, torch.arange(21)) or torch.equal(found, torch.arange(20))


def test_a_sharpened_grid_is_moved_as_it_is(device: torch.device) -> None:
    field, rays = Asked(wire), aimed(300)
    grid = BoundGrid(field)
    DenseMarch(grid=grid)(field, rays)
    grid.sharpen(field)
    there, field, rays = grid.to(device), field.to(device), moved(rays, device)
    solve = DenseMarch(grid=there)
    first = solve(field, rays)
    child = grid.tree.child.clone()
    solve(field, aimed(300, seed=9, device=device))
    assert there.sharpen(field) > 0
    assert len(there.tree.child) > len(child)
    assert torch.equal(grid.tree.child, child)
    assert torch.equal(solve(field, rays).status, first.status)


# ---- refreshing


def test_a_refresh_costs_what_was_saved_up_and_follows_the_field(device: torch.device) -> None:
    field = Sphere(0.15).to(device)
    grid = BoundGrid(field, cells=16, finest=32)
    first = cost = grid.evaluations
    asked, calls = 0, 0
    rays = aimed(500, seed=3, spread=0.5, device=device)
    for _ in range(60):
        with torch.no_grad():
            field.radius.add_(0.01)
        now = grid.refresh(field, 1024)
        cost, asked, calls = now or cost, asked + now, calls + 1
        assert asked <= 1024 * calls + cost  # it may cost more than the last one; that is saved up for later
        hit, right = SphereTrace(grid=grid)(field, rays), SphereTrace()(field, rays)
        if asked:  # before, nobody can know how fast it moves
            assert torch.equal(hit.status, right.status)
    assert asked > 1024 * calls - 2 * cost
    assert grid.evaluations == first + asked


def test_a_full_refresh_is_a_new_grid(device: torch.device) -> None:
    field = Torus().to(device)
    grid = BoundGrid(field, cells=16)
    with torch.no_grad():
        field.minor.add_(0.05)
    assert grid.refresh(field, 10) == 0
    assert grid.refresh(field, full=True) == BoundGrid(field, cells=16).evaluations
    new = BoundGrid(field, cells=16)
    for a, b in zip(
        (grid.tree.lower, grid.tree.slope, grid.tree.child),
        (new.tree.lower, new.tree.slope, new.tree.child),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_a_moved_grid_is_the_same(device: torch.device) -> None:
    field = Torus()
    grid = BoundGrid(field, cells=16).to(device)
    rays = aimed(300, device=device)
    a, b = DenseMarch(grid=grid)(field.to(device), rays), DenseMarch(grid=BoundGrid(field, cells=16))(field, rays)
    assert torch.equal(a.status, b.status)
    assert torch.allclose(a.t, b.t, atol=2e-6)


@pytest.mark.parametrize("options", [{"cells": 1}, {"spread": 0.9}, {"bend": 0.5}, {"bend": float("nan")}])
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="BoundGrid: "):
        BoundGrid(Sphere(), **options)


def test_a_grid_of_another_field_is_refused() -> None:
    grid = BoundGrid(Sphere(), cells=8)
    other = Sphere(bounds=2.0)
    for use in (
        lambda: DenseMarch(grid=grid)(other, beams((0, 0, 3), DOWN)),
        lambda: extract(other, grid=grid),
        lambda: grid.sharpen(other),
    ):
        with pytest.raises(ValueError, match=r"was made for bounds .* but the field's are"):
            use()


# ---- meshes


def test_the_mesh_of_a_grid_is_the_mesh_of_all_corners(network: tuple[str, Any, BoundGrid]) -> None:
    _, field, grid = network
    asked = Asked(field.value).to(field.bounds.device)
    dense = extract(asked, resolution=96, project=0, colors=False, grid=False)
    everywhere = asked.asked
    asked.asked = 0
    own = extract(asked, resolution=96, project=0, colors=False)
    assert asked.asked < everywhere / 2
    for mesh in (own, extract(field, resolution=96, project=0, colors=False, grid=grid)):
        assert torch.equal(mesh.faces, dense.faces)
        assert torch.allclose(mesh.vertices, dense.vertices, atol=1e-6)


@pytest.mark.parametrize("name", HARD)
def test_the_mesh_of_a_hard_field_is_the_same(name: str, device: torch.device) -> None:
    field = Asked(HARD[name][0]).to(device)
    for resolution in (40, 80):
        try:
            dense = extract(field, resolution=resolution, project=0, colors=False, grid=False)
        except ValueError:  # thinner than the lattice sees
            continue
        own = extract(field, resolution=resolution, project=0, colors=False)
        assert torch.equal(own.faces, dense.faces)


@pytest.mark.parametrize("scale", [1.5, 2.0])
def test_a_lipschitz_bound_that_is_none_is_not_relied_on(scale: float, device: torch.device) -> None:
    rays = view(64)
    honest, wrong = (Asked(lambda x: scale * (x.norm(dim=-1) - 0.4), lipschitz=bound) for bound in (scale, 1.0))
    exact = sphere_t(*in_double(rays), 0.4)
    rays = Rays(rays.origin.to(device), rays.direction.to(device))
    for field in (honest.to(device), wrong.to(device)):
        grid = BoundGrid(field)
        assert grid.tree.lipschitz == (scale if field is honest else float("inf"))
        for solve in (DenseMarch(grid=grid), SphereTrace(grid=grid)):
            hit = solve(field, rays)
            assert torch.equal(hit.ray.cpu(), torch.nonzero(~exact.isnan())[:, 0])
            assert (hit.t.cpu() - exact[hit.ray.cpu()]).abs().max() < 5e-5


def test_a_grid_knows_its_field_again_whose_bounds_end_at_0() -> None:
    """0.7 / 41 * 41 - 0.7 is 6e-8 in float32, which no relative tolerance takes for 0."""
    field = Asked(lambda x: x.norm(dim=-1) - 0.3, ((-0.7, -0.55, -0.55), (0.0, 0.55, 0.55)), 1.0)
    BoundGrid(field, cells=64, finest=64).check(field)


def test_a_march_gets_on_where_boxes_are_flat(device: torch.device) -> None:
    """The nudge across a border, 1e-4 of a box's height, is less than neighbouring float32 lengths are apart."""
    field = Asked(lambda x: x[:, 2] - 0.003, ((-1000, -1000, -0.1), (1000, 1000, 0.1))).to(device)
    grid = BoundGrid(field, cells=64, finest=64)
    y, z = torch.rand(2, 2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    start = torch.stack([torch.full_like(y, -1000), 1000 * y, 0.05 + 0.04 * z], 1)
    rays = beams(start, torch.stack([torch.full_like(y, 2000), 500 * z, -0.1 + 0.04 * y], 1), device)
    hit = SphereTrace(grid=grid)(field, rays)
    o, d = in_double(rays)
    expected = plane_t(o, d, torch.tensor([0.0, 0, 1], dtype=torch.float64), 0.003)
    assert len(hit.ray) > 1700
    assert ((hit.t.cpu() - expected[hit.ray.cpu()]) * d[hit.ray.cpu(), 2]).abs().max() < 1e-5

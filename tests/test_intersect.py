"""Hits against closed forms, every pitfall that was seen in the code of DVR, DIST and IDR, and exact counts."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from reference import Asked, aimed, beams, box_t, clip, double, first_crossing, in_double, plane_t, sphere_t, torus_t
from torch import Tensor

from warpdvr import DenseMarch, Hit, Rays, SphereTrace, Status
from warpdvr.fields.analytic import Box, Plane, Sphere, Torus, Union
from warpdvr.intersection.grid import BoundGrid


@dataclass(frozen=True)
class Gridded:
    """A solver with a grid of the field that it is called with; the grid's own questions are not counted."""

    solve: Any
    points_per_ray = 1

    def __call__(self, field: Any, rays: Rays) -> Hit:
        asked = getattr(field, "asked", 0)
        grid = BoundGrid(field, cells=16, finest=64)
        field.asked = asked
        return replace(self.solve, grid=grid)(field, rays)


SOLVERS = [
    DenseMarch(),
    DenseMarch(splits=0),
    SphereTrace(),
    SphereTrace(relaxation=1.0),
    Gridded(DenseMarch()),
    Gridded(SphereTrace()),
]
NAMES = ["dense", "dense-plain", "trace", "trace-plain", "dense-grid", "trace-grid"]
both = pytest.mark.parametrize("solve", SOLVERS, ids=NAMES)
DOWN = (0.0, 0.0, -1.0)


def slab(thickness: float, middle: float = 0.0, bounds: Any = 1.0) -> Asked:
    """Everything within half of `thickness` of the plane z = middle."""
    return Asked(lambda x: (x[:, 2] - middle).abs() - thickness / 2, bounds, 1.0)


def height(level: float, bounds: Any = 1.0) -> Asked:
    """Everything below the plane z = level."""
    return Asked(lambda x: x[:, 2] - level, bounds, 1.0)


def spread(hit: Hit) -> Tensor:
    """Return a ray length for every ray, NaN where it does not hit, in float64 on the CPU; and check what must hold."""
    status, ray = hit.status.cpu(), hit.ray.cpu()
    assert torch.equal(torch.nonzero(status == Status.HIT)[:, 0], ray)
    assert len(hit.t) == len(ray)
    assert hit.status.dtype == torch.int32
    assert hit.t.dtype == torch.float32
    assert not ((status < Status.HIT) | (status > Status.GAVE_UP)).any()
    t = torch.full((len(status),), torch.nan, dtype=torch.float64)
    t[ray] = hit.t.double().cpu()
    return t


def statuses(hit: Hit) -> list[Status]:
    return [Status(s) for s in hit.status.tolist()]


# ---- closed forms: right statuses and right lengths on random rays


def p(parameter: Tensor) -> Tensor:
    return parameter.detach().double()


def expected_plane(o: Tensor, d: Tensor, field: Any) -> Tensor:
    t = plane_t(o, d, p(field.normal), p(field.offset))
    near, far = clip(o, d, field.bounds)
    return torch.where((near <= t) & (t <= far), t, torch.nan)


SCENES: dict[str, tuple[Callable[[], Any], Callable[[Tensor, Tensor, Any], Tensor]]] = {
    "sphere": (
        lambda: Sphere(0.5, (0.1, 0.2, -0.1)),
        lambda o, d, f: sphere_t(o, d, p(f.radius), p(f.center)),
    ),
    "box": (lambda: Box((0.8, 0.5, 0.3), (0.1, 0.0, -0.1)), lambda o, d, f: box_t(o, d, p(f.size), p(f.center))),
    "torus": (lambda: Torus(), lambda o, d, f: torus_t(o, d, p(f.major).item(), p(f.minor).item())),
    "plane": (lambda: Plane((0.3, -0.4, 2.0), 0.2), expected_plane),
    "two": (
        lambda: Union([Sphere(0.2, (0.25, 0.0, 0.2)), Sphere(0.2, (-0.25, 0.0, -0.2))]),
        lambda o, d, f: torch.stack([sphere_t(o, d, p(s.radius), p(s.center)).nan_to_num(9) for s in f.parts]).amin(0),
    ),
}


@pytest.mark.parametrize("name", SCENES)
@both
def test_no_status_is_wrong_and_every_length_is_right(name: str, solve: Any, device: torch.device) -> None:
    field, rays = SCENES[name][0](), aimed(1500)
    o, d = in_double(rays)
    expected = SCENES[name][1](o, d, field)
    expected = torch.where(expected == 9, torch.nan, expected)
    hit = solve(field.to(device), Rays(rays.origin.to(device), rays.direction.to(device)))
    t, should = spread(hit), ~expected.isnan()
    near, far = clip(o, d, field.bounds.cpu())
    inside = (near <= far) & (double(field).cpu().value(o + near[:, None] * d) < 0)
    should &= ~inside
    missed = should & t.isnan()
    assert torch.equal(hit.status.cpu() == Status.INSIDE, inside)
    assert not (~should & ~t.isnan()).any()
    assert not (hit.status == Status.GAVE_UP).any()
    assert not (missed & (chord(double(field).cpu(), o, d, expected) > thinnest(solve))).any()
    assert missed.sum() <= 0.03 * should.sum()
    assert should.sum() > 100
    right = should & ~missed
    assert ((t - expected).abs() / expected)[right].max() < 1e-5


def thinnest(solve: Any) -> float:
    """What a ray must pass through to be seen by a solver, and a margin."""
    plain = solve.solve if isinstance(solve, Gridded) else solve
    if isinstance(plain, SphereTrace):
        return 2.1e-3 if plain.grid or isinstance(solve, Gridded) else 1.05 * 5e-3
    return 0.028 if plain.splits == 0 else 1e-3


def chord(field: Any, o: Tensor, d: Tensor, t: Tensor) -> Tensor:
    """How long each ray stays inside after t, up to 0.03."""
    step = torch.linspace(1e-6, 0.03, 400, dtype=torch.float64)
    x = o[:, None] + (t[:, None] + step)[..., None] * d[:, None]
    outside = field.value(x.view(-1, 3)).view(len(t), -1) > 0
    return torch.where(outside.any(1), step[outside.int().argmax(1)], 0.03)


@pytest.mark.parametrize("solve", [s for s in SOLVERS if s != DenseMarch(splits=0)])
def test_every_ray_of_a_grazing_fan_is_right(solve: Any, device: torch.device) -> None:
    """Impact parameters up to one part in 10 000 below the radius, where the slope is 1.4e-2."""
    impact = 0.5 * (1 - torch.logspace(-4, -1, 200, dtype=torch.float64))
    impact = torch.cat([impact, 0.5 * (1 + torch.logspace(-4, -1, 200, dtype=torch.float64))])
    rays = beams(torch.stack([impact, 0 * impact, 0 * impact + 1.5], 1), DOWN, device)
    hit = solve(Sphere(0.5).to(device), rays)
    assert hit.ray.tolist() == list(range(200))
    expected = sphere_t(*in_double(rays), 0.5)[:200]
    slope = (1 - (impact[:200] / 0.5).square()).sqrt()
    plain = solve.solve if isinstance(solve, Gridded) else solve
    assert ((hit.t.cpu() - expected).abs() * slope).max() < max(
        1e-6, 0.25 * (5e-5 if isinstance(plain, SphereTrace) else 5e-6)
    )


# ---- 1, 2, 3: a ray that starts inside is no hit


@both
def test_a_camera_inside_of_the_surface_sees_nothing(solve: Any, device: torch.device) -> None:
    field = Asked(lambda x: x.norm(dim=-1) - 0.5, lipschitz=1.0).to(device)
    hit = solve(field, beams((0.1, 0.0, 0.0), torch.eye(3), device))
    assert statuses(hit) == [Status.INSIDE] * 3
    assert len(hit.t) == 0
    assert hit.evaluations == field.asked == 3 * solve.points_per_ray


@both
def test_a_slab_entered_from_inside_does_not_return_its_exit_nor_the_next_one(solve: Any, device: torch.device) -> None:
    field = Asked(lambda x: torch.minimum(x[:, 2].abs(), (x[:, 2] + 0.7).abs()) - 0.1, lipschitz=1.0).to(device)
    hit = solve(field, beams(((0, 0, 0.05), (0, 0, 0.15)), DOWN, device))
    assert statuses(hit) == [Status.INSIDE, Status.HIT]
    assert hit.t.item() == pytest.approx(0.05, abs=2e-6)


@both
def test_a_surface_that_leaves_the_bounds_is_entered_inside(solve: Any, device: torch.device) -> None:
    hit = solve(height(1.5).to(device), beams((0.2, 0.1, 3.0), DOWN, device))
    assert statuses(hit) == [Status.INSIDE]


# ---- 8: exactly 0 is a crossing


@pytest.mark.parametrize("n", [3, 65, 129])
def test_a_sample_that_is_exactly_zero_is_a_crossing(n: int, device: torch.device) -> None:
    hit = DenseMarch(n=n)(height(0.0).to(device), beams((0.3, 0.2, 1.0), DOWN, device))
    assert hit.t.tolist() == [1.0]


@both
def test_touching_without_going_in_is_a_hit_where_it_is_seen(solve: Any, device: torch.device) -> None:
    hit = solve(Asked(lambda x: x[:, 2].abs(), lipschitz=1.0).to(device), beams((0, 0, 0), DOWN, device))
    assert statuses(hit) == [Status.HIT]
    assert hit.t.tolist() == [0.0]


@both
def test_the_ends_of_the_bounds_belong_to_them(solve: Any, device: torch.device) -> None:
    for level, t in ((1.0, 2.0), (-1.0, 4.0)):
        hit = solve(height(level).to(device), beams((0.3, 0.2, 3.0), DOWN, device))
        assert statuses(hit) == [Status.HIT]
        assert hit.t.item() == pytest.approx(t, abs=1e-6)


# ---- 4, 5, 6: the bounds


@both
def test_a_ray_that_misses_the_bounds_costs_nothing(solve: Any, device: torch.device) -> None:
    field = height(-3.0).to(device)
    rays = beams(((2, 0, 3), (0, 0, 3), (0, 0, -3)), DOWN, device)  # beside, through, behind
    hit = solve(field, rays)
    assert statuses(hit) == [Status.MISS] * 3  # the plane lies outside of the bounds
    alone = field.asked
    solve(field, rays[1:2])
    assert hit.evaluations == alone == field.asked - alone
    assert alone > 0 or isinstance(solve, Gridded)
    assert hit.nearest.isnan().tolist() == [True, False, True]


@both
def test_a_camera_inside_of_the_bounds_looks_ahead_only(solve: Any, device: torch.device) -> None:
    rays = beams((0.0, 0.0, 0.4), ((0, 0, -1), (0, 0, 1), (1, 0, 0)), device)
    hit = solve(slab(0.2).to(device), rays)
    assert statuses(hit) == [Status.HIT, Status.MISS, Status.MISS]
    assert hit.t.item() == pytest.approx(0.3, abs=1e-6)


@both
def test_edges_and_corners_of_the_bounds_count(solve: Any, device: torch.device) -> None:
    rays = beams(((1, 1, 3), (1, 0, 3), (2, 2, 2)), (DOWN, DOWN, (-1, -1, -1)), device)
    hit = solve(height(0.0).to(device), rays)
    assert statuses(hit) == [Status.HIT] * 3
    assert hit.t.tolist() == pytest.approx([3, 3, 2 * 3**0.5], abs=1e-6)


# ---- 10: thin parts


def seen(solve: Any, thickness: float, device: torch.device) -> float:
    """The share of oblique rays that see a slab, of those that pass it."""
    rays = aimed(600, seed=3)
    o, d = in_double(rays)
    top = 0.0123 + o[:, 2].sign() * thickness / 2
    near, far = clip(o, d, torch.tensor([[-1.0] * 3, [1.0] * 3]))
    t = (top - o[:, 2]) / d[:, 2]
    passes = (near < t) & (t < far) & ((o[:, 2] - 0.0123).abs() > thickness / 2)
    hit = spread(solve(slab(thickness, 0.0123).to(device), Rays(rays.origin.to(device), rays.direction.to(device))))
    assert (hit - t)[passes & ~hit.isnan()].abs().max() < 2e-5
    return (passes & ~hit.isnan()).sum().item() / passes.sum().item()


@pytest.mark.parametrize(
    ("thickness", "plain", "split"), [(0.1, 32, 8), (0.05, 64, 8), (0.02, 128, 8), (0.01, 256, 8), (0.005, 512, 16)]
)
def test_how_thin_a_slab_may_be(thickness: float, plain: int, split: int, device: torch.device) -> None:
    """The smallest power of 2 that sees every ray: samples alone, and with splits. Sphere tracing sees all."""
    assert seen(DenseMarch(n=plain, splits=0), thickness, device) == 1
    assert seen(DenseMarch(n=plain // 2, splits=0), thickness, device) < 1
    assert seen(DenseMarch(n=split), thickness, device) == 1
    assert seen(SphereTrace(), thickness, device) == 1


def test_what_is_too_thin_is_not_seen(device: torch.device) -> None:
    assert 0.1 < seen(DenseMarch(n=8), 0.002, device) < 1
    assert 0.1 < seen(SphereTrace(), 0.001, device) < 1
    assert seen(SphereTrace(thinnest=1e-3), 0.001, device) == 1


# ---- 12, 13: over-relaxation


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.25, 1.5, 2.0])
@pytest.mark.parametrize("relaxation", [1.0, 1.5, 1.9])
def test_over_relaxation_misses_no_ray_on_scaled_distances(
    scale: float, relaxation: float, device: torch.device
) -> None:
    field = Asked(lambda x: scale * (x.norm(dim=-1) - 0.5), lipschitz=scale).to(device)
    rays = aimed(1000, seed=1, spread=0.5)
    expected = sphere_t(*in_double(rays), 0.5)
    t = spread(SphereTrace(relaxation=relaxation)(field, Rays(rays.origin.to(device), rays.direction.to(device))))
    assert torch.equal(t.isnan(), expected.isnan())
    assert (t - expected).nan_to_num(0).abs().max() < 2e-5
    assert field.asked < 14 * 1000


def test_over_relaxation_pays_and_never_steps_over_a_wall(device: torch.device) -> None:
    """A wall hidden behind a narrow pass: a relaxed step that skips free space must be taken back."""
    field = Asked(lambda x: torch.minimum(slab(0.01, -0.3).function(x), x[:, 0] + 0.05), lipschitz=1.0).to(device)
    x = torch.linspace(0.0, 0.9, 300)
    rays = beams(torch.stack([x, 0 * x, 0 * x + 1], 1), DOWN, device)
    for relaxation in (1.0, 1.5, 1.9):
        hit = SphereTrace(relaxation=relaxation)(field, rays)
        assert hit.t.tolist() == pytest.approx([1.295] * 300, abs=2e-5)


@pytest.mark.parametrize("scale", [1.5, 2.0, 8.0])
def test_a_bound_that_is_too_small_is_noticed_and_no_ray_is_missed(scale: float, device: torch.device) -> None:
    field = Asked(lambda x: scale * (x.norm(dim=-1) - 0.5), lipschitz=1.0).to(device)
    rays = aimed(1000, seed=1, spread=0.5)
    expected = sphere_t(*in_double(rays), 0.5)
    with pytest.warns(UserWarning, match=rf"Asked.lipschitz is 1, but .* traced with {int(scale)}"):
        t = spread(SphereTrace()(field, Rays(rays.origin.to(device), rays.direction.to(device))))
    assert torch.equal(t.isnan(), expected.isnan())
    assert (t - expected).nan_to_num(0).abs().max() < 2e-5


def test_a_field_without_any_bound_is_not_believed_to_be_missed(device: torch.device) -> None:
    field = Asked(lambda x: torch.where((40 * x[:, 2]).sin() > 0, 1.0, 0.001), lipschitz=1.0).to(device)
    rays = beams(torch.rand(100, 3) * 0.1 + torch.tensor([0.0, 0.0, 1.0]), DOWN, device)
    with pytest.warns(UserWarning, match="values differ by more"):
        hit = SphereTrace()(field, rays)
    assert set(statuses(hit)) == {Status.GAVE_UP}


# ---- 24: ordinary inputs


@both
def test_no_ray_one_ray_and_no_hit(solve: Any, device: torch.device) -> None:
    field = Asked(lambda x: x.norm(dim=-1) - 0.5, lipschitz=1.0).to(device)
    none = solve(field, beams(torch.zeros(0, 3), torch.zeros(0, 3), device))
    assert (len(none.t), len(none.ray), len(none.status), len(none.nearest), none.evaluations) == (0, 0, 0, 0, 0)
    one = solve(field, beams((0, 0, 2), DOWN, device))
    assert one.t.tolist() == pytest.approx([1.5], abs=1e-6)
    away = solve(field, beams((0.9, 0.9, 2), DOWN, device))
    assert statuses(away) == [Status.MISS]
    assert tuple(away.t.shape) == (0,)


@both
def test_the_nearest_approach_of_a_miss_is_remembered(solve: Any, device: torch.device) -> None:
    hit = solve(Sphere(0.5).to(device), beams((0.7, 0, 2), DOWN, device))
    x = torch.tensor([0.7, 0, 2 - hit.nearest.item()])
    best = x.norm().item() - 0.7
    assert best < (2e-4 if isinstance(solve, DenseMarch) else 0.05)
    found = solve(Sphere(0.5).to(device), beams((0.0, 0, 2), DOWN, device))
    assert torch.equal(found.nearest, found.t)


@both
def test_a_value_that_is_not_a_number_gives_up_on_that_ray_only(solve: Any, device: torch.device) -> None:
    field = Asked(lambda x: torch.where(x[:, 0] > 0.5, torch.nan, x[:, 2]), lipschitz=1.0).to(device)
    hit = solve(field, beams(((0.9, 0, 1), (0, 0, 1)), DOWN, device))
    assert statuses(hit) == [Status.GAVE_UP, Status.HIT]
    assert hit.t.tolist() == pytest.approx([1.0], abs=1e-6)


@both
def test_a_value_that_is_not_a_number_within_the_bracket_is_no_hit(solve: Any, device: torch.device) -> None:
    field = Asked(lambda x: torch.where(x[:, 2].abs() < 5e-4, torch.nan, x[:, 2] ** 3), lipschitz=3.0).to(device)
    hit = solve(field, beams((0, 0, 0.9), DOWN, device))
    assert statuses(hit) == [Status.GAVE_UP]
    assert len(hit.t) == 0


def test_a_value_that_is_not_a_number_in_a_thin_part_gives_up(device: torch.device) -> None:
    def value(x: Tensor) -> Tensor:  # a slab between two samples, found by halving, with a hole in its middle
        return torch.where(x[:, 2].abs() < 0.01, torch.nan, x[:, 2].abs() - 0.05)

    hit = DenseMarch(n=10)(Asked(value).to(device), beams((0, 0, 2), DOWN, device))
    assert statuses(hit) == [Status.GAVE_UP]


@pytest.mark.parametrize("solve", [DenseMarch(), SphereTrace()])
@pytest.mark.parametrize(("sign", "status"), [(1.0, Status.MISS), (-1.0, Status.INSIDE)])
def test_constants(solve: Any, sign: float, status: Status, device: torch.device) -> None:
    for size in (1e-6, 1.0, 1e30):
        field = Asked(lambda x, s=sign * size: torch.full_like(x[:, 0], s), lipschitz=1.0).to(device)  # type: ignore[misc]
        if size == 1e-6 and isinstance(solve, SphereTrace):
            solve = SphereTrace(max_steps=1100)  # 2 / thinnest
        assert statuses(solve(field, beams((0, 0, 1), DOWN, device))) == [status]


@pytest.mark.parametrize("bound", [0.0, -1.0, float("inf"), float("nan")])
def test_a_bound_that_bounds_nothing_is_refused(bound: float, device: torch.device) -> None:
    with pytest.raises(ValueError, match="lipschitz must be positive and finite"):
        SphereTrace()(Asked(lambda x: x[:, 2], lipschitz=bound).to(device), beams((0, 0, 1), DOWN, device))


def test_too_many_steps_is_giving_up(device: torch.device) -> None:
    field = Asked(lambda x: torch.full_like(x[:, 0], 1e-6), lipschitz=1.0).to(device)
    hit = SphereTrace(max_steps=10)(field, beams((0, 0, 1), DOWN, device))
    assert statuses(hit) == [Status.GAVE_UP]
    assert hit.evaluations == 10


@pytest.mark.parametrize("solve", [DenseMarch(), SphereTrace()])
def test_a_wrong_shape_is_named(solve: Any, device: torch.device) -> None:
    field = Asked(lambda x: x[:, :1], lipschitz=1.0).to(device)
    with pytest.raises(
        ValueError, match=r"Asked\.value: expected shape \(\d+,\) for points \(\d+, 3\), got \(\d+, 1\)"
    ):
        solve(field, beams((0, 0, 1), DOWN, device))


def test_sphere_tracing_wants_a_bound_and_says_what_works_without(device: torch.device) -> None:
    with pytest.raises(ValueError, match=r"Asked\.lipschitz is None.*use DenseMarch"):
        SphereTrace()(Asked(lambda x: x[:, 2]).to(device), beams((0, 0, 1), DOWN, device))


@pytest.mark.parametrize(
    "make",
    [
        lambda: DenseMarch(n=1),
        lambda: DenseMarch(block=0),
        lambda: DenseMarch(splits=-1),
        lambda: SphereTrace(relaxation=2.1),
        lambda: SphereTrace(relaxation=0.9),
        lambda: SphereTrace(thinnest=0.0),
        lambda: SphereTrace(max_steps=0),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="needs"):
        make()


# ---- counts: a ray stops being paid for once it is decided


def test_dense_march_asks_exactly_the_blocks_up_to_the_crossing(device: torch.device) -> None:
    for level, sample in ((0.5, 32), (0.875, 8), (0.890625, 7), (-1.0, 128)):
        field = height(level).to(device)  # 129 samples, 1/64 apart: the crossing is exactly at a sample
        hit = DenseMarch(n=129)(field, beams((0, 0, 1), DOWN, device))
        assert hit.t.tolist() == [1 - level]
        assert hit.evaluations == field.asked == min(8 * (sample // 8 + 1), 129)


def test_dense_march_pays_one_more_for_a_straight_crossing_between_samples(device: torch.device) -> None:
    field = height(0.5 - 1 / 256).to(device)  # a quarter of the way from sample 32 to 33
    hit = DenseMarch(n=129, splits=0)(field, beams((0, 0, 1), DOWN, device))
    assert hit.evaluations == field.asked == 40 + 1
    assert hit.t.item() == 0.5 + 1 / 256


def test_dense_march_pays_every_sample_of_a_miss(device: torch.device) -> None:
    field = height(-5.0).to(device)
    hit = DenseMarch(n=100, block=16)(field, beams(((0, 0, 1), (0.5, 0, 1)), DOWN, device))
    assert hit.evaluations == field.asked == 200


def test_sphere_tracing_asks_exactly_what_it_must(device: torch.device) -> None:
    field = height(0.5).to(device)
    plain = SphereTrace(relaxation=1.0)(field, beams((0, 0, 1), DOWN, device))
    assert plain.evaluations == field.asked == 3  # 0.5 free, a little behind it, and the root between
    field.asked = 0
    relaxed = SphereTrace()(field, beams((0, 0, 1), DOWN, device))
    assert relaxed.evaluations == field.asked == 3  # 0.5 free, 0.25 behind it, and the root between
    assert plain.t.tolist() == relaxed.t.tolist() == [0.5]


@both
def test_the_count_is_what_the_field_saw_and_hits_are_not_asked_again(solve: Any, device: torch.device) -> None:
    field = Asked(lambda x: x.norm(dim=-1) - 0.5, lipschitz=1.0).to(device)
    rays = aimed(500, device=device)
    hit = solve(field, rays)
    assert hit.evaluations == field.asked
    parts = sum(solve(field, rays[i : i + 1]).evaluations for i in range(0, 500, 10))
    assert parts == solve(field, rays[::10]).evaluations


@both
def test_a_ray_is_decided_alone(solve: Any, device: torch.device) -> None:
    rays = aimed(300, device=device)
    field = Torus().to(device)
    whole, half = solve(field, rays), solve(field, rays[100:200])
    assert torch.equal(whole.status[100:200], half.status)
    some = (whole.ray >= 100) & (whole.ray < 200)
    assert torch.equal(whole.t[some], half.t)


@pytest.mark.parametrize("block", [1, 3, 8, 128])
def test_the_size_of_a_block_does_not_change_what_is_found(block: int, device: torch.device) -> None:
    rays = aimed(400, device=device)
    field = Box((0.8, 0.5, 0.3), (0.1, 0.0, -0.1)).to(device)
    a, b = DenseMarch()(field, rays), DenseMarch(block=block)(field, rays)
    assert torch.equal(a.status, b.status)
    assert torch.allclose(a.t, b.t, atol=2e-6)


@both
def test_a_field_in_float64_gives_the_same_hits(solve: Any, device: torch.device) -> None:
    rays = aimed(300, device=device)
    exact = double(Torus()).to(device)
    a, b = solve(Torus().to(device), rays), solve(exact, rays)
    assert torch.equal(a.status, b.status)
    assert (a.t - b.t).abs().max() < 2e-5  # the tolerance of the solver, which those in float64 do not have
    o, d = (x.to(device)[b.ray] for x in in_double(rays))
    assert exact.value(o + b.t[:, None] * d).abs().max() < 1e-14


def test_the_front_of_many_crossings_is_the_one_that_is_hit(device: torch.device) -> None:
    """A comb of thin plates; the reference takes 20 000 samples."""
    field = Asked(lambda x: 0.03 * torch.sin(31 * x[:, 2]) + 0.0285, lipschitz=0.93).to(device)
    rays = aimed(300, seed=2)
    ends = clip(*in_double(rays), field.bounds.cpu())
    expected = first_crossing(double(field).cpu(), *in_double(rays), ends, 20000, 0.93)
    moved = Rays(rays.origin.to(device), rays.direction.to(device))
    for solve in (DenseMarch(n=64), SphereTrace()):
        t = spread(solve(field, moved))
        outside = torch.isin(torch.tensor(statuses(solve(field, moved))), torch.tensor([Status.HIT, Status.MISS]))
        assert torch.equal(t.isnan()[outside], expected.isnan()[outside])
        assert (t - expected)[outside].nan_to_num(0).abs().max() < 2e-5

"""Quick hits: against closed forms, with every question counted, and on a surface that moves."""

import math

import numpy as np
import pytest
import torch
from reference import Asked, aimed, beams, box_t, in_double, sphere_t, torus_t
from torch import Tensor

from warpdvr import DenseMarch, Status
from warpdvr.fields.analytic import Box, Sphere, Torus, Translate
from warpdvr.fields.base import Field
from warpdvr.intersection.cached import SHARES, CachedMarch, CachedValues
from warpdvr.kernels.fused_cached import SIDES

SHAPES = {
    "sphere": (Sphere(0.5), lambda o, d: sphere_t(o, d, 0.5)),
    "torus": (Torus(0.6, 0.25), lambda o, d: torus_t(o, d, 0.6, 0.25)),
    "box": (Box((0.8, 0.8, 0.8)), lambda o, d: box_t(o, d, torch.full((3,), 0.8, dtype=torch.float64))),
}
FLAT = ((-1.0, -0.5, -0.25), (1.0, 0.5, 0.25))


def ball(radius: float = 0.5, factor: float = 1.0, bounds=1.0, lipschitz: float | None = None) -> Asked:
    """A ball as a field that counts; by default nobody knows its slope."""
    return Asked(lambda x: factor * (x.norm(dim=-1) - radius), bounds, lipschitz)


def found(hit, n: int) -> Tensor:
    """Return the ray lengths of n rays in float64, NaN for those that do not hit."""
    t = torch.full((n,), torch.nan, dtype=torch.float64)
    t[hit.ray.cpu()] = hit.t.double().cpu()
    return t


def values(cached: CachedValues) -> Tensor:
    return cached.state()["remembered"]


def least(field: Field, rays, n: int = 2000) -> Tensor:
    """Return the smallest of n values on the part of each ray that lies in the bounds."""
    near, far = rays.clip(field.bounds)
    s = torch.linspace(0, 1, n, device=near.device)
    t = near[:, None] + s * (far - near)[:, None]
    x = rays.origin[:, None] + t[..., None] * rays.direction[:, None]
    with torch.no_grad():
        return field.value(x.view(-1, 3)).view(t.shape).amin(1)


def corners_around(solid: np.ndarray) -> np.ndarray:
    """Return which corners belong to a cell whose corners differ."""
    around = np.zeros_like(solid)
    for i, j, k in np.ndindex(*(n - 1 for n in solid.shape)):
        cell = np.s_[i : i + 2, j : j + 2, k : k + 2]
        if solid[cell].any() and not solid[cell].all():
            around[cell] = True
    return around


@pytest.mark.parametrize("shape", SHAPES)
def test_hits_are_those_of_the_closed_form(shape, device):
    """Away from the outline; next to it a grid cannot tell, but claims nothing farther away than half a cell."""
    field, closed_form = SHAPES[shape]
    field, rays = field.to(device), aimed(2000, device=device)
    hit = CachedMarch()(field, rays)
    expected, t = closed_form(*in_double(rays)), found(hit, 2000)
    error = (t - expected).abs()[~t.isnan() & ~expected.isnan()]
    assert error.quantile(0.99) < 1e-5 and (error > 1e-3).double().mean() < 0.01
    gave_up = (hit.status == Status.GAVE_UP).cpu()
    wrong = (t.isnan() != expected.isnan()) & ~gave_up
    assert wrong.sum() < 0.05 * (~expected.isnan()).sum()
    if wrong.any():
        assert least(field, rays[wrong.to(device)]).abs().max() < 0.5 * 2 / 64
    assert set(hit.status.tolist()) <= {Status.HIT, Status.MISS, Status.GAVE_UP}
    assert gave_up.sum() <= 0.01 * len(hit.ray)
    assert torch.equal(hit.ray, torch.nonzero(hit.status == Status.HIT)[:, 0])
    assert torch.equal(hit.nearest[hit.ray], hit.t) and hit.t.dtype == torch.float32


@pytest.mark.parametrize("corrections", [1, 2, 4])
def test_only_rays_that_may_hit_are_paid_for(corrections, device):
    field, rays = ball().to(device), aimed(500, device=device)
    quick = CachedMarch(cells=32, corrections=corrections).prepare(field)
    assert quick.sample(field) == field.asked == 33**3
    field.asked = 0
    hit = quick(field, rays)
    o, d = rays.origin, rays.direction
    distance = torch.linalg.cross(o, d).norm(dim=1)
    sure, far = distance < 0.45, distance > 0.5 + 2 * 3**0.5 * 2 / 32  # more than two cells beside it
    assert hit.evaluations == field.asked and sure.sum() > 50 and far.sum() > 200
    assert (hit.status[sure] == Status.HIT).all() and (hit.status[far] == Status.MISS).all()
    field.asked = 0
    assert quick(field, rays[sure]).evaluations == field.asked == (corrections + 1) * int(sure.sum())
    assert quick(field, rays[far]).evaluations == 0
    beside = rays[~sure & ~far]
    field.asked = 0
    hit = quick(field, beside)
    tried = int(((hit.status == Status.HIT) | (hit.status == Status.GAVE_UP)).sum())
    assert hit.evaluations == field.asked
    again = field.asked - (corrections + 1) * tried  # those that pass close by are looked at again
    assert again % (4 * SIDES) == 0 and 0 < again <= 4 * SIDES * len(beside)


def test_edges_that_the_grid_rounds_off_are_seen(device):
    """Rays that touch a box by less than a cell."""
    n = 60
    half, deep = 0.4, torch.linspace(0.001, 0.02, n)
    eye = torch.stack([half - deep, half - deep, torch.linspace(-0.35, 0.35, n)], 1)
    rays = beams(eye + torch.tensor([2.0, -2, 0]), torch.tensor([[-1.0, 1, 0]]).repeat(n, 1), device)
    field = Box().to(device)
    hit = CachedMarch(cells=31)(field, rays)
    expected = box_t(*in_double(rays), torch.full((3,), 0.8, dtype=torch.float64))
    assert not expected.isnan().any() and len(hit.ray) >= 0.95 * n
    assert (found(hit, n) - expected).abs().nan_to_num(0).max() < 1e-3


def test_corrections_bring_the_crossing_closer():
    field, rays = Translate(Torus(0.6, 0.25), (0.01, 0.02, 0.0)), aimed(2000)
    exact = found(DenseMarch(n=512, tolerance=1e-7)(field, rays), 2000)
    errors = []
    for corrections in (1, 2, 3):
        t = found(CachedMarch(cells=24, corrections=corrections)(field, rays), 2000)
        errors.append(float((t - exact).abs().nan_to_num(0).quantile(0.98)))
    assert errors[0] < 1e-3 and errors[1] < 0.2 * errors[0] and errors[2] <= 0.5 * errors[1]


def test_a_grid_that_was_never_asked_is_asked_by_the_first_rays(device):
    field, rays = ball().to(device), aimed(50, device=device)
    quick = CachedMarch(cells=16).prepare(field)
    first, second = quick(field, rays), quick(field, rays)
    assert first.evaluations == second.evaluations + 17**3 and torch.equal(first.t, second.t)


@pytest.mark.parametrize("factor", [10.0, 1000.0])
def test_steep_logits_without_a_bound(factor, device):
    field, rays = ball(factor=factor).to(device), aimed(2000, device=device)
    hit = CachedMarch()(field, rays)
    expected, t = sphere_t(*in_double(rays), 0.5), found(hit, 2000)
    assert (t.isnan() != expected.isnan()).sum() <= 0.01 * (~expected.isnan()).sum()
    assert (t - expected).abs().nan_to_num(0).max() < 1e-3
    assert not (hit.status == Status.GAVE_UP).any()


def test_logits_that_saturate_are_found_to_a_quarter_of_a_cell(device):
    """The secant gains little there, but nothing far away is claimed."""
    field, rays = Asked(lambda x: 5 * (100 * (x.norm(dim=-1) - 0.5)).tanh()).to(device), aimed(2000, device=device)
    t, expected = found(CachedMarch()(field, rays), 2000), sphere_t(*in_double(rays), 0.5)
    assert (t.isnan() != expected.isnan()).sum() <= 0.01 * (~expected.isnan()).sum()
    assert (t - expected).abs().nan_to_num(0).max() < 0.25 * 2 / 64


def test_a_crossing_that_does_not_settle_is_given_up(device):
    """The remembered ball is not there any more, in a step of a fit that samples nothing."""
    field, rays = ball(lipschitz=1.0).to(device), beams([[-2, 0, 0], [-2, 0.9, 0]], [[1, 0, 0]], device)
    quick = CachedMarch(cells=16).prepare(field)
    quick.sample(field)
    field.function = lambda x: 3 + 0 * x[:, 0]
    assert quick.refresh(field, 1) == 0
    hit = quick(field, rays)
    assert hit.status.tolist() == [Status.GAVE_UP, Status.MISS] and len(hit.t) == len(hit.ray) == 0
    assert hit.nearest.isfinite().all()


def test_where_nothing_is_seen(device):
    """From inside, past the bounds, away from them, and past the ball inside of them."""
    field = ball(lipschitz=1.0).to(device)
    eyes = [[0.1, 0.0, 0.2], [3.0, 3.0, 0.0], [3.0, 0.0, 0.0], [3.0, 0.9, 0.0]]
    rays = beams(eyes, [[0.0, 0, 1], [0, 1, 0], [1, 0, 0], [-1, 0, 0]], device)
    hit = CachedMarch()(field, rays)
    assert hit.status.tolist() == [Status.INSIDE, Status.MISS, Status.MISS, Status.MISS]
    assert len(hit.t) == 0 and hit.nearest.isnan().tolist() == [False, True, True, False]


def test_no_rays(device):
    field = ball().to(device)
    quick = CachedMarch(cells=8).prepare(field)
    quick.sample(field)
    hit = quick(field, aimed(0, device=device))
    assert [len(a) for a in (hit.t, hit.ray, hit.status, hit.nearest)] == [0] * 4 and hit.evaluations == 0


def test_a_value_that_is_no_number_ends_its_ray_alone(device):
    def half(x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 0.3, torch.nan, x.norm(dim=-1) - 0.5)

    field = Asked(half).to(device)
    eyes, to = [[2.0, 0.8, 0], [2, 0, 0], [0, 2, 0], [-2, 0.8, 0]], [[-1.0, 0, 0], [-1, 0, 0], [0, -1, 0], [1, 0, 0]]
    hit = CachedMarch(cells=16)(field, beams(eyes, to, device))
    assert hit.status.tolist() == [Status.GAVE_UP, Status.GAVE_UP, Status.HIT, Status.GAVE_UP]
    assert hit.t.tolist() == pytest.approx([1.5], abs=1e-4)
    nowhere = Asked(lambda x: torch.nan * x[:, 0], lipschitz=1.0).to(device)
    assert (CachedMarch(cells=8)(nowhere, aimed(20, spread=0.1, device=device)).status == Status.GAVE_UP).all()


@pytest.mark.parametrize("lipschitz", [1.0, None])
def test_nearest_is_close_to_the_closest_approach(lipschitz, device):
    """Steps are as long as the value there, so its excess is at most an eighth of the least distance (Pythagoras)."""
    field, rays = ball(lipschitz=lipschitz).to(device), aimed(2000, device=device)
    hit = CachedMarch()(field, rays)
    o, d = rays.origin, rays.direction
    closest = -(o * d).sum(1)
    distance = (o + closest[:, None] * d).norm(dim=1) - 0.5
    passed = (hit.status == Status.MISS) & ((o + closest[:, None] * d).abs().amax(1) < 1)
    assert passed.sum() > 500
    excess = field.value(rays.at(hit.nearest.nan_to_num()))[passed] - distance[passed]
    side = 2 / 64
    allowed = side**2 + (0.13 * distance[passed] if lipschitz else side**2)
    assert (excess > -1e-5).all() and (excess <= allowed).all()


@pytest.mark.parametrize("bounds", [1.0, FLAT], ids=["cube", "flat"])
def test_what_is_asked_again_is_counted_exactly(bounds, device):
    field = ball(0.2, bounds=bounds).to(device)
    quick = CachedMarch(cells=20).prepare(field)
    shape = (21, 21, 21) if bounds == 1.0 else (21, 11, 6)
    everywhere = math.prod(shape)
    assert [quick.sample(field), quick.sample(field, full=True)] == [everywhere] * 2 == [field.asked // 2] * 2
    low, high = field.bounds.double().cpu().numpy()
    x = np.stack(np.meshgrid(*map(np.linspace, low, high, shape), indexing="ij"), -1)
    around = corners_around(np.linalg.norm(x, axis=-1) <= 0.2).ravel()
    seen = np.zeros(everywhere, dtype=bool)
    assert 0.01 < around.mean() < 0.5
    for turn in range(SHARES):
        field.asked = 0
        again = quick.sample(field)
        share = np.arange(everywhere) % SHARES == (turn + 1) % SHARES
        assert again == field.asked == (around | share).sum()
        seen |= share
    assert seen.all()


@pytest.mark.parametrize("bounds", [1.0, FLAT], ids=["cube", "flat"])
def test_a_surface_that_moves_a_little_is_followed(bounds, device):
    field, rays = ball(0.2, bounds=bounds).to(device), aimed(1000, spread=0.3, device=device)
    quick = CachedMarch(cells=40).prepare(field)
    quick.sample(field)
    for step in range(1, 9):
        shift = torch.tensor([0.02 * step, 0, 0], device=device)
        field.function = Translate(Sphere(0.2), shift).to(device).value
        assert quick.sample(field) < 0.3 * len(quick.x)
    hit, expected = quick(field, rays), sphere_t(*in_double(rays), 0.2, torch.tensor([0.16, 0, 0]).double())
    t = found(hit, 1000)
    assert (~expected.isnan()).sum() > 200
    assert (t.isnan() != expected.isnan()).sum() <= 0.03 * (~expected.isnan()).sum()
    assert (t - expected).abs().nan_to_num(0).quantile(0.99) < 1e-4


def test_a_part_that_appears_far_away_is_found_after_all_shares(device):
    field = ball(0.3).to(device)
    rays = beams([[0.7, 0.7, 2.5]], [[0, 0, -1]], device)
    quick = CachedMarch(cells=20).prepare(field)
    assert quick(field, rays).status.tolist() == [Status.MISS]
    place = torch.full((3,), 0.7, device=device)
    field.function = lambda x: torch.minimum(x.norm(dim=-1) - 0.3, (x - place).norm(dim=-1) - 0.2)
    for _ in range(SHARES):
        quick.sample(field)
    hit = quick(field, rays)
    assert hit.status.tolist() == [Status.HIT] and hit.t.item() == pytest.approx(1.6, abs=1e-4)


def test_what_is_remembered_can_be_kept(device):
    field, rays = ball().to(device), aimed(300, device=device)
    first, second = CachedMarch(cells=16).prepare(field), CachedMarch(cells=16).prepare(field)
    second.resume(first.state())  # nothing yet
    for _ in range(4):
        first.sample(field)
    kept = first.state()
    second.resume(kept)
    field.function = lambda x: x.norm(dim=-1) - 0.6  # what both remember is out of date, as in a fit
    assert first.refresh(field, 1) == second.refresh(field, 1) == 0
    a, b = first(field, rays), second(field, rays)
    assert torch.equal(a.status, b.status) and torch.equal(a.t, b.t) and a.evaluations == b.evaluations
    assert first.sample(field) == second.sample(field) and torch.equal(
        first.state()["remembered"], second.state()["remembered"]
    )
    assert not torch.equal(values(first), kept["remembered"])
    with pytest.raises(ValueError, match=r"^CachedMarch: expected a state of 729 corners, got one of 4913$"):
        CachedMarch(cells=8).prepare(field).resume(kept)


def test_a_field_in_double_precision():
    field, rays = ball().double(), aimed(300)
    hit, expected = CachedMarch()(field, rays), CachedMarch()(ball(), rays)
    assert torch.equal(hit.status, expected.status) and torch.allclose(hit.t, expected.t.double(), atol=1e-5)
    assert hit.t.dtype == torch.float64 and hit.nearest.dtype == torch.float32


def test_nothing_is_recorded():
    field = Sphere(0.5)
    assert field.radius.requires_grad
    hit = CachedMarch(cells=8)(field, aimed(20))
    assert not hit.t.requires_grad and not hit.nearest.requires_grad


@pytest.mark.parametrize("wrong", [{"cells": 1}, {"cells": 0}, {"corrections": 0}])
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=r"^CachedMarch: needs cells >= 2 and corrections >= 1, got \d+ and \d+$"):
        CachedMarch(**wrong)


def test_values_of_another_shape_are_refused():
    field = Asked(lambda x: x[:, :1])
    with pytest.raises(ValueError, match=r"Asked.value: expected shape \(729,\) for points \(729, 3\), got \(729, 1\)"):
        CachedMarch(cells=8).prepare(field).sample(field)


def test_a_fit_has_it_refreshed_in_its_own_rhythm_and_everybody_else_at_once():
    """By iterations: all at the start, every 16th step, and never in between; without one, all."""
    field, march = ball(), CachedMarch(cells=8)
    prepared = march.prepare(field)
    assert march == CachedMarch(cells=8) and field.asked == 0  # a configuration is a value, and remembers nothing
    counts = {i: prepared.refresh(field, i) for i in range(100)}
    whole = 9**3
    assert {i for i, n in counts.items() if n == whole} == {0, 5, 10, 16, 20, 32, 35, 48, 50, 64, 75}
    assert {i for i, n in counts.items() if 0 < n < whole} == {80, 96}
    assert prepared.refresh(field) == whole
    assert field.asked == sum(counts.values()) + whole

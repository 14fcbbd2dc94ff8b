"""The contract of solvers: configuration is a value, what is remembered lies apart, and any callable will do."""

from dataclasses import FrozenInstanceError, fields

import pytest
import torch
from reference import Asked, aimed

from warpdvr import BoundGrid, Camera, DenseMarch, RangeMarch, SphereTrace, render
from warpdvr.intersection.base import Solver, as_solver
from warpdvr.intersection.cached import CachedMarch

CONFIGURATIONS = [DenseMarch(), SphereTrace(), RangeMarch(), CachedMarch()]
CAMERA = Camera.look_at((1.5, 1.0, 1.5), (0, 0, 0), width=24, height=16)


def ball() -> Asked:
    return Asked(lambda x: x.norm(dim=-1) - 0.5, lipschitz=1.0)


@pytest.mark.parametrize("solver", CONFIGURATIONS, ids=lambda s: type(s).__name__)
def test_a_configuration_is_a_frozen_value(solver: Solver):
    assert isinstance(solver, Solver) and solver == type(solver)() and hash(solver) == hash(type(solver)())
    with pytest.raises(FrozenInstanceError):
        setattr(solver, fields(solver)[0].name, 3)  # type: ignore[arg-type]
    assert as_solver(solver) is solver and solver.state() == {}


def test_what_remembers_nothing_is_prepared_and_refreshed_for_nothing():
    field = ball()
    for solver in (DenseMarch(), SphereTrace(), CachedMarch()):
        assert solver.refresh(field, 0) == solver.refresh(field) == 0
        prepared = solver.prepare(field)
        assert (prepared is solver) == (not isinstance(solver, CachedMarch))
    assert field.asked == 0


@pytest.mark.parametrize("kind", [DenseMarch, SphereTrace])
def test_a_grid_is_refreshed_with_its_solver(kind: type[DenseMarch] | type[SphereTrace]):
    """In a fit as soon as enough is saved up for it, else at once and whole."""
    field = ball()
    grid = BoundGrid(field, cells=8, finest=16)
    whole, solver = grid.evaluations, kind(grid=grid)
    asked = [solver.refresh(field, i) for i in range(4)]
    saved = [grid_cost > 0 for grid_cost in asked]
    assert saved.index(True) == -(-whole // 1024) - 1  # 1024 points of each step pay for it
    assert [solver.refresh(field) for _ in range(2)] == [whole] * 2
    assert field.asked == grid.evaluations == sum(asked) + 3 * whole


def test_a_plain_function_draws_the_same_picture():
    field, calls = ball(), []

    def march(field, rays):
        calls.append(len(rays))
        return DenseMarch(32)(field, rays)

    march.points_per_ray = 1  # type: ignore[attr-defined]
    wrapped = as_solver(march)
    assert isinstance(wrapped, Solver) and wrapped.points_per_ray == 1 and wrapped.prepare(field) is wrapped
    image, expected = (render(field, CAMERA, intersect=s) for s in (march, DenseMarch(32)))
    assert torch.equal(image.rgb, expected.rgb) and calls == [24 * 16]


def test_what_is_no_solver_is_refused():
    for cls in (DenseMarch, SphereTrace):
        with pytest.raises(
            ValueError, match=rf"^intersect: {cls.__name__} is a class: call it, such as {cls.__name__}"
        ):
            render(ball(), CAMERA, intersect=cls)
    for wrong in ("march", 3):
        with pytest.raises(ValueError, match=rf"^intersect: expected a solver such as DenseMarch.*, got {wrong!r}$"):
            as_solver(wrong)


def test_a_function_that_finds_no_hit_is_named():
    def march(field, rays):
        return None

    with pytest.raises(ValueError, match=r"^intersect: march must return a .*Hit, got None$"):
        render(ball(), CAMERA, intersect=march)


def test_a_picture_by_remembered_values_asks_for_them_once():
    """However many tiles it is drawn in."""
    field = ball()
    whole, tiles = (render(field, CAMERA, intersect=CachedMarch(cells=16), memory=m) for m in (1 << 30, 20_000))
    assert torch.equal(whole.rgb, tiles.rgb) and whole.evaluations == tiles.evaluations


def test_without_preparation_nothing_is_remembered():
    field, rays, march = ball(), aimed(50), CachedMarch(cells=16)
    first, second = march(field, rays), march(field, rays)
    assert first.evaluations == second.evaluations > 17**3
    assert torch.equal(first.t, second.t)

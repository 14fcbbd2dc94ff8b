"""Whatever remembers values of a field notices that they are out of date: grids, cached values, slopes, codes."""

import copy
import functools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Asked, aimed, in_double, sphere_t
from torch import Tensor, nn

from warpdvr import BoundGrid, Camera, DenseMarch, Rays, SphereTrace, as_field, extract, make, render
from warpdvr.fields.analytic import Sphere, Translate
from warpdvr.fields.conditional import ConditionalOccupancy, Shapes
from warpdvr.fields.repaint import Repaint
from warpdvr.fields.slope import MeasuredSlope
from warpdvr.fields.version import Change, Version
from warpdvr.fields.voxel import VoxelOccupancy
from warpdvr.intersection.base import Solver
from warpdvr.intersection.cached import CachedMarch
from warpdvr.intersection.hit import Status
from warpdvr.viewer.progressive import Progressive

RAYS = aimed(400, seed=1, spread=0.8)


def grown(radius: float) -> Tensor:
    """Return which rays hit a ball, from the closed form."""
    return ~sphere_t(*in_double(RAYS), radius).isnan()


def gridded(field: Any) -> list[Solver]:
    return [SphereTrace(grid=small(field)), DenseMarch(grid=small(field))]


def small(field: Any, **options: Any) -> BoundGrid:
    return BoundGrid(field, cells=16, finest=32, **options)


def remembering(field: Any) -> list[Solver]:
    return [*gridded(field), CachedMarch(cells=40).prepare(field)]


def hits(solve: Solver, field: Any) -> Tensor:
    return solve(as_field(field), RAYS).status == Status.HIT


def by_step(optimizer: Callable[..., torch.optim.Optimizer]) -> Callable[[Sphere], None]:
    """Return a change of the radius by +0.3."""

    def change(field: Sphere) -> None:
        field.radius.grad = -torch.ones_like(field.radius)
        optimizer([field.radius], lr=0.3).step()

    return change


def in_place(field: Sphere) -> None:
    with torch.no_grad():
        field.radius.fill_(0.6)


def assigned(field: Sphere) -> None:
    field.load_state_dict(Sphere(0.6).state_dict(), assign=True)


def swapped(field: Sphere) -> None:
    field.radius = nn.Parameter(torch.tensor(0.6))


def unregistered(field: Sphere) -> None:
    del field.radius
    field.radius = torch.tensor(0.6)  # type: ignore[assignment]


CHANGES: dict[str, Callable[[Sphere], object]] = {
    "fill_": in_place,
    "data": lambda field: field.radius.data.fill_(0.6),
    "new data": lambda field: setattr(field.radius, "data", torch.tensor(0.6)),
    "load_state_dict": lambda field: field.load_state_dict(Sphere(0.6).state_dict()),
    "load_state_dict, assigned": assigned,
    "SGD": by_step(torch.optim.SGD),
    "Adam": by_step(torch.optim.Adam),
    "Adam, foreach": by_step(functools.partial(torch.optim.Adam, foreach=True)),
    "Adam, fused": by_step(functools.partial(torch.optim.Adam, fused=True)),
    "another parameter": swapped,
    "a tensor": unregistered,
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_the_weights_is_followed(name: str) -> None:
    """The ball grew: its closed form says which rays hit; the evaluations of the refresh belong to the hit."""
    for i in range(3):
        field = Sphere(0.3)
        solve = remembering(field)[i]
        assert (hits(solve, field) != grown(0.3)).sum() <= 1
        CHANGES[name](field)
        assert (hits(solve, field) != grown(0.6)).sum() <= 1  # the cached march may lose a ray that grazes


class Plain(nn.Module):
    """A module of somebody's own, with a number in place of a parameter."""

    bounds = 1.0

    def __init__(self, radius: float = 0.3):
        super().__init__()
        self.radius = radius
        self.options = {"radii": [radius]}

    def forward(self, x: Tensor) -> Tensor:
        return x.norm(dim=-1) - max(self.radius, self.options["radii"][0])

    def sdf(self, x: Tensor) -> Tensor:
        return self(x)


class Ball:
    """A callable object."""

    bounds = 1.0

    def __init__(self) -> None:
        self.radius = torch.tensor(0.3)

    def __call__(self, x: Tensor) -> Tensor:
        return x.norm(dim=-1) - self.radius


OUTSIDE = 0.3


def test_fields_of_others_are_followed() -> None:
    """Modules, callables, methods, lambdas that are made anew: fields are made of them again in each call."""
    module, ball, radius, size = Plain(), Ball(), torch.tensor(0.3), 0.3

    def outside(x: Tensor) -> Tensor:
        return x.norm(dim=-1) - OUTSIDE

    def grow(target: object, name: str, value: object) -> Callable[[], None]:
        return lambda: setattr(target, name, value)

    def grow_size() -> None:
        nonlocal size
        size = 0.6

    inner = Plain()
    cases: list[tuple[Callable[[], Any], Callable[[], object]]] = [
        (lambda: module, grow(module, "radius", 0.6)),
        (lambda: inner, lambda: inner.options["radii"].__setitem__(0, 0.6)),
        (lambda: as_field(Plain.sdf.__get__(method), bounds=1.0), grow(method := Plain(), "radius", 0.6)),
        (lambda: ball, grow(ball, "radius", torch.tensor(0.6))),
        (lambda: as_field(lambda x: x.norm(dim=-1) - radius, bounds=1.0), lambda: radius.fill_(0.6)),
        (lambda: as_field(lambda x: x.norm(dim=-1) - size, bounds=1.0), grow_size),
        (lambda: as_field(outside, bounds=1.0), lambda: globals().__setitem__("OUTSIDE", 0.6)),
    ]
    for field, change in cases:
        solvers = gridded(field())
        costs = [solve.grid.evaluations for solve in solvers]  # type: ignore[attr-defined]
        for solve in solvers:
            assert torch.equal(hits(solve, field()), grown(0.3))
        assert costs == [solve.grid.evaluations for solve in solvers]  # type: ignore[attr-defined]
        change()
        for solve in solvers:
            assert torch.equal(hits(solve, field()), grown(0.6))
    globals()["OUTSIDE"] = 0.3


def test_what_a_refresh_costs_is_counted() -> None:
    field = Asked(Sphere(0.3).value, lipschitz=1.0)
    sphere = field.function.__self__  # type: ignore[attr-defined]
    for solve in remembering(field):
        sphere.radius.data.fill_(0.3)
        solve(field, RAYS)
        for radius in (0.3, 0.6, 0.6):
            sphere.radius.data.fill_(radius)
            field.asked = 0
            hit = solve(field, RAYS)
            assert hit.evaluations == field.asked
    assert field.asked < 3 * len(RAYS)  # nothing was built again the last time


def test_one_element_of_a_large_table_is_noticed() -> None:
    """And a table that is written again as it was is the same."""
    field = VoxelOccupancy(resolution=40)
    table = field.logit.table
    version = Version(field)
    with torch.no_grad():
        table.copy_(table.clone())
    assert version.change(field) is Change.NONE
    for place in (0, 12345, len(table) - 1):
        before = version
        table.data[place] += 1e-3
        version = Version(field)
        assert before.change(field) is Change.WEIGHTS and version.change(field) is Change.NONE


# ---- fixed, or of another field


def test_a_fixed_grid_refuses_other_weights() -> None:
    field = Sphere(0.3)
    grid = small(field, fixed=True)
    in_place(field)
    for use in (
        lambda: SphereTrace(grid=grid)(field, RAYS),
        lambda: DenseMarch(grid=grid)(field, RAYS),
        lambda: grid.sharpen(field),
        lambda: extract(field, grid=grid),
    ):
        with pytest.raises(ValueError, match=r"is fixed, but the weights of Sphere have changed .* grid.refresh"):
            use()
    grid.refresh(field, full=True)
    assert torch.equal(hits(SphereTrace(grid=grid), field), grown(0.6))


@pytest.mark.parametrize(
    "other", [Sphere(0.6), make("torus"), Plain(0.3), as_field(lambda x: x.norm(dim=-1) - 0.3, bounds=1.0)]
)
def test_what_belongs_to_another_field_is_refused(other: Any) -> None:
    field, other = Sphere(0.3), as_field(other)
    grid, cached = small(field), CachedMarch(cells=8).prepare(field)
    cached.refresh(field)
    for use in (
        lambda: SphereTrace(grid=grid)(other, RAYS),
        lambda: DenseMarch(grid=grid)(other, RAYS),
        lambda: grid.check(other),
        lambda: grid.sharpen(other),
        lambda: grid.refresh(other),
        lambda: extract(other, grid=grid, resolution=20),
        lambda: cached(other, RAYS),
        lambda: cached.refresh(other, 3),
    ):
        with pytest.raises(ValueError, match=r"another field"):
            use()
    grid.refresh(other, full=True)
    assert torch.equal(hits(SphereTrace(grid=grid), other), hits(DenseMarch(), other))


# ---- what changes nothing


class Counted(Plain):
    """It remembers how often and where it was asked."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = x
        return super().forward(x)


@pytest.mark.parametrize("module", [Sphere(0.3), Counted(), make("sdf", width=16, depth=2)])
def test_a_field_that_does_not_change_is_not_asked_again(module: nn.Module) -> None:
    """Its mode, gradients, copies of it or of the grid, and counters are not its weights."""
    field = as_field(module)
    grid = small(field, fixed=True)
    solve = DenseMarch(grid=grid)
    solve(field, RAYS)
    grid.sharpen(field)
    cost, boxes = grid.evaluations, len(grid.tree.child)
    uses: list[Callable[[], object]] = [
        lambda: None,
        module.eval,
        module.train,
        lambda: module.requires_grad_(False),
        lambda: module.requires_grad_(True),
        lambda: module.to("cpu"),
        lambda: module.load_state_dict(module.state_dict()),
        module.zero_grad,
    ]
    for change in uses:
        change()
        solve(as_field(module), RAYS)
    for again in (copy.deepcopy(grid), grid.to("cpu"), pickle.loads(pickle.dumps(grid))):
        DenseMarch(grid=again)(field, RAYS)
        assert again.evaluations == cost
    copied: tuple[BoundGrid, Any] = copy.deepcopy((grid, field))
    DenseMarch(grid=copied[0])(copied[1], RAYS)
    assert grid.evaluations == copied[0].evaluations == cost
    assert len(grid.tree.child) == boxes


def test_a_copy_that_learns_takes_the_grid_with_it() -> None:
    field, solve = copy.deepcopy((Sphere(0.3), SphereTrace(grid=small(Sphere(0.3)))))
    assert torch.equal(hits(solve, field), grown(0.3))
    in_place(field)
    assert torch.equal(hits(solve, field), grown(0.6))


def test_new_colours_leave_a_grid_as_it_is() -> None:
    field = Sphere(0.3)
    grid = small(field, fixed=True)
    painted = Repaint(field, levels=2, finest=32, size=2**8, width=8, depth=1)
    for _ in range(2):
        assert torch.equal(hits(DenseMarch(grid=grid), painted), grown(0.3))
        painted.radiance.network.layers[0].weight.data.add_(1.0)
    field.radius.data.fill_(0.6)
    with pytest.raises(ValueError, match="is fixed"):
        DenseMarch(grid=grid)(painted, RAYS)


def test_a_field_may_keep_its_own_grid() -> None:
    field: Any = Sphere(0.3)
    field.grid = small(field)
    field.solve = SphereTrace(grid=field.grid)
    cost = field.grid.evaluations
    hits(field.solve, field)
    assert field.grid.evaluations == cost
    in_place(field)
    assert torch.equal(hits(field.solve, field), grown(0.6)) and field.grid.evaluations > cost


# ---- loops


def test_a_loop_of_ones_own_with_a_grid_is_the_loop_without() -> None:
    """An outline pulled by Adam: the losses are those of a solver that remembers nothing."""
    camera = Camera.look_at(eye=(0, -2.5, 0.3), width=24, height=24)
    with torch.no_grad():
        seen = render(Sphere(0.6), camera).rgb

    def losses(grid: bool) -> tuple[list[float], float]:
        ball = Sphere(0.3)
        field = Translate(ball, (0.1, 0.0, 0.05))
        solve = DenseMarch(grid=small(field)) if grid else DenseMarch()
        optimizer = torch.optim.Adam(field.parameters(), lr=0.02)
        found = []
        for _ in range(12):
            optimizer.zero_grad()
            loss = (render(field, camera, intersect=solve, outline=True).rgb - seen).square().mean()
            loss.backward()
            optimizer.step()
            found.append(float(loss.detach()))
        return found, float(ball.radius.detach())

    (with_grid, radius), (without, expected) = losses(True), losses(False)
    assert with_grid == pytest.approx(without, rel=0.1) and without[-1] < 0.7 * without[0]
    assert radius == pytest.approx(expected, abs=5e-3)


def test_in_the_steps_of_a_fit_it_is_refreshed_by_schedule_alone() -> None:
    """With the weights of the last refresh nothing is evaluated anew; with later ones, all of it, once."""
    for i in range(3):
        field = Sphere(0.3)
        solve = remembering(field)[i]
        solve.refresh(field)
        field.radius.data.fill_(0.31)
        assert solve.refresh(field, 1) == 0
        assert solve(field, RAYS).evaluations < 40 * len(RAYS) < 16**3 * 4
        in_place(field)
        assert (hits(solve, field) != grown(0.6)).sum() <= 1
        assert solve(field, RAYS).evaluations < 40 * len(RAYS)


CHANGE = st.sampled_from(["fill_", "data", "another parameter", "Adam, fused", "centre", "nothing", "refresh"])


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.lists(st.tuples(CHANGE, st.floats(0.1, 0.8)), min_size=1, max_size=5))
def test_after_any_changes_the_same_rays_hit(changes: list[tuple[str, float]]) -> None:
    field = Sphere(0.4)
    solvers = gridded(field)
    for name, size in changes:
        if name == "centre":
            field.center.data.copy_(torch.tensor([size - 0.5, 0.0, 0.2]))
        elif name == "refresh":
            for solve in solvers:
                solve.refresh(field)
        elif name == "Adam, fused":
            CHANGES[name](field)
            field.radius.data.clamp_(0.1, 0.8)
        elif name != "nothing":
            {"data": field.radius.data.fill_, "fill_": field.radius.detach().fill_}.get(
                name, lambda r: setattr(field, "radius", nn.Parameter(torch.tensor(r)))
            )(size)
        expected = hits(DenseMarch(tolerance=1e-6), field)
        for solve in solvers:
            assert (hits(solve, field) & ~expected).sum() == (expected & ~hits(solve, field)).sum() == 0


# ---- slopes and codes


class Steep(MeasuredSlope):
    """A ball whose value is a multiple of its distance."""

    slope_points = 100

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.asked = nn.Parameter(torch.tensor(1.0)), 0
        self.bound_slope()

    def value(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        return self.scale * (x.norm(dim=-1) - 0.4)


def test_a_slope_that_was_measured_with_other_weights_is_measured_again() -> None:
    """One ray, for which nothing else checks the bound: with the old one its first step leaps over the ball."""
    field = Steep()
    ray = Rays(torch.tensor([[0.1, 0.0, -2.5]]), torch.tensor([[0.0, 0.0, 1.0]]))
    solve, painted = SphereTrace(), Repaint(field, levels=2, finest=32, size=2**8, width=8, depth=1)
    first = solve(field, ray)
    assert first.evaluations < 50
    for shown, factor in ((field, 30.0), (painted, 90.0)):
        field.scale.data.fill_(factor)
        field.asked = 0
        hit = solve(shown, ray)
        assert hit.status.tolist() == [Status.HIT]
        assert float(hit.t) == pytest.approx(2.5 - (0.16 - 0.01) ** 0.5, abs=1e-4)
        assert hit.evaluations == field.asked > 100
        assert solve(shown, ray).evaluations == hit.evaluations - 100
        assert field.lipschitz == pytest.approx(1.25)  # a picture leaves the field as it is
    assert field.bound_slope() == 100 and field.lipschitz == pytest.approx(1.25 * 90)


def test_a_fit_trusts_the_slope_between_its_measurements() -> None:
    field = Steep()
    field.scale.data.fill_(1.1)
    assert SphereTrace().refresh(field, 3) == 0
    field.asked = 0
    hit = SphereTrace()(field, RAYS)
    assert field.asked == hit.evaluations and torch.equal(hit.status == Status.HIT, grown(0.4))
    assert hits(SphereTrace(), field).equal(grown(0.4)) and field.asked == 2 * hit.evaluations


def test_grids_and_meshes_measure_the_slope_again() -> None:
    field = Steep()
    field.scale.data.fill_(30.0)
    assert small(field).tree.lipschitz == pytest.approx(1.25 * 30)
    mesh, fresh = extract(field, resolution=32), extract(Asked(Steep().value), resolution=32)
    assert len(mesh.faces) == len(fresh.faces) > 1000


def test_shapes_follow_their_codes_and_decoder() -> None:
    torch.manual_seed(0)
    decoder, codes, x = ConditionalOccupancy(code=4, width=16, blocks=2), torch.randn(1, 4), torch.rand(50, 3)
    for block in decoder.outer:
        nn.init.normal_(block.weight)
    nn.init.normal_(decoder.last.weight)
    shapes = Shapes(decoder, codes)
    before = shapes.value(x).detach()
    for change in (lambda: codes.data.add_(1.0), lambda: decoder.shift.weight.data.mul_(2.0)):
        change()
        value = shapes.value(x).detach()
        assert torch.equal(value, Shapes(decoder, codes).value(x)) and not torch.allclose(value, before)
        before = value


def test_the_viewer_shows_the_present_weights() -> None:
    field = Sphere(0.3)
    window, camera = Progressive(field), Camera.look_at(eye=(0, -2.5, 0.3), width=24, height=24)
    for radius in (0.3, 0.6):
        field.radius.data.fill_(radius)
        with torch.no_grad():
            assert torch.equal(window._render(camera).mask, render(field, camera).mask)

"""Directions of any length, and rays that are none."""

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import aimed, in_double, sphere_t
from torch import Tensor

from warpdvr import Camera, DenseMarch, Hit, Rays, SphereTrace, Status
from warpdvr.fields.analytic import Sphere
from warpdvr.fields.base import Field
from warpdvr.fields.layers import Activation, Dense, Layer
from warpdvr.intersection.cached import CachedMarch
from warpdvr.intersection.grid import BoundGrid
from warpdvr.intersection.range_march import RangeMarch
from warpdvr.rendering.background import Background
from warpdvr.rendering.surface import surface, trace
from warpdvr.rendering.visibility import VisibleImage, boundary


class Octahedron(Field):
    """|x| + |y| + |z| - 0.6, as a network of rectified units: every solver takes it."""

    lipschitz = math.sqrt(3)

    def as_layers(self) -> list[Layer]:
        sides = torch.cat([torch.eye(3), -torch.eye(3)])
        return [Dense(sides, torch.zeros(6)), Activation("relu"), Dense(torch.ones(1, 6), torch.tensor([-0.6]))]

    def value(self, x: Tensor) -> Tensor:
        return x.abs().sum(-1) - 0.6


FIELD = Octahedron()
GRID = BoundGrid(FIELD, cells=16, finest=64)
SOLVERS: dict[str, Any] = {
    "trace": SphereTrace(),
    "trace alone": SphereTrace(cones=False),
    "dense": DenseMarch(64),
    "cached": CachedMarch(cells=32),
    "range": RangeMarch(),
    "trace grid": SphereTrace(grid=GRID),
    "dense grid": DenseMarch(grid=GRID),
}
every = pytest.mark.parametrize("solver", SOLVERS)


def lengths(hit: Hit) -> Tensor:
    t = torch.full((len(hit.status),), torch.nan)
    t[hit.ray] = hit.t
    return t


@every
@settings(max_examples=5, deadline=None)
@given(exponents=st.tuples(st.floats(-4, 4), st.floats(-4, 4)))
def test_a_direction_of_any_length_finds_the_same_point(solver: str, exponents: tuple[float, float]) -> None:
    """Lengths of all sizes in one batch; t counts in units of the direction, so that `Rays.at` is on the surface."""
    rays = aimed(80, spread=0.3)
    factor = 10.0 ** torch.linspace(*exponents, 80)
    longer = Rays(rays.origin, rays.direction * factor[:, None])
    first, second = SOLVERS[solver](FIELD, rays), SOLVERS[solver](FIELD, longer)
    assert (first.status == Status.HIT).sum() > 20
    assert (first.status != second.status).sum() <= 1
    assert (lengths(first) - lengths(second) * factor).nan_to_num().abs().max() < 2e-5
    assert FIELD.value(longer[second.ray].at(second.t)).abs().max() < 1e-4
    assert (first.nearest - second.nearest * factor).nan_to_num().abs().median() < 1e-6
    assert second.evaluations == pytest.approx(first.evaluations, rel=0.02, abs=20)


@every
def test_a_direction_of_length_2_sees_what_is_straight_ahead(solver: str) -> None:
    hit = SOLVERS[solver](FIELD, Rays(torch.tensor([[0.01, -2.0, 0.02]]), torch.tensor([[0.0, 2.0, 0.0]])))
    assert hit.t.tolist() == pytest.approx([(2 - 0.57) / 2], abs=2e-5)


def test_directions_that_are_1_up_to_rounding_are_left_alone() -> None:
    """Bit by bit, so that nothing changes for the rays of cameras."""
    rays = Camera.look_at((1, -2, 0.5), fov=70, width=64, height=64).rays()
    same, length = rays.normalised()
    assert torch.equal(same.direction, rays.direction)
    assert torch.equal(same.origin, rays.origin)
    assert (length == 1).all()


NO_RAYS = {
    "NaN in the origin": ((0.0, math.nan, 0.0), (0.0, 1.0, 0.0)),
    "infinite origin": ((0.0, -math.inf, 0.0), (0.0, 1.0, 0.0)),
    "NaN in the direction": ((0.0, -2.0, 0.0), (math.nan, 1.0, 0.0)),
    "infinite direction": ((0.0, -2.0, 0.0), (0.0, math.inf, 0.0)),
    "direction of length 0": ((0.0, -2.0, 0.0), (0.0, 0.0, 0.0)),
    "no direction inside of the bounds": ((0.9, 0.9, 0.9), (0.0, 0.0, 0.0)),
}


@every
@pytest.mark.parametrize("count", [1, 90])
def test_what_is_no_ray_gives_up_and_does_not_disturb_the_others(solver: str, count: int) -> None:
    good = Camera.look_at((0.1, -2, 0.3), fov=30, width=10, height=10).rays()[:count]
    o, d = torch.tensor(list(NO_RAYS.values())).unbind(1)
    both = Rays(torch.cat([o, good.origin]), torch.cat([d, good.direction]))
    alone, mixed = SOLVERS[solver](FIELD, good), SOLVERS[solver](FIELD, both)
    assert mixed.status[: len(o)].tolist() == [Status.GAVE_UP] * len(o)
    assert mixed.nearest[: len(o)].isnan().all()
    assert torch.equal(mixed.status[len(o) :], alone.status)
    assert (lengths(mixed)[len(o) :] - lengths(alone)).nan_to_num().abs().max() < 2e-5


@every
def test_rays_beside_the_bounds_and_away_from_them_miss(solver: str) -> None:
    o = torch.tensor([[0.0, -2, 1.5], [0.0, -2, 0], [0.0, 2, 0]])
    rays = Rays(o, torch.tensor([[0.0, 3, 0], [0, -3, 0], [0, 0.1, 0]]))
    near, far = rays.clip(FIELD.bounds)
    assert (near > far).all()
    assert SOLVERS[solver](FIELD, rays).status.tolist() == [Status.MISS] * 3


def test_gradients_by_directions_of_any_length_are_those_of_the_closed_form() -> None:
    rays, factor = aimed(60, spread=0.3), 10.0 ** torch.linspace(-2, 2, 60)
    o, d = rays.origin.clone().requires_grad_(), (rays.direction * factor[:, None]).requires_grad_()
    field = Sphere(radius=0.5)
    seen = trace(field, Rays(o, d), SphereTrace(tolerance=1e-7))
    ray = seen.hit.ray
    o64, d64 = (a.detach()[ray].double().requires_grad_() for a in (o, d))
    radius = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    length = d64.norm(dim=-1, keepdim=True)
    right = sphere_t(o64, d64 / length, radius) / length[:, 0]
    weight = torch.linspace(0.5, 2, len(ray)) * factor[ray]
    found = torch.autograd.grad((weight * seen.t).sum(), (o, d, field.radius))
    expected = torch.autograd.grad((weight.double() * right).sum(), (o64, d64, radius))
    assert len(ray) > 30
    for a, b in zip(found[:2], expected[:2], strict=True):
        assert ((a[ray] - b).norm(dim=-1) <= 1e-4 * b.norm(dim=-1)).all()
    assert float(found[2]) == pytest.approx(float(expected[2]), rel=1e-4)


def test_colours_do_not_depend_on_the_lengths_of_directions() -> None:
    rays, factor = aimed(60), 10.0 ** torch.linspace(-2, 2, 60)
    longer = Rays(rays.origin, rays.direction * factor[:, None])
    first, second = (surface(FIELD, r, SphereTrace()) for r in (rays, longer))
    assert torch.equal(first.hit.ray, second.hit.ray)
    assert (first.color - second.color).abs().max() < 1e-5
    assert (first.x - second.x).abs().max() < 1e-5
    learnt = Background.new(0, torch.device("cpu"))
    assert (learnt(rays) - learnt(longer)).abs().max() < 1e-5


def test_the_outlines_of_rays_of_any_length_move_alike() -> None:
    camera = Camera.look_at((0, -2, 0.4), fov=40, width=24, height=24)
    rays, found = camera.rays(), []
    for factor in (torch.ones(576), torch.linspace(0.3, 4, 576)):
        longer = Rays(rays.origin, rays.direction * factor[:, None])
        field = Sphere(radius=0.5)
        seen = surface(field, longer, SphereTrace())
        t, normal = torch.full((576,), torch.nan), torch.zeros(576, 3)
        t[seen.hit.ray], normal[seen.hit.ray] = seen.t.detach(), seen.normal.detach()
        image = VisibleImage(longer, (1, 24, 24), seen.hit.status, t, normal, torch.zeros(576, 3))
        edges, _ = boundary(field, image, SphereTrace())
        found.append(float(torch.autograd.grad(edges.sum(), field.radius)[0]))
    assert found[0] > 10
    assert found[1] == pytest.approx(found[0], rel=1e-3)


WRONG = {
    "[[0, -2, 0]], [[0, 2, 0]]": "Rays: origin must be a tensor of floats of shape (n, 3), got a list",
    "torch.zeros(1, 3).long(), torch.ones(1, 3)": "got shape (1, 3) of torch.int64",
    "torch.zeros(3), torch.ones(3)": "got shape (3,)",
    "torch.zeros(4, 3), torch.ones(4, 2)": "Rays: direction must be a tensor of floats of shape (n, 3), got",
    "torch.zeros(4, 3), torch.ones(3, 3)": "one row for each ray, on one device, got 4 on cpu and 3 on cpu",
    "torch.zeros(4, 3), torch.ones(4, 3), torch.zeros(2)": "shape_index must be a tensor of shape (4,), got shape (2,)",
}


def test_what_cannot_be_rays_is_one_sentence() -> None:
    """In an interpreter of its own, because the tests check types before any constructor runs."""
    lines = ["import torch", "from warpdvr import Rays"]
    for case in WRONG:
        lines += ["try:", f"    Rays({case})", "except ValueError as error:", "    print(error)"]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert len(said) == len(WRONG)
    for sentence, expected in zip(said, WRONG.values(), strict=True):
        assert expected in sentence


@every
def test_rays_in_float64_are_searched_too(solver: str) -> None:
    o, d = in_double(aimed(20))
    hit = SOLVERS[solver](FIELD, Rays(o, 2 * d))
    assert torch.equal(hit.status, SOLVERS[solver](FIELD, aimed(20)).status)
    assert hit.t.dtype == torch.float32

"""Cones: what they call free is free, they change no hit, and they are worth their cost."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from networks import bumpy, two, view
from reference import Asked, aimed, in_double, sphere_t
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.rays import Rays
from warpdvr.fields.analytic import Box, Sphere, Torus
from warpdvr.intersection.cones import MIN_RAYS, compact_order, free_lengths
from warpdvr.intersection.hit import Status
from warpdvr.intersection.sphere_trace import SphereTrace
from warpdvr.intersection.wavefront import RayBatch
from warpdvr.rendering.render import render


def ball(x: Tensor) -> Tensor:
    return x.norm(dim=-1) - 0.4


FIELDS: dict[str, tuple[Any, float]] = {"ball": (ball, 1.0), "two": (two, 1.0), "bumpy": (bumpy, 1.2)}


def rays_of(size: int, device: torch.device, **more: Any) -> Rays:
    rays = view(size, **more)
    return Rays(rays.origin.to(device), rays.direction.to(device))


@pytest.mark.parametrize("order", ["image", "random"])
def test_what_is_called_free_is_free(order: str, device: torch.device) -> None:
    """Against the closed form, in float64: no ray may be sure of more than lies in front of its surface."""
    rays = rays_of(96, device)
    if order == "random":
        rays = rays[torch.randperm(len(rays), generator=torch.Generator().manual_seed(0))[:2000].to(device)]
    expected = sphere_t(*in_double(rays), 0.4)
    batch = RayBatch(Sphere(0.4).to(device), rays)
    start = free_lengths(batch, 1.0, 0.005)
    assert start is not None
    seen = expected[start.ray.cpu()]
    assert (start.free_until.cpu() < seen + 0.005).logical_or(seen.isnan()).all()
    assert (seen - start.free_until.cpu()).nanmean() < 0.12  # not little: rays begin 1 away from the surface
    assert start.steepest <= 1 + 1e-3
    missed = batch.status.cpu() == int(Status.MISS)
    assert expected[missed].isnan().all() and missed.sum() > 0.6 * expected.isnan().sum()
    assert not missed[start.ray.cpu()].any()


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("size", [7, 64, 200])
def test_cones_change_no_hit(name: str, size: int, device: torch.device) -> None:
    function, bound = FIELDS[name]
    field, rays = Asked(function, lipschitz=bound).to(device), rays_of(size, device)
    shared, alone = SphereTrace()(field, rays), SphereTrace(cones=False)(field, rays)
    assert torch.equal(shared.status, alone.status)
    assert (shared.t - alone.t).abs().max() < 5e-5


def test_cones_see_what_stands_in_front_and_where_the_eye_is_inside(device: torch.device) -> None:
    for field in (Torus(0.5, 0.15), Box((0.3, 0.2, 0.6))):
        for eye in ((0.05, 0.9, 0.1), (0.0, 0.0, 0.5), (2.0, 1.0, 0.5)):
            camera = Camera.look_at(eye, (0.1, 0.2, 0.0), fov=90, width=80, height=60)
            shared, alone = (
                render(field.to(device), camera, intersect=SphereTrace(cones=c, thinnest=2e-4)) for c in (True, False)
            )
            assert torch.equal(shared.status, alone.status)
            assert (shared.depth - alone.depth).nan_to_num().abs().max() < 5e-5


def test_rays_that_share_no_eye_no_shape_or_are_few_are_left_alone(device: torch.device) -> None:
    field, rays = Sphere(0.4).to(device), rays_of(16, device)
    shape_index = torch.arange(len(rays), device=device) % 2
    assert free_lengths(RayBatch(field, aimed(500, device=device)), 1.0, 0.005) is None
    assert free_lengths(RayBatch(field, replace(rays, shape_index=shape_index)), 1.0, 0.005) is None
    assert free_lengths(RayBatch(field, rays[: MIN_RAYS - 1]), 1.0, 0.005) is None
    assert free_lengths(RayBatch(field, rays), 1.0, 0.005) is not None


@pytest.mark.parametrize(("name", "small", "large"), [("ball", 2.3, 1.17), ("two", 1.55, 0.7), ("bumpy", 3.32, 1.45)])
def test_queries_per_ray(name: str, small: float, large: float, device: torch.device) -> None:
    """At 64 x 64 and 512 x 512, all counted; DIST needs 8.6 to 9.0 at 128 x 128 and misses 6 to 16 rays."""
    function, bound = FIELDS[name]
    for size, most in ((64, small), (512, large)):
        field = Asked(function, lipschitz=bound).to(device)
        hit = SphereTrace()(field, rays_of(size, device))
        assert hit.evaluations == field.asked <= most * size * size


@pytest.mark.parametrize("fused", [False, True])
def test_the_nearest_approach_of_rays_that_cones_dropped_is_remembered(fused: bool, device: torch.device) -> None:
    rays = rays_of(64, device)
    hit = SphereTrace(fused=fused)(Sphere(0.4).to(device), rays)
    missed = hit.status == int(Status.MISS)
    near, far = rays.clip(torch.tensor([[-1.0] * 3, [1.0] * 3]))
    met = missed & (near <= far)
    assert not hit.nearest[met].isnan().any()
    closest = rays.at(hit.nearest)[met].norm(dim=-1)
    exact = torch.linalg.cross(rays.origin, rays.direction).norm(dim=-1)[met]
    assert (closest - exact).median() < 0.05


def test_a_pixel_may_be_as_close_as_it_needs_to_be(device: torch.device) -> None:
    """Fewer queries; what differs lies within a pixel of the outline, and depths within a tenth of one."""
    camera = Camera.look_at((0, -2, 0), fov=40, width=48, height=48)
    assert camera.pixel == pytest.approx(2 * math.tan(math.radians(20)) / 48)
    field = Asked(bumpy, lipschitz=1.2).to(device)
    fine = render(field, camera, intersect=SphereTrace(cones=False))
    coarse = render(field, camera, intersect=SphereTrace(cones=False, pixel=camera.pixel))
    assert coarse.evaluations < 0.9 * fine.evaluations
    solid = fine.mask[None, None].float()
    rim = torch.nn.functional.max_pool2d(solid, 3, 1, 1) + torch.nn.functional.max_pool2d(-solid, 3, 1, 1) > 0
    assert not ((fine.mask != coarse.mask) & ~rim[0, 0]).any()
    assert (fine.depth - coarse.depth).nan_to_num().abs().max() < 0.1 * 2 * camera.pixel


@pytest.mark.parametrize(("distance", "thinnest"), [(100, 1e-4), (1e4, 5e-3)])
@pytest.mark.parametrize("cones", [True, False])
def test_rounding_far_away_is_not_taken_for_a_wrong_bound(
    cones: bool, distance: float, thinnest: float, device: torch.device
) -> None:
    """A warning would fail this. At 1e4 neighbouring float32 numbers lie 1e-3 apart."""
    eye = (0.6 * distance, 0.8 * distance, 0.1 * distance)
    camera = Camera.look_at(eye, fov=math.degrees(1.6 / distance), width=40, height=40)
    rays = camera.to(device).rays()
    hit = SphereTrace(cones=cones, thinnest=thinnest)(Asked(ball, lipschitz=1.0).to(device), rays)
    o, d = in_double(rays[hit.ray])
    assert len(hit.ray) > 200
    assert ((o + hit.t.double().cpu()[:, None] * d).norm(dim=-1) - 0.4).abs().max() < 5e-5 + 5e-7 * distance


def test_a_surface_that_a_ball_touches_is_not_taken_for_a_wrong_bound(device: torch.device) -> None:
    """Where the bound is exact, free space ends on the wall, at a value of 0. A warning would fail this."""
    d = torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]]).repeat(40, 1).to(device)
    hit = SphereTrace()(Asked(lambda x: 0.3 - x[:, 0], lipschitz=1.0).to(device), Rays(torch.zeros_like(d), d))
    assert hit.ray.tolist() == list(range(0, 80, 2))
    assert (hit.t - 0.3).abs().max() < 5e-5


def test_rays_past_the_bounds_miss_even_if_no_bound_holds(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warpdvr.intersection.sphere_trace.TRIES", 1)
    rays = rays_of(32, device, fov=120)
    with pytest.warns(UserWarning, match="differ by more"):
        hit = SphereTrace()(Asked(lambda x: ball(x) * (2 + torch.sin(40 * x[:, 0])), lipschitz=1.0).to(device), rays)
    near, far = rays.clip(torch.tensor([[-1.0] * 3, [1.0] * 3]))
    assert (hit.status[near > far] == int(Status.MISS)).all()
    assert (hit.status[near <= far] == int(Status.GAVE_UP)).any()


def test_rays_in_rows_or_at_random_are_put_in_a_compact_order(device: torch.device) -> None:
    rays = rays_of(64, device)
    order = compact_order(rays)
    assert order is not None
    assert sorted(order.tolist()) == list(range(64 * 64))
    assert compact_order(rays[order]) is None
    shuffled = rays[torch.randperm(64 * 64, generator=torch.Generator().manual_seed(0)).to(device)]
    assert compact_order(shuffled) is not None
    assert compact_order(rays[:63]) is None
    several = replace(rays, origin=rays.origin + torch.arange(64 * 64, device=device)[:, None])
    assert compact_order(several) is None


def test_the_order_of_rays_makes_no_difference(device: torch.device) -> None:
    rays, field = rays_of(64, device), Sphere(0.4).to(device)
    order = torch.randperm(64 * 64, generator=torch.Generator().manual_seed(0)).to(device)
    straight, shuffled = SphereTrace()(field, rays), SphereTrace()(field, rays[order]).reordered(order)
    assert torch.equal(straight.status, shuffled.status)
    assert torch.equal(straight.ray, shuffled.ray)
    assert (straight.t - shuffled.t).abs().max() < 1e-4

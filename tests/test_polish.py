"""Hits of fields in float64: against closed forms, to the last digits."""

from typing import Any

import pytest
import torch
from reference import Asked, in_double, pixel_rays, sphere_t
from torch import Tensor

from warpdvr import BoundGrid, CachedMarch, Camera, DenseMarch, Rays, SphereTrace, render
from warpdvr.cameras.rays import pixel_centres
from warpdvr.fields.analytic import Sphere
from warpdvr.intersection.root import polish


class Wavy(Sphere):
    """A ball whose values are no distance, bent between the surface and its surroundings."""

    def value(self, x: Tensor) -> Tensor:
        return super().value(x) * (1 + x[:, 0] ** 2) + super().value(x) ** 3


@pytest.mark.parametrize(
    "solver",
    [SphereTrace(), SphereTrace(tolerance=1e-3), DenseMarch(), CachedMarch(cells=16), "grid"],
    ids=["trace", "loose", "dense", "cached", "grid"],
)
def test_hits_of_a_field_in_float64_are_right_to_the_last_digits(solver: Any, device: torch.device) -> None:
    """On rays in float64 and in float32."""
    center = torch.tensor([0.1, 0.0, -0.2])
    field = Wavy(0.5, center).to(device).double()
    field.lipschitz = 5.0
    solver = DenseMarch(grid=BoundGrid(field)) if solver == "grid" else solver
    view = Camera.look_at((0.3, -4.0, 1.0), width=40, height=40, fov=20).to(device)
    for dtype in (torch.float32, torch.float64):
        rays = view.rays(dtype=dtype)
        hit = solver(field, rays)
        o, d = in_double(rays)
        expected = sphere_t(o, d / d.norm(dim=-1, keepdim=True), 0.5, center.double()) / d.norm(dim=-1)
        error = (hit.t.cpu() - expected[hit.ray.cpu()]).abs()
        assert hit.t.dtype == torch.float64 and len(hit.t) > 300
        graze = error > 1e-12
        assert graze.sum() <= 2 and error[~graze].max() < 1e-12  # a ray that just touches has its crossings together


def test_every_evaluation_of_the_last_digits_is_counted_and_float32_takes_none(device: torch.device) -> None:
    asked = Asked(lambda x: (x.norm(dim=-1) - 0.5) * (1 + x[:, 0] ** 2), lipschitz=3.0).to(device)
    rays = Camera.look_at((0.3, -2.0, 1.0), width=32, height=32).to(device).rays()
    single = DenseMarch()(asked, rays)
    assert single.evaluations == asked.asked and single.t.dtype == torch.float32
    asked.double().asked = 0
    exact = DenseMarch()(asked, rays)
    assert exact.evaluations == asked.asked
    assert torch.equal(exact.ray, single.ray)
    assert 3 * len(exact.t) < exact.evaluations - single.evaluations < 9 * len(exact.t)
    assert polish(asked.float(), rays[single.ray], single.t, 1e-5) == (single.t, 0)


def test_a_kink_and_a_value_of_zero_are_polished_too(device: torch.device) -> None:
    kinked = Asked(lambda x: torch.where(x[:, 1] < 0.1, 0.1 - x[:, 1], 900 * (0.1 - x[:, 1]))).to(device).double()
    rays = Rays(*(torch.tensor([a], dtype=torch.float64, device=device) for a in ((0.0, -2, 0), (0.0, 1, 0))))
    t, _ = polish(kinked, rays, torch.tensor([2.10003], device=device), 1e-4)
    assert abs(t.item() - 2.1) < 1e-14
    assert polish(kinked, rays, torch.tensor([2.5], device=device), 1e-6)[0].item() == 2.5  # no crossing is near


def test_a_camera_gives_float64_rays_for_a_field_in_float64(device: torch.device) -> None:
    view = Camera.look_at((0.3, -2.0, 1.0), width=12, height=12).to(device)
    depth = render(Sphere().to(device).double(), view).depth.cpu()
    o, d = (
        torch.tensor(a.copy())
        for a in pixel_rays(view.K.cpu().numpy(), view.pose.cpu().numpy(), pixel_centres(12, 12).double().numpy())
    )
    expected = (sphere_t(o, d, 0.5) * (d @ view.pose[:3, 2].cpu())).view(12, 12)
    assert depth.dtype == torch.float64
    assert torch.equal(depth.isnan(), expected.isnan())
    assert (depth - expected).nan_to_num().abs().max() < 1e-12

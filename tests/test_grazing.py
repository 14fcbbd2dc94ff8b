"""Colours where rays graze the surface: their gradient against that of the integral over the image, in closed form."""

import math

import pytest
import torch
from reference import Asked
from torch import Tensor

from warpdvr import Camera, SphereTrace, render
from warpdvr.fields.analytic import Box, Sphere
from warpdvr.rendering.grazing import pixel_spacing
from warpdvr.rendering.surface import shaded


def view(n: int) -> Camera:
    return Camera.look_at((0.0, -3.0, 1.0), width=n, height=n)


def mean_brightness(radius: float, white: float = 1.0) -> float:
    """Return the mean over the image of grey clay (0.25 + 0.6 cosine) on white: an integral over the ball's disk."""
    distance, focal = math.sqrt(10.0), 0.5 / math.tan(math.radians(20.0))
    edge = focal * math.tan(math.asin(radius / distance))
    angle = (torch.arange(200_000).double() + 0.5) / 200_000 * math.pi / 2
    rho = edge * angle.sin()
    offset = distance * torch.sin(torch.atan(rho / focal)) / radius
    color = 0.25 + 0.6 * (1 - offset.square()).clamp_min(0).sqrt()
    return white + float((2 * math.pi * rho * (color - white) * edge * angle.cos()).sum()) * math.pi / 2 / 200_000


@pytest.mark.parametrize(("n", "tolerance"), [(48, 0.06), (64, 0.08), (96, 0.03), (200, 0.01), (300, 0.01)])
def test_the_mean_of_a_clay_ball_grows_as_its_integral(n: int, tolerance: float, device: torch.device) -> None:
    """At the pixels' centres alone it is off by 20, 13 and 4 percent at 64, 96 and 200."""
    exact = (mean_brightness(0.5 + 1e-4) - mean_brightness(0.5 - 1e-4)) / 2e-4
    field = Sphere(0.5).to(device)
    (found,) = torch.autograd.grad(render(field, view(n), outline=True).rgb.mean(), field.radius)
    assert found.item() == pytest.approx(exact, rel=tolerance)


def test_it_does_not_depend_on_where_the_pixels_lie(device: torch.device) -> None:
    """A picture shifted by parts of a pixel: the scatter is a third of that at the pixels' centres."""
    field, found = Sphere(0.5).to(device), []
    for spacing in (pixel_spacing, None):
        sums = []
        for shift in torch.linspace(0, 0.9, 10):
            camera = view(64)
            camera.K[:2, 2] += shift
            seen = shaded(
                field, camera.to(device).rays(), SphereTrace(), spacing=None if spacing is None else spacing(camera)
            )
            sums.append(torch.autograd.grad(seen.color.sum(), field.radius)[0])
        found.append(torch.stack(sums).std() / torch.stack(sums).mean())
    assert found[0] < found[1] / 3


def test_values_depth_and_all_that_does_not_graze_stay_what_they_are(device: torch.device) -> None:
    field, camera = Sphere(0.5).to(device), view(64)
    plain, outlined = (render(field, camera, outline=outline) for outline in (False, True))
    assert torch.equal(plain.rgb, outlined.rgb) and torch.equal(plain.normal, outlined.normal)

    def gradient(shown: Tensor, mask: Tensor) -> Tensor:
        return torch.autograd.grad(shown[mask].sum(), field.radius, retain_graph=True)[0]

    assert torch.equal(gradient(plain.depth, plain.mask), gradient(outlined.depth, plain.mask))
    cosine = -(plain.normal.view(-1, 3) * camera.to(device).rays().direction).sum(-1).view(plain.mask.shape)
    inner = plain.mask & (cosine > 0.5)
    assert torch.equal(gradient(plain.normal, inner), gradient(outlined.normal, inner))


def test_no_hit_moves_faster_than_its_pixel_allows(device: torch.device) -> None:
    """However closely a ray grazes: one over the cosine is unbounded, the mean at most 2.5 times that of a pixel."""
    field, n = Sphere(0.5).to(device).double(), 400
    camera = view(64).to(device)
    rays = camera.rays(torch.stack([torch.linspace(31.5, 48, n), torch.full((n,), 32.0)], 1), dtype=torch.float64)
    seen = shaded(field, rays, SphereTrace(), spacing=pixel_spacing(camera))
    by = torch.stack([torch.autograd.grad(a, field.radius, retain_graph=True)[0] for a in seen.color[:, 0]]).abs()
    plain = shaded(field, rays, SphereTrace()).color[:, 0]
    worst = torch.stack([torch.autograd.grad(a, field.radius, retain_graph=True)[0] for a in plain[-3:]]).abs().max()
    assert worst > 2 * by.max()


def test_what_it_evaluates_is_counted(device: torch.device) -> None:
    field = Asked(lambda x: x.norm(dim=-1) - 0.5, lipschitz=1.0).to(device)
    camera = view(48).to(device)
    seen = shaded(field, camera.rays(), SphereTrace(), spacing=pixel_spacing(camera))
    assert seen.evaluations == field.asked
    field.asked = 0
    with torch.no_grad():
        plain = shaded(field, camera.rays(), SphereTrace(), spacing=pixel_spacing(camera))
    assert plain.evaluations == field.asked < seen.evaluations


def test_edges_are_left_as_they_are(device: torch.device) -> None:
    """At the outline of a box the cosine does not vanish, so that its derivatives are bounded already."""
    field, camera = Box((0.8, 0.6, 0.5)).to(device), Camera.look_at((1.6, 1.2, 0.9), width=96, height=96).to(device)
    plain, mean = (shaded(field, camera.rays(), SphereTrace(), spacing=s) for s in (None, pixel_spacing(camera)))
    by_ray = torch.linspace(0.5, 1.5, len(plain.t), device=device)
    found, expected = (torch.autograd.grad((by_ray * s.x[:, 0]).sum(), field.size)[0] for s in (mean, plain))
    assert (found - expected).norm() < 0.01 * expected.norm()

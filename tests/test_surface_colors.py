"""Colours of a surface that stays: its points are found once and seen in many steps."""

import pytest
import torch

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.paths import fibonacci_sphere
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets.pixels import OBJECT, Pixels
from warpdvr.datasets.views import Views
from warpdvr.fields.analytic import Sphere
from warpdvr.fitting import surface_colors
from warpdvr.fitting.recipe_terms import Photometric
from warpdvr.fitting.surface_colors import SurfaceColors
from warpdvr.intersection.sphere_trace import SphereTrace
from warpdvr.rendering.render import render


class Painted(Sphere):
    """A ball of radius 0.5 whose colour is its place, plus an offset to learn."""

    def __init__(self):
        super().__init__(0.5)
        self.offset = torch.nn.Parameter(torch.zeros(3))

    def color(self, x, normal, direction, feature):
        return 0.5 + 0.5 * x + self.offset


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, value in {"RAYS": 1024, "CHUNK": 512, "BATCH": 256, "STEPS": 4}.items():
        monkeypatch.setattr(surface_colors, name, value)


@pytest.fixture
def pixels(device):
    """Photographs of the ball, brighter by 0.1."""
    cameras = [Camera.look_at(3 * e, up=(0.1, 0.9, 0.2), fov=40, width=48, height=48) for e in fibonacci_sphere(5)]
    with torch.no_grad():
        seen = [render(Painted(), camera) for camera in cameras]
    images = tuple((255 * (image.rgb + 0.1)).clamp(0, 255).byte() for image in seen)
    names, masks = tuple("abcde"), tuple(image.mask for image in seen)
    views = Views(images, masks, tuple(cameras), names, tuple(range(5)), (), SceneTransform.identity(), "a ball")
    return Pixels(views, device)


def colors(pixels, field=None) -> SurfaceColors:
    return SurfaceColors(field or Painted().to(pixels.pose.device), pixels, Photometric(0.0), seed=3)


def test_the_loss_is_the_mean_difference_to_photographs(pixels, device):
    field = Painted().to(device)
    loss, _ = colors(pixels, field)(0, SphereTrace(), pixels.draw, torch.Generator().manual_seed(0))
    assert float(loss.detach()) == pytest.approx(0.1, abs=0.004)  # of 8 bits
    loss.backward()
    expected = torch.full((3,), -1 / 3, device=device)
    torch.testing.assert_close(field.offset.grad, expected, rtol=0, atol=0.02)


def test_points_are_on_the_object_and_on_the_surface(pixels):
    own = colors(pixels)
    own(0, SphereTrace(), pixels.draw, torch.Generator())
    x, normal, direction, color, _ = own.points
    shown = pixels.draw(1024, torch.Generator().manual_seed(4)).label == OBJECT
    assert 0.5 * int(shown.sum()) < len(x) < 1024
    assert (x.norm(dim=1) - 0.5).abs().max() < 1e-4 and ((normal * direction).sum(1) < 0).all()
    assert (color - (0.6 + 0.5 * x)).abs().max() < 0.02  # the photograph of that place


def test_points_are_found_once_for_several_steps(pixels):
    own, asked = colors(pixels), []

    def draw(n, generator):
        asked.append(n)
        return pixels.draw(n, generator)

    evaluations = [own(step, SphereTrace(), draw, torch.Generator())[1] for step in range(2, 7)]
    assert asked == [512] * 4  # steps 2 and 3, then 4 to 6
    assert evaluations[1] == evaluations[3] == evaluations[4] == 256
    assert min(evaluations[0], evaluations[2]) > 256 + len(own.points[0])


def test_a_fit_that_is_resumed_keeps_its_points_and_does_not_count_them_again(pixels):
    own = colors(pixels)
    for step in range(4, 6):
        own(step, SphereTrace(), pixels.draw, torch.Generator())
    again = colors(pixels)
    again.resume(own.state())
    generators = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    losses = [c(6, SphereTrace(), pixels.draw, g) for c, g in zip((own, again), generators, strict=True)]
    assert torch.equal(losses[0][0], losses[1][0]) and losses[0][1] == losses[1][1] == 256
    assert all(torch.equal(a, b) for a, b in zip(own.points, again.points, strict=True))


def test_without_an_object_nothing_is_taught(pixels, device):
    pixels.label.fill_(0)
    field = Painted().to(device)
    loss, _ = colors(pixels, field)(0, SphereTrace(), pixels.draw, torch.Generator())
    assert float(loss.detach()) == 0

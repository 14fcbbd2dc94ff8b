"""A known surface in new colours: the surface stays, the colours come from other photographs."""

from typing import Any

import pytest
import torch
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets.views import Views
from warpdvr.fields.analytic import Sphere, Torus
from warpdvr.fields.hashgrid import HashGrid
from warpdvr.fields.registry import make
from warpdvr.fields.repaint import Repaint
from warpdvr.fitting.fit import Fit
from warpdvr.fitting.recipe import Recipe
from warpdvr.rendering.render import render
from warpdvr.testing.field import check_field

SMALL = {"levels": 6, "coarsest": 4, "finest": 64, "size": 2**12, "width": 32}


class Striped(Sphere):
    """A ball in closed-form colours."""

    def color(self, x: Tensor, normal: Tensor, direction: Tensor, feature: Tensor | None) -> Tensor:
        return 0.5 + 0.4 * torch.stack([torch.sin(9 * x[:, 2]), torch.cos(7 * x[:, 0]), torch.sin(5 * x[:, 1])], 1)


def striped(n: int = 6, size: int = 40) -> Views:
    cameras = [
        Camera.look_at((2 * torch.tensor([c, s, 0.4])).tolist(), width=size, height=size)
        for c, s in ((torch.tensor(2.0 * i).cos(), torch.tensor(2.0 * i).sin()) for i in range(n))
    ]
    with torch.no_grad():
        seen = [render(Striped(0.5), camera) for camera in cameras]
    images = tuple((255 * image.rgb).round().byte() for image in seen)
    masks, names = tuple(image.mask for image in seen), tuple(map(str, range(n)))
    train, test = tuple(range(n - 1)), (n - 1,)
    return Views(images, masks, tuple(cameras), names, train, test, SceneTransform.identity(), "a striped ball")


def test_it_keeps_the_contract(device: torch.device) -> None:
    check_field(Repaint(Torus(0.5, 0.2), **SMALL).to(device))
    check_field(Repaint(HashGrid(levels=3, finest=32, size=2**10, width=16), **SMALL).to(device))
    assert isinstance(make("repaint", shape={"kind": "sphere", "radius": 0.3}, **SMALL), Repaint)


def test_a_fit_changes_colours_and_nothing_else(device: torch.device) -> None:
    torch.manual_seed(0)
    shape = Striped(0.5)
    field = Repaint(shape, **SMALL).to(device)
    views = striped()
    before = {name: value.clone() for name, value in shape.state_dict().items()}
    steps = list(Fit(field, views, iterations=300, recipe=Recipe(rays=512)))
    assert steps[-1].losses["color"] < 0.3 * steps[0].losses["color"]
    assert all(torch.equal(value, before[name]) for name, value in shape.state_dict().items())
    with torch.no_grad():
        image = render(field, views.cameras[-1])
    mask = views.masks[-1]
    assert mask is not None
    error = (image.rgb.cpu() - views.images[-1] / 255)[mask].square().mean()
    assert -10 * torch.log10(error) > 20  # dB, on a view that was held out
    assert torch.equal(image.mask.cpu(), mask)


def test_the_surface_wants_no_gradient_whatever_it_is_told(device: torch.device) -> None:
    field = Repaint(Sphere(0.4), **SMALL).to(device)
    field.requires_grad_(True)
    assert not field.shape.radius.requires_grad
    assert all(p.requires_grad for p in field.radiance.parameters())
    with pytest.raises(ValueError, match="no option"):
        make("repaint", shape={"kind": "sphere"}, colour=3)


@pytest.mark.parametrize("shape", ["runs/other", 3, {"radius": 1.0}, torch.nn.Linear(3, 1)])
def test_what_is_no_field_is_said_in_one_sentence(shape: Any) -> None:
    with pytest.raises(ValueError, match="repaint: shape must be a field, or a table with the kind of one, got"):
        make("repaint", shape=shape)

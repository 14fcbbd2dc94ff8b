"""Fields without a slope: they have hits, but no gradient of depth and no normals, and that is said."""

import warnings

import pytest
import torch
from torch import Tensor, nn

from warpdvr import Camera, DenseMarch, Rays, render
from warpdvr.fields.analytic import Sphere
from warpdvr.fields.base import Field
from warpdvr.intersection.base import as_solver
from warpdvr.intersection.hit import Hit
from warpdvr.rendering.surface import surface


class Voxels(Field):
    """Values on a grid, read at the nearest corner where x < `smooth_from`, and between the corners elsewhere."""

    def __init__(self, smooth_from: float) -> None:
        super().__init__(1.0)
        line = torch.linspace(-1, 1, 17)
        x = torch.stack(torch.meshgrid(line, line, line, indexing="ij"), -1)
        self.grid, self.smooth_from = nn.Parameter(x.norm(dim=-1) - 0.6), smooth_from

    def value(self, x: Tensor) -> Tensor:
        nearest, between = (
            nn.functional.grid_sample(
                self.grid[None, None].transpose(2, 4), x.view(1, -1, 1, 1, 3), mode, align_corners=True
            ).view(-1)
            for mode in ("nearest", "bilinear")
        )
        return torch.where(x[:, 0] < self.smooth_from, nearest, between)


VIEW = Camera.look_at((0.3, -3.0, 0.5), width=24, height=24)


@pytest.mark.parametrize("smooth_from", [2.0, 0.0])
def test_hits_without_slope_have_no_gradient_and_no_normal_and_are_counted(
    smooth_from: float, device: torch.device
) -> None:
    field = Voxels(smooth_from).to(device)
    with pytest.warns(UserWarning, match=r"render: Voxels has no slope at \d+ of \d+ hits") as warned:
        image = render(field, VIEW, intersect=DenseMarch())
    rays = VIEW.to(device).rays()
    t = (image.depth / (rays.direction @ VIEW.pose[:3, 2].to(rays.direction)).view(24, 24)).detach()
    place = rays.origin[:, 0].view(24, 24) + t * rays.direction[:, 0].view(24, 24)
    flat = image.mask & (place < smooth_from)
    assert len(warned) == 1 and image.flat == flat.sum() > 50
    assert (image.normal[flat] == 0).all() and (image.normal[image.mask & ~flat].norm(dim=-1) > 0.99).all()
    loss = image.depth[image.mask].square().sum() + image.normal.square().sum() + image.rgb.square().sum()
    (g,) = torch.autograd.grad(loss, field.grid, retain_graph=True)
    assert g.isfinite().all()
    (of_depth,) = torch.autograd.grad(image.depth[flat].sum(), field.grid)
    assert (of_depth == 0).all()
    assert bool((g != 0).any()) == (smooth_from == 0.0)


def test_pictures_without_gradient_say_so_too(device: torch.device) -> None:
    with torch.no_grad(), pytest.warns(UserWarning, match="normals are 0"):
        image = render(Voxels(2.0).to(device), VIEW, intersect=DenseMarch())
    assert image.flat == image.mask.sum() and (image.normal == 0).all()


def test_ordinary_fields_have_no_such_hits_and_no_warning(device: torch.device) -> None:
    field = Sphere().to(device)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert render(field, VIEW).flat == 0
    assert not surface(field, VIEW.to(device).rays(), DenseMarch()).flat.any()


def test_a_gradient_that_is_not_finite_is_no_slope(device: torch.device) -> None:
    """A value like a square root is vertical at its zero: the hit stays where it is, and its normal is 0, not NaN."""

    class Steep(Field):
        def value(self, x: Tensor) -> Tensor:
            a = -0.5 - x[:, 1]
            return a.sign() * a.abs().sqrt()

    def hits(field: Field, rays: Rays) -> Hit:
        t = torch.tensor([1.5], device=device)
        zero = torch.zeros(1, device=device)
        return Hit(t, zero.long(), zero.int(), t, 1)

    o, d = (torch.tensor([a], device=device) for a in ((0.0, -2, 0), (0.0, 1, 0)))
    for recording in (True, False):
        with torch.set_grad_enabled(recording):
            seen = surface(Steep(1.0).to(device), Rays(o, d), as_solver(hits))
        assert seen.t.item() == 1.5 and (seen.normal == 0).all() and seen.flat.all()

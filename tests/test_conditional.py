"""Several shapes in one field: mixed batches against each shape alone, codes against closed forms and differences."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from reference import aimed, in_double, sphere_t
from torch import Tensor, nn

from warpdvr import BoundGrid, Camera, DenseMarch, Rays, Status, render
from warpdvr.fields.analytic import Sphere
from warpdvr.fields.base import Decoder
from warpdvr.fields.conditional import ConditionalOccupancy, Shapes
from warpdvr.fields.resnet import ImageEncoder
from warpdvr.intersection.cached import CachedMarch
from warpdvr.rendering.surface import surface


class Balls(Decoder):
    """A decoder with a closed form: a code is the centre and the radius of a ball; colours tell the code apart too."""

    code, bounds = 4, 1.0

    def prepared(self, codes: Tensor) -> Sequence[Tensor]:
        return [codes]

    def geometry(self, x: Tensor, shifts: Sequence[Tensor], shape_index: Tensor | None) -> tuple[Tensor, Tensor]:
        own = shifts[0].expand(len(x), -1) if shape_index is None else shifts[0][shape_index]
        return (x - own[:, :3]).norm(dim=-1) - own[:, 3], own[:, 1:]

    def color(self, feature: Tensor) -> Tensor:
        return torch.sigmoid(feature)


def balls() -> Tensor:
    return torch.tensor([[0.1, 0.2, -0.1, 0.5], [-0.3, 0.0, 0.2, 0.3], [0.0, -0.2, 0.1, 0.45]])


def mixed(n: int, shapes: int, device: Any) -> Any:
    """Rays of several shapes in no order."""
    rays = aimed(n, spread=0.5, device=device)
    shape_index = torch.randint(shapes, (n,), generator=torch.Generator().manual_seed(1)).to(device)
    return Rays(rays.origin, rays.direction, shape_index)


def decoder(device: Any) -> Any:
    """A decoder whose codes matter."""
    torch.manual_seed(0)
    made = ConditionalOccupancy(code=8, width=32, blocks=3).to(device)
    for layer in made.outer:
        nn.init.normal_(layer.weight, 0.0, 0.3)
    nn.init.normal_(made.last.weight, 0.0, 0.05)
    return made


@pytest.mark.parametrize("solve", [DenseMarch(32), DenseMarch(48, splits=0, block=5)])
def test_a_mixed_batch_sees_what_each_shape_alone_shows(solve: DenseMarch, device: torch.device) -> None:
    made = decoder(device)
    codes = torch.randn(4, 8, generator=torch.Generator().manual_seed(2)).to(device)
    rays = mixed(400, 4, device)
    seen = surface(Shapes(made, codes), rays, solve)
    for shape in range(4):
        own = torch.nonzero(rays.shape_index == shape)[:, 0]
        alone = surface(Shapes(made, codes[shape : shape + 1]), Rays(rays.origin[own], rays.direction[own]), solve)
        assert torch.equal(seen.hit.status[own], alone.hit.status) and (alone.hit.status == int(Status.HIT)).sum() > 10
        of_shape = rays.shape_index[seen.hit.ray] == shape
        assert torch.allclose(seen.x[of_shape], alone.x, atol=2e-5)
        assert torch.allclose(seen.color[of_shape], alone.color, atol=1e-4)
        assert torch.allclose(seen.normal[of_shape], alone.normal, atol=1e-3)


def test_codes_have_the_gradient_of_the_closed_form(device: torch.device) -> None:
    codes = balls().double().to(device).requires_grad_()
    rays = mixed(300, 3, device)
    seen = surface(Shapes(Balls(), codes), rays, DenseMarch(64))
    weight = torch.linspace(-1, 2, len(seen.t), dtype=torch.float64, device=device)
    (found,) = torch.autograd.grad((weight * seen.t).sum(), codes)
    o, d = (a.to(device)[seen.hit.ray] for a in in_double(rays))
    own = codes.detach()[rays.shape_index[seen.hit.ray]].requires_grad_()
    d = d / d.norm(dim=-1, keepdim=True)
    t = sphere_t(o, d, own[:, 3], own[:, :3])
    assert len(t) > 50 and torch.allclose(seen.t, t, atol=1e-5)
    (per_ray,) = torch.autograd.grad((weight * t).sum(), own)
    expected = torch.zeros_like(codes).index_add(0, rays.shape_index[seen.hit.ray], per_ray)
    assert (found - expected).norm() < 1e-4 * expected.norm()


def test_a_stretched_shape_is_the_decoders_at_shortened_points(device: torch.device) -> None:
    """Balls become ellipsoids: values in closed form, hits of a mixed batch, and the gradient to the stretch."""
    codes = balls().to(device)
    stretch = torch.tensor([[1.5, 1, 0.5], [1, 2, 1], [1.2, 0.8, 1]], device=device).requires_grad_()
    shapes = Shapes(Balls(), codes, stretch)
    assert shapes.bounds.tolist() == [[-1.5, -2, -1], [1.5, 2, 1]]
    rays = mixed(600, 3, device)
    seen = surface(shapes, rays, DenseMarch(64))
    shape_index, longer = rays.shape_index, stretch.detach()
    at, code, s = seen.x.detach(), codes[shape_index[seen.hit.ray]], longer[shape_index[seen.hit.ray]]
    assert len(at) > 50
    assert ((at / s - code[:, :3]).norm(dim=1) - code[:, 3]).abs().max() < 1e-4
    x = torch.rand(600, 3, generator=torch.Generator().manual_seed(3)).to(device) - 0.5
    (gradient,) = torch.autograd.grad(shapes.select(shape_index).value(x).sum(), stretch)
    for k, axis in ((0, 0), (1, 1), (2, 2)):
        step = torch.zeros_like(longer)
        step[k, axis] = 1e-2
        up, down = (
            Shapes(Balls(), codes, longer + sign * step).select(shape_index).value(x).double().sum() for sign in (1, -1)
        )
        assert float(gradient[k, axis]) == pytest.approx(float(up - down) / 2e-2, rel=1e-3)


def test_an_encoder_learns_through_depth_and_colour(device: torch.device) -> None:
    """The gradient of a whole pipeline, from depth and colour to a pixel of a picture, against central differences."""
    made = decoder(device).double()
    torch.manual_seed(1)
    encoder = ImageEncoder(code=8, width=4).double().to(device).eval()
    picture = torch.rand(3, 3, 32, 32, dtype=torch.float64, device=device, requires_grad=True)
    rays = mixed(200, 3, device)
    still = surface(Shapes(made, encoder(picture).detach()), rays, DenseMarch(64))
    o, d = (a.to(device)[still.hit.ray] for a in in_double(rays))
    shape_index, before = rays.shape_index[still.hit.ray], still.hit.t.double()

    def loss(field: Shapes, t: Tensor) -> Tensor:
        told = field.select(shape_index)
        _, feature = told.geometry(o + t[:, None] * d)
        return (t * t.sin()).sum() + told.color(o, o, d, feature).square().sum()

    seen = surface(Shapes(made, encoder(picture)), rays, DenseMarch(64))
    total = (seen.t * seen.t.sin()).sum() + seen.color.square().sum()
    (found,) = torch.autograd.grad(total, picture)
    step = torch.zeros_like(picture)
    step[1, 2, 10:20, 10:20] = 1e-4
    values = []
    for side in (-1, 1):
        field = Shapes(made, encoder(picture.detach() + side * step).detach())
        values.append(float(loss(field, root(field.select(shape_index), o, d, before)).detach()))
    assert float((found * step).sum()) == pytest.approx((values[1] - values[0]) / 2, rel=2e-3)


def root(field: Shapes, o: Tensor, d: Tensor, t: Tensor) -> Tensor:
    """The crossing near t, by Newton's method with differences, in float64."""
    for _ in range(8):
        f, ahead = (field.value(o + s[:, None] * d).detach() for s in (t, t + 1e-6))
        t = t - (f / ((ahead - f) / 1e-6)).clamp(-0.01, 0.01)
    return t


def test_one_code_is_a_field_as_any_other(device: torch.device) -> None:
    field = Shapes(Balls(), balls()[:1].to(device))
    camera = Camera.look_at((0, -2.5, 0.3), width=40, height=40)
    with torch.no_grad():
        whole, parts = render(field, camera), render(field, camera, memory=1 << 16)
    assert whole.mask.sum() > 100 and torch.equal(whole.mask, parts.mask)
    assert torch.allclose(whole.rgb, parts.rgb)
    assert BoundGrid(field, cells=16).evaluations > 0


def test_the_decoder_starts_as_a_ball(device: torch.device) -> None:
    made = ConditionalOccupancy(code=8, width=16, radius=0.4).to(device)
    field = Shapes(made, torch.randn(2, 8, device=device))
    x = torch.randn(50, 3, device=device)
    value = field.select(torch.arange(50, device=device) % 2).value(x)
    assert torch.allclose(value, 10 * (x.norm(dim=-1) - 0.4), atol=1e-4)


def test_what_cannot_be_asked_says_so(device: torch.device) -> None:
    rays = mixed(10, 3, device)
    several = Shapes(Balls(), balls().to(device))
    with pytest.raises(ValueError, match="3 shapes, but no ray says which"):
        surface(several, Rays(rays.origin, rays.direction), DenseMarch())
    with pytest.raises(ValueError, match="ask for shape 2, but there are 2 codes"):
        several.__class__(Balls(), balls()[:2].to(device)).select(torch.tensor([0, 2]))
    with pytest.raises(ValueError, match=r"codes of shape \(number of shapes, 4\), got \(2, 3\)"):
        Shapes(Balls(), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"stretch of shape \(3, 3\), got \(1, 3\)"):
        Shapes(Balls(), balls(), torch.ones(1, 3))
    with pytest.raises(ValueError, match="Sphere: is one shape"):
        surface(Sphere(0.5).to(device), rays, DenseMarch())
    one = Shapes(Balls(), balls()[:1].to(device))
    with pytest.raises(ValueError, match="CachedMarch: remembers a field of one shape"):
        CachedMarch()(one, rays)
    with pytest.raises(ValueError, match="BoundGrid: holds for a field of one shape"):
        DenseMarch(grid=BoundGrid(one, cells=8))(one, rays)

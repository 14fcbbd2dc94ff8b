"""The gradient of a hit: against closed forms, finite differences and a twin in float64."""

from typing import Any

import pytest
import reference
import torch
from networks import Perceptron, view
from reference import Asked, aimed, difference, double, in_double, plane_t, sphere_t, weight_gradient
from torch import Tensor, nn

from warpdvr import Camera, DenseMarch, Rays, SphereTrace, reattach
from warpdvr.fields.analytic import Plane, Sphere
from warpdvr.rendering.surface import surface

CENTER = torch.tensor([0.1, 0.2, -0.1], dtype=torch.float64)


def hitting(n: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return origins and directions in float64 of rays that meet the ball of radius .5, and where."""
    o, d = in_double(aimed(n, seed, spread=0.4))
    d = d / d.norm(dim=-1, keepdim=True)
    t = sphere_t(o, d, 0.5, CENTER)
    keep = ~t.isnan()
    return o[keep], d[keep], t[keep]


def leaves(*tensors: Tensor) -> list[Tensor]:
    return [t.clone().requires_grad_() for t in tensors]


def close(found: Any, expected: Any, tolerance: float) -> bool:
    return all((f - e).norm() <= tolerance * e.norm() for f, e in zip(found, expected, strict=True))


def test_a_sphere_has_the_gradient_of_its_closed_form(device: torch.device) -> None:
    o, d, t = (a.to(device) for a in hitting(200))
    weight = torch.linspace(-1, 2, len(t), dtype=torch.float64, device=device)
    given = leaves(torch.tensor(0.5, dtype=torch.float64, device=device), CENTER.to(device), o, d)
    radius, center, o1, d1 = given
    found = torch.autograd.grad(
        (weight * reattach(lambda x: (x - center).norm(dim=-1) - radius, o1, d1, t)).sum(), given
    )
    closed = leaves(*given)
    radius, center, o2, d2 = closed
    # the closed form is one of unit directions; a direction that is not keeps the same hit at another length
    length = d2.norm(dim=-1, keepdim=True)
    t2 = sphere_t(o2, d2 / length, radius, center) / length[:, 0]
    assert close(found, torch.autograd.grad((weight * t2).sum(), closed), 1e-8)


def test_a_plane_has_the_gradient_of_its_closed_form(device: torch.device) -> None:
    field = double(Plane((0.3, -0.4, 2.0), 0.2)).to(device)
    o, d = (a.to(device) for a in in_double(aimed(200)))
    t = plane_t(o, d, field.normal.detach(), field.offset.detach())
    o, d, t = (a[~t.isnan()] for a in (o, d, t))
    assert len(t) > 50
    o1, d1, o2, d2 = leaves(o, d, o, d)
    weight = torch.linspace(-1, 2, len(t), dtype=torch.float64, device=device)
    mine = [field.normal, field.offset, o1, d1]
    found = torch.autograd.grad((weight * reattach(field.value, o1, d1, t)).sum(), mine)
    theirs = [field.normal, field.offset, o2, d2]
    assert close(found, torch.autograd.grad((weight * plane_t(o2, d2, *theirs[:2])).sum(), theirs), 1e-8)


def test_finite_differences_agree_on_a_bumpy_field(device: torch.device) -> None:
    """f moves with a and b; t is found anew for each nudge, by 1024 samples and bisection in float64."""
    o, d = in_double(aimed(60, spread=0.2))
    ends = torch.full((60,), 1.5, dtype=torch.float64), torch.full((60,), 3.0, dtype=torch.float64)

    def bumpy(x: Tensor, a: Tensor) -> Tensor:
        return 0.7 * (x.norm(dim=-1) - a[0] + a[1] * torch.sin(x * torch.tensor([20.0, 17, 23]).to(x)).prod(-1))

    def roots(a: Tensor) -> Tensor:
        return reference.first_crossing(Asked(lambda x: bumpy(x, a)), o, d, ends)

    at = torch.tensor([0.35, 0.03], dtype=torch.float64)
    t = roots(at)
    keep = ~t.isnan()
    assert keep.sum() > 40
    expected = difference(lambda a: roots(a)[keep].sum(), at, 1e-6)
    (a,) = leaves(at.to(device))
    moved = [x[keep].to(device) for x in (o, d, t)]
    (found,) = torch.autograd.grad(reattach(lambda x: bumpy(x, a), *moved).sum(), a)
    assert close([found.cpu()], [expected], 1e-6)


@pytest.mark.parametrize("solve", [DenseMarch(), SphereTrace()])
def test_float32_depth_gradients_are_right_to_a_ten_thousandth(solve: Any, device: torch.device) -> None:
    field, rays = Sphere(0.5, CENTER).to(device), aimed(2000, spread=0.4, device=device)
    seen = surface(field, rays, solve)
    found = torch.autograd.grad(seen.t.sum(), [field.radius, field.center])
    o, d = (a[seen.hit.ray.cpu()] for a in in_double(rays))
    exact = leaves(field.radius.detach().double().cpu(), field.center.detach().double().cpu())
    expected = torch.autograd.grad(sphere_t(o, d, *exact).sum(), exact)
    assert close([f.cpu() for f in found], expected, 1e-4)


@pytest.mark.parametrize("activation", [nn.Softplus(beta=100), nn.ReLU()], ids=["softplus", "relu"])
@pytest.mark.parametrize("solve", [DenseMarch(n=64), SphereTrace()], ids=["dense", "trace"])
def test_weights_of_a_perceptron_get_the_gradient_of_the_twin(
    activation: Any, solve: Any, device: torch.device
) -> None:
    field = Perceptron(activation, width=64, depth=3, lipschitz=2.0)
    twin, rays = double(field), view(32)
    o, d = in_double(rays)
    t = reference.first_crossing(twin, o, d, reference.clip(o, d, twin.bounds), slope=2.5)
    w = torch.randn(len(rays), generator=torch.Generator().manual_seed(1))
    seen = surface(field.to(device), Rays(rays.origin.to(device), rays.direction.to(device)), solve)
    ray = seen.hit.ray.cpu()
    assert torch.equal(torch.nonzero(~t.isnan())[:, 0], ray)
    grads = torch.autograd.grad((w.to(device)[seen.hit.ray] * seen.t).sum(), list(field.parameters()))
    found = torch.cat([g.flatten() for g in grads]).double().cpu()
    expected = weight_gradient(twin, o[ray], d[ray], t[ray], w[ray].double())
    assert nn.functional.cosine_similarity(found, expected, dim=0) > 0.9999
    assert (found - expected).norm() / expected.norm() < (1e-3 if isinstance(activation, nn.Softplus) else 1e-2)
    assert abs((found @ expected) / (expected @ expected) - 1) < 1e-3


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("steepness", [1e-3, 1.0, 1e3])
def test_a_grazing_slope_is_kept_away_from_zero_with_its_sign(
    sign: float, steepness: float, device: torch.device
) -> None:
    """The least slope is a thousandth of |grad f|, whatever the size of the values is."""
    for slope, used in ((0.5, 0.5), (1e-2, 1e-2), (1e-4, 1e-3), (1e-9, 1e-3)):
        d = torch.tensor([[(1 - slope**2) ** 0.5, 0.0, sign * slope]], dtype=torch.float64, device=device)
        (shift,) = leaves(torch.tensor(0.0, dtype=torch.float64, device=device))
        t = reattach(lambda x, s=shift: steepness * (x[:, 2] - s), 0 * d, d, torch.zeros(1, device=device))  # type: ignore[misc]
        (found,) = torch.autograd.grad(t.sum(), shift)
        assert found.item() == pytest.approx(sign / used, rel=1e-9)


def test_a_slope_of_exactly_zero_stays_finite(device: torch.device) -> None:
    (shift,) = leaves(torch.tensor(0.0, device=device))
    d = torch.tensor([[1.0, 0.0, 0.0]], device=device)
    for value in (lambda x: x[:, 2] - shift, lambda x: x[:, 2] ** 2 - shift):
        (found,) = torch.autograd.grad(reattach(value, 0 * d, d, torch.zeros(1, device=device)).sum(), shift)
        assert not found.isnan()


def test_the_value_is_unchanged_and_nothing_is_recorded_without_grad(device: torch.device) -> None:
    field = Sphere(0.5, CENTER).to(device)
    o, d, t = (a.float().to(device) for a in hitting(50))
    attached = reattach(field.value, o, d, t)
    assert torch.equal(attached, t)
    assert attached.requires_grad
    with torch.no_grad():
        assert not reattach(field.value, o, d, t).requires_grad
    assert len(reattach(field.value, o[:0], d[:0], t[:0])) == 0


def test_the_field_is_asked_once(device: torch.device) -> None:
    field = Asked(lambda x: x.norm(dim=-1) - 0.5).to(device)
    o, d, t = (a.float().to(device) for a in hitting(50))
    reattach(field.value, o, d, t)
    assert field.asked == len(t)


def test_backward_twice_gives_the_same(device: torch.device) -> None:
    field = Sphere(0.5, CENTER).to(device)
    seen = surface(field, aimed(200, spread=0.4, device=device), SphereTrace())
    outcome = (seen.t * seen.normal[:, 0]).sum()
    weights = [field.radius, field.center]
    first = torch.autograd.grad(outcome, weights, retain_graph=True)
    second = torch.autograd.grad(outcome, weights)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(g.abs().sum() > 0 for g in first)


def test_a_parameter_that_the_value_does_not_use_is_no_error(device: torch.device) -> None:
    class Painted(Sphere):
        def __init__(self) -> None:
            super().__init__(0.5)
            self.paint = nn.Parameter(torch.ones(3))

    field = Painted().to(device)
    surface(field, aimed(200, spread=0.4, device=device), SphereTrace()).t.sum().backward()
    assert field.paint.grad is None
    assert field.radius.grad is not None


@pytest.mark.parametrize("what", ["K", "pose"])
def test_the_camera_gets_the_gradient_of_finite_differences(what: str, device: torch.device) -> None:
    camera = Camera.look_at((1.5, 1.0, 0.8), (0.1, 0.1, 0.0), width=24, height=20)
    pixel = torch.tensor([[8.5, 8.5], [12.0, 10.0], [13.5, 7.5], [11.0, 13.0], [9.0, 12.0]])
    weight = torch.linspace(0.5, 2, 5, dtype=torch.float64)
    given = {"K": camera.K, "pose": camera.pose}
    radius = torch.tensor(0.5).double()

    def length(matrix: Tensor) -> Tensor:
        at = {**given, what: matrix}
        o, d = reference.pixel_rays(at["K"].numpy(), at["pose"].numpy(), pixel.double().numpy())
        return (weight * sphere_t(torch.tensor(o.copy()), torch.tensor(d), radius, CENTER)).sum()

    expected = difference(length, given[what])
    if what == "K":
        expected = expected.triu()
        expected[2, 2] = 0.0
    leaf = given[what].clone().to(device).requires_grad_()
    matrices = {**{k: m.to(device) for k, m in given.items()}, what: leaf}
    rays = Camera(matrices["K"], matrices["pose"], 24, 20).rays(pixel.to(device))
    seen = surface(Sphere(0.5, CENTER).to(device), rays, SphereTrace())
    assert len(seen.t) == 5
    (weight.to(device) * seen.t).sum().backward()
    assert leaf.grad is not None
    assert close([leaf.grad.cpu()], [expected], 1e-4)

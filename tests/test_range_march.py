"""Bounds that are proven, and hits that nothing lies in front of."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import SLOPE, TRAINED, Perceptron, trained, view
from reference import beams, clip, double, first_crossing, in_double
from torch import Tensor, nn

from warpdvr import Camera, DenseMarch, Field, Rays, Status, render
from warpdvr.fields.analytic import Sphere
from warpdvr.fields.layers import Activation, Dense, Encode, Layer, Skip
from warpdvr.fields.sdf import SDF
from warpdvr.intersection.affine import ACTIVATIONS, COST, Affine, enclose
from warpdvr.intersection.range_march import RangeMarch, bounds_in_boxes

WIDTH = 1e-3
"""Half the width of `needle`."""


class Listed(Field):
    """A network given by its layers; `value` is written here anew, from what Torch has."""

    def __init__(self, layers: list[Layer]):
        super().__init__(1.0)
        self.list, self.asked = layers, 0

    def as_layers(self) -> list[Layer]:
        return self.list

    def value(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        h = first = x
        for step in self.list:
            if isinstance(step, Encode):
                angle = [step.scales.to(x)[:, None] * x[:, None]] * 2
                h = first = torch.cat([x, angle[0].sin().flatten(1), angle[1].cos().flatten(1)], 1)
            elif isinstance(step, Dense):
                h = nn.functional.linear(h, step.weight.to(x), step.bias.to(x))
            elif isinstance(step, Skip):
                h = step.scale * torch.cat([h, first], 1)
            else:
                h = PHI[step.kind](h, step.parameter)
        return h[:, 0]


PHI: dict[str, Any] = {
    "relu": lambda x, _: torch.relu(x),
    "elu": lambda x, _: torch.where(x > 0, x, x.exp() - 1),
    "softplus": lambda x, beta: torch.logaddexp(beta * x, torch.zeros_like(x)) / beta,
    "squareplus": lambda x, b: (x + torch.hypot(x, torch.full_like(x, b**0.5))) / 2,
    "tanh": lambda x, _: x.tanh(),
    "sine": lambda x, _: x.sin(),
    "cosine": lambda x, _: x.cos(),
}
PARAMETER = {"softplus": 100.0, "squareplus": 2e-4}


def dense(weight: Any, bias: Any) -> Dense:
    return Dense(torch.tensor(weight, dtype=torch.float32), torch.tensor(bias, dtype=torch.float32))


def needle(plateau: float = 2.0, lift: float = -1.0) -> Listed:
    """A needle along z, s = (|x| + |y|) / WIDTH: the value is min(s, plateau) + lift."""
    across = dense([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]], [0] * 4)
    sums = dense([[1 / WIDTH] * 4] * 2, [0, -plateau])
    relu = Activation("relu")
    return Listed([across, relu, sums, relu, dense([[1, -1]], [lift])])


def random_network(kind: str) -> Listed:
    """Every kind of layer: an encoding, a skip and an activation."""
    generator = torch.Generator().manual_seed(3)
    sizes = [(15, 20), (20, 20), (35, 20), (20, 1)]
    weights = [torch.randn(b, a + 1, generator=generator) for a, b in sizes]
    one, two, three, last = (Dense(w[:, 1:] / w.shape[1] ** 0.5, w[:, 0]) for w in weights)
    bend = Activation(kind, PARAMETER.get(kind, 1.0))
    return Listed([Encode(torch.tensor([1.0, 2.0])), one, bend, two, bend, Skip(0.5), three, bend, last])


NETWORKS: dict[str, Any] = {
    **{name: lambda data, name=name: trained(data, name) for name in TRAINED},
    "softplus": lambda _: Perceptron(nn.Softplus(beta=100), width=48),
    "relu": lambda _: Perceptron(nn.ReLU(), width=48),
    "sdf": lambda _: SDF(width=32, depth=3),
    **{f"random {kind}": lambda _, kind=kind: random_network(kind) for kind in ACTIVATIONS},
}


def places(n: int, samples: int, axes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return middles, spreads and `samples` points of n segments or boxes, from 1e-5 to 1 long, with their corners."""
    generator = torch.Generator().manual_seed(axes)
    x = 2 * torch.rand(n, 3, generator=generator, dtype=torch.float64) - 1
    length = 10 ** (-5 * torch.rand(n, 1, 1, generator=generator, dtype=torch.float64))
    spread = torch.randn(n, axes, 3, generator=generator, dtype=torch.float64) * length / 2
    eps = 2 * torch.rand(n, samples, axes, generator=generator, dtype=torch.float64) - 1
    eps[:, ::2] = eps[:, ::2].sign()
    return x, spread, x[:, None] + eps @ spread


@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_no_value_lies_outside_of_its_bounds(name: str, axes: int, data: Path, device: torch.device) -> None:
    field = NETWORKS[name](data).to(device)
    x, spread, samples = (a.to(device) for a in places(10_000 if name in TRAINED else 2_000, 8, axes))
    base, slope, error = Affine(field).bound(x, spread)
    reach = slope.abs().sum(1) + error
    with torch.no_grad():
        value = double(field).value(samples.view(-1, 3)).view(len(x), -1)
    slack = 1e-9 if name == "softplus" else 0.0  # Torch's is straight from 20 / beta on
    assert (value <= (base + reach)[:, None] + slack).all()
    assert (value >= (base - reach)[:, None] - slack).all()
    short = spread.norm(dim=-1).amax(1) < 1e-4
    assert short.sum() > 100
    assert error[short].median() < 1e-3 * value.std()


def test_the_bounds_of_a_linear_network_are_exact(device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(*s, generator=generator) for s in ((7, 3), (5, 7), (1, 8)))
    zeros = [torch.zeros(n) for n in (7, 5, 1)]
    field = Listed([Dense(a, zeros[0]), Dense(b, zeros[1]), Skip(0.5), Dense(c, zeros[2] + 0.3)]).to(device)
    field.list = [Dense(s.weight.to(device), s.bias.to(device)) if isinstance(s, Dense) else s for s in field.list]
    low = 2 * torch.rand(50, 3, generator=generator) - 1
    high = low + torch.rand(50, 3, generator=generator)
    row = 0.5 * (c.double() @ torch.cat([b.double() @ a.double(), torch.eye(3, dtype=torch.float64)]))
    middle, half = 0.5 * (low + high).double(), 0.5 * (high.double() - low.double())
    lower, upper = (side.cpu() for side in bounds_in_boxes(field, low.to(device), high.to(device)))
    assert torch.allclose(lower, (middle @ row.T - half @ row.abs().T)[:, 0] + float(torch.tensor(0.3)), atol=1e-11)
    assert torch.allclose(upper, (middle @ row.T + half @ row.abs().T)[:, 0] + float(torch.tensor(0.3)), atol=1e-11)


def test_rounding_is_counted() -> None:
    """Beside exact fractions: a middle that lost its digits, and two large numbers that cancel."""
    none = torch.zeros(1, 1, 3, dtype=torch.float64)
    x = torch.tensor([[0.7 * 0.7 - 0.49, 0, 0]], dtype=torch.float64)
    base, _, error = Affine(Listed([dense([[1, 0, 0]], [0])])).bound(x, none)
    assert abs(Fraction(base.item()) - (Fraction(0.7) ** 2 - Fraction(0.49))) <= Fraction(error.item())
    network = Affine(Listed([dense([[1e8, 0, 0]] * 2, [0.1, 0]), dense([[1, -1]], [0])]))
    x = torch.rand(100, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    base, _, error = network.bound(x, none.expand(100, 1, 3))
    assert ((base - float(torch.tensor(0.1))).abs() <= error).all()
    assert error.max() < 1e-5


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_an_activation_stays_in_its_band_and_fills_it(kind: str) -> None:
    generator = torch.Generator().manual_seed(1)
    parameter = PARAMETER.get(kind, 1.0)
    scale = 0.05 if kind in PARAMETER else 3.0
    low = scale * torch.randn(1500, generator=generator, dtype=torch.float64)
    width = scale * 10 ** (1 - 4 * torch.rand(1500, generator=generator, dtype=torch.float64))
    low[:50], width[50:60] = -width[:50] * 0.5, 0.0  # the kink in the middle, and points
    low[60:120:3], low[61:120:3], low[62:120:3] = 0.0, -width[61:120:3], 40 * low[62:120:3]
    high = low + width
    slope, offset, error = enclose(Activation(kind, parameter), low, high)
    x = low + (high - low) * torch.linspace(0, 1, 1001, dtype=torch.float64)[:, None]
    left = PHI[kind](x, parameter) - slope * x - offset
    assert (left.abs() <= error + 1e-13).all()
    unseen = 1e-3 * width if kind in ("relu", "elu") else 0.0  # a kink between two samples
    assert (error <= 0.5 * (left.amax(0) - left.amin(0)) * 1.01 + unseen + 1e-10).all()


# ---- rays


@pytest.mark.parametrize("name", TRAINED)
def test_hits_are_those_of_many_samples(name: str, data: Path, device: torch.device) -> None:
    field, rays = trained(data, name), view(64, distance=2.5)
    ends = clip(*in_double(rays), field.bounds)
    expected = first_crossing(double(field), *in_double(rays), ends, 1024, SLOPE[name])
    hit = RangeMarch()(field.to(device), Rays(rays.origin.to(device), rays.direction.to(device)))
    t = torch.full((len(rays),), torch.nan, dtype=torch.float64)
    t[hit.ray.cpu()] = hit.t.double().cpu()
    print(f"{name}: {len(hit.t)} hits, {hit.evaluations / len(rays):.1f} points per ray")
    assert torch.equal(t.isnan(), expected.isnan())
    assert (t - expected).abs().nan_to_num(0).max() < 1e-5
    assert not (hit.status == Status.GAVE_UP).any()
    assert hit.evaluations < 160 * len(rays)


def test_a_needle_that_samples_miss_is_found(device: torch.device) -> None:
    field, y = needle().to(device), torch.linspace(-0.95, 0.95, 64, dtype=torch.float64) * WIDTH
    origin = torch.stack([torch.full_like(y, 2), y, torch.linspace(-0.9, 0.9, 64, dtype=torch.float64)], 1)
    rays = beams(origin, (-1.0, 0.0, 0.0), device)
    rays = Rays(rays.origin, rays.direction.expand(64, 3).contiguous())
    assert (DenseMarch(n=16, splits=0)(field, rays).status == Status.MISS).all()
    hit = RangeMarch()(field, rays)
    assert (hit.status == Status.HIT).all()
    assert (hit.t.double().cpu() - (2 - WIDTH + y.abs())).abs().max() < 1e-5
    beside = Rays(rays.origin + torch.tensor([0, 2.5 * WIDTH, 0], device=device), rays.direction)
    assert (RangeMarch()(field, beside).status == Status.MISS).all()


def test_a_ray_from_inside_is_told_so(device: torch.device) -> None:
    field = needle().to(device)
    rays = beams(((0, 0, 0), (0.4 * WIDTH, 0, 0), (5 * WIDTH, 0, 0)), [(1, 0, 0)] * 3, device)
    assert RangeMarch()(field, rays).status.tolist() == [Status.INSIDE, Status.INSIDE, Status.MISS]
    half = Listed([dense([[1, 0, 0]], [0])]).to(device)
    deep = RangeMarch()(half, beams((-0.5, 0, 0), (-1, 0, 0), device))
    assert (deep.status.tolist(), deep.evaluations) == ([Status.INSIDE], COST)
    assert RangeMarch()(half, beams((0, 0, 0), (-1, 0, 0), device)).status.tolist() == [Status.INSIDE]
    at_face = beams((0.99999 * WIDTH, 0, 0), (1, 0, 0), device)
    assert RangeMarch()(field, at_face).status.tolist() == [Status.INSIDE]


def test_who_cannot_be_told_gives_up(device: torch.device) -> None:
    """A value that turns back just above 0, nearer than float64 can tell; a network of no numbers; too few steps."""
    rays = beams((2.0, 0, 0), (-1.0, 0, 0), device)
    assert RangeMarch()(needle(lift=1e-12).to(device), rays).status.tolist() == [Status.GAVE_UP]
    assert RangeMarch()(needle(lift=1e-6).to(device), rays).status.tolist() == [Status.MISS]
    assert RangeMarch()(needle(lift=math.nan).to(device), rays).status.tolist() == [Status.GAVE_UP]
    assert RangeMarch(max_steps=2)(needle().to(device), rays).status.tolist() == [Status.GAVE_UP]


def test_a_miss_tells_where_it_came_nearest(device: torch.device) -> None:
    rays = beams(((2.0, 0.3, 0), (2.0, 5.0, 0)), [(-1.0, 0, 0)] * 2, device)
    hit = RangeMarch()(needle(plateau=1e5).to(device), rays)
    assert hit.status.tolist() == [Status.MISS] * 2
    assert hit.nearest[0].item() == pytest.approx(2.0, abs=0.15)
    assert hit.nearest[1].isnan()


def test_what_is_asked_is_counted(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    bounded, bound = [], Affine.bound

    def counted(self: Affine, x: Tensor, spread: Tensor) -> Any:
        bounded.append(len(x))
        return bound(self, x, spread)

    monkeypatch.setattr(Affine, "bound", counted)
    field = needle().to(device)
    hit = RangeMarch()(field, beams((2.0, 0, 0), (-1.0, 0, 0), device))
    assert field.asked > 0
    assert hit.evaluations == field.asked + COST * sum(bounded)


def test_a_fitted_distance_is_rendered(device: torch.device) -> None:
    torch.manual_seed(0)
    field = SDF(width=16, depth=2, frequencies=3).to(device)
    camera = Camera.look_at(eye=(0, -2.5, 0.5), width=16, height=16)
    with torch.no_grad():
        proven, sampled = (render(field, camera, intersect=solve) for solve in (RangeMarch(), DenseMarch()))
    assert proven.mask.sum() > 20
    assert torch.equal(proven.status, sampled.status)
    assert (proven.depth - sampled.depth)[proven.mask].abs().max() < 2e-5


def test_boxes_without_a_surface_are_known(data: Path, device: torch.device) -> None:
    field = trained(data, "bunny").to(device)
    corner = torch.randint(128, (2000, 3), generator=torch.Generator().manual_seed(0)).to(device) / 64 - 1
    lower, upper = bounds_in_boxes(field, corner, corner + 1 / 64)
    with torch.no_grad():
        middle = field.value(corner + 1 / 128)
    assert (lower > 0).float().mean() > 0.85
    assert (upper < 0).float().mean() > 0.03
    assert (middle[lower > 0] > 0).all()
    assert (middle[upper < 0] < 0).all()


# ---- what is refused


def test_a_field_without_layers_is_refused() -> None:
    rays = beams((0, 0, 2.0), (0, 0, -1.0))
    with pytest.raises(ValueError, match=r"Sphere: has no as_layers\(\)"):
        RangeMarch()(Sphere(), rays)
    with pytest.raises(ValueError, match=r"as_layers: .* at place 1 is not known"):
        RangeMarch()(Listed([dense([[1, 0, 0]], [0]), Activation("gelu")]), rays)
    with pytest.raises(ValueError, match="must end in a Dense with one output"):
        RangeMarch()(Listed([dense([[1, 0, 0]] * 2, [0, 0])]), rays)
    with pytest.raises(ValueError, match="these rays look at several"):
        RangeMarch()(needle(), Rays(rays.origin, rays.direction, torch.zeros(1, dtype=torch.long)))


def test_settings_and_boxes_that_make_no_sense_are_refused() -> None:
    for options in ({"tolerance": 0.0}, {"first": 0}, {"max_steps": 0}, {"tolerance": math.nan}):
        with pytest.raises(ValueError, match="RangeMarch: needs"):
            RangeMarch(**options)
    for low, high in ((torch.ones(2, 3), torch.zeros(2, 3)), (torch.zeros(3), torch.ones(3))):
        with pytest.raises(ValueError, match="bounds_in_boxes: needs corners"):
            bounds_in_boxes(needle(), low, high)

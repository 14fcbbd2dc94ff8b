"""Fields: exact distances against closed forms and trimesh, what networks start as, the registry, and the contract."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import octahedron
import pytest
import torch
import trimesh
from reference import Asked, double
from torch import Tensor, nn

from warpdvr import make, register
from warpdvr.fields import registry
from warpdvr.fields.analytic import Box, Plane, Rotate, Scale, SmoothUnion, Sphere, Torus, Translate, Union
from warpdvr.fields.base import Field
from warpdvr.fields.gradient import gradient
from warpdvr.fields.occupancy import Occupancy
from warpdvr.fields.sdf import SDF
from warpdvr.testing.field import check_field

PRIMITIVES = {
    "sphere": lambda: Sphere(0.4, (0.1, -0.2, 0.3)),
    "box": lambda: Box((0.8, 0.5, 0.3), (0.1, 0.0, -0.1)),
    "torus": lambda: Torus(0.6, 0.2),
    "plane": lambda: Plane((0.3, -0.4, 2.0), 0.2),
}

OPTIONS: dict[str, dict[str, Any]] = {
    "union": {"parts": [{"kind": "sphere"}, {"kind": "box"}]},
    "smooth-union": {"parts": [{"kind": "sphere"}, {"kind": "box"}]},
    "translate": {"part": {"kind": "sphere"}, "offset": [0.1, 0.0, 0.0]},
    "rotate": {"part": {"kind": "box"}, "rotation": [0.1, 0.2, 0.3]},
    "scale": {"part": {"kind": "torus"}, "factor": 0.7},
    "repaint": {"shape": {"kind": "sphere"}, "size": 2**10, "levels": 4},
    "hashgrid": {"size": 2**10, "levels": 4},
    "hashgrid-occupancy": {"size": 2**10, "levels": 4},
}


def points(n: int, device: torch.device, size: float = 1.0, seed: int = 0) -> Tensor:
    x = 2 * torch.rand(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1
    return (size * x).to(device)


def placed(name: str, device: torch.device) -> Field:
    return double(PRIMITIVES[name]()).to(device)


@pytest.mark.parametrize("name", PRIMITIVES)
def test_a_distance_has_slope_one_and_leads_to_the_surface(name: str, device: torch.device) -> None:
    field, x = placed(name, device), points(2000, device).requires_grad_()
    value = field.value(x)
    (slope,) = torch.autograd.grad(value.sum(), x)
    assert (slope.norm(dim=-1) - 1).abs().max() < 1e-9
    outside = value > 0
    assert field.value(x - value[:, None] * slope)[outside].abs().max() < 1e-9
    a, b = x.detach(), points(2000, device, seed=1)
    assert ((field.value(a) - field.value(b)).abs() <= (a - b).norm(dim=-1) * (1 + 1e-12)).all()


def test_a_box_is_as_far_as_trimesh_says(device: torch.device) -> None:
    field, x = placed("box", device), points(400, device)
    mesh = trimesh.creation.box((0.8, 0.5, 0.3), trimesh.transformations.translation_matrix((0.1, 0.0, -0.1)))
    corner = mesh.triangles.repeat(400, 0).reshape(12, 400, 3, 3)
    nearest = [trimesh.triangles.closest_point(c, x.cpu().numpy()) for c in corner]
    distance = np.linalg.norm(np.stack(nearest) - x.cpu().numpy(), axis=-1).min(0)
    inside = (np.abs(x.cpu().numpy() - [0.1, 0.0, -0.1]) < [0.4, 0.25, 0.15]).all(1)
    expected = np.where(inside, -distance, distance)
    assert 5 < inside.sum() < 395
    np.testing.assert_allclose(field.value(x).detach().cpu().numpy(), expected, atol=2e-7)  # its parameters are float32


def test_a_torus_is_as_far_as_its_ring_says(device: torch.device) -> None:
    x = points(500, device)
    angle = torch.linspace(0, 2 * math.pi, 20001, dtype=torch.float64, device=device)
    ring = 0.6 * torch.stack([angle.cos(), angle.sin(), 0 * angle], -1)
    assert (torch.cdist(x, ring).amin(1) - 0.2 - placed("torus", device).value(x)).abs().max() < 1e-7


@pytest.mark.parametrize(
    ("name", "volume"),
    [
        ("sphere", 4 / 3 * math.pi * 0.4**3),
        ("box", 0.8 * 0.5 * 0.3),
        ("torus", 2 * math.pi**2 * 0.6 * 0.2**2),
    ],
)
def test_negative_values_fill_the_volume(name: str, volume: float, device: torch.device) -> None:
    n = 400_000
    inside = placed(name, device).value(points(n, device)) < 0
    assert abs(8 * inside.double().mean().item() - volume) < 5 * math.sqrt(8 * volume / n)


def test_a_plane_does_not_care_for_the_length_of_its_normal(device: torch.device) -> None:
    x = points(100, device)
    a, b = (double(Plane(n, 0.2)).to(device) for n in ((0.0, 0.6, 0.8), (0.0, 3.0, 4.0)))
    assert torch.allclose(a.value(x), b.value(x), atol=1e-7)
    assert torch.allclose(a.value(x), x[:, 1] * 0.6 + x[:, 2] * 0.8 - 0.2, atol=1e-7)


def test_moves_turn_into_moves_of_the_points(device: torch.device) -> None:
    part, x = placed("box", device), points(300, device)
    offset, turn = torch.tensor([0.2, -0.1, 0.4]).double(), torch.tensor([0.3, -0.5, 1.1]).double()
    matrix = torch.from_numpy(trimesh.transformations.rotation_matrix(float(turn.norm()), turn.numpy())[:3, :3])
    matrix = matrix.to(device)
    moved: dict[str, tuple[Field, Tensor, float]] = {}
    moved["translate"] = (Translate(part, offset), x + offset.to(device), 1.0)
    moved["rotate"] = (Rotate(part, turn), x @ matrix.T, 1.0)
    moved["scale"] = (Scale(part, 1.7), 1.7 * x, 1.7)
    for name, (field, y, factor) in moved.items():
        expected = factor * part.value(x)
        assert torch.allclose(double(field).to(device).value(y), expected, atol=1e-7), name
        assert field.lipschitz == 1.0


def test_a_union_does_not_care_for_order_and_keeps_its_parts(device: torch.device) -> None:
    a, b, x = placed("sphere", device), placed("box", device), points(500, device)
    for kind in (Union, SmoothUnion):
        one, other = (double(kind(parts)).to(device).value(x) for parts in ([a, b], [b, a]))
        assert torch.allclose(one, other, atol=1e-12)
        alone = double(kind([a])).to(device).value(x)
        assert torch.allclose(alone, a.value(x), atol=1e-12)
    plain, smooth = (double(kind([a, b])).to(device).value(x) for kind in (Union, SmoothUnion))
    assert torch.equal(plain, torch.minimum(a.value(x), b.value(x)))
    assert ((smooth <= plain + 1e-12) & (smooth >= plain - 0.05 * math.log(2) - 1e-8)).all()


def test_a_union_is_as_steep_as_its_steepest_part_or_unknown() -> None:
    steep, unknown = Sphere(), Sphere()
    steep.lipschitz, unknown.lipschitz = 3.0, None  # type: ignore[assignment]
    assert Union([Sphere(), steep]).lipschitz == 3.0
    assert Union([Sphere(), unknown]).lipschitz is None


def test_a_box_is_differentiable_twice_on_its_faces() -> None:
    """Where a hit lies exactly on a face, neither the slope nor its derivative may be NaN."""
    field = Box((0.5, 1.0, 0.5))
    x = torch.tensor([[0.25, 0.1, 0.1], [0.1, -0.5, 0.0], [0.25, 0.5, 0.0], [0.25, 0.5, 0.25]]).requires_grad_()
    value = field.value(x)
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    assert (value == 0).all() and torch.equal(slope[:2], torch.tensor([[1.0, 0, 0], [0, -1, 0]]))
    for g in torch.autograd.grad(slope.square().sum(), list(field.parameters())):
        assert (g == 0).all()


class Wave(Field):
    """A smooth function with three weights; with a `step` its slopes are differences."""

    def __init__(self, step: float | None = None) -> None:
        super().__init__(1.0)
        self.step, self.a = step, nn.Parameter(torch.tensor([2.0, 0.7, 1.3]).double())

    def value(self, x: Tensor) -> Tensor:
        a, b, c = self.a
        return (a * x[:, 0]).sin() * (b * x[:, 1]).exp() + c * x[:, 2] ** 3 + x[:, 0] * x[:, 2]

    def geometry(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.value(x), 3 * x


def test_slopes_by_differences_have_an_error_of_second_order() -> None:
    x, errors = points(300, torch.device("cpu")), []
    value, exact, feature = gradient(Wave(), x)
    for step in (0.2, 0.1, 0.05):
        with torch.no_grad():
            found = gradient(Wave(step), x)
        assert torch.equal(found[0], value.detach())
        assert found[2] is not None and feature is not None and torch.equal(found[2], feature)
        errors.append((found[1] - exact).detach())
    third = torch.stack(
        [-8 * (2 * x[:, 0]).cos() * (0.7 * x[:, 1]).exp(), torch.zeros(300), torch.full((300,), 7.8)], 1
    )
    expected = 0.05**2 / 24 * third[:, [0, 2]]  # by Taylor: the width is the step, not twice of it
    assert torch.allclose(errors[2][:, [0, 2]], expected, rtol=0.01, atol=1e-6)
    sizes = [float(error.norm()) for error in errors]
    assert [sizes[0] / sizes[1], sizes[1] / sizes[2]] == pytest.approx([4, 4], rel=0.02)


def test_slopes_by_differences_can_be_differentiated() -> None:
    x, weight = points(50, torch.device("cpu")).requires_grad_(), points(50, torch.device("cpu"), seed=1)
    outcomes = []
    for field in (Wave(), Wave(1e-3)):
        _, slope, _ = gradient(field, x)
        outcomes.append(torch.autograd.grad((slope * weight).sum(), [x, field.a]))
    for exact, found in zip(*outcomes, strict=True):
        assert torch.allclose(found, exact, rtol=1e-4, atol=1e-5)


def test_slopes_by_differences_ask_seven_times() -> None:
    field = Asked(lambda x: x.norm(dim=-1))
    gradient(field, points(10, torch.device("cpu")).float())
    assert field.asked == 10
    field.step = 0.1
    gradient(field, points(10, torch.device("cpu")).float())
    assert field.asked == 80


@pytest.mark.parametrize("radius", [0.3, 0.5, 0.8])
def test_an_sdf_starts_as_about_a_sphere(radius: float, device: torch.device) -> None:
    slopes = []
    x = points(2000, device).float().requires_grad_()
    n = nn.functional.normalize(x.detach(), dim=-1)
    t = torch.linspace(0, 2, 201, device=device) * radius
    for seed in range(4):
        torch.manual_seed(seed)
        field = SDF(radius=radius).to(device)
        with torch.no_grad():
            outside = field.value((t[:, None, None] * n[:300]).flatten(0, 1)).view(201, 300) > 0
        assert not outside[t < 0.5 * radius].any()
        assert abs(t[outside.int().argmax(0)].mean().item() / radius - 1) < 0.1
        (slope,) = torch.autograd.grad(field.value(x).sum(), x)
        slopes.append(slope.norm(dim=-1).mean().item())
        assert slope.norm(dim=-1).max() <= field.lipschitz
    assert abs(np.mean(slopes) - 1) < 0.1


@pytest.mark.parametrize("level", [0.5, 0.2])
def test_an_occupancy_starts_as_its_sphere(level: float, device: torch.device) -> None:
    field, x = Occupancy(radius=0.6, steepness=7.0, level=level).to(device), points(500, device).float()
    logit = math.log(level / (1 - level))
    assert torch.allclose(field.value(x), logit + 7.0 * (x.norm(dim=-1) - 0.6), atol=1e-5)
    probability = torch.sigmoid(logit - field.value(x))  # value = logit(level) - logit(occupancy)
    assert torch.equal(probability > level, field.value(x) < 0)


@pytest.mark.parametrize("name", registry.names())
def test_every_registered_field_keeps_the_contract(name: str, device: torch.device, tmp_path: Path) -> None:
    torch.manual_seed(0)
    options = {"decoder": str(octahedron.write(tmp_path / "a.npz"))} if name == "deepsdf" else OPTIONS.get(name, {})
    field = make(name, **options).to(device)
    check_field(field)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown field 'sphree'; known are .*sphere.*torus"):
        make("sphree")


def test_an_unknown_option_lists_the_options() -> None:
    with pytest.raises(
        ValueError, match=r"field 'sphere' has no option 'size'; its options are radius, center, bounds"
    ):
        make("sphere", size=2)
    with pytest.raises(ValueError, match="field 'sphere' has no option 'size'"):
        make("union", parts=[{"kind": "sphere", "size": 2}])


def test_tables_make_fields_inside_of_fields(device: torch.device) -> None:
    table = {"kind": "translate", "part": {"kind": "sphere", "radius": 0.3}, "offset": [0.0, 0.5, 0.0]}
    field = make("union", parts=[table, {"kind": "box"}], bounds=2.0).to(device)
    assert isinstance(field, Union)
    assert abs(field.value(torch.tensor([[0.0, 1.0, 0.0]], device=device)).item() - 0.2) < 1e-6  # 0.6 from the box
    assert field.bounds[1, 0] == 2.0


def test_a_registered_name_wins_over_an_installed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})

    @register("sphere")
    def ball(width: float) -> nn.Module:
        return Sphere(width / 2)

    assert make("sphere", width=1.0).get_parameter("radius") == 0.5
    monkeypatch.setattr(registry, "_registered", {})
    assert make("sphere", radius=0.7).get_parameter("radius").item() == pytest.approx(0.7)


@pytest.mark.parametrize("bounds", [0.0, -1.0, ((0, 0, 0), (1, 0, 1)), ((0, 0), (1, 1)), torch.ones(2, 3)])
def test_bad_bounds_are_refused(bounds: Any) -> None:
    with pytest.raises(ValueError, match="bounds must be"):
        Sphere(bounds=bounds)


class Blob(nn.Module):
    """A third party's field: no subclass of ours, with colours, features and a bound."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.register_buffer("bounds", torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 2.0]]))
        self.lipschitz: float | None = 2.0
        self.layer = nn.Linear(3, 8)
        self.paint = nn.Linear(8, 3)

    def value(self, x: Tensor) -> Tensor:
        return self.geometry(x)[0]

    def geometry(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        h = torch.tanh(self.layer(x))
        return x.square().sum(-1).add(1e-6).sqrt() - 0.5 + 0.1 * h.mean(-1), h

    def color(self, x: Tensor, normal: Tensor, direction: Tensor, feature: Tensor) -> Tensor:
        return torch.sigmoid(self.paint(feature))


class BlobWithoutFloat64(Blob):
    def geometry(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        if x.dtype != torch.float32:
            raise RuntimeError("this field is for float32")
        return super().geometry(x)


@pytest.mark.parametrize("kind", [Blob, BlobWithoutFloat64])
def test_a_third_party_field_passes_and_stays_as_it_is(kind: type[Blob], device: torch.device) -> None:
    field = kind().to(device)
    before = copy.deepcopy(field.state_dict())
    check_field(field)
    assert all(p.grad is None and p.dtype == torch.float32 for p in field.parameters())
    after = field.state_dict()
    assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)


class FlatBounds(Blob):
    def __init__(self) -> None:
        super().__init__()
        self.bounds = torch.ones(6)


class TurnedBounds(Blob):
    def __init__(self) -> None:
        super().__init__()
        self.bounds = self.bounds.flip(0)  # type: ignore[has-type]


class StuckBounds(Blob):
    def __init__(self) -> None:
        super().__init__()
        del self.bounds
        object.__setattr__(self, "bounds", torch.tensor([[-1.0] * 3, [1.0] * 3]))


class Column(Blob):
    def value(self, x: Tensor) -> Tensor:
        return super().value(x)[:, None]


class Squeezed(Blob):
    def value(self, x: Tensor) -> Tensor:
        return super().value(x).squeeze()


class NotFinite(Blob):
    def value(self, x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 0.5, torch.nan, super().value(x))


class Forgetful(Blob):
    def value(self, x: Tensor) -> Tensor:
        return super().value(x) + torch.rand(len(x)).to(x)


class Crowded(Blob):
    def value(self, x: Tensor) -> Tensor:
        value = super().value(x)
        return value - value.mean() if len(x) else value


class Split(Blob):
    def value(self, x: Tensor) -> Tensor:
        return 1.1 * super().value(x)


class Alone(Blob):
    def geometry(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().geometry(x)[0]

    def value(self, x: Tensor) -> Tensor:
        return super().geometry(x)[0]


class LongFeature(Blob):
    def geometry(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        value, feature = super().geometry(x)
        return value, feature[..., None] if feature is not None else None


class Constant(Blob):
    def geometry(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return super().geometry(x.detach())


class HalfDetached(Blob):
    def geometry(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return super().geometry(torch.cat([x[:, :2], x[:, 2:].detach()], 1))


class Steep(Blob):
    def __init__(self) -> None:
        super().__init__()
        self.lipschitz = 0.5


class BrightColor(Blob):
    def color(self, x: Tensor, normal: Tensor, direction: Tensor, feature: Tensor) -> Tensor:
        return 2 * super().color(x, normal, direction, feature)


class GreyColor(Blob):
    def color(self, x: Tensor, normal: Tensor, direction: Tensor, feature: Tensor) -> Tensor:
        return super().color(x, normal, direction, feature)[:, :1]


class IdlePaint(Blob):
    def color(self, x: Tensor, normal: Tensor, direction: Tensor, feature: Tensor) -> Tensor:
        return super().color(x, normal, direction, feature).detach()


BROKEN = {
    FlatBounds: r"bounds: expected a floating point tensor of shape \(2, 3\), got \(6,\)",
    TurnedBounds: "bounds: expected finite corners with low < high",
    StuckBounds: "register it as a buffer",
    Column: r"value: expected shape \(0,\) for points \(0, 3\), got \(0, 1\)",
    Squeezed: r"value: expected shape \(1,\) for points \(1, 3\), got \(\)",
    NotFinite: "value: a value inside of the bounds is not finite",
    Forgetful: "the same points have other values when asked again",
    Crowded: "depends on the other points of its batch",
    Split: r"geometry: its first part differs from value\(\)",
    Alone: r"geometry: expected \(value, feature\), got Tensor",
    LongFeature: "geometry: expected features of shape",
    Constant: "value is not differentiable with respect to x",
    HalfDetached: "disagrees with finite differences",
    Steep: r"lipschitz is 0.5, but a slope of .* was found",
    BrightColor: r"color: expected colours in \[0, 1\]",
    GreyColor: r"color: expected shape \(0, 3\) for 0 points, got \(0, 1\)",
    IdlePaint: "these weights get no gradient .*: paint.weight, paint.bias",
}


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_a_broken_clause_is_named_in_one_sentence(kind: type[Blob], device: torch.device) -> None:
    with pytest.raises(ValueError, match=BROKEN[kind]) as caught:
        check_field(kind().to(device))
    assert kind.__name__ in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_field_that_is_made_without_what_it_needs_says_so() -> None:
    with pytest.raises(ValueError, match="field 'union' needs parts"):
        make("union")
    with pytest.raises(ValueError, match="field 'translate' needs part and offset"):
        make("translate")


@pytest.mark.parametrize(("name", "option"), [("sdf", "width"), ("sdf", "sharpness"), ("occupancy", "width")])
def test_networks_of_no_size_are_refused(name: str, option: str) -> None:
    with pytest.raises(ValueError, match=f"{option}.* got 0"):
        make(name, **{option: 0})


def test_the_slope_bound_of_a_network_follows_its_weights() -> None:
    torch.manual_seed(0)
    field = SDF()
    before, last = field.lipschitz, field.distance.layers[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight *= 3
    assert field.bound_slope() == 16384
    assert field.lipschitz == pytest.approx(3 * before, rel=1e-5)


@pytest.mark.parametrize("name", ["sdf", "hashgrid"])
def test_a_measured_bound_is_a_quarter_above_what_is_seen(name: str) -> None:
    torch.manual_seed(0)
    field: Any = make(name)
    x = (2 * torch.rand(100_000, 3) - 1).requires_grad_()
    (slope,) = torch.autograd.grad(field.value(x).sum(), x)
    assert 1.15 < field.lipschitz / float(slope.norm(dim=1).max()) < 1.26

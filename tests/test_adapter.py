"""Fields made of the modules and functions of others, and what is said of those that break the contract."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from warpdvr import Camera, Field, Fit, Recipe, extract, make, render
from warpdvr.datasets.synthetic import mesh_views
from warpdvr.fields.adapter import as_field
from warpdvr.fields.base import query
from warpdvr.fitting.checkpoint import Checkpoint
from warpdvr.intersection.grid import BoundGrid
from warpdvr.testing.field import check_field


def ball(x):
    return x.norm(dim=-1) - 0.5


class Network(nn.Module):
    """A module without any member of a field, called by itself."""

    def __init__(self, sign=1.0):
        super().__init__()
        self.sign, self.radius = sign, nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return self.sign * (x.norm(dim=-1) - self.radius)


class Members(nn.Module):
    """A module with members of a field, without being one."""

    lipschitz, step, rates = 2.0, 0.01, {"": 0.5}

    def __init__(self):
        super().__init__()
        self.register_buffer("bounds", torch.tensor([[-1.0] * 3, [1.0] * 3]))

    def value(self, x):
        return 2 * ball(x)

    def color(self, x, normal, direction, feature):
        return torch.zeros_like(x)


def test_a_field_is_returned_as_it_is():
    field = make("sphere")
    assert as_field(field) is field
    with pytest.raises(ValueError, match=r"^as_field: Sphere is a Field and says itself what it is"):
        as_field(field, bounds=2.0)


@pytest.mark.parametrize("module", [ball, Network(), Members()], ids=["function", "network", "members"])
def test_whatever_answers_at_points_is_rendered_meshed_and_bounded(module):
    """Depth and extent of a ball of 0.5 are known."""
    field = as_field(module, None if isinstance(module, Members) else 1.0)
    assert isinstance(field, Field) and field.probed == 28
    image = render(field, Camera.look_at((0, -2, 0), width=33, height=33))
    assert float(image.depth[16, 16].detach()) == pytest.approx(1.5, abs=1e-4)
    mesh = extract(field, resolution=24)
    assert mesh.vertices.norm(dim=1).sub(0.5).abs().max() < 5e-3
    assert BoundGrid(field).signs(torch.zeros(1, 3)).tolist() == [-1]


def test_doors_take_modules_as_they_are():
    camera = Camera.look_at((0, -2, 0), width=9, height=9)
    assert torch.equal(render(Members(), camera).rgb, render(as_field(Members()), camera).rgb)
    assert render(Members(), camera).rgb[4, 4].tolist() == [0, 0, 0]
    assert len(extract(Members(), resolution=12).faces) == len(extract(as_field(Members()), resolution=12).faces)


def test_members_are_the_modules_own_and_the_rest_is_the_fields():
    field = as_field(Members())
    assert (field.lipschitz, field.step, field.rates, field.options) == (2.0, 0.01, {"": 0.5}, None)
    assert (field.kind, field.has_color, field.name, field.as_layers()) == ("distance", True, "Members", None)
    assert field.bound_slope() == 0 and field.prior() is None and not field.lipschitz_is_measured
    plain = as_field(Network(), 1.0)
    assert (plain.lipschitz, plain.kind, plain.has_color) == (None, "occupancy", False)
    assert as_field(Network(), 1.0, kind="distance", lipschitz=1.0).kind == "distance"
    with pytest.raises(ValueError, match="Members: is one shape, but rays ask for one of several"):
        field.select(torch.zeros(1, dtype=torch.int64))


def test_parameters_are_fitted_in_place_and_survive_a_checkpoint():
    module = Network()
    views = mesh_views("warp:bunny", count=2, test=0, size=24)
    job = Fit(as_field(module, 1.0, kind="distance"), views, iterations=2, recipe=Recipe(rays=64, cells=16))
    for _ in job:
        pass
    assert float(module.radius.detach()) != 0.5
    saved = Checkpoint(None, {}, job.field.state_dict(), views.transform, (0, 0, 1), (), {})
    again = saved.field(as_field(Network(), 1.0))
    assert torch.equal(query(again, torch.ones(1, 3)), query(job.field, torch.ones(1, 3)))


class Noisy(nn.Module):
    def forward(self, x):
        return ball(x - x.sum(0))


class Single(nn.Module):
    def forward(self, x):
        return nn.functional.batch_norm(x, None, None, training=True).norm(dim=-1) - 0.5


WRONG: dict[str, Any] = {
    "a column": (lambda x: ball(x)[:, None], r"got \(27, 1\); take its only column, such as value\[:, 0\]"),
    "numpy": (lambda x: np.linalg.norm(x.numpy(), axis=1) - 0.5, "got a NumPy array; write it with Torch"),
    "a tuple": (lambda x: (ball(x), None), r"expected shape \(27,\) for points \(27, 3\), got tuple"),
    "double": (
        lambda x: ball(x.double()),
        "expected torch.float32 on cpu, as the points are, got torch.float64 on cpu",
    ),
    "positive inside": (lambda x: -ball(x), "negative all around and positive in the middle .*: return its negative"),
    "a batch": (Noisy(), r"depends on the other points of its batch; call eval\(\) before"),
    "no single point": (
        Single(),
        r"Single.value: fails for points \(1, 3\) of .*: Expected more than 1",
    ),
    "no row": (lambda x: ball(x[5:]), r"expected shape \(27,\) for points \(27, 3\), got \(22,\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_function_is_said_in_one_sentence(case):
    function, sentence = WRONG[case]
    with pytest.raises(ValueError, match=sentence) as caught:
        as_field(function, bounds=1.0)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_a_field_is_refused():
    with pytest.raises(ValueError, match=r"^as_field: ball has no bounds; give as_field\(..., bounds=1.0\)"):
        as_field(ball)
    with pytest.raises(ValueError, match=r"^as_field: expected a field, a module or a function, got int$"):
        as_field(3)
    with pytest.raises(ValueError, match="bounds must be a positive number or two corners"):
        as_field(ball, bounds=-1.0)


def test_a_bound_does_not_make_an_occupancy_a_distance():
    """An occupancy that promises a Lipschitz bound is traced with it, and has no eikonal term."""

    class Logits(Field):
        kind, lipschitz = "occupancy", 10.0

        def __init__(self):
            super().__init__()
            self.radius = nn.Parameter(torch.tensor(0.5))

        def value(self, x):
            return 10 * (x.norm(dim=-1) - self.radius)

    views = mesh_views("warp:bunny", count=2, test=0, size=24)
    step = next(Fit(Logits(), views, iterations=1, recipe=Recipe(rays=64, cells=16)))
    assert "eikonal" not in step.losses and "mask" in step.losses
    with torch.no_grad():
        image = render(Logits(), Camera.look_at((0, -2, 0), width=9, height=9))
    assert float(image.depth[4, 4]) == pytest.approx(1.5, abs=1e-4)


class Loop(nn.Module):
    """A ball whose values go through NumPy and back, with weights that do get gradients."""

    bounds = 1.0

    def __init__(self):
        super().__init__()
        self.radius = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return torch.from_numpy(np.linalg.norm(x.detach().numpy(), axis=1)) - self.radius


STOPPED: dict[str, Any] = {
    "numpy and back": (lambda x: torch.from_numpy(np.linalg.norm(x.numpy(), axis=1) - 0.5), "turns the points into"),
    "detached": (lambda x: ball(x.detach()), "has no gradient with respect to the points"),
    "with weights": (Loop(), "Loop.value: has no gradient with respect to the points"),
}


@pytest.mark.parametrize("case", STOPPED)
def test_what_stops_gradients_is_refused(case):
    function, sentence = STOPPED[case]
    with pytest.raises(ValueError, match=f"{sentence}.*; write it with Torch, so that gradients pass through it$"):
        as_field(function, bounds=1.0)


def test_batch_normalisation_in_training_is_told_to_stop():
    with pytest.raises(ValueError, match=r"; call eval\(\) before, or take batch normalisation and dropout out$"):
        as_field(Single(), bounds=1.0)


def test_every_point_is_counted_and_no_gradient_stays():
    sizes = []

    class Counted(Network):
        def forward(self, x):
            sizes.append(len(x))
            return super().forward(x)

    module = Counted()
    with torch.no_grad():
        field = as_field(module, 1.0)
    assert field.probed == sum(sizes) and module.radius.grad is None


@pytest.mark.parametrize(("wrong", "hint"), [("Distance", "; did you mean distance\\?"), ("sdf", ""), (3, "")])
def test_an_unknown_kind_is_refused_at_every_door(wrong, hint):
    class OfModule(Network):
        bounds, kind = 1.0, wrong

    class OfField(Field):
        kind = wrong

        def value(self, x):
            return ball(x)

    sentence = rf"\.kind: must be 'distance' or 'occupancy', got {wrong!r}{hint}$"
    for module in (OfModule(), OfField()):
        for door in (as_field, check_field, lambda field: extract(field, resolution=8)):
            with pytest.raises(ValueError, match=type(module).__name__ + sentence):
                door(module)


@pytest.mark.parametrize("wrong", ["2", True, -1.0, 0.0, float("nan"), [1.0]])
def test_a_bound_of_the_slope_is_a_number(wrong):
    class Bent(Network):
        bounds, lipschitz = 1.0, wrong

    with pytest.raises(ValueError, match=r"^Bent.lipschitz: must be a positive number, .* or None, got "):
        as_field(Bent())


@pytest.mark.parametrize("wrong", ["big", [[0, 0, 0], [1]], object()])
def test_bounds_that_are_no_numbers_are_refused(wrong):
    class Boxed(Network):
        bounds = wrong

    with pytest.raises(ValueError, match=r"^bounds must be a positive number or two corners low < high, got "):
        as_field(Boxed())


def test_a_field_without_its_first_call_is_refused():
    class Hasty(Field):
        def __init__(self):
            pass

        def value(self, x):
            return ball(x)

    with pytest.raises(ValueError, match=r"^Hasty has no bounds: call super\(\).__init__\(bounds\)"):
        as_field(Hasty())

    class OfClass(Field):
        bounds = 1.0  # type: ignore[assignment]

        def value(self, x):
            return ball(x)

    with pytest.raises(ValueError, match=r"^OfClass: bounds is an attribute of the class; call super\(\).__init__"):
        OfClass()

    class Flat(Hasty):
        bounds = (-1.0, 1.0)  # type: ignore[assignment]

    with pytest.raises(ValueError, match=r"^Flat.bounds: expected two corners .* got \(-1.0, 1.0\)$"):
        as_field(Flat())


@pytest.mark.parametrize("wrong", [Members, Network, Field])
def test_a_class_is_no_field(wrong):
    name = wrong.__name__
    with pytest.raises(ValueError, match=rf"^as_field: {name} is a class: call it, such as {name}\(\)$"):
        as_field(wrong)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_given_bounds_have_the_type_of_the_module(dtype):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0)).to(dtype)
    field = as_field(module, 1.0)
    assert field.bounds.dtype == dtype and field.bounds.tolist() == [[-1] * 3, [1] * 3]
    x = torch.rand(4, 3, dtype=dtype)
    assert torch.equal(field.value(x), module(x))

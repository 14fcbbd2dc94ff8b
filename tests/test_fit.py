"""Fits of tiny scenes: a ball of known size and colour, from its exact outline."""

import math
from dataclasses import replace
from itertools import islice, pairwise

import pytest
import torch
from torch import nn

from warpdvr.camera import Camera, pixel_centres
from warpdvr.checkpoint import Checkpoint, load
from warpdvr.evaluate import evaluate
from warpdvr.fields.analytic import Sphere
from warpdvr.fields.occupancy import Occupancy
from warpdvr.fields.sdf import SDF
from warpdvr.fit import PATIENCE, Fit
from warpdvr.recipe import Recipe, schedule
from warpdvr.views import SceneTransform, Views, mesh_views

RADIUS, PAINT = 0.6, (0.8, 0.4, 0.2)
SMALL = Recipe(rays=128)


def ball(n: int = 6, size: int = 40) -> Views:
    """Photographs of a ball in one colour, its outline from the closed form; the first one is held out."""
    i = torch.arange(n).double()
    eyes = 3 * torch.nn.functional.normalize(torch.stack([(2 * i).cos(), (2 * i).sin(), 0.6 * (i % 3 - 1)], 1), dim=1)
    cameras = tuple(Camera.look_at(eye, width=size, height=size) for eye in eyes)
    images, masks = [], []
    for camera in cameras:
        rays = camera.rays(pixel_centres(size, size))
        mask = (torch.linalg.cross(rays.direction, rays.origin).norm(dim=1) < RADIUS).reshape(size, size)
        masks.append(mask)
        images.append((255 * mask[..., None] * torch.tensor(PAINT)).round().to(torch.uint8))
    names = tuple(map(str, range(n)))
    train = tuple(range(1, n))
    return Views(tuple(images), tuple(masks), cameras, names, train, (0,), SceneTransform.identity(), "a ball")


class Painted(Sphere):
    """A sphere in one colour, with four weights in all that matter."""

    def __init__(self, radius=0.4):
        super().__init__(radius)
        self.paint = nn.Parameter(torch.zeros(3))

    def color(self, x, normal, direction, feature):
        return torch.sigmoid(self.paint).expand_as(x)


class Foreign(nn.Module):
    """What somebody else wrote, without a look at `warpdvr.Field`: an ellipsoid's quadratic form, no distance."""

    lipschitz = None

    def __init__(self):
        super().__init__()
        self.register_buffer("bounds", torch.tensor([[-1.0] * 3, [1.0] * 3]))
        self.size = nn.Parameter(torch.tensor([0.45, 0.5, 0.55]))
        self.paint = nn.Parameter(torch.zeros(3))

    def value(self, x):
        return 10 * ((x / self.size).square().sum(-1) - 1)

    def geometry(self, x):
        return self.value(x), None

    def color(self, x, normal, direction, feature):
        return torch.sigmoid(self.paint).expand_as(x)


class Constant(Sphere):
    """One value everywhere."""

    def value(self, x):
        return self.radius + 0 * x.sum(-1)


def weights(field):
    return {name: value.clone() for name, value in field.state_dict().items()}


def small_sdf():
    torch.manual_seed(0)
    return SDF(width=16, depth=1, features=4, color_width=16, color_depth=1, bounds=1.1)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_ball_gets_its_size_and_colour(device):
    field = Painted().to(device)
    steps = list(Fit(field, ball(), iterations=250, recipe=Recipe(rays=256, rate=0.04)))
    assert float(field.radius.detach()) == pytest.approx(RADIUS, abs=0.01)  # a pixel is 0.05 wide
    assert field.center.detach().norm() < 0.01
    assert torch.allclose(torch.sigmoid(field.paint).cpu(), torch.tensor(PAINT), atol=0.02)
    assert steps[-1].iteration == 250 and steps[-1].progress == 1
    scores = evaluate(field, ball())
    assert scores.iou > 0.96 and scores.psnr > 33 and scores.views == 1


@pytest.mark.parametrize("kind", ["sdf", "occupancy"])
def test_networks_learn_a_bunny(device, kind):
    views = mesh_views("warp:bunny", count=6, test=2, size=48)
    torch.manual_seed(0)
    field = (SDF(width=32, depth=2, bounds=1.1) if kind == "sdf" else Occupancy(width=32, blocks=2)).to(device)
    before = evaluate(field, views)
    steps = list(Fit(field, views, iterations=60, recipe=Recipe(rays=512, rate=4e-3)))
    after = evaluate(field, views)
    first, last = (sum(step.losses["total"] for step in some) for some in (steps[:5], steps[-5:]))
    assert last < 0.8 * first
    assert after.iou > before.iou + 0.05 and after.psnr > before.psnr + 1
    assert ("eikonal" in steps[0].losses) == (kind == "sdf")


def test_module_of_somebody_else_can_be_fitted(device):
    field = Foreign().to(device)
    for _ in Fit(field, ball(), iterations=200, recipe=Recipe(rays=256, rate=0.03)):
        pass
    assert (field.size.detach() - RADIUS).abs().max() < 0.03
    assert torch.allclose(torch.sigmoid(field.paint).cpu(), torch.tensor(PAINT), atol=0.05)


def test_seed_decides_everything():
    results = []
    for seed in (3, 3, 4):
        field = small_sdf()
        steps = list(Fit(field, ball(), iterations=6, recipe=SMALL, seed=seed))
        results.append((weights(field), [(step.losses, step.evaluations) for step in steps]))
    assert same(results[0][0], results[1][0]) and results[0][1] == results[1][1]
    assert not same(results[0][0], results[2][0])


@pytest.mark.parametrize("make", [small_sdf, lambda: Occupancy(width=8, blocks=1)], ids=["sdf", "occupancy"])
def test_resumed_fit_is_the_same_as_one_that_was_never_stopped(tmp_path, make):
    n, views = 12, ball()
    torch.manual_seed(0)
    straight, first, second = make(), make(), make()
    first.load_state_dict(weights(straight))
    whole = Fit(straight, views, iterations=n, recipe=SMALL, seed=5)
    expected = list(whole)
    job = Fit(first, views, iterations=n, recipe=SMALL, seed=5)
    begun = list(islice(job, n // 2))
    cameras = views.cameras
    saved = Checkpoint(None, {}, first.state_dict(), views.transform, (0.0, 0.0, 1.0), cameras, job.state())
    saved.save(tmp_path / "half.safetensors")
    held = load(tmp_path / "half.safetensors")
    held.field(second)
    job = Fit(second, views, iterations=n, recipe=SMALL, seed=99)  # the seed is part of the state
    job.resume(held.fit)
    assert job.iteration == n // 2 and job.seconds == pytest.approx(begun[-1].seconds)
    rest = list(job)
    assert same(weights(straight), weights(second))
    assert [s.losses for s in begun + rest] == [s.losses for s in expected]
    assert job.evaluations == whole.evaluations and job.iteration == n


def test_saved_state_does_not_move_with_the_fit():
    job = Fit(small_sdf(), ball(), iterations=6, recipe=SMALL)
    list(islice(job, 2))
    state = job.state()
    kept = {name: value.clone() for name, value in state.items()}
    next(job)
    assert same(state, kept)
    other = Fit(small_sdf(), ball(), iterations=6, recipe=SMALL)
    other.resume(state)
    next(other)
    assert same(state, kept)


def test_state_of_another_field_is_refused():
    job = Fit(small_sdf(), ball(), iterations=6, recipe=SMALL)
    next(job)
    other = Fit(Painted(), ball(), iterations=6)
    with pytest.raises(ValueError, match="belongs to a field with other parameters"):
        other.resume(job.state())
    with pytest.raises(ValueError, match="to go on from"):
        other.resume({})


@pytest.mark.parametrize(
    ("duration", "said"),
    [
        ({}, "minutes or iterations, one of them"),
        ({"minutes": 1, "iterations": 5}, "minutes or iterations, one of them"),
        ({"minutes": 0}, "minutes must be positive, got 0"),
        ({"minutes": -1.5}, "minutes must be positive, got -1.5"),
        ({"minutes": math.nan}, "minutes must be positive, got nan"),
        ({"iterations": 0}, "iterations must be positive, got 0"),
        ({"iterations": -3}, "iterations must be positive, got -3"),
    ],
)
def test_a_fit_needs_one_positive_duration(duration, said):
    with pytest.raises(ValueError, match=said):
        Fit(Painted(), ball(), **duration)


@pytest.mark.parametrize("wrong", [{"rays": 0}, {"rate": 0.0}, {"sharpness": (0.0, 1.0)}, {"mask": -1.0}])
def test_recipes_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="fit: "):
        Recipe(**wrong)


def test_minutes_end_a_fit():
    job = Fit(Painted(), ball(2), minutes=0.3 / 60, recipe=SMALL)
    steps = list(job)
    assert len(steps) >= 2 and steps[-1].progress == 1
    assert 0.3 <= job.seconds < 3 and job.seconds == steps[-1].seconds
    assert all(a.progress < b.progress for a, b in pairwise(steps))


@pytest.mark.parametrize(("value", "said"), [(1.0, "is empty"), (-1.0, "fills the cameras' surroundings")])
def test_level_set_that_is_nowhere_or_everywhere_is_noticed(value, said):
    field = Constant(value)
    job = Fit(field, ball(), iterations=1000, recipe=replace(SMALL, rate=1e-6))
    assert len(list(islice(job, PATIENCE - 1))) == PATIENCE - 1
    with pytest.raises(RuntimeError, match=f"{said}, no ray has hit it for {PATIENCE} steps"):
        next(job)
    assert float(field.radius.detach()) == pytest.approx(value, abs=1e-3)


def test_patience_starts_again_with_a_hit():
    field = Painted()
    job = Fit(field, ball(), iterations=1000, recipe=SMALL)
    for _ in range(2):
        field.radius.data.fill_(-0.5)  # empty
        list(islice(job, PATIENCE - 1))
        field.radius.data.fill_(0.5)
        next(job)
    assert job.iteration == 2 * PATIENCE


def test_loss_that_is_no_number_ends_the_fit_and_keeps_the_weights():
    class Breaks(Painted):
        broken = False

        def color(self, x, normal, direction, feature):
            return super().color(x, normal, direction, feature) * (math.nan if self.broken else 1.0)

    field = Breaks()
    job = Fit(field, ball(), iterations=10, recipe=SMALL)
    list(islice(job, 3))
    kept, field.broken = weights(field), True
    with pytest.raises(RuntimeError, match="the loss is nan at step 4"):
        next(job)
    assert same(weights(field), kept) and job.iteration == 3


def test_gradient_that_is_no_number_ends_the_fit_and_keeps_the_weights():
    class Steep(Painted):
        steep = False

        def color(self, x, normal, direction, feature):
            color = super().color(x, normal, direction, feature)
            return color + (0 * self.paint).sqrt() if self.steep else color  # value 0, derivative 0 * infinity

    field = Steep()
    job = Fit(field, ball(), iterations=10, recipe=SMALL)
    list(islice(job, 3))
    kept, field.steep = weights(field), True
    with pytest.raises(RuntimeError, match="the gradient is not finite at step 4"):
        next(job)
    assert same(weights(field), kept)


def test_learning_rate_rises_and_falls():
    assert schedule(0.0) == pytest.approx(0.05)
    assert schedule(0.01) == pytest.approx(0.55, abs=1e-3)
    assert schedule(0.5) == pytest.approx(0.05 + 0.95 / 2)
    assert schedule(1.0) == pytest.approx(0.05)
    rates = [schedule(i / 1000) for i in range(1001)]
    assert max(rates) <= 1 and max(rates) > 0.99 and rates.index(max(rates)) == pytest.approx(20, abs=1)
    assert all(b < a for a, b in pairwise(rates[20:]))


def test_learning_rate_reaches_the_optimizer():
    job = Fit(Painted(), ball(2), iterations=10, recipe=SMALL)
    for i, _ in enumerate(job):
        assert job.optimizer.param_groups[0]["lr"] == SMALL.rate * schedule(i / 10)


def test_total_is_the_weighted_sum():
    recipe = Recipe(rays=128, color=2.0, mask=0.5, eikonal=0.25)
    for step in Fit(small_sdf(), ball(), iterations=3, recipe=recipe):
        parts = sum(getattr(recipe, name) * step.losses[name] for name in ("color", "mask", "eikonal"))
        assert step.losses["total"] == pytest.approx(parts, rel=1e-5)


def test_evaluations_are_counted_exactly():
    class Counted(Foreign):
        asked = 0

        def value(self, x):
            self.asked += len(x)
            return super().value(x)

    field = Counted()
    steps = list(Fit(field, ball(), iterations=4, recipe=SMALL))
    assert steps[-1].evaluations == field.asked

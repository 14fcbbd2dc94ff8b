"""Fits of tiny scenes: a ball of known size and colour, from its exact outline."""

import math
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.rays import pixel_centres
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets.synthetic import mesh_views
from warpdvr.datasets.views import SparseDepth, Views
from warpdvr.evaluation.images import evaluate
from warpdvr.fields.analytic import Sphere
from warpdvr.fields.hashgrid import HashGrid
from warpdvr.fields.occupancy import Occupancy
from warpdvr.fields.sdf import SDF
from warpdvr.fitting.checkpoint import Checkpoint, load
from warpdvr.fitting.fit import MEASURE, PATIENCE, Fit
from warpdvr.fitting.recipe import RECIPES, WEIGHTS, Recipe, schedule
from warpdvr.intersection.base import EARLY
from warpdvr.intersection.cached import REFRESH, CachedMarch, CachedValues
from warpdvr.intersection.dense_march import DenseMarch
from warpdvr.intersection.grid import BoundGrid
from warpdvr.intersection.sphere_trace import SphereTrace

RADIUS, PAINT = 0.6, (0.8, 0.4, 0.2)
SMALL = Recipe(rays=128, learn_background=False, exposure=0.0)


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


def deep(views: Views) -> Views:
    """Add the depth maps of the ball from the closed form, which have gaps beside it."""
    depths = []
    for camera in views.cameras:
        rays = camera.rays()
        b = (rays.origin * rays.direction).sum(1)
        t = -b - (b.square() - rays.origin.square().sum(1) + RADIUS**2).sqrt()
        depths.append((t * (rays.direction @ camera.pose[:3, 2].float())).view(camera.height, camera.width))
    return replace(views, depths=tuple(depths))


def dotted(views: Views) -> Views:
    """Say of the ball's depths only those of every ninth pixel that has one, as points."""
    points = []
    for z in deep(views).depths:
        assert z is not None
        place = torch.nonzero(~z.isnan())[::9]
        points.append(SparseDepth(place.flip(1) + 0.5, z[tuple(place.T)]))
    return replace(views, points=tuple(points))


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
        return 20 * ((x / self.size).square().sum(-1) - 1)

    def geometry(self, x):
        return self.value(x), None

    def color(self, x, normal, direction, feature):
        return torch.sigmoid(self.paint).expand_as(x)


class Constant(Sphere):
    """One value everywhere, as networks of logits with random weights may have."""

    kind = "occupancy"

    def value(self, x):
        return self.radius + 0 * x.sum(-1)


def weights(field):
    return {name: value.clone() for name, value in field.state_dict().items()}


def small_sdf():
    torch.manual_seed(0)
    return SDF(width=16, depth=1, features=4, color_width=16, color_depth=1, bounds=1.1)


def small_hash_grid():
    torch.manual_seed(0)
    return HashGrid(
        levels=4, finest=32, size=2**10, width=16, features=4, color_levels=2, color_finest=32, color_width=16
    )


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
    steps = list(Fit(field, views, iterations=150, recipe=Recipe(rays=512, rate=4e-3)))
    after = evaluate(field, views)
    first, last = (sum(step.losses["total"] for step in some) for some in (steps[:5], steps[-5:]))
    assert last < 0.8 * first
    assert after.iou > before.iou + 0.03 and after.psnr > before.psnr + 0.7
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


@pytest.mark.parametrize(
    "make",
    [small_sdf, lambda: Occupancy(width=8, blocks=1), small_hash_grid],
    ids=["sdf", "occupancy", "hash grid"],
)
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
    other = Fit(Painted(), ball(), iterations=6, recipe=SMALL)
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


def test_minutes_end_a_fit():
    job = Fit(Painted(), ball(2), minutes=0.8 / 60, recipe=SMALL)
    steps = list(job)
    assert len(steps) >= 2 and steps[-1].progress == 1
    assert 0.8 <= job.seconds < 8 and job.seconds == steps[-1].seconds
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
    job = Fit(field, ball(), iterations=1000, recipe=SMALL, intersect=DenseMarch(n=16))  # one that does not remember
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
    with pytest.raises(
        RuntimeError, match=r"^fit: the loss color is nan at step 4; the weights .* try a smaller rate$"
    ):
        next(job)
    assert same(weights(field), kept) and job.iteration == 3


def test_value_that_is_no_number_is_named_by_all_that_it_spoils():
    class Breaks(Painted):
        broken = False

        def value(self, x):
            return super().value(x) * (math.nan if self.broken else 1.0)

    field = Breaks()
    job = Fit(field, ball(), iterations=10, recipe=SMALL)
    list(islice(job, 2))
    kept, field.broken = weights(field), True
    with pytest.raises(RuntimeError, match="the loss mask and eikonal is nan at step 3"):
        next(job)
    assert same(weights(field), kept)


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


@pytest.mark.parametrize(("rate", "highest"), [(None, 2e-3), (0.01, 0.01)])
def test_learning_rate_reaches_the_optimizer(rate, highest):
    job = Fit(Painted(), ball(2), iterations=10, recipe=replace(SMALL, rate=rate))
    for i, _ in enumerate(job):
        assert job.optimizer.param_groups[0]["lr"] == highest * schedule(i / 10)


def test_each_part_of_a_field_learns_at_its_own_rate():
    job = Fit(small_hash_grid(), ball(2), iterations=4, recipe=replace(SMALL, rate=0.1))
    for i, _ in enumerate(job):
        found = sorted(group["lr"] for group in job.optimizer.param_groups)
        assert found == pytest.approx([rate * schedule(i / 4) for rate in (0.01, 0.02, 0.1)])


def test_total_is_the_weighted_sum():
    recipe = replace(SMALL, color=2.0, mask=0.5, eikonal=0.25, smooth=0.3, learn_background=True)
    for step in Fit(small_sdf(), ball(), iterations=3, recipe=recipe):
        assert set(step.losses) == {"color", "background_color", "mask", "smooth", "eikonal", "total"}
        weights = {name: float(getattr(recipe, name)) for name in WEIGHTS} | {"background_color": 1.0}
        parts = sum(weights[name] * value for name, value in step.losses.items() if name != "total")
        assert step.losses["total"] == pytest.approx(parts, rel=1e-5)


@pytest.mark.parametrize("weight", ["color", "mask", "eikonal", "smooth"])
def test_every_weight_has_its_say(weight):
    fields = small_sdf(), small_sdf()
    told: dict[str, Any] = {weight: 7.0}
    changed = replace(SMALL, **told)
    losses = [
        next(Fit(f, ball(), iterations=5, recipe=r)).losses for f, r in zip(fields, (SMALL, changed), strict=True)
    ]
    assert losses[0][weight] == losses[1][weight] > 0 and losses[0]["total"] < losses[1]["total"]
    assert not same(weights(fields[0]), weights(fields[1]))


def test_the_number_of_threads_changes_nothing():
    """A step is computed on one thread of Torch; the caller keeps those that it has."""
    fields, told = [], []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            fields.append(small_hash_grid())
            steps = list(Fit(fields[-1], ball(), iterations=4, recipe=Recipe(rays=101)))
            told.append([(step.losses, step.evaluations) for step in steps])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert same(*map(weights, fields)) and told[0] == told[1]


@pytest.mark.parametrize("rays", [1, 2, 9])
def test_few_rays(rays):
    field = small_sdf()
    steps = list(Fit(field, ball(2), iterations=5, recipe=Recipe(rays=rays)))
    assert all(math.isfinite(value) for step in steps for value in step.losses.values())
    assert all(value.isfinite().all() for value in weights(field).values())


def test_the_field_is_told_of_the_progress():
    class Told(Painted):
        def __init__(self):
            super().__init__()
            self.told = []

        def anneal(self, progress):
            self.told.append(progress)

    field = Told()
    list(Fit(field, ball(2), iterations=8, recipe=SMALL))
    assert field.told == [i / 8 for i in range(8)]


def test_a_hash_grid_shows_its_levels_as_it_is_fitted():
    field = small_hash_grid()
    shown = []
    for _ in Fit(field, ball(2), iterations=10, recipe=SMALL):
        shown.append(field.encode.active)
    assert shown[:6] == pytest.approx([3 + i / 10 / 0.6 for i in range(6)]) and shown[6:] == [4] * 4


def test_what_is_remembered_of_the_field_is_brought_up_to_date():
    class Looked(Painted):
        looks = 0

        def bound_slope(self):
            self.looks += 1
            return 7

    field = Looked()
    quick, seen, measured = CachedMarch(cells=12).prepare(field), {}, set()
    job = Fit(field, ball(2), iterations=200, recipe=Recipe(rays=16), intersect=quick)
    sample = quick.sample

    def spy(of, *, full=False):
        assert of is field
        seen[job.iteration] = full
        return sample(of, full=full)

    quick.sample = spy  # type: ignore[method-assign]
    for step in job:
        if field.looks:
            measured.add(step.iteration - 1)
        field.looks = 0
    assert field.looks == 1  # once more at the end
    assert set(seen) == set(range(0, 200, REFRESH)) | set(EARLY)
    assert all(full == (i <= EARLY[-1]) for i, full in seen.items())
    assert measured == set(range(0, 200, MEASURE)) | set(EARLY)


def test_a_surface_that_was_never_looked_at_is_looked_at_once(monkeypatch):
    """In a fit that is resumed from a state without the remembered values."""
    field = small_sdf()
    job = Fit(field, ball(2), iterations=9, recipe=SMALL)
    next(job)
    state = {name: value for name, value in job.state().items() if name != "remembered"}
    again = Fit(field, ball(2), iterations=9, recipe=SMALL)
    again.resume(state)
    asked = []
    sample = CachedValues.sample

    def count(*args, **options):
        asked.append(options)
        return sample(*args, **options)

    monkeypatch.setattr(CachedValues, "sample", count)
    next(again)
    assert len(asked) == 1


def test_the_surface_is_found_as_it_is_told():
    field = Painted()
    assert isinstance(Fit(field, ball(2), iterations=1).intersect, CachedValues)
    dense, calls = DenseMarch(n=32), []

    def march(field, rays):
        calls.append(len(rays))
        return dense(field, rays)

    march.points_per_ray = 1  # type: ignore[attr-defined]
    next(Fit(field, ball(2), iterations=1, recipe=SMALL, intersect=march))
    assert calls == [128]


def test_a_grid_is_kept_up_to_date():
    """The ball grows across a point, which the grid called outside."""

    class Counted(Painted):
        asked = 0

        def value(self, x):
            self.asked += len(x)
            return super().value(x)

    field = Counted()
    grid, between = BoundGrid(field, cells=16, finest=32), torch.tensor([[0.5, 0.0, 0.0]])
    assert grid.signs(between) == 1
    field.asked = 0
    recipe = Recipe(rays=256, rate=0.04)
    steps = list(Fit(field, ball(), iterations=60, recipe=recipe, intersect=SphereTrace(grid=grid)))
    assert field.radius > 0.55 and grid.signs(between) != 1
    assert steps[-1].evaluations == field.asked


@pytest.mark.parametrize("step", [None, 0.01])
def test_evaluations_are_counted_exactly(step):
    class Counted(Foreign):
        asked = 0

        def value(self, x):
            self.asked += len(x)
            return super().value(x)

    field = Counted()
    field.step = step
    job = Fit(field, ball(), iterations=4, recipe=SMALL)
    steps = list(job)
    assert steps[-1].evaluations == field.asked


@pytest.mark.parametrize("give", [deep, dotted])
def test_depth_alone_gives_a_ball_its_size(device, give):
    field = Painted().to(device)
    nothing: dict[str, Any] = dict.fromkeys(WEIGHTS, 0.0)
    recipe = Recipe(rays=128, rate=0.04, **{**nothing, "depth": 1.0})
    steps = list(Fit(field, give(ball()), iterations=60, recipe=recipe))
    assert float(field.radius.detach()) == pytest.approx(RADIUS, rel=0.02)
    assert set(steps[0].losses) == {"depth", "total"}
    assert steps[0].losses["depth"] > 0.15 and steps[-1].losses["depth"] < 0.02


@pytest.mark.parametrize("known", ["nowhere", "held out", "points held out"])
def test_depth_cannot_be_learnt_where_none_is_known(known):
    views, recipe = ball(3), Recipe(rays=16, depth=1.0)
    if known == "held out":
        views = replace(views, depths=(deep(views).depths[0], None, None))
    elif known == "points held out":
        views = replace(views, points=(dotted(views).points[0], None, None))
    with pytest.raises(ValueError, match=r"^fit: the recipe weighs depth, but none of the training views has any$"):
        Fit(Painted(), views, iterations=1, recipe=recipe)
    next(Fit(Painted(), deep(views), iterations=1, recipe=recipe))
    next(Fit(Painted(), dotted(views), iterations=1, recipe=recipe))


def spied(monkeypatch):
    """Return a list that every `DenseMarch` adds its numbers of samples and splits to."""
    marches = []
    march = DenseMarch.__call__

    def spy(self, field, rays):
        marches.append((self.n, self.splits))
        return march(self, field, rays)

    monkeypatch.setattr(DenseMarch, "__call__", spy)
    return marches


def test_samples_of_a_recipe_grow_as_the_fit_goes_on(monkeypatch):
    marches = spied(monkeypatch)
    job = Fit(Painted(), ball(2), iterations=8, recipe=replace(RECIPES["dvr"], rays=32))
    steps = list(job)
    assert marches == [(n, 0) for n in (16, 32, 64, 64, 64, 128, 128, 128)]
    assert set(steps[0].losses) == {"color", "smooth", "freespace", "occupancy", "total"}
    assert steps[0].evaluations < steps[-1].evaluations - steps[-2].evaluations
    assert "remembered" not in job.state()


def test_one_number_of_samples_is_kept_and_a_given_intersector_counts_more(monkeypatch):
    marches = spied(monkeypatch)
    list(Fit(Painted(), ball(2), iterations=3, recipe=replace(SMALL, samples=(24,))))
    assert marches == [(24, 0)] * 3
    recipe = replace(SMALL, samples=(16, 32, 64, 128))
    list(Fit(Painted(), ball(2), iterations=8, recipe=recipe, intersect=DenseMarch(40)))
    assert marches[3:] == [(40, 5)] * 8
    list(Fit(Painted(), ball(2), iterations=8, recipe=recipe, intersect=SphereTrace()))
    assert len(marches) == 11


def test_recipe_of_dvr_teaches_a_ball_its_size_and_colour(device):
    field = Foreign().to(device)
    recipe = replace(RECIPES["dvr"], rays=256, rate=0.05)
    for _ in Fit(field, ball(), iterations=60, recipe=recipe):
        pass
    assert (field.size.detach() - RADIUS).abs().max() < 0.02
    assert torch.allclose(torch.sigmoid(field.paint).cpu(), torch.tensor(PAINT), atol=0.05)


def test_every_term_at_once():
    told: dict[str, Any] = {name: 0.1 + 0.1 * i for i, name in enumerate(WEIGHTS)}
    recipe = replace(SMALL, rays=64, cameras=1e-3, **told)
    field = Painted()
    for step in Fit(field, dotted(deep(ball(3))), iterations=3, recipe=recipe):
        assert set(step.losses) == {*WEIGHTS, "total"} and min(step.losses.values()) >= 0
        parts = sum(told[name] * step.losses[name] for name in WEIGHTS)
        assert step.losses["total"] == pytest.approx(parts, rel=1e-5)
    assert all(value.isfinite().all() for value in weights(field).values())


def test_nothing_to_change_is_an_error():
    field = Sphere(0.4).requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter of Sphere wants a gradient"):
        Fit(field, ball(), iterations=1)


def test_a_fraction_of_an_iteration_is_refused():
    with pytest.raises(ValueError, match=r"^fit: iterations must be a whole number, got 1\.5$"):
        Fit(Painted(), ball(), iterations=1.5)
    assert Fit(Painted(), ball(), iterations=2.0).iterations == 2


@pytest.mark.parametrize("folder", ["photographs", Path("photographs")])
def test_views_must_be_loaded_first(folder):
    with pytest.raises(ValueError, match=r"^fit: views must be what .*load returns, .*; write warpdvr\.load\('photo"):
        Fit(Painted(), folder, iterations=1)


def test_a_recipe_may_be_given_by_name():
    assert Fit(Painted(), ball(), iterations=1, recipe="dvr").recipe == RECIPES["dvr"]
    with pytest.raises(ValueError, match=r"^fit: unknown recipe 'dvt'; known are quick, .*; did you mean dvr\?$"):
        Fit(Painted(), ball(), iterations=1, recipe="dvt")

"""The volume that a fit begins with: depths that are fused, fields that take on a surface, and fits that carve."""

import copy
import math
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import torch
from torch import nn

import warpdvr
from warpdvr.cameras.camera import Camera
from warpdvr.cameras.paths import fibonacci_sphere
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets.pixels import Pixels
from warpdvr.datasets.synthetic import mesh_views
from warpdvr.datasets.views import Views
from warpdvr.evaluation.concave import concave_distance
from warpdvr.fields.analytic import Sphere
from warpdvr.fields.base import Field
from warpdvr.fields.registry import make
from warpdvr.fields.voxel import VoxelSDF
from warpdvr.fitting import distillation, volume_start
from warpdvr.fitting.depth_fusion import fuse_depths
from warpdvr.fitting.distillation import distil_surface, value_parameters
from warpdvr.fitting.fit import Fit
from warpdvr.fitting.optimizer import frozen
from warpdvr.fitting.recipe import RECIPES, Recipe
from warpdvr.fitting.saving import saved_steps
from warpdvr.fitting.volume_start import REFINING
from warpdvr.geometry.distance import is_closed, signed_distance, surface_distance
from warpdvr.geometry.isosurface import extract
from warpdvr.geometry.mesh import Mesh
from warpdvr.rendering.density_voxels import DensityVoxels
from warpdvr.runs.run import Run
from warpdvr.runs.scene import Scene

STEPS, VOLUME = 60, 24
"""Steps of a short fit, and those of its volume."""


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Everything in a size that takes seconds."""
    for name, value in {
        "RESOLUTION": 48, "HULL_RESOLUTION": 24, "RAYS": 1024, "PRUNE": 8, "SHORTEST_STEPS": STEPS,
        "DISTILLATION": 80,
    }.items():  # fmt: skip
        monkeypatch.setattr(volume_start, name, value)
    monkeypatch.setattr(distillation, "POINTS", 1 << 14)
    monkeypatch.setattr(distillation, "BATCH", 2048)


def cube(low, high):
    """A box with faces across the axes."""
    z, y, x = torch.meshgrid(*[torch.tensor([0, 1])] * 3, indexing="ij")
    low, high = torch.tensor(low), torch.tensor(high)
    vertices = low + (high - low) * torch.stack([x, y, z], -1).reshape(-1, 3)
    quads = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]
    return Mesh(vertices, torch.tensor([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))]))


def cube_distance(x, low, high):
    """The signed distance to that box, in closed form."""
    low, high = torch.tensor(low), torch.tensor(high)
    q = (x - (low + high) / 2).abs() - (high - low) / 2
    return q.clamp_min(0).norm(dim=1) + q.amax(1).clamp_max(0)


def empty_views(n=30, size=96, distance=4.0, masks=None):
    """Views from all sides whose pictures are black."""
    cameras = [
        Camera.look_at(distance * e, up=(0.1, 0.9, 0.2), fov=40, width=size, height=size) for e in fibonacci_sphere(n)
    ]
    images = tuple(torch.zeros(size, size, 3, dtype=torch.uint8) for _ in cameras)
    names, identity = tuple(map(str, range(n))), SceneTransform.identity()
    return Views(images, masks or (None,) * n, tuple(cameras), names, tuple(range(n)), (), identity, "nothing")


BALLS = {
    "cube": torch.tensor([[-1.0] * 3, [1.0] * 3]),
    "three sides": torch.tensor([[-1.0, -0.8, -0.7], [0.9, 0.7, 1.1]]),
}


def opaque(bounds, distance, resolution=48):
    """Voxels that are opaque where a distance is negative."""
    voxels = DensityVoxels(bounds, torch.ones((resolution,) * 3, dtype=torch.bool, device=bounds.device))
    d = distance(voxels.bounds[0] + voxels.corner * voxels.side)
    with torch.no_grad():
        voxels.table[:, 0] = (-d / voxels.step).clamp(-1, 1)  # the logit is 0 on the surface
    voxels.prune()
    return voxels


@pytest.mark.parametrize("bounds", BALLS.values(), ids=BALLS)
def test_fused_depths_of_a_ball_are_zero_on_the_ball(bounds, device):
    bounds = bounds.to(device)
    voxels = opaque(bounds, lambda x: x.norm(dim=1) - 0.5)
    lattice = fuse_depths(voxels, empty_views()).lattice
    start = volume_start.VolumeStart.__new__(volume_start.VolumeStart)
    start.voxels, start.bounds = voxels, bounds
    mesh = start.surface(lattice)
    cell, radius = float(voxels.side.max()), mesh.vertices.norm(dim=1)
    assert is_closed(mesh) and len(mesh.faces) > 1000
    assert (radius - 0.5).abs().mean() < 0.25 * cell and (radius - 0.5).abs().max() < cell
    assert lattice.shape == (49,) * 3 and float(lattice[0, 0, 0]) == pytest.approx(3 * cell)
    place = voxels.bounds[0] + voxels.corner * voxels.side
    known = lattice[tuple(voxels.corner.unbind(1))]
    distance = place.norm(dim=1) - 0.5
    assert (known[distance > cell] > 0).all() and (known[distance < -cell] < 0).all()


def test_a_mask_outweighs_what_voxels_say():
    """Where a mask shows background, its view sees nothing in the way; the hole is too small to be distrusted."""
    voxels = opaque(BALLS["cube"], lambda x: x.norm(dim=1) - 0.5)
    with_hole, whole = torch.ones(2, 96, 96, dtype=torch.bool)
    with_hole[46:50, 46:50] = False
    views = empty_views(2, masks=(with_hole, whole))
    front = voxels.corner[:, 0] * 0 + 24
    centre = (voxels.corner == front[:, None]).all(1)
    values = fuse_depths(voxels, views).lattice[tuple(voxels.corner.unbind(1))]
    assert float(values[centre]) == pytest.approx(3 * float(voxels.side.max()))  # of one view alone: behind the surface
    both = empty_views(2)
    assert float(fuse_depths(voxels, both).lattice[tuple(voxels.corner.unbind(1))][centre]) < 0


def test_a_hole_in_one_of_many_masks_goes_not_through_the_object():
    """It is too small to be distrusted, and no other view sees what lies inside."""
    voxels = opaque(BALLS["cube"], lambda x: x.norm(dim=1) - 0.5)
    right = [torch.ones(96, 96, dtype=torch.bool) for _ in range(12)]
    wrong = [mask.clone() for mask in right]
    wrong[0][46:50, 46:50] = False
    lattices = [fuse_depths(voxels, empty_views(12, masks=tuple(masks))).lattice for masks in (right, wrong)]
    assert torch.equal(*lattices) and float(lattices[0][24, 24, 24]) < 0


@pytest.mark.parametrize(("progress", "least", "moves"), [(0.0, 1.1, True), (0.5, 1.1, False), (0.5, 0.3, True)])
def test_views_outvote_a_mask_where_the_volume_is_opaque(progress, least, moves, monkeypatch):
    """Rays of the background move voxels unless less than `least` of their light is left, but for the first steps."""
    monkeypatch.setattr(volume_start, "OPAQUE", least)
    none = tuple(torch.zeros(16, 16, dtype=torch.bool) for _ in range(3))
    pixels = Pixels(empty_views(3, size=16, masks=none))
    start = volume_start.VolumeStart(pixels, BALLS["cube"], DensityVoxels(BALLS["cube"], torch.ones(8, 8, 8) > 0))
    before = start.voxels.table.detach().clone()
    start.step(progress, torch.Generator().manual_seed(0))
    assert torch.equal(start.voxels.table, before) != moves


def test_debris_is_left_out_of_the_surface():
    """A ball of a thousandth of the volume of the other one."""
    voxels = opaque(BALLS["cube"], lambda x: x.norm(dim=1) - 0.5)
    x = voxels.bounds[0] + voxels.corner * voxels.side
    value = torch.minimum(x.norm(dim=1) - 0.5, (x - torch.tensor([0.8, 0.8, 0.0])).norm(dim=1) - 0.08)
    lattice = torch.ones(49, 49, 49)
    lattice[tuple(voxels.corner.unbind(1))] = value
    start = volume_start.VolumeStart.__new__(volume_start.VolumeStart)
    start.voxels, start.bounds = voxels, BALLS["cube"]
    assert start.surface(lattice).vertices.norm(dim=1).max() < 0.55


LOW, HIGH = (-0.5, -0.3, -0.6), (0.4, 0.5, 0.3)


SMALL: dict[str, dict[str, Any]] = {
    "hashgrid": {"levels": 6, "finest": 64},
    "hashgrid-occupancy": {"levels": 6, "finest": 64},
    "sdf": {"width": 32, "depth": 2},
    "occupancy": {"width": 32, "blocks": 2},
}


@pytest.mark.parametrize("kind", SMALL)
def test_a_field_takes_on_a_box_and_keeps_its_colours(kind, device):
    torch.manual_seed(0)
    field = make(kind, **SMALL[kind]).to(device)
    field.anneal(1.0)
    shape = value_parameters(field)
    fixed = min(shape, key=torch.numel)
    fixed.requires_grad_(False)
    before = {name: p.detach().clone() for name, p in field.named_parameters()}
    steps = 250
    mesh = cube(LOW, HIGH)
    assert distil_surface(field, mesh, steps=steps, seed=0) == steps * 2048
    fixed.requires_grad_(True)
    for name, p in field.named_parameters():
        assert torch.equal(p, before[name]) == (p not in shape or p is fixed), name
    assert (len(shape) < len(before)) == (kind != "occupancy")  # one network says both
    x = 2 * torch.rand(4000, 3, generator=torch.Generator().manual_seed(1)) - 1
    truth = cube_distance(x, LOW, HIGH)
    unit = distillation.STEEPNESS / float(field.bounds[1, 0]) if field.kind == "occupancy" else 1.0
    value = field.value(x.to(device)).detach().cpu() / unit
    near = truth.abs() < 0.1
    assert (value - truth).abs().mean() < 0.05 and (value - truth).abs()[near].mean() < 0.035
    assert ((value < 0) == (truth < 0))[~near].float().mean() > 0.98


def test_a_surface_is_taken_on_in_the_time_that_is_given():
    assert 0 < distil_surface(make("hashgrid"), cube(LOW, HIGH), steps=10**9, seed=0, seconds=0.3) < 2048 * 1000


def test_a_field_that_is_not_finite_takes_on_no_surface():
    field = Sphere(0.5)
    field.radius.data.fill_(math.nan)
    with pytest.raises(RuntimeError, match=r"^fit: Sphere returned a value that is not finite as it took on a surface"):
        distil_surface(field, cube(LOW, HIGH), steps=3, seed=0)


class Plain(Field):
    """A ball; its colour is one parameter, if it has one."""

    def __init__(self, *, colored: bool, learns: bool = True):
        super().__init__(1.0)
        self.radius = nn.Parameter(torch.tensor(0.5), requires_grad=learns)
        self.tint = nn.Parameter(torch.full((3,), 0.5)) if colored else None

    def value(self, x):
        return x.norm(dim=1) - self.radius

    def color(self, x, normal, direction, feature):
        return torch.ones_like(x) * (0.5 if self.tint is None else self.tint)


def test_parameters_of_the_value_are_told_from_those_of_colours():
    field = Plain(colored=True)
    assert value_parameters(field) == {field.radius}
    assert value_parameters(alone := Plain(colored=False)) == {alone.radius}
    assert value_parameters(Plain(colored=True, learns=False)) == set()
    assert value_parameters(Plain(colored=False, learns=False)) == set()
    voxels = VoxelSDF(8)
    assert value_parameters(voxels) == {voxels.distance.table}
    with torch.no_grad():
        assert value_parameters(field) == {field.radius}


def test_distances_to_a_box_have_the_sign_of_its_inside():
    x = 2 * torch.rand(3000, 3, generator=torch.Generator().manual_seed(0)) - 1
    truth = cube_distance(x, LOW, HIGH)
    assert torch.allclose(signed_distance(x, cube(LOW, HIGH)), truth, atol=1e-5) and (truth < 0).sum() > 100
    assert torch.allclose(surface_distance(x, cube(LOW, HIGH)), truth.abs(), atol=1e-5)
    mesh = cube(LOW, HIGH)
    with pytest.raises(ValueError, match="the mesh of 11 faces is open"):
        signed_distance(x, Mesh(mesh.vertices, mesh.faces[1:]))
    with pytest.raises(ValueError, match="a point is not finite"):
        signed_distance(x * math.nan, mesh)


@pytest.fixture(scope="module")
def yard() -> Views:
    return mesh_views("solid:courtyard", count=12, test=1, size=64, lowest=-15)


@pytest.fixture(scope="module")
def ball() -> Views:
    return mesh_views("warp:sphere", count=4, test=1, size=32)


def field_of(levels=4):
    torch.manual_seed(0)
    return make("hashgrid", levels=levels, finest=8 * levels)


def concave(field, views):
    mesh = extract(field, resolution=48, colors=False, cavities=False)
    mesh = Mesh(views.transform.apply(mesh.vertices.double()), mesh.faces)
    return concave_distance(mesh, views.truth, views, samples=5000).concave_l1


def test_a_yard_that_no_silhouette_shows_is_carved(yard):
    """A fit of hits fills it to 0.2: its depth is 0.6."""
    carved, filled = field_of(8), field_of(8)
    for field, volume, steps in ((carved, 0.95, 200), (filled, 0.0, STEPS)):
        for _ in Fit(field, yard, iterations=steps, recipe=Recipe(rays=128, volume=volume)):
            pass
    assert concave(carved, yard) < 0.5 * concave(filled, yard)


def short(field, views, **values) -> Fit:
    return Fit(field, views, iterations=STEPS, recipe=Recipe(rays=32, **{"volume": VOLUME / STEPS} | values))


AT = {"before a prune": 16, "at the transition": VOLUME, "colours alone": 26, "after it": 40}


@pytest.fixture
def straight(ball):
    """A fit that is never interrupted, with what it held on the way."""
    field = field_of()
    job, held_states = short(field, ball), {}
    for step in job:
        if step.iteration in AT.values():
            held_states[step.iteration] = copy.deepcopy((field.state_dict(), job.state()))
    return field, job, held_states


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_fit_that_goes_on_equals_one_that_was_never_interrupted(ball, straight):
    field, job, states = straight
    assert set(states) == set(AT.values()) and job.refining and job.start is None
    assert ("volume.table" in states[16][1], "volume.table" in states[VOLUME][1]) == (True, True)
    assert "volume.table" not in states[26][1] and REFINING in states[26][1]
    last = job.state()
    for at, (weights, state) in states.items():
        again = field_of()
        resumed = short(again, ball)
        again.load_state_dict(weights)
        resumed.resume(state)
        assert equal(resumed.state(), state), at
        for _ in resumed:
            pass
        assert equal(again.state_dict(), field.state_dict()), at
        now = resumed.state()
        now["counts"][2] = last["counts"][2]  # seconds
        assert equal(now, last), at


def test_a_refined_surface_stays_slow_where_a_fit_that_goes_on_has_no_volume(ball, straight):
    """Its colours alone are still learnt first, and its shape at a lower rate."""
    _, _, states = straight
    weights, state = states[AT["colours alone"]]
    field = field_of()
    job = short(field, ball, volume=0.0)
    field.load_state_dict(weights)
    job.resume(state)
    assert job.refining and job.shape == value_parameters(field)
    usual = {id(p): group["rate"] for group in job.groups for p in group["params"]}
    rates = {p: group["rate"] for group in job.optimizer.param_groups for p in group["params"]}
    factors = {p: rate / usual[id(p)] for p, rate in rates.items()}
    assert all(factors[p] == pytest.approx(volume_start.REFINING_RATE) for p in job.shape)
    assert all(factors[p] == 1 for p in factors if p not in job.shape)


def test_a_state_of_before_there_were_volumes_goes_on_without(ball):
    field = field_of()
    old = short(field, ball, volume=0.0)
    list(islice(old, 10))
    state, weights = copy.deepcopy(old.state()), copy.deepcopy(field.state_dict())
    assert not any(name.startswith("volume") for name in state)
    again = field_of()
    job = short(again, ball)
    assert job.start is not None
    again.load_state_dict(weights)
    job.resume(state)
    assert job.start is None and not job.refining
    rates = [[group["rate"] for group in fit.optimizer.param_groups] for fit in (old, job)]
    assert rates[0] == rates[1]
    for _ in range(3):
        a, b = next(old), next(job)
        assert a.losses == b.losses and "color" in a.losses
    assert equal(again.state_dict(), field.state_dict())


def test_a_share_of_zero_is_a_fit_as_short_ones_are(ball, monkeypatch):
    losses = []
    for volume, shortest in ((0.0, STEPS), (0.25, STEPS + 1)):
        monkeypatch.setattr(volume_start, "SHORTEST_STEPS", shortest)
        job = short(field_of(), ball, volume=volume, exposure=0.0)
        assert job.start is None and not job.refining
        losses.append([step.losses for step in islice(job, 5)])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("minutes", [volume_start.SHORTEST_MINUTES, 0.9 * volume_start.SHORTEST_MINUTES])
def test_minutes_decide_as_steps_do(ball, minutes):
    job = Fit(field_of(), ball, minutes=minutes, recipe=Recipe(rays=64))
    assert (job.start is not None) == (minutes >= volume_start.SHORTEST_MINUTES)


def test_fits_that_learn_no_surface_from_colours_begin_without(ball):
    assert short(field_of(), ball).start is not None
    deep = mesh_views("warp:sphere", count=2, test=0, size=16, depth=True)
    for views, values in ((deep, {"depth": 1.0}), (deep, {"on_surface": 1.0}), (ball, {"color": 0.0, "volume": 0.5})):
        assert short(field_of(), views, **values).start is None
    assert RECIPES["dvr"].volume == RECIPES["code"].volume == 0.0
    fixed = field_of()
    for parameter in value_parameters(fixed):
        parameter.requires_grad_(False)
    assert short(fixed, ball).start is None
    unmasked = replace(deep, masks=(None,) * len(deep.masks))
    assert short(field_of(), unmasked).start is None


@pytest.mark.parametrize("volume", [-0.1, 1.0, math.nan, math.inf])
def test_a_share_that_is_none_is_refused(volume):
    with pytest.raises(ValueError, match=r"^fit: volume must be a share from 0 to less than 1, got \S+$"):
        Recipe(volume=volume)


def test_the_shape_stays_while_colours_are_learnt_and_wants_its_gradient_again(ball):
    """Also where a fit is left between two steps: the next fit of the field learns all of it."""
    field = field_of()
    job = short(field, ball)
    shape = value_parameters(field)
    list(islice(job, VOLUME + 1))
    before = {name: p.detach().clone() for name, p in field.named_parameters()}
    list(islice(job, 3))
    assert {name for name, p in field.named_parameters() if torch.equal(p, before[name])} == {
        name for name, p in field.named_parameters() if p in shape
    }
    assert all(p.requires_grad for p in field.parameters()) and value_parameters(field) == shape
    list(islice(job, 20))
    assert not any(torch.equal(p, before[name]) for name, p in field.named_parameters())


def test_parameters_that_are_held_want_their_gradient_again_after_an_error():
    a, b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1), requires_grad=False)
    with pytest.raises(KeyError), frozen([a, b]):
        assert not a.requires_grad
        raise KeyError
    assert a.requires_grad and not b.requires_grad


def test_a_field_without_colours_is_fitted_to_the_end(ball):
    """It learns none alone, so its ball may change from the first step on."""
    field = Plain(colored=False)
    job = short(field, ball, learn_background=False)
    list(islice(job, VOLUME + 1))
    before = float(field.radius.detach())
    next(job)
    assert float(field.radius.detach()) != before and 0.55 < before < 1.1  # it was 0.5
    assert len(list(job)) == STEPS - VOLUME - 2


def test_the_surface_is_taken_where_no_step_is_left_for_it(ball):
    field = field_of()
    job = short(field, ball, volume=0.999)
    assert len(list(job)) == STEPS and job.start is None and job.state().keys() >= {REFINING}
    radius = extract(field, resolution=32, colors=False).vertices.norm(dim=1)
    assert 0.85 < float(radius.mean()) < 1.1  # four silhouettes hold more than the ball; it was 0.5


def test_a_volume_without_a_surface_leaves_the_field_as_it_is(ball, monkeypatch):
    def nothing(*_):
        raise ValueError("no surface")

    monkeypatch.setattr(volume_start.VolumeStart, "surface", nothing)
    field = field_of()
    job = short(field, ball)
    list(islice(job, VOLUME))
    before = field.value(torch.zeros(1, 3)).detach()
    with pytest.warns(UserWarning, match="^fit: the volume that the fit began with holds no surface"):
        next(job)
    assert not job.refining and job.start is None and REFINING not in job.state()
    assert abs(float(field.value(torch.zeros(1, 3)).detach() - before)) < 0.05
    plain = short(field_of(), ball, volume=0.0)
    assert [g["rate"] for g in job.optimizer.param_groups] == [g["rate"] for g in plain.optimizer.param_groups]


@pytest.mark.parametrize("how", ["weights", "loss"])
def test_numbers_that_are_none_end_it_and_the_last_finite_state_stays(ball, tmp_path, how):
    """NaN in the voxels is not saved; NaN in the loss changes no voxel."""
    field = field_of()
    run, job = Run.create(tmp_path / "run", Scene(field={"kind": "hashgrid"})), short(field, ball)
    written: list[dict[str, torch.Tensor]] = []

    def write(path):
        written.append(job.state())
        path.touch()

    steps = saved_steps(run, job, write, every=1e-9)
    list(islice(steps, 6))
    assert job.start is not None
    table = job.start.voxels.table.data
    if how == "weights":
        table.fill_(math.nan)
        said = "weights are no longer finite after step 6; step 5 is the last one that was saved"
    else:
        job.pixels.color = job.pixels.color.float() * math.nan
        said = "fit: the loss volume is nan at step 7; the voxels of the step before are kept"
    kept = job.start.voxels.table.detach().clone()
    with pytest.raises(RuntimeError, match=said):
        list(steps)
    assert all(bool(x.isfinite().all()) for x in written[-1].values())
    assert int(written[-1]["counts"][0]) == (5 if how == "weights" else 6)
    if how == "loss":
        assert torch.equal(job.start.voxels.table, kept)
        again = short(field_of(), ball)
        again.resume(written[-1])
        assert math.isfinite(next(again).losses["volume"])


def test_the_state_of_another_volume_is_refused(ball):
    job = short(field_of(), ball)
    list(islice(job, 3))
    state = job.state()
    state["volume.table"] = state["volume.table"][:-1]
    with pytest.raises(ValueError, match="voxels of its beginning do not belong together"):
        short(field_of(), ball).resume(state)


def test_the_help_names_the_share(capsys):
    from warpdvr.cli.main import main

    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    assert "--volume" in capsys.readouterr().out and warpdvr.Recipe().volume > 0

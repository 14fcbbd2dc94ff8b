"""Refined cameras: against SciPy's rotations, finite differences in float64, and cameras that were moved on purpose."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from reference import difference, pixel_rays, sphere_t
from scipy.spatial.transform import Rotation
from torch import Tensor

from warpdvr.cameras.alignment import camera_errors
from warpdvr.cameras.camera import Camera
from warpdvr.cameras.pose import Poses
from warpdvr.cameras.projection import PINHOLE
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets.views import Views
from warpdvr.fields.analytic import Sphere, Torus
from warpdvr.fields.sdf import SDF
from warpdvr.fitting.fit import Fit
from warpdvr.fitting.recipe import Recipe
from warpdvr.intersection.sphere_trace import SphereTrace
from warpdvr.rendering.render import render
from warpdvr.rendering.surface import surface

SIZE = 24


def cameras(n: int = 4, size: int = SIZE) -> tuple[Camera, ...]:
    eyes = [(3 * np.cos(2 * i), 3 * np.sin(2 * i), 1.5 * (i % 3 - 0.6)) for i in range(n)]
    return tuple(Camera.look_at(eye, width=size, height=size) for eye in eyes)


def start(n: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.stack([camera.pose for camera in cameras(n)]).to(dtype)


def moved_by(pose: Tensor, twist: Tensor) -> Tensor:
    """Return a pose (4, 4) turned in its own axes about the scene's origin, and then shifted, by SciPy.

    A point at x in the camera's axes is to be at exp(w) (x - o) + o + u, where the origin is at o.
    """
    given = pose.double()
    o = torch.linalg.inv(given)[:3, 3]
    motion = torch.eye(4, dtype=torch.float64)
    motion[:3, :3] = torch.from_numpy(Rotation.from_rotvec(twist[:3].numpy()).as_matrix())
    motion[:3, 3] = o - motion[:3, :3] @ o + twist[3:]
    return given @ motion


def turned_by(pose: Tensor, turn: Rotation, shift: Tensor) -> Tensor:
    """Return a pose (4, 4) turned about its centre and shifted, in the world's axes."""
    found = pose.double().clone()
    found[:3, :3] = torch.from_numpy(turn.as_matrix()) @ found[:3, :3]
    found[:3, 3] += shift
    return found


def test_cameras_start_where_they_are(device):
    given = start(dtype=torch.float32).to(device)
    poses = Poses(given)
    assert torch.equal(poses(), given) and poses().dtype == given.dtype
    given += 1.0
    assert not torch.equal(poses(), given)
    assert [name for name, _ in poses.named_parameters()] == ["twist"] and poses.twist.shape == (4, 6)


def test_cameras_are_moved_as_by_rotation_vectors(device):
    poses = Poses(start().to(device))
    twist = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    poses.twist.data.copy_(twist)
    expected = torch.stack([moved_by(pose, a) for pose, a in zip(start(), twist, strict=True)])
    assert torch.allclose(poses().detach().cpu(), expected, atol=1e-12)


def test_a_quarter_turn_about_the_object():
    """A camera 3 in front of the origin that turns about its downward axis goes round to the side and still looks."""
    given = torch.eye(4)
    given[2, 3] = -3
    poses = Poses(given[None])
    poses.twist.data[0] = torch.tensor([0, np.pi / 2, 0, 0.1, 0.2, 0.3])
    expected = torch.tensor([[0.0, 0, 1, -3 + 0.1], [0, 1, 0, 0.2], [-1, 0, 0, 0.3], [0, 0, 0, 1]])
    assert torch.allclose(poses()[0], expected, atol=1e-6)


@pytest.mark.parametrize("angle", [0.01, 1.0, 4.0])
def test_a_rotation_stays_one(angle):
    poses = Poses(start(dtype=torch.float32))
    poses.twist.data.copy_(angle * torch.randn(4, 6, generator=torch.Generator().manual_seed(1)))
    R = poses().detach()[:, :3, :3]
    assert torch.allclose(R @ R.mT, torch.eye(3).expand(4, 3, 3), atol=2e-6) and (R.det() > 0).all()
    assert torch.equal(poses()[:, 3], torch.tensor([[0.0, 0, 0, 1]]).expand(4, 4))


@pytest.mark.parametrize("angle", [0.0, 0.03])
def test_depth_is_differentiable_with_respect_to_the_cameras(device, angle):
    """Against central differences of the closed form in float64."""
    poses, given = Poses(start().to(device)), cameras()
    twist = angle * torch.randn(4, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    poses.twist.data.copy_(twist)
    K = torch.stack([camera.K for camera in given]).to(device)
    view = torch.arange(4).repeat_interleave(12)
    pixel = SIZE / 2 + 3 * torch.rand(48, 2, generator=torch.Generator().manual_seed(3)) - 1.5
    weight = torch.rand(48, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    rays = PINHOLE.rays(K, poses(), view.to(device), pixel.to(device))
    seen = surface(Sphere(0.5, (0.1, 0.0, -0.1)).to(device), rays, SphereTrace())
    assert len(seen.hit.ray) == 48
    (found,) = torch.autograd.grad((weight.to(device) * seen.t).sum(), poses.twist)

    def total(moved: Tensor) -> Tensor:
        lengths = []
        for i, camera in enumerate(given):
            pose = moved_by(camera.pose, moved[i]).numpy()
            o, d = pixel_rays(camera.K.numpy(), pose, pixel[view == i].double().numpy())
            lengths.append(sphere_t(torch.from_numpy(o.copy()), torch.from_numpy(d), 0.5, torch.tensor([0.1, 0, -0.1])))
        return (weight * torch.cat(lengths)).sum()

    expected = difference(total, twist)
    assert (found.cpu() - expected).norm() < 1e-3 * expected.norm() and (expected.abs().amax(0) > 0.01).all(), (
        expected.abs().amax(0),
        (found.cpu() - expected).norm() / expected.norm(),
    )


class Patterned(Torus):
    """A tilted torus in colours of the place, which tell how it is turned."""

    def color(self, x, normal, direction, feature):
        return 0.5 + 0.4 * (x @ torch.tensor([[5.0, 1, 0], [0, 5, 1], [2, 0, 5]]).to(x)).sin()


def pictures(field: Torus, given: tuple[Camera, ...]) -> Views:
    """Photographs of a field; the first is held out."""
    with torch.no_grad():
        seen = [render(field, camera) for camera in given]
    return Views(
        tuple((255 * image.rgb).round().to(torch.uint8) for image in seen),
        tuple(image.mask for image in seen),
        given,
        tuple(map(str, range(len(given)))),
        tuple(range(1, len(given))),
        (0,),
        SceneTransform.identity(),
        "a torus",
    )


def shaken(views: Views, degrees: float) -> Views:
    """Turn the cameras of the training views about random axes."""
    generator = np.random.default_rng(0)
    found = list(views.cameras)
    for i in views.train:
        axis = generator.normal(size=3)
        turn = Rotation.from_rotvec(np.deg2rad(degrees) * axis / np.linalg.norm(axis))
        found[i] = replace(found[i], pose=turned_by(found[i].pose, turn, torch.zeros(3)))
    return replace(views, cameras=tuple(found))


def off(some: tuple[Camera, ...], true: tuple[Camera, ...]) -> list[float]:
    """Return the angles between the rotations of cameras [degree]."""
    pairs = [(a.pose[:3, :3].numpy(), b.pose[:3, :3].numpy()) for a, b in zip(some, true, strict=True)]
    return [float(np.rad2deg(Rotation.from_matrix(a.T @ b).magnitude())) for a, b in pairs]


def test_cameras_that_were_turned_find_their_way_back():
    """To a shape that is known and hardly moves, so that no common motion is left open."""
    field, recipe = Patterned(0.55, 0.25), Recipe(rays=384, rate=1e-9, cameras=4e-3, eikonal=0.0, smooth=0.0)
    views = pictures(field, cameras(4, 40))
    job = Fit(field, shaken(views, 2.0), iterations=150, recipe=recipe)
    before = off(job.cameras, views.cameras)
    assert before[1:] == pytest.approx([2.0] * 3, abs=1e-4) and before[0] == 0
    steps = list(job)
    after = off(job.cameras, views.cameras)
    assert np.mean(after[1:]) < 0.5 * np.mean(before[1:])
    assert np.mean([step.losses["total"] for step in steps[-5:]]) < 0.5 * steps[0].losses["total"]
    shift = [float((a.centre - b.centre).norm()) for a, b in zip(job.cameras, views.cameras, strict=True)]
    assert max(shift) < 0.05 and field.major.item() == pytest.approx(0.55, abs=1e-5)


def test_shape_and_drifting_cameras_of_a_sequence_are_found_together():
    """Each camera of a ride around is off by a little more than the one before: a walk at random, as trackers drift."""
    ride = [Camera.look_at((3 * np.cos(a), 3 * np.sin(a), 1.2 * np.sin(2 * a)), width=40, height=40)
            for a in np.linspace(0, 2 * np.pi, 12, endpoint=False)]  # fmt: skip
    views = replace(pictures(Patterned(0.55, 0.25), tuple(ride)), train=tuple(range(12)), test=())
    rng, turn, shift, drifted = np.random.default_rng(3), Rotation.identity(), torch.zeros(3).double(), []
    for camera in views.cameras:
        turn = Rotation.from_rotvec(np.deg2rad(0.6) * rng.normal(size=3)) * turn
        shift = shift + 0.04 * torch.from_numpy(rng.normal(size=3))
        drifted.append(replace(camera, pose=turned_by(camera.pose, turn, shift)))
    field = Patterned(0.5, 0.3)
    recipe = Recipe(rays=512, rate=4e-3, cameras=4e-3, eikonal=0.0, smooth=0.0)
    job = Fit(field, replace(views, cameras=tuple(drifted)), iterations=300, recipe=recipe)
    list(job)
    before, after = (camera_errors(some, views.cameras) for some in (drifted, job.cameras))
    assert before.rotation.mean() > 1 and before.centre.mean() > 0.03
    print(before, after, field.major.item(), field.minor.item())
    assert after.rotation.mean() < 0.5 * before.rotation.mean() and after.centre.mean() < 0.7 * before.centre.mean()
    assert field.major.item() / field.minor.item() == pytest.approx(0.55 / 0.25, rel=0.05)


def test_only_cameras_of_training_views_are_refined(device):
    field = Patterned().to(device)
    views = pictures(Patterned(), cameras())
    job = Fit(field, views, iterations=3, recipe=Recipe(rays=64, cameras=1e-3))
    list(job)
    assert job.cameras[0] is views.cameras[0] and job.poses is not None
    for k, i in enumerate(views.train):
        expected = moved_by(views.cameras[i].pose, job.poses.twist[k].detach().cpu().double())
        assert (job.poses.twist[k] != 0).any() and job.cameras[i].pose.dtype == torch.float64
        assert torch.allclose(job.cameras[i].pose, expected, atol=1e-5)
        assert torch.equal(job.cameras[i].K, views.cameras[i].K) and not job.cameras[i].pose.requires_grad


def test_cameras_learn_at_their_own_rate():
    views = pictures(Patterned(), cameras())
    job = Fit(Patterned(), views, iterations=100, recipe=Recipe(rays=64, rate=0.5, cameras=2e-3))
    list(islice(job, 1))
    assert job.poses is not None  # Adam's first step is as long as the rate, which starts at a twentieth
    assert job.poses.twist.abs().max().item() == pytest.approx(2e-3 * 0.05, rel=1e-3)


def test_without_a_rate_cameras_stay():
    views = pictures(Patterned(), cameras())
    job = Fit(Patterned(), views, iterations=2, recipe=Recipe(rays=64))
    list(job)
    assert job.poses is None and job.cameras == views.cameras and "cameras" not in job.state()


@pytest.mark.parametrize("samples", [(), (8, 12, 16, 24)])
def test_resumed_fit_goes_on_with_its_cameras(samples):
    n, views = 10, pictures(Patterned(), cameras())
    recipe = Recipe(rays=96, cameras=3e-3, samples=samples)

    def small():
        torch.manual_seed(0)
        return SDF(width=16, depth=1, features=4, color_width=16, color_depth=1, bounds=1.1)

    straight, field = small(), small()
    whole, job = (Fit(f, views, iterations=n, recipe=recipe, seed=3) for f in (straight, field))
    expected, begun = list(whole), list(islice(job, n // 2))
    again = Fit(field, views, iterations=n, recipe=recipe, seed=8)
    again.resume(job.state())
    assert [step.losses for step in [*begun, *again]] == [step.losses for step in expected]
    assert whole.poses is not None and again.poses is not None and (whole.poses.twist != 0).any()
    assert torch.equal(whole.poses.twist, again.poses.twist)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), field.parameters(), strict=True))


def test_state_of_other_cameras_is_refused():
    recipe = Recipe(rays=16, cameras=1e-3)
    job, other = (Fit(Patterned(), pictures(Patterned(), cameras(n)), iterations=4, recipe=recipe) for n in (4, 5))
    next(job)
    with pytest.raises(ValueError, match=r"^fit: the saved state has 3 cameras, but there are 4$"):
        other.resume(job.state())
    state = job.state()
    next(job)
    assert not torch.equal(job.state()["cameras"], state["cameras"])  # a copy, which does not move with the fit

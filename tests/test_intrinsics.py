"""Refined intrinsics and lenses: against SciPy's inverse of OpenCV's formula, finite differences, and known cameras."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from reference import difference, sphere_t
from scipy.optimize import fsolve
from test_pose import Patterned, cameras, pictures
from torch import Tensor

from warpdvr.cameras.camera import Camera, mixed_rays
from warpdvr.cameras.intrinsics import Intrinsics
from warpdvr.cameras.lenses import FisheyeLens, OpenCVLens
from warpdvr.cameras.projection import ORTHOGRAPHIC, PINHOLE
from warpdvr.fields.analytic import Sphere
from warpdvr.fields.sdf import SDF
from warpdvr.fitting.fit import Fit
from warpdvr.fitting.recipe import Recipe
from warpdvr.intersection.sphere_trace import SphereTrace
from warpdvr.rendering.surface import surface

LENS = (-0.25, 0.05, 0.002, -0.003)
CENTRE = torch.tensor([0.1, 0.0, -0.1], dtype=torch.float64)


def bent(n: int = 4, size: int = 24, lens: tuple[float, ...] = LENS, factor: float = 1.0) -> tuple[Camera, ...]:
    """Cameras of one kind with a lens, whose focal length is multiplied by a factor."""
    found = []
    for camera in cameras(n, size):
        K = camera.K.clone()
        K[0, 0] *= factor
        K[1, 1] *= factor
        found.append(replace(camera, K=K, projection=OpenCVLens(lens)))
    return tuple(found)


def plane_of(moved: np.ndarray, lens: np.ndarray) -> np.ndarray:
    """Return the point that OpenCV's formula takes to `moved`, by SciPy."""
    k1, k2, p1, p2 = lens

    def off(p: np.ndarray) -> np.ndarray:
        x, y = p
        q = x * x + y * y
        radial = 1 + k1 * q + k2 * q * q
        along = x * radial + 2 * p1 * x * y + p2 * (q + 2 * x * x), y * radial + p1 * (q + 2 * y * y) + 2 * p2 * x * y
        return np.array(along) - moved

    return fsolve(off, moved, xtol=1e-11)


def test_depth_is_differentiable_with_respect_to_the_intrinsics(device):
    """Against central differences of the closed form in float64: two cameras of two views each."""
    given = (*bent(4)[:2], *bent(4, factor=1.1, lens=(0.1, -0.02, 0.0, 0.001))[2:])
    refined = Intrinsics(given, principal_point=True, device=device)
    assert refined.group.tolist() == [0, 0, 1, 1] and refined.correction.shape == (2, 7)
    shift = 0.02 * torch.randn(2, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    shift = shift.float().double()
    refined.correction.data.copy_(shift)
    view = torch.arange(4).repeat_interleave(6)
    pixel = 12 + 3 * torch.rand(24, 2, generator=torch.Generator().manual_seed(3)) - 1.5
    weight = torch.rand(24, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    K, projections = refined()
    pose = torch.stack([camera.pose for camera in given]).to(device)
    rays = mixed_rays(projections, K, pose, view.to(device), pixel.to(device))
    seen = surface(Sphere(0.5, CENTRE.tolist()).to(device), rays, SphereTrace())
    assert len(seen.hit.ray) == 24
    (found,) = torch.autograd.grad((weight.to(device) * seen.t).sum(), refined.correction)
    unit = refined.unit.cpu()

    def total(moved: Tensor) -> Tensor:
        lengths = []
        for i, (v, uv) in enumerate(zip(view.tolist(), pixel.double(), strict=True)):
            numbers = moved[v // 2] * unit[v // 2]
            K = given[v].K
            plane = (uv - K[:2, 2]) / K.diagonal()[:2]
            plane = (plane - numbers[1:3]) / numbers[0].exp()
            lens = given[v].projection.tensors()["coefficients"] + numbers[3:]
            d = np.array([*plane_of(plane.numpy(), lens.numpy()), 1.0])
            d = given[v].pose[:3, :3].numpy() @ d / np.linalg.norm(d)
            o = given[v].centre[None]
            lengths.append(weight[i] * sphere_t(o, torch.from_numpy(d)[None], 0.5, CENTRE)[0])
        return torch.stack(lengths).sum()

    expected = difference(total, shift)
    assert (expected.abs() > 1e-6).equal(unit > 0) and unit[1, 5] == 0, expected  # a coefficient of 0 stays
    assert (found.cpu() - expected).norm() < 1e-3 * expected.norm()
    assert torch.allclose(found.cpu().double(), expected, rtol=0.02, atol=1e-4 * float(expected.abs().max()))


def test_each_number_moves_the_picture_by_as_much():
    (camera,) = bent(1, 40)
    refined = Intrinsics([camera], principal_point=True)
    pixel = torch.cartesian_prod(torch.arange(5.0, 40, 10), torch.arange(5.0, 40, 10)).double()
    x = camera.rays(pixel, dtype=torch.float64)
    radius = (pixel - 20).square().sum(1).mean().sqrt()
    for i in range(7):
        refined.correction.data.zero_()[0, i] = 1e-3
        (moved,) = refined.refined([camera])
        motion = (moved.project(x.at(torch.ones(16).double()))[0] - pixel).square().sum(1).mean().sqrt()
        focal = float(camera.K[0, 0])
        assert float(motion) == pytest.approx(1e-3 * (focal if i in (1, 2) else float(radius)), rel=0.02), i


def test_cameras_start_as_they_are_and_share_what_is_equal():
    noisy = [replace(c, K=c.K + 1e-6 * c.K.triu()) for c in bent(2)]
    noisy[1] = replace(noisy[1], K=bent(2)[1].K)
    fisheye = replace(noisy[0], projection=FisheyeLens([0.1, 0.0, 0.0, 0.0]))
    given = [noisy[0], cameras(1)[0], fisheye, noisy[1], replace(noisy[0], projection=ORTHOGRAPHIC)]
    refined = Intrinsics(given)
    assert refined.group.tolist() == [0, 1, 2, 0, 3] and refined.correction.shape == (4, 7)
    for before, after in zip(given, refined.refined(given), strict=True):
        assert torch.equal(after.K, before.K) and after.projection == before.projection
    _, projections = refined()
    assert projections[0] is projections[3] and projections[1] is PINHOLE
    refined.correction.data.fill_(0.01)
    moved = refined.refined(given)
    for before, after in zip(given, moved, strict=True):
        assert float(after.K[0, 0]) == pytest.approx(float(before.K[0, 0]) * np.exp(0.01), rel=1e-6)
        assert torch.equal(after.K[:2, 2], before.K[:2, 2]) and torch.equal(after.pose, before.pose)
    assert moved[1].projection == PINHOLE and moved[0].projection != given[0].projection


def test_focal_length_and_lens_find_their_way_back():
    """To a shape that is known and hardly moves: both errors become less than half."""
    views = pictures(Patterned(0.55, 0.25), bent(4, 40, (-0.25, 0.0, 0.0, 0.0)))
    wrong = replace(views, cameras=bent(4, 40, (-0.05, 0.0, 0.0, 0.0), 1.03))
    recipe = Recipe(rays=384, rate=1e-9, intrinsics=4e-3, eikonal=0.0, smooth=0.0)
    job = Fit(Patterned(0.55, 0.25), wrong, iterations=120, recipe=recipe)
    steps = list(job)
    true = views.cameras[0]
    print([camera.K[0, 0].item() for camera in job.cameras], job.cameras[0].projection)
    assert len({camera.K[0, 0].item() for camera in job.cameras}) == 1  # one camera, the held-out view included
    for found, before in ((job.cameras[0], wrong.cameras[0]), (job.cameras[2], wrong.cameras[2])):
        k1, start = (float(c.projection.tensors()["coefficients"][0]) for c in (found, before))
        assert abs(k1 + 0.25) < 0.5 * abs(start + 0.25)
        assert abs(found.K[0, 0] - true.K[0, 0]) < 0.5 * abs(before.K[0, 0] - true.K[0, 0])
        assert torch.equal(found.K[:2, 2], before.K[:2, 2]) and torch.equal(found.pose, before.pose)
    assert np.mean([step.losses["total"] for step in steps[-5:]]) < 0.5 * steps[0].losses["total"]


def test_hulls_of_masks_take_the_intrinsics_of_the_step():
    job = Fit(Patterned(), pictures(Patterned(), bent()), iterations=2, recipe=Recipe(rays=64, intrinsics=1e-3))
    x = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    before = job.pixels.votes(x)[1]
    assert job.intrinsics is not None
    job.intrinsics.correction.data[:, 0] = 1.0
    next(job)
    after = job.pixels.votes(x)[1]
    zoomed = [replace(c, K=torch.cat([c.K[:, :2] * np.e, c.K[:, 2:]], 1)) for c in job.views.cameras]
    zoomed = [replace(c, K=torch.cat([c.K[:2], torch.tensor([[0, 0, 1.0]])])) for c in zoomed]
    inside = torch.zeros(4000, dtype=torch.int64)
    for i in job.views.train:
        pixel, z = zoomed[i].project(x.double())
        inside += (z > 0) & (pixel >= 0).all(1) & (pixel < 24).all(1)
    assert (after != before).any() and ((after - inside).abs() <= 1).all() and (after == inside).float().mean() > 0.99


def test_resumed_fit_goes_on_with_its_intrinsics():
    n, views = 8, pictures(Patterned(), bent())
    recipe = Recipe(rays=96, cameras=1e-3, intrinsics=3e-3, principal_point=True)

    def small() -> SDF:
        torch.manual_seed(0)
        return SDF(width=16, depth=1, features=4, color_width=16, color_depth=1, bounds=1.1)

    whole, job = (Fit(small(), views, iterations=n, recipe=recipe, seed=3) for _ in range(2))
    expected, begun = list(whole), list(islice(job, n // 2))
    again = Fit(job.field, views, iterations=n, recipe=recipe, seed=8)
    again.resume(job.state())
    assert [step.losses for step in [*begun, *again]] == [step.losses for step in expected]
    assert whole.intrinsics is not None and again.intrinsics is not None
    assert torch.equal(whole.intrinsics.correction, again.intrinsics.correction)
    assert (whole.intrinsics.correction != 0).all() and (whole.intrinsics.unit > 0).all()


def test_states_of_fits_without_intrinsics_or_of_other_cameras_are_refused():
    views = pictures(Patterned(), bent())
    plain, moving = Recipe(rays=16), Recipe(rays=16, intrinsics=1e-3)
    without, job = (Fit(Patterned(), views, iterations=4, recipe=recipe) for recipe in (plain, moving))
    assert "intrinsics" not in without.state() and without.cameras == views.cameras
    with pytest.raises(ValueError, match=r"^fit: intrinsics are to be refined, but the saved state is of a fit that"):
        job.resume(without.state())
    other = Fit(Patterned(), pictures(Patterned(), cameras()), iterations=4, recipe=moving)
    with pytest.raises(ValueError, match=r"^fit: the saved state has intrinsics \(1, 3\).*are \(1, 7\)$"):
        job.resume(other.state())


def test_principal_points_need_a_rate():
    with pytest.raises(ValueError, match=r"^fit: principal_point is learnt with the other intrinsics, give intrinsics"):
        Recipe(principal_point=True)

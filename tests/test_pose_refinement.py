"""Cameras refined against a known shape: against finite differences and closed forms in float64, by SciPy and NumPy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from reference import difference
from scipy.spatial.transform import Rotation
from test_pose import Patterned, moved_by, turned_by
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.projection import ORTHOGRAPHIC
from warpdvr.cameras.rays import pixel_centres
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets.views import Views
from warpdvr.fields.analytic import Sphere, Union
from warpdvr.fitting.image_pyramid import pyramid
from warpdvr.fitting.pose_refinement import refine
from warpdvr.fitting.pose_residuals import PoseResiduals, Scale
from warpdvr.intersection.sphere_trace import SphereTrace
from warpdvr.rendering.render import render

BALLS = [((0.0, 0.0, 0.0), 0.45), ((0.45, 0.1, 0.2), 0.3), ((-0.3, 0.5, -0.1), 0.25), ((0.1, -0.2, 0.6), 0.2)]
"""Centres and radii of balls that make a lopsided shape together."""


def shape() -> Union:
    return Union([Sphere(radius, centre) for centre, radius in BALLS])


def rays(camera: Camera, pixel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return origins, (3,) or (n, 3), and unit directions (n, 3) in float64."""
    pose = camera.pose.numpy()
    local = np.c_[pixel, np.ones(len(pixel))] @ np.linalg.inv(camera.K.numpy()).T
    if camera.projection is ORTHOGRAPHIC:
        return pose[:3, 3] + local[:, :2] @ pose[:3, :2].T, np.broadcast_to(pose[:3, 2], local.shape)
    d = local @ pose[:3, :3].T
    return pose[:3, 3], d / np.linalg.norm(d, axis=1, keepdims=True)


def photograph(camera: Camera, samples: int = 5) -> tuple[Tensor, Tensor]:
    """Return mask and z-depth (h, w) of the balls from the closed form of rays and balls, float64."""
    side = (np.arange(samples) + 0.5) / samples
    u, v = np.meshgrid(
        (np.arange(camera.width)[:, None] + side).ravel(), (np.arange(camera.height)[:, None] + side).ravel()
    )
    t = first(*rays(camera, np.stack([u.ravel(), v.ravel()], 1)))
    cover = np.isfinite(t).reshape(camera.height, samples, camera.width, samples).mean((1, 3))
    o, d = rays(camera, pixel_centres(camera.width, camera.height).numpy())
    z = first(o, d) * (d @ camera.pose.numpy()[:3, 2])
    depth = torch.from_numpy(np.where(np.isfinite(z), z, np.nan)).float().view(camera.height, camera.width)
    return torch.from_numpy(cover > 0.5), depth


def first(o: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Return the ray length to the first ball, infinite for a miss."""
    best = np.full(len(d), np.inf)
    for centre, radius in BALLS:
        middle = d @ (np.array(centre) - o)
        root = middle**2 - (np.square(np.array(centre) - o).sum() - radius**2)
        best = np.minimum(best, np.where(root > 0, middle - np.sqrt(np.maximum(root, 0)), np.inf))
    return best


def seen(n: int = 3, size: int = 120, *, depth: bool = True) -> Views:
    rng = np.random.default_rng(1)
    cameras = []
    for _ in range(n):
        eye = rng.normal(size=3)
        cameras.append(Camera.look_at(3 * eye / np.linalg.norm(eye), width=size, height=size))
    masks, depths = zip(*map(photograph, cameras), strict=True)
    black = torch.zeros(size, size, 3, dtype=torch.uint8)
    names = tuple(f"v{i}" for i in range(n))
    transform = SceneTransform.identity()
    return Views(
        (black,) * n,
        masks,
        tuple(cameras),
        names,
        tuple(range(n)),
        (),
        transform,
        "balls",
        None,
        depths if depth else (),
    )


def off(views: Views, degrees: float = 10.0, shift: float = 0.1, seed: int = 0) -> Views:
    """Turn all cameras about their centres, and shift them, in random directions."""
    rng, found = np.random.default_rng(seed), []
    for camera in views.cameras:
        axis, way = (a / np.linalg.norm(a) for a in rng.normal(size=(2, 3)))
        turn = Rotation.from_rotvec(np.deg2rad(degrees) * axis)
        found.append(replace(camera, pose=turned_by(camera.pose, turn, shift * torch.from_numpy(way))))
    return replace(views, cameras=tuple(found))


def errors(some: tuple[Camera, ...], true: tuple[Camera, ...]) -> np.ndarray:
    """Return angle [degree] and distance of each, (n, 2), by SciPy."""
    pairs = [(a.pose.numpy(), b.pose.numpy()) for a, b in zip(some, true, strict=True)]
    angle = [Rotation.from_matrix(a[:3, :3].T @ b[:3, :3]).magnitude() for a, b in pairs]
    return np.stack([np.rad2deg(angle), [np.linalg.norm(a[:3, 3] - b[:3, 3]) for a, b in pairs]], 1)


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("kind", ["mask", "depth"])
def test_derivatives_are_those_of_the_closed_form(device: torch.device, kind: str, parallel: bool) -> None:
    """One ball, whose depth and least distance to a ray are formulas: central differences in float64."""
    centre, radius = np.array([0.1, -0.05, 0.2]), 0.5
    place = Camera.orthographic if parallel else Camera.look_at
    camera = place((2.0, -1.5, 1.2), width=50, height=50)
    image = torch.zeros(50, 50, 3, dtype=torch.uint8)
    wrong = torch.full((50, 50), 2.4)
    mask = torch.zeros(50, 50, dtype=torch.bool)
    mask[20:40, 10:30] = True
    level = pyramid(camera, image, mask if kind == "mask" else None, wrong if kind == "depth" else None, 50, device)[-1]
    solver = SphereTrace(cones=False)  # a ray that its cone decides does not know exactly where it is nearest
    problem = PoseResiduals(Sphere(radius, tuple(centre)).to(device), level, False, solver, camera.pose)
    problem.scales = {kind: Scale(1.0, 1.0, np.inf)}
    value, slope, curve = problem(camera.pose)
    pixel, cover, sharpness = level.pixel.cpu().numpy(), level.cover.cpu().double().numpy(), problem.sharpness
    d = rays(camera, pixel)[1]

    def parts(twist: Tensor) -> tuple[np.ndarray, np.ndarray]:
        o, d = rays(replace(camera, pose=moved_by(camera.pose, twist)), pixel)
        middle = (d * (centre - o)).sum(1)
        apart = np.square(centre - o).sum(-1) - middle**2
        return middle - np.sqrt(np.maximum(radius**2 - apart, 0)), np.sqrt(apart) - radius

    settled = parts(torch.zeros(6).double())[1] < 0

    def total(twist: Tensor) -> Tensor:
        t, least = parts(twist)
        if kind == "mask":
            kept = ~(settled & (cover > 0.999))
            return torch.tensor(np.square(1 / (1 + np.exp(sharpness * least)) - cover)[kept].sum() / len(cover))
        forward = d @ camera.pose.numpy()[:3, 2]
        return torch.tensor(np.square(t * forward - 2.4)[settled].mean())

    expected = difference(total, torch.zeros(6, dtype=torch.float64))
    assert value == pytest.approx(float(total(torch.zeros(6).double())), rel=1e-3)
    assert (2 * slope - expected).norm() < 1e-2 * expected.norm() and expected.norm() > 1e-3
    assert torch.allclose(curve, curve.mT) and bool((torch.linalg.eigvalsh(curve) > -1e-9).all())


@pytest.mark.parametrize("kinds", [("mask", "depth"), ("depth",)])
def test_cameras_ten_degrees_off_find_back(kinds: tuple[str, ...]) -> None:
    views = seen()
    far = off(views) if "mask" in kinds else off(views, 2.0, 0.03)
    looked: list[int] = []
    found = refine(shape(), far, kinds=kinds, callback=lambda i, one: looked.append(i))
    after = errors(found, views.cameras)
    assert (errors(far.cameras, views.cameras)[:, 0] > 1.9).all() and looked == [0, 1, 2]
    assert (after[:, 0] < 0.2).all() and (after[:, 1] < 0.002).all()


@pytest.mark.parametrize("seed", [4, 5])
def test_the_object_is_found_before_it_is_turned(seed: int) -> None:
    """From these starts all six numbers at once lead astray, to 78 and 124 degrees: roll and shift come first."""
    views = seen(size=60)
    far = off(views, seed=seed)
    after = errors(refine(shape(), far, [1]), views.cameras)
    assert after[1, 0] < 0.2 and after[1, 1] < 0.002


def test_outlines_alone_are_enough() -> None:
    views = seen(1, 240, depth=False)
    far = off(views, seed=2)
    after = errors(refine(shape(), far), views.cameras)
    assert after[0, 0] < 0.4 and after[0, 1] < 0.02


def test_colours_alone_are_enough() -> None:
    """No mask, so that nothing says where the object ends."""
    field, camera = Patterned(0.55, 0.25), Camera.look_at((2.0, -1.5, 1.5), width=100, height=100)
    with torch.no_grad():
        image = (255 * render(field, camera).rgb).round().to(torch.uint8)
    views = Views((image,), (None,), (camera,), ("one",), (0,), (), SceneTransform.identity(), "a torus")
    far = off(views, 0.6, 0.01)
    after = errors(refine(field, far), views.cameras)
    assert (errors(far.cameras, views.cameras) > [0.5, 0.009]).all() and (after < [0.2, 0.01]).all()


def test_other_cameras_and_the_field_are_kept() -> None:
    views, field = off(seen(), 1.0, 0.01), shape()
    before = {k: v.clone() for k, v in field.state_dict().items()}
    found = refine(field, views, [1], longest=60)
    assert found[0] is views.cameras[0] and found[2] is views.cameras[2]
    assert not torch.equal(found[1].pose, views.cameras[1].pose) and torch.equal(found[1].K, views.cameras[1].K)
    assert all(torch.equal(v, before[k]) for k, v in field.state_dict().items())
    assert all(p.grad is None for p in field.parameters())


def behind(camera: Camera) -> Camera:
    pose = camera.pose.clone()
    pose[:3, :3] = pose[:3, :3] @ torch.diag(torch.tensor([-1.0, 1, -1]).double())
    return replace(camera, pose=pose)


def aside(camera: Camera) -> Camera:
    pose = camera.pose.clone()
    pose[:3, :3] = pose[:3, :3] @ torch.from_numpy(Rotation.from_rotvec([0, 1.2, 0]).as_matrix())
    return replace(camera, pose=pose)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda v: replace(v, cameras=(behind(v.cameras[0]),)), r"^refine: view v0: the object lies behind its camera"),
        (lambda v: replace(v, cameras=(aside(v.cameras[0]),)), r"^refine: view v0: its camera looks past the object"),
        (
            lambda v: replace(v, masks=(None,), depths=()),
            r"^refine: view v0 has nothing to be compared by, asked for color and mask and depth: .* Union lacks",
        ),
    ],
)
def test_a_view_that_cannot_be_refined_is_named(change: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        refine(shape(), change(seen(1, 40)))  # type: ignore[operator]


def test_arguments() -> None:
    views = seen(1, 40)
    with pytest.raises(ValueError, match=r"^refine: what can be compared is color, mask, depth, got \['normal'\]$"):
        refine(shape(), views, kinds=["normal"])
    with pytest.raises(ValueError, match=r"^refine: pictures need at least 2 pixels along their longer side, got 1$"):
        refine(shape(), views, longest=1)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_size_of_the_scene_changes_no_refinement(scale: float, device: torch.device) -> None:
    """Lengths of a search that nobody gives are shares of the bounds, and its steps do not depend on the unit."""
    views = off(seen(1, 60), shift=0.05)
    sized = torch.tensor([1, 1, 1, scale], dtype=torch.float64)
    cameras = tuple(replace(c, pose=torch.cat([c.pose[:3] * sized, c.pose[3:]])) for c in views.cameras)
    larger = replace(views, cameras=cameras, depths=tuple(scale * z for z in views.depths if z is not None))
    balls = [Sphere(scale * radius, tuple(scale * a for a in centre)) for centre, radius in BALLS]
    (one,), (other,) = refine(shape().to(device), views), refine(Union(balls, bounds=scale).to(device), larger)
    assert (one.pose[:3, :3] - other.pose[:3, :3]).abs().max() < 2e-4
    assert (one.pose[:3, 3] - other.pose[:3, 3] / scale).abs().max() < 2e-4
    assert (one.pose[:3, 3] - views.cameras[0].pose[:3, 3]).norm() > 0.02

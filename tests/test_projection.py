"""Camera models against finite differences, closed forms, and a model that the package does not know."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from fisheye import Fisheye
from torch import Tensor

from warpdvr import Camera, Fit, Recipe, SphereTrace, Views, extract, render
from warpdvr.cameras.camera import mixed_rays
from warpdvr.cameras.closed_form_lenses import DivisionLens, EUCMLens, FOVLens
from warpdvr.cameras.lenses import FisheyeLens, OpenCVLens, RadialTangentialFisheyeLens, ThinPrismFisheyeLens
from warpdvr.cameras.projection import (
    ORTHOGRAPHIC,
    PINHOLE,
    Pinhole,
    Projection,
    projection_of,
    register_projection,
)
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets.normalise import extent_from_masks
from warpdvr.datasets.pixels import Pixels
from warpdvr.fields.analytic import Sphere
from warpdvr.fitting.checkpoint import Checkpoint, load
from warpdvr.intersection import lipschitz
from warpdvr.intersection.dense_march import DenseMarch
from warpdvr.shading.srgb import linear
from warpdvr.viewer import window

FISHEYE = Fisheye(torch.tensor(0.4, dtype=torch.float64))
LENSES = [
    OpenCVLens([0.03, 0.004, 1e-3, -2e-3]),
    FisheyeLens([0.02, -0.003, 4e-4, 0.0]),
    ThinPrismFisheyeLens([0.02, -0.003, 1e-3, -1e-3, 4e-4, 0.0, 1e-3, -1e-3]),
    RadialTangentialFisheyeLens([0.02, -0.003, 4e-4, 0.0, 0.0, 0.0, 1e-3, 1e-3, 1e-3, 0.0, -1e-3, 0.0]),
    FOVLens([0.6]),
    DivisionLens([-0.1]),
    EUCMLens([0.55, 1.05]),
]
MODELS = pytest.mark.parametrize("projection", [PINHOLE, ORTHOGRAPHIC, FISHEYE, *LENSES], ids=lambda p: p.name)
RNG = np.random.default_rng(0)


def skewed(projection: Projection, device: torch.device | str = "cpu") -> Camera:
    """Return a camera anywhere, with all entries of K."""
    K = torch.tensor([[70.0, 4, 30], [0, 60, 26], [0, 0, 1]], dtype=torch.float64)
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = torch.from_numpy(np.linalg.qr(RNG.normal(size=(3, 3)))[0])
    pose[:3, 0] *= torch.linalg.det(pose[:3, :3])
    pose[:3, 3] = torch.from_numpy(RNG.uniform(-2, 2, 3))
    return Camera(K, pose, 64, 48, projection).to(device)


def anywhere(n: int) -> Tensor:
    return torch.from_numpy(RNG.uniform([0, 0], [64, 48], (n, 2))).float()


@MODELS
def test_a_point_on_a_ray_projects_to_its_pixel(projection: Projection, device: torch.device) -> None:
    for _ in range(5):
        camera, pixel = skewed(projection, device), anywhere(500).to(device)
        rays, t = camera.rays(pixel), torch.linspace(0.5, 5, 500, device=device).double()
        again, z = camera.project(rays.origin + t[:, None] * rays.direction)
        assert (again - pixel).abs().max() < 1e-4
        assert torch.allclose(z, t * (rays.direction.double() @ camera.pose[:3, 2]), atol=1e-6) and (z > 0).all()


@MODELS
def test_the_kernel_makes_the_rays_of_the_torch_form(projection: Projection, device: torch.device) -> None:
    camera, pixel = skewed(projection, device), anywhere(500).to(device)
    view = torch.zeros(500, dtype=torch.int64, device=device)
    rays = camera.rays(pixel)
    assert rays.origin.dtype == rays.direction.dtype == torch.float32
    origin, direction = camera.projection.world_rays(camera.K[None], camera.pose[None], view, pixel)
    for a, b in ((rays.origin, origin), (rays.direction, direction)):
        assert b.dtype == torch.float64 and (a - b).abs().max() < 5e-7


def test_orthographic_rays_are_those_of_numpy(device: torch.device) -> None:
    camera, pixel = skewed(ORTHOGRAPHIC, device), anywhere(500).to(device)
    K, pose = camera.K.cpu().numpy(), camera.pose.cpu().numpy()
    plane = np.linalg.solve(K, np.concatenate([pixel.cpu().double().numpy(), np.ones((500, 1))], 1).T)[:2]
    rays = camera.rays(pixel)
    assert np.allclose(rays.origin.cpu(), pose[:3, 3] + (pose[:3, :2] @ plane).T, atol=5e-7)
    assert np.allclose(rays.direction.cpu(), pose[:3, 2], atol=2e-7)


@pytest.mark.parametrize("what", ["K", "pose", "own"])
@MODELS
def test_the_gradient_of_rays_is_that_of_finite_differences(
    projection: Projection, what: str, device: torch.device
) -> None:
    if what == "own" and not projection.tensors():
        assert projection == projection_of(projection.describe())
        return
    camera, pixel, view = skewed(projection), anywhere(40), torch.zeros(40, dtype=torch.int64)
    weight = torch.from_numpy(RNG.normal(size=(2, 40, 3)))
    given = {
        "K": camera.K,
        "pose": camera.pose,
        **({"own": own} if (own := next(iter(projection.tensors().values()), None)) is not None else {}),
    }

    def model(own: Tensor | None) -> Projection:
        return projection if own is None else projection.with_parameters(**dict.fromkeys(projection.tensors(), own))

    def weighed(matrix: Tensor) -> Tensor:
        at = {**given, what: matrix}
        rays = model(at.get("own")).world_rays(at["K"][None], at["pose"][None], view, pixel)
        return (weight * torch.stack(rays)).sum()

    expected = reference.difference(weighed, given[what])
    leaf = given[what].clone().requires_grad_()
    assert torch.allclose(torch.autograd.grad(weighed(leaf), leaf)[0], expected, rtol=1e-7, atol=1e-7)
    leaf = given[what].clone().to(device).requires_grad_()
    at = {**{k: m.to(device) for k, m in given.items()}, what: leaf}
    rays = model(at.get("own")).to(device).rays(at["K"][None], at["pose"][None], view.to(device), pixel.to(device))
    (weight.float().to(device) * torch.stack([rays.origin, rays.direction])).sum().backward()
    assert leaf.grad is not None
    assert torch.allclose(leaf.grad.cpu(), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("what", ["K", "pose", "x"])
@MODELS
def test_the_gradient_of_pixels_is_that_of_finite_differences(projection: Projection, what: str) -> None:
    camera = skewed(projection)
    t = torch.from_numpy(RNG.uniform(1, 3, (40, 1)))
    rays = camera.rays(anywhere(40))
    given = {"K": camera.K, "pose": camera.pose, "x": rays.origin + t * rays.direction}
    weight = torch.from_numpy(RNG.normal(size=(40, 3)))

    def weighed(matrix: Tensor) -> Tensor:
        at = {**given, what: matrix}
        pixel, z = projection.project(at["K"], at["pose"], at["x"])
        return (weight * torch.cat([pixel, z[:, None]], 1)).sum()

    leaf = given[what].clone().requires_grad_()
    (found,) = torch.autograd.grad(weighed(leaf), leaf)
    expected = reference.difference(weighed, given[what])
    assert torch.allclose(found, expected, rtol=1e-6, atol=1e-7 * float(expected.abs().max()))


@MODELS
def test_pixels_are_as_large_as_they_project(projection: Projection) -> None:
    camera = Camera.look_at((0, -3, 0), width=80, height=60, projection=projection)
    z = torch.tensor([0.5, 3.0], dtype=torch.float64)
    x, y, forward = camera.pose[:3, :3].unbind(1)
    middle = camera.centre + z[:, None] * forward
    size, centre = camera.pixel_size(z), torch.tensor([40.0, 30.0])
    for axis, step in enumerate((x, y)):
        moved, _ = camera.project(middle + 1e-3 * size[:, axis, None] * step)
        assert torch.allclose((moved - centre)[:, axis], torch.full((2,), 1e-3, dtype=torch.float64), rtol=1e-4)


@MODELS
def test_balls_reach_no_farther_than_is_said(projection: Projection) -> None:
    """Far enough from the camera: by default only the linear part is bounded."""
    camera, radius = skewed(projection), 0.2
    middle = torch.from_numpy(RNG.normal(size=(50, 3))) + torch.tensor([0.0, 0.0, 4.0])
    direction = torch.nn.functional.normalize(torch.from_numpy(RNG.normal(size=(2000, 3))), dim=1)
    bound = projection.image_radius(camera.K, middle, radius)
    there = projection.local_project(camera.K, (middle[:, None] + radius * direction).reshape(-1, 3)).view(50, -1, 2)
    off = (there - projection.local_project(camera.K, middle)[:, None]).norm(dim=-1).amax(1)
    skew = 1.06  # which the pinhole's bound leaves out
    assert (off <= skew * bound).all() and (bound < 2.5 * off).all()


@MODELS
def test_the_picture_of_a_scaled_scene_is_the_same(projection: Projection) -> None:
    camera, x = skewed(projection), torch.randn(20, 3, dtype=torch.float64)
    transform = SceneTransform.around(torch.tensor([3.0, -1.0, 2.0], dtype=torch.float64), 12.5)
    moved = transform.to_data(camera)
    a, b = camera.project(x), moved.project(transform.apply(x))
    assert torch.allclose(a[0], b[0], atol=1e-9) and torch.allclose(12.5 * a[1], b[1], atol=1e-9)
    back = transform.to_scene(moved)
    assert torch.allclose(back.K, camera.K, atol=1e-12) and torch.allclose(back.pose, camera.pose, atol=1e-12)


def test_several_models_at_once() -> None:
    cameras = [skewed(p) for p in (ORTHOGRAPHIC, PINHOLE, FISHEYE, PINHOLE)]
    view, pixel = torch.arange(60) % 4, anywhere(60)
    K, pose = (torch.stack([getattr(c, name) for c in cameras]) for name in ("K", "pose"))
    pose.requires_grad_()
    rays = mixed_rays([c.projection for c in cameras], K, pose, view, pixel)
    for i, camera in enumerate(cameras):
        alone = camera.rays(pixel[view == i])
        assert torch.equal(rays[view == i].origin, alone.origin)
        assert torch.equal(rays[view == i].direction, alone.direction)
    (found,) = torch.autograd.grad(rays.direction.sum(), pose)
    assert bool((found[:, :3, :3].abs().sum((1, 2)) > 0).all())


def test_files_know_projections_by_name(tmp_path: Path) -> None:
    cameras = tuple(skewed(p) for p in (PINHOLE, ORTHOGRAPHIC, FISHEYE))
    eye = SceneTransform.identity()
    Checkpoint("sphere", {}, Sphere(0.5).state_dict(), eye, (0.0, 0.0, 1.0), cameras, {}).save(tmp_path / "a")
    assert [c.projection for c in load(tmp_path / "a").cameras] == [PINHOLE, ORTHOGRAPHIC, FISHEYE]
    assert Fisheye(torch.tensor(0.3)) != FISHEYE and ORTHOGRAPHIC != PINHOLE
    with pytest.raises(ValueError, match=r"another projection named 'perspective'"):
        register_projection(type("Other", (Fisheye,), {"name": "perspective"}))
    with pytest.raises(ValueError, match="projection must be a Projection"):
        object.__setattr__(named := replace(cameras[0]), "projection", "perspective")  # past the check of types
        named.__post_init__()
    with pytest.raises(ValueError, match="only a pinhole has a projection matrix"):
        cameras[1].matrix()
    with pytest.raises(ValueError, match="extent must be positive, got 0"):
        Camera.orthographic((1, 0, 0), extent=0)


def test_a_model_is_a_dataclass_with_a_name() -> None:
    """Its rays and pixels are those of a pinhole; only its class is wrong."""

    class Plain(Projection):
        name = "test-plain"
        local_rays, local_project = Pinhole.local_rays, Pinhole.local_project

    @dataclass(frozen=True, eq=False)
    class Nameless(Projection):
        local_rays, local_project = Pinhole.local_rays, Pinhole.local_project

    with pytest.raises(ValueError, match=r"^camera: Plain is no dataclass; decorate it with @dataclass\(frozen=True"):
        Camera.look_at((0, -2, 0), projection=Plain())
    with pytest.raises(ValueError, match=r"^camera: Nameless has no name; give it one, such as name = 'fisheye'$"):
        Camera.look_at((0, -2, 0), projection=Nameless())
    with pytest.raises(ValueError, match=r"^register_projection: Nameless has no name; give it one"):
        register_projection(Nameless)


RADIUS = 0.6


class White(Sphere):
    def color(self, x: Tensor, normal: Tensor, direction: Tensor, feature: Tensor | None) -> Tensor:
        return torch.ones_like(x)


def parallel(size: int = 96) -> Camera:
    return Camera.orthographic((0.4, -3.0, 1.0), up=(0, 0, 1), extent=1.6, width=size, height=size)


def closed_form(camera: Camera) -> tuple[Tensor, Tensor]:
    """Return whether parallel rays meet the ball around the origin, and at which depth, each (h, w), float64."""
    v, u = torch.meshgrid(*(torch.arange(n).double() + 0.5 for n in (camera.height, camera.width)), indexing="ij")
    x, y = (u - camera.K[0, 2]) / camera.K[0, 0], (v - camera.K[1, 2]) / camera.K[1, 1]
    height = RADIUS**2 - x**2 - y**2
    return height > 0, float(camera.centre.norm()) - height.clamp_min(0).sqrt()


@pytest.mark.parametrize("solver", [SphereTrace(), SphereTrace(cones=False), DenseMarch(64)])
def test_an_orthographic_ball_is_its_closed_form(solver: SphereTrace | DenseMarch, device: torch.device) -> None:
    camera = parallel()
    inside, depth = closed_form(camera)
    image = render(Sphere(RADIUS).to(device), camera, intersect=solver)
    assert torch.equal(image.mask.cpu(), inside)
    assert (image.depth.cpu() - depth)[inside].abs().max() < 2e-4  # at the rim a ray length is ill conditioned
    assert (image.depth.cpu() - depth)[inside].abs().median() < 5e-6
    expected = camera.rays().at(depth.reshape(-1).float())[inside.reshape(-1)] / RADIUS
    assert (image.normal.cpu()[inside] - expected).abs().max() < 1e-3


def test_cones_are_left_out_where_rays_have_no_eye_in_common() -> None:
    with torch.no_grad():
        counts = [render(Sphere(RADIUS), parallel(), intersect=SphereTrace(cones=c)).evaluations for c in (True, False)]
    assert counts[0] - counts[1] == 2 * lipschitz.PAIRS  # the bound is tried out first


def test_smooth_edges_of_an_orthographic_ball_cover_its_area() -> None:
    """Only the edge is looked through more than once: a cone's rule for edges would take all or nothing of it."""
    camera, black = parallel(64), (0.0, 0.0, 0.0)
    ball = White(RADIUS)
    with torch.no_grad():
        once, image = (render(ball, camera, background=black, antialias=n) for n in (1, 4))
    area = math.pi * (RADIUS * float(camera.K[0, 0])) ** 2
    assert float(linear(image.rgb)[..., 0].sum()) == pytest.approx(area, rel=2e-3)
    changed = (once.rgb != image.rgb).any(-1).sum()
    around = 2 * math.pi * RADIUS * float(camera.K[0, 0])
    assert around < changed < 2 * around
    assert once.evaluations < image.evaluations < once.evaluations + 16 * 8 * 8 * around


@pytest.mark.parametrize("projection", [PINHOLE, ORTHOGRAPHIC], ids=lambda p: p.name)
def test_an_outline_moves_as_its_area_does(projection: Projection) -> None:
    """The sum of a white ball's pixels is its area: that of a circle or, in perspective, of one of sin(angle) = r/d."""
    camera = replace(parallel(), projection=projection)
    d = float(camera.centre.norm())
    if projection is PINHOLE:
        camera = replace(camera, K=camera.K @ torch.diag(torch.tensor([d, d, 1.0]).double()))
    ball = White(RADIUS)
    image = render(ball, camera, background=(0.0, 0.0, 0.0), outline=True)
    (found,) = torch.autograd.grad(image.rgb[..., 0].sum(), ball.radius)
    f = float(camera.K[0, 0])
    expected = 2 * math.pi * RADIUS * f**2
    if projection is PINHOLE:
        expected *= d**2 / (d**2 - RADIUS**2) ** 2
    assert float(found) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("what", ["radius", "pose", "K"])
def test_the_gradient_of_an_orthographic_depth_map(what: str) -> None:
    """Against the closed form of every ray, differentiated by finite differences in float64."""
    camera = parallel(24)
    inside, _ = closed_form(camera)
    inner = torch.nn.functional.avg_pool2d(inside[None].double(), 5, 1, 2)[0] == 1
    given = {"radius": torch.tensor(RADIUS).double(), "pose": camera.pose, "K": camera.K}
    pixel = torch.nonzero(inner).flip(1) + 0.5

    def total(value: Tensor) -> Tensor:
        at = {**given, what: value}
        plane = torch.linalg.solve(at["K"], torch.cat([pixel, torch.ones(len(pixel), 1)], 1).double().T).T[:, :2]
        o = at["pose"][:3, 3] + plane @ at["pose"][:3, :2].T
        d = torch.nn.functional.normalize(at["pose"][:3, 2], dim=0)
        b = o @ d
        t = -b - (b.square() - o.square().sum(1) + at["radius"] ** 2).sqrt()
        return (t * (d @ at["pose"][:3, 2])).sum()

    ball = Sphere(RADIUS)
    leaf = ball.radius if what == "radius" else given[what].clone().requires_grad_()
    at = {**given, what: leaf}
    image = render(ball, Camera(at["K"], at["pose"], 24, 24, ORTHOGRAPHIC))
    (found,) = torch.autograd.grad(image.depth[inner].sum(), leaf)
    expected = reference.difference(total, given[what])
    if what == "K":
        expected[2] = expected[1, 0] = 0.0
    assert torch.allclose(found.double(), expected, rtol=2e-4, atol=2e-4 * float(expected.abs().max()))


def balls(projection: Projection, n: int = 5, size: int = 32) -> Views:
    """Return masks of the ball from the closed form, and pictures in one colour."""
    i = torch.arange(n).double()
    eyes = 3 * torch.nn.functional.normalize(torch.stack([(2 * i).cos(), (2 * i).sin(), 0.6 * (i % 3 - 1)], 1), dim=1)
    if projection is ORTHOGRAPHIC:
        cameras = tuple(Camera.orthographic(eye, extent=2.0, width=size, height=size) for eye in eyes)
    else:
        cameras = tuple(Camera.look_at(eye, width=size, height=size, projection=projection) for eye in eyes)
    masks = []
    for camera in cameras:
        rays = camera.rays()
        masks.append((torch.linalg.cross(rays.direction, rays.origin).norm(dim=1) < RADIUS).view(size, size))
    images = tuple((255 * m[..., None] * torch.tensor([0.8, 0.4, 0.2])).to(torch.uint8) for m in masks)
    names, chosen = tuple(map(str, range(n))), tuple(range(n))
    return Views(images, tuple(masks), cameras, names, chosen, (), SceneTransform.identity(), "balls")


@pytest.mark.parametrize("projection", [ORTHOGRAPHIC, FISHEYE], ids=lambda p: p.name)
def test_masks_carve_the_ball(projection: Projection) -> None:
    views = balls(projection, 16, 64)
    centre, radius = extent_from_masks(views.cameras, [m for m in views.masks if m is not None])
    assert centre.norm() < 0.03 and radius == pytest.approx(RADIUS, abs=0.1)
    pixels = Pixels(views)
    x = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)) * 0.5
    inside, r = pixels.inside(x), x.norm(dim=1)
    assert inside[r < 0.95 * RADIUS].all() and not inside[(r > 1.3 * RADIUS) & (r < 0.95)].any()


@pytest.mark.parametrize("projection", [ORTHOGRAPHIC, FISHEYE], ids=lambda p: p.name)
def test_a_fit_finds_the_ball(projection: Projection) -> None:
    field = Sphere(0.4)
    for _ in Fit(field, balls(projection), iterations=60, recipe=Recipe(rays=128, learn_background=False, rate=0.02)):
        pass
    assert float(field.radius.detach()) == pytest.approx(RADIUS, abs=0.02)


def test_a_model_from_elsewhere_is_drawn_fitted_and_viewed(tmp_path: Path) -> None:
    """Its pictures have the closed form's outline, and their gradient moves its own parameter the right way."""
    own = FISHEYE.s.clone().requires_grad_()
    camera = Camera.look_at((0, -2.5, 0), fov=50, width=48, height=48, projection=Fisheye(own))
    image = render(Sphere(RADIUS), camera)
    angle = torch.acos((camera.rays().direction.detach() @ camera.pose[:3, 2].float()).clamp(-1, 1))
    assert torch.equal(image.mask.view(-1), angle.sin() < RADIUS / 2.5)
    (found,) = torch.autograd.grad(image.depth.nansum(), own)

    @torch.no_grad()
    def depths(s: Tensor) -> float:
        return float(render(Sphere(RADIUS), replace(camera, projection=Fisheye(s))).depth[image.mask].nansum())

    assert float(found) == pytest.approx((depths(own + 1e-4) - depths(own - 1e-4)) / 2e-4, rel=0.1)
    mesh = extract(Sphere(RADIUS), resolution=16)
    window.view(Sphere(RADIUS), cameras=[camera, parallel()], meshes={"mesh": mesh}, screenshot=tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000

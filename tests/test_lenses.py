"""Lenses with distortion: against the documented formulas written again, finite differences, and pinholes."""

import math
from dataclasses import replace

import numpy as np
import pytest
import reference
import torch
from test_pose_refinement import shape
from torch import Tensor

from warpdvr import Camera, FisheyeLens, Fit, OpenCVLens, Recipe, Views, render
from warpdvr.cameras.closed_form_lenses import DivisionLens, EUCMLens, FOVLens
from warpdvr.cameras.colmap_models import COLMAP_MODELS, colmap_model, colmap_projection
from warpdvr.cameras.lenses import Lens, RadialTangentialFisheyeLens, ThinPrismFisheyeLens
from warpdvr.cameras.projection import PINHOLE, projection_of
from warpdvr.cameras.rays import pixel_centres
from warpdvr.cameras.transform import SceneTransform
from warpdvr.fields.analytic import Sphere
from warpdvr.fitting.pose_refinement import refine

Array = np.ndarray

LENSES: dict[str, Lens] = {
    "opencv4": OpenCVLens([-0.28, 0.09, 1.1e-3, -2.3e-3]),
    "opencv5": OpenCVLens([0.12, -0.02, 3e-3, 2e-3, 0.01]),
    "opencv8": OpenCVLens([0.5, 0.1, 1e-3, -2e-3, 0.02, 0.65, 0.2, 0.01]),
    "opencv12": OpenCVLens([0.5, 0.1, 1e-3, -2e-3, 0.02, 0.65, 0.2, 0.01, 2e-3, -1e-3, 3e-3, 1e-3]),
    "fisheye": FisheyeLens([0.05, -0.012, 0.004, -0.001]),
    "thin prism": ThinPrismFisheyeLens([0.05, -0.01, 2e-3, -1e-3, 0.003, -0.001, 3e-3, -2e-3]),
    "rad tan": RadialTangentialFisheyeLens(
        [0.05, -0.01, 0.003, -1e-3, 2e-4, -3e-5, 1e-3, 2e-3, -1e-3, 4e-4, 2e-3, -3e-4]
    ),
    "fov": FOVLens([0.9]),
    "division": DivisionLens([-0.21]),
    "eucm": EUCMLens([0.62, 1.1]),
}
EACH = pytest.mark.parametrize("lens", LENSES.values(), ids=LENSES)
RNG = np.random.default_rng(3)


def camera(lens: Lens | None, width: int = 160, height: int = 120, focal: float = 95.0) -> Camera:
    """Return a camera at the origin, with all entries of K."""
    K = [[focal, 0.7, 0.52 * width], [0, 1.02 * focal, 0.48 * height], [0, 0, 1]]
    return Camera(K, torch.eye(4).double(), width, height, PINHOLE if lens is None else lens)


def formula(lens: Lens, x: Array) -> Array:
    """Return the image plane's points of points (n, 3) by the documented formulas, coefficient by coefficient."""
    c = lens.tensors()["coefficients"].detach().numpy()
    a, b = x[:, 0] / x[:, 2], x[:, 1] / x[:, 2]
    r = np.hypot(a, b)
    if isinstance(lens, FOVLens):
        return np.stack([a, b], 1) * (np.arctan(2 * r * np.tan(c[0] / 2)) / (r * c[0]))[:, None]
    if isinstance(lens, DivisionLens):  # the scale at which (s x, s y, 1 + k s^2 rho^2) points at x
        points = []
        for p in x:
            roots = np.roots([c[0] * (p[0] ** 2 + p[1] ** 2), -p[2], 1.0])
            points.append(p[:2] * min(roots[roots > 0]))
        return np.array(points)
    if isinstance(lens, EUCMLens):
        depth = c[0] * np.sqrt(c[1] * (x[:, 0] ** 2 + x[:, 1] ** 2) + x[:, 2] ** 2) + (1 - c[0]) * x[:, 2]
        return x[:, :2] / depth[:, None]
    if not isinstance(lens, OpenCVLens):
        theta = np.arctan(r)
        a, b = a * theta / r, b * theta / r
    r2 = a**2 + b**2
    if isinstance(lens, OpenCVLens):
        k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = [*c, *[0.0] * 8][:12]
        radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
        u = a * radial + 2 * p1 * a * b + p2 * (r2 + 2 * a**2) + s1 * r2 + s2 * r2**2
        return np.stack([u, b * radial + p1 * (r2 + 2 * b**2) + 2 * p2 * a * b + s3 * r2 + s4 * r2**2], 1)
    if isinstance(lens, FisheyeLens):
        radial = 1 + c[0] * r2 + c[1] * r2**2 + c[2] * r2**3 + c[3] * r2**4
        return np.stack([a * radial, b * radial], 1)
    if isinstance(lens, ThinPrismFisheyeLens):
        k1, k2, p1, p2, k3, k4, sx, sy = c
        radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3 + k4 * r2**4
        u = a * radial + 2 * p1 * a * b + p2 * (r2 + 2 * a**2) + sx * r2
        return np.stack([u, b * radial + 2 * p2 * a * b + p1 * (r2 + 2 * b**2) + sy * r2], 1)
    radial = 1 + sum(c[i] * r2 ** (i + 1) for i in range(6))
    a, b = a * radial, b * radial
    r2 = a**2 + b**2
    p0, p1, s0, s1, s2, s3 = c[6:]
    u = a + 2 * p1 * a * b + p0 * (r2 + 2 * a**2) + s0 * r2 + s1 * r2**2
    return np.stack([u, b + 2 * p0 * a * b + p1 * (r2 + 2 * b**2) + s2 * r2 + s3 * r2**2], 1)


@EACH
def test_points_appear_where_the_documented_formulas_say(lens: Lens) -> None:
    some = camera(lens)
    x = np.c_[RNG.uniform(-0.8, 0.8, (300, 2)), np.ones(300)] * RNG.uniform(0.5, 4, (300, 1))
    x = np.r_[x, [[1e-9, 2e-9, 3.0], [1e-3, -2e-3, 1.0]]]  # series take over near the axis
    plane = np.c_[formula(lens, x), np.ones(len(x))]
    expected = plane @ some.K.numpy().T
    found, z = some.project(torch.from_numpy(x))
    assert np.abs(found.numpy() - expected[:, :2]).max() < 1e-10
    assert torch.equal(z, torch.from_numpy(x)[:, 2])


@EACH
def test_pixels_of_a_whole_image_come_back(lens: Lens, device: torch.device) -> None:
    some = camera(lens, 640, 480, 420.0).to(device)
    rays = some.rays(dtype=torch.float64)
    found, _ = some.project(rays.at(torch.full((len(rays),), 3.0, device=device).double()))
    assert (found - pixel_centres(640, 480, device)).abs().max() < 1e-6
    corner = rays.direction[0]
    assert torch.rad2deg(torch.acos(corner[2])) > 40  # as far from the axis as lenses are used
    assert (some.rays().direction - rays.direction).abs().max() < 2e-7


def test_a_fisheye_of_more_than_180_degrees() -> None:
    """Rays beyond 90 degrees point backwards; the angle of each is the closed form of the equidistant lens."""
    size, degrees = 201, 220.0
    focal = size / 2 / math.radians(degrees / 2)
    some = Camera([[focal, 0, 100.5], [0, focal, 100.5], [0, 0, 1]], torch.eye(4), size, size, FisheyeLens([0.0] * 4))
    pixel = pixel_centres(size, size)
    radius = (pixel - 100.5).norm(dim=1).double()
    shown = radius < math.pi * focal
    rays = some.rays(pixel[shown], dtype=torch.float64)
    assert torch.allclose(torch.acos(rays.direction[:, 2]), radius[shown] / focal, atol=1e-7)
    assert torch.rad2deg(torch.acos(rays.direction[:, 2])).max() > 150
    found, z = some.project(rays.at(torch.ones(len(rays)).double()))
    assert (found - pixel[shown]).abs().max() < 1e-6 and (z < 0).any()


@pytest.mark.parametrize("what", ["coefficients", "K", "pose"])
@EACH
def test_gradients_of_rays_are_those_of_finite_differences(lens: Lens, what: str) -> None:
    some = camera(lens)
    pixel = torch.from_numpy(RNG.uniform([0, 0], [160, 120], (30, 2)))
    pixel[0] = some.K[:2, 2]  # the principal point, where a fisheye's angle is 0
    view, weight = torch.zeros(30, dtype=torch.int64), torch.from_numpy(RNG.normal(size=(2, 30, 3)))
    given = {"coefficients": lens.tensors()["coefficients"], "K": some.K, "pose": some.pose}

    def weighed(value: Tensor) -> Tensor:
        at = {**given, what: value}
        moved = lens.with_parameters(coefficients=at["coefficients"])
        return (weight * torch.stack(moved.world_rays(at["K"][None], at["pose"][None], view, pixel))).sum()

    leaf = given[what].clone().requires_grad_()
    (found,) = torch.autograd.grad(weighed(leaf), leaf)
    expected = reference.difference(weighed, given[what])
    assert torch.allclose(found, expected, rtol=1e-6, atol=1e-7 * float(expected.abs().max()))


@pytest.mark.parametrize("what", ["coefficients", "K", "x"])
@EACH
def test_gradients_of_pixels_are_those_of_finite_differences(lens: Lens, what: str) -> None:
    some = camera(lens)
    x = torch.from_numpy(np.c_[RNG.uniform(-0.7, 0.7, (30, 2)), RNG.uniform(1, 2, 30)])
    x[0, :2] = 0.0
    weight = torch.from_numpy(RNG.normal(size=(30, 2)))
    given = {"coefficients": lens.tensors()["coefficients"], "K": some.K, "x": x}

    def weighed(value: Tensor) -> Tensor:
        at = {**given, what: value}
        return (weight * lens.with_parameters(coefficients=at["coefficients"]).local_project(at["K"], at["x"])).sum()

    leaf = given[what].clone().requires_grad_()
    (found,) = torch.autograd.grad(weighed(leaf), leaf)
    expected = reference.difference(weighed, given[what])
    assert torch.allclose(found, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["opencv8", "rad tan", "fisheye"])
def test_second_derivatives_of_rays(name: str) -> None:
    lens, some = LENSES[name], camera(LENSES[name])
    plane = torch.from_numpy(RNG.uniform(-0.6, 0.6, (6, 2)))
    weight = torch.from_numpy(RNG.normal(size=(6, 3)))
    c = lens.tensors()["coefficients"].clone().requires_grad_()
    plane.requires_grad_()

    def rays(c: Tensor, plane: Tensor) -> Tensor:
        return (weight * lens.with_parameters(coefficients=c).direction(plane)[0]).sum()  # type: ignore[attr-defined]

    assert some.projection is lens
    assert torch.autograd.gradgradcheck(rays, (c, plane), atol=1e-5, rtol=1e-4)


FOLDING: list[tuple[Lens, float]] = [
    (OpenCVLens([-0.3, 0.0, 0.0, 0.0]), math.sqrt(1 / 0.9)),  # 1 - 3 0.3 r^2 = 0
    (OpenCVLens([0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0]), math.sqrt(2)),  # r / (1 + r^2 / 2)
    (FisheyeLens([-0.2, 0.0, 0.0, 0.0]), math.tan(math.sqrt(1 / 0.6))),
    (DivisionLens([0.25]), 1.0),  # r / (1 + r^2 / 4)
]


@pytest.mark.parametrize(("lens", "fold"), FOLDING, ids=lambda a: a.name if isinstance(a, Lens) else None)
def test_what_lies_beyond_a_fold_is_in_no_image(lens: Lens, fold: float) -> None:
    some = camera(lens)
    r = torch.tensor([0.2, 0.9, 0.999, 1.001, 1.5, 4.0]).double() * fold
    x = torch.stack([0.6 * r, -0.8 * r, torch.ones(6).double()], 1)
    found, _ = some.project(x)
    seen = found.isfinite().all(1)
    assert seen.tolist() == [True] * 3 + [False] * 3
    behind, _ = some.project(torch.tensor([[0.1, 0.2, -1.0]]).double())
    assert behind.isinf().all()


@pytest.mark.filterwarnings("ignore:render. many rays stay undecided")
def test_pixels_without_an_inverse_have_no_ray_and_no_gradient() -> None:
    lens = OpenCVLens(torch.tensor([-0.3, 0.0, 0.0, 0.0]).double().requires_grad_())
    some = camera(lens, 160, 120, 75.0)
    with pytest.warns(UserWarning, match="^opencv: the distortion has no inverse in a part of the image"):
        rays = some.rays()
    plane = torch.linalg.solve(some.K, torch.cat([pixel_centres(160, 120), torch.ones(19200, 1)], 1).double().T)[:2]
    reached = plane.norm(dim=0) < 2 / 3 * math.sqrt(1 / 0.9)  # the largest value of r - 0.3 r^3
    assert torch.equal(rays.direction.norm(dim=1) > 0.5, reached) and 0.4 < reached.float().mean() < 0.5
    with pytest.warns(UserWarning, match="no inverse"):
        image = render(Sphere(0.5), replace(some, pose=looking()), outline=True)
    assert image.mask.any()
    (found,) = torch.autograd.grad(image.rgb.sum() + image.depth[image.mask].sum(), lens.tensors()["coefficients"])
    assert found.isfinite().all() and (found != 0).any()


def looking() -> Tensor:
    return Camera.look_at((0.3, -2.0, 0.4)).pose


def test_bad_coefficients_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^OpenCVLens: coefficients must have shape \(4,\) or \(5,\) or \(8,\)"):
        OpenCVLens([0.1, 0.2])
    with pytest.raises(ValueError, match=r"^FisheyeLens: coefficients .*finite"):
        FisheyeLens([0.1, 0.2, math.nan, 0.0])
    with pytest.raises(ValueError, match=r"^EUCMLens: alpha must lie in \[0, 1\] and beta be positive, got 1.5 and 1$"):
        EUCMLens([1.5, 1.0])


@EACH
def test_descriptions_come_back_and_pictures_keep_their_lens(lens: Lens) -> None:
    assert projection_of(lens.describe()) == lens
    some = camera(lens)
    larger = some.resized(320, 240)
    x = torch.tensor([[0.2, -0.3, 1.0], [-0.4, 0.1, 2.0]]).double()
    assert torch.allclose(2 * some.project(x)[0], larger.project(x)[0])


PARAMS = [700.0, 710.0, 320.5, 240.25, 0.05, -0.02, 1e-3, 2e-3, 3e-3, -1e-3, 2e-4, 1e-4, 1e-3, 2e-3, 1e-3, -1e-3]


@pytest.mark.parametrize("number", COLMAP_MODELS)
def test_models_of_colmap_come_back(number: int) -> None:
    name, count = COLMAP_MODELS[number]
    one_focal = name.startswith(("SIMPLE", "RADIAL"))
    params = ([700.0, *PARAMS[2:]] if one_focal else PARAMS)[:count]
    if name == "EUCM":
        params[4] = 0.6
        params[5] = 1.1
    K, projection = colmap_projection(name, params)
    assert K[0, 0] == 700 and K[1, 1] == (700 if one_focal else 710) and K[0, 2] == 320.5 and K[1, 2] == 240.25
    some = Camera(K, torch.eye(4), 640, 480, projection)
    again_name, again_params = colmap_model(some)
    again_K, again = colmap_projection(again_name, again_params)
    assert torch.equal(K, again_K)
    x = torch.tensor([[0.2, -0.3, 1.0], [-0.4, 0.1, 2.0]]).double()
    assert torch.equal(some.project(x)[0], Camera(again_K, torch.eye(4), 640, 480, again).project(x)[0])
    if count > 5 and not one_focal:
        assert (again_name, again_params) == (name, params)


def test_what_colmap_has_no_model_for_is_refused() -> None:
    with pytest.raises(ValueError, match="EQUIRECTANGULAR shows all directions at once"):
        colmap_projection("EQUIRECTANGULAR", [1000, 500])
    with pytest.raises(ValueError, match="camera model 'FISHEYE99' is unknown; known are SIMPLE_PINHOLE, PINHOLE"):
        colmap_projection("FISHEYE99", [1.0])
    with pytest.raises(ValueError, match="camera model OPENCV has 8 parameters, got 4"):
        colmap_projection("OPENCV", PARAMS[:4])
    with pytest.raises(ValueError, match="focal lengths must be positive"):
        colmap_projection("PINHOLE", [700.0, -1.0, 3.0, 4.0])
    with pytest.raises(ValueError, match="have no skew"):
        colmap_model(camera(LENSES["opencv4"]))
    with pytest.raises(ValueError, match="no camera model for the projection 'orthographic'"):
        colmap_model(Camera.orthographic((0, 0, 3), up=(0, 1, 0)))
    assert colmap_projection("OPENCV", [*PARAMS[:4], 0, 0, 0, 0])[1] is PINHOLE


STRONG = OpenCVLens([-0.25, 0.06, 2e-3, -3e-3])
ROUND = FisheyeLens([0.05, -0.012, 0.004, -0.001])
BOTH = pytest.mark.parametrize("lens", [STRONG, ROUND], ids=lambda lens: lens.name)


@BOTH
def test_a_picture_is_that_of_a_pinhole_resampled(lens: Lens) -> None:
    """Where each pixel's direction meets the pinhole's image, by the formulas that were written again."""
    pose = Camera.look_at((0.3, -1.6, 0.4)).pose
    some = replace(camera(lens), pose=pose)
    fine = Camera([[270, 0, 320], [0, 270, 240], [0, 0, 1]], pose, 640, 480)
    ball = Sphere(0.6)
    with torch.no_grad():
        bent, straight = render(ball, some), render(ball, fine)
    v, u = np.mgrid[:480, :640] + 0.5
    directions = np.stack([(u - 320) / 270, (v - 240) / 270, np.ones_like(u)], -1).reshape(-1, 3)
    place = (np.c_[formula(lens, directions), np.ones(len(directions))] @ some.K.numpy().T)[:, :2]
    inside = ((place >= 0.5) & (place < [159.5, 119.5])).all(1)
    row, column = (place[inside][:, ::-1] - 0.5).T
    i, j = row.astype(int), column.astype(int)
    a, b = row - i, column - j
    found = bent.depth.double().numpy()
    found = (1 - a) * ((1 - b) * found[i, j] + b * found[i, j + 1]) + a * (
        (1 - b) * found[i + 1, j] + b * found[i + 1, j + 1]
    )
    expected = straight.depth.double().numpy().reshape(-1)[inside]
    off = np.abs(found - expected)
    assert inside.sum() > 20000 and 3000 < np.isfinite(off).sum()
    assert np.nanmedian(off) < 2e-4 and np.nanquantile(off, 0.95) < 2e-3
    rim = np.isfinite(found) != np.isfinite(expected)
    assert rim.sum() < 0.06 * np.isfinite(expected).sum()


class White(Sphere):
    def color(self, x: Tensor, normal: Tensor, direction: Tensor, feature: Tensor | None) -> Tensor:
        return torch.ones_like(x)


def outline_area(radius: float, c: Tensor, pose: Array) -> float:
    """Return the area of a ball's outline, a circle of directions, by the formulas [pixel]."""
    eye = pose[:3, 3]
    distance = np.linalg.norm(eye)
    axis = pose[:3, :3].T @ (-eye / distance)
    side = np.cross(axis, [0, 1.0, 0])
    side /= np.linalg.norm(side)
    angle, sine = np.linspace(0, 2 * np.pi, 4000, endpoint=False)[:, None], radius / distance
    rim = np.sqrt(1 - sine**2) * axis + sine * (np.cos(angle) * side + np.sin(angle) * np.cross(axis, side))
    x, y = (formula(OpenCVLens(c), rim) @ camera(None).K.numpy()[:2, :2].T).T
    return abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)) / 2))


def test_an_outline_through_a_lens_moves_as_its_area_does() -> None:
    """The derivative of a white ball's area in the picture by its radius and by each coefficient."""
    c = STRONG.tensors()["coefficients"].clone().requires_grad_()
    pose = Camera.look_at((0.2, -1.8, 0.5)).pose
    ball = White(0.6)
    some = replace(camera(OpenCVLens(c)), pose=pose)
    total = render(ball, some, background=(0.0, 0.0, 0.0), outline=True).rgb[..., 0].sum()
    assert float(total.detach()) == pytest.approx(outline_area(0.6, c.detach(), pose.numpy()), rel=0.01)
    by_radius, by_c = torch.autograd.grad(total, [ball.radius, c])
    expected = reference.difference(
        lambda v: torch.tensor(outline_area(float(v[0]), v[1:], pose.numpy())),
        torch.cat([torch.tensor([0.6]).double(), c.detach()]),
        1e-4,
    )
    found = torch.cat([by_radius.double().reshape(1), by_c])
    assert torch.allclose(found, expected, rtol=0.03, atol=0.03 * float(expected[1:].abs().max()))


def balls(lens: Lens, n: int = 6, width: int = 48, height: int = 40, focal: float = 30.0) -> Views:
    """Return masks and depth of a ball in closed form, and pictures in one colour."""
    i = torch.arange(n).double()
    eyes = 2 * torch.nn.functional.normalize(torch.stack([(2 * i).cos(), (2 * i).sin(), 0.6 * (i % 3 - 1)], 1), dim=1)
    some = tuple(replace(camera(lens, width, height, focal), pose=Camera.look_at(eye).pose) for eye in eyes)
    masks = []
    for each in some:
        d = torch.nn.functional.normalize(each.rays(dtype=torch.float64).direction, dim=1)
        cross = torch.linalg.cross(d, each.centre.expand_as(d)).norm(dim=1)
        masks.append(((cross < 0.6) & (d.norm(dim=1) > 0.5)).view(height, width))
    images = tuple((255 * m[..., None] * torch.tensor([0.8, 0.4, 0.2])).to(torch.uint8) for m in masks)
    names, chosen = tuple(map(str, range(n))), tuple(range(n))
    return Views(images, tuple(masks), some, names, chosen, (), SceneTransform.identity(), "balls")


@pytest.mark.parametrize(("lens", "cameras"), [(STRONG, 1e-3), (ROUND, 0.0)], ids=["opencv, refined", "fisheye"])
def test_a_fit_finds_the_ball(lens: Lens, cameras: float) -> None:
    field = Sphere(0.4)
    recipe = Recipe(rays=128, learn_background=False, rate=0.02, cameras=cameras)
    for _ in Fit(field, balls(lens), iterations=40, recipe=recipe):
        pass
    assert float(field.radius.detach()) == pytest.approx(0.6, abs=0.02)


@pytest.mark.filterwarnings("ignore:opencv. the distortion has no inverse")
def test_a_fit_lives_with_pixels_that_have_no_ray() -> None:
    views = balls(OpenCVLens([-0.3, 0.0, 0.0, 0.0]), focal=26.0)
    assert (views.cameras[0].rays().direction.norm(dim=1) < 0.5).any()
    field = Sphere(0.4)
    for _ in Fit(field, views, iterations=40, recipe=Recipe(rays=128, rate=0.02, cameras=1e-3)):
        pass
    assert float(field.radius.detach()) == pytest.approx(0.6, abs=0.03)


@BOTH
def test_cameras_with_a_lens_are_refined(lens: Lens) -> None:
    """By mask and depth, from 3 degrees and 0.03 units off."""
    field = shape()
    true = replace(camera(lens, 120, 100, 75.0), pose=Camera.look_at((1.2, -1.4, 0.6)).pose)
    with torch.no_grad():
        image = render(field, true)
    turn = torch.linalg.matrix_exp(torch.tensor([[0, -0.03, 0.04], [0.03, 0, -0.02], [-0.04, 0.02, 0]]).double())
    pose = true.pose.clone()
    pose[:3, :3] = turn @ pose[:3, :3]
    pose[:3, 3] += torch.tensor([0.02, -0.02, 0.01])
    black = torch.zeros(100, 120, 3, dtype=torch.uint8)
    start = replace(true, pose=pose)
    one = Views(
        (black,), (image.mask,), (start,), ("a",), (0,), (), SceneTransform.identity(), "", None, (image.depth,)
    )
    (found,) = refine(field, one, kinds=("mask", "depth"))
    assert found.projection == lens
    assert (found.pose - true.pose).abs().max() < 2e-3 < 1e-2 < (pose - true.pose).abs().max()

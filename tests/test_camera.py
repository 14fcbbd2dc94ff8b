"""Cameras and rays against NumPy, closed forms and finite differences."""

from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pytest
import reference
import torch
import trimesh
from hypothesis import given, settings
from scipy.spatial import SphericalVoronoi
from torch import Tensor

from warpdvr.cameras.camera import OPENGL, Camera
from warpdvr.cameras.paths import fibonacci_sphere
from warpdvr.cameras.projection import PINHOLE, projection_of
from warpdvr.cameras.rays import Rays, pixel_centres

RNG = np.random.default_rng(0)


def some_k() -> Tensor:
    fx, fy, skew, cx, cy = RNG.uniform([40, 40, -9, 20, 10], [90, 90, 9, 50, 40])
    return torch.tensor([[fx, skew, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)


def some_pose() -> Tensor:
    pose = torch.from_numpy(trimesh.transformations.random_rotation_matrix(RNG.random(3)))
    pose[:3, 3] = torch.from_numpy(RNG.uniform(-3, 3, 3))
    return pose


def some_camera(device: torch.device | str = "cpu") -> Camera:
    return Camera(some_k(), some_pose(), 64, 48).to(device)


def some_pixels(n: int, device: torch.device | str = "cpu") -> Tensor:
    return torch.from_numpy(RNG.uniform([0, 0], [64, 48], (n, 2))).float().to(device)


def test_look_at_puts_the_target_in_the_middle_and_up_up() -> None:
    eye, at = torch.tensor([2.0, 1.0, 0.5]).double(), torch.tensor([0.1, 0.2, 0.3]).double()
    camera = Camera.look_at(eye, at, width=80, height=60)
    pixel, depth = camera.project(torch.stack([at, at + torch.tensor([0, 0, 0.1])]))
    assert torch.allclose(pixel[0], torch.tensor([40.0, 30.0]).double())
    assert torch.allclose(depth[0], (eye - at).norm())
    assert abs(pixel[1, 0].item() - 40) < 1e-9
    assert pixel[1, 1] < 30  # rows count downwards
    assert torch.allclose(camera.centre, eye)
    assert abs(camera.pose[:3, :3].det().item() - 1) < 1e-12


def test_the_field_of_view_is_vertical() -> None:
    camera = Camera.look_at((0.0, -2.0, 0.0), fov=90.0, width=200, height=100)
    edge, _ = camera.project(torch.tensor([[0.0, 0.0, 2.0], [2.0, 0.0, 0.0]]))
    assert torch.allclose(edge, torch.tensor([[100.0, 0.0], [150.0, 50.0]]).double(), atol=1e-9)


def test_krt_there_and_back() -> None:
    for _ in range(20):
        camera = some_camera()
        back = Camera.from_krt(*camera.krt(), 64, 48)
        assert torch.allclose(back.pose, camera.pose, atol=1e-12)
        assert torch.equal(back.K, camera.K)
        _, R, t = camera.krt()
        x = torch.randn(5, 3, dtype=torch.float64)
        assert torch.allclose(x @ R.T + t, (x - camera.centre) @ camera.pose[:3, :3], atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, -1.0, 3.7, -0.02, 1e4])
def test_a_projection_matrix_of_any_scale_and_sign_there_and_back(scale: float) -> None:
    for _ in range(20):
        camera = some_camera()
        back = Camera.from_projection(scale * camera.matrix(), 64, 48)
        assert torch.allclose(back.K, camera.K, atol=1e-9)
        assert torch.allclose(back.pose, camera.pose, atol=1e-10)


def test_a_projection_matrix_sees_what_the_camera_sees() -> None:
    camera = some_camera()
    x = camera.rays(some_pixels(50)).at(torch.full((50,), 2.0)).double()
    uvw = torch.cat([x, torch.ones(50, 1)], 1).double() @ camera.matrix().T
    pixel, depth = camera.project(x)
    assert torch.allclose(uvw[:, :2] / uvw[:, 2:], pixel, atol=1e-9)
    assert torch.allclose(uvw[:, 2], depth, atol=1e-12)
    assert (depth > 0).all()


def test_rays_are_those_of_numpy(device: torch.device) -> None:
    for _ in range(10):
        camera, pixel = some_camera(), some_pixels(200)
        o, d = reference.pixel_rays(camera.K.numpy(), camera.pose.numpy(), pixel.double().numpy())
        rays = camera.to(device).rays(pixel.to(device))
        assert rays.origin.dtype == torch.float32
        np.testing.assert_allclose(rays.origin.cpu().numpy(), o, atol=3e-7)
        np.testing.assert_allclose(rays.direction.cpu().numpy(), d, atol=3e-7)


def test_a_point_on_a_ray_projects_to_its_pixel(device: torch.device) -> None:
    for _ in range(10):
        camera, pixel = some_camera(device), some_pixels(200, device)
        t = torch.linspace(0.5, 4, 200, device=device)
        rays = camera.rays(pixel)
        seen, depth = camera.project(rays.at(t))
        assert (seen - pixel).abs().max() < 2e-4  # float32
        assert torch.allclose(depth, (t * (rays.direction @ camera.pose[:3, 2].float())).double(), atol=2e-6)


def test_pixels_are_row_major_and_centred_at_a_half(device: torch.device) -> None:
    centres = pixel_centres(3, 2, device)
    assert centres.tolist() == [[0.5, 0.5], [1.5, 0.5], [2.5, 0.5], [0.5, 1.5], [1.5, 1.5], [2.5, 1.5]]


def test_some_pixels_get_the_rays_that_all_pixels_get(device: torch.device) -> None:
    camera = some_camera(device)
    whole, chosen = camera.rays(), torch.tensor([0, 63, 64, 1000, 64 * 48 - 1], device=device)
    some = camera.rays(pixel_centres(64, 48, device)[chosen])
    assert len(whole) == 64 * 48
    assert torch.equal(whole[chosen].origin, some.origin)
    assert torch.equal(whole[chosen].direction, some.direction)
    assert len(camera.rays(torch.zeros(0, 2, device=device))) == 0


def test_many_cameras_at_once(device: torch.device) -> None:
    cameras, pixel = [some_camera(device) for _ in range(3)], some_pixels(30, device)
    view = torch.arange(30, device=device) % 3
    K, pose = torch.stack([c.K for c in cameras]), torch.stack([c.pose for c in cameras])
    rays = PINHOLE.rays(K, pose, view, pixel)
    for i, camera in enumerate(cameras):
        alone = camera.rays(pixel[view == i])
        assert torch.equal(rays[view == i].origin, alone.origin)
        assert torch.equal(rays[view == i].direction, alone.direction)


def test_resized_sees_the_same_with_other_pixels() -> None:
    camera = some_camera()
    small, x = camera.resized(32, 12), camera.rays(some_pixels(50)).at(torch.full((50,), 2.0))
    (before, z), (after, z_after) = camera.project(x), small.project(x)
    assert (small.width, small.height) == (32, 12)
    assert torch.allclose(after, before / torch.tensor([2.0, 4.0]), atol=1e-9)
    assert torch.equal(z, z_after)


def test_opengl_axes_are_turned_and_turned_back() -> None:
    camera = Camera.look_at((3.0, 0.0, 0.0))
    gl = camera.pose @ OPENGL
    assert torch.allclose(gl[:3, 2], torch.tensor([1.0, 0, 0]).double())  # backward
    assert torch.allclose(gl[:3, 1], torch.tensor([0.0, 0, 1]).double())  # up
    assert torch.equal(gl @ OPENGL, camera.pose)


def with_k(**entries: float) -> Tensor:
    K = torch.tensor([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]], dtype=torch.float64)
    for name, value in entries.items():
        K[int(name[1]), int(name[2])] = value
    return K


EYE = torch.eye(4, dtype=torch.float64)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Camera(torch.eye(4), EYE, 8, 8), r"K must have shape \(3, 3\), got \(4, 4\)"),
        (lambda: Camera(with_k(), EYE[:3], 8, 8), r"pose must have shape \(4, 4\), got \(3, 4\)"),
        (lambda: Camera(with_k(k02=float("nan")), EYE, 8, 8), "K holds a number that is not finite"),
        (lambda: Camera(with_k(), EYE * float("inf"), 8, 8), "pose holds a number that is not finite"),
        (lambda: Camera(with_k(k00=0), EYE, 8, 8), "focal length of 0"),
        (lambda: Camera(with_k(k10=1), EYE, 8, 8), "K must be upper triangular and end in 1"),
        (lambda: Camera(2 * with_k(), EYE, 8, 8), "K must be upper triangular and end in 1"),
        (lambda: Camera(with_k(), torch.diag(torch.tensor([2.0, 2, 2, 1])), 8, 8), "pose must be a rotation"),
        (lambda: Camera(with_k(), torch.diag(torch.tensor([1.0, 1, -1, 1])), 8, 8), "pose must be a rotation"),
        (lambda: Camera(with_k(), torch.zeros(4, 4), 8, 8), "pose must be a rotation"),
        (lambda: Camera(with_k(), EYE, 0, 8), "must have pixels, got 0 x 8"),
        (
            lambda: Camera(with_k(), EYE, 8, 8, projection_of({"name": "fisheye"})),
            "unknown projection 'fisheye'; known are perspective",
        ),
        (lambda: Camera.look_at((0, 0, 2)), "up must not point along the view"),
        (lambda: Camera.look_at((1, 2, 3), (1, 2, 3)), "eye and at must differ"),
        (lambda: Camera.look_at((1, 0, 0), fov=180.0), "fov must lie between 0 and 180 degrees, got 180"),
        (lambda: Camera.from_krt(with_k(), torch.zeros(3, 3), torch.zeros(3), 8, 8), "R is singular"),
        (lambda: Camera.from_projection(torch.eye(4), 8, 8), r"P must have shape \(3, 4\), got \(4, 4\)"),
        (lambda: Camera.from_projection(torch.full((3, 4), float("nan")), 8, 8), "P holds a number that is not finite"),
        (lambda: Camera.from_projection(torch.ones(3, 4), 8, 8), "P is singular"),
    ],
)
def test_wrong_input_is_refused_in_one_sentence(make: Callable[[], Camera], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


UNIT = torch.tensor([[-1.0, -0.5, 0.0], [1.0, 0.5, 2.0]])
PLACES = st.sampled_from([-3.0, -1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 2.0, 3.0]) | st.floats(-3, 3, width=32)


@settings(deadline=None, max_examples=300)
@given(st.tuples(PLACES, PLACES, PLACES), st.tuples(PLACES, PLACES, PLACES))
def test_clip_keeps_what_is_in_the_box(origin: tuple[float, ...], towards: tuple[float, ...]) -> None:
    d = torch.tensor(towards, dtype=torch.float64)
    if d.norm() < 1e-2:
        return
    rays = reference.beams(torch.tensor(origin).double(), d)
    near, far = (a.item() for a in rays.clip(UNIT))
    o, d = (a[0] for a in reference.in_double(rays))
    t = torch.cat([torch.linspace(0, 12, 4001).double(), torch.tensor([near, far]).double().clamp(0, 12)])
    x = o + t[:, None] * d
    depth = torch.minimum(x - UNIT[0], UNIT[1] - x).amin(-1)  # how deep in the box
    kept = (t >= near) & (t <= far)
    assert near >= 0
    assert not (depth[~kept] > 1e-5).any()
    assert not (depth[kept] < -1e-5).any()


def test_clip_is_the_closed_form(device: torch.device) -> None:
    rays = reference.aimed(3000, spread=1.5)
    near, far = rays.clip(UNIT)
    expected = reference.clip(*reference.in_double(rays), UNIT)
    hit = expected[0] <= expected[1]
    assert torch.equal(hit, near <= far)
    assert 300 < hit.sum() < 2700
    for found, true in zip((near, far), expected, strict=True):
        assert (found[hit] - true[hit]).abs().max() < 2e-6
    moved = Rays(rays.origin.to(device), rays.direction.to(device)).clip(UNIT.to(device))
    assert torch.allclose(moved[0].cpu(), near)


@pytest.mark.parametrize(
    ("origin", "direction", "near", "far"),
    [
        ((-3, 0.5, 1), (1, 0, 0), 2, 4),  # within a face
        ((-3, 0.5, 2), (1, 0, 0), 2, 4),  # along an edge
        ((-3, -0.5, 0), (1, 0, 0), 2, 4),  # along the opposite edge
        ((-3, 0.5 + 1e-6, 1), (1, 0, 0), 1, -1),  # just beside a face: a miss
        ((-3, 0, 1), (1, -0.0, 0), 2, 4),  # a negative zero
        ((0, 0, 1), (0, 0, -1), 0, 1),  # from inside
        ((1, 0.5, 2), (1, 0, 0), 0, 0),  # on a corner, leaving
        ((-2, -1.5, -1), (1, 1, 1), 3**0.5, 2 * 3**0.5),  # through a corner
        ((3, 0, 1), (1, 0, 0), 1, -1),  # behind
    ],
)
def test_clip_at_faces_edges_and_corners(
    origin: tuple[float, ...], direction: tuple[float, ...], near: float, far: float, device: torch.device
) -> None:
    found = reference.beams(origin, direction, device).clip(UNIT.to(device))
    if near > far:
        assert found[0] > found[1]
    else:
        assert [a.item() for a in found] == pytest.approx([near, far], abs=1e-6)


@pytest.mark.parametrize("what", ["K", "pose"])
def test_the_gradient_of_rays_is_that_of_finite_differences(what: str, device: torch.device) -> None:
    camera, pixel = some_camera(), some_pixels(40)
    weight = torch.from_numpy(RNG.normal(size=(2, 40, 3)))
    given = {"K": camera.K, "pose": camera.pose}

    def weighed(matrix: Tensor) -> Tensor:
        at = {**given, what: matrix}
        K = at["K"].clone()
        K[1:, 0] = K[2, 1] = 0.0  # K is upper triangular
        o, d = reference.pixel_rays(K.numpy(), at["pose"].numpy(), pixel.double().numpy())
        return torch.as_tensor((weight.numpy() * np.stack([o, d])).sum())

    expected = reference.difference(weighed, given[what])
    if what == "K":
        expected[2, 2] = 0.0  # always 1
    leaf = given[what].clone().to(device).requires_grad_()
    matrices = {**{k: m.to(device) for k, m in given.items()}, what: leaf}
    rays = Camera(matrices["K"], matrices["pose"], 64, 48).rays(pixel.to(device))
    (weight.float().to(device) * torch.stack([rays.origin, rays.direction])).sum().backward()
    assert leaf.grad is not None
    assert torch.allclose(leaf.grad.cpu(), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("n", [1, 7, 200])
def test_directions_of_a_fibonacci_sphere_are_evenly_spread(n: int) -> None:
    """Each has about the same part of the sphere, 4 pi / n, to itself; scipy finds the parts."""
    found = fibonacci_sphere(n)
    assert found.shape == (n, 3) and torch.allclose(found.norm(dim=1), torch.ones(n, dtype=torch.float64))
    assert (found[:, 1].diff() < 0).all()
    if n > 100:
        area = SphericalVoronoi(found.numpy()).calculate_areas() * n / (4 * np.pi)
        assert 0.85 < area.min() and area.max() < 1.15
    band = fibonacci_sphere(n, max_height=0.5, phase=1.0)
    assert band[:, 1].abs().max() < 0.5
    turn = torch.atan2(band[:, 2], band[:, 0]) - torch.atan2(found[:, 2], found[:, 0])
    assert torch.allclose((turn - 1 + np.pi) % (2 * np.pi), torch.full((n,), np.pi, dtype=torch.float64))

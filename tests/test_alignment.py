"""Errors of cameras: against SciPy's alignment of points and its angles, and motions that are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial import procrustes
from scipy.spatial.transform import Rotation

from warpdvr.cameras.alignment import camera_errors, rotation_angles, similarity
from warpdvr.cameras.camera import Camera
from warpdvr.cameras.transform import SceneTransform


def points(n: int = 9, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def motion(scale: float = 2.5) -> SceneTransform:
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = scale * torch.from_numpy(Rotation.from_rotvec([0.3, -1.2, 2.0]).as_matrix())
    matrix[:3, 3] = torch.tensor([1.0, -2.0, 0.5])
    return SceneTransform(matrix)


def cameras(n: int = 7) -> tuple[Camera, ...]:
    return tuple(Camera.look_at(3 * x / x.norm(), width=8, height=8) for x in points(n, 3))


@pytest.mark.parametrize("n", [3, 4, 9])
def test_similarity_is_found_again(n):
    x = points(n)
    assert torch.allclose(similarity(x, motion().apply(x)).matrix, motion().matrix, atol=1e-12)


def test_similarity_of_noisy_points_is_scipys():
    """Its Procrustes distance is the squared residual, in units of the reference's extent, of the best similarity."""
    x = points()
    y = motion().apply(x) + 0.3 * points(seed=1)
    _, _, expected = procrustes(y.numpy(), x.numpy())  # lets mirror images in, which do not fit better here
    residual = (similarity(x, y).apply(x) - y).square().sum() / (y - y.mean(0)).square().sum()
    assert float(residual) == pytest.approx(expected, rel=1e-10)
    R, _ = Rotation.align_vectors((y - y.mean(0)).numpy(), (x - x.mean(0)).numpy())
    found = similarity(x, y)
    assert np.allclose(found.matrix[:3, :3].numpy() / found.scale, R.as_matrix(), atol=1e-10)


def test_similarity_is_never_a_mirror_image():
    x = points()
    found = similarity(x, x * torch.tensor([1.0, 1.0, -1.0]))
    R, _ = Rotation.align_vectors((x * torch.tensor([1.0, 1, -1]) - (x * torch.tensor([1.0, 1, -1])).mean(0)).numpy(),
                                  (x - x.mean(0)).numpy())  # fmt: skip
    assert np.allclose(found.matrix[:3, :3].numpy() / found.scale, R.as_matrix(), atol=1e-9)


def test_points_in_a_plane_are_enough():
    x = points()
    x[:, 2] = 0
    assert torch.allclose(similarity(x, motion().apply(x)).matrix, motion().matrix, atol=1e-9)


@pytest.mark.parametrize("x", [points(2), points(1), torch.zeros(4, 3), points(5)[:, :1] * torch.ones(3)])
def test_points_on_a_line_are_refused(x):
    with pytest.raises(ValueError, match=r"^similarity: expected at least 3 points that are not on one line, got \d"):
        similarity(x, x)


def test_points_that_do_not_pair_up_are_refused():
    with pytest.raises(ValueError, match=r"^similarity: expected two times \(n, 3\), got \(4, 3\), \(5, 3\)$"):
        similarity(points(4), points(5))


@pytest.mark.parametrize("degrees", [1e-7, 0.01, 1.0, 90.0, 179.9])
def test_angles_are_exact_from_tiny_to_half_turns(degrees):
    axes = points(6)
    turn = Rotation.from_rotvec(np.deg2rad(degrees) * (axes / axes.norm(dim=1, keepdim=True)).numpy())
    base = Rotation.from_rotvec(points(6, 2).numpy())
    some, others = (torch.from_numpy(r.as_matrix()) for r in (turn * base, base))
    assert np.allclose(rotation_angles(some, others).numpy(), degrees, rtol=1e-6)


def test_errors_without_alignment():
    true = cameras()
    shift, turn = torch.tensor([0.03, 0.0, -0.04], dtype=torch.float64), Rotation.from_rotvec([0, np.deg2rad(2), 0])
    moved = []
    for camera in true:
        pose = camera.pose.clone()
        pose[:3, :3] = pose[:3, :3] @ torch.from_numpy(turn.as_matrix())
        pose[:3, 3] += shift
        moved.append(replace(camera, pose=pose))
    errors = camera_errors(moved, true, aligned=False)
    assert torch.allclose(errors.rotation, torch.full((7,), 2.0, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(errors.centre, torch.full((7,), 0.05, dtype=torch.float64), atol=1e-12)
    assert str(errors) == ("rotations 2 degrees off on average, 2 at most; centres 0.05 on average, 0.05 at most")


def test_a_common_motion_is_no_error():
    true = cameras()
    errors = camera_errors([motion().to_data(camera) for camera in true], true)
    assert errors.rotation.max() < 1e-9 and errors.centre.max() < 1e-12
    assert camera_errors([motion().to_data(c) for c in true], true, aligned=False).centre.min() > 0.1


def test_cameras_that_do_not_pair_up_are_refused():
    with pytest.raises(ValueError, match=r"^camera_errors: expected as many cameras as references, got 7, 6$"):
        camera_errors(cameras(), cameras()[1:])

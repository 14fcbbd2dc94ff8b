"""Turntables: cameras in a circle, animated files, and the guess which way is up."""

import math

import numpy as np
import PIL.Image
import pytest
import torch

from warpdvr.cameras import paths
from warpdvr.cameras.camera import Camera
from warpdvr.datasets.synthetic import mesh_views
from warpdvr.fields.analytic import Sphere
from warpdvr.rendering import turntable

UPS = (0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0), (0.6, 0.0, 0.8)


@pytest.mark.parametrize("up", UPS)
def test_cameras_look_at_the_origin_with_up_upwards(up):
    for camera in paths.turntable(5, up=up, size=64, distance=2.5, elevation=15):
        uv, z = camera.project(torch.stack([torch.zeros(3), 0.1 * torch.tensor(up)]))
        assert torch.allclose(uv[0], torch.full((2,), 32.0).double()) and float(z[0]) == pytest.approx(2.5)
        assert float(uv[1, 0]) == pytest.approx(32, abs=1e-6) and uv[1, 1] < 31
        assert float(camera.centre @ torch.tensor(up).double()) == pytest.approx(2.5 * math.sin(math.radians(15)))


@pytest.mark.parametrize("up", UPS)
def test_cameras_are_evenly_spread(up):
    n = 7
    centre = torch.stack([camera.centre for camera in paths.turntable(n, up=up)])
    gap = (centre - centre.roll(1, 0)).norm(dim=1)
    assert gap.min() > 0.5 and torch.allclose(gap, gap[:1].expand(n))
    assert (centre.mean(0) - torch.tensor(up) * 3 * math.sin(math.radians(20))).norm() < 1e-6


def test_no_frame_is_refused():
    with pytest.raises(ValueError, match="frames must be positive, got 0"):
        paths.turntable(0, up=(0, 0, 1))


def test_turn_renders_every_camera():
    path = paths.turntable(3, up=(0, 0, 1), size=16)
    images = list(turntable.turn(Sphere(), path))
    assert len(images) == 3 and all(image.mask[8, 8] and not image.rgb.requires_grad for image in images)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_animation_has_all_pictures(tmp_path, suffix):
    pictures = [np.full((12, 20, 3), 40 * i, np.uint8) for i in range(5)]
    turntable.animate(pictures, tmp_path / f"a{suffix}", seconds=1.0)
    with PIL.Image.open(tmp_path / f"a{suffix}") as file:
        assert file.n_frames == 5 and file.size == (20, 12)  # type: ignore[attr-defined]
        file.seek(3)
        assert np.abs(np.asarray(file.convert("RGB")).astype(int) - 120).max() < 12
        assert file.info["duration"] == pytest.approx(200)
    assert [f.name for f in tmp_path.iterdir()] == [f"a{suffix}"]


def test_one_picture_is_an_animation_too(tmp_path):
    turntable.animate([np.zeros((8, 8, 3), np.uint8)], tmp_path / "a.gif")
    with PIL.Image.open(tmp_path / "a.gif") as file:
        assert file.size == (8, 8)


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.gif, \.webp or \.png"):
        turntable.animate([np.zeros((8, 8, 3), np.uint8)], tmp_path / "a.mp4")
    assert not any(tmp_path.iterdir())


def around(up, *, roll=False):
    """Poses in a ring a little above the horizon; with `roll`, every second one upside down."""
    poses = torch.stack([camera.pose for camera in paths.turntable(8, up=up)])
    if roll:
        poses[::2, :3, :2] *= -1
    return poses


@pytest.mark.parametrize("up", UPS)
def test_up_is_what_the_images_have_at_the_top(up):
    expected = up if max(map(abs, up)) == 1 else None
    found = paths.estimate_up(around(up))
    if expected is not None:
        assert found == expected
    else:
        assert torch.allclose(torch.tensor(found), torch.tensor(up), atol=1e-6)


@pytest.mark.parametrize("up", UPS[:3])
def test_up_of_cameras_rolled_by_half_a_turn_is_normal_to_their_plane(up):
    found = paths.estimate_up(around(up, roll=True))
    assert abs(float(torch.tensor(found) @ torch.tensor(up))) == 1


def test_up_is_snapped_to_a_near_axis():
    tilted = [Camera.look_at((3.0, y, 0.5), up=(0.0, 0.3, 1.0)).pose for y in (-1.0, 0.0, 1.0)]
    assert paths.estimate_up(torch.stack(tilted)) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("up", ["y", "z"])
def test_up_of_rendered_meshes(up):
    given = mesh_views("warp:bunny", count=6, test=0, size=4, up=up)
    found = paths.estimate_up(torch.stack([camera.pose for camera in given.cameras]))
    assert found == ((0.0, 1.0, 0.0) if up == "y" else (0.0, 0.0, 1.0))

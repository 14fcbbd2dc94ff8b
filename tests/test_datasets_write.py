"""Cameras written in the format that they were read from: there and back, and all else in the files kept."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation
from test_datasets import WRITERS
from test_datasets_dvr import box
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.projection import ORTHOGRAPHIC
from warpdvr.datasets.dvr import write
from warpdvr.datasets.load import load, write_cameras
from warpdvr.datasets.views import Views

CAMERA_FILES = {
    "idr": "cameras.npz",
    "dvr": "cameras.npz",
    "middlebury": "ball_par.txt",
    "transforms": "transforms.json",
}


@pytest.fixture(params=[*CAMERA_FILES, "smaller", "split"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder in each format, one with images of half the size that its matrices are for, one with a split."""
    kind = {"smaller": "idr", "split": "transforms"}.get(request.param, request.param)
    home = tmp_path / "given"
    home.mkdir()
    write(home, box()) if kind == "dvr" else WRITERS[kind](home)
    if request.param == "smaller":
        for path in home.glob("*/*.png"):
            with Image.open(path) as image:
                image.reduce(2).save(path)
    if request.param == "split":
        table = json.loads((home / "transforms.json").read_text())
        (home / "transforms.json").unlink()
        for name, part in (("train", slice(0, 7)), ("test", slice(7, None))):
            (home / f"transforms_{name}.json").write_text(json.dumps({**table, "frames": table["frames"][part]}))
    return home


def moved(views: Views) -> tuple[Camera, ...]:
    """Cameras turned and shifted at random, by about a degree and a hundredth."""
    rng, found = np.random.default_rng(0), []
    for camera in views.cameras:
        pose = camera.pose.clone()
        pose[:3, :3] = torch.from_numpy(Rotation.from_rotvec(0.02 * rng.normal(size=3)).as_matrix()) @ pose[:3, :3]
        pose[:3, 3] += 0.01 * torch.from_numpy(rng.normal(size=3))
        found.append(replace(camera, pose=pose))
    return tuple(found)


def in_data(views: Views, cameras: tuple[Camera, ...]) -> Tensor:
    return torch.stack([views.transform.to_data(camera).pose for camera in cameras])


def test_there_and_back(folder: Path, tmp_path: Path) -> None:
    views = load(folder)
    cameras = moved(views)
    out = shutil.copytree(folder, tmp_path / "back")
    written = write_cameras(folder, views, cameras, out)
    again = load(out)
    assert {path.name for path in written} <= {path.name for path in folder.iterdir()} and written
    expected, found = in_data(views, cameras), in_data(again, again.cameras)
    assert (found - expected).abs().max() < 1e-6 * expected.abs().max()
    assert (in_data(views, views.cameras) - expected).abs().max() > 1e-3
    for a, b in zip(again.cameras, views.cameras, strict=True):
        assert (a.K - b.K).abs().max() < 1e-6 * b.K.abs().max() and (a.width, a.height) == (b.width, b.height)
    assert (again.train, again.test, again.names) == (views.train, views.test, views.names)


def test_the_given_files_are_left_alone(folder: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    views = load(folder)
    written = write_cameras(folder, views, views.cameras, tmp_path / "a" / "b")
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == sorted(path.name for path in written)


def test_in_the_data_s_own_frame_too(folder: Path, tmp_path: Path) -> None:
    views = load(folder, normalise=False)
    cameras = moved(views)
    out = shutil.copytree(folder, tmp_path / "back")
    write_cameras(folder, views, cameras, out)
    assert torch.allclose(
        in_data(load(out), load(out).cameras), torch.stack([c.pose for c in cameras]), rtol=1e-6, atol=1e-6
    )


def test_scale_and_inverses_of_the_skull_go_with_it(data: Path, tmp_path: Path) -> None:
    """The matrices for full size project as the cameras for half of it; what is not world_mat stays bit for bit."""
    folder = data / "dtu_scan65"
    views = load(folder, cameras="cameras_linear_init.npz")
    cameras = moved(views)
    (path,) = write_cameras(folder, views, cameras, tmp_path, name="cameras_linear_init.npz")
    given, found = (np.load(f, allow_pickle=False) for f in (folder / path.name, path))
    assert set(found.files) == set(given.files)
    x = torch.tensor([[0.1, -0.3, 0.2], [-0.4, 0.0, 0.3]], dtype=torch.float64)
    for i, camera in enumerate(cameras):
        P = found[f"world_mat_{i}"] @ found[f"scale_mat_{i}"]
        uvw = np.c_[x.numpy(), np.ones(2)] @ P[:3].T
        full = uvw[:, :2] / uvw[:, 2:]
        assert np.allclose((full + 0.5) / 2, camera.project(x)[0].numpy(), atol=1e-6)
        if f"world_mat_inv_{i}" in found.files:
            assert np.allclose(found[f"world_mat_inv_{i}"] @ found[f"world_mat_{i}"], np.eye(4), atol=1e-9)
    for key in given.files:
        assert key.startswith("world_mat") or (given[key] == found[key]).all()


def test_another_projection_is_refused(folder: Path, tmp_path: Path) -> None:
    views = load(folder)
    cameras = (*views.cameras[:-1], replace(views.cameras[-1], projection=ORTHOGRAPHIC))
    with pytest.raises(ValueError, match=r"is perspective in the data set, got orthographic$"):
        write_cameras(folder, views, cameras, tmp_path / "out")
    with pytest.raises(ValueError, match=r"DVR's files hold pinholes only, the camera of .* is orthographic$"):
        write(tmp_path / "out", replace(views, cameras=cameras))
    assert not (tmp_path / "out").exists()


def test_another_number_of_cameras_is_refused(folder: Path, tmp_path: Path) -> None:
    views = load(folder)
    with pytest.raises(ValueError, match=rf"^{folder}: expected a camera for each of {len(views)} views, got 1$"):
        write_cameras(folder, views, views.cameras[:1], tmp_path / "out")
    fewer = replace(
        views,
        **{k: getattr(views, k)[:4] for k in ("images", "masks", "cameras", "names")},
        train=(0, 1, 2, 3),
        test=(),
    )
    with pytest.raises(
        ValueError, match=r": holds \d+ cameras, expected one for each of the 4 that are to be written$"
    ):
        write_cameras(folder, fewer, fewer.cameras, tmp_path / "out")

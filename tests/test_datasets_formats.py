"""A format from outside of the package, and what is said about the formats that were detected."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from test_datasets import CENTRE, HEIGHT, RADIUS, WIDTH, WRITERS, N, cameras, colours, outline, save
from test_datasets_dvr import box
from test_datasets_write import CAMERA_FILES, moved

from warpdvr.cameras.camera import Camera
from warpdvr.datasets import load as loading
from warpdvr.datasets.dvr import write
from warpdvr.datasets.formats import Capture, Detection, Format, ReadOptions
from warpdvr.datasets.images import MaskSet, masks_from_alpha, read_photographs
from warpdvr.datasets.load import FORMATS, detect, load, register_format, write_cameras
from warpdvr.datasets.views import Views


class PoseTable(Format):
    """A row of 12 numbers per picture, camera to world, for a focal length of 80 pixels."""

    title, pattern = "Table of poses", "poses.csv"

    def read(self, data: Detection, options: ReadOptions) -> Views:
        photographs = read_photographs(sorted(data.folder.glob("*.png")))
        rows = torch.from_numpy(np.loadtxt(data.choose(), delimiter=",")).reshape(-1, 3, 4)
        own = tuple(Camera(K, torch.cat([row, torch.eye(4)[3:]]), WIDTH, HEIGHT) for row in rows)
        masks = masks_from_alpha(photographs) or MaskSet.empty(len(photographs))
        capture = Capture(photographs, masks, own, data.choose().name, "focal length of 80 pixels")
        return capture.views(data, options)

    def write_cameras(self, data: Detection, cameras: Sequence[Camera]) -> dict[str, bytes]:
        rows = (",".join(map(repr, camera.pose[:3].flatten().tolist())) for camera in cameras)
        return {data.choose().name: "\n".join(rows).encode()}


K = torch.tensor([[80.0, 0, WIDTH / 2], [0, 80, HEIGHT / 2], [0, 0, 1]], dtype=torch.float64)


@pytest.fixture
def ball(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The ball, photographed with a focal length of 80 pixels, with its poses in a table."""
    monkeypatch.setattr(loading, "FORMATS", [*FORMATS])
    for i, camera in enumerate(cameras()):
        mask = outline(Camera(K, camera.pose, WIDTH, HEIGHT))
        save(tmp_path / f"{i:02d}.png", np.dstack([colours(i), 255 * mask]))
    np.savetxt(tmp_path / "poses.csv", [c.pose[:3].flatten().numpy() for c in cameras()], delimiter=",", fmt="%.17g")
    return tmp_path


def test_a_format_from_outside_is_read_and_written(ball: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"found \d+ pictures such as 00\.png, but no cameras; .*lists all formats"):
        load(ball)
    register_format(PoseTable())
    views = load(ball, hold_out=5)
    assert views.summary.startswith(f"Table of poses, poses.csv: {N} views of {WIDTH} x {HEIGHT} pixels, focal length")
    assert f"Masks from alpha (above 127 = object) for {N} of {N}" in views.summary and views.test == (0, 5)
    assert (views.transform.matrix[:3, 3] - CENTRE).norm() < 0.05 * RADIUS
    poses = np.loadtxt(ball / "poses.csv", delimiter=",").reshape(-1, 3, 4)
    x = CENTRE.numpy() + RADIUS * np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]])
    for camera, pose in zip(views.cameras, poses, strict=True):  # u = f x / z + c, written out
        local = (x - pose[:, 3]) @ pose[:, :3]
        uv = camera.project(views.transform.inverse().apply(torch.from_numpy(x)))[0].numpy()
        assert np.abs(uv - (80 * local[:, :2] / local[:, 2:] + [WIDTH / 2, HEIGHT / 2])).max() < 1e-4
    (path,) = write_cameras(ball, views, moved(views), tmp_path / "out")
    centres = np.loadtxt(path, delimiter=",").reshape(-1, 3, 4)[:, :, 3]
    expected = views.transform.apply(torch.stack([camera.centre for camera in moved(views)])).numpy()
    assert np.abs(centres - expected).max() < 1e-6 < 1e-3 < np.abs(centres - poses[:, :, 3]).max()


def test_a_format_is_registered_once_and_tried_first(ball: Path) -> None:
    register_format(PoseTable())
    with pytest.raises(ValueError, match="'Table of poses' is registered already"):
        register_format(PoseTable())
    WRITERS["idr"](ball)
    assert detect(ball).format.title == "Table of poses"
    assert str(detect(ball, cameras="cameras.npz")) == "IDR / NeuS (cameras.npz)"


@pytest.mark.parametrize(
    ("kind", "title"),
    [
        ("idr", "IDR / NeuS"),
        ("dvr", "DVR"),
        ("middlebury", "Middlebury"),
        ("transforms", "nerfstudio / instant-ngp / Blender"),
    ],
)
def test_detection_says_what_it_found(tmp_path: Path, kind: str, title: str) -> None:
    write(tmp_path, box()) if kind == "dvr" else WRITERS[kind](tmp_path)
    detection = detect(tmp_path)
    assert str(detection) == f"{title} ({CAMERA_FILES[kind]})"
    assert detection.camera_files == (tmp_path / CAMERA_FILES[kind],)

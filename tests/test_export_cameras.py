"""Cameras of any views written in every format, and read again."""

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_cameras_commands import run

import warpdvr
from warpdvr.cameras.camera import Camera
from warpdvr.cameras.lenses import FisheyeLens, OpenCVLens
from warpdvr.cameras.projection import PINHOLE, Projection
from warpdvr.cameras.transform import SceneTransform
from warpdvr.cli.cameras import ExportCamerasArguments, export
from warpdvr.cli.parser import parse
from warpdvr.datasets.export import export_cameras, export_formats
from warpdvr.datasets.listing import NamedCamera
from warpdvr.datasets.load import FORMATS, load, write_cameras
from warpdvr.datasets.views import Views
from warpdvr.runs.run import Run

__all__ = ["run"]  # a fixture

W, H = 12, 9
"""Size of all pictures [pixel]."""

NAMES = ("frame_00000", "frame_00001", "frame_00002")
"""Of the views; the app that writes frame_*.json calls pictures like that."""

ONE_FOCAL_LENGTH = {"openmvg", "realitycapture"}

CENTRED = {"llff", "bundler"}
"""Formats with the principal point in the centre, and one focal length too."""

FOLDERS = {
    "middlebury": "",
    "nsvf": "rgb",
    "blendedmvs": "blended_images",
    "mvsnet": "blended_images",
    "scannet": "color",
    "polycam": "keyframes/corrected_images",
    "record3d": "rgbd",
    "arkit": "",
    "3d-scanner-app": "",
    "projection-matrices": "",
}
"""Where a format has its pictures, if not in images/."""

TRANSFORM = SceneTransform(
    torch.tensor([[0, -2.5, 0, 1], [2.5, 0, 0, -2], [0, 0, 2.5, 3], [0, 0, 0, 1]], dtype=torch.float64)
)
"""From the scene to the data: turned, scaled and shifted."""

LOST = {
    "bundler": "the points",
    "openmvg": "structure, control points and the sharing of intrinsics",
    "metashape": "markers, settings and the sharing of sensors",
    "realitycapture": "columns beyond those that are read",
}
"""What is lost where cameras of a format are replaced."""

OURS = sorted(export_formats())


def intrinsics(name: str) -> torch.Tensor:
    """Return K as general as the format can hold."""
    fx, fy, cx, cy = (14.0, 14.0, W / 2, H / 2) if name in CENTRED else (14.0, 14.5, 6.75, 4.125)
    return torch.tensor([[fx, 0, cx], [0, fx if name in ONE_FOCAL_LENGTH else fy, cy], [0, 0, 1]], dtype=torch.float64)


def sample(name: str, lens: Projection = PINHOLE) -> Views:
    """Three views of an object at the origin of the scene, in general position."""
    eyes = ((2.6, 0.4, 0.9), (-1.1, 2.3, 0.7), (-1.5, -2.1, 1.2))
    poses = [Camera.look_at(eye, (0.05, -0.1, 0.02), up=(0.1, 0.2, 1)).pose for eye in eyes]
    cameras = tuple(Camera(intrinsics(name), pose, W, H, lens) for pose in poses)
    images = tuple(torch.full((H, W, 3), 40 * i, dtype=torch.uint8) for i in range(3))
    return Views(images, (None,) * 3, cameras, NAMES, (0, 1, 2), (), TRANSFORM, "three views")


def folder_of(folder: Path, name: str, views: Views) -> Path:
    """Write cameras with their pictures."""
    export_cameras(views, folder, format=name)
    place = folder / FOLDERS.get(name, "images")
    place.mkdir(parents=True, exist_ok=True)
    for stem, image in zip(views.names, views.images, strict=True):
        Image.fromarray(image.numpy()).save(place / f"{stem}.png")
    return folder


def worst(a: Views, b: Views) -> float:
    """Return by how much pixels of points in the data's frame differ at most [pixel]."""
    x = TRANSFORM.apply(0.4 * torch.randn(50, 3, generator=torch.manual_seed(0)).double())
    pairs = zip(a.in_data_frame().cameras, b.in_data_frame().cameras, strict=True)
    return max(float((c.project(x)[0] - d.project(x)[0]).abs().max()) for c, d in pairs)


@pytest.mark.parametrize("name", OURS)
def test_cameras_are_the_same_when_they_are_read_again(name: str, tmp_path: Path) -> None:
    views = sample(name)
    again = load(folder_of(tmp_path, name, views), hold_out=0)
    assert again.names == NAMES and worst(views, again) < 1e-6
    assert [int(image[0, 0, 0]) for image in again.images] == [0, 40, 80]


@pytest.mark.parametrize("name", OURS)
def test_refined_cameras_are_written_over_those_of_a_set(name: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "data", name, sample(name))
    views = load(folder, hold_out=0)
    shift = torch.eye(4, dtype=torch.float64)
    shift[:3, 3] = torch.tensor([0.01, 0.02, -0.01])
    moved = replace(views, cameras=tuple(replace(c, pose=shift @ c.pose) for c in views.cameras))
    out = shutil.copytree(folder, tmp_path / "out")
    lost = LOST.get(name)
    with pytest.warns(UserWarning, match=f"without {lost} of the old ones$") if lost else nullcontext():
        write_cameras(folder, views, moved.cameras, out)
    again = load(out, hold_out=0)
    assert worst(moved, again) < 1e-6 < worst(views, again)


@pytest.mark.parametrize("name", ["idr", "dvr"])
def test_formats_with_a_scene_frame_keep_it(name: str, tmp_path: Path) -> None:
    again = load(folder_of(tmp_path, name, sample(name)), hold_out=0)
    torch.testing.assert_close(again.transform.matrix, TRANSFORM.matrix)


LENSES: dict[str, tuple[Projection, set[str]]] = {
    "k1": (
        OpenCVLens([0.058, 0.0, 0.0, 0.0]),
        {"bundler", "openmvg", "metashape", "realitycapture", "colmap", "nerfstudio"},
    ),
    "brown": (OpenCVLens([0.058, -0.02, 0.003, -0.002, 0.01]), {"openmvg", "metashape", "colmap", "nerfstudio"}),
    "fisheye": (FisheyeLens([0.03, -0.01, 0.002, -0.001]), {"openmvg", "metashape", "colmap", "nerfstudio"}),
}
"""A lens, and the formats of this list that hold it."""


@pytest.mark.parametrize(
    "name", sorted({"idr", "dvr", "llff", "nsvf", "polycam", "bundler", "openmvg", "metashape", "colmap", "nerfstudio"})
)
@pytest.mark.parametrize("lens", LENSES)
def test_a_lens_is_kept_or_refused_by_name(lens: str, name: str, tmp_path: Path) -> None:
    projection, able = LENSES[lens]
    views = sample(name, projection)
    if name in able:
        assert worst(views, load(folder_of(tmp_path, name, views), hold_out=0)) < 1e-6
        return
    hint = r"formats that can: .*metashape" if lens == "fisheye" or name not in CENTRED else "formats that can"
    with pytest.raises(ValueError, match=rf"the camera of frame_00000\.png .*the format cannot hold; {hint}"):
        export_cameras(views, tmp_path / "out", format=name)
    assert not (tmp_path / "out").exists()


def orthographic(camera: Camera) -> Camera:
    return Camera.orthographic(camera.centre, width=W, height=H)


def skewed(camera: Camera) -> Camera:
    return replace(camera, K=camera.K + torch.tensor([[0, 0.5, 0], [0, 0, 0], [0, 0, 0]], dtype=torch.float64))


REFUSED: dict[str, tuple[str, Callable[[Camera], Camera], str]] = {
    "orthographic": ("polycam", orthographic, "is orthographic, which the format cannot hold; there is none that can"),
    "skew": ("polycam", skewed, r"has skew \(0.5 pixels\), .*formats that can: dvr, idr, neus, middlebury"),
    "focal lengths": ("openmvg", lambda c: c, r"has two focal lengths \(14 and 14\.5 pixels\)"),
    "centre": ("llff", lambda c: replace(c, K=intrinsics("openmvg")), r"principal point at \(6\.75, 4\.125\), not at"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_a_format_cannot_hold_is_refused_and_others_are_named(kind: str, tmp_path: Path) -> None:
    name, change, message = REFUSED[kind]
    views = sample("idr")
    with pytest.raises(ValueError, match=message):
        export_cameras(replace(views, cameras=tuple(map(change, views.cameras))), tmp_path, format=name)


def test_an_unknown_format_is_refused_with_those_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no format 'metashap' to write cameras in.*metashape"):
        export_cameras(sample("idr"), tmp_path, format="metashap")


def test_cameras_alone_are_written_without_views(tmp_path: Path) -> None:
    cameras = [NamedCamera("a.png", sample("idr").cameras[0]), NamedCamera("b.png", sample("idr").cameras[1])]
    (path,) = warpdvr.export_cameras(cameras, tmp_path, format="idr")
    with np.load(path, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["scale_mat_1"], np.eye(4))
    with pytest.raises(ValueError, match=r"two pictures are called a\.png"):
        export_cameras([cameras[0], cameras[0]], tmp_path, format="idr")


def test_every_format_that_is_read_is_written() -> None:
    named = {format.title for format in export_formats().values()}
    assert {format.title for format in FORMATS} == named


def test_command_writes_the_refined_cameras_of_a_run(run: Run, tmp_path: Path) -> None:
    export(
        parse(
            ExportCamerasArguments,
            "export-cameras",
            [str(run.folder), "--format", "idr", "--out", str(tmp_path / "out")],
        )
    )
    shutil.copytree(tmp_path / "data" / "image", tmp_path / "out" / "image")
    again, refined = load(tmp_path / "out", hold_out=0), run.load().cameras
    x = 0.5 * torch.randn(50, 3, generator=torch.manual_seed(0)).double()
    for camera, own, old in zip(again.cameras, refined, run.scene().load_views().cameras, strict=True):
        assert float((camera.project(x)[0] - own.project(x)[0]).abs().max()) < 1e-6
        assert float((camera.project(x)[0] - old.project(x)[0]).abs().max()) > 0.1


def test_command_writes_the_cameras_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path / "data", "polycam", sample("polycam"))
    words = [str(folder), "--format", "metashape", "--out", str(tmp_path / "out")]
    export(parse(ExportCamerasArguments, "export-cameras", words))
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "out" / "cameras.xml")
    (tmp_path / "out" / "images").mkdir()
    for name in NAMES:
        shutil.copy(folder / "keyframes/corrected_images" / f"{name}.png", tmp_path / "out" / "images")
    assert worst(sample("polycam"), load(tmp_path / "out", hold_out=0)) < 1e-6

"""Cameras in the formats of other programs: files written by hand from the published layouts, and what is refused."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from warpdvr.cameras.camera import Camera
from warpdvr.datasets.load import detect, load
from warpdvr.datasets.views import Views

W, H = 8, 6
"""Size of all pictures [pixel]."""

POINTS = torch.tensor([[0.0, 0, 0], [0.3, -0.2, 0.1], [-0.1, 0.25, -0.3], [0.2, 0.1, 0.4]], dtype=torch.float64)
"""Around the object, in the frame of the data."""

BACK = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
"""World to camera with OpenCV axes: a camera below the object (y down, so at negative z) that looks along +z."""

SIDE = np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]])
"""A camera at negative x that looks along +x."""

GL = np.diag([1.0, -1, -1])

T = np.array([0.0, 0, 4])
"""Translation, world to camera: the origin is 4 in front."""


def projected(f: float, fy: float, cx: float, cy: float) -> tuple[np.ndarray, np.ndarray]:
    """Return where both cameras see POINTS, by the formula itself: u = f X / Z + cx with centres at +0.5."""
    seen = []
    for R in (BACK, SIDE):
        X, Y, Z = R @ POINTS.numpy().T + T[:, None]
        seen.append(np.stack([f * X / Z + cx, fy * Y / Z + cy], 1))
    return seen[0], seen[1]


def pictures(folder: Path, *names: str, size: tuple[int, int] = (W, H)) -> None:
    """Write grey pictures."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((size[1], size[0], 3), 90, np.uint8)).save(path)


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def rows(matrix: np.ndarray) -> str:
    return "\n".join(" ".join(f"{a:.12g}" for a in row) for row in matrix) + "\n"


def to_world(R: np.ndarray) -> np.ndarray:
    """Return the pose, camera to world, (4, 4), of x_camera = R x + T."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = R.T, -R.T @ T
    return pose


def read(folder: Path, **options: float) -> Views:
    return load(folder, hold_out=0, normalise=False, **options)  # type: ignore[arg-type]


def check(views: Views, seen: tuple[np.ndarray, np.ndarray], atol: float = 1e-6) -> None:
    """The cameras see POINTS where they should."""
    assert len(views) == 2
    for camera, expected in zip(views.cameras, seen, strict=True):
        np.testing.assert_allclose(camera.project(POINTS)[0].numpy(), expected, rtol=0, atol=atol)


def llff(folder: Path) -> None:
    # a row: down, right, backwards, centre, (h, w, f) as columns; then near and far
    table = []
    for R in (BACK, SIDE):
        right, down, forward = R
        columns = [down, right, -forward, -R.T @ T, (H, W, 10.0)]
        table.append([*np.stack(columns, 1).ravel(), 2.0, 6.0])
    np.save(folder / "poses_bounds.npy", np.array(table))
    pictures(folder, "images/10.png", "images/9.png")  # sorted as text: 10 before 9


def nsvf(folder: Path) -> None:
    write(folder, "intrinsics.txt", "10 4.5 3.25 0.\n0. 0. 0.\n0.\n1.\n6 8\n")
    for name, R in (("0_a", BACK), ("2_b", SIDE)):
        write(folder, f"pose/{name}.txt", rows(to_world(R)))
    pictures(folder, "rgb/0_a.png", "rgb/2_b.png")


def scannet(folder: Path) -> None:
    write(folder, "intrinsic/intrinsic_color.txt", "10 0 4 0\n0 11 2.75 0\n0 0 1 0\n0 0 0 1\n")
    for name, R in (("0", BACK), ("10", SIDE)):
        write(folder, f"pose/{name}.txt", rows(to_world(R)))
    pictures(folder, "color/0.jpg", "color/10.jpg")


def blendedmvs(folder: Path) -> None:
    for i, R in enumerate((BACK, SIDE)):
        world = np.linalg.inv(to_world(R))
        text = f"extrinsic\n{rows(world)}\nintrinsic\n10 0 4.5\n0 11 3.25\n0 0 1\n\n2.5 0.01 192 4.4\n"
        write(folder, f"cams/{i:08d}_cam.txt", text)
        pictures(folder, f"blended_images/{i:08d}.jpg", f"blended_images/{i:08d}_masked.jpg")


def oxford(folder: Path) -> None:
    K = np.array([[10, 0.5, 4], [0, 11, 2.75], [0, 0, 1]])
    for name, R, s in (("viff.000", BACK, -3.0), ("viff.001", SIDE, 0.5)):
        write(folder, f"{name}.P", rows(s * K @ np.column_stack([R, T])))
        pictures(folder, f"{name}.ppm")


def bundler(folder: Path) -> None:
    text = "# Bundle file v0.3\n2 1\n"
    for R in (BACK, SIDE):
        text += f"10 0 0\n{rows(GL @ R)}{rows((GL @ T)[None])}"
    text += "0.3 -0.2 0.1\n255 0 0\n2 0 17 -1.0 1.0 1 3 0.5 0.5\n"
    write(folder, "bundle.out", text)
    write(folder, "list.txt", "./some/where/a.jpg 0 1234.5\n./some/where/b.jpg\n")
    pictures(folder, "images/a.jpg", "images/b.jpg")


def openmvg(folder: Path) -> None:
    base = {"width": W, "height": H, "focal_length": 10.0, "principal_point": [4.5, 3.25]}
    table = {
        "sfm_data_version": "0.3",
        "root_path": "/home/someone/images",
        "views": [
            {
                "key": i,
                "value": {
                    "polymorphic_id": 1073741824,
                    "ptr_wrapper": {
                        "id": 2147483649 + i,
                        "data": {
                            "local_path": "/",
                            "filename": name,
                            "width": W,
                            "height": H,
                            "id_view": i,
                            "id_intrinsic": i,
                            "id_pose": i,
                        },
                    },
                },
            }
            for i, name in enumerate(("a.jpg", "b.jpg"))
        ],
        "intrinsics": [
            {
                "key": 0,
                "value": {
                    "polymorphic_id": 2147483649,
                    "polymorphic_name": "pinhole_radial_k3",
                    "ptr_wrapper": {"id": 2147483660, "data": {"value0": base, "disto_k3": [0.0, 0.0, 0.0]}},
                },
            },
            {
                "key": 1,
                "value": {
                    "polymorphic_id": 1,
                    "ptr_wrapper": {"id": 2147483661, "data": {"value0": base, "disto_k3": [0.0, 0.0, 0.0]}},
                },
            },
        ],
        "extrinsics": [
            {"key": i, "value": {"rotation": R.tolist(), "center": (-R.T @ T).tolist()}}
            for i, R in enumerate((BACK, SIDE))
        ],
        "structure": [
            {
                "key": 4,
                "value": {"X": [0.1, 0.2, 0.3], "observations": [{"key": 1, "value": {"id_feat": 2, "x": [1.0, 2.0]}}]},
            }
        ],
        "control_points": [],
    }
    write(folder, "sfm_data.json", json.dumps(table))
    pictures(folder, "images/a.jpg", "images/b.jpg")


def metashape(folder: Path) -> None:
    # the chunk is turned by 90 degrees about z, twice as large and shifted: the cameras below undo that
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    world = np.eye(4)
    world[:3, :3], world[:3, 3] = 2 * turn, [1, 2, 3]
    cameras = ""
    for i, (label, R) in enumerate((("a", BACK), ("b.jpg", SIDE))):
        own = np.linalg.inv(world) @ to_world(R)
        own[:3, :3] *= 2
        text = " ".join(f"{a:.15g}" for a in own.ravel())
        cameras += f'<camera id="{i}" sensor_id="0" label="{label}"><transform>{text}</transform></camera>'
    write(
        folder,
        "cameras.xml",
        f"""<?xml version="1.0" encoding="UTF-8"?>
<document version="1.5.0">
  <chunk label="Chunk 1" enabled="true">
    <sensors next_id="1">
      <sensor id="0" label="unknown" type="frame">
        <resolution width="{W}" height="{H}"/>
        <calibration type="frame" class="adjusted">
          <resolution width="{W}" height="{H}"/>
          <f>11</f><cx>0.5</cx><cy>0.25</cy><b1>-1</b1>
        </calibration>
      </sensor>
    </sensors>
    <cameras next_id="2" next_group_id="0">{cameras}</cameras>
    <transform>
      <rotation>{" ".join(str(a) for a in turn.ravel())}</rotation>
      <translation>1 2 3</translation>
      <scale>2</scale>
    </transform>
  </chunk>
</document>
""",
    )
    pictures(folder, "images/a.jpg", "images/b.jpg")


def realitycapture(folder: Path) -> None:
    # z up here: a camera that looks north (+y) has pitch 90, one that looks east (+x) heading 90 as well
    write(
        folder,
        "cameras.csv",
        "#name,x,y,alt,heading,pitch,roll,f,px,py,k1,k2,k3,k4,t1,t2\n"
        "a.jpg,0,-4,0,0,90,0,45,0.0625,0.03125,0,0,0,0,0,0\n"
        "b.jpg,-4,0,0,90,90,0,45,0.0625,0.03125,0,0,0,0,0,0\n",
    )
    pictures(folder, "images/a.jpg", "images/b.jpg")


def polycam(folder: Path) -> None:
    for name, R in (("123", BACK), ("456", SIDE)):
        pose = to_world(R)
        pose[:3, :3] = pose[:3, :3] @ GL
        table = {f"t_{i}{j}": pose[i, j] for i in range(3) for j in range(4)}
        table |= {"fx": 20.0, "fy": 22.0, "cx": 9.0, "cy": 6.5, "width": 2 * W, "height": 2 * H, "blur_score": 3.0}
        write(folder, f"keyframes/corrected_cameras/{name}.json", json.dumps(table))
        write(folder, f"keyframes/cameras/{name}.json", "{}")
        pictures(folder, f"keyframes/corrected_images/{name}.jpg")  # half as large as the intrinsics are for


def record3d(folder: Path) -> None:
    half = math.sqrt(0.5)
    # BACK with OpenGL axes is half a turn about x; SIDE maps (right, up, back) to (-z, -y, -x)
    poses = [[1, 0, 0, 0, 0, 0, -4], [half, 0, -half, 0, -4, 0, 0]]
    table = {"w": W, "h": H, "K": [10, 0, 0, 0, 11, 0, 4.5, 3.25, 1], "fps": 60, "poses": poses, "dw": 4, "dh": 3}
    write(folder, "metadata", json.dumps(table))
    pictures(folder, "rgbd/0.jpg", "rgbd/1.jpg")


def arkit(folder: Path) -> None:
    for i, R in enumerate((BACK, SIDE)):
        pose = to_world(R)
        pose[:3, :3] = pose[:3, :3] @ GL
        table = {"cameraPoseARFrame": pose.ravel().tolist(), "intrinsics": [10, 0, 4.5, 0, 11, 3.25, 0, 0, 1], "time": 1}
        write(folder, f"frame_{i:05d}.json", json.dumps(table))
        pictures(folder, f"frame_{i:05d}.jpg")
    write(folder, "frame_00002.json", json.dumps(table))  # a pose without a picture


CENTRED, SQUARE, FULL = (10, 10, 4, 3), (10, 10, 4.5, 3.25), (10, 11, 4.5, 3.25)

LAYOUTS: dict[str, tuple[Callable[[Path], None], str, tuple[float, float, float, float]]] = {
    "LLFF": (llff, "LLFF", CENTRED),
    "NSVF": (nsvf, "NSVF", SQUARE),
    "ScanNet": (scannet, "ScanNet", FULL),
    "BlendedMVS": (blendedmvs, "BlendedMVS / MVSNet", FULL),
    "Bundler": (bundler, "Bundler", CENTRED),
    "OpenMVG": (openmvg, "OpenMVG", SQUARE),
    "Metashape": (metashape, "Metashape", FULL),
    "Polycam": (polycam, "Polycam", FULL),
    "Record3D": (record3d, "Record3D", FULL),
    "ARKit": (arkit, "ARKit / 3D Scanner App", FULL),
}
"""How a set is written by hand, the title of its format, and its fx, fy, cx, cy."""


@pytest.mark.parametrize("name", LAYOUTS)
def test_cameras_see_points_where_the_published_layout_puts_them(name: str, tmp_path: Path) -> None:
    layout, title, numbers = LAYOUTS[name]
    layout(tmp_path)
    assert detect(tmp_path).format.title == title
    views = read(tmp_path)
    check(views, projected(*numbers))
    assert views.summary.startswith(title) and "2 views of 8 x 6 pixels" in views.summary


def test_projection_matrices_keep_their_skew_and_may_be_negative(tmp_path: Path) -> None:
    oxford(tmp_path)
    views = read(tmp_path)
    K = np.array([[10, 0.5, 4.5], [0, 11, 3.25], [0, 0, 1]])
    for camera, R in zip(views.cameras, (BACK, SIDE), strict=True):
        u, v, w = K @ (R @ POINTS.numpy().T + T[:, None])
        np.testing.assert_allclose(camera.project(POINTS)[0].numpy(), np.stack([u / w, v / w], 1), atol=1e-6)
        assert float(camera.K[0, 1]) == pytest.approx(0.5)
        assert float(camera.project(POINTS)[1].min()) > 0


def test_realitycapture_looks_north_and_east(tmp_path: Path) -> None:
    """By hand: heading is counted from north to east, z is up, 45 mm of a film of 36 mm are 1.25 widths."""
    realitycapture(tmp_path)
    north, east = read(tmp_path).cameras
    np.testing.assert_allclose(north.pose[:3, 2].numpy(), [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(north.pose[:3, 1].numpy(), [0, 0, -1], atol=1e-12)
    np.testing.assert_allclose(east.pose[:3, 2].numpy(), [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(east.pose[:3, 0].numpy(), [0, -1, 0], atol=1e-12)
    (pixel,), (z,) = north.project(torch.tensor([[0.2, 0.0, 0.4]], dtype=torch.float64))
    np.testing.assert_allclose(pixel.numpy(), [4.5 + 10 * 0.2 / 4, 3.25 - 10 * 0.4 / 4], atol=1e-9)
    assert float(z) == pytest.approx(4)

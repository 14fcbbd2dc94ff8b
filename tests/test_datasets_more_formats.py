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
from warpdvr.cli.fit import FitArguments, _new_scene, _with_views
from warpdvr.cli.parser import parse
from warpdvr.datasets.formats import ReadOptions
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
        table = {
            "cameraPoseARFrame": pose.ravel().tolist(),
            "intrinsics": [10, 0, 4.5, 0, 11, 3.25, 0, 0, 1],
            "time": 1,
        }
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


def edited(layout: Callable[[Path], None], name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    """Return a layout with a change in one of its files."""

    def spoilt(folder: Path) -> None:
        layout(folder)
        path = folder / name
        path.write_text(change(path.read_text()))

    return spoilt


def swap(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return change


def lossy(folder: Path) -> None:
    """LLFF rows of 14 numbers."""
    llff(folder)
    np.save(folder / "poses_bounds.npy", np.zeros((2, 14)))


def crowded(folder: Path) -> None:
    llff(folder)
    pictures(folder, "images/11.png")


DOCTYPE = '<?xml version="1.0"?><!DOCTYPE document [<!ENTITY a "b">]>\n<document version="1"><chunk'

BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "llff numbers": (
        lossy,
        r"poses_bounds\.npy: expected numbers \(n, 17\), a row per picture, found float64 \(2, 14\)",
    ),
    "llff pictures": (crowded, r"images: expected 2 pictures, one per row of poses_bounds\.npy, found 3"),
    "nsvf intrinsics": (edited(nsvf, "intrinsics.txt", swap("10 4.5", "ten 4.5")), "expected a number, found 'ten'"),
    "nsvf pose": (edited(nsvf, "pose/0_a.txt", swap("1", "1 1")), r"0_a\.txt: expected 16 numbers, found 17"),
    "blendedmvs words": (edited(blendedmvs, "cams/00000000_cam.txt", swap("intrinsic", "")), "then `intrinsic` and 9"),
    "blendedmvs mirror": (
        edited(blendedmvs, "cams/00000000_cam.txt", swap("1 0 0", "-1 0 0")),
        r"00000000_cam\.txt: expected a rotation without mirror image",
    ),
    "bundler count": (edited(bundler, "bundle.out", swap("2 1", "7 1")), "expected 7 cameras and 1 points, found 47"),
    "bundler lost": (
        edited(bundler, "bundle.out", swap("10 0 0", "0 0 0")),
        "camera 0: the focal length is 0, Bundler",
    ),
    "bundler names": (
        edited(bundler, "list.txt", lambda t: t + "c.jpg\n"),
        "expected 2 names, one per camera of bundle",
    ),
    "bundler views": (
        edited(bundler, "bundle.out", swap("2 0 17", "2 9 17")),
        r"point 0: expected a list of 2 of the 2 vi",
    ),
    "openmvg digits": (
        edited(openmvg, "sfm_data.json", swap('"focal_length": 10.0', f'"focal_length": {"9" * 400}')),
        r"sfm_data\.json: view 0: focal_length: expected a number, found 9999",
    ),
    "openmvg nest": (edited(openmvg, "sfm_data.json", lambda t: "[" * 100_000), r"expected a JSON file"),
    "openmvg list": (
        edited(openmvg, "sfm_data.json", lambda t: "[1]"),
        r"expected a JSON table in curly brackets, found l",
    ),
    "openmvg pose": (
        edited(openmvg, "sfm_data.json", swap('"id_pose": 0', '"id_pose": 5')),
        "view 0: there is no pose for this picture",
    ),
    "openmvg panorama": (
        edited(openmvg, "sfm_data.json", swap("pinhole_radial_k3", "spherical")),
        "expected pictures of a lens, found intrinsics of type spherical; cut the panoramas into perspective pictures",
    ),
    "metashape entity": (
        edited(metashape, "cameras.xml", lambda t: DOCTYPE + t[t.index("<chunk") + 6 :]),
        r"cameras\.xml: expected plain XML, found a DOCTYPE or ENTITY declaration; remove it",
    ),
    "metashape panorama": (
        edited(metashape, "cameras.xml", lambda t: t.replace('type="frame"', 'type="spherical"')),
        "found a spherical sensor; cut the panoramas",
    ),
    "metashape k4": (
        edited(metashape, "cameras.xml", swap("<b1>", "<k4>0.1</k4><b1>")),
        "camera 'a': expected k1, k2, k3, p1 and p2 only, found k4",
    ),
    "metashape lost": (
        edited(metashape, "cameras.xml", lambda t: t.replace("transform>", "other>", 2)),
        "did not align",
    ),
    "realitycapture tangential": (
        edited(realitycapture, "cameras.csv", swap("0,0,0,0\n", "0,0,0.1,0\n")),
        r"cameras\.csv: a\.jpg: expected a lens of k1, k2 and k3 only, found t1 = 0\.1; choose the distortion model",
    ),
    "polycam entry": (
        edited(polycam, "keyframes/corrected_cameras/123.json", swap('"t_11"', '"t_99"')),
        r"123\.json: t_11: expected a number, found None",
    ),
    "record3d quaternion": (
        edited(record3d, "metadata", swap("[1, 0, 0, 0,", "[0, 0, 0, 0,")),
        "pose 0: expected a quat",
    ),
    "arkit size": (
        edited(arkit, "frame_00000.json", swap("10, 0, 4.5", "10, 0")),
        "intrinsics: expected 9 numbers, found 8",
    ),
    "oxford without K": (edited(oxford, "viff.001.P", lambda t: "0 0 -1 0\n0 1 0 0\n1 0 0 4"), r"\[R \| t\] without K"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_damaged_is_refused_in_one_sentence(kind: str, tmp_path: Path) -> None:
    layout, message = BAD[kind]
    layout(tmp_path)
    with pytest.raises(ValueError, match=message) as refused:
        read(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_lost_pose_of_scannet_has_no_camera(tmp_path: Path) -> None:
    scannet(tmp_path)
    write(tmp_path, "pose/10.txt", "-inf -inf -inf -inf\n" * 3 + "0 0 0 1\n")
    data = detect(tmp_path)
    first, second = data.format.listing(data, ReadOptions()).entries  # type: ignore[attr-defined]
    _ = first.camera(W, H)
    with pytest.raises(ValueError, match=r"10\.txt: the pose holds numbers that are not finite, tracking was lost"):
        second.camera(W, H)


def test_depth_of_scannet_is_that_of_another_camera(tmp_path: Path) -> None:
    scannet(tmp_path)
    pictures(tmp_path, "depth/0.png", "depth/10.png", size=(4, 3))
    assert read(tmp_path).depths == ()


def test_validation_and_test_pictures_of_nsvf_are_held_out(tmp_path: Path) -> None:
    nsvf(tmp_path)
    views = load(tmp_path, normalise=False)
    assert (views.names, views.train, views.test) == (("0_a", "2_b"), (0,), (1,))


def test_points_of_bundler_and_openmvg_come_with_the_views_that_see_them(tmp_path: Path) -> None:
    for layout, points, seen in (
        (bundler, [[0.3, -0.2, 0.1]], [[True], [True]]),
        (openmvg, [[0.1, 0.2, 0.3]], [[False], [True]]),
    ):
        folder = tmp_path / layout.__name__
        folder.mkdir()
        layout(folder)
        data = detect(folder)
        listing = data.format.listing(data, ReadOptions())  # type: ignore[attr-defined]
        assert listing.points.tolist() == points and listing.visible.tolist() == seen


def test_lenses_of_metashape_and_openmvg_have_their_own_order(tmp_path: Path) -> None:
    """By Metashape's formula, p1 belongs to r^2 + 2 x^2, and by OpenMVG's t1 to 2 x y."""
    x, y = 0.2, -0.15
    r2 = x * x + y * y
    radial = 1 + 0.05 * r2 - 0.02 * r2**2 + 0.01 * r2**3
    point = torch.tensor([[4 * x, 4 * y, 0]], dtype=torch.float64)
    metashape(tmp_path)
    path = tmp_path / "cameras.xml"
    numbers = "<k1>0.05</k1><k2>-0.02</k2><k3>0.01</k3><p1>0.003</p1><p2>-0.002</p2><b1>"
    path.write_text(path.read_text().replace("<b1>", numbers))
    u = radial * x + 0.003 * (r2 + 2 * x * x) + 2 * -0.002 * x * y
    v = radial * y - 0.002 * (r2 + 2 * y * y) + 2 * 0.003 * x * y
    pixel = read(tmp_path).cameras[0].project(point)[0][0]
    np.testing.assert_allclose(pixel.numpy(), [10 * u + 4.5, 11 * v + 3.25], atol=1e-9)
    path.unlink()
    openmvg(tmp_path)
    path = tmp_path / "sfm_data.json"
    table = path.read_text().replace("pinhole_radial_k3", "pinhole_brown_t2")
    path.write_text(table.replace('"disto_k3": [0.0, 0.0, 0.0]', '"disto_t2": [0.05, -0.02, 0.01, 0.003, -0.002]'))
    u = radial * x - 0.002 * (r2 + 2 * x * x) + 2 * 0.003 * x * y
    v = radial * y + 0.003 * (r2 + 2 * y * y) + 2 * -0.002 * x * y
    pixel = read(tmp_path).cameras[0].project(point)[0][0]
    np.testing.assert_allclose(pixel.numpy(), [10 * u + 4.5, 10 * v + 3.25], atol=1e-9)


def test_idr_without_scale_mat_finds_the_object_itself(tmp_path: Path) -> None:
    K = np.array([[10, 0, 4], [0, 11, 2.75], [0, 0, 1]])
    arrays = {}
    for i, R in enumerate((BACK, SIDE)):
        world = np.eye(4)
        world[:3] = K @ np.column_stack([R, T])
        arrays[f"world_mat_{i}"] = world
        pictures(tmp_path, f"image/{i:03d}.png")
    np.savez(tmp_path / "cameras.npz", **arrays)  # type: ignore[arg-type]
    check(read(tmp_path), projected(10, 11, 4.5, 3.25))
    views = load(tmp_path, hold_out=0)
    assert "Scale from the optical axes alone" in views.summary
    torch.testing.assert_close(views.transform.apply(torch.zeros(1, 3)), torch.zeros(1, 3), atol=1e-6, rtol=0)


def turntable(folder: Path, n: int = 4) -> Camera:
    """Pictures of one camera that looks at the origin from above, with z upwards."""
    camera = Camera.look_at((4.0, 0, 1), width=W, height=H)
    pose = " ".join(map(repr, camera.pose.flatten().tolist()))
    write(folder, "intrinsics.txt", f"{float(camera.K[0, 0])!r} 4 3 0.\n")
    for i in range(n):
        write(folder, f"pose/{i}.txt", pose)
        pictures(folder, f"rgb/{i}.png")
    return camera


def test_cameras_in_one_place_are_refused_with_what_to_do(tmp_path: Path) -> None:
    turntable(tmp_path)
    message = "all cameras stand in one place; .*--turntable DEGREES, .*one turn in 4 pictures: 90"
    with pytest.raises(ValueError, match=message):
        load(tmp_path, hold_out=0)


def test_an_object_on_a_turntable_turns_anticlockwise_seen_from_above(tmp_path: Path) -> None:
    """A mark on the object at +x: after a turn by 90 degrees it is where +y was, where the same camera sees it."""
    camera = turntable(tmp_path)
    views = load(tmp_path, hold_out=0, normalise=False, turntable=90.0)
    assert "turned by 90 degrees from picture to picture" in views.summary
    mark = torch.tensor([[0.5, 0.1, 0.2]], dtype=torch.float64)
    for i, own in enumerate(views.cameras):
        c, s = math.cos(math.radians(90 * i)), math.sin(math.radians(90 * i))
        turn = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64)
        torch.testing.assert_close(own.project(mark)[0], camera.project(mark @ turn.T)[0])
    around = load(tmp_path, hold_out=0, turntable=-90.0)
    assert float(around.transform.apply(torch.zeros(1, 3)).norm()) < 0.5


def test_a_turntable_is_not_for_cameras_with_poses_of_their_own(tmp_path: Path) -> None:
    nsvf(tmp_path)
    with pytest.raises(ValueError, match="the poses of these cameras differ; leave it out"):
        read(tmp_path, turntable=10.0)
    with pytest.raises(ValueError, match="turntable must be an angle between pictures, not 0 or a full turn"):
        read(tmp_path, turntable=360.0)


def test_an_uncalibrated_camera_has_the_turntable_in_front_of_it(tmp_path: Path) -> None:
    """The identity as pose: the axis is vertical in the picture, at distance 1."""
    turntable(tmp_path)
    for file in (tmp_path / "pose").iterdir():
        file.write_text(rows(np.eye(4)))
    views = read(tmp_path, turntable=90.0)
    centres = torch.stack([c.centre for c in views.cameras])
    expected = torch.tensor([[0.0, 0, 0], [-1, 0, 1], [0, 0, 2], [1, 0, 1]]).double()
    torch.testing.assert_close(centres, expected)


def test_a_turntable_is_an_option_of_fit_and_of_a_scene_file(tmp_path: Path) -> None:
    camera = turntable(tmp_path)
    words = [str(tmp_path), "--out", str(tmp_path / "run"), "--turntable", "90", "--device", "cpu"]
    options = parse(FitArguments, "fit", words)
    scene = _with_views(options, _new_scene(options))
    assert scene.views == {"folder": scene.views["folder"], "turntable": 90.0}
    views = scene.load_views().in_data_frame()
    assert views.cameras[0].centre.tolist() == pytest.approx(camera.centre.tolist())
    assert views.cameras[2].centre.tolist() == pytest.approx([-4, 0, 1])

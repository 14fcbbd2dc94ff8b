"""COLMAP models built by hand from the documented layout, read, written and spoilt."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.colmap_models import COLMAP_MODELS, colmap_projection
from warpdvr.datasets.colmap import COLMAP
from warpdvr.datasets.formats import ReadOptions
from warpdvr.datasets.listing import NamedCamera
from warpdvr.datasets.load import detect, load, write_cameras
from warpdvr.datasets.views import Views

WIDTH, HEIGHT, N = 32, 24, 6
NUMBERS = {name: (number, count) for number, (name, count) in COLMAP_MODELS.items()}
NAMES = [f"img_{i:02d}.jpg" for i in range(N)]
PARAMS = {
    "SIMPLE_PINHOLE": (30.0, 15.0, 12.5),
    "PINHOLE": (30.0, 31.0, 15.0, 12.5),
    "SIMPLE_RADIAL": (30.0, 15.0, 12.5, 0.058),
    "RADIAL": (30.0, 15.0, 12.5, 0.058, -0.01),
    "OPENCV": (30.0, 31.0, 15.0, 12.5, 0.06, -0.02, 1e-3, -2e-3),
    "OPENCV_FISHEYE": (30.0, 31.0, 15.0, 12.5, 0.05, -0.01, 2e-3, -1e-3),
    "FULL_OPENCV": (30.0, 31.0, 15.0, 12.5, 0.06, -0.02, 1e-3, -2e-3, 0.01, 0.02, -0.01, 0.005),
    "FOV": (30.0, 31.0, 15.0, 12.5, 0.5),
    "SIMPLE_RADIAL_FISHEYE": (30.0, 15.0, 12.5, 0.05),
    "RADIAL_FISHEYE": (30.0, 15.0, 12.5, 0.05, -0.01),
    "THIN_PRISM_FISHEYE": (30.0, 31.0, 15.0, 12.5, 0.05, -0.01, 1e-3, -2e-3, 1e-3, 1e-3, 2e-3, -1e-3),
    "RAD_TAN_THIN_PRISM_FISHEYE": (30.0, 31.0, 15.0, 12.5, *(1e-3 * i for i in range(-6, 6))),
    "SIMPLE_DIVISION": (30.0, 15.0, 12.5, -0.05),
    "DIVISION": (30.0, 31.0, 15.0, 12.5, -0.05),
    "SIMPLE_FISHEYE": (30.0, 15.0, 12.5),
    "FISHEYE": (30.0, 31.0, 15.0, 12.5),
    "EUCM": (30.0, 31.0, 15.0, 12.5, 0.5, 1.1),
}
POINTS = np.random.default_rng(3).normal(0, 0.3, (7, 3))
SEEN = np.random.default_rng(4).random((N, 7)) < 0.6


def poses() -> list[tuple[np.ndarray, np.ndarray]]:
    """Rotation and translation, world to camera, of cameras on a ring that look at the origin."""
    found = []
    for i in range(N):
        turn = Rotation.from_euler("yxz", [60 * i, 10 * (i % 3), 5 * i], degrees=True).as_matrix()
        found.append((turn, np.array([0.02 * i, -0.03, 3.0])))
    return found


def quaternion(R: np.ndarray) -> list[float]:
    x, y, z, w = Rotation.from_matrix(R).as_quat()
    return [w, x, y, z]


def save_pictures(folder: Path, size: tuple[int, int] = (WIDTH, HEIGHT), names: Sequence[str] = NAMES) -> None:
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(i)
        Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3)).astype(np.uint8)).save(folder / name)


def binary_model(folder: Path, model: str = "SIMPLE_RADIAL", names: Sequence[str] = NAMES, factor: float = 1) -> None:
    """The layout of reconstruction_io_binary.cc; IMAGE_ID is 10 + the index, the order of the file is reversed."""
    folder.mkdir(parents=True, exist_ok=True)
    params = PARAMS[model]
    content = struct.pack(f"<QIiQQ{len(params)}d", 1, 7, NUMBERS[model][0], WIDTH, HEIGHT, *params)
    (folder / "cameras.bin").write_bytes(content)
    content = struct.pack("<Q", len(names))
    for i in reversed(range(len(names))):
        R, t = poses()[i]
        pose = [factor * q for q in quaternion(R)]
        content += struct.pack("<I7dI", 10 + i, *pose, *t, 7) + names[i].encode() + b"\0"
        content += struct.pack("<Q", i) + b"".join(struct.pack("<ddq", 1.5, 2.5, -1) for _ in range(i))
    (folder / "images.bin").write_bytes(content)
    content = struct.pack("<Q", len(POINTS))
    for j, x in enumerate(POINTS):
        track = [(10 + i, 0) for i in range(len(names)) if SEEN[i, j]]
        content += struct.pack("<Q3d3BdQ", 100 + j, *x, 1, 2, 3, 0.5, len(track))
        content += b"".join(struct.pack("<II", *pair) for pair in track)
    (folder / "points3D.bin").write_bytes(content)


def text_model(folder: Path, model: str = "SIMPLE_RADIAL", names: Sequence[str] = NAMES, points: bool = True) -> None:
    """The layout of COLMAP's documentation, "Output Format"; without 2D points the second line may be missing."""
    folder.mkdir(parents=True, exist_ok=True)
    line = " ".join(["7", model, str(WIDTH), str(HEIGHT), *map(repr, PARAMS[model])])
    (folder / "cameras.txt").write_text(f"\ufeff# Camera list\n{line}\n", encoding="utf-8")
    lines = ["# Image list", "#   IMAGE_ID, ..."]
    for i in reversed(range(len(names))):
        R, t = poses()[i]
        lines.append(" ".join([str(10 + i), *map(repr, map(float, [*quaternion(R), *t])), "7", names[i]]))
        lines += [" ".join(["1.5 2.5 -1"] * i)] if points else []
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    lines = []
    for j, x in enumerate(POINTS):
        track = [f"{10 + i} 0" for i in range(len(names)) if SEEN[i, j]]
        lines.append(" ".join([str(100 + j), *map(repr, map(float, x)), "1 2 3 0.5", *track]))
    (folder / "points3D.txt").write_text("# points\n" + "\n".join(lines) + "\n")


def simple_radial(x: np.ndarray, i: int, scale: float = 1) -> np.ndarray:
    """The pixels of points in image i: u = f (1 + k r^2) x / z + cx, with centres at +0.5."""
    R, t = poses()[i]
    local = x @ R.T + t
    plane = local[:, :2] / local[:, 2:]
    f, cx, cy, k = PARAMS["SIMPLE_RADIAL"]
    pixels: np.ndarray = f * plane * (1 + k * (plane**2).sum(1, keepdims=True)) + [cx, cy]
    return scale * pixels


def agrees(views: Views, scale: float = 1) -> None:
    x = np.random.default_rng(0).normal(0, 0.4, (30, 3))
    assert len(views) == N
    for i, camera in enumerate(views.cameras):
        found = views.transform.to_data(camera).project(torch.from_numpy(x))[0].numpy()
        assert np.abs(found - simple_radial(x, i, scale)).max() < 1e-6


@pytest.mark.parametrize("write", [binary_model, text_model])
@pytest.mark.parametrize("place", ["sparse/0", "sparse", "."])
def test_a_model_is_read(tmp_path: Path, write: Callable[[Path], None], place: str) -> None:
    write(tmp_path / place)
    save_pictures(tmp_path / "images")
    views = load(tmp_path)
    agrees(views)
    agrees(load(tmp_path, normalise=False))
    assert views.names == tuple(Path(name).stem for name in NAMES)
    assert views.summary.startswith(f"COLMAP, {place}: {N} views of {WIDTH} x {HEIGHT} pixels, SIMPLE_RADIAL, OpenCV")
    for i in range(N):
        assert (np.array(Image.open(tmp_path / "images" / NAMES[i])) == views.images[i].numpy()).all()


@pytest.mark.parametrize("write", [binary_model, text_model])
def test_points_come_with_the_views_that_see_them(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "sparse/0")
    save_pictures(tmp_path / "images")
    views = load(tmp_path, normalise=False)
    for i, points in enumerate(views.points):
        R, t = poses()[i]
        assert points is not None and len(points) == SEEN[i].sum()
        x = POINTS[SEEN[i]]
        assert np.abs(points.pixel.numpy() - simple_radial(x, i)).max() < 1e-4
        assert np.abs(points.depth.numpy() - (x @ R.T + t)[:, 2]).max() < 1e-5
    assert f"{len(POINTS)} sparse points" in views.summary
    next((tmp_path / "sparse/0").glob("points3D.*")).unlink()
    assert load(tmp_path).points == ()


@pytest.mark.parametrize("model", PARAMS)
def test_every_camera_model_there_and_back(tmp_path: Path, model: str) -> None:
    binary_model(tmp_path / "sparse/0", model)
    save_pictures(tmp_path / "images")
    views = load(tmp_path, normalise=False)
    K, projection = colmap_projection(model, PARAMS[model])
    x = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.4
    expected = [c.project(x)[0] for c in views.cameras]
    assert all((c.K - K).abs().max() < 1e-12 and c.projection == projection for c in views.cameras)
    out = tmp_path / "out"
    save_pictures(out / "images")
    for name, content in COLMAP().export([*map(NamedCamera, NAMES, views.cameras)]).items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(content)
    again = load(out, normalise=False)
    for camera, pixels in zip(again.cameras, expected, strict=True):
        assert (camera.project(x)[0] - pixels).abs().max() < 1e-9
    cameras = struct.unpack_from("<Q", (out / "sparse/0/cameras.bin").read_bytes())[0]
    assert cameras == 1  # equal intrinsics are stored once


def test_the_largest_of_several_models_is_read(tmp_path: Path) -> None:
    binary_model(tmp_path / "sparse/0", names=NAMES[:2])
    binary_model(tmp_path / "sparse/1")
    save_pictures(tmp_path / "images")
    views = load(tmp_path)
    agrees(views)
    assert f"COLMAP, sparse/1 (the largest model, {N} images; left out: sparse/0 with 2): {N} views" in views.summary
    assert len(load(tmp_path, cameras="sparse/0")) == 2


def test_a_database_alone_says_what_to_run(tmp_path: Path) -> None:
    save_pictures(tmp_path / "images")
    (tmp_path / "database.db").write_bytes(b"SQLite format 3\0" + bytes(100))
    with pytest.raises(ValueError, match=r"database\.db: COLMAP's database holds .* no cameras; run `colmap mapper"):
        load(tmp_path)
    (tmp_path / "database.db").rename(tmp_path / "Thumbs.db")
    (tmp_path / "Thumbs.db").write_bytes(bytes(100))
    with pytest.raises(ValueError, match=r"pictures such as images/.*, but no cameras; find the cameras with COLMAP"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
def test_a_cut_or_damaged_file_gets_one_sentence(tmp_path: Path, name: str) -> None:
    binary_model(tmp_path / "sparse/0")
    save_pictures(tmp_path / "images")
    path = tmp_path / f"sparse/0/{name}.bin"
    content = path.read_bytes()
    for n in [*range(0, len(content) - 1, 41), len(content) - 1]:
        path.write_bytes(content[:n])
        with pytest.raises(ValueError, match=rf"{name}\.bin: the file is cut off or damaged"):
            COLMAP().listing(detect(tmp_path), ReadOptions())
    for claim in (2**60, 2**64 - 1):
        path.write_bytes(struct.pack("<Q", claim) + content[8:])
        with pytest.raises(ValueError, match=rf"claims {claim} entries, but ends after {len(content)} bytes"):
            load(tmp_path)


def replace_bytes(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))


def test_bad_entries_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "sparse/0"
    binary_model(folder)
    save_pictures(tmp_path / "images")
    listing = COLMAP().listing(detect(tmp_path), ReadOptions())
    assert [entry.picture for entry in listing.entries] == NAMES
    replace_bytes(folder / "images.bin", struct.pack("<I", 7) + b"img_03", struct.pack("<I", 8) + b"img_03")
    R, t = poses()[2]
    replace_bytes(folder / "images.bin", struct.pack("<7d", *quaternion(R), *t), struct.pack("<7d", *[0.0] * 4, *t))
    listing = COLMAP().listing(detect(tmp_path), ReadOptions())
    path = str(folder / "images.bin")
    assert listing.entries[3].broken == f"{path}: img_03.jpg: its camera 8 is missing in cameras.bin"
    broken = str(listing.entries[2].broken)
    assert broken.startswith(f"{path}: img_02.jpg: expected a finite pose with a quaternion other than 0, found [0.0")
    with pytest.raises(ValueError, match=r"2 of 6 views cannot be used.*img_02\.jpg.*img_03\.jpg: its camera 8"):
        load(tmp_path)
    assert isinstance(listing.entries[1].camera(WIDTH, HEIGHT), Camera)


def test_a_quaternion_need_not_have_length_one(tmp_path: Path) -> None:
    binary_model(tmp_path / "sparse/0", factor=-3.0)
    save_pictures(tmp_path / "images")
    agrees(load(tmp_path))


def test_smaller_photographs_scale_the_intrinsics(tmp_path: Path) -> None:
    binary_model(tmp_path / "sparse/0")
    save_pictures(tmp_path / "images_2", (WIDTH // 2, HEIGHT // 2))
    views = load(tmp_path)
    agrees(views, scale=0.5)
    assert f"The intrinsics, for pictures {WIDTH} pixels wide, were scaled by 0.5." in views.summary
    save_pictures(tmp_path / "images", (HEIGHT, WIDTH))
    message = rf"img_00\.jpg: expected an image of {WIDTH} x {HEIGHT} pixels, found one of {HEIGHT} x {WIDTH}; it is tu"
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_panoramas_and_unknown_models_are_refused(tmp_path: Path) -> None:
    save_pictures(tmp_path / "images")
    for number, message in ((17, "panoramas .EQUIRECTANGULAR.* cut them"), (99, "camera 7: unknown camera model 99")):
        binary_model(tmp_path / "sparse/0")
        content = struct.pack("<QIiQQ2d", 1, 7, number, 2 * HEIGHT, HEIGHT, 2 * HEIGHT, HEIGHT)
        (tmp_path / "sparse/0/cameras.bin").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load(tmp_path)


def test_text_as_people_edit_it(tmp_path: Path) -> None:
    names = [f"my dir/photo {i}.jpg" for i in range(N)]
    text_model(tmp_path / "sparse", names=names, points=False)
    save_pictures(tmp_path / "images", names=names)
    agrees(load(tmp_path))
    path = tmp_path / "sparse/images.txt"
    path.write_text(path.read_text().replace("\n", "\r\n"))
    agrees(load(tmp_path))
    path.write_text(path.read_text().replace("photo 3.jpg", "photo 3.jpg\n1 2 x", 1))
    with pytest.raises(ValueError, match=r"images\.txt: line \d+: expected IMAGE_ID, QW.*found '1 2 x'"):
        load(tmp_path)
    (tmp_path / "sparse/cameras.txt").write_text("1 OPENCV 32 24 30 30 16 12 0.1\n")
    with pytest.raises(ValueError, match=r"cameras\.txt: line 1: expected CAMERA_ID, MODEL"):
        load(tmp_path)
    (tmp_path / "sparse/cameras.txt").unlink()
    (tmp_path / "sparse/cameras.bin").write_bytes(bytes(8))
    with pytest.raises(ValueError, match=r"both \.bin or both \.txt"):
        load(tmp_path)


@pytest.mark.parametrize("write", [binary_model, text_model])
@pytest.mark.parametrize("frames", [False, True])
def test_poses_are_replaced_and_all_else_is_kept(tmp_path: Path, write: Callable[[Path], None], frames: bool) -> None:
    folder, out = tmp_path / "a", tmp_path / "b"
    for home in (folder, out):
        write(home / "sparse/0")
        save_pictures(home / "images")
    suffix = next((folder / "sparse/0").glob("images.*")).suffix
    if frames:
        write_frames(folder / f"sparse/0/frames{suffix}")
    views = load(folder)
    moved = tuple(replace(c, pose=views.cameras[i - 1].pose) for i, c in enumerate(views.cameras))
    written = write_cameras(folder, views, moved, out)
    assert [path.name for path in written] == [f"images{suffix}", *([f"frames{suffix}"] if frames else [])]
    again = load(out)
    x = torch.from_numpy(POINTS)
    for camera, expected in zip(again.cameras, moved, strict=True):
        pixels = again.transform.to_data(camera).project(x)[0]
        assert (pixels - views.transform.to_data(expected).project(x)[0]).abs().max() < 1e-6
    assert len(written[0].read_bytes()) == len((folder / f"sparse/0/images{suffix}").read_bytes()) or suffix == ".txt"
    if frames and suffix == ".bin":
        first = struct.unpack_from("<7d", written[1].read_bytes(), 16)
        expected_t = views.transform.to_data(moved[0]).krt()[2].numpy()
        assert np.abs(np.array(first[4:]) - expected_t).max() < 1e-9


def write_frames(path: Path, images_per_frame: int = 1) -> None:
    """The frames of COLMAP 4, one per image."""
    records, lines = struct.pack("<Q", N), []
    for i, (R, t) in enumerate(poses()):
        pose = [*quaternion(R), *t]
        data = [(0, 7, 10 + i)] * images_per_frame
        records += struct.pack("<II7dI", i + 1, 7, *pose, len(data)) + b"".join(struct.pack("<iIQ", *d) for d in data)
        lines.append(" ".join([str(i + 1), "7", *map(repr, map(float, pose)), "1", "CAMERA", "7", str(10 + i)]))
    path.write_bytes(records) if path.suffix == ".bin" else path.write_text("# Frame list\n" + "\n".join(lines) + "\n")


def test_poses_of_rigs_are_not_replaced(tmp_path: Path) -> None:
    binary_model(tmp_path / "sparse/0")
    save_pictures(tmp_path / "images")
    write_frames(tmp_path / "sparse/0/frames.bin", images_per_frame=2)
    views = load(tmp_path)
    agrees(views)
    with pytest.raises(ValueError, match=r"frames\.bin: poses cannot be replaced where several cameras make up a rig"):
        write_cameras(tmp_path, views, views.cameras, tmp_path / "out")


def test_what_colmap_cannot_hold_is_refused() -> None:
    camera = Camera.orthographic((0, 0, 3), up=(0, 1, 0))
    with pytest.raises(ValueError, match=r"the camera of a\.png: COLMAP has no camera model"):
        COLMAP().export([NamedCamera("a.png", camera)])

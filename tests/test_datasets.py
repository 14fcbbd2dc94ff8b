"""A ball of known place and size, written in every format; and every kind of bad input."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from warpdvr.cameras.camera import OPENGL, Camera
from warpdvr.cameras.rays import pixel_centres
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets.load import load
from warpdvr.runtime.files import path_inside

CENTRE, RADIUS = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64), 0.4
WIDTH, HEIGHT, N = 80, 60, 10


def cameras() -> list[Camera]:
    i = torch.arange(N, dtype=torch.float64)
    eye = torch.stack([(2.4 * i).cos(), (2.4 * i).sin(), 1.4 * (i / (N - 1) - 0.5)], 1)
    return [Camera.look_at(CENTRE + 2.5 * e, CENTRE, width=WIDTH, height=HEIGHT) for e in eye]


def outline(camera: Camera) -> np.ndarray:
    """The ball's pixels, from the closed form: the ray passes the centre at less than the radius."""
    rays = camera.rays(pixel_centres(WIDTH, HEIGHT))
    nearest = torch.linalg.cross(rays.direction, (CENTRE - rays.origin).float(), dim=1).norm(dim=1)
    inside: np.ndarray = (nearest < RADIUS).reshape(HEIGHT, WIDTH).numpy()
    return inside


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(array.astype(np.uint8)).save(path)


def colours(i: int) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 255, (HEIGHT, WIDTH, 3))


def write_idr(folder: Path) -> None:
    arrays = {}
    for i, camera in enumerate(cameras()):
        save(folder / f"image/{i:03d}.png", colours(i))
        save(folder / f"mask/{i:03d}.png", 255 * outline(camera))
        K, R, t = camera.krt()
        K = K - torch.tensor([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])  # centres at integers
        world = torch.eye(4, dtype=torch.float64)
        world[:3] = 7.0 * K @ torch.cat([R, t[:, None]], 1)
        arrays[f"world_mat_{i}"] = world.numpy()
        arrays[f"scale_mat_{i}"] = SceneTransform.around(CENTRE, 0.5).matrix.numpy()
    np.savez(folder / "cameras.npz", **arrays)  # type: ignore[arg-type]


def write_middlebury(folder: Path) -> None:
    lines = [str(N)]
    for i, camera in enumerate(cameras()):
        save(folder / f"ball{i:04d}.png", colours(i))
        save(folder / f"masks/ball{i:04d}.png", 255 * outline(camera))
        K, R, t = camera.krt()
        K = K - torch.tensor([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
        numbers = torch.cat([K.reshape(-1), R.reshape(-1), t]).tolist()
        lines.append(" ".join([f"ball{i:04d}.png", *map(repr, numbers)]))
    (folder / "ball_par.txt").write_text("\n".join(lines))
    (folder / "ball_good_silhouette_images.txt").write_text("\n".join(f"ball{i:04d}.png" for i in range(N) if i != 5))


def write_transforms(folder: Path) -> None:
    frames: list[dict[str, object]] = []
    for i, camera in enumerate(cameras()):
        save(folder / f"train/r_{i}.png", np.dstack([colours(i), 255 * outline(camera)]))
        frames.append({"file_path": f"./train/r_{i}", "transform_matrix": (camera.pose @ OPENGL).tolist()})
    angle = 2 * np.arctan(0.5 * WIDTH / float(cameras()[0].K[0, 0]))
    (folder / "transforms.json").write_text(json.dumps({"camera_angle_x": angle, "frames": frames}))


WRITERS = {"idr": write_idr, "middlebury": write_middlebury, "transforms": write_transforms}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder in each format; not to be changed."""
    folders = {name: tmp_path_factory.mktemp(name) for name in WRITERS}
    for name, write in WRITERS.items():
        write(folders[name])
    return folders


@pytest.mark.parametrize("kind", WRITERS)
def test_ball_is_read_back(good: dict[str, Path], kind: str) -> None:
    views = load(good[kind])
    x = CENTRE + RADIUS * torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for camera, true in zip(views.cameras, cameras(), strict=True):
        uv, z = camera.project(views.transform.inverse().apply(x))
        true_uv, true_z = true.project(x)
        assert (uv - true_uv).abs().max() < 1e-5
        assert torch.allclose(z * views.transform.scale, true_z)
        assert float(torch.linalg.det(camera.pose[:3, :3])) == pytest.approx(1, abs=1e-6)
    for i, (image, mask) in enumerate(zip(views.images, views.masks, strict=True)):
        assert (image.numpy() == colours(i)).all()
        assert mask is None if (kind, i) == ("middlebury", 5) else (mask.numpy() == outline(cameras()[i])).all()  # type: ignore[union-attr]
    assert views.test == (0, 8) and sorted(views.train + views.test) == list(range(N))
    assert f"{N} views of {WIDTH} x {HEIGHT}" in views.summary


@pytest.mark.parametrize("kind", ["middlebury", "transforms"])
def test_hull_puts_the_ball_at_the_origin(good: dict[str, Path], kind: str) -> None:
    transform = load(good[kind]).transform
    assert (transform.matrix[:3, 3] - CENTRE).norm() < 0.05 * RADIUS
    assert transform.scale == pytest.approx(RADIUS / 0.9, rel=0.15)  # ten outlines leave corners


def test_without_masks_the_cameras_decide(good: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(good["middlebury"], tmp_path / "x")
    shutil.rmtree(folder / "masks")
    views = load(folder)
    assert (views.transform.matrix[:3, 3] - CENTRE).norm() < 1e-9
    assert views.masks == (None,) * N and "No masks" in views.summary and "optical axes" in views.summary


@pytest.mark.parametrize("form", ["0/1", "RGB", "RGBA", "stencil", "1", "16 bit", "palette"])
def test_masks_come_in_many_forms(good: dict[str, Path], tmp_path: Path, form: str) -> None:
    folder = shutil.copytree(good["idr"], tmp_path / "x")
    for i, camera in enumerate(cameras()):
        m = outline(camera)
        clear = np.full_like(m, 255, dtype=np.uint8)
        image = {
            "0/1": Image.fromarray(m.astype(np.uint8)),
            "RGB": Image.fromarray(np.dstack([m * np.uint8(255)] * 3)),
            "RGBA": Image.fromarray(np.dstack([m * np.uint8(255)] * 3 + [clear])),
            "stencil": Image.fromarray(np.dstack([m * np.uint8(0)] * 3 + [m * np.uint8(255)])),
            "1": Image.fromarray(m),
            "16 bit": Image.fromarray(m * np.uint16(65535)),
            "palette": Image.fromarray(np.dstack([m * np.uint8(255)] * 3)).quantize(2),
        }[form]
        image.save(folder / f"mask/{i:03d}.png")
    for mask, camera in zip(load(folder).masks, cameras(), strict=True):
        assert mask is not None and (mask.numpy() == outline(camera)).all()


def test_smaller_images_than_the_matrices_are_for(good: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(good["idr"], tmp_path / "x")
    for path in folder.glob("*/*.png"):
        with Image.open(path) as image:
            image.reduce(2).save(path)
    views = load(folder)
    assert "2 times as large" in views.summary
    x = views.transform.inverse().apply(CENTRE + torch.eye(3))
    for camera, true in zip(views.cameras, cameras(), strict=True):  # centres at .5: half the size is half the position
        assert torch.allclose(camera.project(x)[0], true.project(CENTRE + torch.eye(3))[0] / 2)


def test_shipped_test_split_is_used(good: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(good["transforms"], tmp_path / "x")
    table = json.loads((folder / "transforms.json").read_text())
    (folder / "transforms.json").unlink()
    for name, part in (("train", slice(0, 7)), ("test", slice(7, None)), ("val", slice(0, 1))):
        (folder / f"transforms_{name}.json").write_text(json.dumps({**table, "frames": table["frames"][part]}))
    views = load(folder)
    assert (views.train, views.test) == (tuple(range(7)), (7, 8, 9))
    assert load(good["transforms"], hold_out=0).test == ()


def test_transform_and_its_inverse() -> None:
    turn = Camera.look_at((1.0, 2.0, 3.0)).pose
    transform = SceneTransform(turn @ torch.diag(torch.tensor([2.0, 2, 2, 1]).double()))
    x = torch.randn(5, 3, dtype=torch.float64)
    assert torch.allclose(transform.inverse().apply(transform.apply(x)), x)
    assert transform.scale == pytest.approx(2) and transform.inverse().scale == pytest.approx(0.5)
    assert torch.equal(SceneTransform.identity().apply(x), x)
    camera = cameras()[3]
    assert torch.allclose(transform.to_scene(camera).project(x)[0], camera.project(transform.apply(x))[0])
    moved = SceneTransform.around(CENTRE, 3.0).matrix @ transform.matrix
    for similarity in (transform, SceneTransform(moved)):
        assert torch.allclose(similarity.to_data(similarity.to_scene(camera)).pose, camera.pose)
        assert torch.allclose(similarity.to_scene(similarity.to_data(camera)).pose, camera.pose)
        seen = similarity.to_data(camera)
        assert torch.allclose(seen.project(similarity.apply(x))[0], camera.project(x)[0])
        assert torch.allclose(seen.centre, similarity.apply(camera.centre[None])[0])
    with pytest.raises(ValueError, match="one scale"):
        SceneTransform(torch.diag(torch.tensor([1.0, 2.0, 1.0, 1.0])))


@dataclass(frozen=True)
class Spoilt:
    """One way to break a folder, and what the message must say."""

    kind: str
    spoil: Callable[[Path], object]
    message: str


def edit_json(change: Callable[[dict], object]) -> Callable[[Path], object]:  # type: ignore[type-arg]
    def spoil(folder: Path) -> None:
        table = json.loads((folder / "transforms.json").read_text())
        change(table)
        (folder / "transforms.json").write_text(json.dumps(table))

    return spoil


def edit_npz(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        with np.load(folder / "cameras.npz") as file:
            arrays = dict(file)
        change(arrays)
        np.savez(folder / "cameras.npz", **arrays)

    return spoil


def edit_par(change: Callable[[list[str]], object]) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        lines = (folder / "ball_par.txt").read_text().splitlines()
        change(lines)
        (folder / "ball_par.txt").write_text("\n".join(lines))

    return spoil


def truncate(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:700])


def empty_masks(*numbers: int) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        for i in numbers:
            save(folder / f"mask/{i:03d}.png", np.zeros((HEIGHT, WIDTH)))

    return spoil


def clear(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def flip_masks(folder: Path) -> None:
    for i, camera in enumerate(cameras()):
        save(folder / f"masks/ball{i:04d}.png", 255 * np.roll(outline(camera), (-1) ** i * 30, 1))


def dvr(arrays: dict[str, np.ndarray]) -> None:
    for i, camera in enumerate(cameras()):
        _, R, t = camera.krt()
        arrays[f"world_mat_{i}"][:3] = torch.cat([R, t[:, None]], 1).numpy()
        arrays[f"camera_mat_{i}"] = camera.K.numpy()


def separate_masks(*names: str) -> Callable[[Path], object]:
    """Opaque pictures, and masks of these names in a folder of their own."""

    def spoil(folder: Path) -> None:
        for i in range(N):
            save(folder / f"train/r_{i}.png", colours(i))
        for i, name in enumerate(names):
            save(folder / f"masks/{name}.png", 255 * outline(cameras()[i]))

    return spoil


def link_outside(folder: Path) -> None:
    shutil.move(folder / "train/r_3.png", folder.parent / "outside.png")
    (folder / "train/r_3.png").symlink_to(folder.parent / "outside.png")


def masks_without_cameras(folder: Path) -> None:
    separate_masks()(folder)
    for home in ("train", "masks"):
        save(folder / f"{home}/x.png", colours(0))


SPOILT = {
    "missing folder": Spoilt("idr", shutil.rmtree, "expected a folder of photographs, found nothing"),
    "empty folder": Spoilt("idr", clear, "found an empty folder"),
    "no known format": Spoilt(
        "idr",
        lambda f: (f / "cameras.npz").unlink(),
        r"found \d+ pictures such as image/.*, but no cameras; for IDR / NeuS there is no .*COLMAP or .*--turntable",
    ),
    "npz cut": Spoilt("idr", truncate("cameras.npz"), r"cameras\.npz: expected an npz file"),
    "npz of objects": Spoilt("idr", edit_npz(lambda a: a.update(world_mat_0=np.array([{}]))), r"cameras\.npz: .*plain"),
    "npz without matrices": Spoilt("idr", edit_npz(dict.clear), r"expected matrices world_mat_0"),
    "npz gap": Spoilt("idr", edit_npz(lambda a: a.pop("world_mat_4")), r"world_mat_9|world_mat_4"),
    "npz no scale": Spoilt("idr", edit_npz(lambda a: a.pop("scale_mat_2")), "scale_mat_2 is missing"),
    "npz shape": Spoilt("idr", edit_npz(lambda a: a.update(world_mat_2=np.eye(3))), r"world_mat_2 must be .* \(3, 3\)"),
    "npz NaN": Spoilt(
        "idr", edit_npz(lambda a: a["world_mat_2"].fill(np.nan)), r"cameras\.npz: world_mat_2 .* not finite"
    ),
    "npz singular": Spoilt("idr", edit_npz(lambda a: a["world_mat_2"].fill(1)), "world_mat_2: .*singular"),
    "npz scales": Spoilt(
        "idr", edit_npz(lambda a: a.update(scale_mat_2=np.eye(4))), "scale_mat_2 differs from scale_mat_0"
    ),
    "npz of DVR": Spoilt("idr", edit_npz(dvr), r"world_mat_0 is \[R \| t\] without K"),
    "one view": Spoilt(
        "idr", edit_npz(lambda a: [a.pop(k) for k in list(a) if k[-1] != "0"]), "expected at least 2 views, found 1"
    ),
    "image too few": Spoilt("idr", lambda f: (f / "image/003.png").unlink(), r"image/003\.png' is missing"),
    "no images": Spoilt("idr", lambda f: shutil.rmtree(f / "image"), "in a folder image or images, found neither"),
    "mask too few": Spoilt("idr", lambda f: (f / "mask/003.png").unlink(), r"the mask 'mask/003\.png' is missing"),
    "no picture": Spoilt("idr", lambda f: (f / "image/003.png").write_text("?"), r"003\.png: expected a picture"),
    "picture cut": Spoilt("idr", truncate("image/003.png"), r"003\.png: expected a picture"),
    "mask size": Spoilt(
        "idr", lambda f: save(f / "mask/003.png", np.ones((9, 8))), r"003\.png: .* mask of 8 x 9, image of 80"
    ),
    "mask empty": Spoilt("idr", empty_masks(4), r"mask/004\.png: the mask is empty"),
    "masks empty": Spoilt("idr", empty_masks(*range(N)), r"mask/000\.png: the mask is empty"),
    "par empty": Spoilt(
        "middlebury", lambda f: (f / "ball_par.txt").write_text(""), r"ball_par\.txt: expected the number"
    ),
    "par count": Spoilt("middlebury", edit_par(list.pop), r"ball_par\.txt: expected 10 lines .* found 9"),
    "par cut": Spoilt(
        "middlebury", edit_par(lambda s: s.append(s.pop()[:80])), r"ball0009\.png: expected a name and 21 numbers"
    ),
    "par word": Spoilt(
        "middlebury", edit_par(lambda s: s.append(s.pop()[:-4] + "x")), r"ball0009\.png: could not convert"
    ),
    "par NaN": Spoilt(
        "middlebury", edit_par(lambda s: s.append(s.pop().rsplit(" ", 1)[0] + " nan")), r"ball0009\.png: .*not finite"
    ),
    "par rotation": Spoilt(
        "middlebury",
        edit_par(lambda s: s.append(" ".join([*s.pop().split()[:10], *"000000000111"]))),
        "R is not a rotation",
    ),
    "par image": Spoilt(
        "middlebury", lambda f: (f / "ball0003.png").unlink(), r"ball0003\.png: the picture is missing"
    ),
    "par outside": Spoilt(
        "middlebury", edit_par(lambda s: s.append("../" + s.pop())), "leads outside of the data folder"
    ),
    "hull empty": Spoilt("middlebury", flip_masks, "visual hull of the masks is empty"),
    "par mask without image": Spoilt(
        "middlebury",
        lambda f: (f / "masks/ball0003.png").rename(f / "masks/ball3.png"),
        r"masks: the mask ball3\.png .* no image, expected names such as ball0000\.png",
    ),
    "good list": Spoilt(
        "middlebury", lambda f: (f / "ball_good_silhouette_images.txt").write_text("other.png"), "found 'other.png'"
    ),
    "json cut": Spoilt("transforms", truncate("transforms.json"), r"transforms\.json: expected a JSON file"),
    "json list": Spoilt("transforms", lambda f: (f / "transforms.json").write_text("[]"), "expected an entry `frames`"),
    "no frames": Spoilt("transforms", edit_json(lambda t: t["frames"].clear()), "expected at least one frame"),
    "one frame": Spoilt(
        "transforms", edit_json(lambda t: t.update(frames=t["frames"][:1])), "at least 2 views, found 1"
    ),
    "frame NaN": Spoilt(
        "transforms",
        edit_json(lambda t: t["frames"][3]["transform_matrix"][0].__setitem__(0, np.nan)),
        "frame 3: .*finite",
    ),
    "frame zero": Spoilt(
        "transforms", edit_json(lambda t: t["frames"][3].update(transform_matrix=[[0] * 4] * 4)), "frame 3: .*rotation"
    ),
    "frame ragged": Spoilt(
        "transforms", edit_json(lambda t: t["frames"][3].update(transform_matrix=[[1], 2])), "frame 3: .*4 x 4"
    ),
    "frame image": Spoilt(
        "transforms", edit_json(lambda t: t["frames"][3].update(file_path="x/y")), "frame 3: .* 'x/y' .*missing"
    ),
    "frame no path": Spoilt(
        "transforms", edit_json(lambda t: t["frames"][3].pop("file_path")), "frame 3: .*found None"
    ),
    "absolute path": Spoilt(
        "transforms", edit_json(lambda t: t["frames"][3].update(file_path="/etc/hostname")), "leads outside"
    ),
    "parent path": Spoilt(
        "transforms", edit_json(lambda t: t["frames"][3].update(file_path="../../x.png")), "leads outside"
    ),
    "link": Spoilt("transforms", link_outside, "leads outside"),
    "distortion": Spoilt("transforms", edit_json(lambda t: t.update(k4=0.1)), "found k4 = 0.1; undistort"),
    "fisheye": Spoilt(
        "transforms", edit_json(lambda t: t.update(camera_model="FISHEYE624")), "'FISHEYE624'; undistort"
    ),
    "no focal": Spoilt("transforms", edit_json(lambda t: t.pop("camera_angle_x")), "fl_x or camera_angle_x"),
    "focal word": Spoilt("transforms", edit_json(lambda t: t.update(fl_x="long")), "fl_x to be a number, found 'long'"),
    "other shape": Spoilt(
        "transforms", edit_json(lambda t: t.update(w=80, h=80)), "an image of 80 x 80 .* one of 80 x 60"
    ),
    "mask without image": Spoilt(
        "transforms",
        separate_masks("r_0", "r_1", "mask_2"),
        r"masks: the mask mask_2\.png .* no image, expected names such as r_0\.png",
    ),
    "masks of others": Spoilt("transforms", separate_masks("a", "b"), r"masks: the mask a\.png .* such as r_0\.png"),
    "masks without cameras": Spoilt("transforms", masks_without_cameras, r"masks: the mask x\.png .* such as r_0\.png"),
    "alpha empty": Spoilt(
        "transforms", lambda f: save(f / "train/r_3.png", np.zeros((HEIGHT, WIDTH, 4))), r"r_3\.png: the mask is empty"
    ),
}


def test_masks_in_a_folder_go_by_name(good: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(good["transforms"], tmp_path / "x")
    separate_masks("r_0", "r_1", "r_2")(folder)
    save(folder / "train/x.png", colours(0))  # a photograph that has no camera
    save(folder / "masks/x.png", 255 * outline(cameras()[0]))
    views = load(folder)
    assert [i for i, mask in enumerate(views.masks) if mask is not None] == [0, 1, 2]
    assert f"Masks from masks/ (white = object) for 3 of {N} views" in views.summary


def test_focal_length_keeps_its_digits(good: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(good["transforms"], tmp_path / "x")
    edit_json(lambda t: t.update(fl_x=1111.11103119, cx=39.123456789012))(folder)
    K = load(folder).cameras[0].K
    assert (float(K[0, 0]), float(K[1, 1]), float(K[0, 2])) == (1111.11103119, 1111.11103119, 39.123456789012)


@pytest.mark.parametrize("name", SPOILT)
def test_bad_input_gets_one_clear_sentence(good: dict[str, Path], tmp_path: Path, name: str) -> None:
    case = SPOILT[name]
    folder = shutil.copytree(good[case.kind], tmp_path / "x")
    case.spoil(folder)
    with pytest.raises(ValueError, match=case.message) as caught:
        load(folder)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert message.count("frame 3: ") <= 1 and message.count("transforms.json: ") <= 1


def test_a_folder_without_cameras_says_what_it_holds_and_what_to_do(good: dict[str, Path], tmp_path: Path) -> None:
    def refusal(folder: Path, cameras: str | None = None) -> str:
        with pytest.raises(ValueError) as caught:
            load(folder, cameras=cameras)
        return str(caught.value).removeprefix(f"{folder}: expected ")

    for name in ("images/1.jpg", "images/2.JPG", "masks/1.png", "images/.hidden.jpg"):
        (tmp_path / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "own" / name).touch()
    message = refusal(tmp_path / "own")
    assert message.startswith(
        "a camera file of a known format, found 2 pictures such as images/1.jpg, but no cameras; "
    )
    assert "COLMAP or nerfstudio's ns-process-data" in message and "--turntable" in message and "Bundler" not in message
    assert "lists all formats" in message and len(message) < 500
    (tmp_path / "own/sparse").mkdir()
    assert "; for COLMAP there is no sparse/0/cameras.bin; find" in refusal(tmp_path / "own")
    (tmp_path / "own/notes").mkdir()
    (tmp_path / "own/notes/x.txt").touch()
    assert refusal(tmp_path / "own/notes").startswith(
        "a camera file of a known format, found neither pictures nor cameras"
    )
    shutil.copytree(good["idr"], tmp_path / "sets/ball")
    assert f"; {tmp_path}/sets/ball holds IDR / NeuS (cameras.npz): give that folder; " in refusal(tmp_path / "sets")
    assert f"; {tmp_path}/sets/ball holds IDR / NeuS" in refusal(tmp_path / "sets/ball/image")
    assert refusal(good["idr"], "x.npz") == "a camera file called 'x.npz', found IDR / NeuS (cameras.npz)"


def test_arguments(good: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="hold_out"):
        load(good["idr"], hold_out=1)
    with pytest.raises(ValueError, match=r"called 'other\.npz'"):
        load(good["idr"], cameras="other.npz")
    assert path_inside(good["idr"], good["idr"] / "image") == good["idr"] / "image"

"""Damaged views are left out and named, names from other systems are found, and a fit copies nothing."""

import json
import os
import re
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_datasets import WRITERS
from test_images import N, agrees, cameras, colours, outline, save, table, warned, write

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets import dvr
from warpdvr.datasets.find import Finder
from warpdvr.datasets.load import load, write_cameras
from warpdvr.datasets.pixels import Pixels
from warpdvr.datasets.views import split_views


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / "transforms.json").read_text())
    change(content)
    (folder / "transforms.json").write_text(json.dumps(content))


def write_numbered(folder: Path) -> Path:
    """Write pictures, masks and cameras that pair up by order, in IDR's format."""
    arrays: dict[str, Any] = {}
    for i, camera in enumerate(cameras()):
        save(folder / f"image/{i:03d}.png", colours(i))
        save(folder / f"mask/{i:03d}.png", 255 * outline(camera).astype(np.uint8))
        K = camera.K - torch.tensor([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
        world = torch.eye(4, dtype=torch.float64)
        world[:3] = K @ torch.cat([torch.eye(3), torch.zeros(3, 1)], 1).double() @ torch.linalg.inv(camera.pose)
        arrays |= {f"world_mat_{i}": world.numpy(), f"scale_mat_{i}": np.eye(4)}
    np.savez(folder / "cameras.npz", **arrays)
    return folder


# One bad item does not cost the set

BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no picture": (lambda f: (f / "images/004.png").unlink(), r"frame 4: the picture 'images/004\.png' is missing"),
    "broken picture": (lambda f: (f / "images/004.png").write_bytes(b"?"), r"004\.png: expected a picture"),
    "cut picture": (
        lambda f: (f / "images/004.png").write_bytes((f / "images/004.png").read_bytes()[:900]),
        r"004\.png: expected a picture",
    ),
    "pose not finite": (
        lambda f: edit(f, lambda t: t["frames"][4]["transform_matrix"][0].__setitem__(3, float("inf"))),
        r"frame 4: transform_matrix .* not finite",
    ),
    "no name": (lambda f: edit(f, lambda t: t["frames"][4].pop("file_path")), "frame 4: expected file_path"),
    "leads outside": (
        lambda f: edit(f, lambda t: t["frames"][4].update(file_path="../../x.png")),
        "leads outside of the data folder",
    ),
    "empty mask": (
        lambda f: save(f / "masks/004.png", np.zeros((40, 60), np.uint8)),
        r"masks/004\.png: the mask is empty",
    ),
    "mask of another size": (
        lambda f: save(f / "masks/004.png", np.ones((4, 6), np.uint8)),
        r"masks/004\.png: the mask must have the size of its image",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_one_bad_view_is_left_out(tmp_path: Path, case: str) -> None:
    folder = write(tmp_path / "x")
    spoil, reason = BAD[case]
    spoil(folder)
    views, message = warned(folder)
    kept = [i for i in range(N) if i != 4]
    assert re.search(rf"{folder}: 1 of {N} views left out: .*{reason}", message)
    assert f"1 of {N} views left out" in views.summary
    assert views.listed == tuple(kept) and len(views) == N - 1
    for k, i in enumerate(kept):
        assert (views.images[k].numpy() == colours(i)).all()
        assert (views.masks[k].numpy() == outline(cameras()[i])).all()  # type: ignore[union-attr]


def test_a_tenth_is_too_many_and_all_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "images/002.png").unlink()
    edit(folder, lambda t: t["frames"][7]["transform_matrix"][1].__setitem__(1, float("nan")))
    with pytest.raises(ValueError, match=rf"2 of {N} views cannot be used.*frame 2: .* missing.*; .*frame 7: .*finite"):
        load(folder)
    for path in (folder / "images").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=rf"000\.png' is missing.*\(none of the {N} views can be used\)$"):
        load(folder)


def test_matrices_are_left_out_too(tmp_path: Path) -> None:
    folder = write_numbered(tmp_path / "x")
    (folder / "image/003.png").write_bytes(b"?")
    views, message = warned(folder)
    assert f"1 of {N} views left out" in message and 3 not in views.listed and len(views) == N - 1
    assert (views.images[3].numpy() == colours(4)).all()


def edit_matrices(path: Path, **values: float) -> None:
    """Set the first number of matrices in an npz file."""
    with np.load(path) as file:
        arrays = dict(file)
    for name, value in values.items():
        arrays[name][0, 0] = value
    np.savez(path, **arrays)


def _no_pair(folder: Path) -> None:
    for name in ("image", "mask"):
        (folder / f"{name}/003.png").unlink()


GONE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no picture": (lambda f: (f / "image/003.png").unlink(), r"image/003\.png' is missing"),
    "no mask": (lambda f: (f / "mask/003.png").unlink(), r"mask/003\.png"),
    "neither": (_no_pair, r"image/003\.png' is missing"),
    "not finite": (
        lambda f: edit_matrices(f / "cameras.npz", world_mat_3=np.nan),
        "world_mat_3 holds a number that is n",
    ),
    "scale": (lambda f: edit_matrices(f / "cameras.npz", scale_mat_3=np.inf), "scale_mat_3 holds a number that is not"),
}


@pytest.mark.parametrize("case", GONE)
@pytest.mark.parametrize("kind", ["idr", "dvr"])
def test_a_gap_in_numbered_files_costs_one_view(tmp_path: Path, kind: str, case: str) -> None:
    """The numbers of the others say which is missing; all others keep their cameras."""
    folder = write_numbered(tmp_path / "x")
    if kind == "dvr":
        views = load(folder, normalise=False)
        folder = tmp_path / "dvr"
        dvr.write(folder, views)
        for path in folder.glob("*/*.png"):
            path.rename(path.with_name(f"{int(path.stem):03d}.png"))
    before = load(folder)
    spoil, reason = GONE[case]
    if case == "no mask" and kind == "dvr":  # whose masks may be missing for some views
        spoil(folder)
        assert load(folder).masks[3] is None
        return
    spoil(folder)
    views, message = warned(folder)
    assert re.search(rf"1 of {N} views left out: .*{reason}", message)
    assert views.listed == (0, 1, 2, *range(4, N))
    for k, i in enumerate(views.listed):
        assert (views.images[k] == before.images[i]).all() and (
            views.cameras[k].pose - before.cameras[i].pose
        ).abs().max() < 1e-6


def test_matrices_of_the_first_view_that_are_not_finite_do_not_hide_the_format(tmp_path: Path) -> None:
    views = load(write_numbered(tmp_path / "x"), normalise=False)
    dvr.write(tmp_path / "dvr", views)
    edit_matrices(tmp_path / "dvr/cameras.npz", world_mat_0=np.nan)
    found, _ = warned(tmp_path / "dvr")
    assert found.summary.startswith("DVR") and found.listed == tuple(range(1, N))


def test_gaps_that_are_not_certain_or_too_many_refuse_the_set(tmp_path: Path) -> None:
    """Numbers from 1 to N - 1 may begin at 0 or at 1; a name of another kind has no number in the row."""

    def refusal(*gone: int, odd: int | None = None) -> str:
        folder = write_numbered(tmp_path / "-".join(map(str, (*gone, odd))))
        for i in gone:
            (folder / f"image/{i:03d}.png").unlink()
        if odd is not None:
            (folder / f"image/{odd:03d}.png").rename(folder / f"image/x{odd}.png")
        with pytest.raises(ValueError) as caught:
            load(folder)
        return str(caught.value)

    assert f"expected {N} pictures, one per world_mat in cameras.npz, found {N - 1}" in refusal(0)
    assert f"expected {N} pictures, one per world_mat in cameras.npz, found {N - 1}" in refusal(3, odd=7)
    assert f"2 of {N} views cannot be used" in refusal(3, 5)


def moved(views: Any) -> list[Camera]:
    shift = SceneTransform.around(torch.tensor([0.01, 0.02, 0.0], dtype=torch.float64), 1.0)
    return [shift.to_data(camera) for camera in views.cameras]


@pytest.mark.parametrize("kind", ["transforms", "idr"])
def test_written_cameras_keep_those_that_were_left_out(tmp_path: Path, kind: str) -> None:
    folder = write(tmp_path / "x") if kind == "transforms" else write_numbered(tmp_path / "x")
    bad = folder / ("images" if kind == "transforms" else "image") / "004.png"
    good = bad.read_bytes()
    before = load(folder, normalise=False)
    bad.write_bytes(b"?")
    views, _ = warned(folder, max_pixels=700)  # pictures of other proportions, and matrices for the stored ones
    out = shutil.copytree(folder, tmp_path / "out")
    write_cameras(folder, views, moved(views), out)
    (out / bad.relative_to(folder)).write_bytes(good)
    again = load(out, normalise=False)
    expected = [views.transform.to_data(camera).pose for camera in moved(views)]
    expected.insert(4, before.cameras[4].pose)
    assert len(again) == N
    for camera, pose, old in zip(again.cameras, expected, before.cameras, strict=True):
        assert (camera.pose - pose).abs().max() < 1e-6 and (camera.K - old.K).abs().max() < 1e-5


def test_a_test_split_without_pictures(tmp_path: Path) -> None:
    folder = write(tmp_path)
    content = json.loads((folder / "transforms.json").read_text())
    (folder / "transforms.json").unlink()
    test = [{**frame, "file_path": f"test/{i}.png"} for i, frame in enumerate(content["frames"][:6])]
    (folder / "transforms_train.json").write_text(json.dumps(content))
    (folder / "transforms_test.json").write_text(json.dumps({**content, "frames": test}))
    views, message = warned(folder)
    assert "none of the 6 held-out views can be used" in message and "0.png" in message
    assert len(views) == N and views.test == (0, 8) and "split of the data" not in views.summary


def test_depth_maps_and_points_stay_with_their_views(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "depth").mkdir()
    for i, camera in enumerate(cameras()):
        np.save(folder / f"depth/{i:03d}.npy", np.where(outline(camera), 2.75 + i / 100, 0).astype(np.float32))
    visible = np.zeros((N, N), bool)
    np.fill_diagonal(visible, True)
    points = np.random.default_rng(0).uniform(-0.1, 0.1, (N, 3))
    np.savez(folder / "points.npz", points=points, visible=visible)
    (folder / "images/004.png").unlink()
    views, _ = warned(folder)
    for k, i in enumerate(views.listed):
        depth = views.depths[k]
        assert depth is not None
        assert depth.nan_to_num(0).max() * views.transform.scale == pytest.approx(2.75 + i / 100, rel=1e-5)
        sparse = views.points[k]
        uv = cameras()[i].project(torch.from_numpy(points[i : i + 1]))[0]
        assert sparse is not None and (sparse.pixel - uv).abs().max() < 1e-3
    small, _ = warned(folder, max_pixels=600)
    depth = small.depths[0]
    assert depth is not None and depth.shape == small.images[0].shape[:2]
    assert depth[15, 10].isnan() or depth.nan_to_num(0).max() * small.transform.scale == pytest.approx(2.75, rel=1e-5)


def test_few_views_are_not_halved_in_silence(tmp_path: Path) -> None:
    assert [split_views(n, 8)[1] for n in (1, 2, 3, 4, 9)] == [(), (), (), (0,), (0, 8)]
    assert split_views(3, 2) == ((1,), (0, 2)) and split_views(2, 0)[1] == ()
    folder = write(tmp_path)
    edit(folder, lambda t: t.update(frames=t["frames"][:3]))
    views = load(folder)
    assert (views.train, views.test) == ((0, 1, 2), ()) and "too few to hold one out" in views.summary


# Names from other systems


@pytest.mark.parametrize(
    "name",
    [
        "images\\{:03d}.png",
        ".\\images\\{:03d}.png",
        "C:\\Users\\me\\scan 1\\images\\{:03d}.png",
        "/home/me/scan/images/{:03d}.png",
        "/home/me/photos/{:03d}.png",
        "data/scan/images/{:03d}.png",
        "images/{:03d}.PNG",
        "Images/{:03d}.png",
        "images/{:03d}",
        "\ufeffimages/{:03d}.png",
        "{:03d}.png",
    ],
)
def test_names_of_other_systems_are_found(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path)
    edit(folder, lambda t: [f.update(file_path=name.format(i)) for i, f in enumerate(t["frames"])])
    if name in ("/home/me/photos/{:03d}.png", "{:03d}.png"):  # in the folder itself
        for path in [*(folder / "images").iterdir()]:
            path.rename(folder / path.name)
    agrees(load(folder))


def test_the_longest_tail_decides(tmp_path: Path) -> None:
    for name in ("a/1/x.png", "a/2/x.png", "b/2/x.png", "only.png", "deep/er/alone.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    finder = Finder(tmp_path)
    assert finder.find("/elsewhere/a/2/x.png") == tmp_path / "a/2/x.png"
    assert finder.find("/elsewhere/only.png") == tmp_path / "only.png"
    for gone in ("/elsewhere/alone.png", "/elsewhere/c/x.png"):  # the name alone says too little
        with pytest.raises(ValueError, match="leads outside"):
            finder.find(gone)
    assert finder.find("c/x.png") is None and finder.find("sub/only.png") is None
    with pytest.raises(ValueError, match=r"fits several files, such as a/2/x\.png and b/2/x\.png|fits several files"):
        finder.find("/elsewhere/2/x.png")
    with pytest.raises(ValueError, match="leads outside"):
        finder.find("../only.png")


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
def test_accents_and_spaces(tmp_path: Path, stored: Any) -> None:
    other: Any = {"NFC": "NFD", "NFD": "NFC"}[stored]
    folder = write(tmp_path, lambda i: unicodedata.normalize(stored, f"images/fotografía {i}.png"))
    names = [unicodedata.normalize(other, f"images/fotografía {i}.png") for i in range(N)]
    assert not (folder / names[0]).exists()
    (folder / "transforms.json").write_text(json.dumps(table(names)))
    agrees(load(folder))


def test_clutter_and_marks_of_other_systems(tmp_path: Path) -> None:
    folder = write_numbered(tmp_path / "idr")
    for home in ("image", "mask"):
        for name in ("._000.png", ".DS_Store", "Thumbs.db", "desktop.ini"):
            (folder / home / name).write_bytes(b"?")
    assert len(load(folder)) == N
    folder = write(tmp_path / "transforms")
    (folder / "._transforms.json").write_bytes(b"?")
    (folder / "masks/._000.png").write_bytes(b"?")
    path = folder / "transforms.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    agrees(load(folder))
    (tmp_path / "par").mkdir()
    WRITERS["middlebury"](tmp_path / "par")
    path = tmp_path / "par/ball_par.txt"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    (tmp_path / "par/._ball_par.txt").write_bytes(b"?")
    assert len(load(tmp_path / "par")) == 10


def test_links_lead_out_of_the_folder_when_asked(tmp_path: Path) -> None:
    folder = write(tmp_path / "x")
    (folder / "images").rename(tmp_path / "photographs")
    (folder / "images").symlink_to(tmp_path / "photographs")
    with pytest.raises(ValueError, match=r"through a symbolic link.*follow_links=True \(--follow-links\)"):
        load(folder)
    views = load(folder, follow_links=True)
    agrees(views)
    (path,) = write_cameras(folder, views, views.cameras, tmp_path / "out", follow_links=True)
    assert path.is_file()
    edit(folder, lambda t: t["frames"][0].update(file_path="../photographs/000.png"))  # not a link
    with pytest.warns(UserWarning, match="leads outside of the data folder, which is not allowed"):
        assert len(load(folder, follow_links=True)) == N - 1


# Memory


def test_a_fit_shares_the_pictures(tmp_path: Path) -> None:
    views = load(write(tmp_path))
    pixels = Pixels(views)
    assert pixels.color.untyped_storage().data_ptr() == views.images[0].untyped_storage().data_ptr()
    batch = pixels.draw(500, torch.Generator().manual_seed(0))
    copied = Pixels(_copied(views)).draw(500, torch.Generator().manual_seed(0))
    assert torch.equal(batch.color, copied.color) and torch.equal(batch.rays.direction, copied.rays.direction)


def _copied(views: Any) -> Any:
    from dataclasses import replace

    return replace(views, images=tuple(image.clone() for image in views.images))


MEASURE = """
import resource, sys
import torch
from warpdvr.datasets.load import load
from warpdvr.datasets.pixels import Pixels
load(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
views = load(sys.argv[2])
Pixels(views)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_at_most_six_bytes_a_pixel(tmp_path: Path) -> None:
    """And eight per pixel of the picture that is being decoded, beyond what a small set takes."""
    width, height = 1500, 1000
    small, large = write(tmp_path / "small"), write(tmp_path / "large")
    for i, camera in enumerate(cameras(N, width, height)):
        save(large / f"images/{i:03d}.png", np.full((height, width, 3), 10 * i + 5, np.uint8), compress_level=1)
        save(large / f"masks/{i:03d}.png", 255 * outline(camera).astype(np.uint8), compress_level=1)
    focal = float(cameras(1, width, height)[0].K[0, 0])
    edit(large, lambda t: t.update(w=width, h=height, fl_x=focal, fl_y=focal))
    command = [sys.executable, "-c", MEASURE, str(small), str(large)]
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    taken = 1024 * int(done.stdout.splitlines()[-1])
    assert taken < 6 * N * width * height + 8 * width * height + 8e6

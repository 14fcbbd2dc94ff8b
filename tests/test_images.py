"""Pictures and masks as people have them: each is loaded rightly, or refused with a sentence that says what to do."""

import json
import os
import struct
import sys
import types
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from warpdvr.cameras.camera import OPENGL, Camera
from warpdvr.datasets.decode import bits_of, decode, read_header
from warpdvr.datasets.load import load
from warpdvr.datasets.masks import read_mask
from warpdvr.datasets.views import Views

N, WIDTH, HEIGHT, RADIUS = 12, 60, 40, 0.5


def cameras(n: int = N, width: int = WIDTH, height: int = HEIGHT) -> list[Camera]:
    """Cameras that look at a ball of `RADIUS` in the origin from all around."""
    a = 2.4 * torch.arange(n, dtype=torch.float64)
    eye = torch.stack([a.cos(), a.sin(), torch.linspace(-0.7, 0.7, n, dtype=torch.float64)], 1)
    return [Camera.look_at(3 * e / e.norm(), width=width, height=height) for e in eye]


def outline(camera: Camera) -> np.ndarray:
    """The pixels of the ball, from the closed form."""
    rays = camera.rays()
    nearest = torch.linalg.cross(rays.direction, -rays.origin, dim=1).norm(dim=1)
    inside: np.ndarray = (nearest < RADIUS).reshape(camera.height, camera.width).numpy()
    return inside


def colours(i: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, (height, width, 3)).astype(np.uint8)


def save(path: Path, array: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def table(names: list[str], **entries: object) -> dict[str, Any]:
    frames = [
        {"file_path": name, "transform_matrix": (camera.pose @ OPENGL).tolist()}
        for name, camera in zip(names, cameras(), strict=True)
    ]
    focal = float(cameras()[0].K[0, 0])
    return {"w": WIDTH, "h": HEIGHT, "fl_x": focal, "fl_y": focal, "frames": frames, **entries}


def write(folder: Path, name: Callable[[int], str] = lambda i: f"images/{i:03d}.png", **entries: object) -> Path:
    """Write photographs, masks of the ball in `masks/`, and their cameras."""
    names = [name(i) for i in range(N)]
    for i, camera in enumerate(cameras()):
        save(folder / names[i], colours(i))
        save(folder / "masks" / Path(names[i]).with_suffix(".png").name, 255 * outline(camera).astype(np.uint8))
    (folder / "transforms.json").write_text(json.dumps(table(names, **entries)))
    return folder


def agrees(views: Views) -> None:
    """Colours, masks and cameras are those that were written."""
    assert len(views) == N
    for i, (image, mask, camera) in enumerate(zip(views.images, views.masks, cameras(), strict=True)):
        assert (image.numpy() == colours(i)).all()
        assert mask is not None and (mask.numpy() == outline(camera)).all()
        x = torch.tensor([[0.1, -0.2, 0.3], [0.2, 0.1, 0.0]], dtype=torch.float64)
        found = views.cameras[i].project(views.transform.inverse().apply(x))[0]
        assert (found - camera.project(x)[0]).abs().max() < 1e-6


def warned(folder: Path, **options: Any) -> tuple[Views, str]:
    """Load with warnings recorded."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        views = load(folder, **options)
    return views, " | ".join(str(w.message) for w in caught)


def png16(path: Path, array: np.ndarray) -> None:
    """Write a PNG of 16 bits a channel (w3.org, "Portable Network Graphics", sections 5 and 9: filter 0)."""
    height, width, channels = array.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    with path.open("ab") as file:
        for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
            file.write(struct.pack(">I", len(content)) + kind + content)
            file.write(struct.pack(">I", zlib.crc32(kind + content)))


def tiff16(path: Path, array: np.ndarray, order: str) -> None:
    """Write an uncompressed TIFF of 16 bits a channel (TIFF 6.0, section 6: RGB images)."""
    height, width, _ = array.shape
    pixels = array.astype(f"{order}u2").tobytes()
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, 8 + 2 + 12 * 9 + 4), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 1, 200), (277, 3, 1, 3), (278, 4, 1, height), (279, 4, 1, len(pixels))]
    content = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8) + struct.pack(f"{order}H", 9)
    for tag, kind, count, value in entries:
        inline = kind == 3 and count == 1
        content += struct.pack(f"{order}HHI", tag, kind, count)
        content += struct.pack(f"{order}HH", value, 0) if inline else struct.pack(f"{order}I", value)
    content += struct.pack(f"{order}I3H", 0, 16, 16, 16)
    path.write_bytes(content.ljust(200, b"\0") + pixels)


def test_the_control_is_read(tmp_path: Path) -> None:
    agrees(load(write(tmp_path)))


# What a file holds


def test_content_decides_the_decoder(tmp_path: Path) -> None:
    save(tmp_path / "a.png", colours(0), format="BMP")
    assert (decode(tmp_path / "a.png") == colours(0)).all()


def test_a_program_is_never_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*arguments: object, **options: object) -> None:
        raise AssertionError("a program was started")

    for name in ("Popen", "run", "check_call"):
        monkeypatch.setattr(f"subprocess.{name}", started)
    path = tmp_path / "photo.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(ValueError, match=r"photo\.png: expected a picture, found a file that cannot be decoded"):
        decode(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: os.mkfifo(path), "found a pipe or a device"),
        (lambda path: path.mkdir(), "found a folder"),
        (lambda path: path.touch(), "found an empty file"),
        (lambda path: path.symlink_to(path), "the picture is missing"),
        (lambda path: path.symlink_to("/dev/zero"), "found a pipe or a device"),
        (lambda path: path.write_bytes(b"\x00\x00\x00\x18ftypheic" + bytes(40)), r"HEIC.*pip install pillow-heif"),
        (lambda path: path.write_bytes(b"\x76\x2f\x31\x01" + bytes(40)), r"OpenEXR.*pip install OpenEXR"),
    ],
    ids=["pipe", "folder", "empty", "loop", "device", "HEIC", "EXR"],
)
def test_what_is_no_picture_is_refused(
    tmp_path: Path, make: Callable[[Path], object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    make(tmp_path / "x.png")
    with pytest.raises(ValueError, match=rf"^{tmp_path}/x\.png: .*{message}"):
        decode(tmp_path / "x.png")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.new("1", (8, 8)).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 12000, 12000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"claims 12000 x 12000 pixels in \d+ bytes"):
        decode(path)
    content[16:24] = struct.pack(">II", 60000, 60000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"expected a picture of at most \d+ million pixels"):
        decode(path)


def test_no_memory_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise MemoryError

    save(tmp_path / "x.png", colours(0))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(ValueError, match=r"x\.png: the picture needs more memory than there is; make it smaller"):
        decode(tmp_path / "x.png")


# Depth of colour


def test_bits_hold_a_value() -> None:
    assert [bits_of(v) for v in (0, 255, 256, 1023, 1024, 4095, 4096, 16383, 16384, 65535)] == [
        *(8, 8, 10, 10, 12, 12, 14, 14, 16, 16)
    ]


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("kind", ["png", "<tiff", ">tiff"])
def test_deep_colours_are_scaled_by_what_the_set_holds(tmp_path: Path, bits: int, kind: str) -> None:
    folder = write(tmp_path)
    deep = [np.random.default_rng(i).integers(0, 2 ** (bits - (i > 0)), (HEIGHT, WIDTH, 3)) for i in range(N)]
    deep[0][0, 0] = 2**bits - 1  # in the first alone
    for i, array in enumerate(deep):
        path = folder / f"images/{i:03d}.png"
        png16(path, array) if kind == "png" else tiff16(path, array, kind[0])
    views = load(folder)
    for image, array in zip(views.images, deep, strict=True):
        assert (image.numpy() == array >> (bits - 8)).all()
    assert f"{N} pictures of 16 bits a channel hold {bits} of them" in views.summary


def test_deep_grey_too(tmp_path: Path) -> None:
    folder = write(tmp_path)
    grey = np.arange(WIDTH * HEIGHT, dtype=np.uint16).reshape(HEIGHT, WIDTH)
    grey[0, 0] = 4095
    for i in range(N):
        Image.fromarray(grey).save(folder / f"images/{i:03d}.png")
    assert (load(folder).images[3].numpy() == (grey >> 4)[..., None]).all()


def test_an_all_black_set_is_not_silent(tmp_path: Path) -> None:
    folder = write(tmp_path)
    for i in range(N):
        save(folder / f"images/{i:03d}.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    assert "all pictures are black" in warned(folder)[1]


def test_floats_are_linear(tmp_path: Path) -> None:
    folder = write(tmp_path)
    for i in range(N):
        Image.fromarray(np.full((HEIGHT, WIDTH), 0.21586, np.float32)).save(folder / f"images/{i:03d}.png", "TIFF")
    views = load(folder)
    assert (views.images[0] == 128).all()  # 128 of 255 in sRGB is 0.21586 of linear light
    assert f"{N} pictures of linear floats, 1 taken for white" in views.summary


@pytest.mark.parametrize("order", "<>")
def test_a_tiff_of_floats_in_colour_says_how_to_convert_it(tmp_path: Path, order: str) -> None:
    """TIFF 6.0, sections 6 and 19; with integers of 32 bits, which nobody reads either, another sentence."""

    def refusal(sample_format: int) -> str:
        path, pixels = tmp_path / "x.tif", np.zeros((4, 6, 3), f"{order}f4").tobytes()
        entries = [(256, 4, 1, 6), (257, 4, 1, 4), (258, 3, 3, 160), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 200)]
        entries += [(277, 3, 1, 3), (278, 4, 1, 4), (279, 4, 1, len(pixels)), (339, 3, 3, 170)]
        content = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(entries))
        for tag, kind, count, value in entries:
            content += struct.pack(f"{order}HHI", tag, kind, count)
            short = kind == 3 and count == 1
            content += struct.pack(f"{order}HH", value, 0) if short else struct.pack(f"{order}I", value)
        content = content.ljust(160, b"\0") + struct.pack(f"{order}5H", 32, 32, 32, 0, 0)
        content += struct.pack(f"{order}3H", *[sample_format] * 3)
        path.write_bytes(content.ljust(200, b"\0") + pixels)
        with pytest.raises(ValueError) as caught:
            read_header(path)
        return str(caught.value)

    assert "x.tif: the picture is a TIFF of floats in colour" in refusal(3) and "`oiiotool x.tif -o x.exr`" in refusal(
        3
    )
    assert "x.tif: expected a picture, found a file that cannot be decoded" in refusal(1)


def test_exr_is_linear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = {name: np.full((4, 6), v, np.float32) for name, v in zip("RGBA", (0.0, 0.21586, 1e4, 1.0), strict=True)}
    library = types.ModuleType("OpenEXR")
    channels = {name: types.SimpleNamespace(pixels=array) for name, array in pixels.items()}
    library.File = lambda *_, **__: types.SimpleNamespace(channels=lambda: channels)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "OpenEXR", library)
    (tmp_path / "x.exr").write_bytes(b"\x76\x2f\x31\x01" + bytes(20))
    assert decode(tmp_path / "x.exr")[2, 3].tolist() == [0, 128, 255, 255]
    assert read_header(tmp_path / "x.exr").linear and read_header(tmp_path / "x.exr").size == (6, 4)


# EXIF orientation


def turned(folder: Path, orientation: int, **options: Any) -> None:
    """Store the pictures turned, with EXIF data that turn them back."""
    exif = Image.Exif()
    exif[274] = orientation
    back = {6: Image.Transpose.ROTATE_90, 3: Image.Transpose.ROTATE_180}[orientation]
    for i in range(N):
        Image.fromarray(colours(i)).transpose(back).save(folder / f"images/{i:03d}.png", exif=exif, **options)


def test_pictures_are_turned_where_the_size_says_so(tmp_path: Path) -> None:
    folder = write(tmp_path)
    turned(folder, 6)
    views = load(folder)
    agrees(views)
    assert f"{N} pictures turned as their EXIF data say" in views.summary


@pytest.mark.parametrize("case", ["half turn", "no size"])
def test_a_turn_that_nothing_decides_is_warned_of(tmp_path: Path, case: str) -> None:
    folder = write(tmp_path)
    if case == "no size":
        content = json.loads((folder / "transforms.json").read_text())
        (folder / "transforms.json").write_text(json.dumps({k: v for k, v in content.items() if k not in "wh"}))
        for path in (folder / "masks").iterdir():
            path.unlink()
    turned(folder, 3 if case == "half turn" else 6)
    views, message = warned(folder)
    assert f"{N} pictures such as 000.png are to be shown turned" in message and "fit both ways" in message
    stored = np.rot90(colours(0), 2 if case == "half turn" else 1)
    assert (views.images[0].numpy() == stored).all()


# Masks


def as_image(form: str, m: np.ndarray) -> Image.Image:
    if form == "labels":
        return Image.fromarray(m.astype(np.uint8) * np.uint8(37) + np.uint8(1))
    if form == "palette":  # the first colours of a palette of labels: black, dark red
        image = Image.frombytes("P", m.shape[::-1], m.astype(np.uint8).tobytes())
        image.putpalette([0, 0, 0, 128, 0, 0])
        return image
    if form == "16 bit labels":
        return Image.fromarray(m.astype(np.uint16) * np.uint16(1000))
    soft = np.clip(np.asarray(Image.fromarray(m.astype(np.uint8) * 255).reduce(1)), 40, 220)
    return Image.fromarray(soft.astype(np.uint8))


@pytest.mark.parametrize("form", ["labels", "palette", "16 bit labels", "grey"])
def test_of_two_values_the_larger_is_the_object(tmp_path: Path, form: str) -> None:
    m = outline(cameras()[0])
    as_image(form, m).save(tmp_path / "m.png")
    mask, soft = read_mask(tmp_path / "m.png", (WIDTH, HEIGHT))
    assert (mask.numpy() == m).all() and not soft


def test_soft_masks_are_cut_at_half_and_said(tmp_path: Path) -> None:
    folder = write(tmp_path)
    for i, camera in enumerate(cameras()):
        m = outline(camera).astype(np.float64)
        noise = np.random.default_rng(i).uniform(0, 0.45, m.shape)
        save(folder / f"masks/{i:03d}.png", (255 * np.where(m > 0, 1 - noise, noise)).astype(np.uint8))
    views = load(folder)
    agrees(views)
    assert "soft: cut at half" in views.summary


def test_several_labels_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "m.png", np.arange(6, dtype=np.uint8).reshape(2, 3))
    with pytest.raises(ValueError, match=r"m\.png: expected a mask of two values.*found the values 0, 1, 2, 3, \.\.\."):
        read_mask(tmp_path / "m.png", (3, 2))


@pytest.mark.parametrize("name", ["{}.jpg.png", "mask_{}.png", "{}_mask.png", "{}.mask.png", "images/{}.png", "{}.PNG"])
def test_names_of_masks(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path, lambda i: f"images/{i:03d}.png")
    for i in range(N):
        path = folder / "masks" / name.format(f"{i:03d}").replace(".jpg.", ".png.")
        path.parent.mkdir(exist_ok=True)
        (folder / f"masks/{i:03d}.png").rename(path)
    agrees(load(folder))


def test_masks_beside_the_pictures(tmp_path: Path) -> None:
    folder = write(tmp_path)
    for i in range(N):
        (folder / f"masks/{i:03d}.png").rename(folder / f"images/{i:03d}_mask.png")
    (folder / "masks").rmdir()
    views = load(folder)
    agrees(views)
    assert "beside the pictures" in views.summary


def test_masks_mirror_the_folders_of_the_pictures(tmp_path: Path) -> None:
    folder = write(tmp_path)
    names = []
    for i in range(N):
        names.append(f"images/cam{i % 2}/{i // 2}.png")
        for kind in ("images", "masks"):
            (folder / f"{kind}/cam{i % 2}").mkdir(exist_ok=True)
            (folder / f"{kind}/{i:03d}.png").rename(folder / f"{kind}/cam{i % 2}/{i // 2}.png")
    (folder / "transforms.json").write_text(json.dumps(table(names)))
    agrees(load(folder))
    for i in range(0, N, 2):  # flat: one mask for two pictures
        (folder / f"masks/cam0/{i // 2}.png").rename(folder / f"masks/{i // 2}.png")
        (folder / f"masks/cam1/{i // 2}.png").unlink()
    with pytest.raises(ValueError, match=r"the mask 0\.png belongs to .*cam0/0\.png and to .*cam1/0\.png"):
        load(folder)


def test_dynamic_masks_are_not_the_object(tmp_path: Path) -> None:
    """In instant-ngp they mark what is ignored."""
    folder = write(tmp_path)
    for i in range(N):
        (folder / f"masks/{i:03d}.png").rename(folder / f"images/dynamic_mask_{i:03d}.png")
    (folder / "masks").rmdir()
    views, message = warned(folder)
    assert views.masks == (None,) * N
    assert f"{N} files such as dynamic_mask_" in message and "what instant-ngp ignores" in message


def test_inverted_masks_are_noticed(tmp_path: Path) -> None:
    folder = write(tmp_path)
    for path in (folder / "masks").iterdir():
        with Image.open(path) as image:
            array = 255 - np.asarray(image)
        save(path, array)
    with warnings.catch_warnings(record=True) as caught, pytest.raises(ValueError, match=r"hull|masks"):
        warnings.simplefilter("always")
        load(folder)
        raise ValueError("the masks were loaded")
    assert any(f"inverted: in {N} of {N} views" in str(w.message) for w in caught)


def test_no_masks_are_said_before_loading(tmp_path: Path) -> None:
    folder = write(tmp_path)
    said: list[str] = []
    load(folder, notice=said.append, progress=lambda share, text: said.append(text))
    assert said == [f"{i + 1} of {N} pictures" for i in range(N)]
    for path in (folder / "masks").iterdir():
        path.unlink()
    said.clear()
    load(folder, notice=said.append, progress=lambda share, text: said.append(text))
    assert f"{folder}: no masks" in said[0] and said[1] == f"1 of {N} pictures"


# Size


def test_pictures_are_scaled_down_with_masks_and_cameras(tmp_path: Path) -> None:
    folder = write(tmp_path)
    views = load(folder, max_pixels=WIDTH * HEIGHT // 4)
    assert views.stored_sizes == ((WIDTH, HEIGHT),) * N and "Scaled down" in views.summary
    x = torch.tensor([[0.1, -0.2, 0.3]], dtype=torch.float64)
    for i, (image, mask, camera) in enumerate(zip(views.images, views.masks, cameras(), strict=True)):
        mean = colours(i).reshape(HEIGHT // 2, 2, WIDTH // 2, 2, 3).mean((1, 3))
        assert np.abs(image.numpy() - mean).max() <= 1  # rows and columns are rounded one after the other
        share = outline(camera).reshape(HEIGHT // 2, 2, WIDTH // 2, 2).mean((1, 3))
        assert mask is not None and (mask.numpy() == (share > 0.5))[share != 0.5].all()
        found = views.cameras[i].project(views.transform.inverse().apply(x))[0]
        assert (found - camera.project(x)[0] / 2).abs().max() < 1e-6
    with pytest.raises(ValueError, match="max_pixels must be at least 1, got 0"):
        load(folder, max_pixels=0)

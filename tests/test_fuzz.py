"""Every parser on damaged files: read, or refused in one sentence that names a file; benchmarks/fuzz.md has more.

WARPDVR_FUZZ_SECONDS sets how long all of it takes, 60 by default.
"""

import contextlib
import io
import os
import re
import struct
import time
import zipfile
from pathlib import Path

import fuzz
import numpy as np
import pytest
from PIL import Image

from warpdvr.cameras.camera import Camera
from warpdvr.datasets.decode import KINDS, opened
from warpdvr.datasets.depthfile import DEPTH_SUFFIXES
from warpdvr.datasets.files import PICTURE_SUFFIXES
from warpdvr.datasets.load import FORMATS, detect
from warpdvr.geometry.textured import SUFFIXES, find_meshes, open_folder, read_textured

SECONDS = float(os.environ.get("WARPDVR_FUZZ_SECONDS", "60"))


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    fuzz.hurry(monkeypatch.setattr)


@pytest.mark.parametrize("parser", fuzz.PARSERS, ids=lambda parser: parser.name)
def test_damaged_files_are_read_or_refused_in_a_sentence(parser, tmp_path):
    fuzz.warm()
    folder = tmp_path / "input"
    sound = list(fuzz.cases(parser, folder, 0, 0))
    assert sound == [] and fuzz.judge(parser, folder) == ("read", "")
    faults, counts, end = [], {"read": 0, "refused": 0}, time.monotonic() + SECONDS / len(fuzz.PARSERS)
    for i, what in fuzz.cases(parser, folder, 0, 10**9):
        with fuzz.limits():
            kind, message = fuzz.judge(parser, folder)
        if kind == "fault":
            faults.append((i, what, message))
        else:
            counts[kind] += 1
        if time.monotonic() > end and (counts["refused"] or i == 99):
            break
    assert faults == []
    assert counts["refused"] > 0


def broken(error):
    def read(folder):
        raise error(folder)

    return fuzz.Parser("broken", lambda folder: (folder / "a.bin").write_bytes(b"abc"), read)


@pytest.mark.parametrize(
    "error",
    [
        lambda folder: KeyError("a"),
        lambda folder: MemoryError(),
        lambda folder: ValueError("it is bad"),
        lambda folder: ValueError(f"{folder}: two\nlines"),
        lambda folder: ValueError(f"{folder}: it asks for more memory than there is"),
        lambda folder: UnicodeDecodeError("utf-8", b"", 0, 1, str(folder)),
    ],
)
def test_what_is_no_sentence_is_a_fault(error, tmp_path):
    parser = broken(error)
    assert list(fuzz.cases(parser, tmp_path / "x", 0, 0)) == []
    assert fuzz.judge(parser, tmp_path / "x")[0] == "fault"
    assert fuzz.judge(broken(lambda folder: OSError(f"{folder}/a.bin: gone")), tmp_path / "x")[0] == "refused"


def test_a_file_outside_and_a_program_are_faults(tmp_path):
    (tmp_path / "secret").write_text("x")
    parser = fuzz.Parser("curious", lambda folder: None, lambda folder: (folder / "../secret").read_text())
    assert list(fuzz.cases(parser, tmp_path / "x", 0, 0)) == []
    assert fuzz.judge(parser, tmp_path / "x") == ("fault", f"opened {Path(tmp_path / 'secret').resolve()}")
    runner = fuzz.Parser("runner", lambda folder: None, lambda folder: os.system("true"))
    assert fuzz.judge(runner, tmp_path / "x")[0] == "fault"
    assert fuzz.judge(broken(lambda folder: ValueError(f"{folder}: no")), tmp_path / "x")[0] == "refused"


def test_inputs_are_spoilt_and_repaired(tmp_path):
    parser = next(p for p in fuzz.PARSERS if p.name == "idr")
    folder = tmp_path / "x"
    list(fuzz.cases(parser, folder, 0, 0))

    def content():
        files = [f for f in sorted(folder.rglob("*")) if not f.is_dir()]
        return [(f.name, f.is_file() and not f.is_symlink() and f.read_bytes()) for f in files]

    sound, spoilt = content(), 0
    for i, _ in fuzz.cases(parser, folder, 0, 60):
        spoilt += content() != sound
        assert i < 60
    assert content() == sound and spoilt > 50


def written(folder):
    """Write every sound input into a folder of its own, and return the folders by the names of their parsers."""
    for parser in fuzz.PARSERS:
        list(fuzz.cases(parser, folder / parser.name, 0, 0))
    return {parser.name: folder / parser.name for parser in fuzz.PARSERS}


def test_no_format_and_no_kind_of_file_is_left_out(tmp_path):
    homes, titles = written(tmp_path), set()
    for home in homes.values():
        with contextlib.suppress(ValueError):  # no data set
            titles.add(detect(home).format.title)
    assert titles == {format.title for format in FORMATS}
    kinds = {file.suffix for home in homes.values() for file in home.rglob("*.*")}
    optional = {".heic", ".heif", ".exr"}  # where their packages are installed
    assert {*SUFFIXES, *DEPTH_SUFFIXES, *(s for s in PICTURE_SUFFIXES if s not in optional)} - kinds <= {
        ".jpeg",
        ".tiff",
        ".pgm",
    }
    assert {"PNG", "JPEG", "TIFF", "BMP", "WEBP", "PPM", "GIF"} == set(KINDS)


def picture_bytes(width, height):
    stream = io.BytesIO()
    Image.new("RGB", (width, height)).save(stream, "png")
    return stream.getvalue()


def taller_tiff(rows):
    """Return a TIFF of 8 rows that says it has more (TIFF 6.0, ImageLength is entry 257)."""
    stream = io.BytesIO()
    Image.fromarray(np.ones((8, 10), np.float32)).save(stream, "tiff")
    content = stream.getvalue()
    at = content.index(struct.pack("<HHI", 257, 4, 1))
    return content[:at] + struct.pack("<HHII", 257, 4, 1, rows) + content[at + 12 :]


REPAIRED = {
    "bytes in a log": ("run", "log.jsonl", b'{"iteration": 1}\n\xff\n', None),
    "brackets in a log": ("run", "log.jsonl", b"[" * 5000, None),
    "brackets in category.toml": (
        "category run",
        "category.toml",
        b"a = " + b"[" * 5000,
        "category.toml: expected what",
    ),
    "text in category.toml": (
        "category run",
        "category.toml",
        b'category = "a"\nminutes = 1\nevery = "x"\n[training]\n',
        "every must be of type int, got 'x'",
    ),
    "bytes in render.json": ("record of a category", "render.json", b"\xff", "render.json: expected the record"),
    "half of render.json": ("record of a category", "render.json", b'{"views": ', "render.json: expected the record"),
    "a camera where the object is": ("ScanNet", "pose/0.txt", b"1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n", "radius of 0"),
    "all views held out": ("NSVF", "pose/0_a.txt", None, "x: the split holds out every view that can be read"),
    "a picture of other sides": ("LLFF", "images/9.png", picture_bytes(8, 7), "x: LLFF: the camera of row 1 has two"),
    "a tower of pixels": ("tif floats", "a.tif", taller_tiff(2**24), "found data for 8; it is damaged"),
    "an endless chunk of PNG": (
        "png",
        "a.png",
        re.sub(rb".{4}IDAT", b"\xff\xff\xff\xffIDAT", picture_bytes(8, 6), count=1, flags=re.DOTALL),
        "that announce 4294967295; it is damaged",
    ),
    "a picture like a line": ("input picture", "a.png", picture_bytes(10, 40000), None),
    "a vertex in OBJ": ("obj", "a.obj", b"v 0 0 0\nv 0 x 0\n", "the line 'v 0 x 0': could not convert"),
    "a face in OBJ": ("obj", "a.obj", b"v 0 0 0\nf 1 x 1\n", "a face names 'x', which is no number"),
    "a normal in OBJ": ("obj", "a.obj", b"v 0 0 0\nvn 0 1\nf 1//1 1//1 1//1\n", "a normal has fewer than 3"),
    "a vertex in OFF": ("off", "a.off", b"OFF\n1 0 0\n0 x 0\n", "vertices: could not convert"),
    "a face in OFF": ("off", "a.off", b"OFF\n1 1 0\n0 0 0\n3 0 x 0\n", "faces: invalid literal"),
    "infinity in OFF": ("off", "a.off", b"OFF\n1 0 0\n0 inf 0\n", "vertices: a number is not finite"),
    "a word in PLY": (
        "ply ascii",
        "a.ply",
        b"ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
        b"0 0 0\n0 word 0\n",
        "vertex 1, y: could not convert",
    ),
}
"""Faults that were found: a parser, its file, a content (None for no file), and what the refusal says; None if it is
to be read."""


@pytest.mark.parametrize("fault", REPAIRED)
def test_what_was_repaired_stays_so(fault, tmp_path):
    name, file, content, expected = REPAIRED[fault]
    parser = next(p for p in fuzz.PARSERS if p.name == name)
    folder = tmp_path / "x"
    list(fuzz.cases(parser, folder, 0, 0))
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with fuzz.limits():
        kind, message = fuzz.judge(parser, folder)
    assert (kind, message) == ("read", "") if expected is None else (kind == "refused" and expected in message)


def test_a_mesh_in_an_archive_is_named_with_the_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("thing/model.obj", "v 0 0 0\n")
    with open_folder(tmp_path / "a.zip") as folder, pytest.raises(ValueError, match="no triangles") as refused:
        read_textured(find_meshes(folder)[0])
    assert str(refused.value).startswith(f"{tmp_path / 'a.zip'}/thing/model.obj ")


def test_a_reason_of_several_lines_is_one_line(tmp_path):
    """As libheif gives it."""
    list(fuzz.cases(next(p for p in fuzz.PARSERS if p.name == "png"), tmp_path / "x", 0, 0))
    with pytest.raises(ValueError, match="cannot be decoded") as refused, opened(tmp_path / "x/a.png"):
        raise RuntimeError("Invalid input:\nUnexpected end of file\n")
    assert "\n" not in str(refused.value)


def test_a_matrix_whose_determinant_overflows_is_refused():
    P = np.array([[-8.6, -4.9, -1.5e93, 0], [-1e151, -1.9e200, -1.9e136, 0], [-5.6e-149, 3.4e209, -1.9e136, 0]])
    with pytest.raises(ValueError, match="camera: P is singular"):
        Camera.from_projection(P, 8, 6)


SETS = [parser for parser in fuzz.PARSERS if parser.is_set and parser.read not in (fuzz._read_objects, fuzz._check)]


@pytest.mark.parametrize("parser", SETS, ids=lambda parser: parser.name)
def test_no_camera_file_is_opened_that_is_none(parser, tmp_path):
    """Not even to see of which format it is."""
    folder = tmp_path / "x"
    list(fuzz.cases(parser, folder, 0, 0))
    home = folder if list(folder.glob("a")) == [] else folder / "a"  # of a category
    file = detect(home).camera_files[0]
    for impostor in (fuzz._pipe, fuzz._outside):
        file.unlink()
        impostor(file)
        with fuzz.limits():
            kind, message = fuzz.judge(parser, folder)
        assert kind != "fault", message
        assert impostor is fuzz._pipe or "leads outside of the data folder" in message or kind == "read"

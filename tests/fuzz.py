"""Damaged files for every parser: what is read or refused in a sentence passes, anything else is a fault.

A parser joins with one line in `PARSERS`: its name, a function that writes a sound input into an empty folder, and one
that reads that folder. `cases` then spoils one of the files at a time: bits, bytes, numbers, words, lines and chunks,
in archives and pictures below their checksums as well; or puts a pipe, a folder or a link in a circle in its place.

`python tests/fuzz.py NAME FIRST LAST FOLDER` checks a range of inputs; benchmarks/fuzz.py checks many, each range in a
process of its own, with an alarm and a limit of memory.
"""

import io
import json
import os
import random
import re
import resource
import shutil
import signal
import struct
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fuzz_inputs as inputs
import numpy as np
import torch
import warp
from PIL import Image
from test_datasets_more_formats import LAYOUTS, oxford

import warpdvr
from warpdvr.datasets import normalise
from warpdvr.datasets.check import check_data
from warpdvr.datasets.depthfile import read_depth_map
from warpdvr.datasets.images import read_photographs, read_picture
from warpdvr.datasets.load import load, write_cameras
from warpdvr.datasets.masks import read_mask
from warpdvr.fields import decoderfile, registry
from warpdvr.fitting import checkpoint, log
from warpdvr.geometry.mesh import read_mesh
from warpdvr.geometry.textured import find_meshes, open_folder, read_textured
from warpdvr.runs import scene
from warpdvr.runs.run import Run
from warpdvr.runtime.launch import start_warp
from warpdvr.runtime.npz import read_arrays
from warpdvr.singleview import category
from warpdvr.singleview.preprocess import read_input_picture
from warpdvr.singleview.render_category import RenderSettings, _record_settings
from warpdvr.singleview.run import CategoryRun

SECONDS, WAIT, GROWTH = 10, 30, 2**31
"""What one input may take: seconds of the processor, seconds by the clock of a busy machine, and bytes of memory."""

NUMBERS = (
    "-1 0 1e400 nan inf -inf 2147483648 -2147483649 4294967295 18446744073709551616 1e-320 0x10 1_0 99999999".split()
)
TOKENS = [
    *(n.encode() for n in NUMBERS),
    b"9" * 400,
    b"",
    b"[" * 2000,
    b"{}",
    b"null",
    b'"x"',
    b"\xff\xfe",
    b"\0",
    b"../x",
]


class Hang(BaseException):
    """An input took more than `SECONDS` or `WAIT`; no parser catches it."""


@dataclass(frozen=True)
class Parser:
    """A reader and a sound input for it."""

    name: str
    write: Callable[[Path], object]
    """Writes the input into an empty folder."""
    read: Callable[[Path], object]
    """Reads that folder."""
    cost: int = 1
    """One in so many of the inputs that others get, where reading takes long."""
    is_set: bool = False
    """Whether the folder is what a user names, so that no link in it may lead out; else the user names the file."""


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Return content that was spoilt in one to three ways."""
    for _ in range(chance.choice((1, 1, 2, 3))):
        content = _below_checksums(content, chance) or chance.choice(WAYS)(content, chance)
    return content


def _place(content: bytes, chance: random.Random) -> int:
    """Return a position, as often as not near the beginning, where headers are."""
    return chance.randrange(min(len(content), chance.choice((64, 512, 2**30))) or 1)


def _flip(content: bytes, chance: random.Random) -> bytes:
    spoilt = bytearray(content or b"\0")
    for _ in range(chance.choice((1, 1, 4, 32))):
        spoilt[_place(content, chance)] ^= 1 << chance.randrange(8)
    return bytes(spoilt)


def _cut(content: bytes, chance: random.Random) -> bytes:
    return content[: _place(content, chance)]


def _huge(content: bytes, chance: random.Random) -> bytes:
    at = _place(content, chance)
    number = chance.choice((0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0, 0xFFFFFFFFFFFFFFFF, 2**40, 2**24))
    raw = number.to_bytes(8, chance.choice(("little", "big")))[: chance.choice((2, 4, 8))]
    return content[:at] + raw + content[at + len(raw) :]


def _insert(content: bytes, chance: random.Random) -> bytes:
    at = _place(content, chance)
    return content[:at] + chance.choice((chance.randbytes(chance.randrange(1, 40)), *TOKENS)) + content[at:]


def _number(content: bytes, chance: random.Random) -> bytes:
    """Replace a number in a text."""
    found = list(re.finditer(rb"-?\d[\d.e+-]*", content[:20000]))
    if not found:
        return _huge(content, chance)
    match = chance.choice(found)
    return content[: match.start()] + chance.choice(TOKENS) + content[match.end() :]


def _swap(content: bytes, chance: random.Random) -> bytes:
    """Exchange two words of a text."""
    words = re.split(rb"(\s+|[,:\[\]{}])", content)
    i, j = chance.randrange(len(words)), chance.randrange(len(words))
    words[i], words[j] = words[j], words[i]
    return b"".join(words)


def _drop_line(content: bytes, chance: random.Random) -> bytes:
    lines = content.splitlines(keepends=True) or [b""]
    del lines[chance.randrange(len(lines))]
    return b"".join(lines)


def _repeat(content: bytes, chance: random.Random) -> bytes:
    start, to = _place(content, chance), _place(content, chance)
    return content[:to] + content[start : start + chance.randrange(1, 400)] * chance.choice((1, 2, 50)) + content[to:]


def _blank(content: bytes, chance: random.Random) -> bytes:
    at, n = _place(content, chance), chance.randrange(1, 64)
    return content[:at] + chance.choice((b"\0", b"\xff", b" ")) * n + content[at + n :]


WAYS = (_flip, _cut, _huge, _insert, _number, _number, _swap, _drop_line, _repeat, _blank)


def _below_checksums(content: bytes, chance: random.Random) -> bytes | None:
    """Return an archive, a picture or a file of tensors that was spoilt inside, with checksums and lengths that fit."""
    try:
        if content[:2] == b"PK" and chance.random() < 0.7:
            return _rezipped(content, chance)
        if content[:4] == b"\x89PNG" and chance.random() < 0.7:
            return _rechecked(content, chance)
        if content[8:9] == b"{" and chance.random() < 0.7:
            length = int.from_bytes(content[:8], "little")
            head = chance.choice(WAYS)(content[8 : 8 + length], chance)
            return len(head).to_bytes(8, "little") + head + content[8 + length :]
    except Exception:  # already spoilt: no longer what its first bytes say
        return None
    return None


def _rezipped(content: bytes, chance: random.Random) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(out, "w") as spoilt:
        names = archive.namelist()
        chosen = chance.choice(names)
        for name in names:
            inner = archive.read(name)
            method = chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            spoilt.writestr(name, chance.choice(WAYS)(inner, chance) if name == chosen else inner, method)
    return out.getvalue()


def _rechecked(content: bytes, chance: random.Random) -> bytes:
    chunks, at = list[tuple[bytes, bytes]](), 8
    while at < len(content):
        (n,) = struct.unpack_from(">I", content, at)
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + n]))
        at += 12 + n
    i = chance.randrange(len(chunks))
    kind, data = chunks[i]
    chunks[i] = kind, chance.choice(WAYS)(data, chance)
    packed = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return content[:8] + b"".join(packed)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _circle(path: Path) -> None:
    path.symlink_to(path.name)


def _outside(path: Path) -> None:
    path.symlink_to("/etc/hostname")


IMPOSTORS: tuple[Callable[[Path], None], ...] = (_pipe, _circle, _outside, Path.mkdir, Path.touch, lambda path: None)
"""What may stand in the place of a file: a pipe, a link in a circle or out of the folder, a folder, or nothing."""


def cases(parser: Parser, folder: Path, first: int, last: int) -> Iterator[tuple[int, str]]:
    """Spoil the input of a parser in a folder; yield its number and what was spoilt, and repair it afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    parser.write(folder)
    sound = {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
    names = sorted(sound)
    for i in range(first, last):
        chance = random.Random(f"{parser.name} {i}")
        name = chance.choice(names)
        path = folder / name
        if chance.random() < 0.02:
            impostor = chance.choice(IMPOSTORS if parser.is_set else [i for i in IMPOSTORS if i is not _outside])
            path.unlink()
            impostor(path)
            what = f"{name}: {impostor.__name__}"
        else:
            path.write_bytes(mutate(sound[name], chance))
            what = name
        yield i, what
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
        path.write_bytes(sound[name])


opened: list[str] = []
"""What is forbidden and was done while `watching`."""
_watched: Path | None = None
_known = tuple(
    str(Path(p).resolve())
    for p in {sys.prefix, sys.base_prefix, str(Path(warpdvr.__file__).parents[1]), *sys.path}
    if p
)


def _beside(folder: Path) -> Path:
    """Return the folder that a reader may write to."""
    return folder.with_name(f"{folder.name}.out")


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is None:
        return
    if event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "os.fork"):
        opened.append(f"{event} {arguments[:1]}")
    if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        allowed = (f"{_watched}{os.sep}", f"{_beside(_watched)}{os.sep}", *_known, "/proc/meminfo", "/dev/null")
        if path not in (str(_watched), str(_beside(_watched))) and not path.startswith(allowed):
            opened.append(path)


sys.addaudithook(_listen)


def hurry(replace: Callable[[Any, str, Any], None] = setattr) -> None:
    """Carve hulls coarsely and look for plugins once: both read no file of the data; a test has to take it back."""
    replace(normalise, "COARSE", 8)
    replace(normalise, "FINE", 8)
    replace(registry, "entry_points", cache(registry.entry_points))  # type: ignore[attr-defined]


def warm() -> None:
    """Open what is opened once in a process, and is none of the data: decoders, compiled kernels."""
    Image.init()
    start_warp()
    warp.load_module("warpdvr.kernels.lens", device="cpu")


@contextmanager
def watching(folder: Path) -> Iterator[None]:
    """Note every file outside of the folder and of Python's own that is opened in the block, and every program."""
    global _watched
    opened.clear()
    _watched = folder.resolve()
    try:
        yield
    finally:
        _watched = None


def judge(parser: Parser, folder: Path) -> tuple[str, str]:
    """Read a folder; return "read", "refused" or "fault", and the sentence or what was wrong."""
    message, kind = "", "read"
    try:
        with watching(folder), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parser.read(folder)
    except (ValueError, OSError) as error:
        message, kind = str(error), "refused"
        if isinstance(error, UnicodeError):
            kind, message = "fault", f"{type(error).__name__}: {message}"
        elif "more memory than there is" in message:
            kind, message = "fault", f"memory: {message}"
        elif "\n" in message:
            kind, message = "fault", f"more than one line: {message}"
        elif str(folder) not in message and not any(f.name in message for f in folder.rglob("*")):
            kind, message = "fault", f"names no file: {message}"
    except Hang:
        raise
    except BaseException as error:
        kind, message = "fault", f"{type(error).__name__}: {error}"
    return ("fault", f"opened {opened[0]}") if opened else (kind, message)


def _read_set(**options: object) -> Callable[[Path], None]:
    """Read a data set, and write its cameras back beside the folder, for which its files are read once more."""

    def read(folder: Path) -> None:
        views = load(folder, **options)  # type: ignore[arg-type]
        write_cameras(folder, views, views.cameras, _beside(folder))

    return read


def _read_pictures(folder: Path) -> None:
    for file in folder.iterdir():
        read_photographs([file])
        read_picture(file, upright=True)


def _read_objects(folder: Path | zipfile.Path) -> None:
    for file in find_meshes(folder):
        read_textured(file)


def _read_zip(folder: Path) -> None:
    with open_folder(folder / "a.zip") as opened_folder:
        _read_objects(opened_folder)


def _read_run(folder: Path) -> None:
    run = Run.open(folder)
    run.scene()
    run.field()
    log.truncate(run.log, 10**9)


def _read_category_run(folder: Path) -> None:
    run = CategoryRun.open(folder)
    run.load()


def _check(folder: Path) -> None:
    """What the data doctor cannot read is a finding, not an error."""
    report = check_data(folder)
    if report.views is None:
        raise ValueError(report.findings[0].text)


_plain = _read_set(hold_out=0, normalise=False)


def _set(name: str, write: inputs.Writer, read: Callable[[Path], object] = _plain) -> Parser:
    return Parser(name, write, read, is_set=True, cost=3)


def _picture(name: str, write: inputs.Writer) -> Parser:
    return Parser(name, write, _read_pictures)


RENDERED = RenderSettings(views=24, size=64, samples=4, seed=0, fov=40.0, distance=3.0)


def _depth_png(path: Path) -> None:
    Image.fromarray(np.arange(20, dtype=np.uint16).reshape(4, 5)).save(path)


PARSERS = [
    Parser("npz", inputs.arrays, lambda f: read_arrays(f / "a.npz")),
    Parser("npy", lambda f: np.save(f / "a.npy", np.eye(5)), lambda f: read_arrays(f / "a.npy")),
    Parser("ply ascii", inputs.ply("ascii"), lambda f: read_mesh(f / "a.ply")),
    Parser("ply little", inputs.ply("binary_little_endian"), lambda f: read_mesh(f / "a.ply")),
    Parser("ply big", inputs.ply("binary_big_endian"), lambda f: read_mesh(f / "a.ply")),
    Parser("obj", inputs.obj, lambda f: read_mesh(f / "a.obj")),
    Parser("off", inputs.off, lambda f: read_mesh(f / "a.off")),
    Parser("decoder npz", inputs.decoder("npz"), lambda f: decoderfile.read(f / "a.npz")),
    Parser("decoder safetensors", inputs.decoder("safetensors"), lambda f: decoderfile.read(f / "a.safetensors")),
    Parser("decoder pth", inputs.decoder("pth"), lambda f: decoderfile.read(f / "a.pth")),
    Parser("decoder and codes", inputs.decoder_normalised, lambda f: decoderfile.read(f / "a.pth", f / "codes.pth")),
    Parser("scene", inputs.scene, lambda f: scene.read(f / "a.toml")),
    Parser("checkpoint", inputs.saved_fit, lambda f: checkpoint.load(f / "checkpoint.safetensors")),
    Parser("run", inputs.run, _read_run),
    Parser("category run", inputs.category_run, _read_category_run),
    Parser("record of a category", inputs.render_record, lambda f: _record_settings(RENDERED, f)),
    Parser("category", inputs.category, category.read, is_set=True, cost=4),
    Parser("depth npy", lambda f: np.save(f / "d.npy", np.ones((4, 5))), lambda f: read_depth_map(f / "d.npy")),
    Parser("depth npz", lambda f: np.savez(f / "d.npz", depth=np.eye(4)), lambda f: read_depth_map(f / "d.npz")),
    Parser("depth png", lambda f: _depth_png(f / "d.png"), lambda f: read_depth_map(f / "d.png")),
    Parser("mask", inputs.mask, lambda f: read_mask(f / "a.png", (10, 8))),
    Parser("mask of labels", inputs.mask_palette, lambda f: read_mask(f / "a.png", (10, 8))),
    Parser("input picture", inputs.picture_of("RGBA", "png"), lambda f: read_input_picture(f / "a.png")),
    _picture("png", inputs.picture("png")),
    _picture("png 16 bit", inputs.png_deep),
    _picture("png grey 16 bit", inputs.picture_of("I;16", "png")),
    _picture("png palette", inputs.picture_of("P", "png", transparency=3)),
    _picture("jpg", inputs.picture("jpg")),
    _picture("jpg turned", inputs.picture_turned),
    _picture("tif", inputs.picture("tif")),
    _picture("tif packed", inputs.picture_of("RGB", "tif", compression="tiff_lzw")),
    _picture("tif 16 bit", inputs.picture_of("I;16", "tif", compression="tiff_adobe_deflate")),
    _picture("tif floats", inputs.picture_of("F", "tif")),
    _picture("webp", inputs.picture("webp")),
    _picture("webp lossless", inputs.picture_of("RGBA", "webp", lossless=True)),
    _picture("bmp", inputs.picture("bmp")),
    _picture("gif", inputs.picture_of("P", "gif")),
    _picture("ppm", inputs.picture("ppm")),
    _picture("ppm 16 bit", inputs.ppm_deep),
    _set("idr", inputs.idr),
    _set("idr variant", inputs.idr_variant),
    _set("dvr", inputs.dvr_set),
    _set("dvr variant", inputs.dvr_variant),
    _set("nerfstudio", inputs.nerfstudio, _read_set()),
    _set("nerfstudio full", inputs.nerfstudio_full),
    _set("blender", inputs.nerfstudio_blender),
    _set("sdfstudio", inputs.sdfstudio),
    _set("middlebury", inputs.middlebury),
    _set("projection matrices", oxford),
    _set("PMVS", inputs.pmvs),
    _set("RealityCapture", inputs.realitycapture_masked),
    _set("Polycam raw", inputs.polycam_raw),
    _set("Record3D new", inputs.record3d_new),
    *(_set(name, layout[0]) for name, layout in LAYOUTS.items()),
    *(_set(f"COLMAP 3 {kind}", inputs.colmap(model)) for kind, model in inputs.MODELS.items()),
    *(_set(f"COLMAP 4 {kind}", inputs.colmap_frames(model)) for kind, model in inputs.MODELS.items()),
    _set("COLMAP lenses", inputs.colmap_lenses),
    Parser("check-data", inputs.idr, _check, is_set=True, cost=20),
    _set("textured obj", inputs.textured, _read_objects),
    _set("glb", inputs.solid("glb"), _read_objects),
    _set("glb textured", inputs.glb_textured, _read_objects),
    _set("stl", inputs.solid("stl"), _read_objects),
    _set("stl ascii", inputs.solid("stl_ascii"), _read_objects),
    _set("ply of a category", inputs.solid("ply"), _read_objects),
    _set("off of a category", inputs.off, _read_objects),
    Parser("zip of meshes", inputs.zipped, _read_zip),
]
"""All parsers; a new format is one more line."""

if find_spec("OpenEXR"):
    PARSERS.append(_picture("exr", inputs.exr))
if find_spec("pillow_heif"):
    PARSERS.append(_picture("heic", inputs.heic))


def _ring(*_: object) -> None:
    raise Hang(f"took more than {SECONDS} s, or waited for {WAIT}")


def _set_alarms(seconds: float, wait: float) -> None:
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, wait)


@contextmanager
def limits() -> Iterator[None]:
    """Let the memory of the process grow by `GROWTH` at most, and end after `SECONDS` with `Hang`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + GROWTH, hard))
    before = {number: signal.signal(number, _ring) for number in (signal.SIGPROF, signal.SIGALRM)}
    _set_alarms(SECONDS, WAIT)
    try:
        yield
    finally:
        _set_alarms(0, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def check(parser: Parser, first: int, last: int, folder: Path) -> dict[str, Any]:
    """Check a range of inputs in a process that is lost if one of them takes too long or ends it.

    Args:
        parser: the parser.
        first, last: numbers of the inputs, without the last one.
        folder: scratch space; the number of the input that was begun last is kept beside it, in `FOLDER.at`.

    Returns:
        How many were read and refused, the faults (number, file, what was wrong), and an example of each sentence.
    """
    found: dict[str, Any] = {"read": 0, "refused": 0, "faults": [], "sentences": {}}
    at = os.open(folder.with_suffix(".at"), os.O_CREAT | os.O_WRONLY)
    torch.set_num_threads(1)
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)  # ends the process even in the middle of a library
    ready = False
    for i, what in cases(parser, folder, first, last):
        if not ready:
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + GROWTH, resource.RLIM_INFINITY))
            ready = True
        os.pwrite(at, i.to_bytes(8, "little"), 0)
        _set_alarms(SECONDS, WAIT)
        kind, message = judge(parser, folder)
        _set_alarms(0, 0)
        if kind == "fault":
            found["faults"].append([i, what, message[:300]])
        else:
            found[kind] += 1
        if kind == "refused":
            message = message.replace(str(folder), "FOLDER")
            found["sentences"].setdefault(
                re.sub(r"'[^']*'|[-+\d.]+|\(.*\)", "#", message)[:120], f"{i} {message[:300]}"
            )
    os.close(at)
    return found


if __name__ == "__main__":
    name, start, stop, place = sys.argv[1:]
    print(json.dumps(check(next(p for p in PARSERS if p.name == name), int(start), int(stop), Path(place)), indent=1))

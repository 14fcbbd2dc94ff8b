"""Damaged files for every parser: what is read or refused in a sentence passes, anything else is a fault.

A parser joins with one line in `PARSERS`: its name, a function that writes a sound input into an empty folder, and one
that reads that folder. `cases` then spoils one of the files at a time: bits, bytes, numbers, words, lines and chunks,
in archives and pictures below their checksums as well; or puts a pipe, a folder or a link in a circle in its place.

`python tests/fuzz.py NAME FIRST LAST FOLDER` checks a range of inputs and prints one line of JSON; benchmarks/fuzz.py
runs it over many, with an alarm and a limit of memory.
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
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from test_datasets_colmap import NAMES, binary_model, save_pictures, text_model
from test_datasets_more_formats import LAYOUTS

import warpdvr
from warpdvr.cameras.camera import OPENGL, Camera
from warpdvr.datasets import dvr
from warpdvr.datasets.depthfile import read_depth_map
from warpdvr.datasets.images import read_picture
from warpdvr.datasets.load import load
from warpdvr.fields import decoderfile
from warpdvr.fields.registry import make
from warpdvr.fitting import checkpoint
from warpdvr.geometry.mesh import read_mesh
from warpdvr.geometry.textured import find_meshes, open_folder, read_textured
from warpdvr.runs import scene
from warpdvr.runtime.npz import npz_bytes, read_arrays

SECONDS, GROWTH = 10, 2**31
"""What one input may take: seconds, and bytes of memory."""

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

VERTICES: list[list[float]] = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
FACES = [[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]]


class Hang(BaseException):
    """An input took more than `SECONDS`; no parser catches it."""


@dataclass(frozen=True)
class Parser:
    """A reader and a sound input for it."""

    name: str
    write: Callable[[Path], object]
    """Writes the input into an empty folder."""
    read: Callable[[Path], object]
    """Reads that folder."""
    names: tuple[str, ...] = ()
    """Files inside of an archive, which a sentence may name."""
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


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is None:
        return
    if event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "os.fork"):
        opened.append(f"{event} {arguments[:1]}")
    if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if not path.startswith((f"{_watched}{os.sep}", *_known, "/proc/meminfo", "/dev/null")) and path != str(
            _watched
        ):
            opened.append(path)


sys.addaudithook(_listen)


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
        elif str(folder) not in message and not any(
            name in message for name in (*parser.names, *(f.name for f in folder.rglob("*")))
        ):
            kind, message = "fault", f"names no file: {message}"
    except Hang:
        raise
    except BaseException as error:
        kind, message = "fault", f"{type(error).__name__}: {error}"
    return ("fault", f"opened {opened[0]}") if opened else (kind, message)


def _cameras() -> list[Camera]:
    eyes = ([3.0, 0, 0], [0.0, 3, 0.5], [-2.0, -2, 0])
    return [Camera.look_at(eye, width=10, height=8, fov=50) for eye in eyes]


def _pictures(folder: Path, *, alpha: bool = False, name: str = "{:03d}.png") -> None:
    folder.mkdir(exist_ok=True)
    v, u = np.mgrid[:8, :10]
    disc = ((u - 4.5) ** 2 + (v - 3.5) ** 2 < 9).astype(np.uint8) * 255
    for i in range(3):
        picture = np.stack([disc, disc // 2, 255 - disc, disc], -1)
        Image.fromarray(picture if alpha else picture[..., :3]).save(folder / name.format(i))


def _discs(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    v, u = np.mgrid[:8, :10]
    disc = ((u - 4.5) ** 2 + (v - 3.5) ** 2 < 9).astype(np.uint8) * 255
    for i in range(3):
        Image.fromarray(disc).save(folder / f"{i:03d}.png")


def _write_idr(folder: Path) -> None:
    _pictures(folder / "image")
    _discs(folder / "mask")
    arrays = dict[str, np.ndarray]()
    for i, camera in enumerate(_cameras()):
        arrays |= {f"world_mat_{i}": np.vstack([camera.matrix().numpy(), [0, 0, 0, 1]]), f"scale_mat_{i}": np.eye(4)}
    (folder / "cameras.npz").write_bytes(npz_bytes(arrays))
    np.savez(folder / "points.npz", points=np.zeros((5, 3)), visible=np.ones((3, 5), bool))


def _write_dvr(folder: Path) -> None:
    source = folder.parent / f"{folder.name}.source"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir()
    _write_idr(source)
    dvr.write(folder, load(source))
    cloud = {"points": np.zeros((5, 3)), "is_in_visual_hull": np.ones(5, bool)}
    cloud |= {f"visibility_{i:04d}": np.arange(5) for i in range(3)}
    (folder / "pcl.npz").write_bytes(npz_bytes(cloud))
    shutil.rmtree(source)


def _write_nerfstudio(folder: Path) -> None:
    _pictures(folder / "images", alpha=True)
    frames = [
        {"file_path": f"images/{i:03d}.png", "transform_matrix": (camera.pose @ OPENGL).tolist()}
        for i, camera in enumerate(_cameras())
    ]
    K = _cameras()[0].K.tolist()
    table = {"camera_model": "OPENCV", "fl_x": K[0][0], "fl_y": K[1][1], "cx": K[0][2], "cy": K[1][2], "w": 10, "h": 8}
    (folder / "transforms.json").write_text(json.dumps({**table, "k1": 0.0, "frames": frames}, indent=1))


def _write_middlebury(folder: Path) -> None:
    _pictures(folder, name="dino{:03d}.png")
    lines = ["3"]
    for i, camera in enumerate(_cameras()):
        K, R, t = camera.krt()
        numbers = [*K.flatten().tolist(), *R.flatten().tolist(), *t.tolist()]
        lines.append(" ".join([f"dino{i:03d}.png", *map(repr, numbers)]))
    (folder / "dino_par.txt").write_text("\n".join(lines) + "\n")


def _write_arrays(folder: Path) -> None:
    np.savez_compressed(folder / "a.npz", a=np.eye(4), b=np.arange(12).reshape(3, 4).T, c=np.array(["x", "yz"]))


def _write_ply(kind: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        n, m = len(VERTICES), len(FACES) + 1
        head = f"ply\nformat {kind} 1.0\ncomment x\nelement vertex {n}\n"
        head += "property float x\nproperty float y\nproperty float z\n"
        head += f"property uchar red\nproperty uchar green\nproperty uchar blue\nelement face {m}\n"
        head += "property list uchar int vertex_indices\nend_header\n"
        polygons = [*FACES, [0, 1, 2, 3]]
        if kind == "ascii":
            rows = [f"{x} {y} {z} 255 0 7" for x, y, z in VERTICES] + [
                f"{len(p)} {' '.join(map(str, p))}" for p in polygons
            ]
            body = "\n".join(rows).encode()
        else:
            order = "<" if "little" in kind else ">"
            body = b"".join(struct.pack(f"{order}3f3B", *v, 255, 0, 7) for v in VERTICES)
            body += b"".join(struct.pack(f"{order}B{len(p)}i", len(p), *p) for p in polygons)
        (folder / "a.ply").write_bytes(head.encode() + body)

    return write


def _write_obj(folder: Path) -> None:
    text = "".join(f"v {x} {y} {z}\n" for x, y, z in VERTICES) + "vn 0 0 1\nvn 0 1 0\nvt 0 0\n"
    text += "f 1/1/1 3/1/1 2/1/1\nf -4//1 -3//2 -1//1\nf 1 2 3 4\n"
    (folder / "a.obj").write_text(text)


def _write_off(folder: Path) -> None:
    rows = [" ".join(map(str, v)) for v in VERTICES] + [f"3 {' '.join(map(str, f))}" for f in FACES]
    (folder / "a.off").write_text("OFF\n4 4 0\n" + "\n".join(rows) + "\n")


def _write_textured(folder: Path) -> None:
    Image.new("RGB", (4, 4), (200, 10, 10)).save(folder / "t.png")
    (folder / "m.mtl").write_text("newmtl a\nKd 1 1 1\nmap_Kd t.png\n")
    text = "mtllib m.mtl\nusemtl a\n" + "".join(f"v {x} {y} {z}\nvt {x} {y}\n" for x, y, z in VERTICES)
    (folder / "model.obj").write_text(
        text + "".join(f"f {a}/{a} {b}/{b} {c}/{c}\n" for a, b, c in ([1, 3, 2], [1, 2, 4]))
    )


def _write_solid(suffix: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        import trimesh

        solid = trimesh.Trimesh(VERTICES, FACES, process=False)
        (folder / f"model.{suffix}").write_bytes(solid.export(file_type=suffix))

    return write


def _write_zip(folder: Path) -> None:
    inside = folder / "inside"
    inside.mkdir()
    _write_textured(inside)
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(inside.iterdir()):
            archive.write(file, f"thing/{file.name}")
    shutil.rmtree(inside)


def _layers() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    shapes = {"w0": (6, 5), "b0": (6,), "w1": (1, 6), "b1": (1,), "codes": (2, 2)}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def _write_decoder(suffix: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        from safetensors.torch import save_file

        path, layers = folder / f"a.{suffix}", _layers()
        if suffix == "npz":
            path.write_bytes(npz_bytes({name: value.numpy() for name, value in layers.items()}))
            table = {"layers": [{"weight": f"w{i}", "bias": f"b{i}"} for i in range(2)]}
            (folder / "architecture.json").write_text(json.dumps(table))
        elif suffix == "safetensors":
            save_file(layers, path)
        else:
            names = {f"module.lin{name[1]}.{'weight' if name[0] == 'w' else 'bias'}": name for name in list(layers)[:4]}
            torch.save({"epoch": 3, "model_state_dict": {k: layers[v] for k, v in names.items()}}, path)

    return write


def _write_scene(folder: Path) -> None:
    (folder / "a.toml").write_text(
        '[views]\nfolder = "photographs"\nhold_out = 8\ndepth_scale = 1.0\n\n[field]\nkind = "translate"\noffset = '
        '[0.1, 0, 0]\npart = {kind = "hashgrid", levels = 8, size = 32768, bounds = 1.1}\n\n[fit]\nrecipe = "dvr"\n'
        "minutes = 2.5\nseed = 3\n\n[mesh]\nresolution = 96\ncolors = true\n"
    )


def _write_checkpoint(folder: Path) -> None:
    field = make("sphere", radius=0.5)
    views = tuple(_cameras())
    checkpoint.Checkpoint(
        kind="sphere",
        options={"radius": 0.5},
        weights=field.state_dict(),
        transform=warpdvr.SceneTransform.identity(),
        up=(0.0, 0.0, 1.0),
        cameras=views,
        fit={"iteration": torch.tensor(3)},
    ).save(folder / "checkpoint.safetensors")


def _read_object(folder: Path) -> None:
    for file in find_meshes(folder):
        read_textured(file)


def _read_zip(folder: Path) -> None:
    with open_folder(folder / "a.zip") as opened_folder:
        for file in find_meshes(opened_folder):
            read_textured(file)


def _write_picture(suffix: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        picture = np.arange(8 * 10 * 3, dtype=np.uint8).reshape(8, 10, 3)
        Image.fromarray(picture).save(folder / f"a.{suffix}")

    return write


def _write_colmap(model: Callable[..., None]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        model(folder / "sparse/0", names=NAMES[:3])
        save_pictures(folder / "images", names=NAMES[:3])

    return write


PARSERS = [
    Parser("npz", _write_arrays, lambda f: read_arrays(f / "a.npz")),
    Parser("npy", lambda f: np.save(f / "a.npy", np.eye(5)), lambda f: read_arrays(f / "a.npy")),
    Parser("ply ascii", _write_ply("ascii"), lambda f: read_mesh(f / "a.ply")),
    Parser("ply little", _write_ply("binary_little_endian"), lambda f: read_mesh(f / "a.ply")),
    Parser("ply big", _write_ply("binary_big_endian"), lambda f: read_mesh(f / "a.ply")),
    Parser("obj", _write_obj, lambda f: read_mesh(f / "a.obj")),
    Parser("off", _write_off, lambda f: read_mesh(f / "a.off")),
    Parser("decoder npz", _write_decoder("npz"), lambda f: decoderfile.read(f / "a.npz")),
    Parser("decoder safetensors", _write_decoder("safetensors"), lambda f: decoderfile.read(f / "a.safetensors")),
    Parser("decoder pth", _write_decoder("pth"), lambda f: decoderfile.read(f / "a.pth")),
    Parser("scene", _write_scene, lambda f: scene.read(f / "a.toml")),
    Parser("checkpoint", _write_checkpoint, lambda f: checkpoint.load(f / "checkpoint.safetensors")),
    Parser("depth npy", lambda f: np.save(f / "d.npy", np.ones((4, 5))), lambda f: read_depth_map(f / "d.npy")),
    Parser(
        "depth png",
        lambda f: Image.fromarray(np.arange(20, dtype=np.uint16).reshape(4, 5)).save(f / "d.png"),
        lambda f: read_depth_map(f / "d.png"),
    ),
    Parser("png", _write_picture("png"), lambda f: read_picture(f / "a.png")),
    Parser("jpg", _write_picture("jpg"), lambda f: read_picture(f / "a.jpg")),
    Parser("tif", _write_picture("tif"), lambda f: read_picture(f / "a.tif")),
    Parser("webp", _write_picture("webp"), lambda f: read_picture(f / "a.webp")),
    Parser("idr", _write_idr, load, is_set=True),
    Parser("dvr", _write_dvr, load, is_set=True),
    Parser("nerfstudio", _write_nerfstudio, load, is_set=True),
    Parser("middlebury", _write_middlebury, load, is_set=True),
    Parser("textured obj", _write_textured, _read_object, is_set=True),
    Parser("glb", _write_solid("glb"), _read_object, is_set=True),
    Parser("stl", _write_solid("stl"), _read_object, is_set=True),
    Parser("zip of meshes", _write_zip, _read_zip, names=("model.obj",)),
]
"""All parsers; a new format is one more line."""


PARSERS += [
    Parser(name, layout[0], lambda f: load(f, hold_out=0, normalise=False), is_set=True)
    for name, layout in LAYOUTS.items()
]
PARSERS += [
    Parser("COLMAP binary", _write_colmap(binary_model), lambda f: load(f, normalise=False), is_set=True),
    Parser("COLMAP text", _write_colmap(text_model), lambda f: load(f, normalise=False), is_set=True),
]


def _ring(*_: object) -> None:
    raise Hang(f"took more than {SECONDS} s")


@contextmanager
def limits() -> Iterator[None]:
    """Let the memory of the process grow by `GROWTH` at most, and end after `SECONDS` with `Hang`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + GROWTH, hard))
    before = signal.signal(signal.SIGALRM, _ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def main(name: str, first: int, last: int, folder: Path) -> None:
    """Check a range of inputs; print how many were read and refused, and the faults, as a line of JSON."""
    parser = next(p for p in PARSERS if p.name == name)
    found: dict[str, Any] = {"read": 0, "refused": 0, "faults": []}
    at = os.open(folder.with_suffix(".at"), os.O_CREAT | os.O_WRONLY)
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process even in the middle of a library
    ready = False
    for i, what in cases(parser, folder, first, last):
        if not ready:
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + GROWTH, resource.RLIM_INFINITY))
            ready = True
        os.pwrite(at, i.to_bytes(8, "little"), 0)
        signal.alarm(SECONDS)
        kind, message = judge(parser, folder)
        signal.alarm(0)
        if kind == "fault":
            found["faults"].append([i, what, message[:300]])
        else:
            found[kind] += 1
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))

"""Files that are made to do harm: bombs, lies about sizes, objects, indices out of range, sizes that nobody means."""

import io
import json
import math
import os
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.rays import Rays
from warpdvr.fields import decoderfile
from warpdvr.fields.analytic import Sphere
from warpdvr.fields.registry import make
from warpdvr.geometry.mesh import read_mesh
from warpdvr.geometry.textured import find_meshes, open_folder, read_textured
from warpdvr.intersection.dense_march import DenseMarch
from warpdvr.intersection.grid import BoundGrid
from warpdvr.intersection.hit import Status
from warpdvr.intersection.sphere_trace import SphereTrace
from warpdvr.runs import scene
from warpdvr.runtime.npz import read_arrays


def npy(shape: object, dtype: str = "'<f8'", body: bytes = b"", *, fortran: bool = False) -> bytes:
    """Return an npy file whose header says anything."""
    head = f"{{'descr': {dtype}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + body


def npz(content: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("a.npy", content)
    return stream.getvalue()


ENCRYPTED = bytearray(npz(npy("(1,)", body=bytes(8))))
ENCRYPTED[6] |= 1
ENCRYPTED[ENCRYPTED.index(b"PK\x01\x02") + 8] |= 1

HARMFUL = {
    "announced": (npz(npy("(1099511627776,)")), "announces the shape (1099511627776,)"),
    "product": (npz(npy("(4294967296, 4294967296, 4294967296)")), "announces the shape"),
    "negative": (npz(npy("(-1,)", body=bytes(8))), "announces the shape (-1,)"),
    "short": (npz(npy("(3,)", body=bytes(23))), "24 bytes, but 23 follow"),
    "objects": (npz(npy("(1,)", "'|O'", b"cos\nsystem\n")), "found object, which is not read and never unpickled"),
    "records": (npz(npy("(1,)", "[('a', '<f8')]", bytes(8))), "expected plain numbers or text, found [('a', '<f8')]"),
    "dates": (npz(npy("(1,)", "'<M8[s]'", bytes(8))), "expected plain numbers or text"),
    "method": (npz(npy("(1,)", body=bytes(8)), zipfile.ZIP_LZMA), "a is packed by method 14"),
    "encrypted": (bytes(ENCRYPTED), "a is encrypted"),
    "pickle": (b"\x80\x04cos\nsystem\n", "holds code, which is not run"),
    "nothing": (b"", "is something else"),
    "nested": (npz(npy("(" * 5000)), "a: "),
    "an npy": (npy("(1099511627776,)"), "announces the shape"),
}


@pytest.mark.parametrize("kind", HARMFUL)
def test_archives_that_lie_are_refused_with_file_and_array(tmp_path, kind):
    content, said = HARMFUL[kind]
    path = tmp_path / "cameras.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError) as found:
        read_arrays(path)
    assert str(found.value).startswith(f"{path}: expected an npz file of plain arrays, found a file that ")
    assert said in str(found.value) and "\n" not in str(found.value)


def test_a_megabyte_does_not_become_a_gibibyte(tmp_path):
    """1 GiB of zeros packs to 1 MB; it is refused before it is unpacked."""
    path = tmp_path / "depth.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("depth.npy", "w") as member:
        member.write(npy("(134217728,)"))
        for _ in range(64):
            member.write(bytes(2**24))
    assert path.stat().st_size < 2**21
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"depth\.npz: .*unpack to 1073741\d+ bytes, more than 200 times its own"):
        read_arrays(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    assert read_arrays(path, "other") == {}  # what is not asked for is not counted


def test_arrays_come_back_as_numpy_reads_them(tmp_path):
    arrays = {
        "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "big": np.arange(5, dtype=">i4"),
        "scalar": np.array(7.0),
        "none": np.empty((0, 3)),
        "text": np.array(["x", "yz"]),
        "flags": np.array([[True, False]]),
        "half": np.ones(3, np.float16),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
        found = read_arrays(tmp_path / "a.npz")
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            assert np.array_equal(found[name], array) and found[name].dtype == array.dtype.newbyteorder("="), name
            assert found[name].flags.writeable and found[name].flags.f_contiguous >= array.flags.f_contiguous
    np.save(tmp_path / "a.npy", arrays["fortran"])
    assert np.array_equal(read_arrays(tmp_path / "a.npy")["depth"], arrays["fortran"])


VERTEX = "element vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
FACE = "element face {}\nproperty list {} int vertex_indices\nend_header\n"
POINTS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4").tobytes()


def ply(rows: object, count: str = "uchar", body: bytes = b"", kind: str = "binary_little_endian") -> bytes:
    return f"ply\nformat {kind} 1.0\n{VERTEX}{FACE.format(rows, count)}".encode() + POINTS + body


def triangle(*index: int) -> bytes:
    return struct.pack("<B3i", 3, *index)


BAD_PLY = {
    "rows": (ply(10**15, body=triangle(0, 1, 2)), "1000000000000000 rows of 'face' are announced, the file ends too"),
    "negative rows": (ply(-1), "'face' has -1 rows"),
    "digits": (ply("9" * 5000), "Exceeds the limit"),
    "long list": (ply(1, "uint", struct.pack("<I", 2**31) + bytes(12)), "the file ends too early"),
    "negative list": (ply(1, "int", struct.pack("<i", -3) + bytes(12)), "the file ends too early"),
    "second list": (ply(2, "int", struct.pack("<4ii", 3, 0, 1, 2, -1) + bytes(12)), "the file ends too early"),
    "list of reals": (ply(1, "float", bytes(16)), "a type 'float', expected one of"),
    "index": (ply(1, body=triangle(0, 1, 3)), "vertex 3 of 3"),
    "negative index": (ply(1, body=triangle(0, -1, 2)), "vertex -1 of 3"),
    "two corners": (ply(1, body=struct.pack("<B2i", 2, 0, 1)), "fewer than 3"),
    "no type": (ply(1).replace(b"float x", b"quad x"), "a type 'quad'"),
    "no format": (ply(1).replace(b"format binary", b"format other"), "names no format"),
    "no vertices": (ply(0).replace(b"element vertex", b"element points"), "it has no vertices, but points"),
    "no z": (ply(0).replace(b"float z", b"float w"), "no x, y and z"),
    "no property": (
        b"ply\nformat ascii 1.0\nelement vertex 99999999999\nend_header\n",
        "'vertex' has 99999999999 rows",
    ),
    "other lists": (ply(1, body=triangle(0, 1, 2)).replace(b"vertex_indices", b"corner_indices"), "not lists vertex_"),
    "ascii rows": (b"ply\nformat ascii 1.0\n" + VERTEX.encode() + b"end_header\n0 0 0 1 0", "ends too early"),
    "line": (ply(1).replace(b"element face", b"elements face"), "the header holds the line 'elements face 1'"),
}


@pytest.mark.parametrize("kind", BAD_PLY)
def test_plys_that_lie_are_refused(tmp_path, kind):
    content, said = BAD_PLY[kind]
    path = tmp_path / "a.ply"
    path.write_bytes(content)
    with pytest.raises(ValueError) as found:
        read_mesh(path)
    assert str(found.value).startswith(f"{path}: ") and said in str(found.value)


def test_plys_of_either_order_and_with_any_line_ends(tmp_path):
    path = tmp_path / "a.ply"
    little = ply(1, body=triangle(0, 1, 2))
    points, face = np.frombuffer(POINTS, "<f4").astype(">f4").tobytes(), struct.pack(">B3i", 3, 0, 1, 2)
    big = ply(1, kind="binary_big_endian")[: -len(POINTS)] + points + face
    head, body = little.split(b"end_header\n")
    for content in (
        little,
        big,
        head.replace(b"\n", b"\r\n") + b"end_header\r\n" + body,
        head + b"end_header \n" + body,
    ):
        path.write_bytes(content)
        mesh = read_mesh(path)
        assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]] and mesh.faces.tolist() == [[0, 1, 2]]


def test_a_far_index_of_a_normal_takes_no_memory(tmp_path):
    path = tmp_path / "a.obj"
    path.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nvn 0 0 1\nf 1//1 2//1 99999999999//1\n")
    with pytest.raises(ValueError, match=r"a\.obj: .*not there"):
        read_mesh(path)


@pytest.mark.parametrize("suffix", ["ply", "obj", "off"])
def test_a_pipe_is_not_opened(tmp_path, suffix):
    os.mkfifo(tmp_path / f"a.{suffix}")
    with pytest.raises(ValueError, match="found a pipe or a device, not a file"):
        read_mesh(tmp_path / f"a.{suffix}")


def test_a_decoder_whose_numbers_are_spread_over_a_huge_shape_is_refused(tmp_path):
    weight = torch.zeros(1).expand(2**20, 2**20)
    torch.save({"lin0.weight": weight, "lin0.bias": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth: lin0\.weight has the shape .* more numbers than the file can hold"):
        decoderfile.read(tmp_path / "a.pth")


def test_sizes_that_cannot_be_meant_are_refused(tmp_path):
    for name, options, said in (
        ("hashgrid", {"levels": 2147483648}, "more than 64 levels"),
        ("hashgrid", {"size": 2**40}, "at most 2.*30"),
        ("hashgrid", {"finest": 10**400}, "finest < 2"),
        ("sdf", {"width": 2**30}, "too large"),
        ("sdf", {"depth": 2**31}, "too large"),
        ("sdf", {"frequencies": 2**31}, "lost to rounding"),
    ):
        with pytest.raises(ValueError, match=said):
            make(name, **options)
    for line in (f"resolution = {'9' * 400}", f"resolution = {'9' * 5000}", "resolution = " + "[" * 10000):
        (tmp_path / "a.toml").write_text(f"[mesh]\n{line}\n")
        with pytest.raises(ValueError, match=r"a\.toml: "):
            scene.read(tmp_path / "a.toml")
    os.mkfifo(tmp_path / "b.toml")
    with pytest.raises(ValueError, match=r"b\.toml: expected a scene file .* found a pipe"):
        scene.read(tmp_path / "b.toml")


def test_a_glb_without_data_and_a_bomb_in_a_zip_are_refused(tmp_path):
    table = {
        "asset": {"version": "2.0"},
        "accessors": [{"componentType": 5126, "type": "VEC3", "count": 2**33}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "nodes": [{"mesh": 0}],
        "scenes": [{"nodes": [0]}],
        "scene": 0,
    }
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sIIII", b"glTF", 2, 20 + len(text), len(text), 0x4E4F534A)
    (tmp_path / "model.glb").write_bytes(head + text)
    with pytest.raises(ValueError, match=r"model\.glb .*8589934592 elements is announced"):
        read_textured(find_meshes(tmp_path)[0])
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("thing/model.obj", "w") as member:
            for _ in range(33):
                member.write(bytes(2**23))
    with open_folder(tmp_path / "a.zip") as folder, pytest.raises(ValueError, match=r"model\.obj unpacks to 276824064"):
        read_textured(find_meshes(folder)[0])


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e38])
@pytest.mark.parametrize(
    "solver",
    [SphereTrace(), DenseMarch(), DenseMarch(grid=BoundGrid(Sphere(0.5)))],
    ids=["sphere trace", "dense march", "grid"],
)
def test_rays_that_are_not_numbers_end_without_a_hit(solver, bad):
    """A camera refuses such a pose; rays that someone made himself must end all the same."""
    with pytest.raises(ValueError, match="pose"):
        pose = torch.eye(4)
        pose[0, 3] = math.nan
        Camera(torch.eye(3), pose, 4, 4)
    origin = torch.tensor([[0.0, 0, -3], [bad, 0, -3], [0, 0, -3]])
    direction = torch.tensor([[0.0, 0, 1], [0, 0, 1], [0, bad, 1]])
    status = solver(Sphere(0.5), Rays(origin, direction)).status.tolist()
    assert status[0] == Status.HIT
    assert status[1] in (Status.MISS, Status.GAVE_UP)
    assert status[2] in (Status.MISS, Status.GAVE_UP)

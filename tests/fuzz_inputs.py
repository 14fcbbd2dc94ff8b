"""Small sound inputs for every parser, to be spoilt by fuzz.py: each function writes one into an empty folder."""

import importlib
import json
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
import trimesh
from PIL import Image
from test_datasets_colmap import PARAMS, binary_model, poses, quaternion, text_model
from test_datasets_more_formats import pictures, realitycapture, rows, write

import warpdvr
from warpdvr.cameras.camera import OPENGL, Camera
from warpdvr.datasets import dvr
from warpdvr.datasets.load import load
from warpdvr.fields.registry import make
from warpdvr.fitting import checkpoint
from warpdvr.geometry.glb import glb_bytes
from warpdvr.runtime.npz import npz_bytes
from warpdvr.singleview.reconstructor import CategoryCheckpoint, Reconstructor
from warpdvr.singleview.shape_bank import SIDE, ShapeBank
from warpdvr.singleview.training import TrainingConfig

Writer = Callable[[Path], None]

NAMES = [f"img_{i:02d}.jpg" for i in range(3)]

VERTICES: list[list[float]] = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
FACES = [[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]]


def cameras() -> list[Camera]:
    """Return three cameras that look at the origin."""
    eyes = ([3.0, 0, 0], [0.0, 3, 0.5], [-2.0, -2, 0])
    return [Camera.look_at(eye, width=10, height=8, fov=50) for eye in eyes]


def disc() -> np.ndarray:
    """Return a picture of a white disc, (8, 10), uint8."""
    v, u = np.mgrid[:8, :10]
    return ((u - 4.5) ** 2 + (v - 3.5) ** 2 < 9).astype(np.uint8) * 255


def photographs(folder: Path, *, alpha: bool = False, name: str = "{:03d}.png") -> None:
    """Write three pictures of a disc."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(3):
        picture = np.stack([disc(), disc() // 2, 255 - disc(), disc()], -1)
        Image.fromarray(picture if alpha else picture[..., :3]).save(folder / name.format(i))


def discs(folder: Path, name: str = "{:03d}.png") -> None:
    """Write the masks of the photographs."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(3):
        Image.fromarray(disc()).save(folder / name.format(i))


def depths(folder: Path, suffixes: tuple[str, ...] = ("npy", "npz", "png")) -> None:
    """Write a depth map per picture, each in another form."""
    folder.mkdir(parents=True, exist_ok=True)
    depth = np.where(disc() > 0, 2.9, 0).astype(np.float32)
    for i, suffix in enumerate(suffixes):
        path = folder / f"{i:03d}.{suffix}"
        if suffix == "npy":
            np.save(path, depth)
        elif suffix == "npz":
            np.savez(path, depth=depth)
        else:
            Image.fromarray((1000 * depth).astype(np.uint16)).save(path)


def idr(folder: Path) -> None:
    photographs(folder / "image")
    discs(folder / "mask")
    write_idr_cameras(folder / "cameras.npz")
    np.savez(folder / "points.npz", points=np.zeros((5, 3)), visible=np.ones((3, 5), bool))


def write_idr_cameras(path: Path, *, scaled: bool = True, more: Mapping[str, np.ndarray] = {}) -> None:
    arrays = dict[str, np.ndarray]()
    for i, camera in enumerate(cameras()):
        arrays[f"world_mat_{i}"] = np.vstack([camera.matrix().numpy(), [0, 0, 0, 1]])
        arrays |= {f"scale_mat_{i}": np.eye(4)} if scaled else {}
        arrays |= {f"{name}_{i}": value for name, value in more.items()}
    path.write_bytes(npz_bytes(arrays))


def idr_variant(folder: Path) -> None:
    """NeuS's files: two of cameras, inverses and camera_mat in them, depth, as many of the arrays packed as not."""
    photographs(folder / "images", alpha=True)
    depths(folder / "depth")
    write_idr_cameras(folder / "cameras.npz", scaled=False)
    write_idr_cameras(
        folder / "cameras_sphere.npz", more={"world_mat_inv": np.eye(4), "camera_mat": np.diag([10, 10, 1, 1])}
    )


def dvr_set(folder: Path) -> None:
    source = folder.parent / f"{folder.name}.source"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir()
    idr(source)
    dvr.write(folder, load(source))
    cloud = {"points": np.zeros((5, 3)), "is_in_visual_hull": np.ones(5, bool)}
    cloud |= {f"visibility_{i:04d}": np.arange(5) for i in range(3)}
    (folder / "pcl.npz").write_bytes(npz_bytes(cloud))
    shutil.rmtree(source)


def dvr_variant(folder: Path) -> None:
    """A world_mat with a scale, no scale_mat, masks of some pictures by name, depth."""
    dvr_set(folder)
    (folder / "pcl.npz").unlink()
    (folder / "mask/0001.png").unlink()
    depths(folder / "depth", ("npy", "npy", "npz"))
    with np.load(folder / "cameras.npz") as stored:
        arrays = {name: stored[name] for name in stored.files if not name.startswith("scale")}
    factor = np.diag([2.0, 2, 2, 1])
    arrays |= {name: factor @ arrays[name] for name in arrays if name.startswith("world")}
    (folder / "cameras.npz").write_bytes(npz_bytes(arrays))


def frames(folder: str) -> list[dict[str, object]]:
    """Return the frames of a transforms.json."""
    return [
        {"file_path": f"{folder}/{i:03d}.png", "transform_matrix": (camera.pose @ OPENGL).tolist()}
        for i, camera in enumerate(cameras())
    ]


def lens() -> dict[str, object]:
    K = cameras()[0].K.tolist()
    return {"fl_x": K[0][0], "fl_y": K[1][1], "cx": K[0][2], "cy": K[1][2], "w": 10, "h": 8}


def nerfstudio(folder: Path) -> None:
    photographs(folder / "images", alpha=True)
    table = {"camera_model": "OPENCV", **lens(), "k1": 0.0, "frames": frames("images")}
    (folder / "transforms.json").write_text(json.dumps(table, indent=1))


def nerfstudio_blender(folder: Path) -> None:
    """Blender's files: a field of view, names without suffix, a split in two files, depth of all frames in one."""
    for part in ("train", "test"):
        photographs(folder / part, alpha=True)
        named = [{**frame, "file_path": f"./{part}/{i:03d}", "rotation": 0.1} for i, frame in enumerate(frames(part))]
        write(folder, f"transforms_{part}.json", json.dumps({"camera_angle_x": 0.87, "frames": named}))
        np.savez(folder / f"depth_{part}.npz", depth=np.where(disc() > 0, 2.9, 0)[None].repeat(3, 0))


def nerfstudio_full(folder: Path) -> None:
    """Nerfstudio's own files: a lens per frame, masks, depth, points, a split by name, a frame that was moved."""
    photographs(folder / "images")
    discs(folder / "masks")
    depths(folder / "depths")
    suffixes = ("npy", "npz", "png")
    table = {
        "camera_model": "OPENCV_FISHEYE",
        "applied_transform": [[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]],
        "applied_scale": 1.0,
        "ply_file_path": "sparse_pc.ply",
        "train_filenames": ["images/000.png", "images/001.png"],
        "val_filenames": ["images/002.png"],
        "frames": [
            {
                **frame,
                **lens(),
                "k1": 0.01,
                "k4": 0.0,
                "mask_path": f"masks/{i:03d}.png",
                "depth_file_path": f"depths/{i:03d}.{suffixes[i]}",
            }
            for i, frame in enumerate(frames("images"))
        ],
    }
    write(folder, "transforms.json", json.dumps(table))
    ply("ascii")(folder)
    (folder / "a.ply").rename(folder / "sparse_pc.ply")


def sdfstudio(folder: Path) -> None:
    photographs(folder, name="{:06d}_rgb.png")
    discs(folder, name="{:06d}_foreground_mask.png")
    table: dict[str, object] = {
        "camera_model": "OPENCV",
        "height": 8,
        "width": 10,
        "has_mono_prior": False,
        "has_sensor_depth": True,
        "has_foreground_mask": True,
        "worldtogt": [[2.0, 0, 0, 0.1], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]],
        "scene_box": {"aabb": [[-1, -1, -1], [1, 1, 1]], "near": 0.5, "far": 4.5, "radius": 1.0},
    }
    views = []
    for i, camera in enumerate(cameras()):
        K = np.eye(4)
        K[:3, :3] = camera.K.numpy()
        np.save(folder / f"{i:06d}_sensor_depth.npy", np.where(disc() > 0, 2.9, 0).astype(np.float32))
        names = {
            "rgb_path": "rgb.png",
            "foreground_mask": "foreground_mask.png",
            "sensor_depth_path": "sensor_depth.npy",
        }
        own = {key: f"{i:06d}_{name}" for key, name in names.items()}
        views.append({**own, "camtoworld": camera.pose.tolist(), "intrinsics": K.tolist()})
    write(folder, "meta_data.json", json.dumps({**table, "frames": views}))


def middlebury(folder: Path) -> None:
    photographs(folder, name="dino{:03d}.png")
    lines = ["3"]
    for i, camera in enumerate(cameras()):
        K, R, t = camera.krt()
        numbers = [*K.flatten().tolist(), *R.flatten().tolist(), *t.tolist()]
        lines.append(" ".join([f"dino{i:03d}.png", *map(repr, numbers)]))
    (folder / "dino_par.txt").write_text("\n".join(lines) + "\n")
    (folder / "dino_good_silhouette_images.txt").write_text("dino000.png\ndino001.png\ndino002.png\n")


def pmvs(folder: Path) -> None:
    for i, camera in enumerate(cameras()):
        write(folder, f"txt/{i:08d}.txt", f"CONTOUR\n{rows(camera.matrix().numpy())}")
        pictures(folder, f"visualize/{i:08d}.jpg", size=(10, 8))


def realitycapture_masked(folder: Path) -> None:
    realitycapture(folder)
    for name in ("a", "b"):
        mask = np.zeros((6, 8), np.uint8)
        mask[2:4, 3:6] = 255
        (folder / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(folder / f"masks/{name}.png")


def polycam_raw(folder: Path) -> None:
    """An upload with poses that were not corrected."""
    for i, camera in enumerate(cameras()):
        pose = (camera.pose @ OPENGL).tolist()
        table = {f"t_{j}{k}": pose[j][k] for j in range(3) for k in range(4)}
        K = camera.K.tolist()
        numbers = {"fx": K[0][0], "fy": K[1][1], "cx": K[0][2], "cy": K[1][2], "width": 10, "height": 8}
        write(folder, f"keyframes/cameras/{i}.json", json.dumps({**table, **numbers}))
        pictures(folder, f"keyframes/images/{i}.jpg", size=(10, 8))


def record3d_new(folder: Path) -> None:
    poses = [[1, 0, 0, 0, 0, 0, -4], [0.7071067811865476, 0, -0.7071067811865476, 0, -4, 0, 0]]
    table = {"w": 8, "h": 6, "K": [10, 0, 0, 0, 11, 0, 4.5, 3.25, 1], "poses": poses}
    write(folder, "metadata.json", json.dumps({**table, "perFrameIntrinsicCoeffs": [[10, 11, 4.5, 3.25]] * 2}))
    pictures(folder, "rgb/0.jpg", "rgb/1.jpg", size=(8, 6))


def _small_pictures(folder: Path) -> None:
    for i, name in enumerate(NAMES):
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 255, (6, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name)


def colmap(model: Callable[..., None], lens: str = "SIMPLE_RADIAL") -> Writer:
    """Models of COLMAP 3, with pictures of a quarter of the size that the cameras are for."""

    def write_model(folder: Path) -> None:
        model(folder / "sparse/0", lens, names=NAMES)
        _small_pictures(folder / "images")

    return write_model


def colmap_frames(model: Callable[..., None]) -> Writer:
    """Models of COLMAP 4, whose frames hold the poses as well, with masks, and a second model."""

    def write_model(folder: Path) -> None:
        colmap(model, "PINHOLE")(folder)
        home = folder / "sparse/0"
        records, lines = struct.pack("<Q", len(NAMES)), []
        for i, (R, t) in enumerate(poses()[: len(NAMES)]):
            pose = [*map(float, (*quaternion(R), *t))]
            records += struct.pack("<II7dIiIQ", i + 1, 7, *pose, 1, 0, 7, 10 + i)
            lines.append(" ".join([str(i + 1), "7", *map(repr, pose), "1", "CAMERA", "7", str(10 + i)]))
        if (home / "images.bin").is_file():
            (home / "frames.bin").write_bytes(records)
            (home / "rigs.bin").write_bytes(struct.pack("<QIIiI", 1, 7, 1, 0, 7))
        else:
            (home / "frames.txt").write_text("# Frame list\n" + "\n".join(lines) + "\n")
            (home / "rigs.txt").write_text("# Rig list\n7 1 CAMERA 7\n")
        model(folder / "sparse/1", "PINHOLE", names=NAMES[:2])
        mask = np.zeros((6, 8), np.uint8)
        mask[1:5, 2:6] = 255
        (folder / "masks").mkdir()
        for name in NAMES:
            Image.fromarray(mask).save(folder / f"masks/{name}.png")

    return write_model


def colmap_lenses(folder: Path) -> None:
    """A text model in which every picture has a camera of its own, each of another kind."""
    colmap(text_model)(folder)
    chosen = ("FULL_OPENCV", "FOV", "THIN_PRISM_FISHEYE")
    lines = [" ".join([str(i), model, "32", "24", *map(repr, PARAMS[model])]) for i, model in enumerate(chosen)]
    (folder / "sparse/0/cameras.txt").write_text("\n".join(lines) + "\n")
    path = folder / "sparse/0/images.txt"
    text = path.read_text()
    for i, name in enumerate(NAMES):
        text = text.replace(f" 7 {name}", f" {i} {name}")
    path.write_text(text)


def arrays(folder: Path) -> None:
    np.savez_compressed(folder / "a.npz", a=np.eye(4), b=np.arange(12).reshape(3, 4).T, c=np.array(["x", "yz"]))


def ply(kind: str) -> Writer:
    def write_ply(folder: Path) -> None:
        n, m = len(VERTICES), len(FACES) + 1
        head = f"ply\nformat {kind} 1.0\ncomment x\nelement vertex {n}\n"
        head += "property float x\nproperty float y\nproperty float z\n"
        head += f"property uchar red\nproperty uchar green\nproperty uchar blue\nelement face {m}\n"
        head += "property list uchar int vertex_indices\nend_header\n"
        polygons = [*FACES, [0, 1, 2, 3]]
        if kind == "ascii":
            lines = [f"{x} {y} {z} 255 0 7" for x, y, z in VERTICES] + [
                f"{len(p)} {' '.join(map(str, p))}" for p in polygons
            ]
            body = "\n".join(lines).encode()
        else:
            order = "<" if "little" in kind else ">"
            body = b"".join(struct.pack(f"{order}3f3B", *v, 255, 0, 7) for v in VERTICES)
            body += b"".join(struct.pack(f"{order}B{len(p)}i", len(p), *p) for p in polygons)
        (folder / "a.ply").write_bytes(head.encode() + body)

    return write_ply


def obj(folder: Path) -> None:
    text = "".join(f"v {x} {y} {z}\n" for x, y, z in VERTICES) + "vn 0 0 1\nvn 0 1 0\nvt 0 0\n"
    text += "f 1/1/1 3/1/1 2/1/1\nf -4//1 -3//2 -1//1\nf 1 2 3 4\n"
    (folder / "a.obj").write_text(text)


def off(folder: Path) -> None:
    lines = [" ".join(map(str, v)) for v in VERTICES] + [f"3 {' '.join(map(str, f))}" for f in FACES]
    (folder / "a.off").write_text("OFF\n4 4 0\n" + "\n".join(lines) + "\n")


def textured(folder: Path) -> None:
    Image.new("RGB", (4, 4), (200, 10, 10)).save(folder / "t.png")
    (folder / "m.mtl").write_text("newmtl a\nKd 1 1 1\nmap_Kd t.png\n")
    text = "mtllib m.mtl\nusemtl a\n" + "".join(f"v {x} {y} {z}\nvt {x} {y}\n" for x, y, z in VERTICES)
    (folder / "model.obj").write_text(
        text + "".join(f"f {a}/{a} {b}/{b} {c}/{c}\n" for a, b, c in ([1, 3, 2], [1, 2, 4]))
    )


def solid(kind: str) -> Writer:
    """A mesh as trimesh writes it."""

    def write_solid(folder: Path) -> None:
        exported = trimesh.Trimesh(VERTICES, FACES, process=False).export(file_type=kind)
        content = exported.encode() if isinstance(exported, str) else exported
        (folder / f"model.{kind.removesuffix('_ascii')}").write_bytes(content)

    return write_solid


def glb_textured(folder: Path) -> None:
    """Two objects, one with a texture inside of the file, the other one far from the origin, with colours."""
    picture = Image.new("RGB", (4, 4), (200, 10, 10))
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=picture)
    visual = trimesh.visual.TextureVisuals(uv=np.array(VERTICES)[:, :2], material=material)
    mesh = trimesh.Trimesh(VERTICES, FACES, visual=visual, process=False)
    (folder / "model.glb").write_bytes(trimesh.Scene([mesh]).export(file_type="glb"))
    x = torch.tensor(VERTICES, dtype=torch.float64) + 1e5
    (folder / "own.glb").write_bytes(glb_bytes(x, torch.tensor(FACES), None, torch.rand(4, 3)))


def zipped(folder: Path) -> None:
    inside = folder / "inside"
    inside.mkdir()
    textured(inside)
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(inside.iterdir()):
            archive.write(file, f"thing/{file.name}")
    shutil.rmtree(inside)


def _layers() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    shapes = {"w0": (6, 5), "b0": (6,), "w1": (1, 6), "b1": (1,), "codes": (2, 2)}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def decoder(suffix: str) -> Writer:
    def write_decoder(folder: Path) -> None:
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

    return write_decoder


def decoder_normalised(folder: Path) -> None:
    """DeepSDF's own pair of files: normalised weights, as directions and lengths, and codes beside them."""
    layers = _layers()
    state = dict[str, torch.Tensor]()
    for i in range(2):
        w = layers[f"w{i}"]
        state |= {f"module.lin{i}.weight_v": w, f"module.lin{i}.weight_g": w.norm(dim=1, keepdim=True)}
        state[f"module.lin{i}.bias"] = layers[f"b{i}"]
    torch.save({"epoch": 3, "model_state_dict": state}, folder / "a.pth")
    torch.save({"epoch": 3, "latent_codes": {"weight": layers["codes"]}}, folder / "codes.pth")


def scene(folder: Path) -> None:
    (folder / "a.toml").write_text(
        '[views]\nfolder = "photographs"\nhold_out = 8\ndepth_scale = 1.0\n\n[field]\nkind = "translate"\noffset = '
        '[0.1, 0, 0]\npart = {kind = "hashgrid", levels = 8, size = 32768, bounds = 1.1}\n\n[fit]\nrecipe = "dvr"\n'
        "minutes = 2.5\nseed = 3\n\n[mesh]\nresolution = 96\ncolors = true\n"
    )


def saved_fit(folder: Path) -> None:
    field = make("voxel-sdf", resolution=3)
    checkpoint.Checkpoint(
        kind="voxel-sdf",
        options={"resolution": 3},
        weights=field.state_dict(),
        transform=warpdvr.SceneTransform.identity(),
        up=(0.0, 0.0, 1.0),
        cameras=tuple(cameras()),
        fit={"iteration": torch.tensor(3)},
    ).save(folder / "checkpoint.safetensors")


def run(folder: Path) -> None:
    """The folder of a fit."""
    saved_fit(folder)
    shutil.copy(folder / "checkpoint.safetensors", folder / "checkpoint.previous.safetensors")
    write(folder, "config.toml", '[views]\nmesh = "warp:bunny"\n\n[field]\nkind = "voxel-sdf"\nresolution = 3\n')
    lines = [{"iteration": i, "progress": i / 10, "seconds": 0.1 * i, "color": 0.5} for i in range(10)]
    write(folder, "log.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines))


def category(folder: Path) -> None:
    for name in ("a", "b", "c"):
        (folder / name).mkdir()
        idr(folder / name)
        (folder / name / "points.npz").unlink()


def category_run(folder: Path) -> None:
    """The folder of a reconstructor."""
    torch.manual_seed(0)
    model = Reconstructor(code=2, encoder=2, width=4, blocks=1, frequencies=1)
    outlines = torch.full((2, SIDE, SIDE), 255, dtype=torch.uint8)
    bank = ShapeBank(
        torch.randn(2, 2), torch.arange(2), outlines, torch.eye(4).repeat(2, 1, 1), torch.eye(3).repeat(2, 1, 1)
    )
    saved = CategoryCheckpoint(model, "photographs", ("b",), bank, {"iteration": torch.tensor(3)})
    saved.save(folder / "checkpoint.safetensors")
    config = "\n".join(f"{key} = {json.dumps(value)}" for key, value in vars(TrainingConfig()).items())
    write(folder, "category.toml", f'category = "photographs"\nminutes = 2.0\nsymmetric = ""\n\n[training]\n{config}\n')


def picture(suffix: str) -> Writer:
    def write_picture(folder: Path) -> None:
        pixels = np.arange(8 * 10 * 3, dtype=np.uint8).reshape(8, 10, 3)
        Image.fromarray(pixels).save(folder / f"a.{suffix}")

    return write_picture


def picture_of(mode: str, suffix: str, **options: object) -> Writer:
    """A picture of one of Pillow's modes."""

    def write_picture(folder: Path) -> None:
        grey = Image.fromarray(np.arange(80, dtype=np.uint8).reshape(8, 10))
        if mode == "F":
            image = Image.fromarray(np.linspace(0, 1, 80, dtype=np.float32).reshape(8, 10))
        elif mode == "I;16":
            image = Image.fromarray(np.arange(0, 8000, 100, dtype=np.uint16).reshape(8, 10))
        else:
            image = grey.convert(mode)
        image.save(folder / f"a.{suffix}", **options)  # type: ignore[arg-type]

    return write_picture


def picture_turned(folder: Path) -> None:
    """A photograph that EXIF data turn by a quarter."""
    exif = Image.Exif()
    exif[274] = 6
    exif[271] = "maker"
    picture_of("RGB", "jpg", exif=exif.tobytes())(folder)


def png_deep(folder: Path) -> None:
    """Three channels of 16 bits, which Pillow cannot write (W3C, PNG, section 11)."""
    pixels = np.arange(0, 60000, 250, dtype=">u2").reshape(8, 10, 3)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 10, 8, 16, 2, 0, 0, 0)), (b"IDAT", packed), (b"IEND", b""))
    content = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(content))


def ppm_deep(folder: Path) -> None:
    """Three channels of 16 bits (netpbm, ppm(5))."""
    (folder / "a.ppm").write_bytes(b"P6\n10 8\n65535\n" + np.arange(240, dtype=">u2").tobytes())


def exr(folder: Path) -> None:
    library = importlib.import_module("OpenEXR")  # of no package that is needed
    pixels = {name: np.linspace(0, 1, 80, dtype=np.float32).reshape(8, 10) for name in "RGBA"}
    header = {"compression": library.ZIP_COMPRESSION, "type": library.scanlineimage}
    library.File(header, pixels).write(str(folder / "a.exr"))


def heic(folder: Path) -> None:
    library = importlib.import_module("pillow_heif")
    pixels = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
    library.from_bytes("RGB", (64, 64), pixels.tobytes()).save(str(folder / "a.heic"))


def mask(folder: Path) -> None:
    Image.fromarray(disc()).save(folder / "a.png")


def mask_palette(folder: Path) -> None:
    Image.fromarray(disc() // 255).convert("P").save(folder / "a.png")


def render_record(folder: Path) -> None:
    """The record of how a category was photographed."""
    numbers = {"views": 24, "size": 64, "samples": 4, "seed": 0, "fov": 40.0, "distance": 3.0}
    write(folder, "render.json", json.dumps(numbers) + "\n")


MODELS = {"binary": binary_model, "text": text_model}
"""The writers of COLMAP's files."""

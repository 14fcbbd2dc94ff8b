"""Rendered categories: a textured square and a cube against closed forms, an aircraft against Embree."""

import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from numpy.typing import NDArray
from PIL import Image

from warpdvr.datasets import dvr
from warpdvr.geometry.textured import MeshFile, find_meshes, open_folder, read_textured
from warpdvr.singleview.render_category import photograph

Array = NDArray[np.float64]

SQUARE = """mtllib model.mtl
v 2 3 7\nv 6 3 7\nv 6 7 7\nv 2 7 7\nv 1000 0 0
vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1
usemtl paint
f 1/1 2/2 3/3 4/4
"""
"""A square across z, x to the right and y up; in the scene it spans +-0.9 / sqrt(2). The last vertex is not used."""

PAINT = "newmtl paint\nKd 0.2 0.4 0.6\nmap_Kd tex.png\n"

HALF = 0.9 / 2**0.5

QUADRANTS = {(-1, 1): (200, 30, 40), (1, 1): (20, 180, 60), (-1, -1): (50, 60, 220), (1, -1): (240, 240, 120)}
"""sRGB of the square's quarters by the signs of x and y, as the texture has them from the top left on."""


def texture() -> Image.Image:
    quarters = np.array([[QUADRANTS[x, y] for x in (-1, 1)] for y in (1, -1)], np.uint8)
    return Image.fromarray(quarters.repeat(8, 0).repeat(8, 1))


def square(folder: Path, *, mtl: str | None = PAINT, picture: bool = True) -> None:
    folder.mkdir(parents=True)
    (folder / "model.obj").write_text(SQUARE)
    if mtl is not None:
        (folder / "model.mtl").write_text(mtl)
    if picture:
        texture().save(folder / "tex.png")


class Taken:
    """What was written for one object, read with nothing of ours: DVR's formulas, in float64."""

    def __init__(self, folder: Path):
        files = [sorted((folder / name).iterdir()) for name in ("image", "mask", "depth")]
        self.images, self.masks = ([np.array(Image.open(f)) for f in some] for some in files[:2])
        self.depths = [np.load(f, allow_pickle=False) for f in files[2]]
        stored = np.load(folder / "cameras.npz", allow_pickle=False)
        self.K, self.world = (
            [stored[f"{name}_mat_{i}"] for i in range(len(self.images))] for name in ("camera", "world")
        )
        assert all((stored[f"scale_mat_{i}"] == np.eye(4)).all() for i in range(len(self.images)))
        self.size = len(self.images[0])

    def centre(self, i: int) -> Array:
        return -self.world[i][:3, :3].T @ self.world[i][:3, 3]

    def project(self, i: int, x: Array) -> Array:
        """Return where points (n, 3) are seen, (column, row) with pixel centres at whole numbers."""
        local = (x @ self.world[i][:3, :3].T + self.world[i][:3, 3]) @ self.K[i][:3, :3].T
        return (local[:, :2] / local[:, 2:] + 1) * (self.size - 1) / 2

    def directions(self, i: int, shifts: Array) -> Array:
        """Return directions of length 1 along the view's axis, shape (h, w, shifts, 3), beside the pixels' centres."""
        row, column = np.mgrid[: self.size, : self.size]
        at = np.stack([column, row], -1)[:, :, None] + shifts
        uv1 = np.concatenate([2 * at / (self.size - 1) - 1, np.ones((*at.shape[:3], 1))], -1)
        return uv1 @ np.linalg.inv(self.K[i][:3, :3]).T @ self.world[i][:3, :3]


GRID = np.stack(np.meshgrid(*2 * [(np.arange(4) + 0.5) / 4 - 0.5]), -1).reshape(-1, 2)
CENTRE = np.zeros((1, 2))


def lit(srgb: tuple[float, ...], normal: Array) -> Array:
    """Return the sRGB of a matte surface under the lamp, written out (IEC 61966-2-1)."""
    value = np.array(srgb) / 255
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    lamp = np.array([0.35, 0.8, 0.5]) / np.linalg.norm([0.35, 0.8, 0.5])
    light = light * (0.3 + 0.7 * max(float(normal @ lamp), 0.0))
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Taken:
    """Return the square's pictures: a category of one object is enough here."""
    home = tmp_path_factory.mktemp("square")
    square(home / "in/square")
    assert photograph(home / "in", home / "out", views=10) == []
    assert sorted(f.name for f in (home / "out").iterdir()) == ["render.json", "square"]
    return Taken(home / "out/square")


def test_cameras_stand_all_around_and_look_at_the_middle(taken: Taken) -> None:
    centres = np.array([taken.centre(i) for i in range(10)])
    assert np.linalg.norm(centres, axis=1) == pytest.approx(3)
    assert (centres[:, 1] < -0.5).sum() >= 3 and (centres[:, 1] > 0.5).sum() >= 3
    assert np.ptp(centres, axis=0).min() > 4
    for i in range(10):
        origin, above = taken.project(i, np.array([[0, 0, 0], [0, 0.1, 0]]))
        assert origin == pytest.approx(31.5) and above[1] < origin[1] and above[0] == pytest.approx(31.5)


def test_colours_are_those_of_the_texture_on_both_sides(taken: Taken) -> None:
    seen = 0
    for i, image in enumerate(taken.images):
        side = np.sign(taken.centre(i)[2])
        if abs(taken.centre(i)[2]) < 1:
            continue
        for (x, y), srgb in QUADRANTS.items():
            column, row = taken.project(i, np.array([[x, y, 0]]) * HALF / 2).round().astype(int)[0]
            assert image[row, column] == pytest.approx(lit(srgb, np.array([0, 0, side])), abs=1)
            seen += 1
    assert seen >= 20


def test_depth_is_that_of_the_plane_and_zero_beside_it(taken: Taken) -> None:
    for i, depth in enumerate(taken.depths):
        assert depth.dtype == np.float32
        d, o = taken.directions(i, CENTRE)[:, :, 0], taken.centre(i)
        s = -o[2] / d[..., 2]
        beyond = np.abs((o + s[..., None] * d)[..., :2]).max(-1) - HALF
        clear = np.abs(beyond) > 1e-4
        assert (((beyond < 0) & (s > 0)) == (depth > 0))[clear].all()
        assert depth[(depth > 0) & clear] == pytest.approx(s[(depth > 0) & clear], abs=2e-5)
        assert (depth >= 0).all()


def test_mask_is_what_covers_more_than_half_of_a_pixel(taken: Taken) -> None:
    corners = HALF * np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    for i, mask in enumerate(taken.masks):
        d, o = taken.directions(i, GRID), taken.centre(i)
        at = o + (-o[2] / d[..., 2:]) * d
        inside = (np.abs(at[..., :2]).max(-1) < HALF) & (-o[2] / d[..., 2] > 0)
        assert set(np.unique(mask)) <= {0, 255}
        assert ((inside.sum(-1) > 8) != (mask > 0)).sum() <= 1
        u, v = taken.project(i, corners).T
        area = abs((u * np.roll(v, -1) - v * np.roll(u, -1)).sum()) / 2
        round_it = np.hypot(u - np.roll(u, 1), v - np.roll(v, 1)).sum()
        assert abs((mask > 0).sum() - area) < 0.1 * round_it


def test_a_cube_far_away_and_large_is_put_in_the_middle(tmp_path: Path) -> None:
    cube = trimesh.creation.box((7, 7, 7))
    cube.apply_translation((100, -5, 3))
    (tmp_path / "in").mkdir()
    stray = np.concatenate([cube.vertices, [[1000, 0, 0]]])  # a vertex that no triangle uses
    trimesh.Trimesh(stray, cube.faces, process=False).export(tmp_path / "in/cube.ply")
    assert len(read_textured(find_meshes(tmp_path / "in")[0]).vertices) == 9
    assert photograph(tmp_path / "in", tmp_path / "out", views=6, size=33) == []
    taken = Taken(tmp_path / "out/cube")
    for i, depth in enumerate(taken.depths):
        along = taken.centre(i) / 3
        assert depth[16, 16] == pytest.approx(3 - 0.9 / 3**0.5 / np.abs(along).max(), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "srgb", "lost"),
    [
        ({"picture": False}, (51, 102, 153), "square lacks tex.png, "),
        ({"mtl": None}, (178, 178, 178), "square lacks model.mtl, "),
        ({"mtl": "newmtl paint\nKd 0.2 0.4 0.6\n"}, (51, 102, 153), None),
        ({"mtl": "newmtl other\nKd 0.2 0.4 0.6\n"}, (178, 178, 178), None),
    ],
)
def test_what_is_lost_is_said_and_the_plain_colour_stays(tmp_path, options, srgb, lost) -> None:
    square(tmp_path / "in/square", **options)
    said = photograph(tmp_path / "in", tmp_path / "out", views=2, size=16)
    assert len(said) == (lost is not None) and all(line.startswith(lost) for line in said)
    taken = Taken(tmp_path / "out/square")
    side = np.sign(taken.centre(0)[2])
    assert taken.images[0][8, 8] == pytest.approx(lit(srgb, np.array([0, 0, side])), abs=1)


def test_a_texture_of_another_kind_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    (tmp_path / "tex.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    (tmp_path / "box.mtl").write_text("newmtl m\nmap_Kd tex.png\n")
    lines = ["mtllib box.mtl", "usemtl m", "v 0 0 0", "v 1 0 0", "v 0 1 0", "vt 0 0", "vt 1 0", "vt 0 1"]
    (tmp_path / "box.obj").write_text("\n".join([*lines, "f 1/1 2/2 3/3", ""]))
    (found,) = find_meshes(tmp_path)
    assert len(read_textured(found).missing_files) == 1


def test_a_damaged_texture_is_a_lost_one(tmp_path: Path) -> None:
    square(tmp_path / "square")
    whole = (tmp_path / "square/tex.png").read_bytes()
    (tmp_path / "square/tex.png").write_bytes(whole[: len(whole) // 2])
    (found,) = find_meshes(tmp_path)
    mesh = read_textured(found)
    assert mesh.missing_files == ("tex.png",) and mesh.textures == ()


def test_texels_mix_in_linear_light_and_repeat(tmp_path: Path) -> None:
    square(tmp_path / "square")
    Image.fromarray(np.array([[[0] * 3, [255] * 3]], np.uint8)).save(tmp_path / "square/tex.png")
    mesh = read_textured(find_meshes(tmp_path)[0])
    u = torch.tensor([0.25, 0.5, 0.625, 0.75, 1.0])
    mesh.uv[:] = 0
    for k, shift in enumerate((0, 3, -2)):
        mesh.uv[mesh.faces[0, 1], 0], mesh.uv[mesh.faces[0], 0] = 1.0, torch.tensor([0.0, 1.0, 0.0])
        mesh.uv[mesh.faces[0]] += shift
        weight = torch.stack([1 - u, u, torch.zeros(5)], 1)
        found = mesh.color(torch.zeros(5, dtype=torch.long), weight)
        assert found[:, 1] == pytest.approx([0, 0.5, 0.75, 1, 0.5], abs=1e-5), k
        mesh.uv[:] = 0


def test_each_material_keeps_its_faces(tmp_path: Path) -> None:
    square(tmp_path / "square", mtl=PAINT + "newmtl plain\nKd 1 0 0\nnewmtl twin\nKd 1 1 1\nmap_Kd twin.png\n")
    Image.new("L", (3, 2), 255).save(tmp_path / "square/twin.png")
    more = "v 2 3 {0}\nv 6 3 {0}\nv 6 7 {0}\nusemtl {1}\nf {2}\n"
    extra = more.format(8, "plain", "6 7 8") + more.format(9, "twin", "9/1 10/2 11/3")
    (tmp_path / "square/model.obj").write_text(SQUARE + extra)
    mesh = read_textured(find_meshes(tmp_path)[0])
    assert len(mesh.faces) == 4 and len(mesh.textures) == 2
    face = torch.arange(4)
    weight = torch.tensor([[0.9, 0.06, 0.04]]).expand(4, 3)
    colours = mesh.color(face, weight).numpy()
    places = (mesh.vertices[mesh.faces] * weight[..., None]).sum(1).numpy()
    for colour, (x, y, z) in zip(colours, places, strict=True):
        corner = int(np.sign(x - 4)), int(np.sign(y - 5))
        srgb = {8: (255, 0, 0), 9: (255, 255, 255)}.get(round(z), QUADRANTS[corner])
        assert colour == pytest.approx(((np.array(srgb) / 255 + 0.055) / 1.055) ** 2.4, abs=3e-3)
    assert sorted(places[:, 2].round()) == [7, 7, 8, 9]


def test_other_files_keep_their_colours(tmp_path: Path) -> None:
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    trimesh.Trimesh(corners, faces, vertex_colors=[188, 0, 255, 255]).export(tmp_path / "dots.ply")
    visual = trimesh.visual.TextureVisuals(uv=corners[:, :2], image=texture())
    trimesh.Trimesh(corners, faces, visual=visual).export(tmp_path / "square.glb")
    dots, glb = map(read_textured, find_meshes(tmp_path))
    assert dots.tint.numpy() == pytest.approx(np.tile([0.5029, 0, 1], (4, 1)), abs=1e-4)
    weight = torch.tensor([[0.6, 0.2, 0.2], [0.2, 0.1, 0.7]])
    x = (glb.vertices[glb.faces] * weight[..., None]).sum(1)
    signs = (x[:, :2] * 2 - 1).sign().int().tolist()
    expected = ((np.array([QUADRANTS[a, b] for a, b in signs]) / 255 + 0.055) / 1.055) ** 2.4
    assert glb.color(torch.tensor([0, 1]), weight).numpy() == pytest.approx(expected, abs=1e-4)


def test_a_run_is_taken_up_again(tmp_path: Path) -> None:
    for name in ("one", "two"):
        square(tmp_path / "in" / name)
    options: dict[str, Any] = {"views": 3, "size": 16}
    done: list[float] = []
    assert photograph(tmp_path / "in", tmp_path / "out", **options, progress=done.append) == []
    assert done == [0, 0.5, 1]
    before = {f: f.read_bytes() for f in (tmp_path / "out").rglob("*") if f.is_file()}
    cameras = [Taken(tmp_path / "out" / name).world[0] for name in ("one", "two")]
    assert np.abs(cameras[0] - cameras[1]).max() > 1e-3
    shutil.rmtree(tmp_path / "out/two")
    times = {f: f.stat().st_mtime_ns for f in (tmp_path / "out").rglob("*") if f.is_file()}
    assert photograph(tmp_path / "in", tmp_path / "out", **options) == []
    assert {f: f.stat().st_mtime_ns for f in times} == times
    for f, content in before.items():
        assert f.suffix == ".npz" or f.read_bytes() == content
    with pytest.raises(ValueError, match=r"render.json: expected .*\"size\": 17.* found .*\"size\": 16"):
        photograph(tmp_path / "in", tmp_path / "out", views=3, size=17)


def test_a_killed_run_leaves_no_half_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    square(tmp_path / "in/square")
    write = dvr.write

    def killed(folder, views):
        write(folder, views)
        raise KeyboardInterrupt

    monkeypatch.setattr(dvr, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        photograph(tmp_path / "in", tmp_path / "out", views=2, size=16)
    assert [f.name for f in (tmp_path / "out").iterdir()] == ["render.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "model.obj cannot be read as a mesh"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\n", "model.obj holds no triangles"),
        ("v 0 0 0\nv 1 0 0\nv 0 nan 0\nf 1 2 3\n", "not finite"),
        ("v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n", "its triangles have no area"),
        ("v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n", "its vertices coincide"),
        ("v 0 0 0\nv 1 0 0\nv 0 1e-4 0\nf 1 2 3\n", "too thin to cover a pixel of 16 x 16"),
    ],
)
def test_a_mesh_of_no_use_is_left_out_and_listed(tmp_path: Path, text: str, message: str) -> None:
    square(tmp_path / "in/good")
    (tmp_path / "in/broken").mkdir()
    (tmp_path / "in/broken/model.obj").write_text(text)
    (said,) = photograph(tmp_path / "in", tmp_path / "out", views=2, size=16)
    assert said.startswith("broken is left out: ") and message in said and "\n" not in said
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == ["good", "render.json"]


def test_two_meshes_in_one_folder_are_left_out(tmp_path: Path) -> None:
    for name in ("a", "b"):
        square(tmp_path / "in" / name)
    shutil.copy(tmp_path / "in/a/model.obj", tmp_path / "in/a/other.OBJ")
    (said,) = photograph(tmp_path / "in", tmp_path / "out", views=2, size=16)
    assert said == f"a is left out: {tmp_path / 'in/a'}: expected one mesh, found model.obj, other.OBJ"


def zipped(path: Path, folder: Path, prefix: str = "") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for f in sorted(folder.rglob("*")):
            if f.is_file():
                archive.write(f, prefix + f.relative_to(folder).as_posix())


def test_an_archive_gives_what_its_folder_does(tmp_path: Path) -> None:
    for name in ("one", "two"):
        square(tmp_path / "in" / name)
    zipped(tmp_path / "in.zip", tmp_path / "in", "category/")
    for source in ("in", "in.zip"):
        assert photograph(tmp_path / source, tmp_path / f"{source}.out", views=2, size=48) == []
    for f in (tmp_path / "in.out").rglob("*.png"):
        assert f.read_bytes() == (tmp_path / "in.zip.out" / f.relative_to(tmp_path / "in.out")).read_bytes()
    assert len(list((tmp_path / "in.zip.out").rglob("*.png"))) == 8


def test_nothing_outside_is_read_or_written(tmp_path: Path) -> None:
    square(tmp_path / "in/bad", mtl=PAINT.replace("tex.png", "../../secret.png"))
    square(tmp_path / "in/good/models", mtl=PAINT.replace("tex.png", "../images/tex.png"))
    (tmp_path / "in/good/images").mkdir()
    for where in ("secret.png", "in/good/images/tex.png"):
        texture().save(tmp_path / where)
    (said,) = photograph(tmp_path / "in", tmp_path / "out", views=2, size=16)
    assert said.startswith("bad lacks ../../secret.png, ")
    (tmp_path / "in/bad/tex.png").unlink()
    (tmp_path / "in/bad/link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "in/bad/model.mtl").write_text(PAINT.replace("tex.png", "link.png"))
    for hidden in (".hidden", "__MACOSX"):
        square(tmp_path / "in" / hidden)
    assert [read_textured(found).missing_files for found in find_meshes(tmp_path / "in")] == [("link.png",), ()]
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for name in ("../evil/model.obj", "/evil/model.obj", "a\\..\\..\\evil/model.obj", "fine/model.obj"):
            archive.writestr(name, SQUARE)
    photograph(tmp_path / "in.zip", tmp_path / "deep/out", views=2, size=16)
    assert sorted(f.name for f in (tmp_path / "deep/out").iterdir()) == ["fine", "render.json"]
    assert [f.name for f in (tmp_path / "deep").iterdir()] == ["out"] and not (tmp_path / "evil").exists()


def test_what_cannot_be_a_category_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in/a").mkdir(parents=True)
    (tmp_path / "in/a/notes.txt").write_text("no mesh")
    with pytest.raises(ValueError, match=r"in: expected a mesh .* found none"):
        photograph(tmp_path / "in", tmp_path / "out")
    with pytest.raises(ValueError, match=r"notes.txt: expected a folder or a zip archive"):
        photograph(tmp_path / "in/a/notes.txt", tmp_path / "out")
    square(tmp_path / "in/b")
    shutil.copy(tmp_path / "in/b/model.obj", tmp_path / "in/b.obj")
    with pytest.raises(ValueError, match="several called 'b'"):
        photograph(tmp_path / "in", tmp_path / "out")
    for bad in ({"views": 0}, {"size": 1}, {"samples": 0}, {"fov": 180.0}, {"distance": 1.0}):
        with pytest.raises(ValueError, match="photograph: expected views >= 1"):
            photograph(tmp_path / "in", tmp_path / "out", **bad)
    assert not (tmp_path / "out").exists()


def test_an_aircraft_is_where_embree_sees_it(data: Path, tmp_path: Path) -> None:
    with open_folder(data / "airplanes/category_airplanes_512.zip") as folder:
        found: dict[str, MeshFile] = {one.name: one for one in find_meshes(folder)}
        assert len(found) == 107
        (tmp_path / "in").mkdir()
        (tmp_path / "in/A350.obj").write_bytes(found["A350"].read("model.obj"))
        mesh = read_textured(found["A350"])
    assert len(mesh.textures) == 1 and mesh.missing_files == ()
    assert len(photograph(tmp_path / "in", tmp_path / "out", views=4, size=48)) == 1
    taken = Taken(tmp_path / "out/A350")
    x, used = mesh.vertices.numpy(), np.unique(mesh.faces)
    x = x - (x[used].min(0) + x[used].max(0)) / 2
    scene = trimesh.Trimesh(x * 0.9 / np.linalg.norm(x[used], axis=1).max(), mesh.faces.numpy(), process=False)
    for i, (mask, depth) in enumerate(zip(taken.masks, taken.depths, strict=True)):
        d = taken.directions(i, np.concatenate([CENTRE, GRID]))
        o = np.tile(taken.centre(i), (d.size // 3, 1))
        at, ray, _ = scene.ray.intersects_location(o, d.reshape(-1, 3), multiple_hits=False)
        flat = np.zeros(len(o))
        flat[ray] = at @ taken.world[i][2, :3] + taken.world[i][2, 3]
        z = flat.reshape(48, 48, 17)
        assert (((z[..., 1:] > 0).sum(-1) > 8) != (mask > 0)).sum() <= 2
        assert (np.abs(z[..., 0] - depth) > 1e-4).sum() <= 2 and (depth > 0).sum() > 50

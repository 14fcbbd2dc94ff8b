"""Data at map coordinates and ten million units away: no digit is lost on the way to files, scores and cameras.

What is written is read by trimesh and USD, and compared with NumPy in float64.
"""

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import trimesh
from pxr import Gf, Usd, UsdGeom, UsdValidation  # noqa: TID253  (what is tested here is what it reads)

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.closed_form_lenses import FOVLens
from warpdvr.cameras.lenses import FisheyeLens, OpenCVLens
from warpdvr.cameras.projection import ORTHOGRAPHIC, Pinhole
from warpdvr.cameras.transform import SceneTransform
from warpdvr.cli.main import main
from warpdvr.datasets.synthetic import mesh_views
from warpdvr.datasets.views import Views
from warpdvr.evaluation.surfaces import chamfer
from warpdvr.fields.analytic import Sphere
from warpdvr.fitting.checkpoint import Checkpoint
from warpdvr.geometry.distance import surface_distance
from warpdvr.geometry.isosurface import extract
from warpdvr.geometry.mesh import Mesh, read_mesh
from warpdvr.geometry.textured import find_meshes, read_textured
from warpdvr.runs import products
from warpdvr.runs.final_products import write_all
from warpdvr.runs.run import Run
from warpdvr.runs.scene import Scene
from warpdvr.usd.scene import write_usd

PLACES = {"map": (465432.0, 5412345.0, 123.25), "ten million": (1e7, -1e7, 1e7)}
SCALE = 1.7
TURN = torch.linalg.matrix_exp(torch.tensor([[0, -0.3, 0.2], [0.3, 0, -0.5], [-0.2, 0.5, 0]], dtype=torch.float64))


@pytest.fixture(params=list(PLACES))
def frame(request) -> SceneTransform:
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3], matrix[:3, 3] = SCALE * TURN, torch.tensor(PLACES[request.param], dtype=torch.float64)
    return SceneTransform(matrix)


def ball(radius: float = 1.0) -> Mesh:
    """A ball with 642 vertices, no two of which have the same y, with normals and colours."""
    body = trimesh.creation.icosphere(subdivisions=3)
    turn = trimesh.transformations.rotation_matrix(0.7, [1, 2, 3])[:3, :3]
    x = torch.tensor(np.array(body.vertices) @ turn.T)
    return Mesh((radius * x).float(), torch.tensor(np.array(body.faces)).long(), x.float(), (x * 0.5 + 0.5).float())


def expected(mesh: Mesh, frame: SceneTransform) -> np.ndarray:
    matrix = frame.matrix.numpy()
    points: np.ndarray = mesh.vertices.numpy().astype(np.float64) @ matrix[:3, :3].T + matrix[:3, 3]
    return points


def distinct(points: np.ndarray) -> tuple[int, int]:
    """Return the number of distinct points and of distinct y."""
    return len(np.unique(points, axis=0)), len(np.unique(points[:, 1]))


def stored(path: Path) -> np.ndarray:
    """Return the vertices of a file in float64, read by others."""
    if path.suffix.startswith(".usd"):
        stage = Usd.Stage.Open(str(path))
        prim = UsdGeom.Mesh(stage.GetPrimAtPath("/NeuralSurface/Geometry/Surface"))
        matrix = np.array(prim.ComputeLocalToWorldTransform(Usd.TimeCode.Default()))
        return np.array(prim.GetPointsAttr().Get(), np.float64) @ matrix[:3, :3] + matrix[3, :3]
    scene = trimesh.load(path, process=False, force="scene", maintain_order=True)
    (at, name) = scene.graph.get(scene.graph.nodes_geometry[0])
    return np.asarray(scene.geometry[name].vertices, np.float64) @ at[:3, :3].T + at[:3, 3]


def errors(path: Path) -> list[str]:
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    return [e.GetMessage() for e in UsdValidation.ValidationContext(validators).Validate(Usd.Stage.Open(str(path)))]


@pytest.mark.parametrize("suffix", ["ply", "obj", "off", "glb", "usdc", "usda"])
def test_vertices_are_as_distinct_as_before(tmp_path, frame, suffix):
    mesh, path = ball(), tmp_path / f"mesh.{suffix}"
    moved, true = mesh.transformed(frame.matrix), expected(ball(), frame)
    if suffix.startswith("usd"):
        write_usd(path, moved)
        assert errors(path) == []
    else:
        moved.save(path)
    found = stored(path)
    ulp = np.spacing(np.abs(true).max())
    if suffix in ("ply", "obj", "off"):
        assert np.abs(found - true).max() <= ulp
        assert np.array_equal(found, moved.vertices.numpy())
    else:  # points in float32 around the origin, at most 1.7 from it
        assert np.abs(found - true).max() <= 1.01 * 2.0**-24 * 2 + 2 * ulp
    assert distinct(found) == distinct(true) == (len(true), len(true))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", ["ply", "obj", "off"])
def test_what_was_written_is_read_again_digit_by_digit(tmp_path, frame, suffix):
    moved = ball().transformed(frame.matrix)
    moved.save(tmp_path / f"a.{suffix}")
    back = read_mesh(tmp_path / f"a.{suffix}")
    assert back.vertices.dtype == torch.float64 and torch.equal(back.vertices, moved.vertices)
    near = back.transformed(frame.inverse().matrix)
    assert np.abs(near.vertices.numpy() - ball().vertices.numpy()).max() < 1e-8
    if suffix != "off":
        assert near.normals is not None and np.allclose(near.normals, ball().vertices, atol=1e-6)


@pytest.mark.parametrize("suffix", ["ply", "obj", "glb"])
def test_meshes_with_textures_keep_the_digits_too(tmp_path, frame, suffix):
    moved = ball().transformed(frame.matrix)
    moved.save(tmp_path / f"a.{suffix}")
    (file,) = find_meshes(tmp_path)
    found = read_textured(file).vertices.numpy()
    assert np.abs(found - moved.vertices.numpy()).max() < 3e-7
    assert distinct(found) == (len(found), len(found))


def test_near_the_origin_nothing_changes(tmp_path):
    """Float32 holds such a mesh: the files are not twice as long, and USD needs no transform."""
    mesh = ball().transformed(SceneTransform.around(torch.tensor([1.0, 2.0, 3.0]), 5.0).matrix)
    assert mesh.vertices.dtype == torch.float32
    mesh.save(tmp_path / "a.ply")
    assert b"property float x" in (tmp_path / "a.ply").read_bytes()[:200]
    mesh.save(tmp_path / "a.glb")
    assert b"translation" not in (tmp_path / "a.glb").read_bytes()
    write_usd(tmp_path / "a.usda", mesh)
    assert "xformOp" not in (tmp_path / "a.usda").read_text()


def test_double_precision_is_what_a_file_says(tmp_path, frame):
    moved = ball().transformed(frame.matrix)
    moved.save(tmp_path / "a.ply")
    assert (tmp_path / "a.ply").read_bytes()[:200].count(b"property double") == 3
    write_usd(tmp_path / "a.usda", moved, [Camera.look_at(frame.matrix[:3, 3] + 5, frame.matrix[:3, 3])])
    text = (tmp_path / "a.usda").read_text()
    assert text.count("double3 xformOp:translate = ") == 2  # geometry and cameras; the root has none
    stage = Usd.Stage.Open(str(tmp_path / "a.usda"))
    assert not UsdGeom.Xformable(stage.GetDefaultPrim()).GetOrderedXformOps()
    extent = np.array(UsdGeom.Mesh(stage.GetPrimAtPath("/NeuralSurface/Geometry/Surface")).GetExtentAttr().Get())
    assert np.abs(extent).max() == pytest.approx(SCALE, rel=0.01)


def test_a_glb_holds_what_others_need(tmp_path):
    """Its chunks are aligned, its colours linear (IEC 61966-2-1), its normals those of the mesh."""
    mesh = ball()
    mesh.save(tmp_path / "a.glb")
    content = (tmp_path / "a.glb").read_bytes()
    assert content[:4] == b"glTF" and len(content) == int.from_bytes(content[8:12], "little") and len(content) % 4 == 0
    length = int.from_bytes(content[12:16], "little")
    table, data = json.loads(content[20 : 20 + length]), content[28 + length :]
    arrays = {}
    for name, i in table["meshes"][0]["primitives"][0]["attributes"].items():
        view = table["bufferViews"][table["accessors"][i]["bufferView"]]
        assert view["byteOffset"] % 4 == 0
        arrays[name] = np.frombuffer(data, "<f4", view["byteLength"] // 4, view["byteOffset"]).reshape(-1, 3)
    assert mesh.normals is not None and mesh.colors is not None
    s = mesh.colors.double().numpy()
    assert np.allclose(arrays["COLOR_0"], np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4), atol=1e-6)
    assert np.array_equal(arrays["NORMAL"], mesh.normals) and np.array_equal(arrays["POSITION"], mesh.vertices)
    assert np.allclose(table["accessors"][0]["min"], mesh.vertices.amin(0))
    other = trimesh.load(tmp_path / "a.glb", process=False, force="mesh")
    assert np.array_equal(other.faces, mesh.faces)


def test_distances_far_away_are_right(frame):
    """Two concentric balls: every point of one is 0.01 * SCALE from the other, up to the sagitta of a triangle."""
    truth, larger = (ball(radius).transformed(frame.matrix) for radius in (1.0, 1.01))
    far, near = chamfer(larger, truth, samples=2000), chamfer(ball(1.01), ball(), samples=2000)
    assert far.chamfer_l1 == pytest.approx(0.01 * SCALE, rel=0.1)
    assert far.chamfer_l1 == pytest.approx(SCALE * near.chamfer_l1, rel=1e-4)
    assert far.volume_iou == pytest.approx(1 / 1.01**3, abs=0.01)
    assert far.normal_consistency > 0.999
    assert chamfer(truth, truth, samples=2000).chamfer_l1 < 1e-6
    assert float(surface_distance(truth.vertices[:100], larger).mean()) == pytest.approx(0.01 * SCALE, rel=0.1)


def test_cameras_come_and_go_without_loss(frame):
    camera = Camera.look_at((3.2, 0.3, 1.5), width=640, height=480)
    seen = frame.to_data(camera)
    ulp = float(np.spacing(1e7))
    assert (frame.to_scene(seen).pose - camera.pose).abs().max() < 4 * ulp
    x = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.5
    assert (seen.project(frame.apply(x))[0] - camera.project(x)[0]).abs().max() < 1e-5
    assert (frame.inverse().apply(frame.apply(x)) - x).abs().max() < 4 * ulp
    assert frame.apply(x.float()).dtype == torch.float32


def test_usd_cameras_see_the_same_picture_far_away(tmp_path, frame):
    camera = Camera.look_at((3.2, 0.3, 1.5), width=640, height=480)
    write_usd(tmp_path / "a.usdc", ball().transformed(frame.matrix), [frame.to_data(camera)])
    assert errors(tmp_path / "a.usdc") == []
    stage = Usd.Stage.Open(str(tmp_path / "a.usdc"))
    prim = UsdGeom.Camera(stage.GetPrimAtPath("/NeuralSurface/Cameras/View_000"))
    frustum = prim.GetCamera(Usd.TimeCode.Default()).frustum
    matrix = frustum.ComputeViewMatrix() * frustum.ComputeProjectionMatrix()
    clip = np.array([Gf.Vec4d(*p, 1) * matrix for p in expected(ball(), frame)[::13].tolist()])
    found = np.stack([(clip[:, 0] / clip[:, 3] + 1) / 2 * 640, (1 - clip[:, 1] / clip[:, 3]) / 2 * 480], 1)
    assert np.abs(found - camera.project(ball().vertices[::13].double())[0].numpy()).max() < 1e-3
    near, far = prim.GetClippingRangeAttr().Get()
    assert near < SCALE * 2.5 and SCALE * 5 < far < 100


class Panorama(Pinhole):
    """All directions in one picture, proportional to the angles."""

    name = "panorama"
    frustum = None  # type: ignore[assignment]

    def local_project(self, K, x):
        turn = torch.atan2(x[:, 0], x[:, 2])
        return torch.stack([turn, x[:, 1] / x.norm(dim=1)], 1) * 30 + 50


def odd_cameras() -> dict[str, Camera]:
    plain = Camera.look_at((3.2, 0.3, 1.5), width=640, height=480)
    skewed = plain.K.clone()
    skewed[0, 1] = 40
    return {
        "plain": plain,
        "skewed": replace(plain, K=skewed),
        "flat": Camera(skewed, plain.pose, 640, 480, ORTHOGRAPHIC),
        "bent": replace(plain, projection=OpenCVLens((-0.1, 0.01, 1e-3, 2e-3))),
        "fisheye": replace(plain, projection=FisheyeLens((0.1, 0.0, 0.0, 0.0))),
        "wide": replace(plain, projection=FOVLens((1.0,))),
        "round": replace(plain, projection=Panorama()),
        "mirrored": replace(plain, K=plain.K * torch.tensor([[-1.0], [1], [1]])),
    }


def test_cameras_that_usd_lacks_are_written_squared_or_left_out_with_one_warning(tmp_path):
    given, path = odd_cameras(), tmp_path / "a.usda"
    with pytest.warns(UserWarning) as caught:
        write_usd(path, ball(), [*given.values()], names=[*given], approximate_cameras=True)
    (warning,) = caught
    text = str(warning.message)
    assert text.startswith(
        f"{path}: camera skewed is not written as it is: USD has no such camera: perspective, skew 40"
    )
    assert "custom data: skewed, flat, bent and 2 more; left out: round, mirrored" in text
    assert errors(path) == []
    stage = Usd.Stage.Open(str(path))
    names = [p.GetName() for p in stage.GetPrimAtPath("/NeuralSurface/Cameras").GetChildren()]
    assert names == ["plain", "skewed", "flat", "bent", "fisheye", "wide"]
    for name in names:
        prim = stage.GetPrimAtPath(f"/NeuralSurface/Cameras/{name}")
        assert prim.GetCustomDataByKey("warpdvr:K") == given[name].K.reshape(-1).tolist()
        about = prim.GetCustomDataByKey("warpdvr:projection")
        assert about is None if name == "plain" else json.loads(about) == given[name].projection.describe()
        camera, kind = UsdGeom.Camera(prim), given[name].projection
        focal, across = camera.GetFocalLengthAttr().Get(), camera.GetHorizontalApertureAttr().Get()
        if kind is ORTHOGRAPHIC:
            assert camera.GetProjectionAttr().Get() == "orthographic"
            assert across == pytest.approx(10 * 640 / float(given[name].K[0, 0]))
        else:
            slope = 2 * math.tan(0.5) if name == "wide" else 1.0  # of its atan(2 r tan(w / 2)) / w, in the middle
            assert focal / across * 640 == pytest.approx(slope * float(given[name].K[0, 0]), rel=1e-5)
            assert camera.GetHorizontalApertureOffsetAttr().Get() == pytest.approx(0, abs=1e-9)


def test_cameras_that_usd_has_cause_no_warning(tmp_path):
    write_usd(tmp_path / "a.usda", ball(), [odd_cameras()["plain"]], approximate_cameras=True)
    with pytest.raises(ValueError, match=r"View_000: USD has .* this one is 'opencv'"):
        write_usd(tmp_path / "b.usda", ball(), [odd_cameras()["bent"]])


@pytest.mark.parametrize("suffix", ["ply", "obj", "off", "glb", "usdc"])
@pytest.mark.parametrize("what", ["vertices", "normals", "colors", "faces"])
def test_what_no_mesh_is_leaves_the_old_file(tmp_path, suffix, what):
    path, mesh = tmp_path / f"a.{suffix}", ball()
    path.write_text("old")
    if what == "faces":
        bad, match = replace(mesh, faces=mesh.faces[:0]), "the mesh to write has no faces"
    else:
        array = getattr(mesh, what).clone()
        array[7, 1] = math.nan
        bad, match = replace(mesh, **{what: array}), f"not written, since 1 of its 642 {what} are not finite numbers"
    with pytest.raises(ValueError, match=f"^{path}: .*{match}") as caught:
        write_usd(path, bad) if suffix == "usdc" else bad.save(path)
    assert "\n" not in str(caught.value) and path.read_text() == "old" and len([*tmp_path.iterdir()]) == 1


@pytest.fixture
def fitted(tmp_path) -> Run:
    """A run of a ball, as if it had been fitted, whose first camera is skewed."""
    made = Run.create(tmp_path / "run", Scene(field={"kind": "sphere", "radius": 0.5}))
    cameras = (odd_cameras()["skewed"], odd_cameras()["plain"])
    state = {"counts": torch.tensor([7.0, 1234.0, 5.0], dtype=torch.float64)}
    transform = SceneTransform.around(torch.tensor([1e7, 2e7, 3e7]), 5.0)
    weights = Sphere(0.5).state_dict()
    Checkpoint("sphere", {"radius": 0.5}, weights, transform, (0.0, 0.0, 1.0), cameras, state).save(made.checkpoint)
    return made


@pytest.fixture(scope="module")
def bunny() -> Views:
    return mesh_views("warp:bunny", count=2, test=1, size=16)


@pytest.mark.parametrize("broken", ["mesh", "usd", "scores", "picture", "surface"])
def test_a_product_that_fails_costs_no_other(fitted, bunny, tmp_path, broken, monkeypatch):
    views = replace(bunny, truth=ball(0.5).transformed(fitted.load().transform.matrix))
    monkeypatch.setattr("warpdvr.runs.products.write_pictures", partial(products.write_pictures, size=16))
    files = {"mesh": fitted.mesh, "usd": fitted.usd, "scores": fitted.scores, "picture": fitted.images / "view_rgb.png"}
    if broken == "surface":
        monkeypatch.setattr("warpdvr.runs.products.extract", lambda *_, **__: extract(Sphere(-1.0), resolution=8))
    else:
        files[broken].mkdir()
    with pytest.warns(UserWarning) as caught:
        scores, found = write_all(fitted, fitted.load().field(), views, {"resolution": 24})
    texts = [str(w.message) for w in caught]
    named = {"surface": fitted.mesh, "picture": fitted.images}.get(broken) or files[broken]
    assert any(t.startswith(f"{named}: ") and "not written: " in t and "is complete and saved" in t for t in texts)
    lost = {"surface": {"mesh", "usd"}}.get(broken, {broken})
    assert set(found) == set(files) - lost and all(files[name].is_file() for name in found)
    assert sum("skew" in t for t in texts) == (0 if lost & {"usd"} else 1)
    if broken == "scores":
        assert scores == {"views": 0}
    elif broken != "surface":
        assert scores["views"] == 1 and scores["chamfer_l1"] < 0.01 * scores["extent"]


def shifted(data: Path, folder: Path, shift: tuple[float, ...]) -> Path:
    """Write eight small photographs of spot, with cameras moved by `shift`."""
    source = data / "renders/spot"
    table = json.loads((source / "transforms_train.json").read_text())
    table["frames"] = table["frames"][::8]
    folder.mkdir()
    for frame in table["frames"]:
        matrix = np.array(frame["transform_matrix"])
        matrix[:3, 3] += shift
        frame["transform_matrix"] = matrix.tolist()
        with PIL.Image.open(source / frame["file_path"]) as picture:
            name = Path(frame["file_path"]).name
            picture.resize((80, 80)).save(folder / name)
        frame["file_path"] = name
    (folder / "transforms.json").write_text(json.dumps(table))
    return folder


def test_a_run_far_away_gives_the_surface_of_the_near_one(data, tmp_path):
    counts, scores, places = {}, {}, {"near": (0.0, 0.0, 0.0), "far": (465432.0, 5412345.0, 1e7)}
    for name, shift in places.items():
        folder = shifted(data, tmp_path / f"{name} photographs", shift)
        scene = f'[views]\nfolder = "{folder}"\n[field]\nkind = "voxel-sdf"\nbounds = 1.1\nresolution = 16\n'
        scene += "[fit]\niterations = 12\nrays = 256\nsquare = 3.0\n[mesh]\nresolution = 24\n"
        (tmp_path / f"{name}.toml").write_text(scene)
        assert main(["fit", str(tmp_path / f"{name}.toml"), "--out", str(tmp_path / name)]) != 2  # however good it is
        run = Run.open(tmp_path / name)
        mesh, usd = stored(run.mesh), stored(run.usd)
        field = run.field()
        own = extract(field, resolution=24, cavities=False).vertices.numpy()  # of the same field, in the unit sphere
        assert distinct(mesh)[0] == len(own) and distinct(usd)[0] == len(own)
        assert distinct(mesh)[1] >= 0.99 * distinct(own)[1]
        counts[name] = distinct(mesh)[1]
        centre = (mesh.min(0) + mesh.max(0)) / 2
        assert np.abs(centre - shift).max() < 0.3
        move = SceneTransform.around(torch.tensor(shift, dtype=torch.float64), 1.0)
        read_mesh(data / "renders/spot/mesh_gt.ply").transformed(move.matrix).save(tmp_path / f"{name}.obj")
        assert main(["eval", str(run.folder), "--mesh-gt", str(tmp_path / f"{name}.obj")]) == 0
        scores[name] = json.loads(run.scores.read_text())
    assert counts["far"] >= 0.95 * counts["near"] > 300
    assert scores["far"]["chamfer_l1"] == pytest.approx(scores["near"]["chamfer_l1"], rel=1e-3)
    assert scores["near"]["chamfer_l1"] < 0.1 * scores["near"]["extent"]

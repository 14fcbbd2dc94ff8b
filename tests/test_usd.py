"""USD files, against USD's own validators and its own camera."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pxr import Gf, Usd, UsdGeom, UsdShade, UsdValidation  # noqa: TID253  (what is tested here is what it reads)

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.projection import ORTHOGRAPHIC, Pinhole
from warpdvr.fields.analytic import Torus
from warpdvr.fields.base import Field
from warpdvr.geometry.isosurface import extract
from warpdvr.geometry.mesh import Mesh
from warpdvr.shading.srgb import encode, linear
from warpdvr.usd.scene import write_usd


class Painted(Torus):
    def color(self, x, normal, direction, feature):
        return normal * 0.5 + 0.5


def off_centre(eye=(3.2, 0.3, 1.5)):
    """A camera with fx != fy and a principal point off the centre."""
    K = torch.tensor([[700.0, 0, 300], [0, 690, 255], [0, 0, 1]], dtype=torch.float64)
    return Camera(K, Camera.look_at(eye).pose, 640, 480)


@pytest.fixture(scope="module")
def mesh():
    return extract(Painted(), resolution=24)


def errors(path):
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    assert len(validators) > 20
    return [e.GetMessage() for e in UsdValidation.ValidationContext(validators).Validate(Usd.Stage.Open(str(path)))]


def surface(stage):
    return UsdGeom.Mesh(stage.GetPrimAtPath("/NeuralSurface/Geometry/Surface"))


def pixels(camera, x):
    """Project points (n, 3) through the frustum of a USD camera, in units of its image."""
    frustum = camera.GetCamera(Usd.TimeCode.Default()).frustum
    matrix = frustum.ComputeViewMatrix() * frustum.ComputeProjectionMatrix()
    clip = [Gf.Vec4d(*p, 1) * matrix for p in x.tolist()]
    return np.array([[(c[0] / c[3] + 1) / 2, (1 - c[1] / c[3]) / 2] for c in clip])


@pytest.mark.parametrize("suffix", ["usdc", "usda", "usd"])
def test_the_file_passes_all_validators(tmp_path, mesh, suffix):
    path = tmp_path / f"asset.{suffix}"
    write_usd(path, mesh, [off_centre(), off_centre((0, 3, 1))], metadata={"iteration": 7, "loss": 0.5, "box": [0, 1]})
    assert errors(path) == []
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes().startswith(b"#usda" if suffix == "usda" else b"PXR-USDC")


def test_the_validators_would_find_something(tmp_path, mesh):
    path = tmp_path / "asset.usda"
    write_usd(path, mesh)
    path.write_text(
        path.read_text().replace("metersPerUnit = 1", "").replace("float3[] extent = ", "custom float3[] other = ")
    )
    assert errors(path)


@pytest.mark.parametrize("colors", [None, "one", "some", "all"])
@pytest.mark.parametrize("normals", [True, False])
def test_meshes_with_less_pass_too(tmp_path, mesh, colors, normals):
    n = len(mesh.vertices)
    some = torch.linspace(0, 1, 5).repeat(n)[:n, None].expand(n, 3)
    table = {None: None, "one": torch.full((n, 3), 0.25), "some": some, "all": mesh.colors}
    path = tmp_path / "asset.usdc"
    write_usd(path, Mesh(mesh.vertices, mesh.faces, mesh.normals if normals else None, table[colors]))
    assert errors(path) == []
    stage = Usd.Stage.Open(str(path))
    shown = UsdGeom.PrimvarsAPI(surface(stage)).GetPrimvar("displayColor")
    if colors in ("one", "some", "all"):
        value = np.array(shown.ComputeFlattened())
        assert np.allclose(np.broadcast_to(value, (n, 3)), linear(table[colors]), atol=1e-6)
    unit = np.linalg.norm(surface(stage).GetNormalsAttr().Get(), axis=1)
    assert np.allclose(unit, 1, atol=1e-5)


def test_geometry_and_material_arrive(tmp_path, mesh):
    write_usd(tmp_path / "asset.usdc", mesh, meters_per_unit=0.01)
    stage = Usd.Stage.Open(str(tmp_path / "asset.usdc"))
    prim = surface(stage)
    assert np.allclose(prim.GetPointsAttr().Get(), mesh.vertices)
    assert np.array_equal(np.array(prim.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3), mesh.faces)
    assert np.allclose(prim.GetNormalsAttr().Get(), mesh.normals)
    assert prim.GetSubdivisionSchemeAttr().Get() == "none"
    assert prim.GetNormalsInterpolation() == "vertex"
    assert not UsdGeom.PrimvarsAPI(prim).HasPrimvar("normals")
    assert np.allclose(prim.GetExtentAttr().Get(), [mesh.vertices.amin(0), mesh.vertices.amax(0)])
    assert stage.GetDefaultPrim().GetPath() == "/NeuralSurface"
    assert UsdGeom.GetStageUpAxis(stage) == "Z"
    assert UsdGeom.GetStageMetersPerUnit(stage) == 0.01
    material, _ = UsdShade.MaterialBindingAPI(prim).ComputeBoundMaterial()
    shader, _, _ = material.ComputeSurfaceSource()
    source = shader.GetInput("diffuseColor").GetConnectedSources()[0][0].source
    assert UsdShade.Shader(source).GetInput("varname").Get() == "displayColor"


def test_colors_are_linear():
    """The values of IEC 61966-2-1 at its corner points."""
    assert torch.allclose(
        linear(torch.tensor([0.0, 0.04045, 0.5, 1.0])), torch.tensor([0.0, 0.0031308, 0.2140411, 1.0]), atol=1e-6
    )
    srgb = torch.linspace(0, 1, 256, dtype=torch.float64)
    assert torch.allclose(encode(linear(srgb)), srgb, atol=1e-6)  # the standard's own corner points leave 3e-8
    assert torch.allclose(
        encode(torch.tensor([0.0, 0.0031308, 0.2140411, 1.0])), torch.tensor([0.0, 0.04045, 0.5, 1.0])
    )


@pytest.mark.parametrize("meters_per_unit", [1.0, 0.01])
def test_cameras_project_as_their_K_does(tmp_path, mesh, meters_per_unit):
    camera = off_centre()
    path = tmp_path / "asset.usdc"
    write_usd(path, mesh, [camera], names=["IMG 01.png"], meters_per_unit=meters_per_unit)
    stage = Usd.Stage.Open(str(path))
    prim = UsdGeom.Camera(stage.GetPrimAtPath("/NeuralSurface/Cameras/IMG_01_png"))
    x = torch.randn(100, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.5
    expected, depth = camera.project(x)
    assert np.abs(pixels(prim, x) * [640, 480] - expected.numpy()).max() < 1e-3
    assert prim.GetPrim().GetCustomDataByKey("warpdvr:K") == [700, 0, 300, 0, 690, 255, 0, 0, 1]
    near, far = prim.GetClippingRangeAttr().Get()
    assert near < depth.min() and depth.max() < far
    assert prim.GetHorizontalApertureAttr().Get() * meters_per_unit / 10 == pytest.approx(0.036)


def test_the_picture_stays_the_same_in_another_frame(tmp_path, mesh):
    """Turned up and scaled, every vertex falls on the same pixel as before."""
    camera = off_centre((0.5, 3.0, 1.0))
    shift = torch.eye(4)
    shift[:3, :3] *= 12.5
    shift[:3, 3] = torch.tensor([100.0, 20, -3])
    write_usd(tmp_path / "asset.usdc", mesh, [camera], transform=shift, up=(0.0, 1.0, 0.0))
    assert errors(tmp_path / "asset.usdc") == []
    stage = Usd.Stage.Open(str(tmp_path / "asset.usdc"))
    points = np.array(surface(stage).GetPointsAttr().Get())
    moved = mesh.vertices.numpy() * 12.5 + [100, 20, -3]
    assert np.allclose(points, moved[:, [0, 2, 1]] * [1, -1, 1], atol=1e-5)
    prim = UsdGeom.Camera(stage.GetPrimAtPath("/NeuralSurface/Cameras/View_000"))
    expected, _ = camera.project(mesh.vertices)
    assert np.abs(pixels(prim, torch.from_numpy(points).double()) * [640, 480] - expected.numpy()).max() < 2e-2
    rotation = np.array(prim.ComputeLocalToWorldTransform(Usd.TimeCode.Default()))[:3, :3]
    assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)


@pytest.mark.parametrize("scale", [1.0, 12.5])
def test_orthographic_cameras_are_written_as_such(tmp_path, mesh, scale):
    K = torch.tensor([[210.0, 0, 300], [0, 190, 255], [0, 0, 1]], dtype=torch.float64)
    camera = Camera(K, off_centre().pose, 640, 480, ORTHOGRAPHIC)
    path = tmp_path / "asset.usda"
    write_usd(path, mesh, [camera], transform=torch.diag(torch.tensor([scale, scale, scale, 1.0])))
    assert errors(path) == []
    stage = Usd.Stage.Open(str(path))
    prim = UsdGeom.Camera(stage.GetPrimAtPath("/NeuralSurface/Cameras/View_000"))
    assert prim.GetProjectionAttr().Get() == "orthographic"
    x = torch.randn(100, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.5
    expected, depth = camera.project(x)
    assert np.abs(pixels(prim, scale * x) * [640, 480] - expected.numpy()).max() < 1e-3
    near, far = prim.GetClippingRangeAttr().Get()
    assert near < scale * depth.min() and scale * depth.max() < far


def test_a_camera_that_usd_does_not_have_is_refused(tmp_path, mesh):
    class Panorama(Pinhole):
        name, frustum = "panorama", None  # type: ignore[assignment]

    camera = replace(off_centre(), projection=Panorama())
    with pytest.raises(ValueError, match=r"View_000: USD has perspective and orthographic cameras only.*'panorama'"):
        write_usd(tmp_path / "asset.usda", mesh, [camera])
    assert list(tmp_path.iterdir()) == []


AXES = [(s * torch.eye(3, dtype=torch.float64)[i]).tolist() for i in range(3) for s in (1, -1)]


@pytest.mark.parametrize("up", AXES)
def test_what_was_up_is_up(tmp_path, up):
    """A triangle on the ground, with one corner lifted, and a camera that looks at that from above, at an angle."""
    high = torch.tensor(up)
    side = high.roll(1)
    corners = torch.stack([torch.zeros(3), side, high]).float()
    camera = Camera.look_at(3 * side + 0.5 * high.roll(2) + high, up=high, width=640, height=480)
    path = tmp_path / "asset.usda"
    nearly = [a + 1e-9 for a in up]
    write_usd(path, Mesh(corners, torch.tensor([[0, 1, 2]])), [camera], up=nearly)
    stage = Usd.Stage.Open(str(path))
    assert UsdGeom.GetStageUpAxis(stage) == "Z"
    points = np.array(surface(stage).GetPointsAttr().Get())
    assert np.array_equal(points[2], [0, 0, 1]) and points[1, 2] == 0
    prim = UsdGeom.Camera(stage.GetPrimAtPath("/NeuralSurface/Cameras/View_000"))
    expected, _ = camera.project(corners)
    assert np.abs(pixels(prim, torch.from_numpy(points).double()) * [640, 480] - expected.numpy()).max() < 1e-3


@pytest.mark.parametrize("up", [(0.0, 0.1, 1.0), (0.0, 1.0, 0.01), (1.0, 1.0, 0.0)])
def test_nothing_is_turned_where_no_axis_is_up(tmp_path, mesh, up):
    write_usd(tmp_path / "asset.usdc", mesh, up=up)
    stage = Usd.Stage.Open(str(tmp_path / "asset.usdc"))
    assert UsdGeom.GetStageUpAxis(stage) == "Z"
    assert np.array_equal(surface(stage).GetPointsAttr().Get(), mesh.vertices)


def test_what_cannot_be_written_is_told(tmp_path, mesh):
    skewed = off_centre().K + torch.tensor([[0.0, 5, 0], [0, 0, 0], [0, 0, 0]])
    camera = off_centre()
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    for match, path, given, options in (
        (r"\.obj", "a.obj", mesh, {}),
        ("no folder", "nowhere/a.usdc", mesh, {}),
        ("no faces", "a.usdc", empty, {}),
        ("up must be", "a.usdc", mesh, {"up": (0.0, 0.0, 0.0)}),
        ("up must be", "a.usdc", mesh, {"up": (0.0, 1.0)}),
        ("up must be", "a.usdc", mesh, {"up": (0.0, float("nan"), 1.0)}),
        ("meters_per_unit", "a.usdc", mesh, {"meters_per_unit": 0}),
        ("names", "a.usdc", mesh, {"cameras": [camera, camera], "names": ["a b", "a_b"]}),
        ("skew", "a.usdc", mesh, {"cameras": [Camera(skewed, camera.pose, 640, 480)]}),
        ("mirror", "a.usdc", mesh, {"cameras": [camera], "transform": torch.diag(torch.tensor([-1.0, 1, 1, 1]))}),
    ):
        with pytest.raises(ValueError, match=match):
            write_usd(tmp_path / path, given, **options)
    assert list(tmp_path.iterdir()) == []


def test_fields_without_color_are_written(tmp_path):
    class Plain(Field):
        def value(self, x):
            return x.norm(dim=-1) - 0.5

    write_usd(tmp_path / "a.usdc", extract(Plain(), resolution=12))
    assert errors(tmp_path / "a.usdc") == []


@pytest.mark.parametrize("fail", ["no", "raise"])
def test_a_scene_that_usd_cannot_write_is_named_without_its_log(tmp_path, mesh, fail, monkeypatch):
    from pxr import Sdf

    def export(layer, path):
        if fail == "raise":
            raise RuntimeError("in 'void pxr::Sdf' at line 3\nin file usd.cpp")
        return False

    monkeypatch.setattr(Sdf.Layer, "Export", export)
    with pytest.raises(ValueError, match=rf"^{tmp_path / 'a.usdc'}: USD could not write this file; [^\n]*$"):
        write_usd(tmp_path / "a.usdc", mesh)
    assert not any(tmp_path.iterdir())


def test_a_path_that_cannot_be_written_is_named_as_it_was_given(tmp_path, mesh, capfd):
    long = tmp_path / f"{'a' * 300}.usdc"
    with pytest.raises(OSError, match=rf"^{long}: the file could not be written: File name too long$"):
        write_usd(long, mesh)
    (tmp_path / "b.usdc").mkdir()
    with pytest.raises(ValueError, match=r"b\.usdc: expected the path of a file to write, found a folder$"):
        write_usd(tmp_path / "b.usdc", mesh)
    (tmp_path / "c").write_text("x")
    with pytest.raises(ValueError, match=rf"^{tmp_path / 'c' / 'd.usda'}: {tmp_path / 'c'} is a file, not a folder$"):
        write_usd(tmp_path / "c" / "d.usda", mesh)
    assert capfd.readouterr().err == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.usdc", "c"]

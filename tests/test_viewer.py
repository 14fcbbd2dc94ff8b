"""The viewer, without a display: polyscope's mock backend, and EGL where it is installed."""

import os
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import torch

from warpdvr import Camera, make, render
from warpdvr.fields.analytic import Torus
from warpdvr.geometry.isosurface import extract
from warpdvr.geometry.mesh import Mesh
from warpdvr.viewer import progressive
from warpdvr.viewer import window as viewer

SIZE = 400, 300


class Counted(torch.nn.Module):
    """A field that counts the points it is asked for."""

    def __init__(self, field):
        super().__init__()
        self.field, self.asked = field, 0
        self.bounds, self.lipschitz = field.bounds, field.lipschitz

    def value(self, x):
        self.asked += len(x)
        return self.field.value(x)

    def geometry(self, x):
        return self.value(x), None

    def color(self, *at):
        return self.field.color(*at)


@pytest.fixture
def mock():
    """Return polyscope, with a backend that draws nothing."""
    ps = pytest.importorskip("polyscope", exc_type=ImportError)
    if ps.is_initialized() and ps.get_render_engine_backend_name() != "openGL_mock":
        ps.shutdown()
    ps.set_allow_headless_backends(True)
    ps.set_use_prefs_file(False)
    ps.init("openGL_mock")
    viewer._arrange(ps, (96, 72), (0.0, 0.0, 1.0))
    yield ps
    ps.remove_everything()


@pytest.fixture
def shoot(tmp_path):
    """Return a function that shows something as `viewer.view` does, as pixels (h, w, 3) in [0, 255]."""
    try:
        viewer._start(headless=True)
    except RuntimeError as problem:
        pytest.skip(str(problem))

    def pixels(field, **options):
        viewer.view(field, screenshot=tmp_path / "view.png", **{"size": SIZE, **options})
        return np.asarray(PIL.Image.open(tmp_path / "view.png")).astype(int)

    return pixels


@pytest.fixture
def handed(mock, monkeypatch):
    """Return the list of everything that is handed to polyscope: what, and its depth."""
    found = []

    def noted(name, add):
        def note(*at, **options):
            found.append((name.split("_render")[0], at[1]))
            return add(*at, **options)

        return note

    for name in ("add_raw_color_render_image_quantity", "add_depth_render_image_quantity"):
        monkeypatch.setattr(mock, name, noted(name, getattr(mock, name)))
    return found


def widths(found):
    return [depth.shape[1] for _, depth in found]


def finish(picture):
    for n in range(10_000):
        if not picture.step():
            return n
    raise AssertionError("never idle")


def test_refines_to_the_full_picture_and_then_asks_nothing(handed):
    field = Counted(make("torus"))
    picture = progressive.Progressive(field)
    finish(picture)
    assert widths(handed) == [12, 24, 48, 96]
    asked = field.asked
    assert asked > 0
    assert not any(picture.step() for _ in range(5))
    assert field.asked == asked and len(handed) == 4


def test_bands_are_the_image_of_the_whole_camera(handed, monkeypatch):
    monkeypatch.setattr(progressive, "PATIENCE", 0.0)  # bands as small as the first stage, 12 x 9
    steps = finish(progressive.Progressive(make("torus")))
    assert steps == 1 + 5 + 18 + 72
    with torch.no_grad():
        whole = render(make("torus"), progressive.view_camera())
    depth = torch.from_numpy(handed[-1][1])
    assert (depth.isfinite() != whole.mask).sum() <= 2
    both = depth.isfinite() & whole.mask
    assert both.sum() > 500
    assert (depth - whole.depth)[both].abs().max() < 1e-4


def test_a_moved_camera_starts_over_at_once(handed, mock):
    picture = progressive.Progressive(make("torus"))
    assert picture.step() and picture.step()
    before = len(handed)
    mock.look_at((2.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    assert picture.step()
    assert widths(handed)[before:] == [12]
    finish(picture)
    assert widths(handed)[before:] == [12, 24, 48, 96]


def test_invalidate_starts_over_and_a_way_to_show_it_does_not(handed):
    field = Counted(make("torus"))
    picture = progressive.Progressive(field)
    finish(picture)
    asked = field.asked
    for what in ("clay", "normals", "color"):
        picture.show(what)
    assert not picture.step() and field.asked == asked
    assert [kind for kind, _ in handed[4:]] == ["add_depth", "add_raw_color", "add_raw_color"]
    picture.invalidate()
    finish(picture)
    assert field.asked > asked
    assert widths(handed)[7:] == [12, 24, 48, 96]


def test_the_window_calls_the_work_and_sees_a_change(handed, mock):
    mock.set_frame_tick_limit_fps_mode("ignore_limits")
    picture = progressive.Progressive(make("torus"), levels=(8.0,))
    changed = iter([False, True, False])
    mock.set_user_callback(lambda: viewer._frame(picture, lambda: next(changed)))
    for _ in range(3):
        mock.frame_tick()
    mock.clear_user_callback()
    assert widths(handed) == [12, 12]


def test_the_field_covers_its_own_mesh(shoot):
    field = make("torus")
    mesh = {"mesh": extract(field, resolution=96)}
    a, b = ((shoot(*at, **options) != 255).any(-1) for at, options in (((field,), {}), ((None,), {"meshes": mesh})))
    assert a.sum() > 10_000
    assert (a & b).sum() / (a | b).sum() >= 0.998


def test_a_wall_hides_the_field_only_where_it_is_in_front(shoot):
    """A wall of constant z-depth before and behind a plane of constant z-depth: ray lengths would leave the corners."""
    eye = torch.tensor([0.50, -0.70, 0.51], dtype=torch.float64) / np.sin(np.radians(viewer.FOV / 2))
    pose = Camera.look_at(eye, (0.0, 0.0, 0.0)).pose
    axis = pose[:3, 2].float()

    class Plane(torch.nn.Module):
        bounds = torch.tensor([[-9.0] * 3, [9.0] * 3])
        lipschitz = 1.0

        def value(self, x):
            return -(x @ axis)

        def geometry(self, x):
            return self.value(x), None

        def color(self, x, normal, direction, feature):
            return torch.tensor([1.0, 0.0, 0.0]).expand_as(x)

    red = np.array([255, 0, 0])
    for z, covered in ((-0.01, 1.0), (0.01, 0.0)):
        right, down = 9 * pose[:3, 0].float(), 9 * pose[:3, 1].float()
        corners = torch.stack([-right - down, right - down, right + down, -right + down]) + z * axis
        wall = Mesh(corners, torch.tensor([[0, 2, 1], [0, 3, 2]]))
        seen = shoot(Plane(), meshes={"wall": wall})
        assert (np.abs(seen - red).max(-1) > 2).mean() == covered


def test_an_orthographic_window_shows_the_field_where_meshes_are(shoot, monkeypatch):
    """Its own mesh is covered, and a wall is all before or all behind a plane of constant depth, up to the corners."""
    arrange = viewer._arrange

    def in_parallel(ps, *at):
        arrange(ps, *at)
        ps.set_view_projection_mode("orthographic")

    monkeypatch.setattr(viewer, "_arrange", in_parallel)
    test_the_field_covers_its_own_mesh(shoot)
    test_a_wall_hides_the_field_only_where_it_is_in_front(shoot)


def test_colours_appear_as_they_are(shoot):
    class Painted(Torus):
        def color(self, x, normal, direction, feature):
            return torch.tensor([0.2, 0.5, 0.8]).expand_as(x)

    seen = shoot(Painted())
    inside = (seen != 255).any(-1)
    assert np.abs(seen[inside] - np.array([51, 127.5, 204])).max() <= 1


def test_clay_is_lit_like_the_mesh(shoot):
    """Normals must arrive in view space: polyscope's own shading of the mesh says what they should look like."""
    field = make("torus")
    clay = shoot(field, style="clay")
    mesh = shoot(None, meshes={"mesh": extract(field, resolution=96)})
    both = (clay != 255).any(-1) & (mesh != 255).any(-1)
    assert np.median(np.abs(clay - mesh)[both]) <= 2
    assert np.abs(clay - mesh)[both].mean() < 3


def test_cameras_and_the_upright_axis_are_shown(shoot):
    seen = shoot(None, cameras=[Camera.look_at((0.3, 0.6, 0.2), up=(0, 1, 0))], up=(0.0, 1.0, 0.0))
    assert 20 < (seen < 200).any(-1).sum() < 5_000


def test_wrong_arguments_get_one_sentence(tmp_path):
    field = make("torus")
    for options, words in (
        ({"screenshot": tmp_path / "view.jpg"}, r"view\.jpg.*\.png"),
        ({"up": (0.0, 0.0, 0.0)}, "direction up"),
        ({"up": (0.0, 1.0)}, "direction up"),
        ({"size": (0, 3)}, "sizes"),
        ({"style": "glass"}, "glass"),
    ):
        with pytest.raises(ValueError, match=words):
            viewer.view(field, **options)
    with pytest.raises(ValueError, match="nothing to show"):
        viewer.view(None)


def test_without_a_display_a_screenshot_is_offered(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(RuntimeError, match=r"no display.*screenshot"):
        viewer.view(make("torus"))


def test_a_missing_library_names_its_packages(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "polyscope", None)
    with pytest.raises(RuntimeError, match="libegl1 libopengl0 libgl1-mesa-dri libx11-6"):
        viewer.view(make("torus"), screenshot=tmp_path / "view.png")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="EGL is Linux's")
def test_a_missing_driver_names_its_packages(tmp_path):
    code = "import warpdvr.viewer.window as v; v._start(headless=True)"
    env = {**os.environ, "__EGL_VENDOR_LIBRARY_DIRS": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert run.returncode == 1
    assert "libegl1 libopengl0 libgl1-mesa-dri libx11-6" in run.stderr


def test_importing_the_viewer_does_not_load_polyscope():
    code = "import sys, warpdvr.viewer.window; sys.exit(any('polyscope' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_small_field_fills_the_first_view_like_a_large_one(shoot):
    first, second = (
        (shoot(make("torus", major=0.6 * s, minor=0.25 * s, bounds=s)) != 255).any(-1) for s in (1.0, 1e-3)
    )
    assert first.sum() > 10_000
    assert (first & second).sum() / (first | second).sum() >= 0.995

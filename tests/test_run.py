"""The folder of a run: what is written into it, in which frame, and what is left alone."""

import json
import math
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch
from pxr import Usd, UsdGeom, UsdValidation  # noqa: TID253  (what is tested here is what it reads)

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets.views import Views
from warpdvr.fields.analytic import Box
from warpdvr.fitting.checkpoint import Checkpoint
from warpdvr.fitting.fit import Fit
from warpdvr.fitting.recipe import Recipe
from warpdvr.geometry.mesh import Mesh, read_mesh
from warpdvr.runs import products, run
from warpdvr.runs.run import Run
from warpdvr.runs.scene import Scene

SIZE = (0.4, 1.0, 0.6)
CENTRE, SCALE = torch.tensor([1.0, 2.0, 3.0]), 5.0
UP = (0.0, 1.0, 0.0)
STATE = {"counts": torch.tensor([7.0, 1234.0, 5.678], dtype=torch.float64)}


def cameras() -> tuple[Camera, ...]:
    eyes = [(3.0, 0.5, 0.0), (0.0, 0.8, 3.0), (-2.0, 1.0, -2.0)]
    return tuple(Camera.look_at(eye, up=UP, width=32, height=24) for eye in eyes)


def views(*, masked: bool = True) -> Views:
    """Three grey pictures of a box; views 1 and 2 are held out."""
    from warpdvr.rendering.render import render

    with torch.no_grad():
        images = [render(Box(SIZE), camera) for camera in cameras()]
    colours = tuple((255 * image.rgb).round().to(torch.uint8) for image in images)
    masks = tuple(image.mask if masked or i == 0 else None for i, image in enumerate(images))
    transform = SceneTransform.around(CENTRE, SCALE)
    return Views(colours, masks, cameras(), ("x", "y", "z"), (0,), (1, 2), transform, "a box")


def scene() -> Scene:
    return Scene(field={"kind": "box", "size": list(SIZE)})


@pytest.fixture
def held(tmp_path) -> Run:
    """A run of a box, as if it had been fitted: longest along y, which is up."""
    made = Run.create(tmp_path / "deep" / "run", scene())
    transform = SceneTransform.around(CENTRE, SCALE)
    weights = Box(SIZE).state_dict()
    Checkpoint("box", {"size": list(SIZE)}, weights, transform, UP, cameras(), STATE).save(made.checkpoint)
    return made


def box(held: Run) -> Box:
    field = held.load().field()
    assert isinstance(field, Box)
    return field


def test_new_run_holds_its_scene(tmp_path):
    made = Run.create(tmp_path / "a" / "b", scene())
    assert sorted(f.name for f in made.folder.iterdir()) == ["config.toml", "images"]
    assert Run.open(tmp_path / "a" / "b").scene() == scene()
    (tmp_path / "empty").mkdir()
    assert Run.create(tmp_path / "empty", scene()).config.is_file()


def test_nothing_is_replaced_unasked(held, tmp_path):
    before = {f: f.read_bytes() for f in held.folder.rglob("*") if f.is_file()}
    with pytest.raises(ValueError, match="already holds a run; continue it with --resume"):
        Run.create(held.folder, Scene())
    (tmp_path / "a").write_text("x")
    with pytest.raises(ValueError, match="expected a folder for the run, found a file"):
        Run.create(tmp_path / "a", scene(), overwrite=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="expected a new or empty folder for the run, found other files in it"):
            Run.create(tmp_path / "full", scene(), overwrite=overwrite)
    assert {f: f.read_bytes() for f in held.folder.rglob("*") if f.is_file()} == before
    assert [f.name for f in (tmp_path / "full").iterdir()] == ["letter.txt"]


def test_overwriting_replaces_the_run_and_nothing_else(held):
    (held.folder / "letter.txt").write_text("x")
    (held.images / "old.png").write_bytes(b"x")
    for path in (held.log, held.mesh, held.usd, held.scores):
        path.write_text("old")
    Run.create(held.folder, Scene(), overwrite=True)
    assert sorted(f.name for f in held.folder.iterdir()) == ["config.toml", "images", "letter.txt"]
    assert not any(held.images.iterdir()) and held.scene() == Scene()


def test_config_of_another_program_is_not_overwritten(tmp_path):
    (tmp_path / "config.toml").write_text('[server]\nport = 80\n[views]\nfolder = "a"\n')
    with pytest.raises(ValueError, match="expected the tables of a scene"):
        Run.create(tmp_path, scene(), overwrite=True)
    assert [f.name for f in tmp_path.iterdir()] == ["config.toml"]


@pytest.mark.parametrize("what", ["nothing", "a folder", "a file"])
def test_no_run_is_said_to_be_none(tmp_path, what):
    path = tmp_path / "run"
    if what == "a folder":
        path.mkdir()
    elif what == "a file":
        path.write_text("x")
    with pytest.raises(ValueError, match=f"expected the folder of a run, found {what}"):
        Run.open(path)


def test_mesh_is_in_the_units_of_the_data(held, tmp_path):
    products.write_mesh(held, box(held), resolution=24)
    products.write_mesh(held, box(held), tmp_path / "b.obj", resolution=24)
    for path in (held.mesh, tmp_path / "b.obj"):
        vertices = read_mesh(path).vertices
        assert torch.allclose(vertices.amax(0), CENTRE + SCALE * torch.tensor(SIZE) / 2, atol=0.05)
        assert torch.allclose(vertices.amin(0), CENTRE - SCALE * torch.tensor(SIZE) / 2, atol=0.05)


@pytest.mark.parametrize("up", [UP, (0.0, -1.0, 0.0), (0.0, 0.0, 1.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)])
def test_usd_has_z_up_and_passes_all_validators(held, up):
    replace(held.load(), up=up).save(held.checkpoint)
    products.write_scene(held, products.write_mesh(held, box(held), resolution=24))
    stage = Usd.Stage.Open(str(held.usd))
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    assert [e.GetMessage() for e in UsdValidation.ValidationContext(validators).Validate(stage)] == []
    assert UsdGeom.GetStageUpAxis(stage) == "Z"
    cache = UsdGeom.BBoxCache(Usd.TimeCode.Default(), ["default", "render"])
    found = cache.ComputeWorldBound(stage.GetPrimAtPath("/NeuralSurface/Geometry")).ComputeAlignedRange()
    axis = int(np.abs(up).argmax())
    assert found.GetSize()[2] == pytest.approx(SCALE * SIZE[axis], rel=0.02)
    assert found.GetMidpoint()[2] == pytest.approx(sum(up) * float(CENTRE[axis]), abs=0.1)
    seen = [prim for prim in stage.Traverse() if prim.IsA(UsdGeom.Camera)]
    assert len(seen) == len(cameras())
    at = UsdGeom.Xformable(seen[0]).ComputeLocalToWorldTransform(Usd.TimeCode.Default()).ExtractTranslation()
    eye = SCALE * cameras()[0].centre.float() + CENTRE
    assert at[2] == pytest.approx(float(eye @ torch.tensor(up)), abs=1e-3)


def test_scores_hold_what_was_measured(held):
    given = views()
    surface = products.write_mesh(held, box(held), resolution=40)
    scores = products.write_scores(held, box(held), given, surface, surface)
    written = json.loads(held.scores.read_text())
    assert written == scores
    assert (written["iterations"], written["field_evaluations"], written["seconds"]) == (7, 1234, 5.68)
    assert written["views"] == 2 and written["iou"] == 1 and written["psnr"] > 45
    assert written["chamfer_l1"] < 1e-3 * written["extent"]
    assert written["extent"] == pytest.approx(SCALE * max(SIZE), rel=0.02)
    names = sorted(f.name for f in held.images.iterdir())
    assert names == ["held_out_y.png", "held_out_z.png"]
    with PIL.Image.open(held.images / names[0]) as picture:
        assert picture.size == (64, 24)
        left = np.asarray(picture)[:, :32].astype(int)
    assert np.abs(left - given.images[1].numpy()).max() <= 1


def test_scores_without_masks_or_truth(held):
    scores = products.write_scores(held, box(held), views(masked=False), None, None)
    written = json.loads(held.scores.read_text())
    assert math.isnan(scores["psnr"]) and written["psnr"] is None and written["iou"] is None and written["views"] == 0
    assert "chamfer_l1" not in written


def test_pictures_and_turntable(held):
    products.write_pictures(held, box(held), size=24)
    path = products.write_turntable(held, box(held), frames=3, size=20)
    names = sorted(f.name for f in held.images.iterdir())
    assert names == ["turntable.gif", *(f"turntable_00{i}.png" for i in range(3)), "view_normal.png", "view_rgb.png"]
    with PIL.Image.open(path) as file:
        assert file.n_frames == 3 and file.size == (20, 20)  # type: ignore[attr-defined]
    with PIL.Image.open(held.images / "view_rgb.png") as picture:
        pixels = np.asarray(picture)
    seen = (pixels < 255).any(2)
    rows, columns = (np.ptp(a) + 1 for a in np.nonzero(seen))
    assert rows > columns  # the box is longest along y, which is up here


def test_true_mesh_is_the_one_that_is_named(tmp_path):
    a, b = (Mesh(torch.rand(3, 3) + i, torch.tensor([[0, 1, 2]])) for i in range(2))
    a.save(tmp_path / "a.ply")
    given = replace(views(), truth=b)
    found = products.true_mesh(tmp_path / "a.ply", given)
    assert found is not None and torch.allclose(found.vertices, a.vertices)
    assert products.true_mesh(None, given) is b and products.true_mesh(None, views()) is None


def test_fit_is_logged_and_saved(held):
    field = box(held)
    job = Fit(field, views(), iterations=40, recipe=Recipe(rays=32))
    notes = [note for _, note in run.fit(held, scene(), views(), field, job)]
    rows = [json.loads(line) for line in held.log.read_text().splitlines()]
    assert [row["iteration"] for row in rows] == list(range(4, 41, 4))
    assert all({"total", "mask", "color", "progress", "seconds", "psnr", "iou"} <= set(row) for row in rows)
    assert notes[2] == "" and notes[3].startswith("held out ")
    last = held.load()
    assert int(last.fit["counts"][0]) == 40 and last.up == UP and last.kind == "box"
    assert torch.equal(last.weights["size"], field.size)
    assert torch.equal(last.transform.matrix, views().transform.matrix)


def test_fit_can_be_resumed_from_its_very_start(held):
    field = box(held)
    held.checkpoint.unlink()
    job = Fit(field, views(), iterations=40, recipe=Recipe(rays=32))
    steps = run.fit(held, scene(), views(), job.field, job)
    next(steps)  # a kill leaves what is there now
    assert int(held.load().fit["counts"][0]) == 0
    again = Fit(box(held), views(), iterations=40, recipe=Recipe(rays=32))
    again.resume(held.load().fit)


def test_a_fit_that_goes_on_drops_what_is_out_of_date(held):
    held.log.write_text("".join(json.dumps({"iteration": i}) + "\n" for i in (4, 8, 12)) + '{"iterat')
    for file in (held.mesh, held.usd, held.scores):
        file.write_text("old")
    job = Fit(box(held), views(), iterations=40, recipe=Recipe(rays=32))
    job.iteration = 8
    steps = run.fit(held, scene(), views(), job.field, job)
    next(steps)
    assert [json.loads(row)["iteration"] for row in held.log.read_text().splitlines()] == [4, 8]
    assert not any(file.exists() for file in (held.mesh, held.usd, held.scores))


def test_fit_without_masks_on_held_out_views_says_no_score(held):
    given = views(masked=False)
    field = box(held)
    job = Fit(field, given, iterations=10, recipe=Recipe(rays=32))
    assert {note for _, note in run.fit(held, scene(), given, field, job)} == {""}
    rows = [json.loads(line) for line in held.log.read_text().splitlines()]
    assert rows and all("psnr" not in row for row in rows)


def test_fit_that_fails_keeps_its_last_weights(held):
    class Breaks(Box):
        left = 3

        def anneal(self, progress):  # called once in a step
            self.left -= 1

        def color(self, x, normal, direction, feature):
            return super().color(x, normal, direction, feature) * (math.nan if self.left < 0 else 1.0)

    field = Breaks(SIZE)
    job = Fit(field, views(), iterations=200, recipe=Recipe(rays=32))
    with pytest.raises(RuntimeError, match="the loss color is nan at step"):
        for _ in run.fit(held, scene(), views(), field, job):
            pass
    last = held.load()
    assert int(last.fit["counts"][0]) == job.iteration == 3
    assert torch.equal(last.weights["size"], field.size) and bool(field.size.isfinite().all())


@pytest.mark.parametrize("text", ["[views\n", "[viewz]\na = 1\n", "field = 3\n"])
def test_damaged_config_is_said_to_be_so(held, text):
    held.config.write_text(text)
    with pytest.raises(ValueError, match=r"config\.toml: expected the tables of a scene") as caught:
        Run.open(held.folder).scene()
    assert "\n" not in str(caught.value)


def test_mistakes_in_the_config_name_the_file(held):
    held.config.write_text('[fit]\nrecipe = "dvt"\n')
    with pytest.raises(ValueError, match=r"unknown recipe 'dvt'") as caught:
        Run.open(held.folder).scene()
    assert str(caught.value).startswith(f"{held.config}: ")


@pytest.mark.parametrize("deep", [("x",), ("x", "y")])
def test_a_run_below_a_file_is_refused_with_the_name_of_the_file(tmp_path, deep):
    (tmp_path / "a").write_text("x")
    folder = (tmp_path / "a").joinpath(*deep)
    with pytest.raises(ValueError, match=rf"^{folder}: {tmp_path / 'a'} is a file, not a folder$"):
        Run.create(folder, scene())


def test_the_check_of_a_new_run_changes_nothing(held):
    before = {f: f.read_bytes() for f in held.folder.rglob("*") if f.is_file()}
    Run(held.folder).check_new(overwrite=True)
    with pytest.raises(ValueError, match="already holds a run"):
        Run(held.folder).check_new()
    assert {f: f.read_bytes() for f in held.folder.rglob("*") if f.is_file()} == before

"""The command line: one small run from photographs to USD, and every kind of mistake."""

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import trimesh
from pxr import Usd, UsdValidation  # noqa: TID253  (what is tested here is what it reads)
from tqdm import tqdm

from warpdvr.cameras.camera import Camera
from warpdvr.cli import fit as fit_command
from warpdvr.cli import main as main_module
from warpdvr.cli import progress
from warpdvr.cli.main import main
from warpdvr.datasets.synthetic import mesh_views
from warpdvr.fields.analytic import Sphere, Union
from warpdvr.fields.sdf import SDF
from warpdvr.fitting.checkpoint import load
from warpdvr.fitting.fit import Fit
from warpdvr.geometry.mesh import read_mesh
from warpdvr.runs.scene import Scene

ITERATIONS = 60
BUNNY = f"""
[views]
mesh = "warp:bunny"
count = 6
test = 2
size = 48

[field]
kind = "sdf"
width = 32
depth = 2

[fit]
iterations = {ITERATIONS}

[mesh]
resolution = 48
"""

FILES = {"checkpoint.safetensors", "config.toml", "eval.json", "images", "log.jsonl", "mesh.ply", "scene.usdc"}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scene") / "bunny.toml"
    path.write_text(BUNNY)
    return path


@pytest.fixture(scope="module")
def fitted(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "deep" / "bunny"
    assert main(["fit", str(scene), "--out", str(out)]) == 0
    return out


@pytest.fixture
def copy(fitted: Path, tmp_path: Path) -> Path:
    """The same run, to be changed."""
    return shutil.copytree(fitted, tmp_path / "run")


def test_fit_writes_a_complete_run(fitted: Path) -> None:
    assert {f.name for f in fitted.iterdir()} == FILES
    images = {f.name for f in (fitted / "images").iterdir()}
    assert images == {"held_out_002.png", "held_out_006.png", "view_normal.png", "view_rgb.png"}
    scores = json.loads((fitted / "eval.json").read_text())
    assert {"psnr", "iou", "views", "field_evaluations", "seconds"} <= set(scores)
    assert {"chamfer_l1", "accuracy", "completeness", "extent"} <= set(scores)
    assert scores["views"] == 2 and scores["iterations"] == ITERATIONS and scores["field_evaluations"] > 1e4
    assert scores["iou"] > 0.7 and scores["psnr"] > 12 and scores["chamfer_l1"] < 0.06 * scores["extent"]
    assert scores["chamfer_l1"] == pytest.approx((scores["accuracy"] + scores["completeness"]) / 2)


def test_log_goes_to_the_end_and_the_loss_falls(fitted: Path) -> None:
    rows = [json.loads(line) for line in (fitted / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["iteration"] == ITERATIONS and rows[-1]["progress"] == 1
    assert rows[-1]["total"] < rows[0]["total"] and rows[-1]["iou"] > rows[0]["iou"]


def test_mesh_lies_where_the_true_one_does(fitted: Path) -> None:
    truth = mesh_views("warp:bunny", count=2, test=0, size=4).truth
    assert truth is not None
    found = read_mesh(fitted / "mesh.ply").vertices
    extent = (truth.vertices.amax(0) - truth.vertices.amin(0)).max()
    for corner in (torch.amax, torch.amin):
        assert (corner(found, 0) - corner(truth.vertices, 0)).abs().max() < 0.15 * extent


def usd_errors(path: Path) -> list[str]:
    validators = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    assert len(validators) > 20
    return [e.GetMessage() for e in UsdValidation.ValidationContext(validators).Validate(Usd.Stage.Open(str(path)))]


def test_usd_passes_all_validators(fitted: Path) -> None:
    assert usd_errors(fitted / "scene.usdc") == []


def test_field_of_the_checkpoint_is_the_one_that_was_asked_for(fitted: Path) -> None:
    held = load(fitted / "checkpoint.safetensors")
    field = held.field()
    assert isinstance(field, SDF) and field.distance.layers[0].out_features == 32
    assert held.up == (0.0, 1.0, 0.0) and len(held.cameras) == 8


def test_the_same_command_has_the_same_result(fitted: Path, scene: Path, tmp_path: Path) -> None:
    assert main(["fit", str(scene), "--out", str(tmp_path / "again")]) == 0
    for name in ("config.toml", "mesh.ply"):
        assert (tmp_path / "again" / name).read_bytes() == (fitted / name).read_bytes()
    a, b = (load(f / "checkpoint.safetensors").weights for f in (fitted, tmp_path / "again"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_render(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", str(copy), "--frames", "3", "--size", "48"]) == 0
    assert "turntable.gif" in capsys.readouterr().out
    with PIL.Image.open(copy / "images" / "turntable.gif") as file:
        assert file.n_frames == 3 and file.size == (48, 48)  # type: ignore[attr-defined]
    for i in range(3):
        with PIL.Image.open(copy / "images" / f"turntable_00{i}.png") as picture:
            seen = (np.asarray(picture) < 250).any(2).mean()
            assert picture.size == (48, 48) and 0.05 < seen < 0.9


def test_mesh(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(copy)
    assert main(["mesh", str(copy), "--resolution", "32", "--out", str(tmp_path / "x.obj")]) == 0
    coarse = read_mesh(tmp_path / "x.obj")
    assert f"{len(coarse.vertices)} vertices, {len(coarse.faces)} triangles" in capsys.readouterr().out
    fine = read_mesh(copy / "mesh.ply")
    assert len(coarse.vertices) < 0.7 * len(fine.vertices)
    for corner in (torch.amax, torch.amin):
        assert (corner(coarse.vertices, 0) - corner(fine.vertices, 0)).abs().max() < 0.05
    assert contents(copy) == before
    assert main(["mesh", str(copy), "--resolution", "32", "--largest"]) == 0
    assert len(read_mesh(copy / "mesh.ply").vertices) <= len(coarse.vertices)


@pytest.mark.parametrize(("options", "pieces"), [([], 1), (["--smallest", "0"], 2)])
def test_debris_is_left_out_of_a_mesh_unless_it_is_wanted(
    copy: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], pieces: int
) -> None:
    both = Union([Sphere(0.5), Sphere(0.08, (0.8, 0.0, 0.0))])  # 1/244 of the volume
    monkeypatch.setattr("warpdvr.runs.run.Run.field", lambda self, device: both)
    assert main(["mesh", str(copy), "--resolution", "64", *options]) == 0
    mesh = read_mesh(copy / "mesh.ply")
    whole = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
    assert whole.body_count == pieces


def test_usd(copy: Path, tmp_path: Path) -> None:
    (copy / "mesh.ply").unlink()  # it is then made first
    assert main(["usd", str(copy), "--out", str(tmp_path / "x.usda")]) == 0
    assert (tmp_path / "x.usda").read_bytes().startswith(b"#usda") and usd_errors(tmp_path / "x.usda") == []
    assert (copy / "mesh.ply").is_file()
    (copy / "scene.usdc").unlink()
    assert main(["usd", str(copy)]) == 0 and usd_errors(copy / "scene.usdc") == []


def test_eval_against_a_true_mesh(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads((copy / "eval.json").read_text())
    truth = mesh_views("warp:bunny", count=2, test=0, size=4).truth
    assert truth is not None
    truth.save(tmp_path / "true.ply")
    (copy / "eval.json").unlink()
    assert main(["eval", str(copy), "--mesh-gt", str(tmp_path / "true.ply")]) == 0
    after = json.loads((copy / "eval.json").read_text())
    assert after.pop("evaluation") == before.pop("evaluation")
    assert after == pytest.approx(before, rel=1e-4)
    said = capsys.readouterr().out
    assert "IoU" in said and "Chamfer-L1" in said and "eval.json" in said
    shutil.copy(copy / "mesh.ply", tmp_path / "mine.ply")
    assert main(["eval", str(copy), "--mesh-gt", str(tmp_path / "mine.ply")]) == 0
    assert json.loads((copy / "eval.json").read_text())["chamfer_l1"] < 1e-4


def test_eval_says_how_fine_its_mesh_is(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A coarse mesh that replaced that of the run has other scores."""
    shutil.copy(copy / "mesh.ply", tmp_path / "true.ply")
    assert main(["mesh", str(copy), "--resolution", "12"]) == 0
    capsys.readouterr()
    assert main(["eval", str(copy), "--mesh-gt", str(tmp_path / "true.ply")]) == 0
    coarse, scores = read_mesh(copy / "mesh.ply"), json.loads((copy / "eval.json").read_text())
    assert (scores["mesh_vertices"], scores["mesh_triangles"]) == (len(coarse.vertices), len(coarse.faces))
    assert f"our mesh   {len(coarse.vertices)} vertices, {len(coarse.faces)} triangles" in capsys.readouterr().out


def test_resume_goes_on_for_longer(copy: Path) -> None:
    assert main(["fit", "--resume", "--out", str(copy), "--iterations", str(ITERATIONS + 20)]) == 0
    rows = [json.loads(line) for line in (copy / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["iteration"] == ITERATIONS + 20 and rows[-1]["progress"] == 1
    steps = [row["iteration"] for row in rows]
    assert steps == sorted(steps)
    assert json.loads((copy / "eval.json").read_text())["iterations"] == ITERATIONS + 20


def test_resume_of_a_finished_run_changes_no_weight(fitted: Path, copy: Path) -> None:
    assert main(["fit", "--resume", "--out", str(copy)]) == 0
    a, b = (load(f / "checkpoint.safetensors").weights for f in (fitted, copy))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_overwrite(copy: Path, scene: Path) -> None:
    assert (
        main(["fit", str(scene), "--out", str(copy), "--overwrite", "--iterations", "3", "--seed", "4"]) == 3
    )  # too short
    assert {f.name for f in copy.iterdir()} == FILES
    assert json.loads((copy / "eval.json").read_text())["iterations"] == 3
    config = (copy / "config.toml").read_text()
    assert "iterations = 3" in config and "seed = 4" in config


def test_interrupted_fit_can_be_resumed(
    fitted: Path, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(Fit):
        def __next__(self):
            if self.iteration == 17:
                raise KeyboardInterrupt
            return super().__next__()

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(fit_command, "Fit", Interrupted)
        assert main(["fit", str(scene), "--out", str(out)]) == 130
    last_line = capsys.readouterr().err.splitlines()[-1]
    assert last_line.startswith("warpdvr: interrupted") and f"--out {out} --resume" in last_line
    assert int(load(out / "checkpoint.safetensors").fit["counts"][0]) == 17
    assert main(["fit", "--resume", "--out", str(out)]) == 0
    assert {f.name for f in out.iterdir()} == FILES
    a, b = (load(f / "checkpoint.safetensors").weights for f in (fitted, out))
    assert all(torch.equal(a[k], b[k]) for k in a)  # as if it had never been interrupted


def test_interrupted_between_two_steps(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Bar(tqdm):
        shown = 0

        def set_postfix_str(self, *args, **options):
            Bar.shown += 1
            if Bar.shown == 9:
                raise KeyboardInterrupt

    monkeypatch.setattr(progress, "tqdm", Bar)
    assert main(["fit", str(scene), "--out", str(tmp_path / "run")]) == 130
    assert int(load(tmp_path / "run" / "checkpoint.safetensors").fit["counts"][0]) == 9


@dataclass(frozen=True)
class Case:
    """A mistake in the photographs: what is done to a good IDR folder, and what the message must say."""

    spoil: Callable[[Path], object]
    said: str


def write_idr(folder: Path) -> None:
    """Four photographs of an ellipse, with masks, 40 x 30 pixels."""
    v, u = np.mgrid[:30, :40]
    mask = ((u - 20) / 12) ** 2 + ((v - 15) / 9) ** 2 < 1
    arrays = {}
    for name in ("image", "mask"):
        (folder / name).mkdir(parents=True)
    for i in range(4):
        camera = Camera.look_at((3 * np.cos(i), 3 * np.sin(i), 0.5), width=40, height=30)
        K, R, t = (a.numpy() for a in camera.krt())
        world = np.eye(4)
        world[:3] = (K - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]) @ np.column_stack([R, t])  # centres at integers
        arrays[f"world_mat_{i}"], arrays[f"scale_mat_{i}"] = world, np.eye(4)
        PIL.Image.fromarray(np.where(mask[..., None], [200, 120, 40], 0).astype(np.uint8)).save(
            folder / f"image/{i}.png"
        )
        PIL.Image.fromarray((255 * mask).astype(np.uint8)).save(folder / f"mask/{i}.png")
    np.savez(folder / "cameras.npz", **arrays)  # type: ignore[arg-type]


def change_camera(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    with np.load(folder / "cameras.npz") as file:
        arrays = dict(file)
    change(arrays)
    np.savez(folder / "cameras.npz", **arrays)


def only(folder: Path, *names: str) -> None:
    """Remove everything but `names`."""
    for path in folder.iterdir():
        if path.name not in names:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def clear_mask(folder: Path) -> None:
    PIL.Image.fromarray(np.zeros((30, 40), np.uint8)).save(folder / "mask/2.png")


def small_mask(folder: Path) -> None:
    PIL.Image.fromarray(np.full((15, 20), 255, np.uint8)).save(folder / "mask/2.png")


PHOTOGRAPHS = {
    "missing folder": Case(shutil.rmtree, "expected a scene file (.toml) or a folder of photographs, found nothing"),
    "empty folder": Case(only, "found an empty folder"),
    "no known format": Case(lambda f: only(f, "image"), "expected a camera file of a known format"),
    "no photographs": Case(lambda f: only(f, "cameras.npz"), "in a folder image or images, found neither"),
    "one photograph too few": Case(lambda f: (f / "image/1.png").unlink(), "is missing, expected it at"),
    "one mask too few": Case(lambda f: (f / "mask/1.png").unlink(), "world_mat_1: the mask 'mask/1.png' is missing"),
    "image that is none": Case(lambda f: (f / "image/1.png").write_text("x"), "1.png: expected a picture"),
    "image cut short": Case(
        lambda f: (f / "image/1.png").write_bytes((f / "image/1.png").read_bytes()[:80]), "1.png: expected a picture"
    ),
    "mask of another size": Case(
        small_mask, "2.png: the mask must have the size of its image, found a mask of 20 x 15"
    ),
    "empty mask": Case(clear_mask, "2.png: the mask is empty"),
    "cameras that are none": Case(
        lambda f: (f / "cameras.npz").write_text("x"), "expected an npz file of plain arrays"
    ),
    "NaN in a camera": Case(
        lambda f: change_camera(f, lambda a: a["world_mat_1"].__setitem__((0, 0), np.nan)),
        "world_mat_1 holds a number that is not finite",
    ),
    "singular P": Case(
        lambda f: change_camera(f, lambda a: a["world_mat_1"].__setitem__(0, a["world_mat_1"][1])),
        "world_mat_1: camera: P is singular",
    ),
}


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must fail; return its one line on stderr."""
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("warpdvr: ") and "Traceback" not in said
    return said


def test_a_known_surface_gets_new_colours(
    fitted: Path, scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "painted"
    assert main(["fit", str(scene), "--shape", str(fitted), "--out", str(out), "--iterations", "30"]) == 0
    before, after = load(fitted / "checkpoint.safetensors").weights, load(out / "checkpoint.safetensors").weights
    assert all(torch.equal(after[f"shape.{name}"], value) for name, value in before.items())
    assert read_mesh(out / "mesh.ply").vertices.shape == read_mesh(fitted / "mesh.ply").vertices.shape
    assert main(["fit", "--out", str(out), "--resume", "--iterations", "40"]) == 0
    again = tmp_path / "again"
    assert main(["fit", str(out / "config.toml"), "--out", str(again), "--iterations", "1"]) == 0
    repeated = load(again / "checkpoint.safetensors").weights
    assert all(torch.equal(repeated[f"shape.{name}"], value) for name, value in before.items())
    assert "resumed keeps its shape" in refused(capsys, "fit", "--out", out, "--resume", "--shape", fitted)
    write_idr(tmp_path / "elsewhere")
    said = refused(capsys, "fit", tmp_path / "elsewhere", "--shape", fitted, "--out", tmp_path / "new")
    assert "its scene frame is another" in said and not (tmp_path / "new").exists()


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    write_idr(tmp_path / "data")
    return tmp_path / "data"


def test_photographs_without_a_mistake_are_fitted(photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, scene = photographs.parent / "run", photographs.parent / "a.toml"
    scene.write_text('[views]\nfolder = "data"\n[fit]\nminutes = 9\n[mesh]\nresolution = 24\n')
    assert main(["fit", str(scene), "--out", str(out), "--field", "sphere", "--iterations", "2"]) == 3  # too short
    assert {f.name for f in out.iterdir()} == FILES
    assert "IDR / NeuS, cameras.npz: 4 views of 40 x 30 pixels" in capsys.readouterr().out
    config = (out / "config.toml").read_text()
    assert 'kind = "sphere"' in config and "iterations = 2" in config and "minutes" not in config


def test_photographs_without_masks_are_fitted(photographs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(photographs / "mask")
    out = photographs.parent / "run"
    command = ["fit", str(photographs), "--out", str(out), "--field", "sphere", "--iterations", "2"]
    assert main(command) == 0
    assert {f.name for f in out.iterdir()} == FILES | {"masks"}
    assert len(list((out / "masks").iterdir())) == 3
    assert "Masks derived from colours for 3 of 3 views" in capsys.readouterr().out


@pytest.mark.parametrize("kind", PHOTOGRAPHS)
def test_mistakes_in_photographs(photographs: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    case = PHOTOGRAPHS[kind]
    case.spoil(photographs)
    out = photographs.parent / "run"
    assert case.said in refused(capsys, "fit", photographs, "--out", out, "--iterations", 2)
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--field", "cube"], "unknown field 'cube'; known are box, deepsdf, hashgrid, hashgrid-occupancy, occupancy"),
        (["--field", "repaint"], "is painted by --shape RUN"),
        (["--minutes", "0"], "minutes must be positive, got 0"),
        (["--minutes", "-1"], "minutes must be positive, got -1"),
        (["--minutes", "nan"], "minutes must be positive, got nan"),
        (["--iterations", "0"], "iterations must be positive, got 0"),
        (["--seed", "1" + "0" * 30], "seed must lie between"),
        (["--seed", "-1"], "seed must lie between"),
        (["--resume"], "a run that is resumed keeps its scene"),
    ],
)
def test_mistakes_in_options(
    photographs: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    out = photographs.parent / "run"
    assert said in refused(capsys, "fit", photographs, "--out", out, *options)
    assert not out.exists()


@pytest.mark.parametrize("text", ["[field\n", "[fit]\nspeed = 1\n", '[views]\nmesh = "warp:bunny"\nsize = "4"\n'])
def test_mistakes_in_scene_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    refused(capsys, "fit", tmp_path / "a.toml", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_scene_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected a scene file or a folder of photographs" in refused(capsys, "fit", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_folders_in_use_are_left_alone(
    fitted: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(fitted)
    given = "--iterations", 2
    assert "already holds a run" in refused(capsys, "fit", photographs, "--out", fitted, *given)
    assert "keeps its field" in refused(capsys, "fit", "--resume", "--out", fitted, "--field", "occupancy")
    assert "keeps its field" in refused(capsys, "fit", "--resume", "--out", fitted, "--seed", 5)
    assert contents(fitted) == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("x")
    for more in ([], ["--overwrite"]):
        said = refused(capsys, "fit", photographs, "--out", tmp_path / "full", *given, *more)
        assert "expected a new or empty folder for the run" in said
    assert contents(tmp_path / "full") == {"letter.txt": b"x"}
    assert "found a file" in refused(capsys, "fit", photographs, "--out", tmp_path / "full" / "letter.txt", *given)
    assert set(contents(photographs)) == {"cameras.npz", *(f"{k}/{i}.png" for k in ("image", "mask") for i in range(4))}


@pytest.mark.parametrize("command", ["render", "mesh", "usd", "eval", "view"])
def test_folder_that_is_no_run(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, command, tmp_path)
    assert "expected the folder of a run, found a folder without config.toml" in said
    said = refused(capsys, command, tmp_path / "none")
    assert f"{tmp_path / 'none'}: expected the folder of a run" in said and "found nothing" in said
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["render", "RUN", "--frames", "0"], "frames must be positive, got 0"),
        (["render", "RUN", "--size", "0"], "size must be positive, got 0"),
        (["render", "RUN", "--size", "-3"], "size must be positive, got -3"),
        (["mesh", "RUN", "--resolution", "-5"], "resolution must be at least 1, got -5"),
        (["mesh", "RUN", "--resolution", "0"], "resolution must be at least 1, got 0"),
        (["mesh", "RUN", "--smallest", "1"], "smallest must be a share from 0 to less than 1, got 1.0"),
        (["mesh", "RUN", "--resolution", "8", "--out", "TMP/x.stl"], "written as .ply or .obj, not as .stl"),
        (["mesh", "RUN", "--resolution", "8", "--out", "TMP/none/x.ply"], "there is no folder"),
        (["usd", "RUN", "--out", "TMP/x.fbx"], "not as .fbx"),
        (["eval", "RUN", "--mesh-gt", "TMP/none.ply"], "none.ply: there is no such file"),
        (["eval", "RUN", "--mesh-gt", "TMP"], "a mesh is read from .ply, .obj or .off"),
        (["view", "RUN", "--screenshot", "TMP/x.jpg"], "x.jpg: a screenshot is written as .png"),
    ],
)
def test_mistakes_with_a_run_leave_it_as_it_is(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    before = contents(fitted)
    told = [a.replace("RUN", str(fitted)).replace("TMP", str(tmp_path)) for a in arguments]
    assert said in refused(capsys, *told)
    assert contents(fitted) == before and not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mesh", "RUN", "--out", "TMP/none/x.ply"], "there is no folder"),
        (["mesh", "RUN", "--out", "TMP/file/x.ply"], "file is a file, not a folder"),
        (["mesh", "RUN", "--out", "TMP/folder.ply"], "expected the path of a file to write, found a folder"),
        (["mesh", "RUN", "--out", "TMP/x.stl"], "written as .ply or .obj, not as .stl"),
        (["usd", "RUN", "--out", "TMP/none/x.usda"], "there is no folder"),
        (["usd", "RUN", "--out", "TMP/x.fbx"], "written as .usd, .usdc or .usda, not as .fbx"),
        (["view", "RUN", "--screenshot", "TMP/none/x.png"], "there is no folder"),
        (["refine-cameras", "RUN", "--out", "TMP/file/cameras"], "file is a file, not a folder"),
    ],
)
def test_a_path_is_refused_before_the_work(
    copy: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("the work has begun")

    for name in ("load", "field"):
        monkeypatch.setattr(f"warpdvr.runs.run.Run.{name}", work)
    (tmp_path / "file").touch()
    (tmp_path / "folder.ply").mkdir()
    assert said in refused(capsys, *(a.replace("RUN", str(copy)).replace("TMP", str(tmp_path)) for a in arguments))


def test_a_fit_of_a_field_without_inside_leaves_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = tmp_path / "empty.toml"
    scene.write_text(
        '[views]\nmesh = "warp:bunny"\ncount = 3\ntest = 1\nsize = 16\n[field]\nkind = "plane"\noffset = -5.0\n'
    )
    said = refused(capsys, "fit", scene, "--out", tmp_path / "run", "--iterations", "3")
    assert "fit: no sampled value is negative" in said and "is the sign turned round" in said
    assert not (tmp_path / "run").exists()


def test_a_warning_is_one_sentence(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warpdvr.runs.run.Run.field", lambda self, device: Sphere(-0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["render", str(copy), "--frames", "2", "--size", "8"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("warpdvr: render: hardly any ray hits: no sampled value is negative")


@pytest.mark.parametrize("command", ["render", "mesh", "eval", "fit"])
def test_damaged_checkpoint(copy: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    path = copy / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    before = contents(copy)
    said = refused(capsys, command, *(["--resume", "--out", copy] if command == "fit" else [copy]))
    assert f"{path}: expected a checkpoint of warpdvr" in said
    assert contents(copy) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "expected a command"),
        (["paint"], "there is no command 'paint'"),
        (["fit", "a"], "fit needs --out RUN"),
        (["fit", "a", "--out", "b", "--minutes", "1", "--iterations", "2"], "contradict each other"),
        (["fit", "a", "--out", "b", "--resume", "--overwrite"], "contradict each other"),
        (["fit", "a", "--out", "b", "--iterations", "many"], "expected a whole number, got 'many'"),
        (["render", "a", "--device", "abacus"], "expected cpu or cuda, got 'abacus'"),
        (["render", "a", "--device", "meta"], "expected cpu or cuda, got 'meta'"),
    ],
)
def test_command_lines_that_make_no_sense(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_cuda_is_asked_for_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        main(["render", "a", "--device", "cuda"])
    assert ended.value.code == 2 and "Torch finds no CUDA device here" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["--version"]])
def test_help(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    said = capsys.readouterr().out
    assert ended.value.code == 0
    if arguments == ["--help"]:
        assert all(f"\n    {command} " in said for command in ("fit", "render", "mesh", "usd", "eval", "view"))
    if arguments == ["fit", "--help"]:
        assert "occupancy" in said and "--resume" in said
    if arguments == ["--version"]:
        assert said.startswith("warpdvr 0.")


def test_program_itself(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("warpdvr")
    program = [str(script)] if script.is_file() else [sys.executable, "-m", "warpdvr.cli.main"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = ["fit", str(tmp_path / "none"), "--out", str(tmp_path / "run")]
    done = subprocess.run([*program, *arguments], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("warpdvr: ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def interrupt(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("step", ["import_module", "_command_name"])
def test_an_interruption_at_any_moment_takes_one_line(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main_module, step, interrupt)
    assert main(["fit", str(tmp_path), "--out", str(tmp_path / "run")]) == 130
    assert capsys.readouterr().err == "warpdvr: interrupted\n"


def test_an_interruption_while_options_are_parsed_takes_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("warpdvr.cli.parser.parse", interrupt)
    assert main(["fit", str(tmp_path), "--out", str(tmp_path / "run")]) == 130
    assert capsys.readouterr().err == "warpdvr: interrupted\n"


def test_the_run_of_another_command_is_not_offered_to_be_resumed(
    copy: Path, scene: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(copy)
    monkeypatch.setattr(Scene, "load_views", interrupt)
    assert main(["fit", str(scene), "--out", str(copy), "--overwrite"]) == 130
    assert capsys.readouterr().err == "warpdvr: interrupted\n"
    assert contents(copy) == before
    assert main(["fit", "--resume", "--out", str(copy)]) == 130
    assert f"go on with: warpdvr fit --out {copy} --resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["SCENE", "--out", "NEW", "--minutes", "-1"], "--minutes must be positive, got -1"),
        (["SCENE", "--out", "NEW", "--minutes", "nan"], "--minutes must be positive, got nan"),
        (["SCENE", "--out", "NEW", "--iterations", "0"], "--iterations must be positive, got 0"),
        (["SCENE", "--out", "RUN"], "already holds a run"),
        (
            ["--resume", "--out", "STOPPED"],
            "checkpoint.safetensors: expected a checkpoint to resume from, found nothing; start",
        ),
        (["WIDTH", "--out", "NEW"], "width.toml: a perceptron needs width >= 1"),
        (["LEVELS", "--out", "NEW"], "levels.toml: HashEncoding: needs levels >= 1"),
        (["SCENE", "--out", "SCENE/x"], "bunny.toml is a file, not a folder"),
    ],
)
def test_what_is_cheap_to_refuse_is_refused_before_views_are_loaded(
    fitted: Path,
    scene: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    def fail(scene: Scene) -> None:
        raise AssertionError("the views were loaded")

    (tmp_path / "width.toml").write_text(BUNNY.replace("width = 32", "width = -3"))
    hashgrid = 'kind = "hashgrid"\nlevels = 0\n'
    (tmp_path / "levels.toml").write_text(BUNNY.replace('kind = "sdf"\nwidth = 32\ndepth = 2\n', hashgrid))
    (tmp_path / "stopped").mkdir()
    shutil.copy(fitted / "config.toml", tmp_path / "stopped")
    places = {"SCENE": scene, "RUN": fitted, "STOPPED": tmp_path / "stopped", "NEW": tmp_path / "new"}
    places |= {"WIDTH": tmp_path / "width.toml", "LEVELS": tmp_path / "levels.toml"}
    words = ["/".join(str(places.get(part, part)) for part in word.split("/")) for word in arguments]
    monkeypatch.setattr(Scene, "load_views", fail)
    before = contents(fitted)
    assert said in refused(capsys, "fit", *words)
    assert contents(fitted) == before and not (tmp_path / "new").exists()


def test_the_mesh_that_is_scored_and_the_time_are_named(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(copy)]) == 0
    assert f"mesh       {copy / 'mesh.ply'}" in capsys.readouterr().out
    assert main(["fit", "--resume", "--out", str(copy)]) == 0
    assert re.search(r"^60 steps, \d+ million field evaluations, \d+ s of fitting$", capsys.readouterr().out, re.M)

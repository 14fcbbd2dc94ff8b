"""The commands about a category: from meshes to a page of reconstructions, and every kind of mistake."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from warpdvr.cli.main import main
from warpdvr.geometry.mesh import read_mesh
from warpdvr.singleview import reconstructor as model
from warpdvr.singleview import run as category_run
from warpdvr.singleview.reconstructor import CategoryCheckpoint, Reconstructor

SOLIDS = {
    "ball": trimesh.creation.icosphere(2),
    "box": trimesh.creation.box((1, 1, 1)),
    "long": trimesh.creation.box((2, 0.4, 0.5)),
    "low": trimesh.creation.box((1, 0.3, 1)),
    "tall": trimesh.creation.box((0.4, 1.5, 0.6)),
}

MINUTES = "0.01"

TRAINED = {"category.toml", "checkpoint.safetensors", "log.jsonl"}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture(autouse=True, scope="module")
def small() -> Any:
    """Let runs learn with small networks."""
    tiny = partial(Reconstructor, code=8, encoder=4, width=16, blocks=2, frequencies=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(category_run, "Reconstructor", tiny)
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with meshes in in/, pictures in out/ and a run in run/; not to be changed."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "in").mkdir()
    for name, solid in SOLIDS.items():
        solid.export(folder / f"in/{name}.ply")
    render = ["render-category", str(folder / "in"), str(folder / "out"), "--views", "6", "--size", "24"]
    assert main(render) == 0
    assert main(["train-category", str(folder / "out"), "--out", str(folder / "run"), "--minutes", MINUTES]) == 0
    return folder


@pytest.fixture
def copy(home: Path, tmp_path: Path) -> Path:
    """Return the same run, to be changed."""
    return shutil.copytree(home / "run", tmp_path / "run")


def refused(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    """Return the one sentence with which a command is refused."""
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "%|" not in line and line.strip()]
    assert len(said) == 1 and said[0].startswith("warpdvr: "), said
    return said[0]


def test_meshes_become_pictures(home: Path) -> None:
    assert {f.name for f in (home / "out").iterdir()} == {*SOLIDS, "render.json"}
    for name in SOLIDS:
        pictures = sorted((home / "out" / name / "image").iterdir())
        assert len(pictures) == 6
        with Image.open(pictures[0]) as image:
            assert image.size == (24, 24)


def test_training_writes_a_run(home: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert {f.name for f in (home / "run").iterdir()} == TRAINED
    learnt = model.load(home / "run/checkpoint.safetensors")
    assert learnt.held_out == ("low",) and learnt.folder == str(home / "out")
    first = learnt.training["counts"]
    assert 0.6 <= float(first[2]) < 10 and first[0] >= 1
    assert main(["train-category", "--out", str(copy), "--resume", "--minutes", str(float(first[2]) / 60 + 0.01)]) == 0
    assert f"{copy / 'checkpoint.safetensors'}" in capsys.readouterr().out
    second = model.load(copy / "checkpoint.safetensors").training["counts"]
    assert second[0] > first[0] and float(second[2]) >= float(first[2]) + 0.59
    before = contents(copy)["checkpoint.safetensors"]
    assert main(["train-category", "--out", str(copy), "--resume"]) == 0  # there is nothing left to do
    assert contents(copy)["checkpoint.safetensors"] == before
    rows = [json.loads(row) for row in (copy / "log.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == sorted({row["iteration"] for row in rows})


def test_networks_are_moved_to_the_device_that_is_asked_for(
    home: Path, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[object] = []
    move = CategoryCheckpoint.to

    def record(checkpoint: CategoryCheckpoint, device: torch.device) -> CategoryCheckpoint:
        moved.append(device)
        return move(checkpoint, device)

    monkeypatch.setattr(CategoryCheckpoint, "to", record)
    picture, quick = str(home / "out/low/image/0000.png"), ["--steps", "0", "--device", "cpu"]
    assert main(["train-category", "--out", str(copy), "--resume", "--device", "cpu"]) == 0
    out = ["--out", str(tmp_path / "a.ply"), "--resolution", "16"]
    assert main(["reconstruct-image", str(copy), picture, *out, *quick]) == 0
    assert main(["eval-category", str(copy), str(home / "in"), *quick]) == 0
    assert moved == [torch.device("cpu")] * 3


def test_a_run_is_replaced_if_that_is_wanted(home: Path, copy: Path) -> None:
    for name in ("page.png", "log.jsonl"):
        (copy / name).write_text("old")
    again = ["train-category", str(home / "out"), "--out", str(copy), "--minutes", "0.002", "--seed", "5"]
    assert main([*again, "--overwrite"]) == 0
    assert {f.name for f in copy.iterdir()} == TRAINED
    assert "old" not in (copy / "log.jsonl").read_text()
    assert "seed = 5" in (copy / "category.toml").read_text()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_picture_of_any_size_becomes_a_closed_mesh(home: Path, tmp_path: Path, mode: str) -> None:
    with Image.open(home / "out/low/image/0000.png") as image, Image.open(home / "out/low/mask/0000.png") as mask:
        cut = Image.merge("RGBA", (*image.convert("RGB").split(), mask.convert("L"))).resize((90, 70))
    white = Image.new("RGBA", cut.size, "white")
    white.alpha_composite(cut)
    (cut if mode == "RGBA" else white.convert("RGB")).save(tmp_path / "look.png")
    assert main(["reconstruct-image", str(home / "run"), str(tmp_path / "look.png"), "--resolution", "32"]) == 0
    assert {f.name for f in tmp_path.iterdir()} == {"look.png", "look.ply", "look_sides.png"}
    mesh = read_mesh(tmp_path / "look.ply")
    edges = np.sort(mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).numpy(), axis=1)
    assert len(edges) > 100 and (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
    assert trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False).volume > 0
    assert mesh.vertices.abs().max() < 1.1 and mesh.colors is not None
    with Image.open(tmp_path / "look_sides.png") as sides:
        assert sides.format == "PNG" and sides.size == (2 * 128, 128)


def test_alpha_and_white_say_the_same(home: Path, tmp_path: Path) -> None:
    """The colour below alpha 0 is not looked at."""
    random = np.random.default_rng(0)
    color = random.integers(0, 255, (24, 24, 3), dtype=np.uint8)
    alpha = np.zeros((24, 24, 1), np.uint8)
    alpha[6:18, 4:20] = 255
    Image.fromarray(np.concatenate([color, alpha], 2)).save(tmp_path / "a.png")
    Image.fromarray(np.where(alpha > 0, color, 255).astype(np.uint8)).save(tmp_path / "b.png")
    for name in "ab":
        given = ["reconstruct-image", str(home / "run"), str(tmp_path / f"{name}.png"), "--resolution", "16"]
        given += ["--steps", "0"]
        assert main([*given, "--out", str(tmp_path / f"{name}.obj")]) == 0
    assert (tmp_path / "a.obj").read_text() == (tmp_path / "b.obj").read_text()


def test_held_out_objects_are_compared_with_their_meshes(
    home: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["eval-category", str(copy), str(home / "in")]) == 0
    said = capsys.readouterr().out
    assert {f.name for f in copy.iterdir()} == TRAINED | {"scores.json", "page.png"}
    scores = json.loads((copy / "scores.json").read_text())
    assert list(scores) == ["reconstruction", "without refinement", "mean shape", "nearest shape"]
    for name, some in scores.items():
        assert len(some) == 1 and set(some[0]) == {"chamfer_l1", "f_score", "iou"}
        assert 0 < some[0]["chamfer_l1"] < 1 and 0 <= some[0]["f_score"] <= 1 and 0 < some[0]["iou"] < 1
        assert f"{100 * some[0]['chamfer_l1']:.2f} %" in next(row for row in said.splitlines() if row.startswith(name))
    with Image.open(copy / "page.png") as image:
        assert image.size == (5 * 128, 128)


def few(home: Path, folder: Path) -> Path:
    """Return a category of one object."""
    shutil.copytree(home / "out/box", folder / "few/box")
    return folder / "few"


def test_mistakes_in_training_are_told(
    home: Path, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new, one = tmp_path / "new", few(home, tmp_path)
    assert str(one) in refused(capsys, "train-category", one, "--out", new)
    assert "none" in refused(capsys, "train-category", tmp_path / "nowhere", "--out", new)
    assert "found 0" in refused(capsys, "train-category", home / "in", "--out", new)
    assert "got none" in refused(capsys, "train-category", "--out", new)
    assert "category.toml" in refused(capsys, "train-category", "--out", new, "--resume")
    for minutes in ("0", "-3", "nan", "inf"):
        assert "minutes" in refused(capsys, "train-category", home / "out", "--out", new, f"--minutes={minutes}")
    for depth in ("-1", "nan", "inf"):
        short = "--minutes", "0.001", f"--depth={depth}"
        assert "depth" in refused(capsys, "train-category", home / "out", "--out", new, *short)
    assert not new.exists()
    before = contents(copy)
    assert "--overwrite" in refused(capsys, "train-category", home / "out", "--out", copy)
    assert "found 0" in refused(capsys, "train-category", home / "in", "--out", copy, "--overwrite")
    assert "category" in refused(capsys, "train-category", home / "out", "--out", copy, "--resume")
    for option in ("--seed=1", "--seed=0", "--depth=1", "--symmetric=x"):
        assert "--resume" in refused(capsys, "train-category", "--out", copy, "--resume", option)
    assert "minutes" in refused(capsys, "train-category", "--out", copy, "--resume", "--minutes=-1")
    assert contents(copy) == before


def test_depth_needs_depth_maps(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("ball", "box", "tall"):
        shutil.copytree(home / "out" / name, tmp_path / "c" / name)
    shutil.rmtree(tmp_path / "c/ball/depth")
    asked = ["train-category", tmp_path / "c", "--out", tmp_path / "new", "--depth", "1", "--minutes", "0.001"]
    assert "ball has none" in refused(capsys, *asked)
    assert not (tmp_path / "new").exists()


def test_a_run_that_is_none_is_told(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    look = home / "out/low/image/0000.png"
    (tmp_path / "fit").mkdir()
    (tmp_path / "fit/config.toml").write_text("")
    for run in (tmp_path / "fit", tmp_path / "nothing", look):
        assert f"{run}: expected" in refused(capsys, "reconstruct-image", run, look, "--out", tmp_path / "a.ply")
        assert f"{run}: expected" in refused(capsys, "eval-category", run, home / "in")
    assert "expected the folder of a run" in refused(capsys, "mesh", home / "run")
    assert [f.name for f in tmp_path.rglob("*") if f.is_file()] == ["config.toml"]


def test_a_damaged_run_is_told(home: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    before = contents(copy)
    look = home / "out/low/image/0000.png"
    assert str(path) in refused(capsys, "reconstruct-image", copy, look, "--out", copy / "a.ply")
    assert str(path) in refused(capsys, "train-category", "--out", copy, "--resume")
    assert str(path) in refused(capsys, "eval-category", copy, home / "in")
    assert contents(copy) == before


def test_mistakes_with_a_picture_are_told(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.png").write_text("no picture")
    shutil.copy(home / "out/low/image/0000.png", tmp_path / "look.png")
    before = contents(tmp_path)
    for name in ("text.png", "nothing.png", "."):
        assert str(tmp_path / name) in refused(capsys, "reconstruct-image", home / "run", tmp_path / name)
    good = ["reconstruct-image", home / "run", tmp_path / "look.png", "--resolution"]
    assert "resolution" in refused(capsys, *good, "0")
    assert "--resolution must be at most 2048" in refused(capsys, *good, "4000")
    assert ".ply" in refused(capsys, *good, "8", "--out", tmp_path / "look.stl")
    assert "no folder" in refused(capsys, *good, "8", "--out", tmp_path / "deep/look.ply")
    assert contents(tmp_path) == before


def test_a_network_that_sees_nothing_says_so(home: Path, copy: Path, tmp_path: Path, capsys: Any) -> None:
    held = model.load(copy / "checkpoint.safetensors")
    with torch.no_grad():
        held.model.decode.last.bias[0] = -10
    CategoryCheckpoint(held.model, held.folder, held.held_out, held.shape_bank, held.training).save(
        copy / "checkpoint.safetensors"
    )
    look = home / "out/low/image/0000.png"
    said = refused(capsys, "reconstruct-image", copy, look, "--out", tmp_path / "a.ply")
    assert str(look) in said and "no mesh can be made of what the network sees" in said
    before = contents(tmp_path)
    assert "the network's mean shape" in refused(capsys, "eval-category", copy, home / "in")
    assert contents(tmp_path) == before


def test_meshes_that_are_missing_are_told(home: Path, copy: Path, tmp_path: Path, capsys: Any) -> None:
    before = contents(copy)
    assert str(tmp_path / "gone") in refused(capsys, "eval-category", copy, tmp_path / "gone")
    (tmp_path / "some").mkdir()
    shutil.copy(home / "in/ball.ply", tmp_path / "some")
    assert "box" in refused(capsys, "eval-category", copy, tmp_path / "some")
    assert "expected" in refused(capsys, "render-category", tmp_path / "gone", tmp_path / "new")
    shutil.copytree(home / "out/ball", tmp_path / "pictures/ball")
    assert "mesh" in refused(capsys, "render-category", tmp_path / "pictures", tmp_path / "new")
    assert contents(copy) == before and not (tmp_path / "new").exists()


def test_a_category_that_has_moved_is_told(home: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy / "category.toml"
    path.write_text(path.read_text().replace(str(home / "out"), str(home / "gone")))
    for command in (["train-category", "--out", copy, "--resume"], ["eval-category", copy, home / "in"]):
        assert str(home / "gone") in refused(capsys, *command)


def test_pictures_are_not_mixed_with_others(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(home / "out", tmp_path / "out")
    before = contents(tmp_path)
    assert "render.json" in refused(capsys, "render-category", home / "in", tmp_path / "out", "--views", "7")
    assert "views" in refused(capsys, "render-category", home / "in", tmp_path / "out", "--views", "0")
    assert contents(tmp_path) == before


def test_what_is_cheap_to_refuse_is_refused_before_the_category_is_read(
    home: Path, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(run: category_run.CategoryRun) -> None:
        raise AssertionError("the category was read")

    monkeypatch.setattr(category_run.CategoryRun, "objects", fail)
    new = "train-category", home / "out", "--out"
    assert "already holds a run" in refused(capsys, *new, copy)
    assert "--minutes must be positive, got -1" in refused(capsys, *new, tmp_path / "new", "--minutes=-1")
    (copy / "checkpoint.safetensors").unlink()
    said = refused(capsys, "train-category", "--out", copy, "--resume")
    assert "expected a checkpoint to resume from, found nothing" in said

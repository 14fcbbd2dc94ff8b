"""The command that refines cameras against a run, and the cameras that a run leaves behind."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import pixel_rays, sphere_t
from test_pose import cameras, pictures
from test_pose_refinement import errors, off

from warpdvr.cameras.rays import pixel_centres
from warpdvr.cameras.transform import SceneTransform
from warpdvr.cli.arguments import FromFolder
from warpdvr.cli.cameras import (
    ExportCamerasArguments,
    RefineCamerasArguments,
    export,
    refine_cameras,
    views_of_run,
    write_refined,
)
from warpdvr.cli.check_data import CheckDataArguments, check
from warpdvr.cli.fit import FitArguments, FitCodeArguments
from warpdvr.cli.parser import parse
from warpdvr.datasets.dvr import write
from warpdvr.datasets.load import load
from warpdvr.datasets.views import SparseDepth, Views
from warpdvr.evaluation.images import evaluate
from warpdvr.fields.analytic import Sphere
from warpdvr.fitting.checkpoint import Checkpoint
from warpdvr.rendering.background import Background
from warpdvr.runs.run import Run
from warpdvr.runs.scene import Scene


def ball(n: int = 4, size: int = 48) -> Views:
    """A ball off the middle, in a frame of its own: 1 scene unit is 2 of the data's."""
    views = pictures(Sphere(0.5, (0.1, 0.0, -0.1)), cameras(n, size))  # type: ignore[arg-type]
    return replace(views, transform=SceneTransform.around(torch.tensor([1.0, -2.0, 3.0]), 2.0))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run of a ball that is as it should be, and whose cameras were refined."""
    views = ball()
    write(tmp_path / "data", views)
    fit = {"iterations": 1, "cameras": 1e-3}
    scene = Scene({"folder": str(tmp_path / "data"), "hold_out": 2}, {"kind": "sphere", "radius": 0.5}, fit, {})
    held = Run.create(tmp_path / "run", scene)
    field = Sphere(0.5, (0.1, 0.0, -0.1))
    own = off(views, 1.0, 0.01).cameras
    held_up = (0.0, 0.0, 1.0)
    Checkpoint(
        kind="sphere",
        options={},
        weights=field.state_dict(),
        transform=views.transform,
        up=held_up,
        cameras=own,
        fit={},
    ).save(held.checkpoint)
    return held


def go(*arguments: object) -> None:
    """Run the command as the command line does."""
    refine_cameras(parse(RefineCamerasArguments, "refine-cameras", [*map(str, arguments), "--device", "cpu"]))


def test_cameras_of_a_run_are_written_in_the_format_of_its_data(run: Run, tmp_path: Path) -> None:
    views = run.scene().load_views()
    (path,) = write_refined(run, views)
    assert path == run.folder / "cameras" / "cameras.npz"
    again = shutil.copytree(tmp_path / "data", tmp_path / "again")
    shutil.copy(path, again)
    assert errors(load(again).cameras, run.load().cameras).max() < 1e-4


def test_cameras_that_were_taken_as_given_are_not_written(run: Run) -> None:
    scene = run.scene()
    run.write_config(scene.with_fit({"iterations": 1}))
    assert write_refined(run, scene.load_views()) == [] and not (run.folder / "cameras").exists()


def test_command_refines_the_cameras_of_a_folder(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A ball shows where it is and how large, not how it is turned: the reprojected centre is what must be right."""
    rough = replace(off(ball(), 3.0, 0.05))
    folder = tmp_path / "rough"
    write(folder, rough)
    go(run.folder, folder, "--out", tmp_path / "out", "--size", 48)
    said = capsys.readouterr().out
    assert (
        "4 of 4 cameras will be refined" in said and "after" in said and str(tmp_path / "out" / "cameras.npz") in said
    )
    shutil.copy(tmp_path / "out" / "cameras.npz", folder)
    views, true = load(folder), ball()
    x = torch.tensor([[0.1, 0.0, -0.1]], dtype=torch.float64)
    for some, limit in ((views, 0.1), (rough, np.inf)):
        apart = [
            float((a.project(x)[0] - b.project(x)[0]).norm()) for a, b in zip(some.cameras, true.cameras, strict=True)
        ]
        assert max(apart) < limit and (limit < np.inf or max(apart) > 1)


def test_command_takes_depth_maps_in_the_data_s_unit(run: Run, tmp_path: Path) -> None:
    """Without masks, the depth of a ball is all that says where it is: by the closed form in float64."""
    true, centre = ball(3), torch.tensor([0.1, 0.0, -0.1], dtype=torch.float64)
    depths = []
    for camera in true.cameras:
        o, d = pixel_rays(camera.K.numpy(), camera.pose.numpy(), pixel_centres(48, 48).double().numpy())
        t = sphere_t(torch.from_numpy(o.copy()), torch.from_numpy(d), 0.5, centre)
        depths.append((t * (torch.from_numpy(d) @ camera.pose[:3, 2])).float().view(48, 48))
    rough, folder = off(replace(true, masks=(None,) * 3, depths=tuple(depths)), 1.0, 0.05), tmp_path / "rough"
    write(folder, rough)
    go(run.folder, folder, "--out", tmp_path / "out", "--by", "depth", "--size", 48)
    shutil.copy(tmp_path / "out" / "cameras.npz", folder)
    apart = []
    for some in (load(folder).cameras, rough.cameras):
        here, there = (
            [(camera.pose[:3, :3].T @ (centre - camera.centre)) for camera in cameras]
            for cameras in (some, true.cameras)
        )
        apart.append([float((a - b).norm()) for a, b in zip(here, there, strict=True)])
    assert max(apart[0]) < 2e-3 and min(apart[1]) > 0.02


def test_views_are_brought_into_the_scene_with_all_that_has_a_length() -> None:
    """1 scene unit is 2 of the data's."""
    known = SparseDepth(torch.tensor([[3.5, 4.5]]), torch.tensor([5.0]))
    given = replace(ball(2), depths=(torch.full((48, 48), 3.0), None), points=(None, known))
    found = replace(given, transform=SceneTransform.identity()).in_scene_frame(given.transform)
    assert found.depths[0] is not None and found.depths[1] is None and bool((found.depths[0] == 1.5).all())
    assert found.points[0] is None and found.points[1] is not None and found.points[1].depth.tolist() == [2.5]
    assert torch.equal(found.points[1].pixel, known.pixel) and found.transform is given.transform
    for a, b in zip(found.cameras, given.cameras, strict=True):
        assert torch.allclose(2 * a.centre + torch.tensor([1.0, -2.0, 3.0]).double(), b.centre)


def test_only_held_out_views(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    go(run.folder, "--out", tmp_path / "out", "--views", "held-out", "--size", 48)
    assert "2 of 4 cameras will be refined" in capsys.readouterr().out
    again = shutil.copytree(tmp_path / "data", tmp_path / "again")
    shutil.copy(tmp_path / "out" / "cameras.npz", again)
    moved = errors(load(again).cameras, run.load().cameras).max(1)
    assert (moved[[1, 3]] < 1e-4).all() and (moved[[0, 2]] > 1e-3).all()


def test_scores_know_what_a_run_learnt_behind_the_object(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `eval` compares pictures; other photographs may have been taken before something else."""
    background, held = Background.new(0, torch.device("cpu")), run.load()
    replace(held, fit=background.state()).save(run.checkpoint)
    for folder, behind in ([], background), ([tmp_path / "data"], None):
        go(run.folder, *folder, "--out", tmp_path / "out", "--size", 48)
        views = views_of_run(run, folder[0] if folder else None)[2]
        known = evaluate(held.field(), views, range(4), background=behind)
        assert f"before   {known.psnr:.2f} dB" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--views", "nobody"], r"^--views: there is no view 'nobody'; known are 0000, 0001, 0002, 0003$"),
        (["--cameras", "x.npz"], r"^--cameras names a file in FOLDER, but none is given$"),
        (["--by", "normal"], r"^refine: what can be compared is color, mask, depth, got \['normal'\]$"),
        (["--by", "maks"], r"^refine: what can be compared is .*, got \['maks'\]; did you mean mask\?$"),
        (["--by", "depth", "--size", "1"], r"^refine: pictures need at least 2 pixels along their longer side, got 1$"),
    ],
)
def test_bad_arguments(run: Run, tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        go(run.folder, "--out", tmp_path / "out", *arguments)


def test_options_are_checked_before_anything_is_loaded(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(tmp_path / "data")
    for wrong in (["--by", "colour"], ["--size", "1"]):
        with pytest.raises(ValueError, match=r"^refine: "):
            go(run.folder, "--out", tmp_path / "out", *wrong)
    assert capsys.readouterr().out == ""


def test_a_run_without_cameras_in_files(run: Run) -> None:
    run.write_config(Scene({"mesh": "warp:bunny"}, run.scene().field, run.scene().fit))
    assert write_refined(run, ball()) == []
    with pytest.raises(
        ValueError, match=rf"^{run.folder}: the run has no cameras in files, its views are rendered; give"
    ):
        views_of_run(run, None)


def test_folders_are_read_with_the_same_options_by_all_commands(run: Run, tmp_path: Path) -> None:
    """A folder whose pictures are links is read if its links may be followed, and its cameras are written."""
    folder = tmp_path / "linked"
    write(folder, ball())
    (folder / "image").rename(tmp_path / "elsewhere")
    (folder / "image").symlink_to(tmp_path / "elsewhere")
    given = [run.folder, folder, "--out", tmp_path / "out", "--views", "0000", "--size", 16]
    with pytest.raises(ValueError, match=r"symbolic link.*--follow-links"):
        go(*given)
    go(*given, "--follow-links", "--max-pixels", 600)
    shutil.copy(tmp_path / "out" / "cameras.npz", folder)
    assert load(folder, follow_links=True).cameras[0].width == 48
    words = [str(folder), "--format", "nerfstudio", "--out", str(tmp_path / "exported")]
    with pytest.raises(ValueError, match=r"symbolic link.*--follow-links"):
        export(parse(ExportCamerasArguments, "export-cameras", words))
    export(parse(ExportCamerasArguments, "export-cameras", [*words, "--follow-links"]))
    assert (tmp_path / "exported" / "transforms.json").is_file()
    words = [str(folder), "--out", str(tmp_path / "check.png")]
    for more in ([], ["--follow-links"]):
        check(parse(CheckDataArguments, "check-data", [*words, *more]))
        assert (tmp_path / "check.png").is_file() == bool(more)
    for command in (FitArguments, FitCodeArguments, RefineCamerasArguments, ExportCamerasArguments, CheckDataArguments):
        assert issubclass(command, FromFolder)


def test_options_of_a_folder_need_one(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^--max-pixels: is for FOLDER, but none is given"):
        go(run.folder, "--out", tmp_path / "out", "--max-pixels", 600)
    words = [str(run.folder), "--format", "idr", "--out", str(tmp_path / "out"), "--turntable", "5"]
    with pytest.raises(ValueError, match=r"^--turntable: is for a folder of photographs, but RUN_OR_FOLDER is a run$"):
        export(parse(ExportCamerasArguments, "export-cameras", words))


def test_refined_intrinsics_are_in_all_that_a_run_writes(run: Run, tmp_path: Path) -> None:
    """Focal lengths of a run that refined them: in its folder of cameras, and in those of both commands."""
    run.write_config(run.scene().with_fit({"iterations": 1, "intrinsics": 1e-3}))
    checkpoint = run.load()
    zoomed = [replace(c, K=c.K * torch.tensor([[1.25, 1, 1], [1, 1.25, 1], [1, 1, 1]])) for c in checkpoint.cameras]
    replace(checkpoint, cameras=tuple(zoomed)).save(run.checkpoint)
    again = shutil.copytree(tmp_path / "data", tmp_path / "again")
    for path in write_refined(run, run.scene().load_views()):
        shutil.copy(path, again)
    exported = tmp_path / "exported"
    words = [str(run.folder), "--format", "nerfstudio", "--out", str(exported)]
    export(parse(ExportCamerasArguments, "export-cameras", words))
    shutil.copytree(tmp_path / "data" / "image", exported / "images")
    shutil.copytree(tmp_path / "data" / "mask", exported / "masks")
    for folder in (again, exported):
        for found, true in zip(load(folder).cameras, zoomed, strict=True):
            assert torch.allclose(found.K, true.K, atol=1e-4)

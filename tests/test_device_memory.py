"""A device with too little memory: evaluations get smaller, and where that does not help, one sentence says why."""

import re
from dataclasses import fields
from typing import Any

import pytest
import torch
from short_fit import short_fit
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cli.failures import sentence
from warpdvr.cli.fit import FitArguments
from warpdvr.cli.main import main
from warpdvr.cli.parser import option_names, parse
from warpdvr.datasets.synthetic import mesh_views
from warpdvr.fields.analytic import Sphere
from warpdvr.fields.occupancy import Occupancy
from warpdvr.fitting.fit import Fit
from warpdvr.fitting.recipe import Recipe
from warpdvr.geometry.isosurface import extract
from warpdvr.intersection.dense_march import DenseMarch
from warpdvr.intersection.grid import BoundGrid
from warpdvr.rendering import render as renders
from warpdvr.rendering.maximum_occupancy import MaximumOccupancy
from warpdvr.rendering.render import render
from warpdvr.rendering.transparency import Transparency
from warpdvr.runs.run import Run
from warpdvr.runtime.memory import ON_CPU, OutOfMemory, evaluation_memory, in_parts, out_of_memory
from warpdvr.singleview.training import Trainer, TrainingConfig

CAMERA = Camera.look_at((0.0, -2.0, 0.6), width=40, height=30)
TORCHS = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB."


class Small(Sphere):
    """A ball on a device that has no memory for more than `most` points at once."""

    most = 10**9
    largest = 0

    def value(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError(TORCHS)
        self.largest = max(self.largest, len(x))
        return super().value(x)


def balls(most: int, lipschitz: float | None = 1.0) -> tuple[Small, Small]:
    """Return a ball, and the same on a small device."""
    field, small = Small(0.5), Small(0.5)
    for ball in (field, small):
        ball.lipschitz = lipschitz  # type: ignore[assignment]
    small.most = most
    return field, small


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"antialias": 3},
        {"silhouette": 30.0},
        {"intersect": DenseMarch(16)},
        {"aggregate": Transparency()},
        {"aggregate": MaximumOccupancy()},
    ],
    ids=str,
)
def test_a_picture_is_the_same_on_a_small_device(options):
    field, small = balls(500)
    with torch.no_grad():
        whole, parts = (render(f, CAMERA, warn=False, **options) for f in (field, small))
    assert 0 < small.largest <= 500 < field.largest
    for name in ("rgb", "depth", "normal", "mask"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), equal_nan=True, atol=1e-4, rtol=0)


def test_gradients_are_the_same_on_a_small_device():
    slopes: list[Any] = []
    for field in balls(300):
        image = render(field, CAMERA, outline=True, silhouette=20.0, intersect=DenseMarch(32, splits=0))
        assert image.silhouette is not None
        (image.rgb.square().mean() + image.silhouette.mean()).backward()
        slopes.append(field.radius.grad)
    torch.testing.assert_close(*slopes, rtol=1e-4, atol=0)


def test_grids_and_meshes_are_the_same_on_a_small_device():
    for lipschitz in (1.0, None):
        field, small = balls(300, lipschitz)
        whole, parts = (extract(f, resolution=24, grid=False) for f in (field, small))
        assert torch.equal(whole.faces, parts.faces)
        torch.testing.assert_close(whole.vertices, parts.vertices)
        grids = [BoundGrid(f, cells=8, finest=32) for f in (field, small)]
        assert grids[0].evaluations == grids[1].evaluations and small.largest <= 300


def test_parts_are_halved_once_for_all():
    asked = []

    def evaluate(rows: Tensor) -> Tensor:
        asked.append(len(rows))
        if len(rows) > 3:
            raise torch.OutOfMemoryError
        return 2 * rows

    rows = torch.arange(17)
    assert torch.equal(torch.cat(in_parts(evaluate, rows.split(10))), 2 * rows)
    assert asked == [10, 5, 3, 2, 3, 2, 3, 3, 1]
    with pytest.raises(torch.OutOfMemoryError):
        in_parts(lambda part: evaluate(torch.arange(4)), [rows])
    assert in_parts(evaluate, []) == []


def test_a_device_without_memory_for_one_ray_is_one_sentence():
    _, small = balls(0)
    with pytest.raises(
        OutOfMemory, match=r"^render: the device is out of memory; ask for a smaller picture or, [^.]*\.no"
    ):
        render(small, CAMERA)
    with pytest.raises(
        torch.OutOfMemoryError, match=r"^extract: the device is out of memory; give a lower resolution$"
    ):
        extract(small)


def test_warps_errors_count_and_others_do_not():
    with pytest.raises(OutOfMemory, match=r"^mesh: the device is out of memory; less$"), out_of_memory("mesh", "less"):
        raise RuntimeError("Failed to allocate 64 bytes on device 'cuda:0'")
    cublas = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    with pytest.raises(OutOfMemory) as refused, out_of_memory("mesh", "less"):
        raise cublas
    assert refused.value.__cause__ is cublas
    for error in (RuntimeError("Failed to allocate 64 bytes on device 'cpu'"), ValueError("cuda"), RuntimeError("no")):
        with pytest.raises(type(error), match=str(error)) as raised, out_of_memory("mesh", "less"):
            raise error
        assert raised.value is error


def test_a_gpu_gives_a_share_of_its_free_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (6 << 30, 16 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3 << 30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1 << 30)
    assert evaluation_memory(torch.device("cuda:1")) == 2 << 30
    assert evaluation_memory(torch.device("cpu")) == ON_CPU == 512 << 20


def test_a_render_takes_what_the_device_gives(monkeypatch):
    field = Small(0.5)
    for given in (ON_CPU, 100_000):
        monkeypatch.setattr(renders, "evaluation_memory", lambda device, given=given: given)
        field.largest = 0
        render(field, CAMERA, intersect=DenseMarch(16))
        assert (field.largest > 4000) == (given == ON_CPU)
    field.largest = 0
    render(field, CAMERA, intersect=DenseMarch(16), memory=ON_CPU)
    assert field.largest > 4000


def test_a_fit_says_which_number_to_lower(monkeypatch):
    views = mesh_views("warp:sphere", count=3, test=1, size=16)
    fit = Fit(Occupancy(width=16, blocks=1), views, iterations=4, recipe=Recipe(rays=64, volume=0.0))
    next(fit)
    before = fit.state()
    monkeypatch.setattr(Fit, "losses", exhausted)
    with pytest.raises(OutOfMemory, match=r"^fit: the device is out of memory; take fewer rays in a step .*--rays"):
        next(fit)
    after = fit.state()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_is_to_be_lowered_exists():
    options = option_names(parse(FitArguments, "fit", ["scene.toml", "--out", "run"]))
    assert set(re.findall(r"--[\w-]+", Fit.smaller)) == {"--rays", "--max-pixels"} <= set(options)
    named = set(re.findall(r"\w+", Trainer.smaller.partition("below")[0])) - {"lower", "or"}
    assert named == {"objects", "rays", "pictures"} <= {f.name for f in fields(TrainingConfig)}


def exhausted(*_: object) -> None:
    raise torch.OutOfMemoryError(TORCHS)


def test_commands_that_run_out_of_memory_show_no_traceback(tmp_path, monkeypatch, capsys):
    scene, out = tmp_path / "ball.toml", tmp_path / "run"
    scene.write_text(short_fit(2))
    with monkeypatch.context() as small:
        small.setattr(Fit, "losses", exhausted)
        assert main(["fit", str(scene), "--out", str(out)]) == 2
    printed = capsys.readouterr().err.splitlines()
    assert printed[-1].startswith(
        "warpdvr: fit: the device is out of memory; take fewer rays in a step (rays of the rec"
    )
    assert printed[-1].endswith(", or say --device cpu")
    monkeypatch.setattr(Run, "field", exhausted)
    assert main(["mesh", str(out)]) == main(["render", str(out)]) == 2
    lower = "out of memory on the device (2.00 GiB more were asked for): lower {}, or say --device cpu"
    printed = capsys.readouterr().err.splitlines()
    assert printed == [f"warpdvr: {lower.format(name)}" for name in ("--resolution", "--size")]


def test_the_sentence_names_options_of_the_command():
    assert sentence(torch.OutOfMemoryError(TORCHS), ["--device", "--resolution"]) == (
        "out of memory on the device (2.00 GiB more were asked for): lower --resolution, or say --device cpu"
    )
    warps = RuntimeError("Failed to allocate 64 bytes on device 'cuda:0'")
    assert sentence(warps, ["--device"]) == "out of memory on the device: say --device cpu"
    ours = OutOfMemory("fit: the device is out of memory; take fewer rays")
    assert sentence(ours) == str(ours) and sentence(ours, ["--device"]) == f"{ours}, or say --device cpu"

"""Tensors are where they should be: commands and tests on a GPU, which is pretended where there is none.

`make test-placement` runs all tests that have the fixture `device` like that; here are the quick ones of them.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pretend_cuda
import pytest
import torch
import warp as wp
from pretend_counts import counting
from pretend_tensor import Pretend
from torch import Tensor

from warpdvr import Camera, Fit, Recipe, extract, load, make, render, write_usd
from warpdvr.cli import fit as fit_command
from warpdvr.cli.main import main
from warpdvr.datasets import dvr
from warpdvr.datasets.synthetic import mesh_views
from warpdvr.evaluation.surfaces import chamfer
from warpdvr.evaluation.volumes import volume_iou
from warpdvr.fitting import distillation, volume_start
from warpdvr.geometry.distance import signed_distance
from warpdvr.geometry.mesh import read_mesh
from warpdvr.geometry.search import triangle_mesh
from warpdvr.geometry.visible import visible_surface
from warpdvr.kernels import root
from warpdvr.runtime.launch import launch

ROOT = Path(__file__).parents[1]

QUICK = "launch", "intersect", "implicit", "camera", "voxel"
"""Test modules that run here, on what every picture and every fit goes through."""

SMALL = {"RESOLUTION": 32, "HULL_RESOLUTION": 16, "RAYS": 512, "PRUNE": 4, "SHORTEST_STEPS": 40, "DISTILLATION": 20}
"""A volume that a fit begins with."""

SCENE = """
[views]
folder = "{folder}"
hold_out = 5

[field]
kind = "hashgrid"
size = 4096

[fit]
iterations = 8
rays = 256
cells = 24

[mesh]
resolution = 24
"""


@pytest.fixture(scope="module")
def gpu() -> Iterator[str]:
    """Return the name of a GPU."""
    if torch.cuda.is_available():  # also where the whole run pretends
        yield "cuda"
    else:
        with pretend_cuda.active():
            yield "cuda"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with photographs, what they show and a scene file; not to be changed."""
    folder = tmp_path_factory.mktemp("placement")
    views = mesh_views("warp:bunny", count=5, test=0, size=24, depth=True)
    assert views.truth is not None
    views.truth.save(folder / "truth.ply")
    dvr.write(folder / "views", views)
    (folder / "scene.toml").write_text(SCENE.format(folder=folder / "views"))
    return folder


@pytest.fixture(scope="module")
def run(gpu: str, home: Path) -> Path:
    """Return a run with all of its products; not to be changed."""
    assert main(["fit", str(home / "scene.toml"), "--out", str(home / "run"), "--device", gpu]) in (0, 3)
    missing = {"mesh.ply", "scene.usdc", "eval.json", "images"} - {file.name for file in (home / "run").iterdir()}
    assert missing == set()
    return home / "run"


# The commands


@pytest.mark.parametrize(
    "options",
    [
        "--field sdf --patches 1 --smooth 0.1",
        "--field occupancy --recipe dvr --samples 16 --depth 1",
        "--field hashgrid-occupancy --gradient 0.1 --outline 0.1",
        "--field voxel-sdf --cameras 0.001 --intrinsics 0.001 --exposure 0.001",
        "--field sdf --depth 1 --on-surface 1 --hinge 0.1",
        "--iterations 40",  # begins with a volume
    ],
)
def test_fits(gpu: str, home: Path, tmp_path: Path, options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL.items():
        monkeypatch.setattr(volume_start, name, value)
    monkeypatch.setattr(distillation, "POINTS", 1 << 12)
    monkeypatch.setattr(fit_command, "write_all", lambda *_: ({"views": 0}, {}))
    out = ["--out", str(tmp_path / "run"), "--device", gpu]
    assert main(["fit", str(home / "scene.toml"), *options.split(), *out]) in (0, 3)
    count = "44" if "--iterations" in options else "10"
    assert main(["fit", "--resume", *out, "--iterations", count]) in (0, 3)


@pytest.mark.parametrize(
    "words",
    [
        "render {run} --frames 2 --size 24",
        "mesh {run} --out {tmp}/mesh.ply",
        "usd {run} --out {tmp}/scene.usda",
        "eval {run} --mesh-gt {home}/truth.ply",
        "view {run} --screenshot {tmp}/view.png",
        "view {home}/scene.toml --screenshot {tmp}/view.png",
        "refine-cameras {run} --views held-out --out {tmp}/cameras --size 24",
        "fit {home}/scene.toml --shape {run} --out {tmp}/run --iterations 4",
    ],
)
def test_other_commands(gpu: str, home: Path, run: Path, tmp_path: Path, words: str) -> None:
    words = words.format(run=shutil.copytree(run, tmp_path / "copy"), home=home, tmp=tmp_path)
    assert main([*words.split(), "--device", gpu]) in (0, 3)


# What no command does


@pytest.mark.parametrize("at", [5, 12], ids=["in the volume", "after it"])
def test_fits_go_on(gpu: str, home: Path, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL.items():
        monkeypatch.setattr(volume_start, name, value)
    monkeypatch.setattr(distillation, "POINTS", 1 << 12)
    views, recipe = load(home / "views", hold_out=5), Recipe(rays=128, cells=16, exposure=1e-3)
    first = Fit(make("hashgrid", size=4096).to(gpu), views, iterations=40, recipe=recipe)
    list(islice(first, at))
    assert (first.start is not None) == (at == 5)
    held = {name: value.cpu() for name, value in first.state().items()}
    field = make("hashgrid", size=4096).to(gpu)
    again = Fit(field, views, iterations=40, recipe=recipe)
    field.load_state_dict(first.field.state_dict())
    again.resume(held)
    assert sum(1 for _ in again) == 40 - at


@pytest.mark.parametrize("kind", ["sphere", "sdf", "hashgrid", "occupancy", "voxel-occupancy"])
def test_everything_may_be_there_by_default(gpu: str, kind: str) -> None:
    """Inside of `with torch.device(...)`, which scripts set for themselves."""
    with torch.device(gpu):
        field = make(kind, bounds=torch.tensor(0.9))
        image = render(field, Camera.look_at((0, -2.5, 0.5), width=16, height=16))
        image.rgb.sum().backward()
        mesh = extract(field, resolution=16)
    assert image.rgb.device.type == mesh.vertices.device.type == gpu
    assert any(p.grad is not None and bool((p.grad != 0).any()) for p in field.parameters())


def test_bounds_may_be_a_tensor(gpu: str) -> None:
    assert make("sphere", bounds=torch.tensor(0.5, device=gpu)).bounds.tolist() == [[-0.5] * 3, [0.5] * 3]


def test_meshes(gpu: str, tmp_path: Path) -> None:
    """What is done with a mesh that was extracted on a GPU."""
    field = make("sphere", radius=0.5).to(gpu)
    mesh = extract(field, resolution=24)
    there = mesh.vertices.device.type
    assert there == gpu
    for path in ("a.ply", "a.obj", "a.glb"):
        mesh.save(tmp_path / path)
    write_usd(tmp_path / "a.usda", mesh)
    assert len(visible_surface(mesh, views=4, size=16).faces) == len(mesh.faces)
    other = read_mesh(tmp_path / "a.ply")  # on the CPU
    assert chamfer(mesh, other, samples=500).chamfer_l1 < 1e-4
    assert volume_iou(mesh, other, samples=500) == pytest.approx(1.0, abs=0.05)
    x = mesh.vertices[:100] * 1.1
    assert torch.allclose(signed_distance(x, mesh).cpu(), torch.tensor(0.05), atol=5e-3)
    assert torch.allclose(signed_distance(x.cpu(), mesh).cpu(), torch.tensor(0.05), atol=5e-3)


# Tests with the fixture `device`


def test_quick_modules_pass() -> None:
    """In a process of their own, in which everything pretends from the beginning."""
    files = [f"tests/test_{name}.py" for name in QUICK]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--device", "pretend-cuda", *files]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]


# The pretence itself


REFUSED: dict[str, Callable[[Tensor, Tensor], object]] = {
    "a sum": lambda here, there: here + there,
    "a sum in place": lambda here, there: here.add_(there),
    "a product of matrices": lambda here, there: there @ here.T,
    "a choice": lambda here, there: torch.where(there > 0, here, 0),
    "one after the other": lambda here, there: torch.cat([there, here]),
    "an index of the GPU": lambda here, there: here[there[:, 0].long()],
    "a mask of the GPU": lambda here, there: here[there[:, 0] > 0],
    "values to store": lambda here, there: there.index_put_((torch.arange(2, device="cuda"),), here),
    "a number of the GPU for the CPU": lambda here, there: here.mul_(there[0, 0]),
    "random numbers": lambda here, there: there.uniform_(generator=torch.Generator()),
    "NumPy": lambda here, there: there.numpy(),
    "a kernel": lambda here, there: launch(root.propose, 2, [there, there, there, 0.1, there.int()], [here, there]),
    "a mesh": lambda here, there: triangle_mesh(there, torch.tensor([[0, 1, 1]])),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_gpu_refuses_is_refused(gpu: str, name: str) -> None:
    with pytest.raises((RuntimeError, TypeError, ValueError), match=r"cuda|cpu|GPU"):
        REFUSED[name](torch.ones(2, 3), torch.ones(2, 3, device=gpu))


def test_what_a_gpu_takes_is_taken(gpu: str) -> None:
    there = torch.arange(6.0, device=gpu).view(2, 3)
    number = torch.tensor(2.0)
    assert (there * number + number).tolist() == [[2.0, 4.0, 6.0], [8.0, 10.0, 12.0]]
    assert there[torch.tensor([1])].device == there.device == torch.device("cuda:0")
    there[0] = number
    assert there.cpu().device.type == "cpu" and there.cpu().tolist() == [[2.0, 2.0, 2.0], [3.0, 4.0, 5.0]]
    assert torch.nn.functional.one_hot(torch.tensor([1], device=gpu), 3).tolist() == [[0, 1, 0]]
    assert torch.zeros(3).device.type == "cpu" and torch.zeros_like(there).is_cuda and there.new_zeros(1).is_cuda
    with torch.device(gpu):
        assert torch.zeros(3).is_cuda


def test_pictures_and_gradients_are_those_of_the_cpu(gpu: str) -> None:
    camera = Camera.look_at((0, -2.5, 0.5), width=24, height=24)
    pictures = []
    for device in ("cpu", gpu):
        field = make("sphere", radius=0.5).to(device)
        image = render(field, camera)
        image.rgb.sum().backward()
        radius = next(field.parameters())
        assert radius.grad is not None and radius.grad.device.type == image.rgb.device.type == device
        pictures.append((image.rgb.detach().cpu(), radius.grad.cpu()))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*pictures, strict=True))


def test_launches_copies_and_waits_are_counted(gpu: str) -> None:
    if not isinstance(torch.empty(0, device=gpu), Pretend):
        pytest.skip("a real GPU is not counted")
    with counting() as counts:
        x = torch.ones(4, 3).to(gpu)
        y = (x.view(3, 4) * 2)[1:]
    assert {kind: counts.total(kind) for kind in ("torch", "warp", "sync", "to gpu", "to cpu")} == {
        **{"torch": 1, "warp": 0, "sync": 1, "to gpu": 1, "to cpu": 0},
    }
    with counting() as counts:
        float(y.sum())
        y[y > 1]
    lines = [(Path(line.split(":")[0]).name, n) for line, n in counts.lines("sync")]
    assert lines == [("test_placement.py", 1)] * 2 and counts.total("to cpu") == 1
    outputs = [torch.empty(2, device=gpu), torch.empty(2, 3, device=gpu)]
    inputs = [torch.ones(2, 6, device=gpu), x, x, 1e-3, torch.arange(2, device=gpu).int()]
    with counting() as counts:
        launch(root.propose, 2, inputs, outputs)
    assert [(kind, what) for kind, what, _ in counts.events] == [("warp", "propose")]


def test_afterwards_all_is_as_before() -> None:
    before = torch.zeros, Tensor.to, wp.launch, torch.cuda.is_available
    with pretend_cuda.active():
        assert torch.zeros is not before[0]
    assert (torch.zeros, Tensor.to, wp.launch, torch.cuda.is_available) == before

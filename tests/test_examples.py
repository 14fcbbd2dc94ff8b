"""The examples run as they are, each writes a picture that shows something, and what they return is right."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import nbclient
import nbformat
import numpy as np
import PIL.Image
import pytest
import torch

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(file for file in (ROOT / "examples").glob("*.py") if file.stem != "make_tour")


def load(name: str) -> ModuleType:
    """Return an example as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def first_picture(example: Any, image: Any) -> None:
    """The foot and the head of the snowman are where they were put: depth is the distance to the nearest part."""
    assert 0.1 < float(image.mask.float().mean()) < 0.4
    depth = image.depth[image.mask]
    farthest = float(np.linalg.norm([1.6, -2.0, 1.0])) + 0.9
    assert 1.6 < float(depth.min()) < float(depth.max()) < farthest


def own_field(example: Any, image: Any) -> None:
    """A gyroid of this frequency leaves holes in the ball's outline, and fills most of it."""
    camera = 36.0, float(np.linalg.norm([2.2, -1.8, 1.4]))
    radius = np.tan(np.arcsin(0.9 / camera[1])) / np.tan(
        np.radians(camera[0]) / 2
    )  # of the outline, image from -1 to 1
    share = float(image.mask.float().mean()) / (np.pi * radius**2 / 4)
    assert 0.7 < share < 0.99


def gradient(example: Any, error: float) -> None:
    """The closed form is in float64; float32 loses most where a ray grazes the ball."""
    assert error < 1e-2


def fit_photographs(example: Any, scores: Any) -> None:
    assert scores.iou > 0.9 and scores.psnr > 23


def refine_cameras(example: Any, errors: Any) -> None:
    before, after = errors
    assert float(before.rotation.mean()) > 3 and float(before.centre.mean()) > 0.1
    assert float(after.rotation.max()) < 0.3 and float(after.centre.max()) < 0.02


def complete_shape(example: Any, overlap: tuple[float, float]) -> None:
    before, after = overlap
    assert before < 0.75 and after > 0.85


def single_picture(example: Any, scores: list[float]) -> None:
    """Trained for seconds: what is seen from a side that was never shown is about as large, and where it should be."""
    assert len(scores) == 2 and min(scores) > 0.5 and np.mean(scores) > 0.6


def export_usd(example: Any, found: tuple[float, float]) -> None:
    distance, iou = found
    assert distance < 1e-3 and iou > 0.98


CHECKS = {
    check.__name__: check
    for check in (
        first_picture,
        own_field,
        gradient,
        fit_photographs,
        refine_cameras,
        complete_shape,
        single_picture,
        export_usd,
    )
}


def test_every_example_is_checked() -> None:
    assert {file.stem for file in EXAMPLES} == set(CHECKS)


@pytest.mark.parametrize("name", CHECKS)
def test_the_example_runs_and_is_right(name: str, tmp_path: Path) -> None:
    example = load(name)
    assert example.__doc__ and len(example.__doc__.splitlines()) > 3
    with torch.random.fork_rng():
        result = example.main(tmp_path / "picture.png")
    CHECKS[name](example, result)
    with PIL.Image.open(tmp_path / "picture.png") as picture:
        assert picture.width >= 300 and picture.height >= 100
        colors = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    background = (colors == colors[0]).all(1).mean()
    assert 0.05 < background < 0.95 and len(np.unique(colors, axis=0)) > 50


def test_the_tour_is_made_of_the_first_three_examples_and_runs(tmp_path: Path) -> None:
    written = nbformat.read(ROOT / "examples/tour.ipynb", as_version=4)
    assert written == load("make_tour").tour(), "run python examples/make_tour.py"
    assert all(not cell.get("outputs") for cell in written.cells)
    client = nbclient.NotebookClient(written, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    shown = [out for cell in written.cells for out in cell.get("outputs", ()) if "image/png" in out.get("data", {})]
    assert len(shown) == 3

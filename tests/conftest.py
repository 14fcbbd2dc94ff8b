"""What several test modules need."""

import os
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

PACKAGES = [
    f"warpdvr.{path.name}"
    for path in (Path(__file__).parents[1] / "warpdvr").iterdir()
    if path.name != "kernels" and (path / "__init__.py").exists()
]
install_import_hook(PACKAGES, "typechecker.check")  # shapes and types of every call, before anything is imported

NOT_PRETENDED = {
    "test_encoding.py::test_the_operators_are_what_they_say": "opcheck makes tensors on a GPU by itself",
    "test_encoding.py::test_a_field_on_it_can_be_compiled": "torch.compile needs tensors of Torch's own class",
}
"""Tests that cannot run on a GPU that is pretended, and why."""

torch.set_num_threads(1)  # tests are small, and Torch's threads lose more than they gain on a busy machine


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="where tensors live: cpu, cuda, cuda:1 ... or pretend-cuda")
    parser.addoption(
        "--arch", default="75", help="what kernels are compiled for, such as 75,90, or all: see CONTRIBUTING"
    )


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """Return the device that the tests run on, from `--device`."""
    return torch.device(request.config.getoption("--device").removeprefix("pretend-"))


def pytest_configure(config: pytest.Config) -> None:
    """With `--device pretend-cuda`, let everything find a GPU."""
    if config.getoption("--device") == "pretend-cuda":
        from pretend_cuda import active

        pretending = ExitStack()
        pretending.enter_context(active())
        config.add_cleanup(pretending.close)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--device pretend-cuda`, keep the tests that say where their tensors lie; the others prove nothing new."""
    if config.getoption("--device") == "pretend-cuda":
        kept = [item for item in items if "device" in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept
        for item in items:
            name = f"{item.path.name}::{getattr(item, 'originalname', item.name)}"
            if name in NOT_PRETENDED:
                item.add_marker(pytest.mark.skip(reason=NOT_PRETENDED[name]))


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of the data sets: WARPDVR_DATA, or shared/data beside the repository."""
    folder = Path(os.environ.get("WARPDVR_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data sets in {folder}: set WARPDVR_DATA")
    return folder

"""What several test modules need."""

import os
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

torch.set_num_threads(1)  # tests are small, and Torch's threads lose more than they gain on a busy machine


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="where tensors live: cpu, cuda, cuda:1 ...")
    parser.addoption(
        "--arch", default="75", help="what kernels are compiled for, such as 75,90, or all: see CONTRIBUTING"
    )


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """Return the device that the tests run on, from `--device`."""
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of the data sets: WARPDVR_DATA, or shared/data beside the repository."""
    folder = Path(os.environ.get("WARPDVR_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data sets in {folder}: set WARPDVR_DATA")
    return folder

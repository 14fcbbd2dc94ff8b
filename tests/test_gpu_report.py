"""The report on a GPU: it runs on one that is pretended, and refuses what is none in one sentence."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pretend_cuda
import pytest
import torch


@pytest.fixture
def gpu_report() -> ModuleType:
    file = Path(__file__).parents[1] / "benchmarks" / "gpu_report.py"
    spec = importlib.util.spec_from_file_location("gpu_report", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(torch.cuda.is_available(), reason="make gpu-report runs it as a whole")
def test_all_of_it_runs_on_a_gpu_that_is_pretended(
    gpu_report: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_report, "GOAL", 1.0)
    monkeypatch.setattr(gpu_report, "LOOK", 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Pretended GPU")
    words = "--no-tests --minutes 0.02 --width 48 --height 32 --photographs 24 --repeat 1 --data".split()
    with pretend_cuda.active():
        assert gpu_report.main([*words, str(tmp_path), "--out", str(tmp_path / "gpu.md")]) == 0
    written = (tmp_path / "gpu.md").read_text()
    assert written == capsys.readouterr().out
    assert written.startswith("# Pretended GPU\n")
    assert "Fit of bunny: " in written
    assert len([line for line in written.splitlines() if line.startswith("| ")]) == 1 + 3 * 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
@pytest.mark.parametrize("device", ["cuda", "cpu", "cuda:3"])
def test_what_is_no_gpu_is_refused(gpu_report: ModuleType, device: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_report.main(["--device", device]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1

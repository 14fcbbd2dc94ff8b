"""The device of a command: all that compute take one, say it first, and refuse one that is not there in a sentence."""

from importlib import import_module
from typing import get_type_hints

import pytest
import torch
import warp as wp
from short_fit import short_fit

from warpdvr.cli import hull as hull_command
from warpdvr.cli import singleview as category_commands
from warpdvr.cli.arguments import OnDevice
from warpdvr.cli.main import COMMANDS, main
from warpdvr.runtime import device as devices

WORDS = {
    "fit": ["scene.toml", "--out", "run"],
    "fit-code": ["decoder.npz", "views", "--out", "run"],
    "hull": ["scene.toml"],
    "refine-cameras": ["run", "--out", "cameras"],
    "view": ["run"],
    "render": ["run"],
    "mesh": ["run"],
    "usd": ["run"],
    "eval": ["run"],
    "render-category": ["meshes", "category"],
    "train-category": ["category", "--out", "run"],
    "reconstruct-image": ["run", "picture.png"],
    "eval-category": ["run", "meshes"],
}
"""What each command needs besides a device."""

FAULTS = {
    "no GPU": (0, 0, "cuda", "cuda was asked for, but Torch finds no CUDA device here; leave it out, or say cpu"),
    "an old driver": (
        1,
        0,
        "cuda",
        "Torch finds cuda, but Warp cannot use it: it is built with CUDA 13.0, the NVIDIA driver is for CUDA 12.2; "
        "update the driver, or install an older warp-lang; or say cpu",
    ),
    "a number too high": (2, 2, "cuda:2", "there is no device cuda:2; the last one here is cuda:1"),
    "another kind": (2, 2, "xpu", "expected cpu or cuda, got 'xpu'"),
    "no device": (2, 2, "gpu", "expected cpu or cuda, got 'gpu'"),
}
"""GPUs that Torch and Warp find, what is asked for, and what is said."""


def options_of(function):
    module, name = function.split(":")
    return get_type_hints(getattr(import_module(f"warpdvr.cli.{module}"), name))["options"]


def test_all_commands_that_compute_take_a_device():
    commands = {c.name: options_of(c.function) for group in COMMANDS.values() for c in group}
    assert {name for name, options in commands.items() if issubclass(options, OnDevice)} == set(WORDS)
    assert set(commands) - set(WORDS) == {"check-data", "export-cameras"}  # of small pictures, or of none


@pytest.mark.parametrize("command", WORDS)
@pytest.mark.parametrize(("by_torch", "by_warp", "name", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_device_that_is_missing(command, by_torch, by_warp, name, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: by_torch > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: by_torch)
    monkeypatch.setattr(devices, "count_cuda_devices", lambda: by_warp)
    monkeypatch.setattr(wp, "get_cuda_toolkit_version", lambda: (13, 0))
    monkeypatch.setattr(wp, "get_cuda_driver_version", lambda: (12, 2))
    with pytest.raises(SystemExit) as ended:
        main([command, *WORDS[command], "--device", name])
    assert ended.value.code == 2 and capsys.readouterr() == ("", f"warpdvr: --device: {reason}\n")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("command", WORDS)
def test_the_device_is_the_first_line_and_not_alone(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([command, *WORDS[command], "--device", "cpu"]) == 2  # nothing of what it needs is there
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[-1].startswith("warpdvr: ") and "Traceback" not in printed.err
    (function,) = (c.function for group in COMMANDS.values() for c in group if c.name == command)
    module, name = function.split(":")

    def run(options):
        print("something")

    run.__annotations__ = {"options": options_of(function)}
    monkeypatch.setattr(import_module(f"warpdvr.cli.{module}"), name, run)
    assert main([command, *WORDS[command], "--device", "cpu"]) == 0
    assert capsys.readouterr().out == "device     cpu\nsomething\n"


def test_the_hull_is_carved_on_the_device(tmp_path, monkeypatch):
    scene, carved = tmp_path / "ball.toml", []
    scene.write_text(short_fit(1))

    def carve(views, *, resolution, device):
        carved.append(device)
        raise ValueError("enough")

    monkeypatch.setattr(hull_command, "carve", carve)
    assert main(["hull", str(scene), "--device", "cpu", "--out", str(tmp_path / "hull.ply")]) == 2
    assert carved == [torch.device("cpu")]


def test_meshes_are_photographed_on_the_device(tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(category_commands, "photograph", lambda *paths, **options: given.update(options) or [])
    assert main(["render-category", str(tmp_path), str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert given["device"] == torch.device("cpu")

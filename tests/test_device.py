"""Devices by name, where Torch and Warp find different ones."""

import pytest
import torch
import warp as wp

from warpdvr.runtime import device as devices
from warpdvr.runtime.device import default_device, find_device


@pytest.fixture
def gpus(monkeypatch):
    """Let Torch and Warp find so many GPUs."""

    def found(by_torch: int, by_warp: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: by_torch > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: by_torch)
        monkeypatch.setattr(devices, "count_cuda_devices", lambda: by_warp)

    return found


@pytest.mark.parametrize(("by_torch", "by_warp", "kind"), [(0, 0, "cpu"), (1, 0, "cpu"), (0, 1, "cpu"), (2, 2, "cuda")])
def test_the_default_is_a_gpu_that_both_find(gpus, by_torch, by_warp, kind):
    gpus(by_torch, by_warp)
    assert default_device() == find_device() == torch.device(kind)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:1"])
def test_gpus_have_names(gpus, name):
    gpus(2, 2)
    assert find_device(name) == torch.device(name)


@pytest.mark.parametrize(
    ("name", "count", "last"), [("cuda:1", 1, "cuda"), ("cuda:7", 3, "cuda:2"), ("cpu:1", 0, "cpu")]
)
def test_a_number_that_no_device_has(gpus, name, count, last):
    gpus(count, count)
    with pytest.raises(ValueError, match=f"^there is no device {name}; the last one here is {last}$"):
        find_device(name)


@pytest.mark.parametrize(
    ("needed", "found", "why"),
    [
        ((13, 0), (12, 2), "it is built with CUDA 13.0, the NVIDIA driver is for CUDA 12.2; update the driver, or"),
        ((13, 0), None, "its native part finds no NVIDIA driver; see what nvidia-smi says"),
        (None, (12, 2), "this Warp was built without CUDA; install the package warp-lang from PyPI"),
    ],
)
def test_a_gpu_that_warp_cannot_use_is_refused_with_the_reason(gpus, monkeypatch, needed, found, why):
    gpus(1, 0)
    monkeypatch.setattr(wp, "get_cuda_toolkit_version", lambda: needed)
    monkeypatch.setattr(wp, "get_cuda_driver_version", lambda: found)
    with pytest.raises(ValueError, match=f"^Torch finds cuda, but Warp cannot use it: {why}.*; or say cpu$"):
        find_device("cuda")

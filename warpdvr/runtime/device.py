"""Find devices by name, and the default one."""

import torch

from warpdvr.runtime.launch import count_cuda_devices, why_no_cuda


def default_device() -> torch.device:
    """Return the GPU where both Torch and Warp find one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() and count_cuda_devices() else "cpu")


def find_device(name: str | None = None) -> torch.device:
    """Return a device by name, such as "cpu", "cuda" or "cuda:1"; None: `default_device()`.

    Raises:
        ValueError: if it is neither a CPU nor an existing GPU, or Warp cannot launch kernels on that.
    """
    if name is None:
        return default_device()
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"expected cpu or cuda, got {name!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("cuda was asked for, but Torch finds no CUDA device here; leave it out, or say cpu")
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if (device.index or 0) >= count:
        last = name.partition(":")[0] if count == 1 else f"{device.type}:{count - 1}"
        raise ValueError(f"there is no device {name}; the last one here is {last}")
    if device.type == "cuda" and (device.index or 0) >= count_cuda_devices():
        raise ValueError(f"Torch finds {name}, but Warp cannot use it: {why_no_cuda()}; or say cpu")
    return device

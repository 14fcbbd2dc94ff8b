"""Find devices by name, and the default one."""

import torch


def default_device() -> torch.device:
    """Return the GPU where Torch finds one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def find_device(name: str | None = None) -> torch.device:
    """Return a device by name, such as "cpu", "cuda" or "cuda:1"; None: `default_device()`.

    Raises:
        ValueError: if it is neither a CPU nor an existing GPU.
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
    if (device.index or 0) >= (torch.cuda.device_count() if device.type == "cuda" else 1):
        raise ValueError(f"there is no device {name}; the last one here has the number {torch.cuda.device_count() - 1}")
    return device

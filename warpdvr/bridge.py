"""Launch Warp kernels on Torch tensors: the only file that knows both."""

from collections.abc import Sequence
from typing import Any

import torch
import warp as wp
from torch import Tensor

wp.config.quiet = True  # no banner, no line per compiled module: a command's output is its own


def launch(
    kernel: Any, n: int | tuple[int, ...], inputs: Sequence[Any], outputs: Sequence[Tensor], per_row: Sequence[Tensor] = ()
) -> None:
    """Launch `kernel` over `n` rows; tensors go in as they are, without a copy and without a gradient.

    Every tensor in `outputs` and `per_row` must have `n` rows (the first axis of `n`, if that is a tuple), because Warp
    reads past the end of shorter ones in silence. Pass arrays of another length (lookup tables) in `inputs` only.
    A float vector array is a contiguous float32 tensor of shape (n, 3).

    Raises:
        ValueError: if a tensor has another number of rows than `n`.
    """
    rows = n if isinstance(n, int) else n[0]
    for tensor in (*outputs, *per_row):
        if len(tensor) != rows:
            raise ValueError(f"{kernel.key}: expected {rows} rows, got shape {tuple(tensor.shape)}")
    if rows == 0:
        return
    start_warp()
    device = outputs[0].device
    stream = wp.stream_from_torch(device) if device.type == "cuda" else None
    wp.launch(
        kernel,
        dim=n,
        inputs=[a.detach() if isinstance(a, Tensor) else a for a in inputs],
        outputs=[a.detach() for a in outputs],
        device=wp.device_from_torch(device),
        stream=stream,
    )


def start_warp() -> None:
    """Start Warp; `wp.device_from_torch` and friends fail before this."""
    wp.init()


def warp_device(device: torch.device) -> Any:
    """Return Warp's name for a Torch device."""
    start_warp()
    return wp.device_from_torch(device)

"""Launch Warp kernels on Torch tensors: the only module that does.

Other modules know both libraries too where they use Warp's own structures and algorithms: `geometry/search.py` for ray
casting and `geometry/marching_cubes.py` for triangles, both within `warp_scope`.
"""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

import torch
import warp as wp
from torch import Tensor

from warpdvr.runtime.threads import run_ranges, workers

_loading, _loaded = Lock(), set[tuple[Any, torch.device]]()

wp.config.log_level = max(wp.config.log_level, wp.LOG_WARNING)  # no banner in the output of commands


def launch(
    kernel: Any,
    n: int | tuple[int, ...],
    inputs: Sequence[object],
    outputs: Sequence[Tensor],
    *,
    per_row: Sequence[Tensor] = (),
    state: "Sequence[Tensor | Packed]" = (),
) -> None:
    """Launch `kernel` over `n` rows; tensors are passed without a copy and without a gradient.

    The kernel receives `inputs`, then `state`, then `outputs`. Warp reads past the end of a short array in silence, so
    every tensor in `outputs` and `per_row` must have `n` rows (the first axis of `n`, if that is a tuple). `state` is
    updated in place, at rows that the kernel looks up itself. A vector array is a contiguous float32 (n, 3)
    tensor; a struct is `Packed`.

    Raises:
        ValueError: if a tensor has another number of rows than `n` or of axes than its array, or is on another device.
        RuntimeError: if the type of a tensor does not fit its array.
    """
    rows = n if isinstance(n, int) else n[0]
    for tensor in (*outputs, *per_row):
        if len(tensor) != rows:
            raise ValueError(f"{kernel.key}: expected {rows} rows, got shape {tuple(tensor.shape)}")
    if rows == 0:
        return
    start_warp()
    device = next(a.device for a in (*state, *outputs) if a.device is not None)
    arguments = [_argument(kernel, i, a, device) for i, a in enumerate((*inputs, *state, *outputs))]
    load_kernel(kernel, device)
    wp.launch(kernel, dim=n, inputs=arguments, **_place(device))


def launch_parts(
    kernel: Any, n: tuple[int, ...], inputs: Sequence[object], outputs: Sequence[Tensor], axis: int | None
) -> None:
    """Launch `kernel` over the axes of `n`; on a CPU in parallel parts, on the threads of `workers`.

    The kernel receives the first index of its part along `axis` (None: there is one part), then `inputs`, then
    `outputs`. The caller is responsible for the lengths of all arrays, and no two parts may write to the same place.
    """
    if 0 in n:
        return
    start_warp()
    device = outputs[0].device
    load_kernel(kernel, device)
    place = _place(device)
    args = [_argument(kernel, i, a, device) for i, a in enumerate((*inputs, *outputs), 1)]

    def part(first: int, end: int) -> None:
        dim = tuple(end - first if i == (axis or 0) else size for i, size in enumerate(n))
        wp.launch(kernel, dim=dim, inputs=[first, *args], **place)

    threads = 1 if axis is None or device.type == "cuda" else min(workers(), n[axis])
    if axis is None or threads == 1:
        part(0, n[axis or 0])
    else:
        count = min(4 * threads, n[axis])  # more parts than threads, because they take different times
        run_ranges(part, [n[axis] * i // count for i in range(count + 1)], threads)


def load_kernel(kernel: Any, device: torch.device) -> None:
    """Compile and load a kernel, once: Warp cannot do that in several threads at a time."""
    if (kernel, device) not in _loaded:
        start_warp()
        with _loading:
            wp.load_module(kernel.module, device=wp.device_from_torch(device))
        _loaded.add((kernel, device))


def _place(device: torch.device) -> dict[str, Any]:
    """Return Torch's device and stream as arguments of a Warp launch."""
    return {"device": wp.device_from_torch(device), "stream": _stream(device)}


def _stream(device: torch.device) -> Any:
    """Return Torch's current stream on a device as one of Warp; None on a CPU."""
    return _warp_stream(torch.cuda.current_stream(device)) if device.type == "cuda" else None


@cache
def _warp_stream(stream: Any) -> Any:
    """Return Warp's object for a `torch.cuda.Stream`: one for each device and handle, which is never destroyed.

    Destroying one while it is the device's current stream would move Warp to the null stream in the middle of a scope.
    """
    return wp.stream_from_torch(stream)


class Packed:
    """A `wp.struct` filled with tensors and numbers, for many launches.

    Its tensors are described to Warp only once, which saves most of the cost of a launch, about 3 us per array. They
    are kept alive, and must only be changed in place: the struct keeps pointing to the same memory.
    """

    def __init__(self, kind: Any, **members: object):
        """Fill a struct.

        Args:
            kind: the struct type of the kernels.
            members: all of its members by name.

        Raises:
            ValueError: if one is missing or unknown, or a tensor has another number of axes than its array or is on
                another device than the first.
            RuntimeError: if a tensor's type does not fit its array.
        """
        if set(members) != set(kind.vars):
            differing = ", ".join(sorted(set(members) ^ set(kind.vars)))
            raise ValueError(f"{kind.key}: expected the members {', '.join(kind.vars)}, got others: {differing}")
        start_warp()
        self.kind, self.members, self.value = kind, members, kind()
        devices = (a.device for a in members.values() if isinstance(a, Tensor | Packed))
        self.device: torch.device | None = next(devices, None)
        """The device of its tensors; None if it has none."""
        for name, member in members.items():
            if isinstance(member, Packed):
                member = member.value
            elif isinstance(member, Tensor):
                expected = kind.vars[name].type
                member = _described(kind.key, name, expected, member, self.device, return_ctype=False)
            setattr(self.value, name, member)


def _argument(kernel: Any, i: int, value: object, device: torch.device) -> Any:
    """Return an argument as Warp takes it; a tensor takes twice as long if `wp.launch` converts it."""
    expected = kernel.adj.args[i]
    if isinstance(value, Packed):
        if value.device not in (None, device):
            raise ValueError(f"{kernel.key}: {expected.label} is on {value.device}, expected {device}")
        return value.value
    if isinstance(value, Tensor):
        return _described(kernel.key, expected.label, expected.type, value, device, return_ctype=True)
    return value


def _described(
    key: str, label: str, expected: Any, tensor: Tensor, device: torch.device | None, *, return_ctype: bool
) -> Any:
    """Return a tensor as the array that the kernel or struct `key` expects."""
    if tensor.device != device:
        raise ValueError(f"{key}: {label} is on {tensor.device}, expected {device}")
    described = wp.from_torch(tensor, dtype=expected.dtype, requires_grad=False, return_ctype=return_ctype)
    if described.ndim != expected.ndim:
        raise ValueError(f"{key}: expected {expected.ndim} axes of {label}, got shape {tuple(tensor.shape)}")
    return described


@cache
def start_warp() -> None:
    """Start Warp, once; `wp.device_from_torch` and similar functions fail before this.

    Without a CUDA driver, Warp's native part writes a line about it to stderr at any log level; that is normal on a
    laptop, so the line is removed.
    """
    with tempfile.TemporaryFile() as stderr_text:
        stderr = os.dup(2)
        os.dup2(stderr_text.fileno(), 2)
        try:
            wp.init()
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        stderr_text.seek(0)
        lines = [line for line in stderr_text.read().decode(errors="replace").splitlines() if "CUDA driver" not in line]
    if lines:
        print(*lines, sep="\n", file=sys.stderr)


def count_cuda_devices() -> int:
    """Return how many GPUs Warp can launch kernels on; Torch may see some that need a newer driver for Warp."""
    start_warp()
    return wp.get_cuda_device_count()


def why_no_cuda() -> str:
    """Return why Warp finds fewer GPUs than Torch, and what to do."""
    needed, found = wp.get_cuda_toolkit_version(), wp.get_cuda_driver_version()
    if needed is None:
        return "this Warp was built without CUDA; install the package warp-lang from PyPI"
    if found is None:
        return "its native part finds no NVIDIA driver; see what nvidia-smi says"
    versions = [".".join(map(str, version)) for version in (needed, found)]
    return (
        f"it is built with CUDA {versions[0]}, the NVIDIA driver is for CUDA {versions[1]}; update the driver, or "
        "install an older warp-lang"
    )


def warp_device(device: torch.device) -> Any:
    """Return Warp's name for a Torch device."""
    start_warp()
    return wp.device_from_torch(device)


@contextmanager
def warp_scope(device: torch.device) -> Iterator[Any]:
    """Run Warp's own launches on Torch's device and stream."""
    name = warp_device(device)
    with wp.ScopedDevice(name), wp.ScopedStream(_stream(device)):
        yield name

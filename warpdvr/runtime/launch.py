"""Launch Warp kernels on Torch tensors: the only file that knows both."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import warp as wp
from torch import Tensor

from warpdvr.runtime.threads import side_by_side

wp.config.log_level = max(wp.config.log_level, wp.LOG_WARNING)  # no banner: what a command prints is its own


def launch(
    kernel: Any,
    n: int | tuple[int, ...],
    inputs: Sequence[Any],
    outputs: Sequence[Tensor],
    *,
    per_row: Sequence[Tensor] = (),
    state: Sequence[Tensor] = (),
) -> None:
    """Launch `kernel` over `n` rows; tensors go in as they are, without a copy and without a gradient.

    The kernel receives `inputs`, then `state`, then `outputs`. Warp reads past the end of a short array in silence, so
    every tensor in `outputs` and `per_row` must have `n` rows (the first axis of `n`, if that is a tuple). `state` is
    what the kernel updates in place at rows that it looks up itself. A vector array is a contiguous float32 (n, 3)
    tensor.

    Raises:
        ValueError: if a tensor has another number of rows than `n`, of axes than its array, or is on another device.
        RuntimeError: if a tensor's type does not fit its array.
    """
    rows = n if isinstance(n, int) else n[0]
    for tensor in (*outputs, *per_row):
        if len(tensor) != rows:
            raise ValueError(f"{kernel.key}: expected {rows} rows, got shape {tuple(tensor.shape)}")
    if rows == 0:
        return
    start_warp()
    device = (*state, *outputs)[0].device
    given = (*inputs, *state, *outputs)
    wp.launch(
        kernel,
        dim=n,
        inputs=[_described(kernel, i, a, device) if isinstance(a, Tensor) else a for i, a in enumerate(given)],
        **_place(device),
    )


def launch_parts(
    kernel: Any, n: tuple[int, int], inputs: Sequence[Any], outputs: Sequence[Tensor], axis: int | None
) -> None:
    """Launch `kernel` over `n` rows and columns; on a CPU in parts side by side, on as many threads as Torch has.

    The kernel receives the first index of its part along `axis` (None: there is one part), then `inputs`, then
    `outputs`. It answers for the lengths of all arrays itself, and no two parts may write to the same place.
    """
    if 0 in n:
        return
    start_warp()
    device = outputs[0].device
    place = _place(device)
    given = enumerate((*inputs, *outputs), 1)
    args = [_described(kernel, i, a, device) if isinstance(a, Tensor) else a for i, a in given]

    def part(first: int, end: int) -> None:
        dim = (n[0], end - first) if axis else (end - first, n[1])
        wp.launch(kernel, dim=dim, inputs=[first, *args], **place)

    threads = 1 if axis is None or device.type == "cuda" else min(torch.get_num_threads(), n[axis])
    if axis is None or threads == 1:
        part(0, n[axis or 0])
    else:
        wp.load_module(kernel.module, device=place["device"])  # compiling is not for several threads
        count = min(4 * threads, n[axis])  # more parts than threads: they take different times
        side_by_side(part, [n[axis] * i // count for i in range(count + 1)], threads)


def _place(device: torch.device) -> dict[str, Any]:
    """Return where Warp is to launch: Torch's device, and its stream."""
    stream = wp.stream_from_torch(device) if device.type == "cuda" else None
    return {"device": wp.device_from_torch(device), "stream": stream}


def _described(kernel: Any, i: int, tensor: Tensor, device: torch.device) -> Any:
    """Return what Warp makes of a tensor; left to `wp.launch`, it takes twice as long."""
    expected = kernel.adj.args[i]
    if tensor.device != device:
        raise ValueError(f"{kernel.key}: {expected.label} is on {tensor.device}, expected {device}")
    described = wp.from_torch(tensor, dtype=expected.type.dtype, requires_grad=False, return_ctype=True)
    if described.ndim != expected.type.ndim:
        raise ValueError(
            f"{kernel.key}: expected {expected.type.ndim} axes of {expected.label}, got shape {tuple(tensor.shape)}"
        )
    return described


@cache
def start_warp() -> None:
    """Start Warp, once; `wp.device_from_torch` and friends fail before this.

    Where there is no CUDA driver, Warp's native part writes a line about it to stderr whatever its log level; on a
    laptop that is no news, so this line is taken out.
    """
    with tempfile.TemporaryFile() as said:
        stderr = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            wp.init()
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        said.seek(0)
        rest = [line for line in said.read().decode(errors="replace").splitlines() if "CUDA driver" not in line]
    if rest:
        print(*rest, sep="\n", file=sys.stderr)


def warp_device(device: torch.device) -> Any:
    """Return Warp's name for a Torch device."""
    start_warp()
    return wp.device_from_torch(device)


def triangle_mesh(vertices: Tensor, faces: Tensor) -> Any:
    """Build Warp's search structure over triangles; pass its `id` to kernels and keep it alive until they ran.

    Args:
        vertices: shape (n, 3), float32.
        faces: shape (m, 3), indices of vertices.

    Raises:
        ValueError: if there is no triangle; a query of none would end the process.
    """
    if len(faces) == 0:
        raise ValueError("mesh: expected triangles to search among, found none")
    with _scope(vertices.device):
        points: Any = wp.from_torch(vertices.detach().contiguous(), dtype=wp.vec3)
        index: Any = wp.from_torch(faces.int().reshape(-1).contiguous())
        return wp.Mesh(points, index)


def marching_cubes(cell: Tensor, corner: Tensor) -> tuple[Tensor, Tensor]:
    """Triangulate {value = 0} in the given cells of a grid.

    Args:
        cell: the lowest corner of each cell, shape (n, 3), int32, no cell twice.
        corner: the values at the corners of each cell in the order of `cube_corners`, shape (n, 8), float32.

    Returns:
        Vertices (v, 3) in grid units and faces (m, 3), int64, wound so that negative values lie behind them.
    """
    with _scope(cell.device) as device:
        values = wp.from_torch(corner.reshape(-1).contiguous(), requires_grad=False)
        cells = wp.from_torch(cell.int().contiguous(), dtype=wp.vec3i)
        import warp.geometry as wg

        vertices, index = wg.sparse_marching_cubes_from_cells(cells, values, device=device)
        return wp.to_torch(vertices).clone(), wp.to_torch(index).reshape(-1, 3).long()


def sparse_marching_cubes(
    value: Callable[[Tensor], Tensor], low: Tensor, high: Tensor, cells: Sequence[int], lipschitz: float
) -> tuple[Tensor, Tensor]:
    """Triangulate {value = 0} in a box, asking only near the surface.

    Args:
        value: maps points (n, 3) to values (n,); called for many points at once.
        low, high: corners of the box, shape (3,) each.
        cells: number of cells along each axis.
        lipschitz: an upper bound of |grad value|; where it is too small, pieces vanish without a word.

    Returns:
        Vertices (v, 3) in the units of the box and faces (m, 3), int64, wound so that negative values lie behind them.
    """

    def batch(points: Any) -> Any:
        with torch.no_grad():
            return wp.from_torch(value(wp.to_torch(points)).float().contiguous(), requires_grad=False)

    with _scope(low.device) as device:
        x, y, z = (n + 1 for n in cells)
        lower, upper = wp.vec3(*low.tolist()), wp.vec3(*high.tolist())
        import warp.geometry as wg

        found: Any = wg.sparse_marching_cubes(
            batch, x, y, z, lower=lower, upper=upper, lipschitz_bound=lipschitz, device=device
        )
        vertices, index = found
        return wp.to_torch(vertices).clone(), wp.to_torch(index).reshape(-1, 3).long()


def cube_corners() -> tuple[tuple[int, int, int], ...]:
    """Return the corners of a cell in the order that `marching_cubes` expects."""
    import warp.geometry as wg

    offsets: tuple[tuple[int, int, int], ...] = wg.IsoSurfaceMarchingCubes.CUBE_CORNER_OFFSETS
    return offsets


@contextmanager
def _scope(device: torch.device) -> Iterator[Any]:
    """Run Warp's own launches on Torch's device and stream."""
    name = warp_device(device)
    with wp.ScopedDevice(name), wp.ScopedStream(wp.stream_from_torch(device) if device.type == "cuda" else None):
        yield name

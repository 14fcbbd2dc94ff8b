"""The hash encoding beside the same in Torch: forward, backward, and backward through the backward.

    python benchmarks/encoding.py [--threads N] [--repeat K]

Prints Markdown. "Torch" is tests/reference.py, which gathers the eight corners of all points at once; "Torch, factored"
multiplies weights and hashes axis by axis, which is faster forwards. All take turns, on the same points and tables.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import grad

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from reference import double, hash_encoding

from warpdvr.fields.encoding import HashEncoding

HEAD = """| points | rows per level | what | warpdvr [ms] | Torch [ms] | Torch, factored [ms] | both / warpdvr |
|---|---|---|---|---|---|---|"""


def factored(x: Tensor, tables: list[Tensor], cells: list[int], low: Tensor, high: Tensor) -> Tensor:
    """The same as hash_encoding, axis by axis."""
    place = (torch.minimum(torch.maximum(x, low), high) - low) / (high - low)
    features = []
    for table, r in zip(tables, cells, strict=True):
        at = place * r
        cell = at.detach().long().clamp_max(r - 1)
        at = at - cell
        side = torch.stack([1 - at, at])
        weight = side[:, None, None, :, 0] * side[None, :, None, :, 1] * side[None, None, :, :, 2]
        dense = len(table) == (r + 1) ** 3
        stride = (r + 1, (r + 1) ** 2) if dense else (2654435761, 805459861)
        i, j, k = torch.stack([cell, cell + 1]).unbind(-1)
        i, j, k = i[:, None, None], (j * stride[0])[None, :, None], (k * stride[1])[None, None, :]
        row = i + j + k if dense else (i ^ j ^ k) & (len(table) - 1)
        features.append((weight[..., None] * nn.functional.embedding(row, table)).sum((0, 1, 2)))
    return torch.cat(features, -1)


def tables(encoding: HashEncoding, size: int) -> list[Tensor]:
    rows = [min((r + 1) ** 3, size) for r in encoding.resolutions]
    return [part.detach().clone().requires_grad_() for part in encoding.table.split(rows)]


def parts(encode: Callable[[Tensor], Tensor], weights: list[Tensor], n: int) -> dict[str, Callable[[], Any]]:
    """Return what is measured; all of it on the same random points and gradients."""
    generator = torch.Generator().manual_seed(0)
    x = (2 * torch.rand(n, 3, generator=generator) - 1).requires_grad_()
    y = encode(x)
    g = torch.randn(y.shape, generator=generator).requires_grad_()
    v = torch.randn(n, 3, generator=generator)
    (slope,) = grad(y, x, g, create_graph=True)

    def plain() -> None:
        with torch.no_grad():
            encode(x)

    return {
        "forward, no gradient": plain,
        "forward": lambda: encode(x),
        "backward to the position": lambda: grad(y, x, g, retain_graph=True),
        "backward to the table": lambda: grad(y, weights, g, retain_graph=True),
        "backward to both": lambda: grad(y, [x, *weights], g, retain_graph=True),
        "double backward to gradient and table": lambda: grad(slope, [g, *weights], v, retain_graph=True),
        "double backward to all": lambda: grad(slope, [g, x, *weights], v, retain_graph=True),
    }


def measure(n: int, size: int, repeat: int) -> list[str]:
    """Return the lines of the table for one number of points and one size."""
    encoding = HashEncoding(size=size)
    peers: list[tuple[Callable[[Tensor], Tensor], list[Tensor]]] = [(encoding, [encoding.table])]
    for function in (hash_encoding, factored):
        weights = tables(encoding, size)
        peers.append((lambda x, f=function, w=weights: f(x, w, encoding.resolutions, *encoding.bounds), weights))  # type: ignore[misc]
    measured = [parts(encode, weights, n) for encode, weights in peers]
    lines = []
    for what in measured[0]:
        seconds: list[list[float]] = [[], [], []]
        for _ in range(repeat):
            for peer, found in zip(measured, seconds, strict=True):
                start = time.perf_counter()
                peer[what]()
                found.append(time.perf_counter() - start)
        ours, *others = (1e3 * sorted(found)[repeat // 2] for found in seconds)
        cells = [f"{ms:.2f}" for ms in (ours, *others)]
        ratio = " / ".join(f"**{ms / ours:.1f}**" for ms in others)
        lines.append(f"| {n} | 2^{size.bit_length() - 1} | {what} | {' | '.join(cells)} | {ratio} |")
    return lines


def agreement(dtype: torch.dtype) -> str:
    """Return the largest differences from Torch, each over the largest number that is compared."""
    encoding = HashEncoding()
    encoding = double(encoding) if dtype == torch.float64 else encoding
    weights = tables(encoding, 2**19)
    found = []
    for encode, w in (
        (encoding, [encoding.table]),
        (lambda x: hash_encoding(x, weights, encoding.resolutions, *encoding.bounds), weights),
    ):
        generator = torch.Generator().manual_seed(0)
        x = (2 * torch.rand(4096, 3, generator=generator) - 1).to(dtype).requires_grad_()
        y = encode(x)
        g = torch.randn(y.shape, generator=generator).to(dtype)
        first = grad(y, [x, *w], g, create_graph=True)
        second = grad(first[0].square().sum(), [x, *w])
        found.append([y, first[0], torch.cat(first[1:]), second[0], torch.cat(second[1:])])
    differences = [float((a - b).detach().abs().max() / b.detach().abs().max()) for a, b in zip(*found, strict=True)]
    return f"| {dtype} | {' | '.join(f'{d:.0e}' for d in differences)} |".replace("torch.", "")


def main() -> None:
    parser = argparse.ArgumentParser(description="The hash encoding beside the same in Torch.")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="for all of them")
    parser.add_argument("--repeat", type=int, default=5, help="how often; the median is printed")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"16 levels of 2 features, 16 to 2048 cells, float32, CPU, threads: {options.threads}\n\n{HEAD}")
    for n, size, repeat in ((2**16, 2**19, 1), (2**16, 2**15, 1), (2**14, 2**15, 2), (2**10, 2**15, 8)):
        print("\n".join(measure(n, size, repeat * options.repeat)), flush=True)
    print("\nLargest difference from Torch, relative to the largest number:\n")
    print("| precision | features | by position | by table | twice, by position | twice, by table |")
    print("|---|---|---|---|---|---|")
    for dtype in (torch.float32, torch.float64):
        print(agreement(dtype))


if __name__ == "__main__":
    main()

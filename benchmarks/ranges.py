"""What a proof costs: RangeMarch beside DenseMarch on trained networks, and how many boxes are proven empty.

    python benchmarks/ranges.py [--data FOLDER] [--size 64]

Prints Markdown. Seconds are those of one CPU thread, counted while it works.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from networks import SLOPE, TRAINED, Perceptron, trained, view  # noqa: E402
from reference import clip, double, first_crossing, in_double  # noqa: E402

from warpdvr import DenseMarch, Hit, Rays, Status  # noqa: E402
from warpdvr.fields.sdf import SDF  # noqa: E402
from warpdvr.intersection.range_march import RangeMarch, bounds_in_boxes  # noqa: E402


def hits(data: Path, size: int) -> None:
    print("| field | rays | solver | hits | missed | extra | gave up | max depth error | points/ray | seconds |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    torch.manual_seed(0)
    cases: dict[str, tuple[Any, float, int, float]] = {
        name: (trained(data, name), SLOPE[name], size, 2.5) for name in TRAINED
    }
    cases["sdf, as it starts"] = SDF(), 1.5, size, 2.5
    cases["8 x 64, relu"] = Perceptron(nn.ReLU(), 64), 1.5, size // 4, 1.6
    cases["8 x 64, softplus(100)"] = Perceptron(nn.Softplus(beta=100), 64), 1.5, size // 4, 1.6
    for name, (field, slope, n, distance) in cases.items():
        rays = view(n, distance=distance)
        ends = clip(*in_double(rays), field.bounds)
        expected = first_crossing(double(field), *in_double(rays), ends, 1024, slope)
        for solve in (RangeMarch(), DenseMarch()):
            start = time.process_time()
            hit = solve(field, rays)
            seconds = time.process_time() - start
            print(
                f"| {name} | {n} x {n} | {type(solve).__name__} | {row(hit, rays, expected)} | {seconds:.1f} |",
                flush=True,
            )


def row(hit: Hit, rays: Rays, expected: Tensor) -> str:
    t = torch.full((len(rays),), torch.nan, dtype=torch.float64).index_copy(0, hit.ray, hit.t.double())
    missed, extra = (int((a.isnan() & ~b.isnan()).sum()) for a, b in ((t, expected), (expected, t)))
    error = float((t - expected).abs().nan_to_num(0).max())
    lost = int((hit.status == Status.GAVE_UP).sum())
    return f"{len(hit.t)} | {missed} | {extra} | {lost} | {error:.1e} | **{hit.evaluations / len(rays):.1f}**"


def boxes(data: Path) -> None:
    """How many of 1000 random boxes of a grid are proven to hold no surface."""
    print("\n| field | 16^3 | 32^3 | 64^3 | 128^3 |\n|---|---|---|---|---|")
    for name in TRAINED:
        field, generator, cells = trained(data, name), torch.Generator().manual_seed(0), [name]
        for n in (16, 32, 64, 128):
            low = torch.randint(n, (1000, 3), generator=generator) * 2 / n - 1
            lower, upper = bounds_in_boxes(field, low, low + 2 / n)
            cells.append(f"{100 * float(((lower > 0) | (upper < 0)).double().mean()):.1f} %")
        print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="What a proof costs.")
    default = os.environ.get("WARPDVR_DATA", ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=default, help="folder of the data sets")
    parser.add_argument("--size", type=int, default=64, help="the view has size x size rays")
    options = parser.parse_args()
    torch.set_num_threads(1)
    hits(options.data, options.size)
    boxes(options.data)


if __name__ == "__main__":
    main()

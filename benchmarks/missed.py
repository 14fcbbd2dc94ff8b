"""What each solver misses of surfaces that are easy to miss, against 4,096 samples on each ray and bisection.

    python benchmarks/missed.py [--data FOLDER] [--only NAME ...] [--size 128] [--samples 4096]

Prints Markdown. The trained networks (Sharp and Jacobson 2022) need the data sets, WARPDVR_DATA or --data, and are left
out without them.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from adversarial import ADVERSARIES, changes_sign, lengths  # noqa: E402
from networks import view  # noqa: E402
from reference import clip, double, first_crossing, in_double  # noqa: E402

from warpdvr import DenseMarch, Rays, SphereTrace  # noqa: E402
from warpdvr.intersection.grid import BoundGrid  # noqa: E402

BEHIND = 1e-4
"""A hit that lies farther behind the reference's counts as behind it [scene unit]."""


@torch.no_grad()
def rows(name: str, field: Any, rays: Rays, samples: int) -> list[str]:
    """Return the lines of the table for one field."""
    precise, (o, d) = double(field), in_double(rays)
    expected = first_crossing(precise, o, d, clip(o, d, field.bounds), samples)
    grid = BoundGrid(field)
    solvers: dict[str, Any] = {"DenseMarch()": DenseMarch()}
    if field.lipschitz is not None:
        solvers["SphereTrace()"] = SphereTrace()
    solvers[f"DenseMarch(grid) [{grid.evaluations:,}]"] = DenseMarch(grid=grid)
    solvers["SphereTrace(grid)"] = SphereTrace(grid=grid)
    return [row(name, label, solve, precise, field, rays, expected) for label, solve in solvers.items()]


def row(name: str, label: str, solve: Any, precise: Any, field: Any, rays: Rays, expected: Tensor) -> str:
    hit = solve(field, rays)
    t, (o, d) = lengths(hit), in_double(rays)
    seen, should = ~t.isnan(), ~expected.isnan()
    without = ~changes_sign(precise, o[hit.ray], d[hit.ray], hit.t.double())
    counts = [should & ~seen, t - expected > BEHIND, seen & ~should, expected - t > BEHIND, without, hit.status == 4]
    cells = [name, label, f"{int(should.sum()):,}", *(str(int(count.sum())) for count in counts)]
    return f"| {' | '.join([*cells, f'{hit.evaluations / len(rays):.2f}'])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("WARPDVR_DATA", ROOT.parent / "shared/data")))
    parser.add_argument("--only", nargs="*", default=list(ADVERSARIES), help="names of fields")
    parser.add_argument("--size", type=int, default=128, help="rays along each side of the view")
    parser.add_argument("--samples", type=int, default=4096, help="of the reference, on each ray")
    options = parser.parse_args()
    print("| field | solver | hits | missed | behind | extra | in front | no change of sign | gave up | queries/ray |")
    print(f"|{'---|' * 10}")
    for name in options.only:
        adversary = ADVERSARIES[name]
        if options.data.is_dir() or not adversary.needs_data:
            field, rays = adversary.make(options.data), view(options.size, distance=2.2)
            print("\n".join(rows(name, field, rays, options.samples)), flush=True)


if __name__ == "__main__":
    main()

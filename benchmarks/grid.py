"""What a BoundGrid saves, and that it loses nothing: trained networks from many sides, a fitted field, meshes.

    python benchmarks/grid.py [--data FOLDER] [--run FOLDER] [--size 512] [--views 2]

Prints Markdown. --run names a finished `warpdvr fit`, which is rendered with and without a grid.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from networks import SLOPE, TRAINED, trained, view, views  # noqa: E402
from reference import Asked, clip, first_crossing  # noqa: E402

from warpdvr import DenseMarch, Hit, Rays, SphereTrace, extract  # noqa: E402
from warpdvr.cameras.rays import pixel_centres  # noqa: E402
from warpdvr.intersection.base import Solver  # noqa: E402
from warpdvr.intersection.grid import BoundGrid  # noqa: E402
from warpdvr.runs.run import Run  # noqa: E402


def lengths(hit: Hit) -> Tensor:
    return torch.full(hit.status.shape, torch.nan, dtype=torch.float64).index_copy(0, hit.ray, hit.t.double())


@torch.no_grad()
def against_samples(data: Path, size: int, count: int) -> None:
    """Hits of 1024 samples and bisection, from the view of queries.md and from random ones."""
    solvers = DenseMarch, SphereTrace
    columns = " | ".join(f"`{solver.__name__}(grid)` | missed, behind" for solver in solvers)
    print(f"| network | build | view | hits of reference | {columns} |")
    print(f"|{'---|' * (4 + 2 * len(solvers))}")
    for name in TRAINED:
        field = trained(data, name)
        grid = BoundGrid(field)
        others = views(size, count)
        for i in range(count + 1):
            rays = others[(i - 1) * size**2 : i * size**2] if i else view(size, distance=2.5)
            o, d = rays.origin, rays.direction
            expected = first_crossing(field, o, d, clip(o, d, field.bounds), 1024, SLOPE[name]).double()
            cells = [name, f"{grid.evaluations:,}", f"random {i}" if i else "as in queries.md"]
            cells.append(f"{int((~expected.isnan()).sum()):,}")
            for solver in solvers:
                hit = solver(grid=grid)(field, rays)
                t = lengths(hit)
                missed, behind = t.isnan() & ~expected.isnan(), t - expected > 1e-4
                cells += [f"{hit.evaluations / len(rays):.2f}", f"{int(missed.sum())}, {int(behind.sum())}"]
            print(f"| {' | '.join(cells)} |", flush=True)


@torch.no_grad()
def fitted(folder: Path) -> None:
    """A fitted field at 800 x 600, one thread."""
    run = Run.open(folder)
    field, camera = run.field(), run.load().cameras[0].resized(800, 600)
    rays = camera.rays(pixel_centres(800, 600, camera.K.device))
    start = time.perf_counter()
    grid = BoundGrid(field)
    seconds = time.perf_counter() - start
    print(f"\n{folder.name}; building the grid: {grid.evaluations:,} evaluations, {seconds:.2f} s\n")
    print("| method | hits | differ from the first | queries/ray | rays/s |\n|---|---|---|---|---|")
    first = None
    solvers: dict[str, Solver] = {
        "SphereTrace(cones=False)": SphereTrace(cones=False),
        "SphereTrace()": SphereTrace(),
        "SphereTrace(grid)": SphereTrace(grid=grid),
        "DenseMarch(grid)": DenseMarch(grid=grid),
        "DenseMarch(128)": DenseMarch(),
    }
    for name, solve in solvers.items():
        start = time.perf_counter()
        hits = [solve(field, part) for part in split(rays, 1 << 16)]
        seconds = time.perf_counter() - start
        seen = torch.cat([lengths(hit) for hit in hits])
        first = seen if first is None else first
        off = int(((seen.isnan() != first.isnan()) | ((seen - first).abs() > 1e-4)).sum())
        asked = sum(hit.evaluations for hit in hits)
        hit = int((~seen.isnan()).sum())
        print(f"| {name} | {hit:,} | {off} | {asked / len(rays):.2f} | {len(rays) / seconds:,.0f} |", flush=True)


def split(rays: Rays, n: int) -> list[Rays]:
    return [rays[i : i + n] for i in range(0, len(rays), n)]


def meshes(data: Path) -> None:
    """Meshes of 192 cells along each side, without a Lipschitz bound."""
    print("\n| network | everywhere | with a grid | same faces |\n|---|---|---|---|")
    for name in TRAINED:
        field, counts, faces = Asked(trained(data, name).value), [], []
        for grid in (False, True):
            field.asked = 0
            faces.append(extract(field, resolution=192, project=0, colors=False, grid=grid).faces)
            counts.append(field.asked)
        print(f"| {name} | {counts[0]:,} | {counts[1]:,} | {torch.equal(*faces)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="What a BoundGrid saves, and that it loses nothing.")
    default = os.environ.get("WARPDVR_DATA", ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=default, help="folder of the data sets")
    parser.add_argument("--run", type=Path, nargs="*", default=[], help="folders of finished fits")
    parser.add_argument("--size", type=int, default=512, help="pixels along each side of the views")
    parser.add_argument("--views", type=int, default=2, help="random views beside that of queries.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    against_samples(options.data, options.size, options.views)
    for folder in options.run:
        fitted(folder)
    meshes(options.data)


if __name__ == "__main__":
    main()

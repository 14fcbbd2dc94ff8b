"""How often a GPU is asked and waited for: launches and synchronisations of pictures and of steps of a fit.

    python benchmarks/launches.py [--run FOLDER] [--lines] [--steps N]

Prints Markdown. Needs no GPU: one is pretended (tests/pretend_cuda.py), and what would be launched there is counted. A
Torch launch is an operation of ATen's that is no view; a synchronisation is a wait of the CPU for the GPU, a copy
between them included. Pictures have 1920 x 1080 pixels; a run is one of `warpdvr fit`, by default a hash grid that has
learnt nothing is shown. --lines lists the lines that launch and wait most.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import pretend_cuda
from pretend_counts import Counts, counting

from warpdvr import BoundGrid, Camera, Fit, Recipe, SphereTrace, make, render
from warpdvr.datasets.synthetic import mesh_views
from warpdvr.fields.base import Field
from warpdvr.intersection.cached import CachedMarch
from warpdvr.runs.run import Run

SIZE, MEMORY = (1920, 1080), 16 << 30  # so that a picture is one tile, as on a GPU with 64 GiB
HEAD = """| what | Torch launches | Warp launches | synchronisations |
|---|---|---|---|"""
KINDS = "torch", "warp", "sync"


def row(name: str, counts: Counts, share: int = 1, *, lines: bool = False) -> None:
    """Print a row, and the lines behind its numbers."""
    numbers = " | ".join(f"{counts.total(kind) / share:,.0f}" for kind in KINDS)  # type: ignore[arg-type]
    print(f"| {name} | {numbers} |", flush=True)
    for kind in KINDS if lines else ():
        for line, n in counts.lines(kind)[:12]:  # type: ignore[arg-type]
            print(f"    {kind} {n / share:.1f} {line}")


@torch.no_grad()
def pictures(field: Field, *, lines: bool) -> None:
    """Count one picture of each solver; what is prepared once is not in it."""
    camera = Camera.look_at((1.2, -2.2, 0.9), width=SIZE[0], height=SIZE[1], fov=45).to("cuda")
    grid = BoundGrid(field)
    through = SphereTrace(grid=grid)
    for _ in range(2):
        render(field, camera, intersect=through)
        grid.sharpen(field)
    cached = CachedMarch().prepare(field)
    solvers: dict[str, Callable[[], object]] = {
        "one launch, `SphereTrace()`": lambda: render(field, camera, memory=MEMORY),
        "through Torch, `SphereTrace(fused=False)`": lambda: render(
            field, camera, intersect=SphereTrace(fused=False), memory=MEMORY
        ),
        "through a sharpened grid": lambda: render(field, camera, intersect=through, memory=MEMORY),
        "remembered values, `CachedMarch`": lambda: render(field, camera, intersect=cached, memory=MEMORY),
    }
    for name, picture in solvers.items():
        picture()
        with counting() as counts:
            picture()
        row(f"picture, {name}", counts, lines=lines)


def steps(count: int, *, lines: bool) -> None:
    """Count steps of a fit of hits, after the first ones."""
    views = mesh_views("warp:bunny", count=8, test=0, size=128)
    fit = Fit(make("hashgrid").to("cuda"), views, iterations=10 * count, recipe=Recipe(volume=0.0, exposure=0.0))
    for _ in range(5 * count):  # past the steps that look at the field more often
        next(fit)
    with counting() as counts:
        for _ in range(count):
            next(fit)
    row(f"step of a fit, mean of {count}", counts, count, lines=lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--lines", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with pretend_cuda.active():
        field = make("hashgrid").to("cuda") if arguments.run is None else Run.open(arguments.run).field("cuda")
        print(HEAD)
        pictures(field, lines=arguments.lines)
        steps(arguments.steps, lines=arguments.lines)


if __name__ == "__main__":
    main()

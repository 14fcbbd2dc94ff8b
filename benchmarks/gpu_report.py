"""All that is to be known of a GPU, in one call: tests, pictures a second, seconds to a fit, queries and launches.

    make gpu-report                             # or: python benchmarks/gpu_report.py [--out FILE] [--data FOLDER] ...

Writes Markdown with the name of the GPU. Tests run with `--device cuda`; pictures have 1920 x 1080 pixels with depth,
normals and colours; the fit is one of DTU scan 65, in the folder of the data sets (WARPDVR_DATA, or --data), until its
held-out views have 25 dB. Where the data are not found, a bunny is fitted instead.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import warp as wp

from warpdvr import BoundGrid, Camera, Fit, SphereTrace, Views, load, make, render
from warpdvr.datasets.synthetic import mesh_views
from warpdvr.evaluation.images import evaluate
from warpdvr.fields.base import Field
from warpdvr.intersection.cached import CachedMarch
from warpdvr.runtime.device import find_device
from warpdvr.runtime.files import replacing

ROOT = Path(__file__).parents[1]
GOAL = 25.0
"""Held-out PSNR at which a fit is stopped [dB]."""
LOOK = 100
"""Steps after which the held-out views are looked at; that time does not count."""
LONGEST = 200
"""Longer side of the pictures by which that is seen [pixel]."""


def seconds(task: Callable[[], object], repeat: int) -> float:
    """Return the median time of a task on the GPU [s], after it has run twice."""
    times = []
    for i in range(repeat + 2):
        torch.cuda.synchronize()
        start = time.perf_counter()
        task()
        torch.cuda.synchronize()
        if i > 1:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


@torch.no_grad()
def pictures(name: str, field: Field, size: tuple[int, int], repeat: int) -> Iterator[str]:
    """Yield a row for each way to a picture of a field."""
    camera = Camera.look_at((1.2, -2.2, 0.9), width=size[0], height=size[1], fov=45).to(field.bounds.device)
    grid = BoundGrid(field)
    solvers = {
        "`SphereTrace()`": SphereTrace(),
        "`SphereTrace(fused=False)`": SphereTrace(fused=False),
        "`SphereTrace(grid)`": SphereTrace(grid=grid),
        "`CachedMarch`": CachedMarch().prepare(field),
    }
    for label, solver in solvers.items():
        render(field, camera, intersect=solver)
        grid.sharpen(field)
        took = seconds(lambda solver=solver: render(field, camera, intersect=solver), repeat)  # type: ignore[misc]
        hits = int(render(field, camera, intersect=solver).mask.sum())
        yield f"| {name} | {label} | {1e3 * took:.1f} | {1 / took:.1f} | {hits:,} |"


def fitted(views: Views, device: torch.device, minutes: float) -> tuple[Field, str]:
    """Fit until held-out views are good; return the field, and how long that took."""
    field = make("hashgrid").to(device)
    spent, steps, psnr, start = 0.0, 0, 0.0, time.perf_counter()
    for _ in Fit(field, views, minutes=minutes):
        steps += 1
        if steps % LOOK:
            continue
        torch.cuda.synchronize()
        spent += time.perf_counter() - start
        psnr = evaluate(field, views, views.test[:4], longest=LONGEST).psnr
        if psnr >= GOAL:
            break
        start = time.perf_counter()
    return field, f"{psnr:.1f} dB after {spent:.1f} s, {steps // LOOK * LOOK / max(spent, 1e-9):.0f} steps a second"


def output(*command: str) -> str:
    """Return what a command of this repository prints, or how it failed."""
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    text = done.stdout.strip()
    return text if done.returncode == 0 else f"{text}\n\n`{' '.join(command)}` ended with status {done.returncode}."


def report(arguments: argparse.Namespace, device: torch.device) -> Iterator[str]:
    """Yield the lines of the report."""
    yield f"# {torch.cuda.get_device_name(device)}\n"
    yield f"Made by `make gpu-report`, with Torch {torch.__version__} and Warp {wp.__version__}.\n"
    if not arguments.no_tests:
        tests = output("-m", "pytest", "-q", "-p", "no:cacheprovider", "--device", str(device), "tests")
        yield f"Tests with `--device {device}`: {tests.splitlines()[-1]}\n"
    scan = arguments.data / "dtu_scan65"
    name = "scan 65" if scan.is_dir() else "bunny"
    views = load(scan) if scan.is_dir() else mesh_views("warp:bunny", count=24, test=4, size=arguments.photographs)
    field, text = fitted(views, device, arguments.minutes)
    yield f"Fit of {name}: {text}.\n"
    yield "| field | solver | picture [ms] | pictures a second | hits |\n|---|---|---|---|---|"
    size = arguments.width, arguments.height
    for label, one in ((name, field), ("torus", make("torus").to(device)), ("voxels", make("voxel-sdf").to(device))):
        yield from pictures(label, one, size, arguments.repeat)
    if not arguments.no_tests:
        yield "\n" + output("benchmarks/queries.py", "--data", str(arguments.data))
        yield "\n" + output("benchmarks/launches.py")


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "gpu.md")
    parser.add_argument("--device", default="cuda")
    data = Path(os.environ.get("WARPDVR_DATA", ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--minutes", type=float, default=5.0, help="after which a fit ends, good or not")
    parser.add_argument("--width", type=int, default=1920)
    parser.add_argument("--height", type=int, default=1080)
    parser.add_argument("--photographs", type=int, default=200, help="size of the pictures of the bunny")
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--no-tests", action="store_true", help="neither tests nor counts, which take longest")
    arguments = parser.parse_args(words)
    try:
        device = find_device(arguments.device)
        if device.type != "cuda":
            raise ValueError("gpu_report: measures a GPU; say --device cuda")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    lines = []
    for line in report(arguments, device):
        print(line, flush=True)
        lines.append(line)
    with replacing(arguments.out) as unfinished:
        unfinished.write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

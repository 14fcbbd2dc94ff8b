"""Peak memory of a render: it must not grow with the number of samples on a ray.

    python benchmarks/memory.py [--n 16 64 256 1024] [--size 128]

Prints one line per n. `peak(n, size)` measures in a fresh process; the tests use it too.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from warpdvr import Camera, DenseMarch, render
from warpdvr.fields.base import Field
from warpdvr.fields.mlp import MLP


class Wall(Field):
    """A network of 4 x 128 that adds a little to the distance of a wall, met at a tenth of the way."""

    def __init__(self) -> None:
        super().__init__(1.0)
        torch.manual_seed(0)
        self.network = MLP(3, 128, 4, 1, torch.relu)

    def value(self, x: Tensor) -> Tensor:
        return x[:, 2] - 0.8 + 0.01 * self.network(x)[:, 0]


def peak(n: int, size: int = 128) -> int:
    """Return the most memory [byte] that a fresh process held while it rendered size x size rays of n samples.

    Large blocks go back to the system when they are freed (a setting of glibc's malloc), so that what is measured is
    what the render holds and not what malloc keeps for later.
    """
    settings = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, __file__, "--child", "--n", str(n), "--size", str(size)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=settings).stdout)


def child(n: int, size: int) -> None:
    """Render in this process and print its peak."""
    torch.set_num_threads(1)
    camera = Camera.look_at((0.0, 0.0, 3.0), up=(0.0, 1.0, 0.0), fov=30.0, width=size, height=size)
    with torch.no_grad():
        image = render(Wall(), camera, intersect=DenseMarch(n=n))
    if not image.mask.all():
        raise RuntimeError("a ray missed the wall")
    print(resident_peak())


def resident_peak() -> int:
    """Return the peak of this process's resident memory [byte].

    Read from /proc where there is one: there ru_maxrss also remembers the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) << 10
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # byte on macOS


def main() -> None:
    parser = argparse.ArgumentParser(description="Peak memory of a render against samples per ray.")
    parser.add_argument("--n", type=int, nargs="+", default=[16, 64, 256, 1024], help="samples on each ray")
    parser.add_argument("--size", type=int, default=128, help="rows and columns of the image")
    parser.add_argument("--child", action="store_true", help="measure in this process, one n")
    options = parser.parse_args()
    if options.child:
        child(options.n[0], options.size)
        return
    print(f"| samples per ray, {options.size} x {options.size} rays | peak MiB | s |")
    print("|---|---|---|")
    for n in options.n:
        start = time.perf_counter()
        print(f"| {n} | {peak(n, options.size) / 2**20:.0f} | {time.perf_counter() - start:.1f} |")


if __name__ == "__main__":
    main()

"""What a step of a fit costs, and where; and what half precision and compiling would change.

    python benchmarks/step.py [--fields hashgrid sdf occupancy] [--steps 96] [--device cpu]

Prints Markdown. The scene is the bunny of the demo; measured after 100 steps, in one thread of Torch, as fits run.
"""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

import warpdvr.fitting.fit
from warpdvr import Fit, make
from warpdvr.datasets.synthetic import mesh_views
from warpdvr.datasets.views import Views
from warpdvr.fields.gradient import gradient

PARTS = (
    "drawing rays",
    "finding hits",
    "hits: value, normal, colour",
    "mask, neighbours, bounds",
    "backward and Adam",
    "looking at the field again",
)


class Clock:
    """Time spent in functions, by name; in a function that calls another one, without that [s]."""

    def __init__(self, device: torch.device):
        self.device = device
        self.spent: dict[str, float] = defaultdict(float)
        self.running: list[str] = []

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*args: Any, **kwargs: Any) -> Any:
            start, inner = self.now(), sum(self.spent.values())
            result = function(*args, **kwargs)
            self.spent[name] += self.now() - start - (sum(self.spent.values()) - inner)
            return result

        return measured

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def spent(kind: str, views: Views, steps: int, device: torch.device) -> list[float]:
    """Return the milliseconds of a step in all, and of its `PARTS`."""
    torch.manual_seed(0)
    job = Fit(make(kind, bounds=1.1).to(device), views, iterations=10 * steps)
    for _ in range(100):
        next(job)
    clock = Clock(device)
    job.pixels.draw = clock.timed("drawing rays", job.pixels.draw)  # type: ignore[method-assign]
    job._descend = clock.timed("backward and Adam", job._descend)  # type: ignore[method-assign]
    job._refresh = clock.timed("looking at the field again", job._refresh)  # type: ignore[method-assign]
    finding, seeing = type(job.intersect).__call__, warpdvr.fitting.fit.shaded
    comparing = warpdvr.fitting.fit.evaluate_terms
    type(job.intersect).__call__ = clock.timed("finding hits", finding)  # type: ignore[method-assign]
    warpdvr.fitting.fit.shaded = clock.timed("hits: value, normal, colour", seeing)
    warpdvr.fitting.fit.evaluate_terms = clock.timed("mask, neighbours, bounds", comparing)
    start = clock.now()
    try:
        for _ in range(steps):
            next(job)
    finally:
        type(job.intersect).__call__, warpdvr.fitting.fit.shaded = finding, seeing  # type: ignore[method-assign]
        warpdvr.fitting.fit.evaluate_terms = comparing
    return [1e3 * a / steps for a in (clock.now() - start, *(clock.spent[name] for name in PARTS))]


def shading(field: Any, points: int, settings: Callable[[], Any], device: torch.device) -> float:
    """Return the milliseconds of slope, colour and backward at `points` points, median of 15."""
    x = (2 * torch.rand(points, 3) - 1).to(device)
    times = []
    for _ in range(18):
        start = time.perf_counter()
        with settings():
            value, slope, feature = gradient(field, x.clone().requires_grad_())
            color = field.color(x, slope, slope, feature)
            total = color.float().mean() + slope.float().square().mean() + value.float().mean()
        total.backward(inputs=list(field.parameters()))
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[3:])


def main() -> None:
    parser = argparse.ArgumentParser(description="What a step of a fit costs.")
    parser.add_argument("--fields", nargs="+", default=["hashgrid", "sdf", "occupancy"])
    parser.add_argument("--steps", type=int, default=96)
    parser.add_argument("--device", type=torch.device, default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    views = mesh_views("warp:bunny", count=32, test=1, size=200)
    print(f"| field, ms per step of 2048 rays | all | {' | '.join(PARTS)} |\n|---|{'---|' * (len(PARTS) + 1)}")
    for kind in options.fields:
        cells = spent(kind, views, options.steps, options.device)
        print(f"| {kind} | **{cells[0]:.1f}** | {' | '.join(f'{a:.1f}' for a in cells[1:])} |", flush=True)
    print("\n| slope, colour and backward at 1024 points, ms | float32 | bfloat16 (autocast) |\n|---|---|---|")
    kind = options.device.type
    for name in options.fields:
        field: Any = make(name).to(options.device)
        exact = shading(field, 1024, lambda: torch.autocast(kind, enabled=False), options.device)
        half = shading(field, 1024, lambda: torch.autocast(kind, dtype=torch.bfloat16), options.device)
        print(f"| {name} | {exact:.2f} | {half:.2f} |", flush=True)
    field = make("sdf").to(options.device)
    compiled = torch.compile(field.geometry)
    try:
        x = torch.rand(64, 3, device=options.device, requires_grad=True)
        (slope,) = torch.autograd.grad(compiled(x)[0].sum(), x, create_graph=True)
        slope.square().sum().backward()
        print("\ntorch.compile: the gradient of the slope works")
    except Exception as error:  # whatever it is, it is the answer
        print(f"\ntorch.compile: the gradient of the slope fails: {str(error).splitlines()[0]}")


if __name__ == "__main__":
    main()

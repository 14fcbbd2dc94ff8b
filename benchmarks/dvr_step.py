"""A training step beside DVR's own: same network size, same surface, same pixels; evaluations and seconds.

    python benchmarks/dvr_step.py [--dvr CHECKOUT] [--rounds 8] [--rays 2048]

Prints Markdown. With --dvr, a checkout of github.com/autonomousvision/differentiable_volumetric_rendering, its trainer
takes turns with ours. Its code runs as it is: packages are entered without their __init__, modules that a step never
uses are empty. Its decoder gets our weights, and our ball is added to its logit, so that both sides have one surface.
A round is 16 steps of ours and one of each of the others.
"""

import argparse
import copy
import importlib
import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from warpdvr import DenseMarch, Fit, Rays, Recipe
from warpdvr.datasets.pixels import Pixels
from warpdvr.datasets.synthetic import mesh_views
from warpdvr.datasets.views import Views
from warpdvr.fields.logit import ball
from warpdvr.fields.occupancy import Occupancy
from warpdvr.intersection.base import Solver
from warpdvr.intersection.cached import REFRESH

HALF = 1.1
"""Half the side of the box in which rays are marched: twice what DVR's padded cube has [scene unit]."""

HEAD = """| steps | which | hits | s per step | evaluations | without gradient | with gradient | DVR 64 : this |
|---|---|---|---|---|---|---|---|"""


class Count:
    """Points that went through a network without (0) and with (1) a gradient being recorded, and hits (2)."""

    def __init__(self) -> None:
        self.points = [0, 0, 0]

    def add(self, x: Tensor) -> None:
        self.points[torch.is_grad_enabled()] += x.shape[:-1].numel()

    def hit(self, n: int) -> None:
        self.points[2] += n


class Row:
    """What the rounds of one kind of step took. Time is the process's own: others on the machine hardly change it."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.points: list[list[float]] = []

    def measure(self, count: Count, step: Callable[[], Any], times: int = 1) -> None:
        """Take some steps and note the mean of each quantity."""
        count.points = [0, 0, 0]
        start = time.process_time()
        for _ in range(times):
            step()
        self.seconds.append((time.process_time() - start) / times)
        self.points.append([n / times for n in count.points])

    def means(self) -> list[float]:
        """Return what `Count` holds, of a step."""
        return [statistics.mean(column) for column in zip(*self.points, strict=True)]

    def line(self, state: str, name: str, peer: float | None) -> str:
        search, other, hits = self.means()
        ratio = "" if peer is None else f"{peer / (search + other):.1f}"
        cells = f"{statistics.median(self.seconds):.3f} | **{search + other:,.0f}** | {search:,.0f} | {other:,.0f}"
        return f"| {state} | {name} | {hits:,.0f} | {cells} | {ratio} |"


class SharedPixels:
    """Step i sees pixels of one view, as a step of DVR does, and always the same ones; drawn as a fit draws them."""

    def __init__(self, views: Views):
        self.views = views
        every = set(range(len(views.images)))
        self.pools = [Pixels(replace(views, train=(i,), test=tuple(every - {i}))) for i in views.train]
        self.i = 0

    def draw(self, n: int, *others: Any, **kinds: Any) -> Any:  # as a fit calls it
        self.i += 1
        return self.at(self.i - 1, n)

    def at(self, i: int, n: int) -> Any:
        return self.pools[i % len(self.pools)].draw(n, torch.Generator().manual_seed(i))


class Ours:
    """A fit whose evaluations are counted at its network, and hits where they are coloured."""

    def __init__(self, field: Occupancy, pixels: SharedPixels, rays: int, intersect: Solver | None = None):
        self.count, geometry, color = Count(), field.geometry, field.color

        def asked(x: Tensor) -> Any:
            self.count.add(x)
            return geometry(x)

        def colored(x: Tensor, *others: Any) -> Tensor:
            self.count.hit(len(x))
            return color(x, *others)

        field.geometry, field.color = asked, colored  # type: ignore[method-assign, assignment]
        self.job = Fit(field, pixels.views, iterations=2000, recipe=Recipe(rays=rays), intersect=intersect)
        self.job.pixels = pixels  # type: ignore[assignment]

    def step(self) -> None:
        """Take one step; what the fit says of its evaluations must be what was counted."""
        before = self.job.evaluations, sum(self.count.points[:2])
        told, counted = next(self.job).evaluations - before[0], sum(self.count.points[:2]) - before[1]
        if told != counted:
            raise RuntimeError(f"dvr_step: the fit tells of {told} evaluations in a step, {counted} were counted")


class SameField(nn.Module):
    """DVR's decoder with our weights, and the ball that our field is the distance from; in DVR's halved units."""

    def __init__(self, decoder: nn.Module, field: Occupancy):
        super().__init__()
        self.decoder, self.field = decoder, (field,)  # the tuple hides our weights from DVR's optimiser

    def forward(self, p: Tensor, c: Tensor, only_occupancy: bool = False, **others: Any) -> Tensor:
        out: Tensor = self.decoder(p, c, only_occupancy=only_occupancy, **others)
        field = self.field[0]
        return out - field.offset - ball(2 * p, field.radius, field.steepness) if only_occupancy else out

    def copy(self) -> None:
        """Take over our weights."""
        names = {"first": "fc_p", "last": "fc_out", "inner": "fc_0", "outer": "fc_1"}
        ours = self.field[0].named_parameters()
        weights = {".".join(names.get(part, part) for part in name.split(".")): a.detach() for name, a in ours}
        last = {f"fc_out.{name}": weights[f"fc_out.{name}"].clone() for name in ("weight", "bias")}
        for a in last.values():
            a[0] *= self.field[0].steepness
        self.decoder.load_state_dict(weights | last | {"fc_p.weight": 2 * weights["fc_p.weight"]})


class Peer:
    """DVR's trainer and model on our pixels and our field; scene units are halved for its cube."""

    def __init__(self, checkout: Path, field: Occupancy, pixels: SharedPixels, rays: int):
        self.pixels, self.rays = pixels, rays
        self.training, models = _import(checkout)
        size = {"hidden_size": field.first.out_features, "n_blocks": len(field.blocks)}
        self.field = SameField(models.decoder.Decoder(c_dim=0, **size), field)
        search = {"schedule_ray_sampling": False, "depth_range": [0.0, 4.8]}
        self.model = models.DVR(self.field, device=torch.device("cpu"), depth_function_kwargs=search)
        self.count = Count()
        self.field.register_forward_hook(lambda _, args, out: self.count.add(args[0]))
        self.model.register_forward_hook(lambda _, args, out: self.count.hit(int(out[4].sum())))

    def prepare(self, i: int, samples: int) -> Callable[[], Any]:
        """Return the step on the pixels of our step `i`, from our present weights."""
        self.field.copy()
        self.model.call_depth_function.n_steps = [samples, samples + 1]
        optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4)
        trainer = self.training.Trainer(self.model, optimizer, torch.device("cpu"), n_training_points=self.rays)
        p, data = _as_dvr(self.pixels, i, self.pixels.at(i, self.rays).rays)
        self.training.sample_patch_points = lambda *args, **kwargs: p
        return lambda: trainer.train_step(data)


def _import(checkout: Path) -> tuple[Any, Any]:
    """Return the modules of DVR's trainer and of its model."""
    if not (checkout / "im2mesh" / "dvr" / "training.py").is_file():
        raise SystemExit(f"{checkout}: expected a checkout of DVR with im2mesh/dvr/training.py, found none")
    for name in ("im2mesh", "im2mesh.dvr", "im2mesh.utils"):
        package = types.ModuleType(name)
        package.__path__ = [str(checkout / name.replace(".", "/"))]
        sys.modules[name] = package
    empty: Any = types.SimpleNamespace(KDTree=None, tqdm=None)
    for name in ("im2mesh.utils.libkdtree", "im2mesh.utils.visualize", "tqdm"):
        sys.modules.setdefault(name, empty)
    return importlib.import_module("im2mesh.dvr.training"), importlib.import_module("im2mesh.dvr.models")


def _as_dvr(pixels: SharedPixels, i: int, rays: Rays) -> tuple[Tensor, dict[str, Tensor]]:
    """Return pixels (1, n, 2) in [-1, 1] and the view they are of, as DVR's trainer reads it."""
    view, views = pixels.views.train[i % len(pixels.pools)], pixels.views
    image, mask, camera = views.images[view], views.masks[view], views.cameras[view]
    K, pose = camera.K.double(), camera.pose.double()
    seen = rays.direction.double() @ pose[:3, :3] @ K.T
    size = torch.tensor([camera.width, camera.height]).double()
    p = 2 * (seen[:, :2] / seen[:, 2:]) / size - 1
    camera_mat = torch.block_diag(torch.diag(torch.cat([2 / size, torch.ones(1)])) @ K, torch.ones(1))
    camera_mat[:2, 2] -= 1
    data = {
        "img": image.permute(2, 0, 1)[None] / 255,
        "img.mask": mask[None].float(),  # type: ignore[index]
        "img.camera_mat": camera_mat[None],
        "img.world_mat": torch.linalg.inv(pose)[None],
        "img.scale_mat": torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0]))[None],
    }
    return p[None].float(), {name: a.float() for name, a in data.items()}


def compare(ours: Ours, peer: Peer | None, rounds: int) -> list[str]:
    """Measure rounds from the fit's present state on; return the lines of the table."""
    job: Any = ours.job
    first, plain_name = job.iteration, "warpdvr, DenseMarch(64, splits=0)"
    twin = Occupancy(width=job.field.first.out_features, frequencies=0, bounds=HALF)
    names = {f"DVR, {n} samples": n for n in (64, 16)} if peer else {}
    if peer:
        peer.prepare(first, 16)()  # the first one is slow
    plain = Ours(twin, copy.copy(job.pixels), job.recipe.rays, DenseMarch(64, splits=0))
    plain.job.resume(job.state())
    rows = {name: Row() for name in (*names, plain_name, "warpdvr")}
    for i in range(first, first + rounds * REFRESH, REFRESH):
        for name in names:
            rows[name].measure(peer.count, peer.prepare(i, names[name]))  # type: ignore[union-attr]
        twin.load_state_dict(job.field.state_dict())
        plain.job.pixels.i = i  # type: ignore[attr-defined]
        rows[plain_name].measure(plain.count, plain.step)
        rows["warpdvr"].measure(ours.count, ours.step, REFRESH)
    reference = sum(rows["DVR, 64 samples"].means()[:2]) if peer else None
    return [row.line(f"{first + 1} to {job.iteration}", name, reference) for name, row in rows.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description="A training step beside DVR's own.")
    parser.add_argument("--dvr", type=Path, help="a checkout of DVR's code")
    parser.add_argument("--rounds", type=int, default=8, help="of 16 of our steps and one of DVR's")
    parser.add_argument("--rays", type=int, default=2048)
    parser.add_argument("--width", type=int, default=256)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="Default grid_sample")  # DVR's; pixels are exact with this default
    torch.set_num_threads(1)
    torch.manual_seed(0)
    views = mesh_views("warp:bunny", count=29, test=1, size=200)  # 29 and 16 share no factor: rounds see many views
    pixels = SharedPixels(views)
    field = Occupancy(width=options.width, frequencies=0, bounds=HALF)
    peer = Peer(options.dvr, field, pixels, options.rays) if options.dvr else None
    ours = Ours(field, pixels, options.rays)
    print(HEAD)
    for _ in range(2):
        print("\n".join(compare(ours, peer, options.rounds)), flush=True)
        while ours.job.iteration < 16 * REFRESH:
            ours.step()


if __name__ == "__main__":
    main()

"""Pictures of fields whose value is a Warp function: whole rays in a few launches, and step by step through Torch.

    python benchmarks/fused.py [--mesh FILE] [--run FOLDER ...] [--size N] [--repeat K] [--mitsuba] [--threads N]

Prints Markdown: CPU milliseconds of a picture with depth, normals and colours, the best of K, taken in turns. The voxel
grid holds the distances to a mesh at 129^3 corners. With --mitsuba, Mitsuba 3's `sdfgrid` (Vicini et al. 2022) takes
its turn on the same grid and the same camera, depth and normals, on the same number of threads: it needs
`pip install mitsuba` and LLVM, which DRJIT_LIBLLVM_PATH names.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from warpdvr import Camera, SphereTrace, make, render
from warpdvr.fields.base import Field
from warpdvr.geometry.distance import signed_distance
from warpdvr.geometry.mesh import bounding_ball, read_mesh
from warpdvr.runs.run import Run

CORNERS = 129
EYE = (1.2, -2.2, 0.9)
HEAD = """| field | tracer | picture [ms] | finding hits [ms] | hits | other than through Torch | queries per ray |
|---|---|---|---|---|---|---|"""


def voxels(mesh_file: Path) -> Field:
    """Return a grid of the distances to a mesh that fills most of the bounds."""
    mesh = read_mesh(mesh_file)
    centre, radius = bounding_ball(mesh.vertices)
    line = torch.linspace(-1, 1, CORNERS)
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")
    scale = 0.95 / radius
    corner = torch.stack([x, y, z], -1).reshape(-1, 3) / scale + centre
    field: Any = make("voxel-sdf", resolution=CORNERS - 1)
    field.distance.table.data[:, 0] = signed_distance(corner, mesh) * scale
    field.bound_slope()
    return field


def measured(tasks: dict[str, Callable[[], Any]], repeat: int) -> dict[str, tuple[float, Any]]:
    """Return the least CPU time of each task [ms] and its last result; they take turns."""
    least, result = dict.fromkeys(tasks, float("inf")), {name: task() for name, task in tasks.items()}
    for _ in range(repeat):
        for name, task in tasks.items():
            start = time.process_time()
            result[name] = task()
            least[name] = min(least[name], 1e3 * (time.process_time() - start))
    return {name: (least[name], result[name]) for name in tasks}


def mitsuba(field: Any, size: int, threads: int) -> Callable[[], tuple[Tensor, Tensor]]:
    """Return a function that renders depth and normals of a voxel grid with Mitsuba."""
    import drjit as dr
    import mitsuba as mi

    dr.set_thread_count(threads - 1)  # besides the one that waits
    mi.set_variant("llvm_ad_rgb")
    transform = mi.ScalarTransform4f()
    grid = field.distance.table.detach().view(CORNERS, CORNERS, CORNERS, 1).numpy()
    place = transform.translate([-1, -1, -1]).scale(2)
    shape = {"type": "sdfgrid", "normals": "smooth", "grid": mi.TensorXf(grid), "to_world": place}
    scene = mi.load_dict({"type": "scene", "shape": shape})
    look = transform.look_at(origin=list(EYE), target=[0, 0, 0], up=[0, 0, 1])
    film = {"type": "hdrfilm", "width": size, "height": size}
    sensor = mi.load_dict({"type": "perspective", "fov": 45, "fov_axis": "x", "to_world": look, "film": film})

    def picture() -> tuple[Tensor, Tensor]:
        i = dr.arange(mi.UInt32, size * size)
        place = mi.Point2f((mi.Float(i % size) + 0.5) / size, (mi.Float(i // size) + 0.5) / size)
        ray, _ = sensor.sample_ray(0, 0, place, mi.Point2f(0.5))
        seen = scene.ray_intersect(ray)
        hit = seen.is_valid()
        t, normal = dr.select(hit, seen.t, dr.nan), dr.select(hit, seen.n, 0)
        dr.eval(t, normal)
        dr.sync_thread()
        return t, normal

    return picture


def rows(name: str, field: Field, size: int, repeat: int, other: Callable[[], Any] | None) -> None:
    """Print the rows of a field."""
    camera = Camera.look_at(EYE, width=size, height=size, fov=45)
    rays = camera.rays()
    solvers = {"one launch": SphereTrace(), "through Torch": SphereTrace(fused=False)}
    tasks: dict[str, Callable[[], Any]] = {}
    for label, solver in solvers.items():
        tasks[label] = lambda solver=solver: render(field, camera, intersect=solver)
        tasks[f"{label}: hits"] = lambda solver=solver: solver(field, rays)
    if other is not None:
        tasks["Mitsuba"] = other
    times = measured(tasks, repeat)
    reference = times["through Torch"][1]
    for label in solvers:
        took, image = times[label]
        hits, differ = int(image.mask.sum()), int((image.mask != reference.mask).sum())
        queries = image.evaluations / size**2
        search = times[f"{label}: hits"][0]
        print(f"| {name} | {label} | {took:.0f} | {search:.0f} | {hits} | {differ} | {queries:.2f} |", flush=True)
    if other is not None:
        took, (t, _) = times["Mitsuba"]
        found = torch.from_numpy(t.numpy()).isfinite().view(size, size)
        differ = int((found != reference.mask).sum())
        print(f"| {name} | Mitsuba, `sdfgrid` | {took:.0f} | | {int(found.sum())} | {differ} | |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mesh", type=Path, help="of the voxel grid; by default a torus is voxelised")
    parser.add_argument("--run", type=Path, nargs="*", default=[], help="folders of fits")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--mitsuba", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    fields = {"torus": make("torus")}
    two = [{"kind": "sphere", "radius": 0.4}, {"kind": "box", "center": [0.3, 0.2, 0.1]}, {"kind": "torus"}]
    fields["union of three"] = make("union", parts=two)
    if arguments.mesh:
        fields[f"voxels, {arguments.mesh.stem}"] = voxels(arguments.mesh)
    fields |= {f"hash grid, {run.name}": Run.open(run).field() for run in arguments.run}
    print(HEAD)
    with torch.no_grad():
        for name, field in fields.items():
            peer = arguments.mitsuba and name.startswith("voxels")
            other = mitsuba(field, arguments.size, arguments.threads) if peer else None
            rows(name, field, arguments.size, arguments.repeat, other)


if __name__ == "__main__":
    main()

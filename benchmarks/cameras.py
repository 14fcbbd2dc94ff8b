"""Cameras that are refined: against a known shape, and together with an unknown one.

    python benchmarks/cameras.py [--data FOLDER] [--starts 20] [--size 200]
    python benchmarks/cameras.py --scan65 [--data FOLDER] [--only given refined true] [--steps 3000]

Prints Markdown. The first needs the data set weights/neural_implicit_queries and the packages of the tests: cameras
that are 10 degrees and 0.1 scene units off are refined against the network of the bunny, by pictures that Embree makes
of a fine mesh of it. The second needs dtu_scan65: fits with IDR's rough cameras as they are, with those refined
together with the shape, and with the calibrated ones. On the command line they are

    warpdvr fit SCENE --out RUN --iterations 3000 --set rays=4096 [--set cameras=7e-4]
    warpdvr refine-cameras RUN --views held-out --size 200 --out FOLDER

where the file SCENE names the folder, its camera file and the bounds (`SCENES` below).
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from scipy.spatial.transform import Rotation
from torch import Tensor
from trimesh.ray.ray_pyembree import RayMeshIntersector

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from networks import trained  # noqa: E402

from warpdvr import Fit  # noqa: E402
from warpdvr.cameras.alignment import CameraErrors, camera_errors  # noqa: E402
from warpdvr.cameras.camera import Camera  # noqa: E402
from warpdvr.cameras.rays import pixel_centres  # noqa: E402
from warpdvr.cameras.transform import SceneTransform  # noqa: E402
from warpdvr.datasets.load import load  # noqa: E402
from warpdvr.datasets.views import Views  # noqa: E402
from warpdvr.evaluation.images import evaluate  # noqa: E402
from warpdvr.fitting.pose_refinement import RefinedCamera, refine  # noqa: E402
from warpdvr.geometry.isosurface import extract  # noqa: E402
from warpdvr.runs.scene import Scene  # noqa: E402

DEGREES, SHIFT = 10.0, 0.1
"""How far cameras are off at first: about their own centres, and their centres [degree, scene unit]."""

NEAR = 0.2, 0.002
"""How near they are to be in the end [degree, scene unit]."""

SIDE = 5
"""Samples along each side of a pixel, for masks; a pixel is the object's if it covers more than half of it."""

ROUGH: dict[str, Any] = {"cameras": "cameras_linear_init.npz"}
SCENES: dict[str, tuple[dict[str, Any], float, float]] = {
    "given": (ROUGH, 0.9, 0.0),
    "refined": (ROUGH, 0.9, 7e-4),
    "true": ({}, 1.1, 0.0),
}
"""Camera file, half the side of the cube to look in, and rate of the cameras. The rough cameras come with a unit that
is half as large again, so that their cube has more room than the other."""

RAYS, SMALL, JUDGED = 4096, 200, 400
"""Rays in a step; longer side of the pictures that held-out cameras are refined by, and views are judged by [pixel]."""


def known_shape(data: Path, starts: int, size: int) -> Iterator[str]:
    """Return the lines of the first table."""
    field: Any = trained(data, "bunny")
    views = photographs(field, starts, size)
    far = off(views)
    yield "| compared | within 0.2 degrees and 0.002 | rotation, median | at most | centre, median | at most | CPU s |"
    yield "|---|---|---|---|---|---|---|"
    for label, kinds in (("outline and depth", ("mask", "depth")), ("outline", ("mask",))):
        start = time.process_time()
        error = camera_errors(refine(field, far, kinds=kinds), views.cameras, aligned=False)
        seconds = (time.process_time() - start) / starts
        near = int(((error.rotation < NEAR[0]) & (error.centre < NEAR[1])).sum())
        numbers = [f"{float(some):.2g}" for e in (error.rotation, error.centre) for some in (e.median(), e.max())]
        yield f"| {label} | {near} of {starts} | {' | '.join(numbers)} | {seconds:.1f} |"


def photographs(field: Any, n: int, size: int) -> Views:
    """Return views from all sides, masks and depth by Embree."""
    mesh = extract(field, resolution=192)
    solid = RayMeshIntersector(trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False))
    rng, cameras = np.random.default_rng(0), []
    for _ in range(n):
        eye, target = rng.normal(size=3), rng.uniform(-0.05, 0.05, 3)
        cameras.append(Camera.look_at(3 * eye / np.linalg.norm(eye), target, up=(0, 1, 0), width=size, height=size))
    masks, depths = zip(*(photograph(solid, camera) for camera in cameras), strict=True)
    black = torch.zeros(size, size, 3, dtype=torch.uint8)
    names, which = tuple(map(str, range(n))), tuple(range(n))
    unmoved = SceneTransform.identity()
    return Views((black,) * n, masks, tuple(cameras), names, which, (), unmoved, "a bunny", depths=depths)


def photograph(solid: Any, camera: Camera) -> tuple[Tensor, Tensor]:
    """Return mask and z-depth (h, w)."""
    h, w = camera.height, camera.width
    o, d = rays(camera, pixel_centres(SIDE * w, SIDE * h).double().numpy() / SIDE)
    cover = solid.intersects_any(o, d).reshape(h, SIDE, w, SIDE).mean((1, 3))
    o, d = rays(camera, pixel_centres(w, h).double().numpy())
    x, ray, _ = solid.intersects_location(o, d, multiple_hits=False)
    z = np.full(h * w, np.nan, np.float32)
    z[ray] = (x - o[0]) @ camera.pose[:3, 2].numpy()
    return torch.from_numpy(cover > 0.5), torch.from_numpy(z).view(h, w)


def rays(camera: Camera, pixel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return origins and unit directions (n, 3), float64."""
    pose = camera.pose.numpy()
    d = np.c_[pixel, np.ones(len(pixel))] @ np.linalg.inv(camera.K.numpy()).T @ pose[:3, :3].T
    return np.repeat(pose[None, :3, 3], len(d), 0), d / np.linalg.norm(d, axis=1, keepdims=True)


def off(views: Views) -> Views:
    """Turn each camera about its centre, and shift it, in random directions."""
    rng, moved = np.random.default_rng(1), []
    for camera in views.cameras:
        axis, way = (a / np.linalg.norm(a) for a in rng.normal(size=(2, 3)))
        pose = camera.pose.clone()
        turn = Rotation.from_rotvec(np.deg2rad(DEGREES) * axis).as_matrix()
        pose[:3, :3] = torch.from_numpy(turn) @ pose[:3, :3]
        pose[:3, 3] += SHIFT * torch.from_numpy(way)
        moved.append(replace(camera, pose=pose))
    return replace(views, cameras=tuple(moved))


def scan65(data: Path, names: list[str], steps: int) -> Iterator[str]:
    """Return the lines of the second table; errors are mean / median / largest, those of training views."""
    folder = data / "dtu_scan65"
    right = load(folder)
    true = [right.transform.to_data(camera) for camera in right.cameras]
    yield (
        "| cameras | rotation [degree] | centre [mm] | aligned: rotation | centre | held out: PSNR [dB] | IoU | "
        "refined alone: PSNR | IoU | million evaluations | CPU s |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for name in names:
        files, bounds, rate = SCENES[name]
        fit = {"iterations": steps, "rays": RAYS, "cameras": rate}
        scene = Scene({"folder": str(folder), **files}, {"kind": "hashgrid", "bounds": bounds}, fit)
        start = time.process_time()
        views, field, job = fitted(scene, steps)
        seconds = time.process_time() - start
        found = [views.transform.to_data(camera) for camera in job.cameras]
        pair = [found[i] for i in views.train], [true[i] for i in views.train]
        errors = [cell for aligned in (False, True) for cell in told(camera_errors(*pair, aligned=aligned))]
        cells = [name, *errors, *held_out(field, views), f"{job.evaluations / 1e6:.0f}", f"{seconds:.0f}"]
        yield f"| {' | '.join(cells)} |"


def fitted(scene: Scene, steps: int) -> tuple[Views, Any, Fit]:
    """Return the views of a scene, and the field that was fitted to them."""
    torch.manual_seed(0)
    views, field = scene.load_views(), scene.make_field()
    job = Fit(field, views, iterations=steps, recipe=scene.recipe)
    for step in job:
        if step.iteration % 100 == 0:
            print(f"step {step.iteration}, loss {step.losses['total']:.3f}, {step.seconds:.0f} s", file=sys.stderr)
    return views, field, job


def told(error: CameraErrors) -> list[str]:
    return [f"{float(e.mean()):.2f} / {float(e.median()):.2f} / {float(e.max()):.2f}"
            for e in (error.rotation, error.centre)]  # fmt: skip


def held_out(field: Any, views: Views) -> list[str]:
    """Return PSNR and IoU of held-out views with their cameras as given, and refined alone against the field."""

    def callback(i: int, one: RefinedCamera) -> None:
        print(f"view {views.names[i]}: loss {one.before:.3g} -> {one.after:.3g}", file=sys.stderr)

    found = refine(field, views, views.test, longest=SMALL, callback=callback)
    scores = [evaluate(field, some, longest=JUDGED) for some in (views, replace(views, cameras=found))]
    return [cell for score in scores for cell in (f"{score.psnr:.2f}", f"{score.iou:.4f}")]


def main() -> None:
    parser = argparse.ArgumentParser(description="Cameras that are refined, and how near they come.")
    default = os.environ.get("WARPDVR_DATA", ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=default, help="folder of the data sets")
    parser.add_argument("--starts", type=int, default=20, help="cameras refined against a known shape (default: 20)")
    parser.add_argument("--size", type=int, default=200, help="their pictures have size x size pixels (default: 200)")
    parser.add_argument("--scan65", action="store_true", help="fit photographs with rough cameras instead")
    parser.add_argument("--only", nargs="+", choices=list(SCENES), default=list(SCENES), help="which of these fits")
    parser.add_argument("--steps", type=int, default=3000, help="of each of them (default: 3000)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = (
        scan65(options.data, options.only, options.steps)
        if options.scan65
        else known_shape(options.data, options.starts, options.size)
    )
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()

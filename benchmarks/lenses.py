"""Fit photographs with lens distortion beside photographs of the same object without: the scores must agree.

    python benchmarks/lenses.py [--iterations 1500] [--size 200] [--seed 0]

The bunny that comes with Warp is photographed by ray casting from the same 40 places through each lens, written as PNG
files with a `transforms.json`, and fitted by `warpdvr fit` as a user would.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import warpdvr
from warpdvr.cameras.lenses import FisheyeLens, OpenCVLens
from warpdvr.cameras.projection import PINHOLE, Projection
from warpdvr.cli.main import main
from warpdvr.datasets.export import export_cameras
from warpdvr.datasets.listing import NamedCamera
from warpdvr.datasets.studio import MeshHits, Studio, studio_lights
from warpdvr.datasets.synthetic import SAMPLES, mesh_views
from warpdvr.shading.materials import Lambert

LENSES: dict[str, Projection] = {
    "none": PINHOLE,
    "OPENCV, k1 = 0.058": OpenCVLens(torch.tensor([0.058, 0.0, 0.0, 0.0], dtype=torch.float64)),
    "OPENCV, k1 = -0.2, k2 = 0.05, p1 = p2 = 1e-3": OpenCVLens(
        torch.tensor([-0.2, 0.05, 1e-3, 1e-3], dtype=torch.float64)
    ),
    "OPENCV_FISHEYE, k1 = -0.03, k2 = 0.004": FisheyeLens(torch.tensor([-0.03, 0.004, 0.0, 0.0], dtype=torch.float64)),
}


def photograph(folder: Path, projection: Projection, size: int) -> None:
    """Write photographs and cameras through a lens."""
    views = mesh_views("warp:bunny", size=size)
    truth = views.truth
    assert truth is not None
    mesh = truth.transformed(views.transform.inverse().matrix)
    normals = warpdvr.geometry.mesh.vertex_normals(mesh.vertices, mesh.faces)

    def light(hits: MeshHits) -> torch.Tensor:
        n = torch.nn.functional.normalize((normals[mesh.faces[hits.face]] * hits.weight[..., None]).sum(1), dim=1)
        albedo = 0.5 + 0.3 * torch.sin(4 * hits.rays.at(hits.t))
        return Lambert().reflected(albedo, n, hits.rays.direction, studio_lights())

    studio = Studio(mesh.vertices, mesh.faces, light)
    (folder / "images").mkdir(parents=True)
    cameras = []
    for i, camera in enumerate(views.cameras):
        camera = replace(camera, projection=projection)
        image, mask = studio.photograph(camera, torch.tensor(SAMPLES))
        name = f"images/{i:03d}.png"
        Image.fromarray(np.concatenate([image.numpy(), 255 * mask[..., None].byte().numpy()], 2)).save(folder / name)
        cameras.append(NamedCamera(name, views.transform.to_data(camera)))
    export_cameras(cameras, folder, format="nerfstudio")


def table(iterations: int, size: int, seed: int) -> None:
    """Print the scores of each lens as rows of a table."""
    print("| lens | PSNR, held out [dB] | IoU, held out |\n|---|---|---|")
    for name, projection in LENSES.items():
        with tempfile.TemporaryDirectory() as folder:
            data, run = Path(folder) / "data", Path(folder) / "run"
            photograph(data, projection, size)
            status = main(
                [
                    "fit",
                    str(data),
                    "--out",
                    str(run),
                    "--iterations",
                    str(iterations),
                    "--hold-out",
                    "8",
                    "--seed",
                    str(seed),
                ]
            )
            assert status == 0, status
            scores = json.loads((run / "eval.json").read_text())
        print(f"| {name} | {scores['psnr']:.2f} | {scores['iou']:.4f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=1500)
    parser.add_argument("--size", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    table(options.iterations, options.size, options.seed)

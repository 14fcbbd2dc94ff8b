"""Latent codes of a trained decoder, found from views: how far the shape is from the true mesh.

    python benchmarks/codes.py [--data FOLDER] [--only mug ...] [--what "100 points" ...] [--steps 300] [--size 128]

Prints Markdown. Needs the data set weights/deepsdf_maurock: a DeepSDF decoder of three ShapeNet objects (mug, camera,
bottle), their codes and their meshes. Views are rendered from the meshes, in the frame of the network. Each fit begins
at the mean of the three codes, and is the one of the command line on a folder of such views:

    warpdvr fit-code decoder.npz FOLDER --bounds 0.7 --out RUN
"""

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from warpdvr import Fit
from warpdvr.cli.fit_code import DEPTH, ITERATIONS
from warpdvr.datasets.synthetic import mesh_views
from warpdvr.datasets.views import Views
from warpdvr.evaluation.surfaces import chamfer
from warpdvr.fields.deepsdf import DeepSDF
from warpdvr.fitting.recipe import RECIPES
from warpdvr.geometry.isosurface import extract
from warpdvr.geometry.mesh import Mesh, read_mesh

ROOT = Path(__file__).parents[1]
HOME = Path("weights/deepsdf_maurock")

NAMES = "mug", "camera", "bottle"
"""In the order of the decoder's codes."""

BOUNDS, RESOLUTION, SAMPLES = 0.7, 128, 100_000
"""Half the side of the cube that is looked in [unit of the network]; of the meshes; points on each for distances."""


@dataclass(frozen=True)
class Given:
    """What is known of the object."""

    views: int = 1
    """How many there are."""
    mask: bool = True
    """Whether they have masks."""
    depth: bool = False
    """Whether they have depth maps."""
    points: int = 0
    """How many points of each have a known depth."""

    def of(self, path: Path, size: int) -> Views:
        """Return such views of a mesh, in its own frame."""
        n = self.views
        test = int(n == 1)  # one view alone is not rendered: the second is thrown away
        all_views = mesh_views(
            path, count=n, test=test, size=size, depth=self.depth, points=self.points
        ).in_data_frame()
        cut = {k: getattr(all_views, k)[:n] for k in ("images", "masks", "cameras", "names", "depths", "points")}
        views = replace(all_views, train=tuple(range(n)), test=(), **cut)
        return views if self.mask else replace(views, masks=(None,) * n)


KINDS = {
    "8 masks": Given(8),
    "8 masks, 8 depth images": Given(8, depth=True),
    "1 depth image": Given(mask=False, depth=True),
    "1 depth image, its mask": Given(depth=True),
} | {
    f"{n} points{', mask' * mask}": Given(mask=bool(mask), points=n) for n in (100, 50, 20) for mask in (0, 1)
}  # fmt: skip
"""Points are those of one view."""


def shape(home: Path, index: int | None = None) -> DeepSDF:
    """Return the field of the decoder at one of its own codes, or at their mean."""
    return DeepSDF(str(home / "decoder.npz"), index=index, bounds=BOUNDS)


def apart(field: DeepSDF, truth: Mesh) -> float:
    """Return the mean of the two one-sided mean distances, NaN for a field without a surface."""
    mesh = extract(field, resolution=RESOLUTION, cavities=False)
    return chamfer(mesh, truth, samples=SAMPLES).chamfer_l1 if len(mesh.faces) else float("nan")


def fitted(home: Path, views: Views, steps: int) -> tuple[DeepSDF, int]:
    """Return the field with the code that was found, and how often it was asked."""
    torch.manual_seed(0)
    field = shape(home)
    known = [one for some in (views.depths, views.points) for one in some if one is not None]
    job = Fit(field, views, iterations=steps, recipe=replace(RECIPES["code"], **(DEPTH if known else {})))
    for _ in job:
        pass
    return field, job.evaluations


def rows(home: Path, names: list[str], kinds: list[str], steps: int, size: int) -> Iterator[str]:
    """Return the lines of the table."""
    truth = {name: read_mesh(home / f"gt_{name}.obj") for name in names}
    for label, own in (("the mean code, where fits begin", False), ("the true code", True)):
        found = [apart(shape(home, NAMES.index(name) if own else None), truth[name]) for name in names]
        yield " | ".join([f"| {label}", *(f"{a:.4f}" for a in found), "", " |"])
    for kind in kinds:
        cells, seconds, asked = [], 0.0, 0
        for name in names:
            views = KINDS[kind].of(home / f"gt_{name}.obj", size)
            start = time.process_time()
            field, evaluations = fitted(home, views, steps)
            seconds, asked = seconds + time.process_time() - start, asked + evaluations
            cells.append(f"**{apart(field, truth[name]):.4f}**")
        n = len(names)
        yield " | ".join([f"| {kind}", *cells, f"{asked / n / 1e6:.2f}", f"{seconds / n:.0f} |"])


def main() -> None:
    parser = argparse.ArgumentParser(description="Codes found from views, and how far their shapes are from the truth.")
    default = os.environ.get("WARPDVR_DATA", ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=default, help="folder of the data sets")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), help="names of objects")
    parser.add_argument("--what", nargs="+", choices=list(KINDS), default=list(KINDS), help="what is known of them")
    parser.add_argument("--steps", type=int, default=ITERATIONS, help=f"of each fit (default: {ITERATIONS})")
    parser.add_argument("--size", type=int, default=128, help="views have size x size pixels (default: 128)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"| known | {' | '.join(options.only)} | million field evaluations | CPU seconds |")
    print("|---|" + "---|" * (len(options.only) + 2))
    for line in rows(options.data / HOME, options.only, options.what, options.steps, options.size):
        print(line, flush=True)


if __name__ == "__main__":
    main()

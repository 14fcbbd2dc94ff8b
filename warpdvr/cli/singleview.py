"""The commands of the command line that are about a category."""

import argparse
import json
import math
import sys
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from warpdvr.datasets import files
from warpdvr.runtime.files import replacing
from warpdvr.singleview import metrics
from warpdvr.singleview import report as page
from warpdvr.singleview import run as course
from warpdvr.singleview.preprocess import read_picture
from warpdvr.singleview.render_category import photograph
from warpdvr.singleview.run import CategoryRun
from warpdvr.singleview.test_time import Refinement
from warpdvr.singleview.training import Trainer, TrainingConfig

MINUTES = 30.0
"""How long is learnt if nobody says."""


def add(command: Any) -> None:
    """Add the commands.

    Args:
        command: called with name, function and text; returns the parser of a command.
    """
    render = command("render-category", _render, "render textured meshes into a category of posed pictures")
    render.add_argument("meshes", type=Path, metavar="MESHES", help="folder or .zip, one mesh for each object")
    render.add_argument("out", type=Path, metavar="FOLDER", help="folder for the category")
    render.add_argument("--views", type=int, default=24, metavar="N", help="pictures of each object (default: 24)")
    render.add_argument("--size", type=int, default=64, metavar="PIXELS", help="width and height (default: 64)")

    train = command("train-category", _train, "learn to reconstruct shapes of a category from one picture")
    train.add_argument(
        "folder", type=Path, nargs="?", metavar="FOLDER", help="a sub-folder of posed pictures per object"
    )
    train.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder for the run")
    train.add_argument("--minutes", type=float, metavar="M", help=f"learn for M minutes (default: {MINUTES:g})")
    train.add_argument("--depth", type=float, metavar="W", help="weight of depth maps (default: 0, images and masks)")
    train.add_argument(
        "--symmetric", choices=("x", "y", "z"), help="all objects are their own mirror images along this axis"
    )
    train.add_argument("--seed", type=int, metavar="S", help="of weights, pictures and rays (default: 0)")
    again = train.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="continue the run in RUN where it was stopped")
    again.add_argument("--overwrite", action="store_true", help="replace the run in RUN")

    one = command("reconstruct-image", _reconstruct, "reconstruct a shape from one picture, with a trained category")
    one.add_argument("run", type=Path, metavar="RUN", help="folder of a category run")
    one.add_argument("picture", type=Path, metavar="PICTURE", help="any size; white behind the object, or alpha")
    one.add_argument("--out", type=Path, metavar="FILE", help=".ply or .obj (default: beside the picture)")
    one.add_argument("--resolution", type=int, default=128, metavar="N", help="cells along the bounds (default: 128)")
    _steps(one)

    score = command("eval-category", _evaluate, "compare reconstructions of held-out objects with their true meshes")
    score.add_argument("run", type=Path, metavar="RUN", help="folder of a category run")
    score.add_argument("meshes", type=Path, metavar="MESHES", help="what render-category was given")
    _steps(score)


def _steps(parser: argparse.ArgumentParser) -> None:
    usual = Refinement().steps
    parser.add_argument(
        "--steps",
        type=int,
        default=usual,
        metavar="N",
        help=f"in which the shape is fitted to the picture, 0 for the network's guess alone (default: {usual})",
    )


def _render(options: argparse.Namespace) -> None:
    with tqdm(total=100, bar_format="{percentage:3.0f}%|{bar:24}| {elapsed}<{remaining}", mininterval=_pause()) as bar:

        def show(done: float) -> None:
            bar.update(100 * done - bar.n)

        said = photograph(options.meshes, options.out, views=options.views, size=options.size, progress=show)
    for sentence in said:
        print(sentence)
    print(options.out)


def _train(options: argparse.Namespace) -> None:
    if options.resume:
        held = CategoryRun.open(options.out)
        if any(given is not None for given in (options.folder, options.seed, options.depth, options.symmetric)):
            raise ValueError(
                "--resume: a run that is resumed keeps its category, seed, weights and symmetry; only --minutes may "
                "change"
            )
        held = held if options.minutes is None else replace(held, minutes=options.minutes)
        category = held.objects()
        job = held.trainer(category, resume=True)
        held.write_config()
    else:
        if options.folder is None:
            raise ValueError("expected the folder of a category, got none (only --resume needs none)")
        minutes = MINUTES if options.minutes is None else options.minutes
        depth = options.depth or 0.0
        if not 0 <= depth < math.inf:
            raise ValueError(f"--depth: expected a weight that is not negative, got {depth}")
        held = CategoryRun(
            options.out,
            options.folder.resolve(),
            minutes,
            TrainingConfig(depth=depth),
            options.seed or 0,
            symmetric=options.symmetric or "",
        )
        category = held.objects()
        print(f"{len(category.train)} objects to learn from, {len(category.test)} held out")
        job = held.trainer(category)
        held.create(overwrite=options.overwrite)
    _follow(course.train(held, category, job), job)
    print(f"{job.iteration} steps, {job.evaluations / 1e6:.0f} million field evaluations, {job.seconds:.0f} s")
    print(held.checkpoint)


def _follow(steps: Any, job: Trainer) -> None:
    shape = "{percentage:3.0f}%|{bar:24}| {elapsed}<{remaining}{postfix}"
    bar = tqdm(total=100, initial=100 * job.progress, bar_format=shape, mininterval=_pause())
    with closing(steps), bar:
        for step, _ in steps:
            bar.n = round(100 * step.progress, 1)
            bar.set_postfix_str(f"step {step.iteration}  loss {step.losses['total']:.4f}", refresh=False)
            bar.update(0)


def _reconstruct(options: argparse.Namespace) -> None:
    refinement = Refinement(steps=options.steps)
    learnt = CategoryRun.open(options.run).load()
    out = options.out or options.picture.with_suffix(".ply")
    look = read_picture(options.picture)
    with files.naming(options.picture):
        field, mesh = metrics.reconstruct(learnt, look, resolution=options.resolution, refinement=refinement)
    mesh.save(out)
    page.two_sides(field, out.with_name(f"{out.stem}_sides.png"))
    print(f"{out}: {len(mesh.vertices)} vertices, {len(mesh.faces)} triangles")
    print(f"{out.with_name(out.stem + '_sides.png')}: two views of it")


def _evaluate(options: argparse.Namespace) -> None:
    held, refinement = CategoryRun.open(options.run), Refinement(steps=options.steps)
    page_ = held.folder / "page.png"
    scores = page.compare(held.load(), held.objects(), options.meshes, page_, refinement=refinement)
    with replacing(held.folder / "scores.json") as unfinished:
        unfinished.write_text(json.dumps({k: [asdict(one) for one in v] for k, v in scores.items()}, indent=2) + "\n")
    print(f"{'mean over held-out objects':28} Chamfer-L1   F-score   silhouette IoU")
    for name, some in scores.items():
        m = metrics.mean_scores(some)
        print(f"{name:28} {100 * m.chamfer_l1:8.2f} %  {m.f_score:8.3f}  {m.iou:8.3f}")
    print(page_)


def _pause() -> float:
    return 0.5 if sys.stderr.isatty() else 15.0

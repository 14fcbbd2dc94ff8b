"""The commands of a category: shapes from one picture."""

import json
import math
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from warpdvr.cli.arguments import RESUMED, OnDevice, named, positional
from warpdvr.cli.progress import follow, progress_bar
from warpdvr.datasets.files import error_prefix
from warpdvr.fitting.saving import SAVE, check_interval
from warpdvr.geometry.isosurface import check_resolution
from warpdvr.geometry.mesh import check_writable
from warpdvr.runtime.files import check_file, replacing
from warpdvr.singleview import metrics, report
from warpdvr.singleview import run as category_run
from warpdvr.singleview.preprocess import read_input_picture
from warpdvr.singleview.render_category import photograph
from warpdvr.singleview.run import CategoryRun
from warpdvr.singleview.test_time import Refinement
from warpdvr.singleview.training import TrainingConfig

MINUTES = 30.0
"""Default duration of a training [min]."""


@dataclass(frozen=True, kw_only=True)
class RenderCategoryArguments(OnDevice):
    """Render a data set of posed pictures from many meshes."""

    meshes: Path = field(metadata=positional("MESHES"))
    """Folder or .zip with one mesh for each object."""
    out: Path = field(metadata=positional("FOLDER"))
    """Folder of the category that is written."""
    views: int = field(default=24, metadata=named("N"))
    """Number of pictures of each object."""
    size: int = field(default=64, metadata=named("PIXELS"))
    """Width and height of the pictures [pixel]."""


@dataclass(frozen=True, kw_only=True)
class TrainCategoryArguments(OnDevice):
    """Train a network to reconstruct shapes from one picture."""

    folder: Path | None = field(default=None, metadata=positional("FOLDER") | RESUMED)
    """Folder with a sub-folder of posed pictures for each object."""
    out: Path = field(metadata=named("RUN"))
    """Folder of the run that is written."""
    minutes: float | None = field(default=None, metadata=named("M", usual=f"{MINUTES:g}"))
    """Train for M minutes."""
    depth: float | None = field(default=None, metadata=named("W", usual="0: images and masks alone"))
    """Weight of the depth loss [1 / scene unit]."""
    symmetric: Literal["x", "y", "z"] | None = field(default=None, metadata=named(usual="none"))
    """Axis along which all objects are their own mirror images."""
    seed: int | None = field(default=None, metadata=named("S", usual="0"))
    """Seed of the first weights, the pictures and the rays."""
    resume: bool = field(default=False, metadata=named(exclusive="folder"))
    """Continue the run in RUN from where it stopped."""
    overwrite: bool = field(default=False, metadata=named(exclusive="folder"))
    """Replace the run in RUN."""
    save_every: float = field(default=SAVE, metadata=named("SECONDS"))
    """Time between two checkpoints, and the most that is lost when the program is killed [s]."""


@dataclass(frozen=True, kw_only=True)
class Steps(OnDevice):
    """The options of all commands that reconstruct a shape."""

    steps: int = field(default=Refinement().steps, metadata=named("N"))
    """Number of steps that fit the shape to the picture; 0: the guess of the network alone."""


@dataclass(frozen=True, kw_only=True)
class ReconstructImageArguments(Steps):
    """Reconstruct the shape in a picture by a trained network."""

    run: Path = field(metadata=positional("RUN"))
    """Folder of a category run."""
    picture: Path = field(metadata=positional("PICTURE"))
    """Picture of any size, with white behind the object or an alpha channel."""
    out: Path | None = field(default=None, metadata=named("FILE", usual="a .ply beside the picture"))
    """File of the mesh, .ply, .obj, .off or .glb."""
    resolution: int = field(default=128, metadata=named("N"))
    """Cells along the longest side of the bounds."""


@dataclass(frozen=True, kw_only=True)
class EvalCategoryArguments(Steps):
    """Score a trained network on held-out objects.

    Their reconstructions are compared with their true meshes.
    """

    run: Path = field(metadata=positional("RUN"))
    """Folder of a category run."""
    meshes: Path = field(metadata=positional("MESHES"))
    """The meshes that render-category rendered."""


def render(options: RenderCategoryArguments) -> None:
    """Render a category."""
    with progress_bar() as show:

        def progress(share: float) -> None:
            show(share, "")

        sizes = {"views": options.views, "size": options.size}
        sentences = photograph(options.meshes, options.out, **sizes, device=options.torch_device, progress=progress)
    for sentence in sentences:
        print(sentence)
    print(options.out)


def train(options: TrainCategoryArguments) -> None:
    """Train on a category, or continue a training."""
    run = _resumed(options) if options.resume else _new(options)
    if not 0 < run.minutes < math.inf:
        raise ValueError(f"--minutes must be positive, got {run.minutes:g}")
    check_interval(options.save_every)
    with ExitStack() as lock:
        if run.config.is_file():
            lock.enter_context(run.locked())
        if options.resume:
            run.check_resumable()
            category = run.objects()
            job = run.trainer(category, resume=True, device=options.torch_device)
            run.write_config()
        else:
            run.check_new(overwrite=options.overwrite)
            category = run.objects()
            print(f"{len(category.train)} objects to learn from, {len(category.test)} held out")
            job = run.trainer(category, device=options.torch_device)
            is_new = not run.config.is_file()
            run.create(overwrite=options.overwrite)
            if is_new:
                lock.enter_context(run.locked())
        follow(category_run.train(run, category, job, save_every=options.save_every), job, "training")
    print(run.checkpoint)


def _resumed(options: TrainCategoryArguments) -> CategoryRun:
    """Return the run to continue; only its duration may be changed."""
    run = CategoryRun.open(options.out)
    if any(option is not None for option in (options.folder, options.seed, options.depth, options.symmetric)):
        raise ValueError(
            "--resume: a run that is resumed keeps its category, seed, weights and symmetry; only --minutes may change"
        )
    return run if options.minutes is None else replace(run, minutes=options.minutes)


def _new(options: TrainCategoryArguments) -> CategoryRun:
    """Return a new run."""
    if options.folder is None:
        raise ValueError("expected the folder of a category, got none (only --resume needs none)")
    depth = options.depth or 0.0
    if not 0 <= depth < math.inf:
        raise ValueError(f"--depth: expected a weight that is not negative, got {depth}")
    return CategoryRun(
        options.out,
        options.folder.resolve(),
        MINUTES if options.minutes is None else options.minutes,
        TrainingConfig(depth=depth),
        options.seed or 0,
        symmetric=options.symmetric or "",
    )


def reconstruct(options: ReconstructImageArguments) -> None:
    """Reconstruct a shape from one picture."""
    check_resolution(options.resolution, "--resolution")
    refinement = Refinement(steps=options.steps)
    checkpoint = CategoryRun.open(options.run).load().to(options.torch_device)
    out = options.out or options.picture.with_suffix(".ply")
    check_writable(out)
    image = read_input_picture(options.picture)
    with error_prefix(options.picture):
        field, mesh = metrics.reconstruct(checkpoint, image, resolution=options.resolution, refinement=refinement)
    mesh.save(out)
    sides = out.with_name(f"{out.stem}_sides.png")
    report.two_sides(field, sides)
    print(f"{out}: {len(mesh.vertices)} vertices, {len(mesh.faces)} triangles")
    print(f"{sides}: two views of it")


def evaluate(options: EvalCategoryArguments) -> None:
    """Score the reconstructions of held-out objects against their true meshes."""
    run, refinement = CategoryRun.open(options.run), Refinement(steps=options.steps)
    page = run.folder / "page.png"
    for path in (page, run.folder / "scores.json"):
        check_file(path)
    checkpoint = run.load().to(options.torch_device)
    scores = report.compare(checkpoint, run.objects(), options.meshes, page, refinement=refinement)
    with replacing(run.folder / "scores.json") as unfinished:
        unfinished.write_text(
            json.dumps({k: [asdict(score) for score in v] for k, v in scores.items()}, indent=2) + "\n"
        )
    print(f"{'mean over held-out objects':28} Chamfer-L1   F-score   silhouette IoU")
    for name, of_objects in scores.items():
        m = metrics.mean_scores(of_objects)
        print(f"{name:28} {100 * m.chamfer_l1:8.2f} %  {m.f_score:8.3f}  {m.iou:8.3f}")
    print(page)

"""The commands that fit a field or a latent code to photographs, and write a run."""

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from warpdvr.cli import fit_code as codes
from warpdvr.cli.arguments import RESUMED, FromFolder, OnDevice, named, positional
from warpdvr.cli.cameras import write_refined
from warpdvr.cli.progress import follow, load_views
from warpdvr.cli.report import report, warn_of_failure
from warpdvr.datasets.check import refuse_contradictions
from warpdvr.datasets.segmentation import derive_masks, write_masks
from warpdvr.datasets.views import Views
from warpdvr.fields.base import Field
from warpdvr.fields.registry import names
from warpdvr.fields.repaint import Repaint
from warpdvr.fitting.checkpoint import Checkpoint
from warpdvr.fitting.fit import Fit
from warpdvr.fitting.recipe import RECIPES, Recipe
from warpdvr.fitting.saving import SAVE, check_interval
from warpdvr.runs import run, scene
from warpdvr.runs.final_products import attempt, write_all
from warpdvr.runs.options import Duration, LoadOptions, Table, Weights
from warpdvr.runs.run import Run
from warpdvr.runs.scene import Scene

FIELDS = ", ".join(names())

MINUTES = 5.0
"""Default duration of a fit [min]."""


@dataclass(frozen=True, kw_only=True)
class NewRun(FromFolder, OnDevice):
    """The options of all commands that write a run."""

    out: Path = dataclasses.field(metadata=named("RUN"))
    """Folder of the run that is written."""
    resume: bool = dataclasses.field(default=False, metadata=named(exclusive="folder"))
    """Continue the run in RUN from where it stopped."""
    overwrite: bool = dataclasses.field(default=False, metadata=named(exclusive="folder"))
    """Replace the run in RUN."""
    save_every: float = dataclasses.field(default=SAVE, metadata=named("SECONDS"))
    """Time between two checkpoints, and the most that is lost when the program is killed [s]."""
    duration: Duration = dataclasses.field(metadata={"flat": True})
    photographs: LoadOptions = dataclasses.field(metadata={"flat": True})
    weights: Weights
    """Values that replace those of the recipe, with their units in brackets. A weight of 0 leaves its term out of the
    loss."""


@dataclass(frozen=True, kw_only=True)
class FitArguments(NewRun):
    """Fit a field to photographs, and write a run.

    A run holds a checkpoint, a log, pictures, a mesh, USD and scores. A fit takes 5 minutes, unless the scene file,
    --minutes or --iterations say otherwise.
    """

    scene: Path | None = dataclasses.field(default=None, metadata=positional("SCENE_OR_FOLDER") | RESUMED)
    """Scene file (.toml) or folder of photographs with cameras."""
    field: str | None = dataclasses.field(
        default=None,
        metadata=named("NAME", exclusive="field", usual="hashgrid", documentation=f"Kind of field: {FIELDS}."),
    )
    shape: Path | None = dataclasses.field(
        default=None, metadata=named("RUN", exclusive="field", usual="none: surface and colours are fitted")
    )
    """Keep the surface of another run, and fit new colours to it."""
    recipe: str | None = dataclasses.field(
        default=None,
        metadata=named("NAME", usual="quick", documentation=f"Set of weights and schedules: {', '.join(RECIPES)}."),
    )
    views: int | None = dataclasses.field(
        default=None, metadata=named("N", usual="that of the scene file, else all that are not held out")
    )
    """Fit N views, evenly chosen among those that are not held out."""
    no_check: bool = False
    """Fit photographs even if their masks and cameras contradict each other."""


@dataclass(frozen=True, kw_only=True)
class FitCodeArguments(NewRun, codes.DecoderArguments):
    """Fit a latent code to views, and write a run."""


def fit(options: FitArguments) -> int:
    """Fit a field to photographs; return the exit status: 3 if the result does not look like them."""
    scene = _resumed_scene(options) if options.resume else _new_scene(options)
    return _carry_out(options, scene)


def fit_code(options: FitCodeArguments) -> int:
    """Fit the latent code of a decoder to views; return the exit status, as `fit` does."""
    if options.resume:
        codes.refuse_resumed(options)
        return _carry_out(options, _resumed_scene(options))
    scene = codes.new_scene(options)
    scene = scene.with_fit(_fit_table(options, scene.fit, usual={"iterations": codes.ITERATIONS}))
    return _carry_out(options, scene, adapt=codes.with_depth_weights)


def _carry_out(
    options: NewRun, scene: Scene, *, adapt: Callable[[Scene, Views], Scene] = lambda scene, views: scene
) -> int:
    """Fit the field of a scene to its views, and write the files of the run; return the exit status.

    Whatever can be refused without the views, which may take long to load, is refused before.
    """
    check_interval(options.save_every)
    scene = _with_views(options, scene)
    written = Run(options.out)
    with ExitStack() as lock:
        if written.config.is_file():
            lock.enter_context(written.locked())
        last = Run.open(options.out).load() if options.resume else None
        if last:
            _check_iterations(options, int(last.fit["counts"][0]) if "counts" in last.fit else 0)
        else:
            written.check_new(overwrite=options.overwrite)
        torch.manual_seed(scene.fit.get("seed", 0))
        field: Field = last.field() if last else _new_field(options, scene)
        views = load_views(scene)
        scene = adapt(scene, views)
        derived = isinstance(options, FitArguments) and needs_masks(views, scene.recipe)
        views = derive_masks(views) if derived else views
        print(views.summary, flush=True)
        if isinstance(options, FitArguments) and "folder" in scene.views and not (last or options.no_check):
            refuse_contradictions(views, scene.views["folder"])
        if not last and isinstance(field, Repaint):
            field.shape.load_state_dict(_painted_shape(scene, views).weights)
        field = field.to(options.torch_device)
        duration = {k: scene.fit[k] for k in ("minutes", "iterations", "seed") if k in scene.fit}
        job = Fit(field, views, recipe=scene.recipe, **duration)
        if last:
            job.resume(last.fit)
            written.write_config(scene)
        else:
            is_new = not written.config.is_file()
            Run.create(options.out, scene, overwrite=options.overwrite)
            if is_new:
                lock.enter_context(written.locked())
        if derived:
            write_masks(written.masks, views)
        follow(run.fit(written, scene, views, field, job, save_every=options.save_every), job)
        return _write_products(written, scene, dataclasses.replace(views, cameras=job.cameras), field)


def needs_masks(views: Views, recipe: Recipe) -> bool:
    """Return whether masks must be derived: a fit learns from colours, and nothing says where the object is."""
    known = any(mask is not None for mask in views.masks) or any(depth is not None for depth in views.depths)
    return not known and recipe.color > 0 and not recipe.depth and not recipe.on_surface


def _write_products(written: Run, scene: Scene, views: Views, field: Field) -> int:
    """Write and print all products of a run that was fitted; return the exit status."""
    scores, files = write_all(written, field, views, scene.mesh)
    if refined := attempt(written.folder / "cameras", lambda: write_refined(written, views)):
        files["cameras"] = refined[0].parent
    report(scores, files)
    return warn_of_failure(scores)


def _check_iterations(options: NewRun, done: int) -> None:
    """Refuse to continue a run up to a step that it has passed."""
    wanted = options.duration.iterations
    if wanted is not None and wanted < done:
        raise ValueError(
            f"--iterations {wanted}: the run in {options.out} has done {done} steps already; give more than that, or "
            "start again with --overwrite"
        )


def _new_field(options: NewRun, scene: Scene) -> Field:
    """Make the field of a scene; a mistake in its options names the file of the scene, if there is one."""
    path = options.scene if isinstance(options, FitArguments) else None
    path = options.views if isinstance(options, FitCodeArguments) else path
    try:
        return scene.make_field()
    except ValueError as error:
        if path is None or path.is_dir():
            raise
        raise ValueError(f"{path}: {str(error).removeprefix('scene: ')}") from None


def _new_scene(options: FitArguments) -> Scene:
    """Return the scene of the command line: that of the scene file, changed by the options."""
    if options.scene is None:
        raise ValueError("expected a scene file or a folder of photographs to fit, got none (only --resume needs none)")
    if options.field == "repaint":
        raise ValueError("--field repaint: name the run whose surface is painted by --shape RUN")
    file_scene = scene.read(options.scene)
    if not file_scene.views:
        raise ValueError(
            f"{options.scene}: there is no [views] table, so there are no photographs to fit; add [views] and a line "
            'such as folder = "photographs"'
        )
    field, fit = dict(file_scene.field), _fit_table(options, file_scene.fit, usual={"minutes": MINUTES})
    if options.recipe is not None:
        fit["recipe"] = options.recipe
    if options.field is not None and options.field != field["kind"]:
        field = {"kind": options.field, "bounds": field.get("bounds", scene.DEFAULT_FIELD["bounds"])}
    if options.shape is not None:
        checkpoint = Run.open(options.shape).load()  # not its scene, which may name files that are gone
        field = {"kind": "repaint", "shape": {"kind": checkpoint.kind, **checkpoint.options}}
        fit["shape"] = str(options.shape.resolve())
    views = file_scene.views if options.views is None else file_scene.views | {"train": options.views}
    return Scene(views, field, fit, file_scene.mesh)


def _with_views(options: NewRun, scene: Scene) -> Scene:
    """Return the scene with the options of how photographs are read."""
    if options.resume:
        options.refuse_reading("a run that is resumed keeps its views")
    if "folder" not in scene.views:
        options.refuse_reading("is for photographs, but the views of this scene are rendered")
    return Scene(scene.views | options.reading, scene.field, scene.fit, scene.mesh) if options.reading else scene


def _fit_table(options: NewRun, fit: Mapping[str, object], *, usual: Table) -> Table:
    """Return the table [fit], changed by the options; `usual` is the duration if neither has one."""
    table = _without_duration(fit, options.duration) | options.duration | options.weights
    return table if {"minutes", "iterations"} & set(table) else table | usual


def _without_duration(fit: Mapping[str, object], duration: Duration) -> Table:
    """Return the table [fit], without its duration if there is an option for it."""
    replaced = {"minutes", "iterations"} if {"minutes", "iterations"} & set(duration) else set()
    return {key: value for key, value in fit.items() if key not in replaced}


def _painted_shape(scene: Scene, views: Views) -> Checkpoint:
    """Return the checkpoint whose surface gets new colours; its frame must be that of the views."""
    if "shape" not in scene.fit:
        raise ValueError(
            "a field of kind repaint needs the run whose surface it has: give --shape RUN, or shape in [fit]"
        )
    folder = Path(scene.fit["shape"])
    checkpoint = Run.open(folder).load()
    frame = checkpoint.transform
    if not torch.allclose(frame.matrix, views.transform.matrix, rtol=1e-3, atol=1e-3 * frame.scale):
        raise ValueError(
            f"{folder}: its scene frame is another than that of the views; 1 scene unit is "
            f"{frame.scale:.4g} and {views.transform.scale:.4g} units of the data; the frame follows from "
            "scale_mat, else from the masks, which must be those of the run"
        )
    return checkpoint


def _resumed_scene(options: NewRun) -> Scene:
    """Return the scene of the run to continue; only its duration may be changed."""
    if isinstance(options, FitArguments) and options.scene is not None:
        raise ValueError(f"{options.scene}: a run that is resumed keeps its scene; give --out and --resume alone")
    folder = Run.open(options.out)
    resumed = folder.scene()
    if options.duration.seed not in (None, resumed.fit.get("seed", 0)):
        raise ValueError("--field, --seed: a run that is resumed keeps its field and its seed")
    if isinstance(options, FitArguments):
        if options.shape is not None:
            raise ValueError(f"--shape {options.shape}: a run that is resumed keeps its shape")
        if options.field not in (None, resumed.field["kind"]):
            raise ValueError("--field, --seed: a run that is resumed keeps its field and its seed")
        if options.recipe is not None:
            raise ValueError("--recipe: a run that is resumed keeps its recipe")
        if options.views is not None:
            raise ValueError("--views: a run that is resumed keeps its views")
    if changed := next(iter(options.weights), None):
        raise ValueError(f"--{changed.replace('_', '-')}: a run that is resumed keeps its recipe")
    folder.check_resumable()
    return resumed.with_fit(_without_duration(resumed.fit, options.duration) | options.duration)

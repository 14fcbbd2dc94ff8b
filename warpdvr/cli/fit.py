"""The commands that fit something to photographs, and write a run."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from warpdvr.cli import fit_code as codes
from warpdvr.cli.arguments import OnDevice, named, positional
from warpdvr.cli.cameras import write_refined
from warpdvr.cli.progress import follow
from warpdvr.cli.report import report
from warpdvr.datasets.views import Views
from warpdvr.fields.base import Field
from warpdvr.fields.registry import names
from warpdvr.fields.repaint import Repaint
from warpdvr.fitting.checkpoint import Checkpoint
from warpdvr.fitting.fit import Fit
from warpdvr.fitting.recipe import RECIPES
from warpdvr.runs import products, run, scene
from warpdvr.runs.options import Duration, Table, Weights
from warpdvr.runs.run import Run
from warpdvr.runs.scene import Scene

FIELDS = ", ".join(names())

MINUTES = 5.0
"""How long a fit takes unless something else is chosen."""


@dataclass(frozen=True, kw_only=True)
class NewRun(OnDevice):
    """What all commands have that write a run."""

    out: Path = dataclasses.field(metadata=named("RUN"))
    """Folder for the run."""
    resume: bool = dataclasses.field(default=False, metadata=named(exclusive="folder"))
    """Continue the run in RUN where it was stopped."""
    overwrite: bool = dataclasses.field(default=False, metadata=named(exclusive="folder"))
    """Replace the run in RUN."""
    duration: Duration = dataclasses.field(metadata={"flat": True})
    weights: Weights
    """What is to be another way than in the recipe."""


@dataclass(frozen=True, kw_only=True)
class FitArguments(NewRun):
    """Fit a field to photographs; writes a run."""

    scene: Path | None = dataclasses.field(default=None, metadata=positional("SCENE_OR_FOLDER"))
    """Scene file, or folder of photographs."""
    field: str | None = dataclasses.field(
        default=None,
        metadata=named("NAME", exclusive="field", usual="hashgrid", documentation=f"Kind of field: {FIELDS}."),
    )
    shape: Path | None = dataclasses.field(default=None, metadata=named("RUN", exclusive="field"))
    """Keep the surface of a run, and fit new colours to it."""
    recipe: str | None = dataclasses.field(
        default=None,
        metadata=named("NAME", usual="quick", documentation=f"Weights and schedules: {', '.join(RECIPES)}."),
    )


@dataclass(frozen=True, kw_only=True)
class FitCodeArguments(NewRun, codes.DecoderArguments):
    """Fit the latent code of a trained decoder; writes a run."""


def fit(options: FitArguments) -> None:
    """Fit a field to photographs."""
    scene = _resumed(options) if options.resume else _chosen(options)
    _carry_out(options, scene, scene.load_views())


def fit_code(options: FitCodeArguments) -> None:
    """Fit the latent code of a decoder to views."""
    if options.resume:
        codes.refuse(options)
        scene = _resumed(options)
        return _carry_out(options, scene, scene.load_views())
    scene = codes.chosen(options)
    scene = scene.with_fit(_fit_table(options, scene.fit, usual={"iterations": codes.ITERATIONS}))
    views = scene.load_views()
    _carry_out(options, codes.weighed(scene, views), views)


def _carry_out(options: NewRun, scene: Scene, views: Views) -> None:
    """Fit what a scene says, and write all that belongs to a run."""
    print(views.summary)
    torch.manual_seed(scene.fit.get("seed", 0))
    last = Run.open(options.out).load() if options.resume else None
    field: Field = last.field() if last else scene.make_field()
    if not last and isinstance(field, Repaint):
        field.shape.load_state_dict(_shape(scene, views).weights)
    field = field.to(options.torch_device)
    length = {k: scene.fit[k] for k in ("minutes", "iterations", "seed") if k in scene.fit}
    job = Fit(field, views, recipe=scene.recipe, **length)
    if last:
        written = Run.open(options.out)
        job.resume(last.fit)
        written.write_config(scene)
    else:
        written = Run.create(options.out, scene, overwrite=options.overwrite)
    follow(run.fit(written, scene, views, field, job), job)
    picture = products.write_pictures(written, field)
    mesh = products.write_mesh(written, field, **scene.mesh)
    usd = products.write_scene(written, mesh)
    scores = products.write_scores(written, field, views, mesh, views.truth)
    files = {"picture": picture, "mesh": written.mesh, "usd": usd, "scores": written.scores}
    if refined := write_refined(written, views):
        files["cameras"] = refined[0].parent
    report(scores, files)


def _chosen(options: FitArguments) -> Scene:
    """Return the scene with what the command line says about it."""
    if options.scene is None:
        raise ValueError("expected a scene file or a folder of photographs to fit, got none (only --resume needs none)")
    if options.field == "repaint":
        raise ValueError("--field repaint: the run whose surface is to be painted is told with --shape RUN")
    given = scene.read(options.scene)
    if not given.views:
        raise ValueError(
            f"{options.scene}: there is no [views] table, so there are no photographs to fit; it begins with [views] "
            'and a line such as folder = "photographs"'
        )
    field, fit = dict(given.field), _fit_table(options, given.fit, usual={"minutes": MINUTES})
    if options.recipe is not None:
        fit["recipe"] = options.recipe
    if options.field is not None and options.field != field["kind"]:
        field = {"kind": options.field, "bounds": field.get("bounds", scene.DEFAULT_FIELD["bounds"])}
    if options.shape is not None:
        checkpoint = Run.open(options.shape).load()  # not its scene: that may name files which are gone
        field = {"kind": "repaint", "shape": {"kind": checkpoint.kind, **checkpoint.options}}
        fit["shape"] = str(options.shape.resolve())
    return Scene(given.views, field, fit, given.mesh)


def _fit_table(options: NewRun, fit: Mapping[str, Any], *, usual: Table) -> Table:
    """Return the table [fit] with what the command line says about it; how long, if nothing does, is as `usual`."""
    table = _without_length(fit, options.duration) | options.duration | options.weights
    return table if {"minutes", "iterations"} & set(table) else table | usual


def _without_length(fit: Mapping[str, Any], duration: Duration) -> Table:
    """Return the table [fit], without how long it takes if the command line says that."""
    replaced = {"minutes", "iterations"} if {"minutes", "iterations"} & set(duration) else set()
    return {key: value for key, value in fit.items() if key not in replaced}


def _shape(scene: Scene, views: Views) -> Checkpoint:
    """Return the run whose surface is to be painted anew; its frame must be that of the views."""
    if "shape" not in scene.fit:
        raise ValueError("scene: a field of kind repaint needs [fit] shape, the folder of the run whose surface it has")
    folder = Path(scene.fit["shape"])
    checkpoint = Run.open(folder).load()
    frame = checkpoint.transform
    if not torch.allclose(frame.matrix, views.transform.matrix, rtol=1e-3, atol=1e-3 * frame.scale):
        raise ValueError(
            f"{folder}: its scene frame is another than that of the views, 1 scene unit = "
            f"{frame.scale:.4g} and {views.transform.scale:.4g} units of the data; the frame follows from "
            "scale_mat, else from the masks, which must be those of the run"
        )
    return checkpoint


def _resumed(options: NewRun) -> Scene:
    """Return the scene of the run to continue; only its length may be changed."""
    if isinstance(options, FitArguments) and options.scene is not None:
        raise ValueError(f"{options.scene}: a run that is resumed keeps its scene; give --out and --resume alone")
    given = Run.open(options.out).scene()
    if options.duration.seed not in (None, given.fit.get("seed", 0)):
        raise ValueError("--field, --seed: a run that is resumed keeps its field and its seed")
    if isinstance(options, FitArguments):
        if options.shape is not None:
            raise ValueError(f"--shape {options.shape}: a run that is resumed keeps its shape")
        if options.field not in (None, given.field["kind"]):
            raise ValueError("--field, --seed: a run that is resumed keeps its field and its seed")
        if options.recipe is not None:
            raise ValueError("--recipe: a run that is resumed keeps its recipe")
    if changed := next(iter(options.weights), None):
        raise ValueError(f"--{changed.replace('_', '-')}: a run that is resumed keeps its recipe")
    return given.with_fit(_without_length(given.fit, options.duration) | options.duration)

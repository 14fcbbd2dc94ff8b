"""The commands that fit something to photographs, and write a run."""

import argparse
import sys
import tomllib
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from warpdvr.cli import cameras as commands
from warpdvr.cli import fit_code as codes
from warpdvr.datasets.views import Views
from warpdvr.fields.base import Field
from warpdvr.fields.registry import names
from warpdvr.fields.repaint import Repaint
from warpdvr.fitting.checkpoint import Checkpoint
from warpdvr.fitting.fit import Fit
from warpdvr.fitting.recipe import RECIPES
from warpdvr.runs import products, run, scene
from warpdvr.runs.run import Run
from warpdvr.runs.scene import Scene, Table

MINUTES = 5.0
"""How long a fit takes if nobody says."""


def add(command: Any) -> None:
    """Add the commands.

    Args:
        command: called with name, function and text; returns the parser of a command.
    """
    fit = command("fit", _fit, "fit a field to photographs; writes a run")
    fit.add_argument(
        "scene", type=Path, nargs="?", metavar="SCENE_OR_FOLDER", help="scene file, or folder of photographs"
    )
    kind = fit.add_mutually_exclusive_group()
    kind.add_argument("--field", metavar="NAME", help=f"kind of field: {', '.join(names())}")
    kind.add_argument("--shape", type=Path, metavar="RUN", help="keep the surface of a run, and fit new colours to it")
    fit.add_argument("--recipe", metavar="NAME", help=f"weights and schedules: {', '.join(RECIPES)}")
    _lasting(fit, f"{MINUTES:g} minutes")
    code = command("fit-code", _fit_code, "fit the latent code of a trained decoder; writes a run")
    codes.add(code)
    _lasting(code, f"{codes.ITERATIONS} steps")


def report(scores: dict[str, Any], files: dict[str, Path]) -> None:
    """Print scores, and where files are."""
    if scores["views"]:
        print(
            f"held out   {scores['psnr']:.2f} dB inside of the mask, IoU {scores['iou']:.4f}, {scores['views']} views"
        )
    if "chamfer_l1" in scores:
        share = 100 * scores["chamfer_l1"] / scores["extent"]
        print(f"true mesh  Chamfer-L1 {scores['chamfer_l1']:.4g}, {share:.2f} % of the largest extent")
        volume = "" if scores["volume_iou"] is None else f", IoU of the volumes {scores['volume_iou']:.4f}"
        print(f"           F-score {scores['f_score']:.4f}, normals {scores['normal_consistency']:.4f}{volume}")
    for what, path in files.items():
        print(f"{what:<10} {path}")


def _fit(options: argparse.Namespace) -> None:
    chosen = _resumed(options) if options.resume else _chosen(options)
    _carry(options, chosen, chosen.load_views())


def _fit_code(options: argparse.Namespace) -> None:
    if options.resume:
        codes.refuse(options)
        chosen = _resumed(options)
        return _carry(options, chosen, chosen.load_views())
    chosen = codes.chosen(options)
    chosen = replace(chosen, fit=_told(options, chosen.fit, {"iterations": codes.ITERATIONS}))
    views = chosen.load_views()
    _carry(options, codes.weighed(chosen, views), views)


def _carry(options: argparse.Namespace, chosen: Scene, views: Views) -> None:
    """Fit what a scene says, and write all that belongs to a run."""
    print(views.found)
    torch.manual_seed(chosen.fit.get("seed", 0))
    last = Run.open(options.out).load() if options.resume else None
    field: Field = last.field() if last else chosen.make_field()
    if not last and isinstance(field, Repaint):
        field.shape.load_state_dict(_shape(chosen, views).weights)
    field = field.to(options.device)
    told: dict[str, Any] = {k: chosen.fit[k] for k in ("minutes", "iterations", "seed") if k in chosen.fit}
    job = Fit(field, views, recipe=chosen.recipe, **told)
    if last:
        held = Run.open(options.out)
        job.resume(last.fit)
        held.write_config(chosen)
    else:
        held = Run.create(options.out, chosen, overwrite=options.overwrite)
    _follow(run.fit(held, chosen, views, field, job), job)
    picture = products.write_pictures(held, field)
    mesh = products.write_mesh(held, field, **chosen.mesh)
    usd = products.write_scene(held, mesh)
    scores = products.write_scores(held, field, views, mesh, views.truth)
    files = {"picture": picture, "mesh": held.mesh, "usd": usd, "scores": held.scores}
    if refined := commands.write_run(held, views):
        files["cameras"] = refined[0].parent
    report(scores, files)


def _chosen(options: argparse.Namespace) -> Scene:
    """The scene with what the command line says about it."""
    if options.scene is None:
        raise ValueError("expected a scene file or a folder of photographs to fit, got none (only --resume needs none)")
    if options.field == "repaint":
        raise ValueError("--field repaint: the run whose surface is to be painted is told with --shape RUN")
    given = scene.read(options.scene)
    field, fit = dict(given.field), _told(options, given.fit, {"minutes": MINUTES})
    if options.field is not None and options.field != field["kind"]:
        field = {"kind": options.field, "bounds": field.get("bounds", scene.DEFAULT_FIELD["bounds"])}
    if options.shape is not None:
        known = Run.open(options.shape).load()  # not its scene: that may name files which are gone
        field = {"kind": "repaint", "shape": {"kind": known.kind, **known.options}}
        fit["shape"] = str(options.shape.resolve())
    return Scene(given.views, field, fit, given.mesh)


def _told(options: argparse.Namespace, fit: Table, usual: Table) -> Table:
    """The table [fit] with what the command line says about it; how long, if nobody says, is as `usual`."""
    if options.minutes is not None or options.iterations is not None:
        fit = {k: v for k, v in fit.items() if k not in ("minutes", "iterations")}
    told = {k: v for k in ("minutes", "iterations", "seed", "recipe") if (v := getattr(options, k)) is not None}
    fit = fit | told | dict(options.set)
    return fit if {"minutes", "iterations"} & set(fit) else fit | usual


def _shape(chosen: Scene, views: Views) -> Checkpoint:
    """The run whose surface is to be painted anew; its frame must be that of the views."""
    if "shape" not in chosen.fit:
        raise ValueError("scene: a field of kind repaint needs [fit] shape, the folder of the run whose surface it has")
    folder = Path(chosen.fit["shape"])
    held = Run.open(folder).load()
    if not torch.allclose(held.transform.matrix, views.transform.matrix, rtol=1e-3, atol=1e-3 * held.transform.scale):
        raise ValueError(
            f"{folder}: its scene frame is another than that of the views, 1 scene unit = "
            f"{held.transform.scale:.4g} and {views.transform.scale:.4g} units of the data; the frame follows from "
            "scale_mat, else from the masks, which must be those of the run"
        )
    return held


def _resumed(options: argparse.Namespace) -> Scene:
    """The scene of the run to continue; only its length may be changed."""
    if options.scene is not None:
        raise ValueError(f"{options.scene}: a run that is resumed keeps its scene; give --out and --resume alone")
    held = Run.open(options.out)
    given = held.scene()
    if options.shape is not None:
        raise ValueError(f"--shape {options.shape}: a run that is resumed keeps its shape")
    if options.field not in (None, given.field["kind"]) or options.seed not in (None, given.fit.get("seed", 0)):
        raise ValueError("--field, --seed: a run that is resumed keeps its field and its seed")
    if options.recipe is not None or options.set:
        raise ValueError("--recipe, --set: a run that is resumed keeps its recipe")
    told = {k: v for k in ("minutes", "iterations") if (v := getattr(options, k)) is not None}
    rest = {k: v for k, v in given.fit.items() if not told or k not in ("minutes", "iterations")}
    return Scene(given.views, given.field, rest | told, given.mesh)


def _follow(steps: Any, job: Fit) -> None:
    """Show how a fit goes on."""
    shape = "{percentage:3.0f}%|{bar:24}| {elapsed}<{remaining}{postfix}"
    every = 0.5 if sys.stderr.isatty() else 15  # seconds
    bar = tqdm(total=100, initial=100 * job.progress, bar_format=shape, mininterval=every)
    with closing(steps), bar:
        for step, note in steps:
            bar.n = round(100 * step.progress, 1)
            bar.set_postfix_str(f"step {step.iteration}  loss {step.losses['total']:.4f}  {note}", refresh=False)
            bar.update(0)
    print(f"{job.iteration} steps, {job.evaluations / 1e6:.0f} million field evaluations, {job.seconds:.0f} s")


def _lasting(command: argparse.ArgumentParser, usual: str) -> None:
    """Add the options of commands that fit something."""
    command.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder for the run")
    length = command.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, metavar="M", help=f"fit for M minutes (default: {usual})")
    length.add_argument("--iterations", type=int, metavar="N", help="fit for N steps")
    command.add_argument("--seed", type=int, metavar="S", help="of weights and rays (default: 0)")
    command.add_argument(
        "--set", type=_option, action="append", default=[], metavar="KEY=VALUE", help="of [fit], such as depth=10"
    )
    again = command.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="continue the run in RUN where it was stopped")
    again.add_argument("--overwrite", action="store_true", help="replace the run in RUN")


def _option(text: str) -> tuple[str, Any]:
    """Return the name and the value of KEY=VALUE, the value as a scene file has it."""
    try:
        ((key, value),) = tomllib.loads(text).items()
    except (tomllib.TOMLDecodeError, ValueError):
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, such as depth=10, got {text!r}") from None
    return key, value

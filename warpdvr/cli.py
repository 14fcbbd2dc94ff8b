"""The command line: photographs in; a field, pictures, a mesh and USD out."""

import argparse
import sys
import tomllib
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from warpdvr import __version__, run, scene
from warpdvr.camera import Camera
from warpdvr.category import commands as category
from warpdvr.fields.registry import names
from warpdvr.fit import Fit
from warpdvr.mesh import Mesh, read_mesh
from warpdvr.recipe import RECIPES
from warpdvr.run import Run
from warpdvr.scene import Scene

MINUTES = 5.0
"""How long a fit takes if nobody says."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status: 0, 2 after a mistake in what was given, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"warpdvr: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        begun = options.name in ("fit", "train-category") and Run(options.out).checkpoint.is_file()
        hint = f"; go on with: warpdvr {options.name} --out {options.out} --resume" if begun else ""
        print(f"warpdvr: interrupted{hint}", file=sys.stderr)
        return 130
    return 0


def _fit(options: argparse.Namespace) -> None:
    chosen = _resumed(options) if options.resume else _chosen(options)
    views = chosen.load_views()
    print(views.found)
    torch.manual_seed(chosen.fit.get("seed", 0))
    field = chosen.make_field().to(options.device)
    times = {k: chosen.fit.get(k) for k in ("minutes", "iterations")}
    job = Fit(field, views, **times, recipe=chosen.recipe, seed=chosen.fit.get("seed", 0))
    if options.resume:
        held = Run.open(options.out)
        last = held.load()
        last.field(field)
        job.resume(last.fit)
        held.keep(chosen)
    else:
        held = Run.create(options.out, chosen, overwrite=options.overwrite)
    _follow(run.fit(held, chosen, views, field, job), job)
    picture = run.write_pictures(held, field)
    mesh = run.write_mesh(held, field, **chosen.mesh)
    usd = run.write_scene(held, mesh)
    scores = run.write_scores(held, field, views, mesh, views.truth)
    _report(scores, {"picture": picture, "mesh": held.mesh, "usd": usd, "scores": held.scores})


def _chosen(options: argparse.Namespace) -> Scene:
    """The scene with what the command line says about it."""
    if options.scene is None:
        raise ValueError("expected a scene file or a folder of photographs to fit, got none (only --resume needs none)")
    given = scene.read(options.scene)
    field, fit = dict(given.field), dict(given.fit)
    if options.field is not None and options.field != field["kind"]:
        field = {"kind": options.field, "bounds": field.get("bounds", scene.DEFAULT_FIELD["bounds"])}
    if options.minutes is not None or options.iterations is not None:
        fit = {k: v for k, v in fit.items() if k not in ("minutes", "iterations")}
    told = {k: v for k in ("minutes", "iterations", "seed", "recipe") if (v := getattr(options, k)) is not None}
    fit |= told | dict(options.set)
    if not {"minutes", "iterations"} & set(fit):
        fit["minutes"] = MINUTES
    return Scene(given.views, field, fit, given.mesh)


def _resumed(options: argparse.Namespace) -> Scene:
    """The scene of the run to continue; only its length may be changed."""
    if options.scene is not None:
        raise ValueError(f"{options.scene}: a run that is resumed keeps its scene; give --out and --resume alone")
    held = Run.open(options.out)
    given = held.scene()
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


def _render(options: argparse.Namespace) -> None:
    held = Run.open(options.run)
    field = held.field(options.device)
    path = run.write_turntable(held, field, frames=options.frames, size=options.size)
    print(f"{options.frames} pictures and {path}")


def _mesh(options: argparse.Namespace) -> None:
    held = Run.open(options.run)
    field = held.field(options.device)
    chosen = dict(held.scene().mesh)
    if options.resolution is not None:
        chosen["resolution"] = options.resolution
    if options.largest:
        chosen["largest"] = True
    mesh = run.write_mesh(held, field, options.out, **chosen)
    print(
        f"{options.out or held.mesh}: {len(mesh.vertices)} vertices, {len(mesh.faces)} triangles, in the data's units"
    )


def _usd(options: argparse.Namespace) -> None:
    held = Run.open(options.run)
    print(run.write_scene(held, _surface(held, options.device), options.out))


def _surface(held: Run, device: torch.device) -> Mesh:
    """The mesh of a run, extracted if it has none yet."""
    if held.mesh.is_file():
        return read_mesh(held.mesh)
    return run.write_mesh(held, held.field(device), **held.scene().mesh)


def _eval(options: argparse.Namespace) -> None:
    held = Run.open(options.run)
    views = held.scene().load_views()
    truth = run.true_mesh(options.mesh_gt, views)
    field = held.field(options.device)
    mesh = None if truth is None else _surface(held, options.device)
    scores = run.write_scores(held, field, views, mesh, truth)
    _report(scores, {"scores": held.scores, "pictures": held.images})


def _view(options: argparse.Namespace) -> None:
    from warpdvr.viewer import view

    meshes: dict[str, Mesh] = {}
    cameras: tuple[Camera, ...] = ()
    up = (0.0, 0.0, 1.0)
    if options.what.is_dir():
        held = Run.open(options.what)
        last = held.load()
        field, up = held.field(options.device), last.up
        if options.screenshot is None and held.mesh.is_file():
            meshes["mesh"] = read_mesh(held.mesh).transformed(last.transform.inverse().matrix)
            cameras = last.cameras
    else:
        shown = scene.read(options.what)
        field = shown.make_field().to(options.device)
        if shown.views:
            print(f"{options.what}: the field is shown as it is before a fit; to see a fitted one, view its run")
    view(field, meshes=meshes, cameras=cameras, screenshot=options.screenshot, up=up)
    if options.screenshot is not None:
        print(options.screenshot)


def _report(scores: dict[str, Any], files: dict[str, Path]) -> None:
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="warpdvr", description="See, differentiate and fit implicit surfaces.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"warpdvr {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="name")

    fit = _command(commands, "fit", _fit, "fit a field to photographs; writes a run")
    fit.add_argument(
        "scene", type=Path, nargs="?", metavar="SCENE_OR_FOLDER", help="scene file, or folder of photographs"
    )
    fit.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder for the run")
    fit.add_argument("--field", metavar="NAME", help=f"kind of field: {', '.join(names())}")
    length = fit.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, metavar="M", help=f"fit for M minutes (default: {MINUTES:g})")
    length.add_argument("--iterations", type=int, metavar="N", help="fit for N steps")
    fit.add_argument("--seed", type=int, metavar="S", help="of weights and rays (default: 0)")
    fit.add_argument("--recipe", metavar="NAME", help=f"weights and schedules: {', '.join(RECIPES)}")
    fit.add_argument(
        "--set", type=_option, action="append", default=[], metavar="KEY=VALUE", help="of [fit], such as depth=10"
    )
    again = fit.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="continue the run in RUN where it was stopped")
    again.add_argument("--overwrite", action="store_true", help="replace the run in RUN")

    render = _command(commands, "render", _render, "render a turntable: pictures and an animated file")
    render.add_argument("--frames", type=int, default=36, metavar="N", help="number of pictures (default: 36)")
    render.add_argument("--size", type=int, default=320, metavar="PIXELS", help="width and height (default: 320)")
    mesh = _command(commands, "mesh", _mesh, "extract the surface as a mesh, in the data's own units")
    mesh.add_argument("--resolution", type=int, metavar="N", help="cells along the longest side of the bounds")
    mesh.add_argument("--largest", action="store_true", help="keep the largest connected piece only")
    mesh.add_argument("--out", type=Path, metavar="FILE", help=".ply or .obj (default: RUN/mesh.ply)")
    usd = _command(commands, "usd", _usd, "write mesh and cameras as USD")
    usd.add_argument("--out", type=Path, metavar="FILE", help=".usdc, .usda or .usd (default: RUN/scene.usdc)")
    evaluate = _command(commands, "eval", _eval, "compare with the held-out photographs and a true mesh")
    evaluate.add_argument(
        "--mesh-gt", type=Path, metavar="FILE", help="true mesh in the data's units (.ply, .obj, .off)"
    )
    for command in (render, mesh, usd, evaluate):
        command.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    view = _command(commands, "view", _view, "look at a field in a window")
    view.add_argument("what", type=Path, metavar="RUN_OR_SCENE", help="folder of a run, or scene file")
    view.add_argument("--screenshot", type=Path, metavar="FILE.png", help="write a picture instead; needs no display")
    category.add(partial(_command, commands, device=False))
    return parser


def _command(commands: Any, name: str, function: Any, text: str, device: bool = True) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.set_defaults(command=function)
    if device:
        parser.add_argument(
            "--device", type=_device, default="cpu", metavar="DEVICE", help="cpu or cuda (default: cpu)"
        )
    return parser


def _option(text: str) -> tuple[str, Any]:
    """Return the name and the value of KEY=VALUE, the value as a scene file has it."""
    try:
        ((key, value),) = tomllib.loads(text).items()
    except (tomllib.TOMLDecodeError, ValueError):
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, such as depth=10, got {text!r}") from None
    return key, value


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"expected cpu or cuda, got {name!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError("cuda was asked for, but Torch finds no CUDA device here")
    return device


if __name__ == "__main__":
    sys.exit(main())

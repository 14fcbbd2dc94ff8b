"""The command line: photographs in; a field, pictures, a mesh and USD out."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from warpdvr import __version__
from warpdvr.cameras.camera import Camera
from warpdvr.cli import cameras
from warpdvr.cli import fit as jobs
from warpdvr.cli import singleview as category
from warpdvr.cli.fit import report
from warpdvr.geometry.mesh import Mesh, read_mesh
from warpdvr.runs import products, scene
from warpdvr.runs.run import Run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status: 0, 2 after a mistake in what was given, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"warpdvr: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        begun = options.name in ("fit", "fit-code", "train-category") and Run(options.out).checkpoint.is_file()
        hint = f"; go on with: warpdvr {options.name} --out {options.out} --resume" if begun else ""
        print(f"warpdvr: interrupted{hint}", file=sys.stderr)
        return 130
    return 0


def _render(options: argparse.Namespace) -> None:
    held = Run.open(options.run)
    field = held.field(options.device)
    path = products.write_turntable(held, field, frames=options.frames, size=options.size)
    print(f"{options.frames} pictures and {path}")


def _mesh(options: argparse.Namespace) -> None:
    held = Run.open(options.run)
    field = held.field(options.device)
    chosen = dict(held.scene().mesh)
    if options.resolution is not None:
        chosen["resolution"] = options.resolution
    if options.largest:
        chosen["largest"] = True
    mesh = products.write_mesh(held, field, options.out, **chosen)
    print(
        f"{options.out or held.mesh}: {len(mesh.vertices)} vertices, {len(mesh.faces)} triangles, in the data's units"
    )


def _usd(options: argparse.Namespace) -> None:
    held = Run.open(options.run)
    print(products.write_scene(held, _surface(held, options.device), options.out))


def _surface(held: Run, device: torch.device) -> Mesh:
    """The mesh of a run, extracted if it has none yet."""
    if held.mesh.is_file():
        return read_mesh(held.mesh)
    return products.write_mesh(held, held.field(device), **held.scene().mesh)


def _eval(options: argparse.Namespace) -> None:
    held = Run.open(options.run)
    views = held.scene().load_views()
    truth = products.true_mesh(options.mesh_gt, views)
    field = held.field(options.device)
    mesh = None if truth is None else _surface(held, options.device)
    scores = products.write_scores(held, field, views, mesh, truth)
    report(scores, {"scores": held.scores, "pictures": held.images})


def _view(options: argparse.Namespace) -> None:
    from warpdvr.viewer.window import view

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
    elif not options.what.exists():
        raise ValueError(f"{options.what}: expected the folder of a run or a scene file, found nothing")
    else:
        shown = scene.read(options.what)
        field = shown.make_field().to(options.device)
        if shown.views:
            print(f"{options.what}: the field is shown as it is before a fit; to see a fitted one, view its run")
    view(field, meshes=meshes, cameras=cameras, screenshot=options.screenshot, up=up)
    if options.screenshot is not None:
        print(options.screenshot)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="warpdvr", description="See, differentiate and fit implicit surfaces.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"warpdvr {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="name")

    jobs.add(partial(_command, commands))
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
    cameras.add(partial(_command, commands))
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

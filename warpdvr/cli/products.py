"""The commands that write the products of a run: pictures, mesh, USD, scores."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from warpdvr.cli.arguments import OnDevice, named, positional
from warpdvr.cli.report import report
from warpdvr.geometry import mesh as meshes
from warpdvr.geometry.mesh import Mesh, read_mesh
from warpdvr.runs import products
from warpdvr.runs.run import Run
from warpdvr.runtime.files import check_file, make_folder
from warpdvr.usd import scene as usd_files


@dataclass(frozen=True, kw_only=True)
class OfRun(OnDevice):
    """The arguments of all commands that use a run."""

    run: Path = field(metadata=positional("RUN"))
    """Folder of a run."""


@dataclass(frozen=True, kw_only=True)
class RenderArguments(OfRun):
    """Render a turntable: pictures and an animated GIF.

    They are written to RUN/images.
    """

    frames: int = field(default=36, metadata=named("N"))
    """Number of pictures."""
    size: int = field(default=320, metadata=named("PIXELS"))
    """Width and height [pixel]."""


@dataclass(frozen=True, kw_only=True)
class MeshArguments(OfRun):
    """Extract the surface as a mesh, in the units of the data."""

    resolution: int | None = field(default=None, metadata=named("N", usual="that of the run's scene, else 192"))
    """Cells along the longest side of the bounds."""
    largest: bool = False
    """Keep only the largest connected piece."""
    smallest: float | None = field(default=None, metadata=named("SHARE", usual="that of the run's scene, else 0.005"))
    """Leave out pieces that enclose at most this share of the largest one's volume."""
    out: Path | None = field(default=None, metadata=named("FILE", usual="RUN/mesh.ply"))
    """File of the mesh, .ply, .obj, .off or .glb."""


@dataclass(frozen=True, kw_only=True)
class UsdArguments(OfRun):
    """Write the mesh and the cameras as USD."""

    out: Path | None = field(default=None, metadata=named("FILE", usual="RUN/scene.usdc"))
    """File of the scene, .usdc, .usda or .usd."""


@dataclass(frozen=True, kw_only=True)
class EvalArguments(OfRun):
    """Score against held-out photographs and a true mesh."""

    mesh_gt: Path | None = field(
        default=None, metadata=named("FILE", usual="the one from which the views were rendered, if any")
    )
    """True mesh in the units of the data: .ply, .obj or .off."""


def render(options: RenderArguments) -> None:
    """Render a turntable of a run."""
    run = Run.open(options.run)
    make_folder(run.images)
    path = products.write_turntable(run, run.field(options.torch_device), frames=options.frames, size=options.size)
    print(f"{options.frames} pictures and {path}")


def mesh(options: MeshArguments) -> None:
    """Extract the surface of a run."""
    run = Run.open(options.run)
    meshes.check_writable(options.out or run.mesh)
    field = run.field(options.torch_device)
    table = dict(run.scene().mesh)
    if options.resolution is not None:
        table["resolution"] = options.resolution
    if options.largest:
        table["largest"] = True
    if options.smallest is not None:
        table["smallest"] = options.smallest
    surface = products.write_mesh(run, field, options.out, **table)
    size = f"{len(surface.vertices)} vertices, {len(surface.faces)} triangles"
    print(f"{options.out or run.mesh}: {size}, in the data's units")


def usd(options: UsdArguments) -> None:
    """Write the mesh and the cameras as USD."""
    run = Run.open(options.run)
    usd_files.check_writable(options.out or run.usd)
    print(products.write_scene(run, _surface(run, options.torch_device), options.out))


def evaluate(options: EvalArguments) -> None:
    """Score a run against its held-out photographs, and against a true mesh if there is one."""
    run = Run.open(options.run)
    check_file(run.scores)
    make_folder(run.images)
    scene = run.scene()
    views = scene.load_views()
    if scene.recipe.intrinsics:  # those of held-out views are refined, too
        views = replace(views, cameras=run.load().cameras)
    truth = products.true_mesh(options.mesh_gt, views)
    field = run.field(options.torch_device)
    surface = None if truth is None else _surface(run, options.torch_device)
    scores = products.write_scores(run, field, views, surface, truth)
    mesh_file = {} if surface is None else {"mesh": run.mesh}
    report(scores, mesh_file | {"scores": run.scores, "pictures": run.images})


def _surface(run: Run, device: torch.device) -> Mesh:
    """Return the mesh of a run; extract it if it has none yet."""
    if run.mesh.is_file():
        return read_mesh(run.mesh)
    return products.write_mesh(run, run.field(device), **run.scene().mesh)

"""The commands that make something of a run: pictures, mesh, USD, scores."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from warpdvr.cli.arguments import OnDevice, named, positional
from warpdvr.cli.report import report
from warpdvr.geometry.mesh import Mesh, read_mesh
from warpdvr.runs import products
from warpdvr.runs.run import Run


@dataclass(frozen=True, kw_only=True)
class OfRun(OnDevice):
    """What all commands have that make something of a run."""

    run: Path = field(metadata=positional("RUN"))
    """Folder of a run."""


@dataclass(frozen=True, kw_only=True)
class RenderArguments(OfRun):
    """Render a turntable: pictures and an animated file."""

    frames: int = field(default=36, metadata=named("N"))
    """Number of pictures."""
    size: int = field(default=320, metadata=named("PIXELS"))
    """Width and height [pixel]."""


@dataclass(frozen=True, kw_only=True)
class MeshArguments(OfRun):
    """Extract the surface as a mesh, in the data's own units."""

    resolution: int | None = field(default=None, metadata=named("N", usual="that of the run's scene, else 192"))
    """Cells along the longest side of the bounds."""
    largest: bool = False
    """Keep the largest connected piece only."""
    out: Path | None = field(default=None, metadata=named("FILE", usual="RUN/mesh.ply"))
    """.ply or .obj."""


@dataclass(frozen=True, kw_only=True)
class UsdArguments(OfRun):
    """Write mesh and cameras as USD."""

    out: Path | None = field(default=None, metadata=named("FILE", usual="RUN/scene.usdc"))
    """.usdc, .usda or .usd."""


@dataclass(frozen=True, kw_only=True)
class EvalArguments(OfRun):
    """Compare with the held-out photographs and a true mesh."""

    mesh_gt: Path | None = field(
        default=None, metadata=named("FILE", usual="the one that the views were rendered from")
    )
    """True mesh in the data's units: .ply, .obj or .off."""


def render(options: RenderArguments) -> None:
    """Render a turntable of a run."""
    run = Run.open(options.run)
    path = products.write_turntable(run, run.field(options.torch_device), frames=options.frames, size=options.size)
    print(f"{options.frames} pictures and {path}")


def mesh(options: MeshArguments) -> None:
    """Extract the surface of a run."""
    run = Run.open(options.run)
    field = run.field(options.torch_device)
    chosen = dict(run.scene().mesh)
    if options.resolution is not None:
        chosen["resolution"] = options.resolution
    if options.largest:
        chosen["largest"] = True
    surface = products.write_mesh(run, field, options.out, **chosen)
    size = f"{len(surface.vertices)} vertices, {len(surface.faces)} triangles"
    print(f"{options.out or run.mesh}: {size}, in the data's units")


def usd(options: UsdArguments) -> None:
    """Write the mesh and the cameras of a run as USD."""
    run = Run.open(options.run)
    print(products.write_scene(run, _surface(run, options.torch_device), options.out))


def evaluate(options: EvalArguments) -> None:
    """Compare a run with the held-out photographs, and with a true mesh where there is one."""
    run = Run.open(options.run)
    views = run.scene().load_views()
    truth = products.true_mesh(options.mesh_gt, views)
    field = run.field(options.torch_device)
    surface = None if truth is None else _surface(run, options.torch_device)
    scores = products.write_scores(run, field, views, surface, truth)
    report(scores, {"scores": run.scores, "pictures": run.images})


def _surface(run: Run, device: torch.device) -> Mesh:
    """Return the mesh of a run, extracted if it has none yet."""
    if run.mesh.is_file():
        return read_mesh(run.mesh)
    return products.write_mesh(run, run.field(device), **run.scene().mesh)

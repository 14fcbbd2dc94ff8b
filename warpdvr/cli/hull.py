"""The command that carves the visual hull of the masks: what silhouettes alone tell of a shape."""

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from warpdvr.cli.arguments import OnDevice, named, positional
from warpdvr.cli.progress import load_views
from warpdvr.cli.report import report
from warpdvr.datasets.hull import carve
from warpdvr.datasets.thinning import without_held_out
from warpdvr.evaluation.concave import concave_distance
from warpdvr.evaluation.surfaces import chamfer
from warpdvr.geometry.isosurface import check_resolution
from warpdvr.geometry.mesh import check_writable
from warpdvr.runs import scene
from warpdvr.runs.products import true_mesh
from warpdvr.runs.scene import Scene


@dataclass(frozen=True, kw_only=True)
class HullArguments(OnDevice):
    """Carve the visual hull of the masks, and write it as a mesh.

    The mesh is in the units of the data. Held-out views have no part in it. It is scored like a fit if a true mesh is
    known.
    """

    scene: Path = field(metadata=positional("SCENE_OR_FOLDER"))
    """Scene file (.toml) or folder of photographs with cameras and masks."""
    out: Path = field(default=Path("hull.ply"), metadata=named("FILE"))
    """File of the mesh, .ply, .obj, .off or .glb."""
    resolution: int = field(default=320, metadata=named("N"))
    """Cells along the longest side of a box around the hull."""
    views: int | None = field(
        default=None, metadata=named("N", usual="that of the scene file, else all that are not held out")
    )
    """Carve from N views, evenly chosen among those that are not held out."""
    mesh_gt: Path | None = field(
        default=None, metadata=named("FILE", usual="the one from which the views were rendered, if any")
    )
    """True mesh in the units of the data: .ply, .obj or .off."""


def hull(options: HullArguments) -> None:
    """Carve the visual hull of the masks of a scene or a folder, and score it."""
    check_writable(options.out)
    check_resolution(options.resolution, "--resolution")
    given = scene.read(options.scene)
    table = {key: value for key, value in given.views.items() if key != "normalise"}  # it is carved in the unit sphere
    table |= {} if options.views is None else {"train": options.views}
    views = load_views(Scene(table, given.field, given.fit, given.mesh))
    truth = true_mesh(options.mesh_gt, views)
    print(views.summary, flush=True)
    start = time.perf_counter()
    mesh = carve(without_held_out(views), resolution=options.resolution, device=options.torch_device)
    print(f"carved from {len(views.train)} views in {time.perf_counter() - start:.1f} s")
    mesh.save(options.out)
    scores = {"views": 0, "mesh_vertices": len(mesh.vertices), "mesh_triangles": len(mesh.faces)}
    if truth is not None:
        scores |= asdict(chamfer(mesh, truth)) | asdict(concave_distance(mesh, truth, views))
    report(scores, {"mesh": options.out})

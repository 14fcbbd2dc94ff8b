"""The command that shows a field in a window."""

from dataclasses import dataclass, field
from pathlib import Path

from warpdvr.cameras.camera import Camera
from warpdvr.cli.arguments import OnDevice, named, positional
from warpdvr.geometry.mesh import Mesh, read_mesh
from warpdvr.runs import scene
from warpdvr.runs.run import Run
from warpdvr.runtime.files import check_file
from warpdvr.viewer import window


@dataclass(frozen=True, kw_only=True)
class ViewArguments(OnDevice):
    """Show a run or a scene in a window."""

    source: Path = field(metadata=positional("RUN_OR_SCENE"))
    """Folder of a run, or scene file."""
    screenshot: Path | None = field(default=None, metadata=named("FILE.png", usual="none: a window opens"))
    """Write a picture instead of opening a window."""


def view(options: ViewArguments) -> None:
    """Show the field of a run or of a scene file."""
    if options.screenshot is not None:
        check_file(options.screenshot, (".png",), "a screenshot")
    meshes: dict[str, Mesh] = {}
    cameras: tuple[Camera, ...] = ()
    up = (0.0, 0.0, 1.0)
    if options.source.is_dir():
        run = Run.open(options.source)
        last = run.load()
        shown, up = run.field(options.torch_device), last.up
        if options.screenshot is None and run.mesh.is_file():
            meshes["mesh"] = read_mesh(run.mesh).transformed(last.transform.inverse().matrix)
            cameras = last.cameras
    elif not options.source.exists():
        raise ValueError(f"{options.source}: expected the folder of a run or a scene file, found nothing")
    else:
        file_scene = scene.read(options.source)
        shown = file_scene.make_field().to(options.torch_device)
        if file_scene.views:
            print(f"{options.source}: the field is shown before any fit; to see a fitted field, view its run")
    window.view(shown, meshes=meshes, cameras=cameras, screenshot=options.screenshot, up=up)
    if options.screenshot is not None:
        print(options.screenshot)

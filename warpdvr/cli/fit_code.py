"""Fit the latent code of a trained decoder to views: shapes from masks, from one depth image, from a few points."""

from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from warpdvr.cli.arguments import RESUMED, named, positional
from warpdvr.datasets.pixels import BACKGROUND, OBJECT, Pixels
from warpdvr.datasets.views import Views
from warpdvr.fields.bounds import box
from warpdvr.runs import scene as scene_files
from warpdvr.runs.options import Table
from warpdvr.runs.scene import Scene

ITERATIONS = 300
"""Default number of steps of a fit."""

DEPTH = {"depth": 1.0, "on_surface": 10.0}
"""Default weights where depth is known: of the difference of depths where rays hit, and of the field's value at points
of known depth."""

RAYS = 4096
"""Number of rays of the views that are checked before a fit."""


@dataclass(frozen=True, kw_only=True)
class DecoderArguments:
    """The options that name a decoder and the views of a shape."""

    decoder: Path | None = field(default=None, metadata=positional("DECODER") | RESUMED)
    """Trained decoder: .npz, .safetensors or a PyTorch state dict."""
    views: Path | None = field(default=None, metadata=positional("FOLDER") | RESUMED)
    """Views in the decoder's frame, or a scene file."""
    latents: Path | None = field(default=None, metadata=named("FILE", usual="those in DECODER"))
    """Codes of the trained shapes, if they are in another file."""
    index: int | None = field(default=None, metadata=named("K", usual="their mean"))
    """Number of the trained shape to start from."""
    prior: float | None = field(default=None, metadata=named("W", usual="0.0001"))
    """Weight of the squared distance of the code from the mean of the known ones."""
    bounds: float | None = field(default=None, metadata=named("HALF", usual="1"))
    """Half the side of the cube in which the surface lies [unit of the decoder]."""


def refuse_resumed(options: DecoderArguments) -> None:
    """Refuse options that a resumed run keeps.

    Raises:
        ValueError: if there is one.
    """
    for f in fields(DecoderArguments):
        if (value := getattr(options, f.name)) is not None:
            option = f.metadata["metavar"] if "positional" in f.metadata else f"--{f.name}"
            raise ValueError(
                f"{option} {value}: a run that is resumed keeps its code's scene; give --out and --resume alone"
            )


def new_scene(options: DecoderArguments) -> Scene:
    """Return the scene of a fit of a code, as the command line describes it, without the duration.

    Views stay in the data's own frame, which must be that of the decoder, and none is held out, since a few views are
    enough for a code. A scene file may change this, and everything else but the decoder.

    Raises:
        ValueError: if decoder or views are missing, or a file is not a scene.
    """
    if options.decoder is None or options.views is None:
        raise ValueError("fit-code: expected a decoder and a folder of views, got fewer (only --resume needs none)")
    file_scene = scene_files.read(options.views)
    files = {k: str(v.resolve()) for k in ("decoder", "latents") if (v := getattr(options, k)) is not None}
    numbers = {k: v for k in ("index", "prior", "bounds") if (v := getattr(options, k)) is not None}
    decoder = (
        {"kind": "deepsdf"} | (file_scene.field if file_scene.field["kind"] == "deepsdf" else {}) | files | numbers
    )
    views: Table = {"normalise": False} | ({"hold_out": 0} if "folder" in file_scene.views else {}) | file_scene.views
    return Scene(views, decoder, {"recipe": "code"} | file_scene.fit, {"resolution": 128} | file_scene.mesh)


def with_depth_weights(scene: Scene, views: Views) -> Scene:
    """Return the scene with default weights for depth, if a view to fit has depth.

    Raises:
        ValueError: if no view to fit has a mask or depth, or they lie outside of the decoder's bounds.
    """
    pixels = Pixels(views)
    _check_place(pixels, box(scene.field.get("bounds", 1.0)))
    return scene.with_fit(DEPTH | scene.fit) if pixels.has_depth else scene


def _check_place(pixels: Pixels, bounds: Float[Tensor, "2 3"]) -> None:
    """Refuse views that are not in the decoder's frame: outside of its bounds a fit would learn nothing."""
    batch = pixels.draw(RAYS, torch.Generator().manual_seed(0))
    near, far = batch.rays.clip(bounds)
    on_object, deep = batch.label == OBJECT, ~batch.depth.isnan() & (batch.label != BACKGROUND)
    x = batch.rays.at(batch.depth / batch.forward)[deep]
    low, high, example = ([round(v, 3) for v in p.tolist()] for p in (*bounds, torch.cat([x, bounds])[0]))
    place = f"the decoder's bounds, {low} to {high}"
    if bool(on_object.any()) and not bool((near < far)[on_object].any()):
        raise ValueError(
            f"fit-code: no ray through a mask meets {place}; cameras must look at the object, in the decoder's frame"
        )
    if len(x) and not bool(((bounds[0] <= x) & (x <= bounds[1])).all(1).any()):
        raise ValueError(
            f"fit-code: no point of known depth lies in {place}, but one at {example}; "
            "cameras and depth must be in the decoder's frame and unit"
        )

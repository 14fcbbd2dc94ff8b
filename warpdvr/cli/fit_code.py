"""Fit the latent code of a trained decoder to views: shapes from masks, from one depth image, from a few points."""

from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from torch import Tensor

from warpdvr.cli.arguments import named, positional
from warpdvr.datasets.pixels import BACKGROUND, OBJECT, Pixels
from warpdvr.datasets.views import Views
from warpdvr.fields.base import box
from warpdvr.runs import scene
from warpdvr.runs.options import Table
from warpdvr.runs.scene import Scene

ITERATIONS = 300
"""Steps of a fit unless something else is chosen."""

DEPTH = {"depth": 1.0, "known": 10.0}
"""Weights where depth is known, unless others are chosen: of its difference where rays hit, and of the surface points
that follow from it."""

RAYS = 4096
"""Rays of the views that are looked at before a fit."""


@dataclass(frozen=True, kw_only=True)
class DecoderArguments:
    """A decoder and the views of a shape."""

    decoder: Path | None = field(default=None, metadata=positional("DECODER"))
    """.npz, .safetensors or a PyTorch state dict."""
    views: Path | None = field(default=None, metadata=positional("FOLDER"))
    """Views in the decoder's frame, or a scene file."""
    latents: Path | None = field(default=None, metadata=named("FILE"))
    """Codes of known shapes, if in a file of their own."""
    index: int | None = field(default=None, metadata=named("K", usual="their mean"))
    """Start from this known shape."""
    prior: float | None = field(default=None, metadata=named("W"))
    """Weight of the code's distance from the mean."""
    bounds: float | None = field(default=None, metadata=named("HALF", usual="1"))
    """Half the side of the cube to look in [unit of the decoder]."""


def refuse(options: DecoderArguments) -> None:
    """Refuse what a run that is resumed keeps.

    Raises:
        ValueError: if any of it is given.
    """
    for f in fields(DecoderArguments):
        if (value := getattr(options, f.name)) is not None:
            raise ValueError(
                f"{f.name} {value}: a run that is resumed keeps its code's scene; give --out and --resume alone"
            )


def chosen(options: DecoderArguments) -> Scene:
    """Return the scene of a fit of a code, as the command line says; not how long it is fitted.

    Views stay in the data's own frame, which must be that of the decoder, and none is held out: a code is found from
    few. A scene file may say otherwise, as well as all else but the decoder.

    Raises:
        ValueError: if decoder or views are missing, or a file is no scene.
    """
    if options.decoder is None or options.views is None:
        raise ValueError("fit-code: expected a decoder and a folder of views, got fewer (only --resume needs none)")
    given = scene.read(options.views)
    files = {k: str(v.resolve()) for k in ("decoder", "latents") if (v := getattr(options, k)) is not None}
    numbers = {k: v for k in ("index", "prior", "bounds") if (v := getattr(options, k)) is not None}
    decoder = {"kind": "deepsdf"} | (given.field if given.field["kind"] == "deepsdf" else {}) | files | numbers
    views: Table = {"normalise": False} | ({"hold_out": 0} if "folder" in given.views else {}) | given.views
    return Scene(views, decoder, {"recipe": "code"} | given.fit, {"resolution": 128} | given.mesh)


def weighed(chosen: Scene, views: Views) -> Scene:
    """Return the scene with weights for depth, if a view to fit has any and none was chosen.

    Raises:
        ValueError: if no view to fit has mask or depth, or what they say lies where the decoder is not asked.
    """
    pixels = Pixels(views)
    _check_place(pixels, box(chosen.field.get("bounds", 1.0)))
    return chosen.with_fit(DEPTH | chosen.fit) if pixels.has_depth else chosen


def _check_place(pixels: Pixels, bounds: Tensor) -> None:
    """Refuse views that are not in the decoder's frame: outside of its bounds (2, 3) a fit would learn nothing."""
    drawn = pixels.draw(RAYS, torch.Generator().manual_seed(0))
    near, far = drawn.rays.clip(bounds)
    sure, deep = drawn.label == OBJECT, ~drawn.depth.isnan() & (drawn.label != BACKGROUND)
    x = drawn.rays.at(drawn.depth / drawn.forward)[deep]
    low, high, one = ([round(v, 3) for v in p.tolist()] for p in (*bounds, torch.cat([x, bounds])[0]))
    where = f"the decoder's bounds, {low} to {high}"
    if bool(sure.any()) and not bool((near < far)[sure].any()):
        raise ValueError(
            f"fit-code: no ray through a mask meets {where}; cameras must look at the object, in the decoder's frame"
        )
    if len(x) and not bool(((bounds[0] <= x) & (x <= bounds[1])).all(1).any()):
        raise ValueError(
            f"fit-code: no point of known depth lies in {where}, but one at {one}; "
            "cameras and depth must be in the decoder's frame and unit"
        )

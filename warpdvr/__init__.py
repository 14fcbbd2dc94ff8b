"""See, differentiate and fit any implicit surface written in Torch.

Every public name is imported from here, as `warpdvr.NAME`. A name is loaded when it is first used: `import warpdvr`
loads neither Torch nor Warp, and no public name loads the viewer (polyscope) or USD (pxr) before it is called.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from warpdvr.cameras.camera import Camera
    from warpdvr.cameras.lenses import FisheyeLens, OpenCVLens
    from warpdvr.cameras.projection import Orthographic, Pinhole, Projection, register_projection
    from warpdvr.cameras.rays import Rays
    from warpdvr.cameras.transform import SceneTransform
    from warpdvr.datasets.check import DataReport, check_data
    from warpdvr.datasets.export import export_cameras
    from warpdvr.datasets.load import load
    from warpdvr.datasets.views import Views
    from warpdvr.fields.adapter import as_field
    from warpdvr.fields.base import Decoder, Field
    from warpdvr.fields.registry import make, register
    from warpdvr.fitting.fit import Fit
    from warpdvr.fitting.recipe import Recipe
    from warpdvr.fitting.terms import Term
    from warpdvr.geometry.isosurface import extract
    from warpdvr.geometry.mesh import Mesh
    from warpdvr.intersection.cached import CachedMarch
    from warpdvr.intersection.dense_march import DenseMarch
    from warpdvr.intersection.grid import BoundGrid
    from warpdvr.intersection.hit import Hit, Status
    from warpdvr.intersection.range_march import RangeMarch
    from warpdvr.intersection.sphere_trace import SphereTrace
    from warpdvr.rendering.aggregate import Aggregation, HitPoint
    from warpdvr.rendering.image import Image
    from warpdvr.rendering.implicit import reattach
    from warpdvr.rendering.maximum_occupancy import MaximumOccupancy
    from warpdvr.rendering.render import render
    from warpdvr.rendering.surface import surface
    from warpdvr.rendering.transparency import Transparency
    from warpdvr.shading.lights import AmbientLight, DirectionalLight
    from warpdvr.shading.materials import Lambert
    from warpdvr.usd.scene import write_usd
    from warpdvr.viewer.window import view

__version__ = "0.1.0"

__all__ = [
    "Aggregation",
    "AmbientLight",
    "BoundGrid",
    "CachedMarch",
    "Camera",
    "DataReport",
    "Decoder",
    "DenseMarch",
    "DirectionalLight",
    "Field",
    "FisheyeLens",
    "Fit",
    "Hit",
    "HitPoint",
    "Image",
    "Lambert",
    "MaximumOccupancy",
    "Mesh",
    "OpenCVLens",
    "Orthographic",
    "Pinhole",
    "Projection",
    "RangeMarch",
    "Rays",
    "Recipe",
    "SceneTransform",
    "SphereTrace",
    "Status",
    "Term",
    "Transparency",
    "Views",
    "as_field",
    "check_data",
    "export_cameras",
    "extract",
    "load",
    "make",
    "reattach",
    "register",
    "register_projection",
    "render",
    "surface",
    "view",
    "write_usd",
]

_MODULES = {
    "cameras.camera": ("Camera",),
    "cameras.lenses": ("FisheyeLens", "OpenCVLens"),
    "cameras.rays": ("Rays",),
    "cameras.transform": ("SceneTransform",),
    "datasets.export": ("export_cameras",),
    "datasets.check": ("DataReport", "check_data"),
    "datasets.load": ("load",),
    "datasets.views": ("Views",),
    "fields.adapter": ("as_field",),
    "fields.base": ("Decoder", "Field"),
    "fields.registry": ("make", "register"),
    "fitting.fit": ("Fit",),
    "fitting.recipe": ("Recipe",),
    "geometry.isosurface": ("extract",),
    "geometry.mesh": ("Mesh",),
    "intersection.cached": ("CachedMarch",),
    "intersection.dense_march": ("DenseMarch",),
    "intersection.grid": ("BoundGrid",),
    "intersection.hit": ("Hit", "Status"),
    "intersection.range_march": ("RangeMarch",),
    "intersection.sphere_trace": ("SphereTrace",),
    "rendering.aggregate": ("Aggregation", "HitPoint"),
    "rendering.image": ("Image",),
    "rendering.implicit": ("reattach",),
    "rendering.maximum_occupancy": ("MaximumOccupancy",),
    "rendering.render": ("render",),
    "rendering.surface": ("surface",),
    "rendering.transparency": ("Transparency",),
    "shading.lights": (
        "AmbientLight",
        "DirectionalLight",
    ),
    "shading.materials": ("Lambert",),
    "cameras.projection": (
        "Orthographic",
        "Pinhole",
        "Projection",
        "register_projection",
    ),
    "fitting.terms": ("Term",),
    "usd.scene": ("write_usd",),
    "viewer.window": ("view",),
}
"""Where the public names are defined."""

_HOME = {name: f"warpdvr.{module}" for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    """Load a public name when it is first used (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'warpdvr' has no attribute {name!r}")
    member = getattr(import_module(_HOME[name]), name)
    globals()[name] = member
    return member


def __dir__() -> list[str]:
    """Return the public names, loaded or not."""
    return sorted([*__all__, "__version__"])

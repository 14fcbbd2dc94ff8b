"""See, differentiate and fit any implicit surface written in Torch.

The viewer (polyscope) and the USD export (pxr) are loaded when they are first used, not here.
"""

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.rays import Rays
from warpdvr.datasets.views import Views
from warpdvr.fields.base import Field
from warpdvr.fields.registry import make, register
from warpdvr.fitting.fit import Fit
from warpdvr.fitting.recipe import Recipe
from warpdvr.geometry.isosurface import extract
from warpdvr.geometry.mesh import Mesh
from warpdvr.intersection.dense_march import DenseMarch
from warpdvr.intersection.grid import BoundGrid
from warpdvr.intersection.hit import Hit, Status
from warpdvr.intersection.range_march import RangeMarch
from warpdvr.intersection.sphere_trace import SphereTrace
from warpdvr.rendering.image import Image
from warpdvr.rendering.implicit import reattach
from warpdvr.rendering.render import render

__version__ = "0.1.0"

__all__ = [
    "BoundGrid",
    "Camera",
    "DenseMarch",
    "Field",
    "Fit",
    "Hit",
    "Image",
    "Mesh",
    "RangeMarch",
    "Rays",
    "Recipe",
    "SphereTrace",
    "Status",
    "Views",
    "extract",
    "make",
    "reattach",
    "register",
    "render",
]

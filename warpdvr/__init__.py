"""See, differentiate and fit any implicit surface written in Torch.

The viewer (polyscope) and the USD export (pxr) are loaded when they are first used, not here.
"""

from warpdvr.camera import Camera, Rays
from warpdvr.fields.base import Field
from warpdvr.fields.registry import make, register
from warpdvr.fit import Fit
from warpdvr.grid import BoundGrid
from warpdvr.implicit import reattach
from warpdvr.intersect import DenseMarch, Hit, SphereTrace, Status
from warpdvr.isosurface import extract
from warpdvr.mesh import Mesh
from warpdvr.ranges import RangeMarch
from warpdvr.recipe import Recipe
from warpdvr.render import Image, render
from warpdvr.views import Views

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

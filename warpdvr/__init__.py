"""See, differentiate and fit any implicit surface written in Torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from warpdvr.camera import Camera as Camera
    from warpdvr.camera import Rays as Rays
    from warpdvr.fields.base import Field as Field
    from warpdvr.fields.registry import make as make
    from warpdvr.fields.registry import register as register
    from warpdvr.implicit import reattach as reattach
    from warpdvr.intersect import DenseMarch as DenseMarch
    from warpdvr.intersect import Hit as Hit
    from warpdvr.intersect import SphereTrace as SphereTrace
    from warpdvr.intersect import Status as Status
    from warpdvr.render import Image as Image
    from warpdvr.render import render as render

__version__ = "0.1.0"

_HOME = {
    "camera": ("Camera", "Rays"),
    "fields.base": ("Field",),
    "fields.registry": ("make", "register"),
    "implicit": ("reattach",),
    "intersect": ("DenseMarch", "Hit", "SphereTrace", "Status"),
    "render": ("Image", "render"),
}
"""Where each public name lives; a module is imported when the first of its names is asked for."""

_MODULE = {name: module for module, names in _HOME.items() for name in names}
__all__ = sorted(_MODULE)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'warpdvr' has no attribute {name!r}")
    return getattr(import_module(f"warpdvr.{_MODULE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE})

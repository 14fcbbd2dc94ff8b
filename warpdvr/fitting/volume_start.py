"""The beginning of a fit: points compete for rays by their colours, and what wins becomes the surface of the field."""

import math
import warnings
from collections.abc import Set as AbstractSet

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from warpdvr.datasets.pixels import OBJECT, UNKNOWN, Pixels
from warpdvr.datasets.views import Views
from warpdvr.fields.base import Field
from warpdvr.fitting.depth_fusion import fuse_depths
from warpdvr.fitting.distillation import distil_surface, value_parameters
from warpdvr.fitting.exposure import EXPOSURE_RATE, Exposure
from warpdvr.fitting.mask_trust import OUTVOTED
from warpdvr.fitting.optimizer import new_optimizer, pack, unpack
from warpdvr.fitting.recipe import Recipe
from warpdvr.geometry.isosurface import DEBRIS, mesh_of_lattice
from warpdvr.geometry.mesh import Mesh
from warpdvr.rendering.density_voxels import DensityVoxels

RATE = 0.03
"""First learning rate of Adam, of density and colour [table / step]."""

FIRST_EXPOSURE_RATE = 0.003
"""First learning rate of exposures, if they are learnt [1 / step]."""

OUTVOTING, OPAQUE = 0.05, 0.3
"""Share of the volume after which a ray beside the object counts no more if less than this part of its light is left:
views that have the object there outvote its mask. Otherwise every hole in a mask becomes a tunnel."""

LAST_RATE = 0.1
"""The last one, as a share of the first."""

RESOLUTION = 128
"""Cells along each axis of the bounds at the beginning: fewer carve away what is thin, and it does not come back."""

REFINED = 0.6, 1.5
"""Share of the volume after which its cells get smaller, and how many times as many there are then along each axis."""

HULL_RESOLUTION = 64
"""Cells along each axis in which the hull of the masks is looked for."""

RAYS = 4096
"""Rays in a step."""

PRUNE = 64
"""Steps between two looks for cells that have become empty."""

DISTILLATION = 800
"""Steps in which the field takes on the surface."""

SHORTEST_MINUTES, SHORTEST_STEPS = 2.0, 2000
"""The shortest fits that begin with a volume."""

DISTILLED = 0.05
"""The largest share of a fit that is spent on giving the field the surface of the volume."""

COLORS_ALONE = 0.1
"""Share of the refinement in which the colours of that surface are learnt, and it stays."""

SHARPENED = 0.9, 1.8
"""How far masks are sharpened where the refinement begins and ends; a fit without a volume takes them from 0 to 1. Soft
masks shrink the surface, see `losses.silhouette`."""

REFINING_RATE = 0.2
"""Rates of the surface in the refinement, as a share of those of a fit that begins without one."""

PREFIX = "volume."
"""Prefix of the names of its tensors in the state of a fit."""

REFINING = PREFIX + "done"
"""The name in the state of a fit that says that it refines the surface of a volume."""


class VolumeStart:
    """Voxels of density and colour that are fitted before the field, within the hull of the masks.

    A surface hit has the colours of one point of the ray, so that a fit of hits never learns that the point behind it
    would do better: it fills concavities that no silhouette shows. In a volume all points of a ray share its colour,
    and those win that agree with other views (Mildenhall et al., "NeRF", 2020). Plain voxels carve within seconds (Sun
    et al., "Direct voxel grid optimization", 2022). Their depths, fused, are the surface that the field begins with.
    """

    def __init__(
        self,
        pixels: Pixels,
        bounds: Float[Tensor, "2 3"],
        voxels: DensityVoxels | None = None,
        shape: AbstractSet[Tensor] = frozenset(),
        exposure: Exposure | None = None,
    ):
        self.pixels, self.bounds, self.shape, self.exposure = pixels, bounds.detach().float(), shape, exposure
        self.voxels = voxels or DensityVoxels(self.bounds, _hull_cells(pixels, self.bounds))
        self.optimizer = self._new_optimizer()
        self.steps = 0

    def step(self, progress: float, generator: torch.Generator) -> float:
        """Draw rays and move the voxels towards their colours; return the mean squared difference.

        Rays of the object end in random colours where light passes, so that they must be opaque, and those beside it
        must let it pass, unless the other views have made them opaque all the same: then their mask is wrong. Outlines
        are drawn no more often than other pixels, for most of a small fault in a mask is its outline.

        Args:
            progress: of this beginning, from 0 to 1.
            generator: the source of random numbers.

        Raises:
            RuntimeError: if the difference is not finite; the voxels stay as they were.
        """
        if progress >= REFINED[0] and self.voxels.resolution == RESOLUTION:
            self.voxels = self.voxels.refined(round(REFINED[1] * RESOLUTION))
            self.optimizer = self._new_optimizer()
        elif self.steps % PRUNE == 0 and self.steps:
            self.voxels.prune()
        batch = self.pixels.draw(RAYS, generator, outlines=False)
        n = len(batch.label)
        known = torch.nonzero(batch.label != UNKNOWN)[:, 0]
        jitter = torch.rand(n, generator=generator).to(self.voxels.table)
        seen = self.voxels.render(batch.rays[known], jitter[known])
        behind = torch.rand(n, 3, generator=generator).to(seen.color)[known]
        on_object, color = (batch.label[known] == OBJECT)[:, None], seen.color
        target = torch.where(on_object, batch.color[known], behind)
        if self.exposure:
            color = torch.where(on_object, self.exposure(color, target, batch.view[known]), color)
        square = (color + seen.left[:, None] * behind - target).square().mean(1)
        if progress > OUTVOTING:
            square = square.masked_fill(~on_object[:, 0] & (seen.left < OPAQUE), 0.0)
        loss = square.mean()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise RuntimeError(
                f"fit: the loss volume is {value} at step {self.steps + 1}; the voxels of the step before are kept"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * LAST_RATE**progress
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.steps += 1
        return value

    def _new_optimizer(self) -> torch.optim.Optimizer:
        groups = [{"params": [self.voxels.table], "rate": RATE}]
        if self.exposure:
            groups.append({"params": list(self.exposure.parameters()), "rate": FIRST_EXPOSURE_RATE})
        return new_optimizer(groups)

    def surface(self, values: Float[Tensor, "s s s"]) -> Mesh:
        """Return the surface in front of which the light of the training views is lost [scene unit].

        Args:
            values: how far the corners of the voxels lie in front of it, see `fuse_depths`.

        Raises:
            ValueError: if there is none.
        """
        mesh = mesh_of_lattice(values, self.bounds[0], self.voxels.side, smallest=DEBRIS)
        if not len(mesh.faces):
            raise ValueError("the voxels hold no surface")
        return mesh

    def is_finite(self) -> bool:
        """Return whether the voxels and what their optimizer remembers are finite."""
        return all(bool(x.isfinite().all()) for x in (self.voxels.table, *pack(self.optimizer).values()))

    def state(self) -> dict[str, Tensor]:
        """Return what `saved` needs."""
        own = self.voxels.state() | pack(self.optimizer) | {"steps": torch.tensor([self.steps])}
        return {PREFIX + name: value for name, value in own.items()}

    @classmethod
    def saved(
        cls,
        state: dict[str, Tensor],
        pixels: Pixels,
        bounds: Float[Tensor, "2 3"],
        exposure: Exposure | None = None,
    ) -> "VolumeStart | None":
        """Return the beginning that a `state` holds; None if that fit has left it behind."""
        own = {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
        if "steps" not in own:
            return None
        voxels = DensityVoxels.from_state(bounds.detach().float(), own)
        start = cls(pixels, bounds, voxels, exposure=exposure)
        unpack(start.optimizer, own)
        start.steps = int(own["steps"])
        return start


def is_long(minutes: float | None, iterations: int | None) -> bool:
    """Return whether a fit of that duration is long enough to begin with a volume, and to learn exposures."""
    return (iterations or 0) >= SHORTEST_STEPS or (minutes or 0.0) >= SHORTEST_MINUTES


def exposure_rate(recipe: Recipe, minutes: float | None, iterations: int | None) -> float:
    """Return the highest rate at which a fit learns exposures after its volume: short ones take them as alike."""
    if recipe.exposure is not None:
        return recipe.exposure
    return EXPOSURE_RATE if is_long(minutes, iterations) else 0.0


def new_start(
    recipe: Recipe,
    field: Field,
    pixels: Pixels,
    exposure: Exposure | None = None,
    *,
    minutes: float | None,
    iterations: int | None,
) -> VolumeStart | None:
    """Return the volume that a fit begins with, if it is long enough and surfaces are learnt from colours."""
    learns = recipe.color > 0 and not recipe.depth and not recipe.on_surface and pixels.masked
    if not (recipe.volume > 0 and is_long(minutes, iterations) and learns):
        return None
    shape = value_parameters(field)
    return VolumeStart(pixels, field.bounds, shape=shape, exposure=exposure) if shape else None


def take_surface(
    field: Field, start: VolumeStart, views: Views, minutes: float | None
) -> tuple[int, Bool[Tensor, " n"]]:
    """Give a field the surface of a volume; return the evaluations [point], and which pixels' masks are contradicted.

    Where the volume holds no closed surface, a warning says so and the field stays as it is: 0 evaluations.

    Args:
        field: changed in place.
        start: the volume.
        views: their training views have fitted it.
        minutes: the duration of the fit, of which a share is spent on the field at the most; None: it counts steps.
    """
    seconds = math.inf if minutes is None else DISTILLED * 60 * minutes
    fusion = fuse_depths(start.voxels, views)
    try:
        mesh = start.surface(fusion.lattice)
        taken = distil_surface(field, mesh, steps=DISTILLATION, seed=0, seconds=seconds)
    except ValueError:
        warnings.warn(
            "fit: the volume that the fit began with holds no surface; the field begins as it is", stacklevel=2
        )
        taken = 0
    return taken, fusion.distrusted


@torch.no_grad()
def _hull_cells(pixels: Pixels, bounds: Float[Tensor, "2 3"]) -> Tensor:
    """Return which cells of the bounds may lie in the hull of the masks, as (r, r, r) of bool.

    What fewer than half of the views have in their image is left out, as in `samples`.
    """
    line = torch.arange(HULL_RESOLUTION + 1, device=bounds.device)
    x = bounds[0] + torch.cartesian_prod(line, line, line) * ((bounds[1] - bounds[0]) / HULL_RESOLUTION)
    votes = [torch.stack(pixels.votes(part)) for part in x.split(1 << 17)]
    background, visible = torch.cat(votes, 1)
    inside = ((background <= OUTVOTED * visible) & (2 * visible >= len(pixels.pose))).view(
        1, 1, *[HULL_RESOLUTION + 1] * 3
    )
    cells = torch.nn.functional.max_pool3d(inside.float(), 2, stride=1)
    grown = torch.nn.functional.max_pool3d(cells, 3, stride=1, padding=1)[0, 0] > 0
    for axis in range(3):
        grown = grown.repeat_interleave(RESOLUTION // HULL_RESOLUTION, axis)
    return grown

"""Recipes: the weights, rates and schedules of a fit."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from torch import Tensor, nn

from warpdvr.runtime.validate import refuse_class, suggest

WEIGHTS = (
    "color", "mask", "hinge", "outline", "eikonal", "smooth",
    "gradient", "depth", "on_surface", "freespace", "occupancy", "patches",
)  # fmt: skip
"""The terms of the loss."""

SHARPNESS = 132.0, 1320.0
"""First and last sharpness of the soft mask, if it is not given [1 / longest side of the bounds]."""

MILESTONES = 0.125, 0.25, 0.625
"""Progress at which the number of samples changes: 50, 100 and 250 of 400 thousand steps in DVR."""


@dataclass(frozen=True)
class Recipe:
    """The weights, rates and schedules of a fit. Schedules follow its progress from 0 to 1."""

    rays: int = 2048
    """Rays in a step."""
    rate: float | None = None
    """Highest learning rate of Adam [1 / step]; if not given, that of the field."""
    color: float = 6.0
    """Weight of the photometric loss [1 / sRGB difference]."""
    square: float = 10.0
    """Differences of colours up to this multiple of their median count by their square, larger ones by their size; 0:
    all count by their size, as in DVR and IDR."""
    learn_background: bool = True
    """Learn the colours of the surroundings of the object as well, by a small network beside the field, with weight
    1."""
    mask: float = 1.0
    """Weight of the silhouette loss [1 / nat], divided by the growth of the sharpness."""
    hinge: float = 0.0
    """Weight of the hinge loss of the silhouette [1 / field value], which needs no sharpness."""
    outline: float = 0.0
    """Weight of the photometric loss over all pixels, whatever their masks say [1 / sRGB difference], so that colours
    move outlines. For photographs in front of a plain background; rays are drawn in blocks of 2 x 2 pixels."""
    background: tuple[float, ...] = field(default=(1.0, 1.0, 1.0), metadata={"type": tuple[float, float, float]})
    """sRGB colour in [0, 1] of pixels where nothing is hit, for the outline loss."""
    eikonal: float = 0.1
    """Weight of the eikonal loss [1 / squared deviation of the slope from 1], for fields that are distances."""
    smooth: float = 0.005
    """Weight of the smoothness loss [1 / length of the difference of neighbouring unit normals]."""
    gradient: float = 0.0
    """Weight of the image gradient loss [pixel / sRGB difference]; rays are then drawn in blocks of 2 x 2 pixels."""
    depth: float = 0.0
    """Weight of the depth loss [1 / scene unit], for views with depth maps or single points of known depth."""
    on_surface: float = 0.0
    """Weight of |value| at points of known depth [1 / field value], which also works where no ray hits; for fields that
    are distances near their surface."""
    freespace: float = 0.0
    """Weight of the free-space loss of DVR [1 / nat], at the hit or a random point of each ray beside the object;
    the silhouette loss takes the nearest point."""
    occupancy: float = 0.0
    """Weight of the occupancy loss of DVR [1 / nat], at a random point of each ray that should hit the object but does
    not."""
    patches: float = 0.0
    """Weight of photographs compared with photographs [1 / correlation]: what one shows around a hit, with what others
    show there."""
    patch_rays: int = 256
    """Largest number of hits in a step around which photographs are compared."""
    samples: tuple[int, ...] = ()
    """Evenly spaced samples on each ray: one number, or four that follow one another at 1/8, 1/4 and 5/8 of the fit;
    none: the surface is found with a grid that remembers values."""
    volume: float = 0.25
    """Share of a fit in which points of a volume compete for its rays, before the field takes on the surface that they
    form: so fits find concavities that no silhouette shows. It replaces the surface that the field begins with; fits of
    less than 2 minutes or 2,000 steps, and those that learn from depth, go without it; 0: all do."""
    cells: int = 64
    """Cells of the grid that remembers values, along the longest side of the bounds."""
    cameras: float = 0.0
    """Highest learning rate of the cameras [radian and scene unit / step]; 0: they stay fixed."""
    intrinsics: float = 0.0
    """Highest learning rate of focal lengths and lens coefficients, in equal shares of the picture [1 / step]; 0: they
    stay fixed."""
    exposure: float | None = None
    """Highest learning rate of how much brighter or darker each photograph is than the others [1 / step]; 0: all are
    alike. If not given, 0.001 in fits of 2 minutes or 2,000 steps and more, and 0 in shorter ones, which lose more by
    its noise than they gain. The volume that a fit begins with learns it at a rate of its own."""
    principal_point: bool = False
    """Learn the principal points together with the other intrinsics."""
    sharpness: tuple[float, float] | None = None
    """First and last sharpness of the soft mask [1 / scene unit]; if not given, 132 and 1320 for each longest side of
    the bounds: 60 and 600 in bounds of 1.1. Occupancy fields are sharp by themselves and use 1."""

    def __post_init__(self) -> None:
        rate = 1.0 if self.rate is None else self.rate
        for name, values in (
            ("rays", (self.rays,)),
            ("patch_rays", (self.patch_rays,)),
            ("rate", (rate,)),
            ("sharpness", self.sharpness or (1.0,)),
        ):
            if not all(0 < a < math.inf for a in values):
                raise ValueError(f"fit: {name} must be positive and finite, got {getattr(self, name)}")
        for name in (*WEIGHTS, "cameras", "intrinsics", "exposure", "square"):
            if not 0 <= (getattr(self, name) or 0.0) < math.inf:
                raise ValueError(f"fit: {name} must be finite and not negative, got {getattr(self, name)}")
        if not 0 <= self.volume < 1:
            raise ValueError(f"fit: volume must be a share from 0 to less than 1, got {self.volume}")
        if not any(getattr(self, name) for name in WEIGHTS):
            raise ValueError(f"fit: at least one of the weights must be positive: {', '.join(WEIGHTS)}")
        if len(self.background) != 3 or not all(0 <= a <= 1 for a in self.background):
            raise ValueError(f"fit: background must be three numbers in [0, 1], got {list(self.background)}")
        if self.principal_point and not self.intrinsics:
            raise ValueError("fit: principal_point is learnt with the other intrinsics, give intrinsics a rate as well")
        if self.cells < 2:
            raise ValueError(f"fit: cells must be at least 2, got {self.cells}")
        if len(self.samples) not in (0, 1, len(MILESTONES) + 1) or any(n < 2 for n in self.samples):
            raise ValueError(
                f"fit: samples must be one number or {len(MILESTONES) + 1}, each at least 2, got {list(self.samples)}"
            )

    def with_values(self, **values: object) -> "Recipe":
        """Return the same recipe with other values, by name.

        Raises:
            ValueError: if a name is unknown (the message suggests the nearest one), or a value makes no sense.
        """
        names = [f.name for f in fields(self)]
        for name in values:
            if name not in names:
                raise ValueError(f"fit: a recipe has no weight or option {name!r}{suggest(name, names)}")
        return Recipe(**{name: getattr(self, name) for name in names} | values)

    @property
    def blocks(self) -> bool:
        """Whether rays are drawn in blocks of 2 x 2 pixels."""
        return self.gradient > 0 or self.outline > 0

    def sharp(self, progress: float, side: float = 2.2) -> float:
        """Return the sharpness of the soft mask; it grows by equal factors.

        Args:
            progress: from 0 to 1.
            side: longest side of the field's bounds, for a recipe that gives no sharpness.
        """
        first, last = self.sharpness or (a / side for a in SHARPNESS)
        return first * math.pow(last / first, progress)

    def march(self, progress: float) -> int | None:
        """Return the number of samples on a ray, or None if there is no fixed number."""
        if len(self.samples) < 2:
            return self.samples[0] if self.samples else None
        return self.samples[sum(progress >= m for m in MILESTONES)]

    def groups(self, field: nn.Module, rates: Mapping[str, float]) -> list[dict[str, Any]]:
        """Return the parameters that require a gradient, grouped by learning rate, as `rate` and `params`.

        Args:
            field: the module that has the parameters.
            rates: learning rates by the ending of a parameter's name; the longest ending counts, "" is for all others.

        Raises:
            ValueError: if there is no rate for all others, or a parameter is of half precision.
        """
        if "" not in rates:
            raise ValueError(f'fit: rates need an entry "" for all other parameters, got {dict(rates)}')
        endings = sorted(rates, key=len, reverse=True)
        groups: dict[float, list[Tensor]] = {}
        for name, parameter in field.named_parameters():
            if not parameter.requires_grad:
                continue
            if parameter.element_size() < 4:
                raise ValueError(
                    f"fit: {name} is {parameter.dtype}, in which small steps are lost; make the field in float32, fit "
                    "it, and load its weights into this one"
                )
            groups.setdefault(rates[next(e for e in endings if name.endswith(e))], []).append(parameter)
        factor = 1.0 if self.rate is None else self.rate / rates[""]
        return [{"params": parameters, "rate": factor * rate} for rate, parameters in groups.items()]


RECIPES = {
    "quick": Recipe(),
    "dvr": Recipe(
        color=3.0,
        square=0.0,
        learn_background=False,
        exposure=0.0,
        mask=0.0,
        eikonal=0.0,
        smooth=0.05,
        freespace=1.0,
        occupancy=1.0,
        samples=(16, 32, 64, 128),
        volume=0.0,
    ),
    "code": Recipe(
        rays=128, color=0.0, learn_background=False, exposure=0.0, eikonal=0.0, smooth=0.0, cells=32, volume=0.0
    ),
}
"""Recipes by name: ours, the weights and the sampling of DVR for images alone (Niemeyer et al. 2020, supplement), and
one for latent codes.

DVR sums over the colours' channels where `warpdvr.fitting.losses` takes their mean, hence its weight of 1 is 3 here.
With depth maps it gives `depth` 10 for ShapeNet and 1 for DTU, where `smooth` is 0.1, and `gradient` 1 for sums, 0.75
here."""


def find_recipe(recipe: Recipe | str | object | None = None) -> Recipe:
    """Return a recipe by its name in `RECIPES`, the recipe that is given, or the default one.

    Raises:
        ValueError: if the name is unknown; the message suggests the nearest one.
    """
    if isinstance(recipe, Recipe):
        return recipe
    refuse_class("fit: recipe", recipe)
    name = "quick" if recipe is None else recipe
    if not isinstance(name, str):
        raise ValueError(f"fit: recipe must be a Recipe, or the name of one such as 'quick', got {recipe!r}")
    if name not in RECIPES:
        raise ValueError(f"fit: unknown recipe {name!r}; known are {', '.join(RECIPES)}{suggest(name, RECIPES)}")
    return RECIPES[name]


def schedule(progress: float) -> float:
    """Return the learning rate's factor: rises over the first 2 %, then falls to a twentieth by half a cosine."""
    return min(1.0, 0.05 + progress / 0.02) * decay(progress)


def decay(progress: float) -> float:
    """Return a factor that falls from 1 to a twentieth by half a cosine."""
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress))

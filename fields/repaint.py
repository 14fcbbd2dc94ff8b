"""Learn new colours for a fixed surface."""

from jaxtyping import Float
from torch import Tensor

from warpdvr.fields.adapter import as_field, warp_value_of
from warpdvr.fields.base import Field, FieldLike, Kind
from warpdvr.fields.hashgrid import RATES, GridSize, Radiance, activate_levels
from warpdvr.fields.warp_value import WarpValue
from warpdvr.runtime.arguments import check_counts


class Repaint(Field):
    """The surface of another field, which is kept fixed, with newly learnt colours.

    After Liu et al., "DIST" (2020), section 4.3, "texture re-rendering". A fit changes the colours only; the
    colour of the other field is ignored.

    Args:
        shape: a field; in a scene file, a table with its `kind`. Its parameters no longer require gradients.
        levels, coarsest, finest, size: grids of the colour, see `HashGrid`.
        width, depth, view_frequencies: network of the colour, see `HashGrid`.
    """

    rates = RATES
    shape: Field

    def __init__(
        self,
        shape: FieldLike | object,
        levels: int = 8,
        coarsest: int = 16,
        finest: int = 512,
        size: int = 2**16,
        width: int = 64,
        depth: int = 2,
        view_frequencies: int = 0,
    ):
        try:
            surface = as_field(shape)
        except ValueError:
            message = "repaint: shape must be a field, or a table with the kind of one, got"
            raise ValueError(f"{message} {shape!r}") from None
        check_counts("repaint", least=0, view_frequencies=view_frequencies)
        super().__init__(surface.bounds)
        self.shape = surface.requires_grad_(False)
        self.radiance = Radiance(
            0, GridSize(levels, coarsest, finest, size), width, depth, view_frequencies, self.bounds
        )

    @property
    def value_of(self) -> object:  # type: ignore[override]
        return self.shape

    @property
    def kind(self) -> Kind:  # type: ignore[override]
        return self.shape.kind

    @property
    def lipschitz_is_measured(self) -> bool:  # type: ignore[override]
        return self.shape.lipschitz_is_measured

    @property
    def slope_version(self) -> object:  # type: ignore[override]
        return self.shape.slope_version

    @property
    def lipschitz(self) -> float | None:  # type: ignore[override]
        return self.shape.lipschitz

    @property
    def step(self) -> float | None:  # type: ignore[override]
        return self.shape.step

    def value(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        return self.shape.value(x)

    def warp_value(self) -> WarpValue | None:
        return warp_value_of(self.shape)

    def color(
        self,
        x: Float[Tensor, "n 3"],
        normal: Float[Tensor, "n 3"],
        direction: Float[Tensor, "n 3"],
        feature: Float[Tensor, "n k"] | None,
    ) -> Float[Tensor, "n 3"]:
        return self.radiance(x, normal, direction, x.new_empty(len(x), 0))

    def bound_slope(self) -> int:
        return self.shape.bound_slope()

    def anneal(self, progress: float) -> None:
        activate_levels(progress, self.radiance.encode)

    def requires_grad_(self, requires_grad: bool = True) -> "Repaint":
        self.radiance.requires_grad_(requires_grad)
        return self

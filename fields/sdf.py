"""A signed distance field as a perceptron."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from warpdvr.fields.bounds import Bounds
from warpdvr.fields.layers import Activation, Dense, Encode, Layer
from warpdvr.fields.mlp import MLP, PositionalEncoding, Squareplus
from warpdvr.fields.slope import MeasuredSlope
from warpdvr.fields.warp_value import WarpValue
from warpdvr.kernels import perceptron as _perceptron
from warpdvr.runtime.arguments import check_counts, check_positive


class SDF(MeasuredSlope):
    """Distance and radiance in two perceptrons, as IDR (Yariv et al. 2020): starts as a sphere.

    The colour depends on position, normal, viewing direction and the geometry's features, so that lighting and gloss
    can be fitted.

    Args:
        width, depth: hidden layers of the geometry.
        frequencies: octaves of the positional encoding; more show finer detail, and need more views.
        features: number of features that the geometry passes to the colour.
        color_width, color_depth: hidden layers of the colour.
        view_frequencies: octaves of the encoding of the viewing direction.
        radius: of the sphere that it starts from [scene unit].
        sharpness: of the smooth ReLU in the geometry.
        bounds: see `Field`.
    """

    slope_points = 16384

    def __init__(
        self,
        width: int = 64,
        depth: int = 4,
        frequencies: int = 6,
        features: int = 16,
        color_width: int = 64,
        color_depth: int = 2,
        view_frequencies: int = 2,
        radius: float = 0.5,
        sharpness: float = 100.0,
        bounds: Bounds = 1.0,
    ):
        super().__init__(bounds)
        check_counts("sdf", features=features)
        check_counts("sdf", least=0, frequencies=frequencies, view_frequencies=view_frequencies)
        check_positive("sdf", radius=radius)
        self.encode, self.encode_view = PositionalEncoding(frequencies), PositionalEncoding(view_frequencies)
        activation = Squareplus(sharpness)
        self.distance = MLP(self.encode.width, width, depth, 1 + features, activation)
        self.squareplus_b = activation.b
        self.distance.start_as_sphere(radius)
        inputs = self.encode.width + 3 + self.encode_view.width + features
        self.radiance = MLP(inputs, color_width, color_depth, 3, torch.relu)
        self._center(radius)
        self.bound_slope()

    def value(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        return self.geometry(x)[0]

    def geometry(self, x: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n k"]]:
        out = self.distance(self.encode(x))
        return out[:, 0], out[:, 1:]

    def warp_value(self) -> WarpValue | None:
        if type(self.encode) is not PositionalEncoding or type(self.distance) is not MLP:  # a user may replace them
            return None
        if (weights := self.distance.for_kernels()) is None:
            return None
        made = _perceptron.fourier_perceptron(len(self.encode.scales), self.distance.layers[0].out_features)
        return WarpValue(made.value, made.Parameters, **weights)

    def color(
        self,
        x: Float[Tensor, "n 3"],
        normal: Float[Tensor, "n 3"],
        direction: Float[Tensor, "n 3"],
        feature: Float[Tensor, "n k"] | None,
    ) -> Float[Tensor, "n 3"]:
        if feature is None:
            raise ValueError("sdf: color needs the features that geometry returns")
        inputs = [self.encode(x), normal, self.encode_view(direction), feature]
        return torch.sigmoid(self.radiance(torch.cat(inputs, -1)))

    def as_layers(self) -> list[Layer]:
        """Return `value` as plain layers, for bounds that are proven (warpdvr/fields/layers.py)."""
        *hidden, last = self.distance.layers
        activation = Activation("squareplus", self.squareplus_b)
        steps = [step for layer in hidden for step in (Dense(layer.weight, layer.bias), activation)]
        return [Encode(self.encode.scales), *steps, Dense(last.weight[:1], last.bias[:1])]

    @torch.no_grad()
    def _center(self, radius: float) -> None:
        """Shift the value so that its mean on the sphere is 0; the initialisation gives the sphere only on average."""
        x = radius * nn.functional.normalize(torch.randn(4096, 3), dim=-1)
        self.distance.layers[-1].bias[0] -= self.value(x).mean()

"""A signed distance field in a perceptron."""

import torch
from torch import Tensor, nn

from warpdvr.fields.base import Bounds
from warpdvr.fields.layers import Activation, Dense, Encode, Layer
from warpdvr.fields.mlp import MLP, PositionalEncoding, Squareplus
from warpdvr.fields.slope import MeasuredSlope


class SDF(MeasuredSlope):
    """Distance and radiance in two perceptrons, as IDR (Yariv et al. 2020): starts as a sphere.

    The colour sees position, normal, viewing direction and the geometry's features: light and shine can be fitted.

    Args:
        width, depth: hidden layers of the geometry.
        frequencies: octaves of the positional encoding; more show finer detail, and need more views.
        features: how many numbers the geometry hands to the colour.
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
        self.encode, self.encode_view = PositionalEncoding(frequencies), PositionalEncoding(view_frequencies)
        bend = Squareplus(sharpness)
        self.distance, self.bend = MLP(self.encode.width, width, depth, 1 + features, bend), bend.b
        self.distance.start_as_sphere(radius)
        inputs = self.encode.width + 3 + self.encode_view.width + features
        self.radiance = MLP(inputs, color_width, color_depth, 3, torch.relu)
        self._center(radius)
        self.bound_slope()

    def value(self, x: Tensor) -> Tensor:
        return self.geometry(x)[0]

    def geometry(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out = self.distance(self.encode(x))
        return out[:, 0], out[:, 1:]

    def color(self, x: Tensor, normal: Tensor, direction: Tensor, feature: Tensor | None) -> Tensor:
        if feature is None:
            raise ValueError("sdf: color needs the features that geometry returns")
        inputs = [self.encode(x), normal, self.encode_view(direction), feature]
        return torch.sigmoid(self.radiance(torch.cat(inputs, -1)))

    def as_layers(self) -> list[Layer]:
        """Return what `value` does, for bounds that are proven (warpdvr/fields/layers.py)."""
        *hidden, last = self.distance.layers
        bend = Activation("squareplus", self.bend)
        steps = [step for layer in hidden for step in (Dense(layer.weight, layer.bias), bend)]
        return [Encode(self.encode.scales), *steps, Dense(last.weight[:1], last.bias[:1])]

    @torch.no_grad()
    def _center(self, radius: float) -> None:
        """Make the zero set the sphere that the initialisation only meets on average."""
        x = radius * nn.functional.normalize(torch.randn(4096, 3), dim=-1)
        self.distance.layers[-1].bias[0] -= self.value(x).mean()

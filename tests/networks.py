"""Networks that others trained or chose, as fields, and fields and view of the peers' measurements. Not shipped."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.rays import Rays, pixel_centres
from warpdvr.fields.base import Field
from warpdvr.fields.layers import Activation, Dense, Layer, Skip

TRAINED = {"bunny": 1.4, "fox": 3.0, "hammer": None, "birdcage_occ": None}
"""The networks of the data folder's weights/neural_implicit_queries, and an upper bound of |grad value| (measured by
sampling, with a margin); None where the values are no distances."""

SLOPE = {**TRAINED, "hammer": 2e4, "birdcage_occ": 1e4}
"""Twice the largest |grad value| at 200 000 random points where `TRAINED` has none: lets the reference skip samples."""


class Network(Field):
    """A network in the form that the data folder's README.md tells: NNNN.op.name, in order."""

    def __init__(self, path: Path, lipschitz: float | None):
        super().__init__(1.0)
        self.lipschitz = lipschitz
        self.steps: list[str] = []
        with np.load(path, allow_pickle=False) as file:
            for key in sorted(file.files):
                number, kind, name = key.split(".")
                if kind == "dense":
                    self.register_parameter(f"{name}{number}", nn.Parameter(torch.from_numpy(file[key])))
                if name != "b":
                    self.steps.append(f"{kind} {number}")

    def value(self, x: Tensor) -> Tensor:
        for step in self.steps:
            kind, number = step.split()
            if kind == "dense":
                x = x @ self.get_parameter(f"A{number}") + self.get_parameter(f"b{number}")
            elif kind == "squeeze_last":
                x = x[:, 0]
            else:
                x = {"relu": torch.relu, "elu": nn.functional.elu}[kind](x)
        return x

    def as_layers(self) -> list[Layer]:
        steps = [step.split() for step in self.steps if not step.startswith("squeeze_last")]
        return [
            Dense(self.get_parameter(f"A{i}").T, self.get_parameter(f"b{i}")) if kind == "dense" else Activation(kind)
            for kind, i in steps
        ]


def trained(data: Path, name: str) -> Field:
    """Return one of the networks in `TRAINED`; `data` is the folder of the data sets."""
    return Network(data / "weights" / "neural_implicit_queries" / f"{name}.npz", TRAINED[name])


class Perceptron(Field):
    """The field that DVR, DIST and IDR were measured on: `width` 512 and `depth` 8 there, a skip to the middle layer.

    `activation` is nn.Softplus(beta=100) for "mlp" and nn.ReLU() for "mlprelu". The random numbers are drawn in the
    order of that listing, so that the weights are the same.
    """

    def __init__(self, activation: Callable[..., Tensor], width: int = 512, depth: int = 8, lipschitz: float = 1.3):
        super().__init__(1.0)
        torch.manual_seed(0)
        self.activation, self.lipschitz, self.skip = activation, lipschitz, depth // 2
        sizes, radius = [3, *[width] * depth, 1], 0.4
        self.layers = nn.ModuleList()
        for i in range(depth + 1):
            layer = nn.Linear(sizes[i], sizes[i + 1] - (3 if i == self.skip - 1 else 0))
            nn.init.zeros_(layer.bias)
            if i == depth:
                nn.init.normal_(layer.weight, np.sqrt(np.pi / width), 1e-4)
                nn.init.constant_(layer.bias, -radius)
            else:
                nn.init.normal_(layer.weight, 0.0, np.sqrt(2 / layer.out_features))
            self.layers.append(layer)
        with torch.no_grad():
            mean = self.value(radius * nn.functional.normalize(torch.randn(4096, 3), dim=-1)).mean()
            self.get_parameter(f"layers.{depth}.bias").sub_(mean)

    def value(self, x: Tensor) -> Tensor:
        h = x
        for i, layer in enumerate(self.layers):
            if i == self.skip:
                h = torch.cat([h, x], -1) / np.sqrt(2)
            h = layer(h)
            if i < len(self.layers) - 1:
                h = self.activation(h)
        return h[..., 0]

    def as_layers(self) -> list[Layer]:
        bend = Activation("softplus", 100) if isinstance(self.activation, nn.Softplus) else Activation("relu")
        steps: list[Layer] = []
        for i, layer in enumerate(self.layers):
            skip = [Skip(0.5**0.5)] if i == self.skip else []
            steps += [*skip, Dense(layer.get_parameter("weight"), layer.get_parameter("bias")), bend]
        return steps[:-1]


def two(x: Tensor) -> Tensor:
    """Two balls, one of the analytic fields of that listing."""
    shift = torch.tensor([0.25, 0, 0.2]).to(x)
    return torch.minimum((x - shift).norm(dim=-1), (x + shift).norm(dim=-1)) - 0.2


def bumpy(x: Tensor) -> Tensor:
    """A ball with bumps, another one; its slope is at most 1.18."""
    wave = torch.sin(x * torch.tensor([20.0, 17, 23]).to(x)).prod(-1)
    return 0.7 * (x.norm(dim=-1) - 0.35 + 0.03 * wave)


def view(n: int, fov: float = 50.0, distance: float = 1.6) -> Rays:
    """Return the n x n rays of benchmarks/queries.md (azimuth 30, elevation 20 degrees), row-major, in float32."""
    az, el = np.deg2rad([30.0, 20.0])
    c = distance * np.array([np.cos(el) * np.cos(az), np.cos(el) * np.sin(az), np.sin(el)])
    z = -c / np.linalg.norm(c)
    x = np.cross(z, [0, 0, 1])
    x /= np.linalg.norm(x)
    u, v = np.meshgrid(np.arange(n) - (n - 1) / 2, np.arange(n) - (n - 1) / 2)
    f = 0.5 * n / np.tan(np.deg2rad(fov) / 2)
    d = np.stack([u / f, v / f, np.ones_like(u)], -1).reshape(-1, 3) @ np.stack([x, np.cross(z, x), z])
    d = torch.tensor(d / np.linalg.norm(d, axis=1, keepdims=True)).float()
    return Rays(torch.tensor(c).float().repeat(n * n, 1), d)


def views(size: int, count: int = 6, seed: int = 7) -> Rays:
    """Return the rays of square views from random places 1.7 to 3 from the origin."""
    generator = torch.Generator().manual_seed(seed)
    origin, direction = [], []
    for _ in range(count):
        eye = torch.nn.functional.normalize(torch.randn(3, generator=generator), dim=0)
        eye = eye * (1.7 + 1.3 * torch.rand(1, generator=generator))
        camera = Camera.look_at(eye=tuple(eye.tolist()), fov=45, width=size, height=size)
        rays = camera.rays(pixel_centres(size, size, camera.K.device))
        origin.append(rays.origin)
        direction.append(rays.direction)
    return Rays(torch.cat(origin).float().contiguous(), torch.cat(direction).float().contiguous())

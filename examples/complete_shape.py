"""Complete a shape: one depth image, and a decoder that knows what shapes of its kind are like.

A small DeepSDF decoder is trained in seconds on lamps, each a globe on a stem on a foot. Of a lamp that it has never
seen one depth image is taken, from above, in which the globe hides the stem and most of the foot. Only the latent code
is then fitted to it, and the decoder completes what the camera could not see. For a trained decoder of your own:
`warpdvr fit-code DECODER FOLDER --out RUN`. Written are, from the side: the mean shape that the fit begins with, the
completed one, and the truth.
"""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import PIL.Image
import torch
from torch import Tensor, nn

import warpdvr
from warpdvr.fields.deepsdf import DeepSDFDecoder
from warpdvr.fitting.recipe import RECIPES


def lamp(x: Tensor, size: Tensor) -> Tensor:
    """Return about the distance of points (n, 3) to lamps with radius of globe, radius of foot and height (n, 3)."""
    globe, foot, height = size.unbind(-1)
    ring = x[:, :2].norm(dim=-1)
    top = (torch.stack([ring, x[:, 2] - height], -1)).norm(dim=-1) - globe
    bottom = torch.maximum(ring - foot, (x[:, 2] + 0.6).abs() - 0.1)
    stem = torch.maximum(ring - 0.15, (x[:, 2] - (height - 0.6) / 2).abs() - (height + 0.6) / 2)
    return -0.04 * torch.logsumexp(torch.stack([top, bottom, stem]) / -0.04, 0)


def train(steps: int, shapes: int = 24) -> tuple[DeepSDFDecoder, Tensor]:
    """Return a decoder and the codes (shapes, 3) of the lamps that it learnt: an auto-decoder (Park et al. 2019)."""
    torch.manual_seed(0)
    low, high = torch.tensor([0.2, 0.2, 0.1]), torch.tensor([0.45, 0.5, 0.5])
    size = low + (high - low) * torch.rand(shapes, 3)
    decoder, codes = DeepSDFDecoder(3, (96, 96, 96, 1)), nn.Parameter(0.1 * torch.randn(shapes, 3))
    optimizer = torch.optim.Adam([{"params": decoder.parameters()}, {"params": [codes], "lr": 1e-2}], lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        index = torch.randint(shapes, (2048,))
        x = torch.tensor([0.8, 0.8, 1.0]) * (2 * torch.rand(len(index), 3) - 1)
        value, _ = decoder.geometry(x, decoder.prepared(codes), index)
        true = torch.tanh(lamp(x, size[index]))
        loss = ((value - true).abs() / (true.abs() + 0.05)).mean() + 1e-3 * codes.square().mean()  # near counts more
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return decoder, codes.detach()


def write(path: Path, decoder: DeepSDFDecoder, codes: Tensor) -> None:
    """Write a decoder as `make("deepsdf", decoder=path)` and `warpdvr fit-code` read it."""
    arrays = {"codes": codes.numpy()}
    for i, layer in enumerate(decoder.layers):
        arrays |= {f"w{i}": layer.weight.detach().numpy(), f"b{i}": layer.bias.detach().numpy()}
    np.savez(path, **arrays)


def depth_view(field: warpdvr.Field, camera: warpdvr.Camera) -> warpdvr.Views:
    """Return one view of a field: its depth, and a mask."""
    with torch.no_grad():
        image = warpdvr.render(field, camera)
    pictures = (torch.from_numpy(image.picture()),), (image.mask,), (camera,), ("above",), (0,), ()
    return warpdvr.Views(*pictures, warpdvr.SceneTransform.identity(), "Rendered.", depths=(image.depth,))


def overlap(one: warpdvr.Field, other: warpdvr.Field) -> float:
    """Return the volume that two shapes have in common, over that of both together."""
    axis = torch.linspace(-1, 1, 64)
    x = torch.cartesian_prod(axis, axis, axis)
    with torch.no_grad():
        a, b = one.value(x) < 0, other.value(x) < 0
    return float((a & b).sum() / (a | b).sum())


def main(out: Path, steps: int = 900, iterations: int = 150, size: int = 160) -> tuple[float, float]:
    """Write the picture to `out` and return the volume IoU with the truth, of the mean shape and of the completed."""
    truth = warpdvr.as_field(lambda x: lamp(x, torch.tensor([[0.42, 0.28, 0.42]])), bounds=1.0)
    above = warpdvr.Camera.look_at(eye=(0.6, -1.0, 2.2), width=64, height=64)
    side = warpdvr.Camera.look_at(eye=(0.8, -2.6, 0.3), width=size, height=size)
    with TemporaryDirectory() as folder:
        write(Path(folder) / "lamps.npz", *train(steps))
        field = warpdvr.make("deepsdf", decoder=f"{folder}/lamps.npz")
    shapes, mean = [], overlap(field, truth)
    with torch.no_grad():
        shapes.append(warpdvr.render(field, side))
    recipe = replace(RECIPES["code"], depth=1.0, on_surface=10.0)
    for _ in warpdvr.Fit(field, depth_view(truth, above), iterations=iterations, recipe=recipe):
        pass
    with torch.no_grad():
        shapes += [warpdvr.render(field, side), warpdvr.render(truth, side)]
    PIL.Image.fromarray(np.concatenate([image.picture("rgb") for image in shapes], axis=1)).save(out)
    return mean, overlap(field, truth)


if __name__ == "__main__":
    print("volume IoU: {:.3f} before, {:.3f} after".format(*main(Path("complete_shape.png"))))

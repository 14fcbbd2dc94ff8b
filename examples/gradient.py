"""Gradients of a picture: how depth changes with the radius of a ball, beside the closed form.

Depth, normals and colours of an image are differentiable with respect to the field's weights and the camera. The
derivative of every pixel with respect to one parameter is a picture of its own; it is taken here by two backward
passes, of which the second transposes the first. Written are the computed derivative, the closed form and their
difference, a thousand times enlarged: white is 0, blue is nearer, red would be farther.
"""

from pathlib import Path

import numpy as np
import PIL.Image
import torch
from torch import Tensor

import warpdvr

RADIUS, DISTANCE = 0.6, 2.0


def computed(camera: warpdvr.Camera) -> tuple[Tensor, Tensor]:
    """Return the derivative of depth with respect to the radius at every pixel (h, w), and the mask (h, w)."""
    ball = warpdvr.make("sphere", radius=RADIUS)
    image = warpdvr.render(ball, camera)
    depth = image.depth[image.mask]
    weight = torch.zeros_like(depth, requires_grad=True)
    (backward,) = torch.autograd.grad(depth, ball.radius, weight, create_graph=True)
    (forward,) = torch.autograd.grad(backward, weight)
    return torch.zeros_like(image.depth).masked_scatter(image.mask, forward).detach(), image.mask


def closed_form(camera: warpdvr.Camera) -> Tensor:
    """Return the same by hand (h, w): t = b - sqrt(b² - D² + r²) along a ray, so dt/dr = -r / sqrt(b² - D² + r²)."""
    rays = camera.rays()
    b = -(rays.origin * rays.direction).sum(-1).double()
    root = (b.square() - DISTANCE**2 + RADIUS**2).clamp_min(1e-12).sqrt()
    along = (rays.direction @ camera.pose[:3, 2].float()).double()  # from ray length to depth along the camera's axis
    return (-RADIUS / root * along).view(camera.height, camera.width).float()


def main(out: Path, size: int = 200) -> float:
    """Write the picture to `out` and return the largest relative error of the derivative."""
    camera = warpdvr.Camera.look_at(eye=(0, -DISTANCE, 0), width=size, height=size)
    ours, mask = computed(camera)
    exact = torch.where(mask, closed_form(camera), 0.0)
    shown = torch.cat([ours, exact, 1000 * (ours - exact)], dim=1)
    PIL.Image.fromarray(two_sided(shown)).save(out)
    return float(((ours - exact) / exact)[mask].abs().max())


def two_sided(x: Tensor, limit: float = 3.0) -> np.ndarray:
    """Return numbers as 8-bit colours: white is 0, blue is negative, red is positive."""
    red = (1 + x / limit).clamp(0, 1)
    blue = (1 - x / limit).clamp(0, 1)
    return (255 * torch.stack([red, torch.minimum(red, blue), blue], -1)).to(torch.uint8).numpy()


if __name__ == "__main__":
    print(f"largest relative error: {main(Path('gradient.png')):.1e}")

"""A field of somebody else, from a picture to a window: this is all that it takes."""

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn

import warpdvr
from warpdvr.datasets.synthetic import mesh_views
from warpdvr.viewer.window import view


class Egg(nn.Module):
    """A red ball, longer upwards; it knows nothing of warpdvr."""

    bounds, lipschitz, rates = 1.0, 1.0, {"": 1e-2}

    def __init__(self):
        super().__init__()
        self.radius = nn.Parameter(torch.tensor(0.5))

    def value(self, x):
        return (x * x.new_tensor([1.0, 1.0, 0.8])).norm(dim=-1) - self.radius

    def color(self, x, normal, direction, feature):
        return x.new_tensor([1.0, 0.0, 0.0]).expand_as(x)


def test_render_gradient_fit_mesh_and_viewer(tmp_path):
    image = warpdvr.render(egg := Egg(), warpdvr.Camera.look_at((0, -2, 0), width=33, height=33))
    image.depth[16, 16].backward()
    assert image.depth[16, 16].item() == pytest.approx(1.5, abs=1e-4) and image.rgb[16, 16].tolist() == [1, 0, 0]
    assert egg.radius.grad is not None and egg.radius.grad.item() == pytest.approx(-1, abs=1e-4)
    warpdvr.extract(egg, resolution=32).save(tmp_path / "egg.ply")
    views = mesh_views(tmp_path / "egg.ply", count=6, test=0, size=48, up="z")  # 0.9 from its middle to its top
    *_, _ = warpdvr.Fit(egg, views, iterations=100)
    assert egg.radius.item() == pytest.approx(0.8 * 0.9, abs=2e-2)
    view(egg, screenshot=tmp_path / "egg.png")
    assert (np.asarray(PIL.Image.open(tmp_path / "egg.png"))[..., :3] == [255, 0, 0]).all(-1).mean() > 0.1

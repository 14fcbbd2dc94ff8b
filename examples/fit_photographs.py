"""Fit a field to photographs: a hash grid learns the shape and the colours of a bunny from posed pictures and masks.

The photographs are rendered from a mesh that comes with Warp, so that no data set is needed; for your own, take
`views = warpdvr.load("folder")`. Written are a photograph that the fit has not seen, the same view of the fitted field,
and its normals. More iterations make it sharper: `make demo` takes 1200.
"""

from pathlib import Path

import numpy as np
import PIL.Image
import torch

import warpdvr
from warpdvr.datasets.synthetic import mesh_views
from warpdvr.evaluation.images import Scores, evaluate


def main(out: Path, iterations: int = 200, size: int = 96) -> Scores:
    """Write the picture to `out` and return the scores on held-out views."""
    torch.manual_seed(0)
    views = mesh_views("warp:bunny", count=24, test=4, size=size, fov=34)
    field = warpdvr.make("hashgrid")
    for step in warpdvr.Fit(field, views, iterations=iterations):
        if step.iteration % 50 == 0:
            print(f"{step.iteration:4d} steps, {step.seconds:.1f} s, loss {step.losses['total']:.3f}")

    unseen = views.test[0]
    with torch.no_grad():
        image = warpdvr.render(field, views.cameras[unseen])
    photograph = torch.where(views.masks[unseen][..., None], views.images[unseen], 255).numpy()
    shown = np.concatenate([photograph, image.picture("rgb"), image.picture("normal")], axis=1)
    PIL.Image.fromarray(shown).resize((6 * size, 2 * size)).save(out)
    return evaluate(field, views)


if __name__ == "__main__":
    print(main(Path("fit_photographs.png")))

"""From a single picture to a shape: a network learns a category from posed pictures of its objects.

The category is one of toy cars of different proportions, made here from boxes; only pictures and masks of them are
learnt from, no shapes. Then the network is shown one picture of a car that it has never seen. On the command line this
is `warpdvr render-category`, `train-category` and `reconstruct-image`. Written are, for two held-out cars: the picture,
what was made of it as seen from there and from the other side, and the truth from the other side. Half a minute of
training shows proportions; details take longer.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import PIL.Image
import torch

import warpdvr
from warpdvr.singleview.category import read
from warpdvr.singleview.preprocess import first_picture
from warpdvr.singleview.reconstructor import Reconstructor
from warpdvr.singleview.render_category import photograph
from warpdvr.singleview.training import Trainer, TrainingConfig


def car(random: torch.Generator) -> warpdvr.Mesh:
    """Return a body with a cabin on top of it, +y up, +x ahead."""
    length, height, cabin, place = torch.rand(4, generator=random).tolist()
    body = (1.0 + 0.8 * length, 0.25 + 0.3 * height, 0.7)
    top = (0.35 + 0.4 * cabin, 0.35, 0.55)
    parts = [
        warpdvr.make("box", size=body),
        warpdvr.make("box", size=top, center=(0.4 * (place - 0.5) * body[0], 0.5 * body[1] + 0.12, 0.0)),
    ]
    return warpdvr.extract(warpdvr.make("smooth-union", parts=parts, blend=0.02), resolution=40)


def main(out: Path, seconds: float = 20.0, objects: int = 20, size: int = 48) -> list[float]:
    """Write the picture to `out`; return the IoU of each held-out car's outline from the other side with the truth."""
    random = torch.Generator().manual_seed(0)
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "meshes").mkdir()
        for i in range(objects):
            car(random).save(folder / f"meshes/car_{i:02d}.ply")
        photograph(folder / "meshes", folder / "pictures", views=8, size=size, samples=2)
        category = read(folder / "pictures")

    torch.manual_seed(0)
    model = Reconstructor(code=16, encoder=8, width=32, blocks=3)
    config = TrainingConfig(objects=8, rays=64, points=256, pictures=16)
    for _ in Trainer(model, category, minutes=seconds / 60, config=config):
        pass

    rows, scores = [], []
    for i in category.test[:2]:
        views = category.views[i]
        seen, unseen = views.train[0], views.train[2]
        with torch.no_grad():
            shape = model.eval()(first_picture(views).small)
            images = [warpdvr.render(shape, views.cameras[j]) for j in (seen, unseen)]
        truth = [torch.where(views.masks[j][..., None], views.images[j], 255).numpy() for j in (seen, unseen)]
        rows.append(np.concatenate([truth[0], *(image.picture() for image in images), truth[1]], axis=1))
        mask = images[1].mask, views.masks[unseen]
        scores.append(float((mask[0] & mask[1]).sum() / (mask[0] | mask[1]).sum()))
    PIL.Image.fromarray(np.concatenate(rows)).resize((12 * size, 6 * size)).save(out)
    return scores


if __name__ == "__main__":
    print("IoU of outlines from unseen sides:", main(Path("single_picture.png")))

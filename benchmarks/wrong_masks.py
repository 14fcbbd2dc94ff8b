"""Copy photographs with alpha and make their masks wrong in places: holes in the object, and blobs beside it.

    python benchmarks/wrong_masks.py renders/spot OUT [--share 0.05] [--radius 3 14] [--seed 0]
    warpdvr fit OUT --minutes 5 --out RUN

Discs are drawn in each training picture until the holes cover half of the share of the object, and the blobs as much
beside it, at most 40 pixels from its box. The colours of blobs are random, one for each; those in holes stay.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

AROUND = 40
"""How far from the box of the object blobs may lie [pixel]."""


def with_faults(
    picture: NDArray[np.uint8], share: float, radius: tuple[int, int], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], int]:
    """Return a picture, (h, w, 4), with other alpha in discs, and how many pixels that are."""
    picture, mask = picture.copy(), picture[..., 3] > 127
    y, x = np.indices(mask.shape)
    rows, columns = np.nonzero(mask)
    box = np.zeros_like(mask)
    box[
        max(rows.min() - AROUND, 0) : rows.max() + AROUND + 1,
        max(columns.min() - AROUND, 0) : columns.max() + AROUND + 1,
    ] = True
    changed = np.zeros_like(mask)
    for was, places in ((True, np.argwhere(mask)), (False, np.argwhere(box & ~mask))):
        fault = np.zeros_like(mask)
        while fault.sum() < share / 2 * mask.sum():
            row, column = places[rng.integers(len(places))]
            disc = ((y - row) ** 2 + (x - column) ** 2 <= rng.integers(radius[0], radius[1] + 1) ** 2) & (mask == was)
            fault |= disc
            picture[disc, 3] = 0 if was else 255
            if not was:
                picture[disc, :3] = rng.integers(0, 256, 3)
        changed |= fault
    return picture, int(changed.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--radius", type=int, nargs=2, default=(3, 14))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    shutil.copytree(options.folder, options.out)
    rng = np.random.default_rng(options.seed)
    faults = objects = 0
    for path in sorted((options.out / "train").glob("*.png")):
        picture = np.array(PIL.Image.open(path))
        objects += int((picture[..., 3] > 127).sum())
        picture, count = with_faults(picture, options.share, options.radius, rng)
        PIL.Image.fromarray(picture).save(path)
        faults += count
    print(f"{options.out}: {faults} pixels of masks are wrong, {100 * faults / objects:.1f} % of those of the object")


if __name__ == "__main__":
    main()

"""Masks that grow and masks that overlap: against SciPy and sets of pixels."""

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation

from warpdvr.datasets.morphology import dilate, outline_band
from warpdvr.evaluation.overlap import iou


@pytest.mark.parametrize("radius", [1, 3, 8])
@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (50, 33)])
def test_a_mask_grows_as_scipy_says(radius: int, shape: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random(shape) > 0.97
    square = np.ones((2 * radius + 1, 2 * radius + 1))
    grown, shrunk = binary_dilation(mask, square), ~binary_dilation(~mask, square)
    assert np.array_equal(dilate(torch.from_numpy(mask), radius).numpy(), grown)
    assert np.array_equal(outline_band(torch.from_numpy(mask), radius).numpy(), grown & ~shrunk)


def test_overlaps_are_those_of_sets() -> None:
    a, b = (torch.from_numpy(np.random.default_rng(i).random((4, 9, 7)) > 0.6) for i in (0, 1))
    for one, other, found in zip(a, b, iou(a, b), strict=True):
        here, there = ({tuple(p) for p in mask.nonzero().tolist()} for mask in (one, other))
        assert float(found) == pytest.approx(len(here & there) / len(here | there))
    assert float(iou(a[0], a[0])) == 1 and float(iou(a[0], ~a[0])) == 0
    assert float(iou(a[0] & False, b[0] & False)) == 0


def test_coverages_overlap_as_finer_masks_do() -> None:
    """A pixel of which 3 and 1 of 4 parts are covered, one inside the other, counts as those parts."""
    fine = torch.tensor([[1.0, 1, 1, 0, 1, 1, 0, 0]]), torch.tensor([[1.0, 0, 0, 0, 1, 1, 1, 0]])
    coarse = [mask.view(1, 2, 4).mean(-1) for mask in fine]
    assert float(iou(*coarse)) == pytest.approx(float(iou(*(mask.bool() for mask in fine))))

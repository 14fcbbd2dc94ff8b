"""Masks that are wrong in places: what all views form together tells where, and only there."""

from dataclasses import replace

import pytest
import torch
from test_volume_start import empty_views, opaque

from warpdvr.datasets.pixels import BACKGROUND, OBJECT, UNKNOWN, Pixels
from warpdvr.fitting.depth_fusion import fuse_depths
from warpdvr.fitting.mask_trust import MaskTrust, distrusted_in, trust_picture

RADIUS, SIZE, DISTANCE = 0.6, 96, 4.0


@pytest.fixture(scope="module")
def voxels(device):
    """Opaque voxels in a ball."""
    return opaque(torch.tensor([[-1.0] * 3, [1.0] * 3], device=device), lambda x: x.norm(dim=-1) - RADIUS)


@pytest.fixture(scope="module")
def views():
    """Views whose masks are the exact silhouettes of the ball: rays that pass its centre within the radius."""
    plain = empty_views(n=6, size=SIZE, distance=DISTANCE)
    masks = []
    for camera in plain.cameras:
        rays = camera.rays(dtype=torch.float64)
        miss = torch.linalg.cross(rays.origin, rays.direction).norm(dim=-1)
        masks.append((miss < RADIUS).view(SIZE, SIZE))
    return replace(plain, masks=tuple(masks))


def with_faults(views):
    """The same with a hole in the object of the first view and a blob beside it in the second; and the faults."""
    masks, wrong = [mask.clone() for mask in views.masks], [torch.zeros_like(mask) for mask in views.masks]
    wrong[0][44:54, 44:54] = True
    wrong[1][4:16, 4:16] = True
    masks = [mask ^ fault for mask, fault in zip(masks, wrong, strict=True)]
    return replace(views, masks=tuple(masks)), torch.stack(wrong)


def test_right_masks_are_trusted(voxels, views):
    assert not fuse_depths(voxels, views).distrusted.any()


def test_holes_and_blobs_are_found_and_little_else(voxels, views):
    faulty, wrong = with_faults(views)
    found = fuse_depths(voxels, faulty).distrusted.view(wrong.shape)
    assert found[wrong].float().mean() == 1.0
    assert int((found & ~wrong).sum()) <= 2 * (14**2 - 10**2 + 16**2 - 12**2)  # they are grown by two pixels
    assert not found[2:].any()


def test_a_line_of_wrong_pixels_may_be_the_fault_of_the_volume(voxels, views):
    mask = views.masks[0].clone()
    mask[40:44, 36:60] = False  # thinner than 2 * RADIUS + 1
    assert not fuse_depths(voxels, replace(views, masks=(mask, *views.masks[1:]))).distrusted.any()


def test_a_view_without_a_mask_has_nothing_to_distrust(voxels, views):
    assert not fuse_depths(voxels, replace(views, masks=(None, *views.masks[1:]))).distrusted.any()


def test_depths_are_fused_as_if_these_masks_were_right(voxels, views):
    """Where a mask is distrusted, the voxels decide: a ring around a hole is no background either."""
    faulty, _ = with_faults(views)
    assert torch.equal(fuse_depths(voxels, faulty).lattice, fuse_depths(voxels, views).lattice)


def test_what_is_withdrawn_is_unknown_and_survives_a_checkpoint(views):
    pixels, wrong = Pixels(views), torch.zeros(6 * SIZE * SIZE, dtype=torch.bool)
    wrong[100:117] = True
    before = pixels.label.clone()
    trust = MaskTrust(pixels)
    assert trust.state() == {}
    trust.withdraw(wrong)
    assert (pixels.label[wrong] == UNKNOWN).all() and torch.equal(pixels.label[~wrong], before[~wrong])
    assert {BACKGROUND, OBJECT} <= set(pixels.label.tolist())
    again = MaskTrust(Pixels(views))
    again.resume(trust.state())
    assert torch.equal(again.distrusted, wrong) and torch.equal(again.pixels.label, pixels.label)
    assert torch.equal(distrusted_in(trust.state(), views), wrong)
    assert not distrusted_in({}, views).any()
    with pytest.raises(ValueError, match="other photographs"):
        distrusted_in(trust.state(), replace(views, train=(0, 1), test=(2, 3, 4, 5)))


def test_the_picture_shows_the_worst_view_in_red_and_blue(views):
    faulty, wrong = with_faults(views)
    picture = trust_picture(faulty, wrong.reshape(-1)).float()
    seen = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    seen[4:16, 4:16] = True  # the blob is larger than the hole
    assert (picture[seen][:, 2] > picture[seen][:, 0]).all()  # blue: the mask has the object
    assert (picture[~seen] == 0).all()
    only_hole = wrong.clone()
    only_hole[1] = False
    picture = trust_picture(faulty, only_hole.reshape(-1)).float()
    assert (picture[44:54, 44:54, 0] > picture[44:54, 44:54, 2]).all()

"""The pool of pixels: each ray, colour and label must belong to one pixel of one training view."""

from dataclasses import replace

import pytest
import torch

from warpdvr.camera import Camera
from warpdvr.pixels import BACKGROUND, OBJECT, UNKNOWN, Pixels
from warpdvr.views import SceneTransform, Views

SIZES = (40, 30), (24, 36), (40, 30), (31, 17)
HELD_OUT, WITHOUT_MASK = 1, 2


def views() -> Views:
    """Four views of other sizes; every pixel has a colour of its own, (column, row, 10 * view)."""
    images, masks, cameras = [], [], []
    for i, (w, h) in enumerate(SIZES):
        v, u = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        images.append(torch.stack([u, v, torch.full_like(u, 10 * i)], -1).to(torch.uint8))
        masks.append(None if i == WITHOUT_MASK else (u - w // 2).abs() + (v - h // 2).abs() < 5)
        eye = torch.tensor([3 - i, 2 * i - 1, 1 + i]).double()
        cameras.append(Camera.look_at(eye, fov=35 + i, width=w, height=h))
    train = tuple(i for i in range(4) if i != HELD_OUT)
    names = tuple("abcd")
    return Views(
        tuple(images), tuple(masks), tuple(cameras), names, train, (HELD_OUT,), SceneTransform.identity(), "four"
    )


def draw(given: Views, n: int = 2000, seed: int = 0, device: torch.device | str = "cpu"):
    return Pixels(given, device).draw(n, torch.Generator().manual_seed(seed))


def places(batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return column and row (n, 2), and view (n,), which the colours tell."""
    told = (batch.color.cpu() * 255).round().long()
    return told[:, :2], told[:, 2] // 10


def test_rays_go_through_the_centres_of_their_pixels(device):
    given = views()
    batch = draw(given, device=device)
    place, view = places(batch)
    assert torch.equal(view.unique(), torch.tensor(given.train))  # all of them, and no other
    for i in given.train:
        mine = (view == i).to(device)
        rays = batch.rays[mine]
        assert (rays.origin.cpu() - given.cameras[i].centre.float()).norm(dim=1).max() < 1e-5
        for t in (0.5, 4.0):
            uv, z = given.cameras[i].project(rays.at(torch.full_like(rays.origin[:, 0], t)).cpu())
            assert (uv - (place[view == i] + 0.5)).abs().max() < 1e-3
            assert (z > 0).all()


def test_labels_are_those_of_the_masks(device):
    given = views()
    batch = draw(given, device=device)
    place, view = places(batch)
    label = batch.label.cpu()
    for i in given.train:
        mask, mine = given.masks[i], view == i
        if mask is None:
            assert (label[mine] == UNKNOWN).all()
            continue
        u, v = place[mine].unbind(1)
        assert torch.equal(label[mine], torch.where(mask[v, u], OBJECT, BACKGROUND).to(label))
    assert set(label.tolist()) == {UNKNOWN, BACKGROUND, OBJECT}


def test_half_lies_on_objects_and_two_fifths_next_to_them():
    given = views()
    n = 3000
    batch = draw(given, n)
    place, view = places(batch)
    assert (batch.label[: n // 2] == OBJECT).all()
    near = slice(n // 2, n // 2 + 2 * n // 5)
    assert (batch.label[near] == BACKGROUND).all()
    size = torch.tensor(SIZES)[view[near]]
    off = (place[near] - size // 2).abs().sum(1)
    assert (off >= 5).all() and (off <= 5 + 2 * (size[:, 0] // 20 + 2)).all()
    rest = slice(n // 2 + 2 * n // 5, n)
    known = torch.tensor([SIZES[i][0] * SIZES[i][1] for i in given.train]).float()
    for i, share in zip(given.train, known / known.sum(), strict=True):
        assert (view[rest] == i).float().mean() == pytest.approx(float(share), abs=0.1)
    corner = (place[rest] < 3).all(1)
    assert corner.any()  # anywhere means anywhere


def test_the_seed_decides():
    given = views()
    a, b, c = draw(given, seed=1), draw(given, seed=1), draw(given, seed=2)
    assert torch.equal(a.rays.direction, b.rays.direction) and torch.equal(a.color, b.color)
    assert not torch.equal(a.color, c.color)


@pytest.mark.parametrize("fill", [False, True])
def test_masks_that_are_all_object_or_all_background(fill):
    given = views()
    masks = tuple(torch.full(image.shape[:2], fill) for image in given.images)
    batch = draw(replace(given, masks=masks), 100)
    assert len(batch.label) == 100 and (batch.label == (OBJECT if fill else BACKGROUND)).all()


def test_without_a_mask_on_a_training_view_there_is_no_fit():
    given = views()
    only_held_out = tuple(mask if i == HELD_OUT else None for i, mask in enumerate(given.masks))
    with pytest.raises(ValueError, match="none of the training views has a mask"):
        Pixels(replace(given, masks=only_held_out))

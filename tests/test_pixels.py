"""The pool of pixels: each ray, colour and label must belong to one pixel of one training view."""

from dataclasses import replace

import pytest
import torch

from warpdvr.camera import Camera
from warpdvr.pixels import BACKGROUND, OBJECT, RIM, UNKNOWN, Pixels
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


def test_shares_lie_near_objects_at_outlines_and_anywhere():
    given = views()
    n = 6000
    batch = draw(given, n)
    place, view = places(batch)
    parts = [slice(0, 7 * n // 10), slice(7 * n // 10, 9 * n // 10), slice(9 * n // 10, n)]
    regions: list[list[tuple[int, int, int]]] = [[], []]
    for i in given.train:
        mask = given.masks[i]
        if mask is None:
            assert not (view[: 9 * n // 10] == i).any()
            continue
        # these images are so small that a block is a pixel; near are 3 of them
        wanted = [near(mask, True, 3), near(mask, True, RIM) & near(mask, False, RIM)]
        for part, region, held in zip(parts[:2], wanted, regions, strict=True):
            drawn = torch.zeros_like(mask)
            mine = place[part][view[part] == i]
            drawn[mine[:, 1], mine[:, 0]] = True
            assert not (drawn & ~region).any()
            held.append((int(drawn.sum()), int(region.sum()), len(mine)))
    for held in regions:  # uniformly, over all views
        _, sizes, counts = zip(*held, strict=True)
        for size, count in zip(sizes, counts, strict=True):
            assert count / sum(counts) == pytest.approx(size / sum(sizes), abs=0.06)
        assert all(distinct > 0.8 * size for distinct, size, _ in held)
    rest = parts[2]
    known = torch.tensor([SIZES[i][0] * SIZES[i][1] for i in given.train]).float()
    for i, share in zip(given.train, known / known.sum(), strict=True):
        assert (view[rest] == i).float().mean() == pytest.approx(float(share), abs=0.08)
    assert (place[rest] < 3).all(1).any()  # anywhere means anywhere


def near(mask: torch.Tensor, which: bool, distance: int) -> torch.Tensor:
    """Return where a pixel with `mask == which` lies within a square of `distance` around."""
    v, u = torch.nonzero(mask == which).T
    rows, columns = (torch.arange(n) for n in mask.shape)
    high, wide = ((a[:, None] - b).abs() <= distance for a, b in ((rows, v), (columns, u)))
    return (high.float() @ wide.float().T) > 0


def one(mask: torch.Tensor) -> Views:
    """A single view, every pixel in the colours of its place."""
    h, w = mask.shape
    v, u = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    image = torch.stack([u, v, torch.zeros_like(u)], -1).to(torch.uint8)
    camera = Camera.look_at((3.0, 0.0, 1.0), width=w, height=h)
    return Views((image,), (mask,), (camera,), ("a",), (0,), (), SceneTransform.identity(), "one")


def test_in_a_large_image_near_is_a_twentieth_of_its_width():
    mask = torch.zeros(90, 200, dtype=torch.bool)
    mask[40:50, 101:108] = True
    n = 30_000
    place, _ = places(draw(one(mask), n))
    drawn = torch.zeros_like(mask)
    u, v = place[: 7 * n // 10].T
    drawn[v, u] = True
    block = 200 // 60
    assert drawn[near(mask, True, 3 * block)].all() and not drawn[~near(mask, True, 4 * block - 1)].any()


@pytest.mark.parametrize("shape", ["edge", "disc"])
def test_both_sides_of_an_outline_are_drawn_equally_often(shape):
    """Per pixel: else it would pay to move the outline."""
    v, u = torch.meshgrid(torch.arange(60), torch.arange(80), indexing="ij")
    mask = u < 41 if shape == "edge" else (u - 39.5).square() + (v - 29.5).square() < 15.3**2
    given = one(mask)
    n = 200_000
    place, _ = places(draw(given, n))
    times = torch.zeros(mask.shape).index_put_((place[:, 1], place[:, 0]), torch.ones(n), accumulate=True)
    for distance in (1, 2, 3):
        rings = [near(mask, not side, distance) & (mask == side) for side in (True, False)]
        inside, outside = (float(times[ring].mean()) for ring in rings)
        noise = sum(inside / int(ring.sum()) for ring in rings) ** 0.5
        assert abs(inside - outside) < 5 * noise
        assert inside > 5 * times[~near(mask, True, 12)].mean()


def test_an_outline_is_drawn_more_often_than_what_it_encloses():
    v, u = torch.meshgrid(torch.arange(60), torch.arange(80), indexing="ij")
    mask = (u - 40).abs().maximum((v - 30).abs()) < 20
    place, _ = places(draw(one(mask), 100_000))
    times = torch.zeros(mask.shape).index_put_((place[:, 1], place[:, 0]), torch.ones(len(place)), accumulate=True)
    rim = near(mask, True, RIM) & near(mask, False, RIM)
    inner = mask & ~rim
    share = 0.2 / int(rim.sum()) / (0.7 / int(near(mask, True, 3).sum()) + 0.1 / mask.numel())
    assert times[rim & mask].mean() / times[inner].mean() == pytest.approx(1 + share, rel=0.03)


@pytest.mark.parametrize("index", [slice(1, None, 3), slice(0, 0), [4, 2, 2], "even"])
def test_a_part_of_a_batch_keeps_what_belongs_together(index):
    batch = draw(views(), 20)
    index = torch.arange(20) % 2 == 0 if index == "even" else index
    part, i = batch[index], torch.arange(20)[index]
    assert len(part.rays) == len(part.color) == len(part.label) == len(i)
    for k, j in enumerate(i.tolist()):
        assert torch.equal(part.rays.origin[k], batch.rays.origin[j])
        assert torch.equal(part.rays.direction[k], batch.rays.direction[j])
        assert torch.equal(part.color[k], batch.color[j]) and part.label[k] == batch.label[j]


@pytest.mark.parametrize("n", [0, 1, 3])
def test_few_pixels(n):
    batch = draw(views(), n)
    assert len(batch.rays) == len(batch.color) == len(batch.label) == n


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

"""The pool of pixels: each ray, colour and label must belong to one pixel of one training view."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets.pixels import BACKGROUND, OBJECT, RIM, UNKNOWN, Pixels
from warpdvr.datasets.views import SparseDepth, Views

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


def draw(given: Views, n: int = 2000, seed: int = 0, device: torch.device | str = "cpu", *, outlines: bool = True):
    return Pixels(given, device).draw(n, torch.Generator().manual_seed(seed), outlines=outlines)


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


@pytest.mark.parametrize("outlines", [True, False])
def test_an_outline_is_drawn_more_often_than_what_it_encloses_if_asked_for(outlines):
    v, u = torch.meshgrid(torch.arange(60), torch.arange(80), indexing="ij")
    mask = (u - 40).abs().maximum((v - 30).abs()) < 20
    place, _ = places(draw(one(mask), 100_000, outlines=outlines))
    times = torch.zeros(mask.shape).index_put_((place[:, 1], place[:, 0]), torch.ones(len(place)), accumulate=True)
    rim = near(mask, True, RIM) & near(mask, False, RIM)
    inner = mask & ~rim
    share = outlines * 0.2 / int(rim.sum()) / (0.7 / int(near(mask, True, 3).sum()) + 0.1 / mask.numel())
    assert times[rim & mask].mean() / times[inner].mean() == pytest.approx(1 + share, rel=0.03)


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


def through(batch, given: Views, view: torch.Tensor, pixel: torch.Tensor) -> None:
    """Check that rays go through positions (n, 2) of the images of views (n,), and that `forward` is their depth."""
    assert len(batch.rays) == len(view)
    for i in view.unique().tolist():
        camera, mine = given.cameras[i], view == i
        for t in (0.5, 4.0):
            uv, z = camera.project(
                batch.rays.at(torch.full_like(batch.forward, t))[mine.to(batch.forward.device)].cpu()
            )
            assert (uv - pixel[mine]).abs().max() < 1e-3
            assert torch.allclose(z.float(), t * batch.forward.cpu()[mine], rtol=1e-5)


def deep(given: Views) -> Views:
    """Depth maps with gaps and a depth of its own for each pixel; the last view has none."""
    depths = []
    for i, (w, h) in enumerate(SIZES):
        z = 1 + i + torch.arange(h * w).view(h, w) / 4096
        depths.append(None if i == 3 else torch.where(torch.arange(h * w).view(h, w) % 5 == 2, torch.nan, z))
    return replace(given, depths=tuple(depths))


def depth_of(given: Views, view: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Return what the depth maps have at pixels."""
    maps = [given.depths[i] for i in view.tolist()]
    return torch.stack(
        [torch.tensor(torch.nan) if z is None else z[v, u] for z, (u, v) in zip(maps, place, strict=True)]
    )


@pytest.mark.parametrize("patches", [False, True])
def test_depths_are_those_of_the_pixels(device, patches):
    given = deep(views())
    batch = Pixels(given, device).draw(800, torch.Generator().manual_seed(0), patches=patches)
    place, view = places(batch)
    expected = depth_of(given, view, place)
    assert torch.equal(batch.depth.cpu().nan_to_num(-1), expected.nan_to_num(-1))
    assert batch.depth.dtype == torch.float32
    assert 0 < expected[view == 0].isnan().float().mean() < 0.5 and expected[view == 3].isnan().all()
    assert not expected[view == 2].isnan().all()


@pytest.mark.parametrize("depths", [(), (None,) * 4, "held out"])
def test_without_depths_none_is_known(depths):
    given = deep(views())
    if depths == "held out":
        depths = tuple(z if i == HELD_OUT else None for i, z in enumerate(given.depths))
    pixels = Pixels(replace(given, depths=depths))
    assert pixels.depth is None and pixels.sparse is None
    assert pixels.draw(50, torch.Generator()).depth.isnan().all()


def test_forward_is_the_depth_of_a_unit_of_ray_length(device):
    given = views()
    batch = draw(given, 500, device=device)
    place, view = places(batch)
    through(batch, given, view, place + 0.5)
    for i in given.train:
        mine = (view == i).to(device)
        axis = batch.rays.direction[mine].cpu() @ given.cameras[i].pose[:3, 2].float()
        assert torch.allclose(batch.forward[mine].cpu(), axis, atol=1e-6)


@pytest.mark.parametrize("n", [4, 10, 2000])
def test_patches_are_blocks_of_four_pixels(device, n):
    given = views()
    batch = Pixels(given, device).draw(n, torch.Generator().manual_seed(0), patches=True)
    place, view = places(batch)
    assert len(place) == 4 * (n // 4)
    through(batch, given, view, place + 0.5)
    block, view = place.view(-1, 4, 2), view.view(-1, 4)
    assert (view == view[:, :1]).all()
    assert (block - block[:, :1] == torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]])).all()  # rows one after the other
    for i in view[:, 0].unique().tolist():
        mask, (u, v) = given.masks[i], place[view.view(-1) == i].T
        label = batch.label.cpu()[view.view(-1) == i]
        assert torch.equal(label.bool(), mask[v, u]) if mask is not None else (label == UNKNOWN).all()


def test_patches_at_the_border_stay_in_the_image():
    mask = torch.zeros(13, 17, dtype=torch.bool)
    mask[-1, -1] = mask[0, 0] = True
    given = one(mask)
    batch = Pixels(given).draw(4000, torch.Generator().manual_seed(0), patches=True)
    place, view = places(batch)
    through(batch, given, view, place + 0.5)
    block = place.view(-1, 4, 2)
    assert (block[:, 3] == block[:, 0] + 1).all()
    assert torch.equal(block.amax((0, 1)), torch.tensor([16, 12])) and (block.amin((0, 1)) == 0).all()
    assert int((batch.label == OBJECT).sum()) > 100 and torch.equal(batch.label.bool(), mask[place[:, 1], place[:, 0]])


def dotted(given: Views) -> Views:
    """Points of known depth, each depth once; for the second, held-out view too, and none for the third."""
    points: list[SparseDepth | None] = []
    for i, (w, h) in enumerate(SIZES):
        part = torch.rand(20, 2, generator=torch.Generator().manual_seed(i))
        part[0] = torch.tensor([1 / (4 * w), 1 - 1 / (4 * h)])  # in the pixel of a corner
        points.append(
            None if i == 2 else SparseDepth(part * torch.tensor([w, h]), 1 + 0.1 * i + torch.arange(20) / 256)
        )
    return replace(given, points=tuple(points))


@pytest.mark.parametrize(("patches", "maps"), [(False, False), (True, False), (False, True)])
def test_an_eighth_more_rays_go_through_points_of_known_depth(device, patches, maps):
    given = dotted(deep(views()) if maps else views())
    n = 4000
    batch = Pixels(given, device).draw(n, torch.Generator().manual_seed(0), patches=patches)
    assert len(batch.rays) == len(batch.color) == len(batch.label) == len(batch.depth) == n + n // 8
    place, view = places(batch)
    assert torch.equal(batch.depth[:n].isnan(), torch.ones(n, dtype=torch.bool).to(device)) or maps
    if maps:
        assert torch.equal(batch.depth.cpu()[:n].nan_to_num(-1), depth_of(given, view[:n], place[:n]).nan_to_num(-1))
    known: dict[float, tuple[int, torch.Tensor]] = {}
    for i, points in enumerate(given.points):
        if points is not None and i != HELD_OUT:
            known |= {float(z): (i, at) for at, z in zip(points.pixel, points.depth, strict=True)}
    assert len(known) == 40
    met = [known[z] for z in batch.depth[n:].tolist()]
    assert len(set(batch.depth[n:].tolist())) == len(known)  # all of them, and no other
    own, at = torch.tensor([i for i, _ in met]), torch.stack([at for _, at in met])
    assert torch.equal(view[n:], own) and torch.equal(place[n:], at.floor().long())  # what the colours tell
    for i, (u, v), label in zip(own.tolist(), place[n:].tolist(), batch.label[n:].tolist(), strict=True):
        assert label == int(given.masks[i][v, u])
    through(batch, given, view, torch.cat([place[:n] + 0.5, at]))


def test_points_beside_their_image_are_not_drawn():
    given = dotted(views())
    w, h = SIZES[3]
    at = torch.tensor([[5.5, 5.5], [w, 3.0], [3.0, h], [-0.1, 3.0], [3.0, -0.1]])
    given = replace(given, points=(None, None, None, SparseDepth(at, 2.0 + torch.arange(5))))
    batch = Pixels(given).draw(160, torch.Generator())
    assert set(batch.depth[160:].tolist()) == {2.0}
    given = replace(given, points=(None, None, None, SparseDepth(at[1:], 2.0 + torch.arange(4))))
    assert Pixels(given).sparse is None and len(Pixels(given).draw(160, torch.Generator()).rays) == 160


def test_few_pixels_with_points_and_patches():
    pixels = Pixels(dotted(views()))
    assert [len(pixels.draw(n, torch.Generator()).rays) for n in (0, 1, 7, 16)] == [1, 2, 8, 18]
    assert [len(pixels.draw(n, torch.Generator(), patches=True).rays) for n in (3, 4, 7)] == [1, 5, 5]


def wedged(given: Views) -> Views:
    """Masks with a straight edge, so that the hull is a part of space in which some views are blind."""
    masks = []
    for i, (w, h) in enumerate(SIZES):
        v, u = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        masks.append(None if i == WITHOUT_MASK else 2 * u + 3 * v < 60 if i else u > 12)
    return replace(given, masks=tuple(masks))


def test_the_hull_is_what_no_mask_rules_out(device):
    given = wedged(views())
    x = 12 * torch.rand(5000, 3, generator=torch.Generator().manual_seed(0)) - 6
    within, sure = np.ones(len(x), dtype=bool), np.ones(len(x), dtype=bool)
    blind, behind = 0, 0
    for i in given.train:
        local = np.concatenate([x, np.ones((len(x), 1))], 1) @ np.linalg.inv(given.cameras[i].pose.numpy()).T
        uvw = local[:, :3] @ given.cameras[i].K.numpy().T
        uv = uvw[:, :2] / uvw[:, 2:]
        sure &= (np.abs(uv - uv.round()) > 1e-3).all(1) & (np.abs(uvw[:, 2]) > 1e-4)
        for k in range(len(x)):
            u, v = np.floor(uv[k])
            imaged, seen = 0 <= u < SIZES[i][0] and 0 <= v < SIZES[i][1], uvw[k, 2] > 0
            blind, behind = blind + (not imaged), behind + (imaged and not seen)
            if imaged and seen and (mask := given.masks[i]) is not None:
                within[k] &= bool(mask[int(v), int(u)])
    found = Pixels(given, device).inside(x.to(device)).cpu().numpy()
    assert sure.mean() > 0.95 and 0.2 < within.mean() < 0.9 and blind > 2000 and behind > 50
    assert (found == within)[sure].all()


def test_cameras_may_be_others_than_those_of_the_views(device):
    given = views()
    pixels, moved = Pixels(given, device), []
    for i in given.train:
        turn = Rotation.from_rotvec([0.1, -0.2, 0.05 * i]).as_matrix()
        pose = given.cameras[i].pose.clone()
        pose[:3, :3], pose[:3, 3] = torch.from_numpy(turn) @ pose[:3, :3], pose[:3, 3] + 0.1 * i
        moved.append(pose)
    pose = torch.stack(moved).float().to(device).requires_grad_()
    batch = pixels.draw(300, torch.Generator().manual_seed(0), pose=pose)
    place, view = places(batch)
    assert torch.equal(batch.color, draw(given, 300, device=device).color)
    cameras = list(given.cameras)
    for i, matrix in zip(given.train, moved, strict=True):
        cameras[i] = replace(cameras[i], pose=matrix)
    with torch.no_grad():
        through(batch, replace(given, cameras=tuple(cameras)), view, place + 0.5)
    weight = torch.rand(300, 3, generator=torch.Generator().manual_seed(1)).to(device)
    (slope,) = torch.autograd.grad((weight * batch.rays.origin).sum(), pose)
    for k, i in enumerate(given.train):
        assert torch.allclose(slope[k, :3, 3].cpu(), weight.cpu()[view == i].sum(0), rtol=1e-4)

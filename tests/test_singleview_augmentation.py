"""Pictures that a decoder makes of balls, against their closed form, and how an encoder learns from them."""

import math
from typing import Any

import pytest
import torch
from test_singleview_test_time import Balls, camera, of_ball, seen_from
from torch import Tensor

from warpdvr.singleview import augmentation
from warpdvr.singleview.augmentation import NEIGHBOURS, Augmentation
from warpdvr.singleview.preprocess import SIZE, jitter
from warpdvr.singleview.shape_bank import ShapeBank

SIZES = torch.tensor([[0.25, -0.1], [0.4, 0.1], [-0.5, 0.0], [0.6, 0.0]])
"""Radius and height of balls; of the third nothing is seen."""


@pytest.fixture
def known() -> ShapeBank:
    """Four balls, each seen from three places of its own."""
    places = [[camera(0.2 + i + 3 * j, 0.3 - 0.1 * i) for i in range(3)] for j in range(4)]
    return ShapeBank.of(SIZES, [seen_from(some, [of_ball(c, 0.3, 0.0) for c in some]) for some in places])


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation, "MIXTURES", 6)


def augmented(known: ShapeBank, shapes: int, seed: int = 0) -> Augmentation:
    made = Augmentation(Balls(), known, torch.Generator().manual_seed(seed))
    for _ in range(shapes):
        made.render_next()
    return made


def test_known_shapes_come_first_and_then_mixtures_of_two(known: ShapeBank) -> None:
    first = augmented(known, 4)
    assert sorted(c.tolist() for c in first.codes) == sorted(SIZES[SIZES[:, 0] > 0].tolist())
    every = augmented(known, 50)
    mixtures = torch.stack(every.codes[3:])
    assert len(every.waiting) == 0 and 0 < len(mixtures) <= 6
    for code in mixtures:  # on a line between two, nearer to the first
        part = [
            (float(t), float((a + t * (b - a) - code).norm()))
            for a in SIZES
            for b in SIZES
            if not torch.equal(a, b)
            for t in [((code - a) @ (b - a)) / (b - a).square().sum()]
        ]
        assert any(0 <= t <= 0.5 and off < 1e-5 for t, off in part)


def test_only_codes_that_are_alike_are_mixed(known: ShapeBank) -> None:
    n = 2 * NEIGHBOURS + 6
    codes = torch.cat([torch.rand(n // 2, 2), 100 + torch.rand(n // 2, 2)])
    made = Augmentation(
        Balls(), ShapeBank(codes, known.shape_index, known.outline, known.pose, known.K), torch.Generator()
    )
    mixtures = torch.stack([code for shape_index, code in made.waiting if shape_index is None])
    assert len(mixtures) == 6 and ((mixtures < 2) | (mixtures > 99)).all()


def test_a_lonely_shape_is_not_mixed(known: ShapeBank) -> None:
    one = ShapeBank(known.codes[:1], known.shape_index, known.outline, known.pose, known.K)
    assert len(augmented(one, 0).waiting) == 1


def test_pictures_show_the_shape_of_their_code(known: ShapeBank) -> None:
    """A red ball over white: as many pixels as its closed form covers from one of the known cameras."""
    made = augmented(known, 10)
    exact: dict[tuple[float, ...], list[Tensor]] = {}
    pictures, codes = made.draw(60)
    assert pictures.shape == (60, 3, SIZE, SIZE) and pictures.dtype == torch.uint8
    for picture, code in zip(pictures, codes, strict=True):
        radius, height = code.tolist()
        key = (radius, height)
        if key not in exact:
            seen = [camera(0.2 + i + 3 * j, 0.3 - 0.1 * i) for j in range(4) for i in range(3)]
            masks = [of_ball(c, radius, height).float()[None] for c in seen]
            exact[key] = [torch.nn.functional.avg_pool2d(m, 2)[0] for m in masks]
        covered = (255 - picture[1].float()) / (255 - 255 / (1 + math.exp(4)))
        assert min(float((covered - e).abs().mean()) for e in exact[key]) < 0.01
        assert (picture[0] >= picture[1]).all() and torch.equal(picture[1], picture[2])
    assert len(exact) > 4


def test_known_shapes_are_outlined_from_where_others_were_photographed(known: ShapeBank) -> None:
    """Balls, against their closed form; none of mixtures, nor of what the decoder sees nothing of."""
    made = augmented(known, 10)
    more = known.joined(made.outlines)
    assert torch.equal(more.codes, known.codes) and torch.equal(more.outline[:12], known.outline)
    assert sorted(more.shape_index[12:].tolist()) == [0] * 12 + [1] * 12 + [3] * 12
    for shape_index, covered, pose, K in zip(
        more.shape_index[12:], more.outline[12:], more.pose[12:], more.K[12:], strict=True
    ):
        i = next(i for i in range(12) if torch.equal(pose, known.pose[i]))
        assert torch.equal(K, known.K[i])
        radius, height = SIZES[shape_index].tolist()
        seen = camera(0.2 + i % 3 + 3 * (i // 3), 0.3 - 0.1 * (i % 3))
        exact = torch.nn.functional.avg_pool2d(of_ball(seen, radius, height).float()[None], 4)[0]
        assert (covered / 255 - exact).abs().mean() < 0.01
        assert float(covered.sum() / 255) == pytest.approx(float(exact.sum()), rel=0.04)


def test_shapes_that_are_outlined_already_are_not_outlined_again(known: ShapeBank) -> None:
    made = Augmentation(Balls(), known, torch.Generator().manual_seed(0), outlined={1, 3})
    for _ in range(4):
        made.render_next()
    assert len(made.codes) == 3 and known.joined(made.outlines).shape_index[12:].tolist() == [0] * 12


def test_there_are_as_many_as_memory_holds(known: ShapeBank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation, "MAX_SHAPES", 3)
    monkeypatch.setattr(augmentation, "OUTLINES", 2)
    made = augmented(known, 20)
    assert len(made.codes) <= 3 and all(len(shape_index) == 2 for shape_index, *_ in made.outlines)


def test_chance_is_a_matter_of_the_seed(known: ShapeBank) -> None:
    a, b, c = (augmented(known, 6, seed).draw(20) for seed in (1, 1, 2))
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) and not torch.equal(a[0], c[0])


@pytest.mark.parametrize("mirrored", [False, True])
def test_pictures_are_mirrored_only_where_that_is_the_same_shape(mirrored: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    shown = torch.randint(0, 256, (40, 3, 64, 64), dtype=torch.uint8, generator=generator)
    seen = jitter(shown, generator, zoom=0.0, tint=0.0, mirrored=mirrored)
    turned = [torch.allclose(a, b.flip(2) / 255, atol=1e-3) for a, b in zip(seen, shown, strict=True)]
    same = [torch.allclose(a, b / 255, atol=1e-3) for a, b in zip(seen, shown, strict=True)]
    assert all(a != b for a, b in zip(turned, same, strict=True))
    assert 8 < sum(turned) < 32 if mirrored else not any(turned)


def test_what_comes_in_from_outside_is_white() -> None:
    generator: Any = torch.Generator().manual_seed(0)
    black = torch.zeros(50, 3, 16, 16, dtype=torch.uint8)
    seen = jitter(black, generator, zoom=0.3, tint=0.2, mirrored=False)
    assert (seen[:, :, 0, 0] > 0.9).any() and seen.amin() >= 0 and (seen[:, :, 8, 8] < 0.45).all()

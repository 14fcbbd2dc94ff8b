"""Scores of a ball in one colour, against photographs that are made so that the scores are known."""

import math
from dataclasses import replace

import pytest
import torch

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets.views import Views
from warpdvr.evaluation.images import evaluate
from warpdvr.fields.analytic import Sphere
from warpdvr.rendering.background import Background
from warpdvr.rendering.render import render

SIZE, N = 40, 3


class Painted(Sphere):
    """A ball in the colour (0.5, 0.5, 0.5)."""

    def color(self, x, normal, direction, feature):
        return torch.full_like(x, 0.5)


def cameras() -> tuple[Camera, ...]:
    eyes = [(3.0, 0.0, 0.0), (0.0, 3.0, 0.1), (2.0, 2.0, 1.0)]
    return tuple(Camera.look_at(eye, width=SIZE, height=SIZE) for eye in eyes)


def outline(camera: Camera) -> torch.Tensor:
    with torch.no_grad():
        return render(Painted(), camera).mask


def views(grey=(0.2, 0.2, 0.2), masks=None, test=(0, 1, 2)) -> Views:
    """One photograph of one grey per camera; the masks are the ball's outlines if not given."""
    images = tuple(torch.full((SIZE, SIZE, 3), round(255 * g), dtype=torch.uint8) for g in grey)
    masks = tuple(map(outline, cameras())) if masks is None else masks
    images, masks = (*images, torch.zeros(SIZE, SIZE, 3, dtype=torch.uint8)), (*masks, None)
    train = tuple(i for i in range(N + 1) if i not in test)
    all_cameras = (*cameras(), cameras()[0])
    return Views(images, masks, all_cameras, tuple("abcd"), train, tuple(test), SceneTransform.identity(), "made")


def test_scores_are_those_worked_out_by_hand(device):
    scores = evaluate(Painted().to(device), views((0.2, 0.4, 0.6)))
    expected = [-20 * math.log10(abs(0.5 - g)) for g in (0.2, 0.4, 0.6)]
    assert scores.psnr == pytest.approx(sum(expected) / 3, abs=1e-3)
    assert scores.iou == 1 and scores.views == 3
    assert scores.field_evaluations > 3 * 100


def test_scores_do_not_depend_on_the_number_of_threads():
    before = torch.get_num_threads()
    scores = []
    for n in (1, 2):
        torch.set_num_threads(n)
        try:
            scores.append(evaluate(Painted(), views((0.2, 0.4, 0.6))))
        finally:
            torch.set_num_threads(before)
    assert scores[0] == scores[1]


def test_half_of_the_outline_is_half_the_iou():
    full = [outline(camera) for camera in cameras()]
    half = [mask.clone() for mask in full]
    for mask in half:
        mask[:, SIZE // 2 :] = False
    scores = evaluate(Painted(), views(masks=tuple(half)))
    assert scores.iou == pytest.approx(sum(float(h.sum() / f.sum()) for h, f in zip(half, full, strict=True)) / 3)
    assert scores.iou == pytest.approx(0.5, abs=0.01)
    assert scores.psnr == pytest.approx(-20 * math.log10(0.3), abs=1e-3)  # inside of the mask only


def test_what_is_not_hit_counts_as_black():
    every = torch.ones(SIZE, SIZE, dtype=torch.bool)
    share = float(outline(cameras()[0]).float().mean())
    scores = evaluate(Painted(), views((0.6, 0.6, 0.6), masks=(every,) * 3), indices=[0])
    error = share * (0.5 - 0.6) ** 2 + (1 - share) * 0.6**2
    assert scores.psnr == pytest.approx(-10 * math.log10(error), abs=1e-3)
    assert scores.iou == pytest.approx(share)


def test_held_out_views_are_taken_unless_told_otherwise():
    given = views((0.2, 0.4, 0.6), test=(1,))
    seen = []
    evaluate(Painted(), given, shown=lambda i, image, photograph: seen.append((i, image.mask.shape, photograph.max())))
    assert [i for i, *_ in seen] == [1] and seen[0][1] == (SIZE, SIZE) and float(seen[0][2]) == pytest.approx(0.4)
    assert evaluate(Painted(), given).psnr == pytest.approx(20, abs=1e-3)
    assert evaluate(Painted(), given, indices=(0, 2)).views == 2


def test_views_without_a_mask_are_left_out():
    masks = (outline(cameras()[0]), None, None)
    scores = evaluate(Painted(), views((0.4, 0.0, 0.0), masks=masks))
    assert scores.views == 1 and scores.psnr == pytest.approx(20, abs=1e-3) and scores.iou == 1


@pytest.mark.parametrize("test", [(), (3,)])
def test_without_anything_to_compare_there_is_no_score(test):
    scores = evaluate(Painted(), views(test=test))
    assert math.isnan(scores.psnr) and math.isnan(scores.iou)
    assert scores.views == 0 and scores.field_evaluations == 0


def test_smaller_pictures_have_nearly_the_same_scores():
    sizes = []
    scores = evaluate(
        Painted(), views((0.4, 0.4, 0.4)), longest=20, shown=lambda i, image, photo: sizes.append(photo.shape)
    )
    assert sizes == [(20, 20, 3)] * 3
    assert scores.psnr == pytest.approx(20, abs=0.5) and scores.iou > 0.85
    large = evaluate(Painted(), views((0.4, 0.4, 0.4)), longest=10 * SIZE)
    assert large == evaluate(Painted(), views((0.4, 0.4, 0.4)))
    assert scores.field_evaluations < large.field_evaluations


def test_nothing_is_recorded_for_autograd():
    images = []
    evaluate(Painted(), views(), indices=[0], shown=lambda i, image, photograph: images.append(image))
    assert not images[0].rgb.requires_grad


def test_pictures_with_alpha_are_compared_with_the_colours_of_the_object_alone():
    """Their outlines are not mixed with what is behind, which nobody knows."""
    given = views((0.5, 0.5, 0.5), test=(0,))
    behind = Background.new(0, torch.device("cpu"))
    with torch.no_grad():
        behind.network.layers[-1].bias.fill_(-8.0)  # black
    mixed = evaluate(Painted(), given, background=behind)
    straight = evaluate(Painted(), replace(given, straight=True), background=behind)
    assert mixed.psnr < 40 and straight.psnr == pytest.approx(-20 * math.log10(0.5 / 255), abs=0.01)
    assert straight.iou == mixed.iou == 1

"""From a picture to the shape that looks like it: balls, boxes and cameras in closed form."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets.views import Views
from warpdvr.fields.base import Decoder, Kind
from warpdvr.fields.conditional import ConditionalOccupancy
from warpdvr.singleview import preprocess
from warpdvr.singleview.preprocess import FINE, InputPicture, input_picture, read_input_picture, square_intrinsics
from warpdvr.singleview.reconstructor import Reconstructor
from warpdvr.singleview.shape_bank import ShapeBank
from warpdvr.singleview.test_time import Refinement, _Attempt, refine

FOV = 40.0


class Balls(Decoder):
    """A decoder whose code is the radius and the height above the origin of a red ball; the field is a distance."""

    code, symmetric = 2, 2
    kind: Kind = "occupancy"
    bounds: Any = 1.0

    def prepared(self, codes: Tensor) -> Sequence[Tensor]:
        return [codes]

    def geometry(self, x: Tensor, shifts: Sequence[Tensor], shape_index: Tensor | None) -> tuple[Tensor, Tensor]:
        radius, height = (shifts[0][0] if shape_index is None else shifts[0][shape_index]).unbind(-1)
        centre = torch.stack([torch.zeros_like(height), height, torch.zeros_like(height)], -1)
        red = torch.tensor([4.0, -4, -4]).expand(len(x), 3)
        return 50 * ((x - centre).norm(dim=1) - radius), red

    def color(self, feature: Tensor) -> Tensor:
        return torch.sigmoid(feature)


class Guess(Reconstructor):
    """A reconstructor that says the same of every picture."""

    def __init__(self, radius: float, height: float):
        nn.Module.__init__(self)
        balls: Any = Balls()
        self.decode, self.said = balls, torch.tensor([[radius, height]])

    def encode(self, pictures: Tensor) -> Tensor:  # type: ignore[override]
        return self.said.expand(len(pictures), 2)


def guess(radius: float, height: float = 0.0) -> Reconstructor:
    return Guess(radius, height)


def camera(turn: float, height: float, size: int = FINE) -> Camera:
    eye = np.array([math.cos(turn), height, math.sin(turn)])
    return Camera.look_at(3 * eye / np.linalg.norm(eye), up=(0, 1, 0), fov=FOV, width=size, height=size)


def of_ball(seen: Camera, radius: float, height: float) -> Tensor:
    """Return the mask of a ball: rays that pass its centre at less than its radius."""
    rays = seen.rays()
    to = torch.tensor([0.0, height, 0.0]) - rays.origin
    apart = (to - (to * rays.direction).sum(1, keepdim=True) * rays.direction).norm(dim=1)
    return (apart < radius).view(seen.height, seen.width)


def shown(mask: Tensor) -> InputPicture:
    """Return the picture of a red object."""
    red = torch.tensor([250, 5, 5], dtype=torch.uint8).expand(*mask.shape, 3)
    return input_picture(red, mask)


def seen_from(cameras: list[Camera], masks: list[Tensor]) -> Views:
    images = tuple(torch.full((*m.shape, 3), 100, dtype=torch.uint8) for m in masks)
    names, train = tuple(str(i) for i in range(len(masks))), tuple(range(len(masks)))
    return Views(images, tuple(masks), tuple(cameras), names, train, (), SceneTransform.identity(), "")


SIZES = (0.25, -0.1), (0.4, 0.1), (0.6, 0.0)
"""Radius and height of the balls that are known."""


@pytest.fixture
def known() -> ShapeBank:
    """Return three balls, each seen from four sides."""
    cameras = [camera(0.8 + 1.5 * i, 0.4) for i in range(4)]
    views = [seen_from(cameras, [of_ball(c, *size) for c in cameras]) for size in SIZES]
    return ShapeBank.of(torch.tensor(SIZES), views)


# Refinement


@pytest.mark.parametrize(("radius", "height"), [(0.45, 0.0), (0.33, 0.1)])
def test_a_ball_is_found_whatever_the_network_says(known: ShapeBank, radius: float, height: float) -> None:
    """Radius and distance cannot be told apart in one picture, but their ratio can, and the cameras hardly move."""
    seen = camera(0.9, 0.45)
    how = Refinement(steps=60, starts=3, rays=400, rate=0.3, move=1e-4, prior=0.0)
    found = refine(guess(0.8, 0.0), known, shown(of_ball(seen, radius, height)), how).codes
    assert found.shape == (1, 2) and not found.requires_grad
    assert float(found[0, 0]) == pytest.approx(radius, abs=0.02)
    assert float(found[0, 1]) == pytest.approx(height, abs=0.05)


def test_the_truth_costs_least(known: ShapeBank) -> None:
    """Of silhouettes that are a little soft: with rays beside the object alone, a ball of 0.385 would."""
    seen, radii = camera(0.9, 0.45), torch.tensor([0.37, 0.385, 0.4, 0.415, 0.43])
    codes, how = torch.stack([radii, torch.zeros(5)], 1), Refinement(rays=4000)
    pose, K = seen.pose.float().expand(5, 4, 4), square_intrinsics(seen.K.float(), FINE, FINE).expand(5, 3, 3)
    attempt = _Attempt(guess(0.3), of_ball(seen, 0.4, 0.0), how, codes, pose, K, torch.zeros(1, 2))
    assert radii[attempt._cost(torch.Generator().manual_seed(0)).argmin()] == radii[2]


def test_cameras_move_to_where_the_picture_was_taken_from(known: ShapeBank) -> None:
    """A ball in the middle of the scene but not of the picture: without its camera's help its size is wrong."""
    seen = camera(0.8, 0.4)
    pose = seen.pose.clone()
    pose[:3, 3] -= 0.35 * pose[:3, 0]
    mask, apart = of_ball(Camera(seen.K, pose, FINE, FINE), 0.4, 0.0), []
    for move in (0.01, 1e-9):
        how = Refinement(steps=60, starts=1, rays=400, rate=0.1, move=move, prior=0.0)
        apart.append(abs(float(refine(guess(0.3), known, shown(mask), how).codes[0, 0]) - 0.4))
    assert apart[0] < 0.02 and apart[1] > 0.04


def of_ellipsoid(seen: Camera, radius: float, stretch: Tensor) -> Tensor:
    """Return the mask of a ball that was stretched along the axes: of the ball, by rays that are shortened."""
    rays = seen.rays()
    o, d = rays.origin / stretch, torch.nn.functional.normalize(rays.direction / stretch, dim=-1)
    return ((o - (o * d).sum(1, keepdim=True) * d).norm(dim=1) < radius).view(seen.height, seen.width)


@pytest.mark.parametrize(("stretch", "stretched"), [(0.02, 0.01), (0.0, 0.01), (0.02, 100.0)])
def test_a_shape_may_be_stretched(stretch: float, stretched: float) -> None:
    """Seen along x, a ball that is wider and lower than the code says, which stays as it is."""
    seen, long, codes = camera(0.0, 0.0), torch.tensor([1.0, 0.8, 1.25]), torch.tensor([[0.4, 0.0]])
    pose, K = seen.pose.float()[None], square_intrinsics(seen.K.float(), FINE, FINE)[None]
    how = Refinement(rays=600, move=1e-9, stretch=stretch, stretched=stretched)
    mask = of_ellipsoid(seen, 0.4, long)
    attempt = _Attempt(guess(0.4), mask, how, codes, pose, K, torch.zeros(1, 2))
    attempt.run(60, 0, fit_shapes=True)
    found = attempt.shape(0)
    assert found.stretch is not None and not found.stretch.requires_grad
    assert torch.allclose(found.bounds[1], found.stretch[0])
    if stretch and stretched < 1:
        assert found.stretch[0, 1:].tolist() == pytest.approx(long[1:].tolist(), abs=0.03)
    else:
        assert found.stretch[0].tolist() == pytest.approx([1, 1, 1], abs=0.02)


def test_a_stretch_along_the_line_of_sight_counts_more(known: ShapeBank) -> None:
    seen, how = camera(0.0, 0.0), Refinement(rays=40)
    codes = torch.tensor([[0.4, 0.0]])
    pose, K = seen.pose.float()[None], square_intrinsics(seen.K.float(), FINE, FINE)[None]
    cost = []
    for longer in ([0.0, 0, 0], [0.1, 0, 0], [0, 0, 0.1]):
        attempt = _Attempt(guess(0.3), torch.ones(FINE, FINE, dtype=torch.bool), how, codes, pose, K, torch.zeros(1, 2))
        attempt._entropy = lambda rays, label: torch.zeros(len(rays))  # type: ignore[method-assign]
        attempt.log_stretch = torch.tensor([longer])
        cost.append(float(attempt._cost(torch.Generator().manual_seed(0))))
    assert cost == pytest.approx([0, 0.06, 0.02], abs=1e-6)


def test_the_prior_holds_the_code_where_it_started(known: ShapeBank) -> None:
    mask = of_ball(camera(0.8, 0.4), 0.48, 0.0)
    apart = []
    for prior in (0.0, 100.0):
        how = Refinement(steps=30, starts=1, rays=200, rate=0.1, move=1e-9, prior=prior)
        found = refine(guess(0.4, 0.0), known, shown(mask), how).codes
        apart.append(abs(float(found[0, 0]) - 0.4))
    assert apart[0] > 0.06 and apart[1] < 0.01


def test_without_steps_or_without_an_object_the_network_is_believed(known: ShapeBank) -> None:
    network, mask = guess(0.8, 0.2), of_ball(camera(0.9, 0.45), 0.45, 0.0)
    said = network.encode(torch.zeros(1)).tolist()
    assert refine(network, known, shown(mask), Refinement(steps=0)).codes.tolist() == said
    assert refine(network, known, shown(torch.zeros_like(mask))).codes.tolist() == said


def test_an_object_that_fills_the_picture_is_no_mistake(known: ShapeBank) -> None:
    found = refine(guess(0.5, 0.0), known, shown(torch.ones(FINE, FINE, dtype=torch.bool)), Refinement(steps=4))
    assert found.codes.isfinite().all() and found.bounds.isfinite().all()


@pytest.mark.parametrize("options", [{"steps": -1}, {"starts": 0}, {"best": 0}])
def test_a_refinement_must_make_sense(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Refinement(**options)


# What is known


def bent(x: Tensor) -> Tensor:
    """Return whether points (n, 3) are in a shape that is its own mirror image along z, and along no other axis."""
    low = torch.tensor([-0.7, -0.1, -0.15]), torch.tensor([0.1, -0.1, -0.6]), torch.tensor([-0.7, -0.1, -0.1])
    high = torch.tensor([0.6, 0.1, 0.15]), torch.tensor([0.4, 0.0, 0.6]), torch.tensor([-0.4, 0.5, 0.1])
    return torch.stack([((x > a) & (x < b)).all(1) for a, b in zip(low, high, strict=True)]).any(0)


def of_bent(seen: Camera) -> Tensor:
    rays = seen.rays()
    t = torch.linspace(1.9, 4.1, 120)
    x = rays.origin[:, None] + t[:, None] * rays.direction[:, None]
    return bent(x.reshape(-1, 3)).view(len(rays), -1).any(1).view(seen.height, seen.width)


@pytest.fixture(scope="module")
def cameras() -> list[Camera]:
    return [camera(0.3 + 0.5 * i, 0.5 - 0.2 * i, 64) for i in range(4)]


def known_bent(cameras: list[Camera]) -> ShapeBank:
    balls = seen_from(cameras, [of_ball(c, 0.5, 0.0) for c in cameras])
    return ShapeBank.of(torch.tensor([[1.0], [2.0]]), [balls, seen_from(cameras, [of_bent(c) for c in cameras])])


def test_a_known_picture_is_most_like_itself(cameras: list[Camera]) -> None:
    known = known_bent(cameras)
    for seen in cameras:
        chosen, pose, K = known.nearest(of_bent(seen), 5, symmetric=None)
        assert chosen.tolist() == [1, 0] and len(pose) == len(K) == 2
        assert torch.allclose(pose[0], seen.pose.float()) and torch.allclose(64 * K[0, :2], seen.K.float()[:2])


def test_a_mirrored_picture_was_taken_from_the_other_side(cameras: list[Camera]) -> None:
    known = known_bent(cameras)
    x = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)).double() - 0.5
    there = x * torch.tensor([1.0, 1, -1])
    for seen in cameras:
        wide = Camera(seen.K + torch.tensor([[0.0, 3, 5], [0, 0, 0], [0, 0, 0]]), seen.pose, 64, 64)
        known = ShapeBank.of(torch.ones(1, 1), [seen_from([wide], [of_bent(wide)])])
        _, pose, K = known.nearest(of_bent(wide).flip(1), 1, symmetric=2)
        scaled = torch.tensor([[64.0], [64.0], [1.0]]) * K[0]
        found, _ = Camera(scaled.double(), pose[0].double(), 64, 64).project(x)
        expected, _ = wide.project(there)
        expected[:, 0] = 64 - expected[:, 0]
        assert torch.allclose(found, expected, atol=1e-3)


def test_outlines_in_wide_pictures_are_in_the_middle_of_a_square() -> None:
    wide = Camera.look_at((0.0, 1.0, 3.0), up=(0, 1, 0), fov=FOV, width=90, height=40)
    known = ShapeBank.of(torch.ones(1, 1), [seen_from([wide], [of_ball(wide, 0.5, 0.1)])])
    x = torch.rand(20, 3, generator=torch.Generator().manual_seed(1)).double() - 0.5
    uv, _ = wide.project(x)
    square = Camera(torch.tensor([[90.0], [90.0], [1.0]]) * known.K[0].double(), known.pose[0].double(), 90, 90)
    assert torch.allclose(square.project(x)[0], uv + torch.tensor([0.0, 25.0]), atol=1e-4)
    covered = known.outline[0].float() / 255 * (90 / 32) ** 2
    assert float(covered.sum()) == pytest.approx(float(of_ball(wide, 0.5, 0.1).sum()), rel=0.05)


# Looks


def test_what_is_white_and_joined_to_the_border_is_background(tmp_path: Any) -> None:
    image = np.full((128, 128, 3), 255, np.uint8)
    image[30:90, 20:100] = (40, 60, 200)
    image[50:60, 40:70] = 255  # a white window in it
    image[:20, :5] = 252  # not quite white, but bright
    Image.fromarray(image).save(tmp_path / "a.png")
    expected = torch.zeros(128, 128, dtype=torch.bool)
    expected[30:90, 20:100] = True
    assert torch.equal(read_input_picture(tmp_path / "a.png").mask, expected)
    cut = np.concatenate([image, np.where(expected, 255, 0)[..., None].astype(np.uint8)], 2)
    Image.fromarray(cut).save(tmp_path / "b.png")
    assert torch.equal(read_input_picture(tmp_path / "b.png").mask, expected)
    assert torch.equal(
        read_input_picture(tmp_path / "b.png").image[:, expected],
        read_input_picture(tmp_path / "a.png").image[:, expected],
    )
    assert preprocess.SIZE == 64 and read_input_picture(tmp_path / "b.png").small.shape == (1, 3, 64, 64)


# Symmetry


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_symmetric_decoder_knows_no_left_and_right(axis: int) -> None:
    torch.manual_seed(0)
    decoder = ConditionalOccupancy(code=3, width=8, blocks=2, frequencies=2, symmetric=axis)
    nn.init.normal_(decoder.last.weight)
    x, shifts = torch.rand(40, 3) - 0.5, decoder.prepared(torch.randn(1, 3))
    for other in range(3):
        sign = torch.ones(3).index_fill(0, torch.tensor([other]), -1.0)
        same = [
            torch.allclose(a, b)
            for a, b in zip(*(decoder.geometry(p, shifts, None) for p in (x, x * sign)), strict=True)
        ]
        assert same == [other == axis] * 2


def test_an_axis_must_be_one() -> None:
    with pytest.raises(ValueError, match=r"symmetric must be an axis .* got 3"):
        Reconstructor(symmetric=3)

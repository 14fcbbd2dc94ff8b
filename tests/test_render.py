"""Images: what they mean, what they cost, and their derivatives."""

import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
import trimesh
from reference import Asked, box_t, difference, double, pixel_rays, sphere_t
from torch import Tensor, nn
from trimesh.ray.ray_pyembree import RayMeshIntersector

from warpdvr import Camera, DenseMarch, Image, SphereTrace, Status, render
from warpdvr.cameras.rays import pixel_centres
from warpdvr.fields.analytic import Box, Plane, Sphere, Union
from warpdvr.fields.base import Field
from warpdvr.fields.sdf import SDF
from warpdvr.intersection.default import default_intersect
from warpdvr.intersection.lowest import lowest_on
from warpdvr.rendering.render import bytes_per_point
from warpdvr.rendering.silhouette import soft_mask

CAMERA = Camera.look_at((1.6, 1.2, 0.9), width=48, height=40)
FACING = Camera.look_at((0.0, 0.0, 3.0), up=(0.0, 1.0, 0.0), width=32, height=24)


def memory() -> ModuleType:
    spec = importlib.util.spec_from_file_location("memory", Path(__file__).parents[1] / "benchmarks" / "memory.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_depth_is_along_the_axis_not_along_the_ray(device: torch.device) -> None:
    image = render(Plane(offset=0.25, bounds=4.0).to(device), FACING)
    assert image.mask.all()
    assert (image.depth - 2.75).abs().max() < 2e-6
    assert (image.normal - torch.tensor([0.0, 0.0, 1.0], device=device)).abs().max() < 1e-6


@pytest.mark.parametrize("solve", [DenseMarch(), SphereTrace()])
def test_what_a_ball_looks_like(solve: Any, device: torch.device) -> None:
    image = render(Sphere(0.6).to(device), CAMERA, intersect=solve, background=(0.1, 0.2, 0.3))
    o, d = pixel_rays(CAMERA.K.numpy(), CAMERA.pose.numpy(), centres())
    t = sphere_t(torch.tensor(o.copy()), torch.tensor(d), 0.6)
    mask = ~t.isnan().view(40, 48)
    assert torch.equal(image.mask.cpu(), mask)
    z = (t * (torch.tensor(d) @ CAMERA.pose[:3, 2])).view(40, 48)
    assert (image.depth.cpu() - z)[mask].abs().max() < 2e-5
    assert torch.equal(image.depth.isnan().cpu(), ~mask)
    x = torch.tensor(o + t.numpy()[:, None] * d).view(40, 48, 3)
    assert (image.normal.cpu() - x / 0.6)[mask].abs().max() < 1e-4  # outward
    assert (image.normal.norm(dim=-1)[image.mask] - 1).abs().max() < 1e-6
    assert (image.normal[~image.mask] == 0).all()
    assert (image.rgb[~image.mask] == torch.tensor([0.1, 0.2, 0.3], device=device)).all()
    assert ((image.rgb >= 0) & (image.rgb <= 1)).all()
    assert torch.equal(image.mask, image.status == Status.HIT)


def centres() -> np.ndarray[Any, Any]:
    u, v = np.meshgrid(np.arange(48) + 0.5, np.arange(40) + 0.5)
    return np.stack([u, v], -1).reshape(-1, 2)


def test_embree_sees_the_same_ball(device: torch.device) -> None:
    """A mesh with 82 000 faces, whose corners lie on the ball: its faces are at most 4e-5 inside of it."""
    mesh = trimesh.creation.icosphere(subdivisions=6, radius=0.6)
    o, d = pixel_rays(CAMERA.K.numpy(), CAMERA.pose.numpy(), centres())
    x, ray, _ = RayMeshIntersector(mesh).intersects_location(o, d, multiple_hits=False)
    depth = np.full(len(o), np.nan)
    depth[ray] = (x - o[ray]) @ CAMERA.pose[:3, 2].numpy()
    image = render(Sphere(0.6).to(device), CAMERA)
    mask, found = image.mask.cpu().numpy().ravel(), image.depth.detach().cpu().double().numpy().ravel()
    both = mask & ~np.isnan(depth)
    assert (mask != ~np.isnan(depth)).sum() <= 2
    assert both.sum() > 300
    assert np.median(np.abs(found - depth)[both]) < 1e-4
    assert np.abs(found - depth)[both].max() < 5e-3  # grazing


@pytest.mark.parametrize("solve", [DenseMarch(), SphereTrace(cones=False)])
def test_chunks_do_not_show(solve: Any, device: torch.device) -> None:
    torch.manual_seed(0)
    field = SDF(width=16, depth=2).to(device)
    whole = render(field, CAMERA, intersect=solve, silhouette=20.0)
    piece = 8 * bytes_per_point(field) * 100
    parts = render(field, CAMERA, intersect=solve, silhouette=20.0, memory=piece)
    tiny = render(Sphere(0.5).to(device), FACING.resized(8, 6), intersect=solve, memory=1)
    large = render(Sphere(0.5).to(device), FACING.resized(8, 6), intersect=solve)
    assert torch.equal(tiny.depth.nan_to_num(), large.depth.nan_to_num())
    # a product of matrices rounds otherwise in batches of other sizes; counts are exact in the next test
    assert abs(whole.evaluations - parts.evaluations) <= 1e-3 * whole.evaluations
    assert torch.equal(whole.status, parts.status)
    for name in ("rgb", "depth", "normal", "silhouette"):
        a, b = getattr(whole, name), getattr(parts, name)
        assert torch.allclose(a, b, rtol=0, atol=1e-5, equal_nan=True), name


def test_chunks_give_the_same_image_bit_for_bit(device: torch.device) -> None:
    for solve in (DenseMarch(), SphereTrace(cones=False)):
        field = Box((0.8, 0.5, 0.3)).to(device)
        whole, parts = (render(field, CAMERA, intersect=solve, memory=m) for m in (1 << 30, 100_000))
        assert whole.evaluations == parts.evaluations
        for name in ("rgb", "depth", "normal", "status"):
            assert torch.equal(getattr(whole, name).nan_to_num(), getattr(parts, name).nan_to_num()), name


def test_chunks_are_tiles_whose_rays_share_cones(device: torch.device) -> None:
    """Counts then grow little, and hits stay where they are, within what the intersector allows."""
    field, camera = Sphere(0.5).to(device), FACING.resized(160, 120)
    whole, parts = (render(field, camera, memory=m) for m in (1 << 30, bytes_per_point(field) * 1000))
    assert whole.evaluations < parts.evaluations < 1.35 * whole.evaluations
    assert torch.equal(whole.status, parts.status)
    for name in ("rgb", "depth", "normal"):
        assert torch.allclose(getattr(whole, name), getattr(parts, name), rtol=0, atol=1e-4, equal_nan=True), name


@pytest.mark.parametrize("solve", [DenseMarch(), SphereTrace()])
@pytest.mark.parametrize("silhouette", [None, 30.0])
@pytest.mark.parametrize("recording", [True, False])
@pytest.mark.parametrize("step", [None, 0.01])
def test_every_evaluation_is_counted(
    solve: Any, silhouette: float | None, recording: bool, step: float | None, device: torch.device
) -> None:
    field = Asked(lambda x: x.norm(dim=-1) - 0.5, lipschitz=1.0).to(device)
    field.step = step
    probe = bytes_per_point(field)  # the cost of one point is found by asking for 64
    assert (field.asked, probe > 256) == (64, True)
    field.asked = 0
    with torch.set_grad_enabled(recording):
        image = render(field, CAMERA, intersect=solve, silhouette=silhouette)
    assert image.evaluations == field.asked - 64  # 64 points measure the memory


def test_the_default_solver_asks_for_the_bound_only(device: torch.device) -> None:
    assert isinstance(default_intersect(Sphere()), SphereTrace)
    assert isinstance(default_intersect(Asked(lambda x: x[:, 2])), DenseMarch)


def test_a_field_in_float64_is_rendered_in_float64(device: torch.device) -> None:
    one, two = render(Box().to(device), CAMERA), render(double(Box()).to(device), CAMERA)
    assert two.depth.dtype == torch.float64
    assert torch.equal(one.mask, two.mask)
    assert (one.depth - two.depth)[one.mask].abs().max() < 2e-5  # rays in float32 are off by that on a steep face
    assert (one.rgb - two.rgb).abs().max() < 1e-5
    pixel = pixel_centres(CAMERA.width, CAMERA.height).double()
    o, d = (torch.tensor(a.copy()) for a in pixel_rays(CAMERA.K.numpy(), CAMERA.pose.numpy(), pixel.numpy()))
    size = double(Box()).size.detach()
    exact = (box_t(o, d, size) * (d @ CAMERA.pose[:3, 2])).view(two.depth.shape)
    assert (two.depth.cpu() - exact)[two.mask.cpu()].abs().max() < 1e-12


def overlapping() -> Any:
    """Two balls, a bright one in front of a dark one."""

    class Coloured(Union):
        def color(self, x: Tensor, normal: Tensor, direction: Tensor, feature: Any) -> Tensor:
            return torch.where(x[:, 2:] > 0.22, x.new_tensor([0.9, 0.8, 0.2]), x.new_tensor([0.2, 0.1, 0.4]))

    return Coloured([Sphere(0.5, center=(0.0, 0.0, -0.5)), Sphere(0.25, center=(0.2, 0.1, 0.5))])


@pytest.mark.parametrize("solve", [DenseMarch(), SphereTrace()])
def test_edges_are_the_mean_of_a_finer_picture(solve: Any, device: torch.device) -> None:
    """In linear light (IEC 61966-2-1), where a neighbour is missed, or far in front or behind; elsewhere nothing."""
    n, field, behind, camera = 3, overlapping().to(device), (0.1, 0.6, 0.3), FACING.resized(64, 48)
    with torch.no_grad():
        plain = render(field, camera, intersect=solve, background=behind)
        smooth = render(field, camera, intersect=solve, background=behind, antialias=n)
        fine = render(field, camera.resized(64 * n, 48 * n), intersect=solve, background=behind).rgb.double()
    light = torch.where(fine <= 0.04045, fine / 12.92, ((fine + 0.055) / 1.055) ** 2.4)
    mean = light.view(48, n, 64, n, 3).mean((1, 3))
    mean = torch.where(mean <= 0.0031308, 12.92 * mean, 1.055 * mean ** (1 / 2.4) - 0.055)
    moved = (smooth.rgb != plain.rgb).any(-1)
    assert (smooth.rgb - mean)[moved].abs().max() < 1e-3
    mixed = (plain.rgb - mean).abs().amax(-1) > 0.1
    surrounded = -torch.nn.functional.max_pool2d(-plain.mask.float()[None], 3, 1, 1)[0] > 0
    assert mixed.sum() > 30 and (mixed & surrounded).sum() > 3  # of an outline, and of a ball in front of another
    assert moved[mixed].all() and moved.float().mean() < 0.25
    for name in ("depth", "normal", "mask", "status"):
        a, b = getattr(plain, name), getattr(smooth, name)
        assert torch.equal(a.nan_to_num(), b.nan_to_num()), name


def test_without_a_background_edges_are_the_mean_of_what_is_hit(device: torch.device) -> None:
    n, field, camera = 3, overlapping().to(device), FACING.resized(64, 48)
    with torch.no_grad():
        straight = render(field, camera, intersect=SphereTrace(), background=None, antialias=n)
        fine = render(field, camera.resized(64 * n, 48 * n), intersect=SphereTrace(), background=None)
    hit = fine.mask.double()[..., None]
    assert (fine.rgb[~fine.mask] == 0).all()
    color = fine.rgb.double()
    light = torch.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
    total, count = ((a * hit).view(48, n, 64, n, -1).sum((1, 3)) for a in (light, torch.ones_like(light[..., :1])))
    mean = total / count.clamp_min(1)
    mean = torch.where(mean <= 0.0031308, 12.92 * mean, 1.055 * mean ** (1 / 2.4) - 0.055)
    edge = (count[..., 0] > 0) & (count[..., 0] < n**2)
    assert edge.sum() > 30 and (straight.rgb - mean)[edge].abs().max() < 1e-3


def test_edges_cover_as_much_as_the_disc_that_a_ball_is(device: torch.device) -> None:
    """A ball straight ahead is a disc of radius f R / sqrt(D^2 - R^2); a white one on black is its area in light."""

    class White(Sphere):
        def color(self, x: Tensor, normal: Tensor, direction: Tensor, feature: Any) -> Tensor:
            return torch.ones_like(x)

    area = torch.pi * (float(FACING.K[0, 0]) * 0.5 / (9 - 0.25) ** 0.5) ** 2
    found = []
    for n in (1, 8):
        rgb = render(White(0.5).to(device), FACING, background=(0, 0, 0), antialias=n).rgb[..., 0].detach().double()
        found.append(abs(float(torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4).sum()) - area))
    assert found[1] < 0.004 * area < found[0]


@pytest.mark.parametrize("recording", [True, False])
def test_evaluations_on_edges_are_counted_and_chunks_do_not_show(recording: bool, device: torch.device) -> None:
    field = Asked(lambda x: x.norm(dim=-1) - 0.5, lipschitz=1.0).to(device)
    with torch.set_grad_enabled(recording):
        image = render(field, CAMERA, intersect=DenseMarch(16), antialias=2)
        assert field.asked - 64 == image.evaluations  # 64 points measure the memory
        parts = render(field, CAMERA, intersect=DenseMarch(16), antialias=2, memory=100_000)
    assert torch.allclose(image.rgb, parts.rgb, rtol=0, atol=1e-6)


def test_edges_have_the_gradient_of_what_is_seen_in_them(device: torch.device) -> None:
    """That they move is another matter (`outline`). Against the mean of a finer picture, in linear light, in Torch."""

    class Tinted(Sphere):
        def __init__(self) -> None:
            super().__init__(0.5)
            self.tint = nn.Parameter(torch.tensor(0.3))

        def color(self, x: Tensor, normal: Tensor, direction: Tensor, feature: Any) -> Tensor:
            return (self.tint * (1.5 + x)).clamp(0.1, 0.9)

    field, camera = Tinted().to(device), FACING.resized(16, 12)
    smooth = render(field, camera, background=(0, 0, 0), antialias=2).rgb
    moved = (smooth != render(field, camera, background=(0, 0, 0)).rgb).any(-1)
    fine = render(field, camera.resized(32, 24), background=(0, 0, 0)).rgb
    mean = torch.where(fine <= 0.04045, fine / 12.92, ((fine.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4)
    mean = mean.view(12, 2, 16, 2, 3).mean((1, 3))
    mean = torch.where(mean <= 0.0031308, 12.92 * mean, 1.055 * mean.clamp_min(0.0031308) ** (1 / 2.4) - 0.055)
    found, expected = (torch.autograd.grad(a[moved].sum(), field.tint)[0] for a in (smooth, mean))
    assert moved.sum() > 8 and found > 1
    assert float(found) == pytest.approx(float(expected), rel=1e-3)


def test_edges_that_are_smooth_move_as_others(device: torch.device) -> None:
    """The derivative of visibility is that of the centres of pixels, with smooth edges and without."""
    found = []
    for n in (1, 2):
        field = Sphere(0.5).to(device)
        render(field, FACING, background=(0, 0, 0), outline=True, antialias=n).rgb.sum().backward()
        assert field.radius.grad is not None
        found.append(float(field.radius.grad))
    assert found[0] > 100 and found[1] == pytest.approx(found[0], rel=0.2)


@pytest.mark.parametrize("places", [0, -1, 2.5])
def test_places_in_a_pixel_are_counted_in_whole_numbers(places: Any) -> None:
    with pytest.raises(ValueError, match="antialias must be a whole number"):
        render(Sphere(0.5), FACING, antialias=places)


def test_a_background_may_be_a_picture(device: torch.device) -> None:
    behind = torch.rand(40, 48, 3, generator=torch.Generator().manual_seed(0)).to(device)
    image = render(Sphere(0.5).to(device), CAMERA, background=behind)
    assert torch.equal(image.rgb[~image.mask], behind[~image.mask])


@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        ("white", "'white'"),
        ((1.0, 1.0), r"shape \(2,\)"),
        (0.5, r"shape \(\)"),
        (torch.ones(1, 1, 3), r"shape \(1, 1, 3\)"),
        (torch.ones(3, 40, 48), r"shape \(3, 40, 48\)"),
    ],
)
def test_a_background_is_a_colour_or_a_picture(wrong: Any, got: str) -> None:
    """Refused before anything is rendered."""
    field, unchecked = Asked(Sphere(0.5)), inspect.unwrap(render)  # past the check of types
    with pytest.raises(ValueError, match=rf"^render: background must be one .* of shape \(40, 48, 3\), .* got {got}$"):
        unchecked(field, CAMERA, background=wrong)
    assert field.asked == 0


def test_nothing_to_see(device: torch.device) -> None:
    away = Camera.look_at((3.0, 0.0, 0.0), (6.0, 0.0, 0.0), width=8, height=6)
    image = render(Sphere().to(device), away, silhouette=10.0)
    assert not image.mask.any()
    assert image.depth.isnan().all()
    assert image.evaluations == 0
    assert (image.rgb == 1).all()
    for what in ("rgb", "normal", "depth", "mask"):
        assert image.picture(what).shape[:2] == (6, 8)


@pytest.mark.parametrize(("what", "mode"), [("rgb", "RGB"), ("normal", "RGB"), ("depth", "L"), ("mask", "L")])
def test_save_writes_a_png(what: str, mode: str, tmp_path: Path, device: torch.device) -> None:
    image = render(Sphere(0.6).to(device), CAMERA)
    image.save(tmp_path / "x.png", what)
    with PIL.Image.open(tmp_path / "x.png") as read:
        assert (read.mode, read.size, read.format) == (mode, (48, 40), "PNG")
        pixels = np.asarray(read)
    assert np.array_equal(pixels, image.picture(what))
    mask = image.mask.cpu().numpy()
    if what == "mask":
        assert np.array_equal(pixels, 255 * mask)
    elif what == "rgb":
        assert np.abs(pixels / 255 - image.rgb.detach().cpu().numpy()).max() <= 0.5 / 255 + 1e-6
    elif what == "normal":
        found = pixels[mask] / 255 * 2 - 1
        assert np.abs(found - image.normal.detach().cpu().numpy()[mask]).max() <= 1.01 / 255
    else:
        z = image.depth.detach().cpu().numpy()[mask]
        assert pixels[mask][z.argmin()] == 255  # near is bright
        assert (pixels[~mask] == 0).all()


def test_an_unknown_picture_is_refused(device: torch.device) -> None:
    with pytest.raises(ValueError, match="cannot show 'albedo'; known are rgb, normal, depth and mask"):
        render(Sphere(), FACING.resized(4, 4)).picture("albedo")


# ---- derivatives, through the whole renderer


class Lit(Sphere):
    """A ball with a colour that depends on the place and on a parameter."""

    def __init__(self) -> None:
        super().__init__(0.6)
        self.paint = nn.Parameter(torch.tensor(0.7))

    def color(self, x: Tensor, normal: Tensor, direction: Tensor, feature: Tensor | None) -> Tensor:
        return torch.sigmoid(self.paint * torch.sin(3 * x) + normal)


def interior(image: Image) -> Tensor:
    """Pixels of the mask whose neighbours are in it too: visibility does not change there."""
    m = image.mask.double()[None, None]
    return -nn.functional.max_pool2d(-m, 5, 1, 2)[0, 0] > 0


def depth_of(image: Image, inner: Tensor) -> Tensor:
    return image.depth[inner].mean()


def rgb_of(image: Image, inner: Tensor) -> Tensor:
    return (image.rgb[inner] * torch.tensor([1.0, -2.0, 0.5]).to(image.rgb)).mean()


def normal_of(image: Image, inner: Tensor) -> Tensor:
    return (image.normal[inner] * torch.tensor([1.0, -2.0, 0.5]).to(image.rgb)).mean()


CASES: list[tuple[str, Callable[[], Field], Camera, str, Callable[[Image, Tensor], Tensor]]] = [
    ("ball: depth by radius", lambda: Sphere(0.6), CAMERA, "radius", depth_of),
    ("ball: depth by centre", lambda: Sphere(0.6), CAMERA, "center", depth_of),
    ("ball: normal by centre", lambda: Sphere(0.6), CAMERA, "center", normal_of),
    ("ball: colour by paint", Lit, CAMERA, "paint", rgb_of),
    ("ball: colour by radius", Lit, CAMERA, "radius", rgb_of),
    ("box: depth by size", lambda: Box((0.9, 0.9, 0.9)), FACING, "size", depth_of),
    ("wall: depth by normal", lambda: Plane((0.1, 0.2, 1.0), 0.2, 2.0), FACING, "normal", depth_of),
    ("wall: normal by offset, right is 0", lambda: Plane((0.1, 0.2, 1.0), 0.2, 2.0), FACING, "offset", normal_of),
    (
        "ball: normal by hidden ball, right is 0",
        lambda: Union([Sphere(0.6), Sphere(0.1)]),
        CAMERA,
        "parts.1.radius",
        depth_of,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
@pytest.mark.parametrize("solve", [DenseMarch(), SphereTrace()], ids=["dense", "trace"])
def test_derivatives_are_those_of_finite_differences(case: Any, solve: Any, device: torch.device) -> None:
    """In float64; t itself is found in float32, to 1e-6: a step of 1e-2 keeps that small."""
    name, make, camera, key, outcome = case
    field = double(make()).to(device)
    parameter = field.get_parameter(key)
    image = render(field, camera, intersect=solve)
    inner = interior(image)
    assert inner.sum() > 20
    (found,) = torch.autograd.grad(outcome(image, inner), parameter, allow_unused=True)
    found = torch.zeros_like(parameter) if found is None else found
    at = parameter.detach().clone()

    @torch.no_grad()
    def nudged(value: Tensor) -> Tensor:
        parameter.copy_(value)
        return outcome(render(field, camera, intersect=solve), inner)

    expected = difference(nudged, at.cpu(), 5e-3)
    assert (found.cpu() - expected).abs().max() < 2e-3 * max(float(expected.abs().max()), 0.05)
    assert ("right is 0" in name) == (float(expected.abs().max()) < 1e-4)


def test_a_mask_alone_moves_an_outline_into_place(device: torch.device) -> None:
    field = Sphere(0.3).to(device)
    target = render(Sphere(0.4).to(device), CAMERA).mask.float()
    adam = torch.optim.Adam(field.parameters(), lr=0.01)
    for _ in range(150):
        soft = render(field, CAMERA, silhouette=50.0).silhouette
        assert soft is not None
        adam.zero_grad()
        torch.nn.functional.binary_cross_entropy(soft.clamp(1e-6, 1 - 1e-6), target).backward()
        adam.step()
    assert field.radius.item() == pytest.approx(0.4, abs=0.015)


@pytest.mark.parametrize("solve", [DenseMarch(), SphereTrace(relaxation=1.0)], ids=["dense", "trace"])
def test_the_soft_mask_moves_as_finite_differences_say(solve: Any, device: torch.device) -> None:
    field = double(Sphere(0.5)).to(device)
    image = render(field, CAMERA, intersect=solve, silhouette=20.0)
    assert image.silhouette is not None
    assert ((image.silhouette >= 0) & (image.silhouette <= 1)).all()
    assert (image.silhouette[image.mask] >= 0.4999).all()
    assert image.silhouette[CAMERA.height // 2, CAMERA.width // 2] > 0.999  # deep inside, not at the crossing
    missed = ~image.mask
    assert (image.silhouette[missed] < 0.5001).all()
    (found,) = torch.autograd.grad(image.silhouette[missed].sum(), field.radius)
    # with the places held: value = |x| - r, at |x| = r - log(s / (1 - s)) / 20
    distance = 0.5 - torch.logit(image.silhouette.detach()[missed]) / 20
    asked = distance.isfinite()

    def mass(radius: Tensor) -> Tensor:
        return torch.sigmoid(-20 * (distance[asked].cpu() - radius)).sum()

    assert found.item() == pytest.approx(difference(mass, torch.tensor(0.5).double(), 1e-4).item(), rel=1e-4)


@pytest.mark.parametrize("solve", [DenseMarch(1024), SphereTrace()], ids=["dense", "trace"])
def test_the_soft_mask_follows_weights_and_cameras(solve: Any, device: torch.device) -> None:
    """Missed and hit rays. In float64, with the places on the rays held, for a parameter, a shift and a turn."""
    field, sharpness = double(Box((0.9, 0.6, 0.5))).to(device), 15.0
    shift = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    turn = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    rays = moved(shift, turn).to(device).rays()
    hit = solve(field, rays)
    soft, _ = soft_mask(field, rays, hit, sharpness)
    weight = torch.linspace(-1, 2, len(soft), dtype=torch.float64, device=soft.device)
    found = torch.autograd.grad((weight * soft).sum(), [field.size, shift, turn])
    t = lowest_on(field, rays, hit)[0].double()
    asked = ~t.isnan()
    assert 100 < len(hit.ray) < asked.sum() - 100

    at = [torch.tensor([0.9, 0.6, 0.5]).double(), torch.zeros(3).double(), torch.zeros(3).double()]

    def mass(a: Tensor, i: int) -> Tensor:
        given = [*at]
        given[i] = a
        size, camera = given[0], moved(given[1], given[2])
        o, d = pixel_rays(camera.K.numpy(), camera.pose.numpy(), centres())
        x = torch.tensor(o.copy()) + t.cpu()[:, None] * torch.tensor(d)
        q = x.abs() - size / 2
        value = q.clamp_min(0).norm(dim=1) + q.amax(1).clamp_max(0)
        return (weight.cpu() * torch.sigmoid(-sharpness * value))[asked.cpu()].sum()

    for i in range(3):
        expected = difference(partial(mass, i=i), at[i], 1e-6)
        assert (found[i].cpu() - expected).norm() < 1e-4 * expected.norm() and expected.norm() > 1


def moved(shift: Tensor, turn: Tensor) -> Camera:
    """Return the camera shifted in the world and turned about its centre, to first order as a rotation."""
    a, b, c = turn.unbind()
    zero = torch.zeros_like(a)
    turned = torch.linalg.matrix_exp(torch.stack([zero, -c, b, c, zero, -a, -b, a, zero]).view(3, 3))
    pose = torch.cat([turned @ CAMERA.pose[:3, :3], (CAMERA.pose[:3, 3] + shift)[:, None]], 1)
    return replace(CAMERA, pose=torch.cat([pose, torch.tensor([[0.0, 0, 0, 1]]).double()]))


def test_the_peak_of_memory_does_not_grow_with_the_samples() -> None:
    few, many = (memory().peak(n) for n in (16, 1024))
    assert many < 1.05 * few


@pytest.mark.parametrize("name", ["x.foo", "x"])
def test_a_picture_of_an_unknown_format_is_refused(name: str, tmp_path: Path, device: torch.device) -> None:
    image = render(Sphere(0.5).to(device), Camera.look_at((0, 3, 0), width=4, height=4))
    with pytest.raises(ValueError, match=rf"^{tmp_path / name}: a picture is written as \.png, \.jpg or .*, not as"):
        image.save(tmp_path / name)
    image.save(tmp_path / "x.JPG")
    assert [path.name for path in tmp_path.iterdir()] == ["x.JPG"]

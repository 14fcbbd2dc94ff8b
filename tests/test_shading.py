"""Materials under lights: against Lambert's law on a sphere, written in NumPy and float64 from the formulas alone."""

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from warpdvr import Camera, SphereTrace, render
from warpdvr.fields.analytic import Sphere
from warpdvr.rendering.surface import surface
from warpdvr.shading.lights import AmbientLight, DirectionalLight, Light
from warpdvr.shading.materials import Lambert
from warpdvr.shading.shade import SurfacePoints, shade

CAMERA = Camera.look_at((0.4, 0.3, 2.5), up=(0.0, 1.0, 0.0), width=48, height=36)
PAINT = (0.8, 0.4, 0.2)
TOWARDS = (1.0, 2.0, 0.5)
LIGHTS: list[Light] = [AmbientLight((0.1, 0.2, 0.3)), DirectionalLight(TOWARDS, (0.9, 0.8, 0.2))]


class Painted(Sphere):
    """A ball in one colour."""

    def __init__(self) -> None:
        super().__init__(0.6)
        self.paint = nn.Parameter(torch.tensor(PAINT))

    def color(self, x: Tensor, normal: Tensor, direction: Tensor, feature: Any) -> Tensor:
        return self.paint.expand_as(x)


def to_linear(srgb: Any) -> np.ndarray:
    srgb = np.asarray(srgb, dtype=np.float64)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def to_srgb(light: np.ndarray) -> np.ndarray:
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055)


def expected_image(albedo: Any, radius: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    """Return the colours (n, 3) of the ball under LIGHTS where rays hit it, and the mask (n,)."""
    pose, K = CAMERA.pose.double().numpy(), CAMERA.K.double().numpy()
    v, u = np.mgrid[: CAMERA.height, : CAMERA.width] + 0.5
    d = np.stack([u.ravel(), v.ravel(), np.ones(u.size)], 1) @ np.linalg.inv(K).T @ pose[:3, :3].T
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    o = pose[:3, 3]
    b = d @ o
    discriminant = b * b - (o @ o - radius**2)
    mask = discriminant > 0
    n = (o + (-b - np.sqrt(np.maximum(discriminant, 0)))[:, None] * d)[mask] / radius
    lamp = np.array(TOWARDS) / np.linalg.norm(TOWARDS)
    light = np.array([0.1, 0.2, 0.3]) + np.array([0.9, 0.8, 0.2]) * np.maximum(n @ lamp, 0)[:, None]
    return to_srgb(np.minimum(to_linear(albedo) * light, 1)), mask


@pytest.mark.parametrize("albedo", [None, (0.5, 0.6, 0.9)])
def test_a_ball_is_lit_as_lambert_says(albedo: Any, device: torch.device) -> None:
    with torch.no_grad():
        image = render(Painted().to(device), CAMERA, material=Lambert(albedo), lights=LIGHTS)
    expected, mask = expected_image(PAINT if albedo is None else albedo)
    assert (mask != image.mask.cpu().numpy().ravel()).sum() == 0
    found = image.rgb.cpu().numpy().reshape(-1, 3)
    assert np.abs(found[mask] - expected).max() < 2e-4
    assert (found[~mask] == 1).all() and np.ptp(expected, axis=0).max() > 0.3


def test_without_a_material_the_colours_are_those_of_the_field(device: torch.device) -> None:
    image = render(Painted().to(device), CAMERA)
    assert (image.rgb[image.mask] == torch.tensor(PAINT, device=device)).all()


def test_a_field_without_colours_is_clay_and_not_lit_twice(device: torch.device) -> None:
    image = render(Sphere(0.6).to(device), CAMERA, material=Lambert(), lights=[AmbientLight(1.0)])
    assert (image.rgb[image.mask] - 0.85).abs().max() < 1e-6


def test_lit_colours_follow_paint_and_radius_as_finite_differences_say(device: torch.device) -> None:
    """In the middle of the ball, where no outline moves. The closed form is differentiated by NumPy."""
    field = Painted().to(device)
    image = render(field, CAMERA, material=Lambert(), lights=LIGHTS)
    keep = torch.zeros(CAMERA.height, CAMERA.width, dtype=torch.bool)
    keep[14:22, 20:28] = True
    found = torch.autograd.grad(image.rgb[keep.to(device)].sum(), [field.paint, field.radius])

    def outcome(paint: Any, radius: float) -> float:
        colors, mask = expected_image(paint, radius)
        return float(colors[keep.numpy().ravel()[mask]].sum())

    h = 1e-5
    for i in range(3):
        step = h * np.eye(3)[i]
        by_paint = (outcome(np.array(PAINT) + step, 0.6) - outcome(np.array(PAINT) - step, 0.6)) / (2 * h)
        assert float(found[0][i]) == pytest.approx(by_paint, rel=1e-3)
    by_radius = (outcome(PAINT, 0.6 + h) - outcome(PAINT, 0.6 - h)) / (2 * h)
    assert float(found[1]) == pytest.approx(by_radius, rel=2e-3) and abs(by_radius) > 1


def test_smooth_edges_are_lit_too(device: torch.device) -> None:
    """A pixel on the edge of the ball lies between the background and colours of the lit ball, not of the paint."""
    options: dict[str, Any] = {"background": (0.0, 0.0, 0.0), "antialias": 3}
    with torch.no_grad():
        dark = render(Painted().to(device), CAMERA, material=Lambert(), lights=[AmbientLight(0.01)], **options)
        plain = render(Painted().to(device), CAMERA, **options)
    edge = (plain.rgb != 0).any(-1) & ~(plain.rgb == torch.tensor(PAINT, device=device)).all(-1)
    assert edge.sum() > 30 and plain.rgb[edge].amax() > 0.5
    assert dark.rgb.amax() < 0.1 and dark.rgb[edge].amax() > 0.01


def test_outlines_of_a_lit_ball_move_by_its_lit_colours(device: torch.device) -> None:
    """The derivative of visibility is proportional to the contrast with the background, here black."""
    found = []
    for intensity in (1.0, 0.25):
        field = Painted().to(device)
        camera = Camera.look_at((0.0, 0.0, 3.0), up=(0.0, 1.0, 0.0), width=64, height=64)
        image = render(
            field,
            camera,
            material=Lambert((1.0, 1.0, 1.0)),
            lights=[AmbientLight(intensity)],
            background=(0.0, 0.0, 0.0),
            outline=True,
        )
        (moved,) = torch.autograd.grad(image.rgb.sum(), field.radius)
        found.append(float(moved))
    assert found[0] > 100
    assert found[1] == pytest.approx(found[0] * float(to_srgb(np.array(0.25))), rel=1e-3)


def test_a_sheet_is_lit_on_the_side_that_is_seen() -> None:
    normal, direction = torch.tensor([[0.0, 0.0, -1.0]]), torch.tensor([[0.0, 0.0, -1.0]])
    white, lamp = torch.ones(1, 3), [DirectionalLight((0, 0, 3), 0.5)]
    assert torch.equal(Lambert().reflected(white, normal, direction, lamp), torch.zeros(1, 3))
    assert torch.equal(Lambert(two_sided=True).reflected(white, normal, direction, lamp), torch.full((1, 3), 0.5))


def test_too_much_light_is_white_and_none_is_black(device: torch.device) -> None:
    rays = CAMERA.to(device).rays()
    points = surface(Painted().to(device), rays, SphereTrace())
    at = SurfacePoints(Painted().to(device), points.x, points.normal, -points.normal, None)
    white = shade(at, Lambert(), [AmbientLight(100.0)])
    assert white.min() > 1 - 1e-6 and white.max() <= 1
    assert (shade(at, Lambert(), []) == 0).all()


def test_half_a_request_for_light_is_refused() -> None:
    for options, missing in (({"material": Lambert()}, "lights=.*too"), ({"lights": LIGHTS}, "material=Lambert.*too")):
        with pytest.raises(ValueError, match=missing):
            render(Painted(), CAMERA, **options)
    for direction in ((0.0, 0.0, 0.0), (1.0, 0.0), (float("nan"), 0.0, 1.0)):
        with pytest.raises(ValueError, match="direction must be three numbers"):
            DirectionalLight(direction)


@pytest.mark.parametrize("wrong", [(0.5, 0.5), (0.1, 0.2, 1.5), (-0.1, 0.2, 0.3), (0.1, 0.2, float("nan"))])
def test_an_albedo_is_a_colour(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"^Lambert: albedo must be three numbers in \[0, 1\].*got \("):
        Lambert(wrong)


@pytest.mark.parametrize(
    "wrong", [-0.1, float("nan"), float("inf"), (0.1, 0.2), (0.1, -0.2, 0.3), (1.0, 1.0, 1.0, 1.0)]
)
def test_light_is_not_negative(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"^AmbientLight: intensity must be one or three finite numbers >= 0, got"):
        AmbientLight(wrong)
    with pytest.raises(ValueError, match=r"^DirectionalLight: intensity must be one or three finite numbers >= 0, got"):
        DirectionalLight(TOWARDS, wrong)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"material": Lambert(), "lights": AmbientLight()}, r"lights must be a list of lights .*, got AmbientLight\("),
    ({"material": Lambert(), "lights": [0.5]}, r"lights must be a list of lights .*, got \[0.5\]"),
    ({"material": Lambert, "lights": LIGHTS}, r"material: Lambert is a class: call it, such as Lambert\(\)"),
    ({"material": "clay", "lights": LIGHTS}, r"material must be a Material such as Lambert\(\), got 'clay'"),
]


@pytest.mark.parametrize(("options", "sentence"), WRONG)
def test_what_is_no_material_or_light_is_refused(options: dict[str, Any], sentence: str) -> None:
    unchecked = inspect.unwrap(render)  # past the check of types
    with pytest.raises(ValueError, match=f"^render: {sentence}"):
        unchecked(Painted(), CAMERA, **options)


def test_fields_are_asked_for_colours_in_one_place() -> None:
    package = Path(__file__).parent.parent / "warpdvr"
    sources = [file for folder in package.iterdir() if folder.is_dir() for file in sorted(folder.glob("*.py"))]
    calls = [file for file in sources if re.search(r"\bfield\.color\(", file.read_text())]
    assert calls == [package / "shading" / "shade.py"]

"""Second derivatives of what rays see: against closed forms and finite differences of first derivatives, in float64."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from fisheye import Fisheye
from networks import Perceptron
from reference import double, sphere_t
from test_encoding import small
from torch import Tensor, nn
from torch.func import functional_call

from warpdvr import Camera, DenseMarch, Rays, reattach, render
from warpdvr.cameras.pose import perturb
from warpdvr.cameras.projection import ORTHOGRAPHIC, PINHOLE, Projection
from warpdvr.fields.adapter import as_field
from warpdvr.fields.analytic import Rotate, SmoothUnion, Sphere, Torus
from warpdvr.fields.base import Field
from warpdvr.fields.conditional import ConditionalOccupancy, Shapes
from warpdvr.rendering.surface import surface
from warpdvr.rendering.visibility import VisibleImage, boundary
from warpdvr.shading.lights import DirectionalLight
from warpdvr.shading.materials import Lambert

EYE = (0.4, -2.0, 0.7)
FACING = 0.4
"""Least cosine between ray and normal at the pixels that are compared: nudges must not move them off the surface."""


class Painted(Field):
    """A bumpy ball whose colour depends on place, normal, direction and features; all numbers are parameters."""

    def __init__(self, step: float | None = None) -> None:
        super().__init__(1.0)
        self.shape = nn.Parameter(torch.tensor([0.5, 0.1, -0.05, 0.02, 0.03]))
        self.paint, self.step = nn.Parameter(torch.tensor([0.7, -0.4])), step

    def geometry(self, x: Tensor) -> tuple[Tensor, Tensor]:
        waves = torch.sin(x * torch.tensor([7.0, 5.0, 6.0]).to(x) + self.paint[0])
        value = 1.3 * ((x - self.shape[1:4]).norm(dim=-1) - self.shape[0] + self.shape[4] * waves.prod(-1))
        return value, waves * self.paint[1]

    def value(self, x: Tensor) -> Tensor:
        return self.geometry(x)[0]

    def color(self, x: Tensor, normal: Tensor, direction: Tensor, feature: Tensor | None) -> Tensor:
        assert feature is not None
        return torch.sigmoid(feature + torch.sin(3 * x) * normal - direction * self.paint[0])


class Soft(nn.Module):
    """A ball bent by a small perceptron."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4), nn.Softplus(), nn.Linear(4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x.norm(dim=-1) - 0.5 + 0.2 * self.layers(x)[:, 0]


class Noisy(Field):
    """A plane bent by a hash encoding; the gradient of the value is piecewise bilinear."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(0.5)
        self.encode = small(torch.float64, device, levels=3, finest=5, features=1)
        self.to(device, torch.float64)

    def value(self, x: Tensor) -> Tensor:
        return -x[:, 1] + 0.03 * torch.tanh(self.encode(x)).sum(-1)


def camera(pose: Tensor | None = None, K: Tensor | None = None, projection: Projection = PINHOLE) -> Camera:
    seen = Camera.look_at(EYE, width=7, height=6, fov=35)
    scaled = projection.rescaled(seen.K, 1.0) if projection is PINHOLE else seen.K / torch.tensor([[2.0], [2.0], [1.0]])
    return Camera(scaled if K is None else K, seen.pose if pose is None else pose, 7, 6, projection)


def outcome(image: Any, keep: Tensor, what: str) -> Tensor:
    """Return a number that is not linear in what the kept pixels show."""
    shown = getattr(image, what)[keep]
    return (torch.linspace(0.5, 2, shown.numel()).to(shown).view(shown.shape) * (shown + 0.3 * shown**2)).sum()


def first(loss: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    at = at.detach().clone().requires_grad_()
    (g,) = torch.autograd.grad(loss(at), at)
    return g.view(-1)


def hessians(loss: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-4) -> tuple[Tensor, Tensor]:
    """Return second derivatives by autograd, and by central differences of first ones."""
    at = at.detach().clone().requires_grad_()
    (g,) = torch.autograd.grad(loss(at), at, create_graph=True)
    assert torch.allclose(g.view(-1), first(loss, at), rtol=1e-9, atol=1e-9)
    found = torch.stack([torch.autograd.grad(a, at, retain_graph=True)[0].view(-1) for a in g.view(-1)])
    nudges = step * torch.eye(at.numel()).to(at).view(-1, *at.shape)
    rows = [(first(loss, at + n) - first(loss, at - n)) / (2 * step) for n in nudges]
    return found, torch.stack(rows)


def agree(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> bool:
    assert expected.norm() > 0
    return bool((found - expected).norm() <= tolerance * expected.norm())


def weights_of(field: nn.Module, names: Sequence[str]) -> Tensor:
    return torch.cat([field.get_parameter(name).detach().reshape(-1) for name in names])


def with_weights(field: Any, names: Sequence[str], flat: Tensor, call: Callable[[Any], Tensor]) -> Tensor:
    """Return what `call` says of the field with other weights, which may themselves be differentiable."""
    shapes = [field.get_parameter(name).shape for name in names]
    parts = flat.split([shape.numel() for shape in shapes])
    wrapper = _Call(field, call)
    changed = {f"field.{name}": part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
    answer: Tensor = functional_call(wrapper, changed, ())
    return answer


class _Call(nn.Module):
    def __init__(self, field: nn.Module, call: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.field, self.call = field, call

    def forward(self) -> Tensor:
        return self.call(self.field)


def facing(field: Any, view: Camera, **options: Any) -> Tensor:
    """Return the pixels whose normals turn towards the camera."""
    with torch.no_grad():
        image = render(field, view, **options)
    cosine = -(image.normal.view(-1, 3) * view.rays(dtype=torch.float64).direction).sum(-1).view(image.mask.shape)
    keep: Tensor = image.mask & (cosine > FACING)
    assert keep.sum() >= 6
    return keep


FIELDS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "painted": (lambda: Painted().double(), ["shape", "paint"]),
    "differences": (lambda: Painted(step=0.02).double(), ["shape", "paint"]),
    "torus": (lambda: double(Rotate(Torus(0.5, 0.25), (0.9, 0.2, 0.1))), ["rotation", "part.major", "part.minor"]),
    "blend": (
        lambda: double(SmoothUnion([Sphere(0.4), Sphere(0.3, (0.3, -0.1, 0.1))], 0.1)),
        ["blend", "parts.0.radius", "parts.1.center"],
    ),
}


@pytest.mark.parametrize("what", ["depth", "normal", "rgb"])
@pytest.mark.parametrize("name", list(FIELDS))
def test_weights(name: str, what: str, device: torch.device) -> None:
    make, names = FIELDS[name]
    field, view = make().to(device), camera().to(device)
    keep = facing(field, view)

    def loss(flat: Tensor) -> Tensor:
        return with_weights(field, names, flat, lambda f: outcome(render(f, view), keep, what))

    assert agree(*hessians(loss, weights_of(field, names)))


@pytest.mark.parametrize("what", ["depth", "normal", "rgb"])
@pytest.mark.parametrize("name", ["pose", "K", "orthographic pose"])
def test_pose_and_intrinsics(name: str, what: str, device: torch.device) -> None:
    """Of a pose, the six numbers that keep it a rigid motion; of K, all that K has."""
    projection = ORTHOGRAPHIC if name.startswith("orthographic") else PINHOLE
    field, view = Painted().double().to(device), camera(projection=projection).to(device)
    keep = facing(field, view)
    free = torch.tensor([[1.0, 1, 1], [0, 1, 1], [0, 0, 0]]).bool()

    def loss(a: Tensor) -> Tensor:
        pose, K = (
            (view.pose, view.K.masked_scatter(free.to(a.device), a)) if name == "K" else (moved(view.pose, a), view.K)
        )
        return outcome(render(field, camera(pose, K, projection)), keep, what)

    at = view.K[free] if name == "K" else torch.tensor([0.01, -0.02, 0.01, 0.02, 0.0, -0.01]).to(view.pose)
    assert agree(*hessians(loss, at))


def moved(pose: Tensor, twist: Tensor) -> Tensor:
    return perturb(pose[None], twist[None])[0]


def test_weights_of_a_perceptron(device: torch.device) -> None:
    field, view = (
        double(Perceptron(nn.Softplus(beta=20), width=4, depth=2, lipschitz=3.0)).to(device),
        camera().to(device),
    )
    names, keep = [name for name, _ in field.named_parameters()], facing(field, view)
    weights = weights_of(field, names)
    directions = torch.randn(len(weights), 4, generator=torch.Generator().manual_seed(5)).to(weights)
    for what in ("depth", "normal"):

        def loss(a: Tensor, what: str = what) -> Tensor:
            moved = weights + 0.1 * directions @ a
            return with_weights(field, names, moved, lambda f: outcome(render(f, view), keep, what))

        found, expected = hessians(loss, torch.zeros(4).to(weights))
        assert agree(found, expected)
        assert agree(found, found.T, 1e-9)


def test_a_module_of_its_own(device: torch.device) -> None:
    field, view = as_field(Soft().double(), bounds=1.0).to(device), camera().to(device)
    names = ["module.layers.0.bias", "module.layers.4.bias"]
    keep = facing(field, view)
    for what in ("depth", "rgb"):

        def loss(flat: Tensor, what: str = what) -> Tensor:
            return with_weights(field, names, flat, lambda f: outcome(render(f, view), keep, what))

        assert agree(*hessians(loss, weights_of(field, names)))


def test_latent_codes_of_several_shapes(device: torch.device) -> None:
    decoder = ConditionalOccupancy(code=3, width=8, blocks=1).double().to(device)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)).to(parameter))
    codes, view = torch.randn(2, 3, generator=torch.Generator().manual_seed(1)).to(device).double(), camera().to(device)
    rays = view.rays(dtype=torch.float64)
    which = torch.arange(len(rays), device=device) % 2
    rays = Rays(rays.origin, rays.direction, which)
    with torch.no_grad():
        seen = surface(Shapes(decoder, codes), rays, DenseMarch())
    inner = seen.hit.ray[-(seen.normal * rays.direction[seen.hit.ray]).sum(-1) > FACING]

    def loss(codes: Tensor) -> Tensor:
        shown = surface(Shapes(decoder, codes), rays[inner], DenseMarch())
        return (shown.t.square() * torch.linspace(1, 2, len(inner)).to(codes)).sum() + (shown.color * shown.x).sum()

    assert len(inner) > 5
    assert agree(*hessians(loss, codes))


@pytest.mark.parametrize("shown", ["depth", "normal"])
@pytest.mark.parametrize("what", ["table", "rays"])
def test_a_hash_grid(what: str, shown: str, device: torch.device) -> None:
    """Its corners are looked up by kernels; depth needs two of their derivatives, normals three, mixed ones too."""
    field, view = Noisy(device), camera().to(device)
    rays = view.rays(dtype=torch.float64)
    with torch.no_grad():
        inner = surface(field, rays, DenseMarch()).hit.ray

    def number(field: Any, rays: Rays) -> Tensor:
        seen = surface(field, rays, DenseMarch())
        return seen.t.square().sum() if shown == "depth" else (seen.normal * (1 + seen.x)).pow(3).sum()

    def loss(a: Tensor) -> Tensor:
        if what == "rays":
            return number(field, Rays(rays.origin[inner] + a, rays.direction[inner]))
        table = weights_of(field, ["encode.table"]) + directions @ a
        return with_weights(field, ["encode.table"], table, lambda f: number(f, rays[inner]))

    directions = torch.randn(len(field.encode.table), 3, generator=torch.Generator().manual_seed(5)).to(rays.origin)
    at = torch.tensor([0.01, 0.02, -0.01]).to(rays.origin)
    assert agree(*hessians(loss, at, 1e-5))


def test_depth_squared_twice_by_radius_and_pose_is_the_closed_form(device: torch.device) -> None:
    """A ball in its closed form; without the term that is added, the first would be half, the second 0."""
    view, ball = camera().to(device), Sphere(0.5).to(device).double()
    keep = facing(ball, view).view(-1)
    radius = torch.tensor(0.5, dtype=torch.float64, device=device)

    def closed(a: Tensor) -> Tensor:
        pose = moved(view.pose, a[1:])
        rays = camera(pose).to(device).rays(dtype=torch.float64)[keep]
        t = sphere_t(rays.origin, rays.direction, radius + a[0])
        return (t * (rays.direction @ pose[:3, 2])).square().sum()

    def rendered(a: Tensor) -> Tensor:
        depth = with_weights(
            ball, ["radius"], radius + a[:1], lambda f: render(f, camera(moved(view.pose, a[1:]))).depth
        )
        return depth.view(-1)[keep].square().sum()

    at = torch.zeros(7, dtype=torch.float64, device=device)
    assert agree(torch.autograd.functional.hessian(rendered, at), torch.autograd.functional.hessian(closed, at), 1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_one_ray_through_a_ball(dtype: torch.dtype, device: torch.device) -> None:
    """At the distance b from its centre, t = c - sqrt(r^2 - b^2). By hand, twice by r, and by a shift of the ray."""
    r, b, c = 0.5, 0.216, 2.57
    q = (r * r - b * b) ** 0.5
    ball = Sphere(r).to(device, dtype)
    shift = torch.zeros(3, dtype=dtype, device=device, requires_grad=True)
    o, d = torch.tensor([[b, -c, 0.0]]).to(shift) + shift, torch.tensor([[0.0, 1, 0]]).to(shift)
    square = surface(ball, Rays(o, d), DenseMarch()).t.square().sum()
    inputs = [ball.radius, shift]
    by_radius, by_shift = torch.autograd.grad(square, inputs, create_graph=True)
    (twice,) = torch.autograd.grad(by_radius, ball.radius, retain_graph=True)
    rows = torch.stack([torch.autograd.grad(a, shift, retain_graph=True)[0] for a in by_shift])
    rel = 1e-6 if dtype == torch.float64 else 1e-4  # the numbers of the ray are rounded to float32
    assert twice.item() == pytest.approx(2 * r * r / q**2 + 2 * (c - q) * b * b / q**3, rel=rel)
    assert twice.item() == pytest.approx(4.62, abs=0.01) and 2 * r * r / q**2 == pytest.approx(2.46, abs=0.01)
    t, slope, bend = c - q, b / q, 1 / q + b * b / q**3  # t' and t'' by the shift across
    expected = [[2 * slope**2 + 2 * t * bend, -2 * slope, 0], [-2 * slope, 2, 0], [0, 0, 2 * t / q]]
    assert torch.allclose(rows, torch.tensor(expected).to(rows), rtol=1e-4, atol=1e-5)


def test_a_material_under_lights(device: torch.device) -> None:
    field, view = Painted().double().to(device), camera().to(device)
    options: Any = {"material": Lambert(), "lights": [DirectionalLight((0.3, -1.0, 0.5))]}
    keep = facing(field, view, **options)

    def loss(flat: Tensor) -> Tensor:
        return with_weights(field, ["shape"], flat, lambda f: outcome(render(f, view, **options), keep, "rgb"))

    assert agree(*hessians(loss, weights_of(field, ["shape"])))


def test_float32_is_right_to_a_thousandth(device: torch.device) -> None:
    """Rays come from the kernel there, and their derivatives from its definition in Torch."""
    twist = torch.zeros(6, dtype=torch.float64, device=device)

    def loss(a: Tensor, field: Field) -> Tensor:
        return outcome(render(field, camera(moved(camera().pose.to(a.device), a))), keep, "depth")

    field = Painted().to(device)
    keep = facing(double(field), camera().to(device))
    found, expected = (
        torch.autograd.functional.hessian(lambda a, f=f: loss(a, f), twist) for f in (field, double(field))
    )
    assert agree(found, expected, 1e-3)


@pytest.mark.parametrize("types", [(torch.float32, torch.float64), (torch.float64, torch.float32)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_pose_may_have_another_type_than_K(types: Any, dtype: torch.dtype, device: torch.device) -> None:
    view = camera().to(device)
    pose, K = (a.to(t).requires_grad_() for a, t in zip((view.pose, view.K), types, strict=True))
    found = torch.autograd.grad(render(Sphere().to(device, dtype), camera(pose, K)).depth.nansum(), [pose, K])
    pose, K = (a.detach().double().requires_grad_() for a in (pose, K))
    expected = torch.autograd.grad(render(Sphere().to(device, dtype), camera(pose, K)).depth.nansum(), [pose, K])
    assert all(agree(f.double(), e) for f, e in zip(found, expected, strict=True))


def ball_in_view(device: torch.device) -> tuple[Sphere, Camera]:
    return Sphere().to(device), Camera.look_at(EYE, width=24, height=20).to(device)


@pytest.mark.parametrize("what", ["silhouette", "outline term", "mean over a pixel"])
def test_what_has_no_second_derivative_says_so(what: str, device: torch.device) -> None:
    field, view = ball_in_view(device)
    image = render(field, view, silhouette=50.0, outline=True)
    assert image.silhouette is not None
    flat = {name: getattr(image, name).detach().flatten(0, 1) for name in ("status", "depth", "normal")}
    seen = VisibleImage(view.rays(), (1, 20, 24), flat["status"], flat["depth"], flat["normal"], 1 + 0 * flat["normal"])
    shown = {
        "silhouette": image.silhouette,
        "outline term": boundary(field, seen, DenseMarch())[0],
        "mean over a pixel": image.normal[image.mask][:, 2],
    }[what]
    (plain,) = torch.autograd.grad(shown.exp().sum(), field.radius, retain_graph=True)
    (g,) = torch.autograd.grad(shown.exp().sum(), field.radius, create_graph=True)
    assert torch.allclose(g, plain, rtol=1e-5) and g != 0
    with pytest.raises(RuntimeError, match=r"second derivatives of .* are not provided"):
        torch.autograd.grad(g, field.radius)


def test_a_third_derivative_says_so(device: torch.device) -> None:
    field, view = ball_in_view(device)
    (g,) = torch.autograd.grad(render(field, view).depth.nansum(), field.radius, create_graph=True)
    (h,) = torch.autograd.grad(g, field.radius, create_graph=True)
    with pytest.raises(RuntimeError, match="third derivatives"):
        torch.autograd.grad(h, field.radius)


def test_reattach_alone_refuses_second_derivatives_but_not_products_with_its_jacobian(device: torch.device) -> None:
    o, d = (
        torch.tensor([[0.0, -2, 0.1], [0.1, -2, 0.0]]).double().to(device),
        torch.tensor([[0.0, 1, 0]]).double().to(device),
    )
    t, radius = sphere_t(o, d.expand(2, 3), 0.5), torch.tensor(0.5, dtype=torch.float64, device=device)

    def lengths(radius: Tensor) -> Tensor:
        return reattach(lambda x: x.norm(dim=-1) - radius, o, d.expand(2, 3), t)

    _, along = torch.autograd.functional.jvp(lengths, radius, torch.ones_like(radius), create_graph=False)
    assert torch.allclose(along, -0.5 / (0.25 - 0.01) ** 0.5 * torch.ones_like(along))
    radius.requires_grad_()
    (g,) = torch.autograd.grad(lengths(radius).square().sum(), radius, create_graph=True)
    with pytest.raises(RuntimeError, match=r"reattach: .* second ones come from render"):
        torch.autograd.grad(g, radius)


def test_the_parameters_of_a_projection(device: torch.device) -> None:
    field, view = Painted().double().to(device), camera().to(device)
    k = torch.tensor(0.4, dtype=torch.float64, device=device)

    def seen(a: Tensor) -> Any:
        return render(field, Camera(view.K, view.pose, 7, 6, Fisheye(a)))

    with torch.no_grad():
        keep = seen(k).mask & (seen(k + 0.01).mask & seen(k - 0.01).mask)
    keep[:, [0, -1]] = False
    assert keep.sum() > 5
    assert agree(*hessians(lambda a: outcome(seen(a), keep, "depth") + outcome(seen(a), keep, "rgb"), k))

"""Voxels of density against a float64 twin, finite differences, and closed forms of walls and slabs."""

import math
from itertools import product

import pytest
import torch

from warpdvr.cameras.rays import Rays
from warpdvr.kernels import density_voxels as kernels
from warpdvr.rendering import density_voxels
from warpdvr.rendering.density_voxels import FAINT, Composited, DensityVoxels

STEEPNESS, OPAQUE = float(kernels.STEEPNESS), float(kernels.OPAQUE)

CUBE = torch.tensor([[-1.0] * 3, [1.0] * 3])
SLAB = torch.tensor([[-0.5, -1.0, 0.2], [0.7, 1.0, 3.0]])
"""Bounds with three different sides, off the origin."""


def random_voxels(bounds=CUBE, resolution=12, share=0.6, seed=0):
    """Voxels with random densities and colours, some of them empty."""
    generator = torch.Generator().manual_seed(seed)
    voxels = DensityVoxels(bounds, torch.rand((resolution,) * 3, generator=generator) < share)
    with torch.no_grad():
        voxels.table[:, 0] = 0.3 * torch.rand(len(voxels.table), generator=generator) - 0.3
        voxels.table[:, 1:] = torch.rand(len(voxels.table), 3, generator=generator)
    return voxels


def moved(voxels, device):
    """The same voxels on another device."""
    return DensityVoxels.from_state(voxels.bounds.to(device), voxels.state())


def random_rays(n, bounds=CUBE, seed=1):
    """Rays from outside of the bounds to random places in them."""
    generator = torch.Generator().manual_seed(seed)
    centre, half = (bounds[0] + bounds[1]) / 2, (bounds[1] - bounds[0]) / 2
    origin = centre + 3 * torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=1) * half.norm()
    target = centre + half * (2 * torch.rand(n, 3, generator=generator) - 1)
    return Rays(origin, torch.nn.functional.normalize(target - origin, dim=1))


def box_range(rays, bounds):
    """Where each ray enters and leaves a box, float64."""
    a, b = ((plane.double() - rays.origin.double()) / rays.direction.double() for plane in bounds)
    return torch.minimum(a, b).amax(1).clamp_min(0), torch.maximum(a, b).amin(1)


def twin(voxels, table, rays, jitter=0.5):
    """Colour, light left and half-way length of each ray, in float64 Torch, from the definition alone."""
    low, side = voxels.bounds[0].double(), voxels.side.double()
    step, r = float(side.min()), voxels.resolution
    near, far = box_range(rays, voxels.bounds)
    k = torch.arange(int((far - near).max() / step) + 2)
    t = near[:, None] + (k + torch.as_tensor(jitter).double().reshape(-1, 1)) * step
    p = (rays.origin.double()[:, None] + t[..., None] * rays.direction.double()[:, None] - low) / side
    cell = p.detach().floor().long().clamp(0, r - 1)
    place = p - cell
    full = voxels.occupied[tuple(cell.unbind(-1))] & (t < far[:, None])
    found = torch.zeros(*t.shape, 4, dtype=torch.float64)
    for corner in product((0, 1), repeat=3):
        weight = torch.where(torch.tensor(corner) == 1, place, 1 - place).prod(-1)
        row = voxels.row[tuple((cell + torch.tensor(corner)).unbind(-1))].long()
        found = found + torch.where(full, weight, 0)[..., None] * table[row.clamp_min(0)]
    opacity = torch.where(full, torch.sigmoid(STEEPNESS * found[..., 0]), 0)
    light = torch.cumprod(torch.cat([torch.ones(len(t), 1), 1 - opacity], 1), 1)
    opacity = torch.where(light[:, :-1] >= OPAQUE, opacity, 0)  # a ray ends where hardly any light is left
    light = torch.cumprod(torch.cat([torch.ones(len(t), 1), 1 - opacity], 1), 1)
    color = ((light[:, :-1] * opacity)[..., None] * found[..., 1:]).sum(1)
    part = torch.log(0.5 / light[:, :-1]) / torch.log1p(-opacity.detach())  # light falls by equal factors in a step
    half = torch.where((light[:, 1:] <= 0.5) & (light[:, :-1] > 0.5), t + step * (part - 0.5), torch.inf).amin(1)
    return color, light[:, -1], half


def fill(voxels, logit, color=(0.2, 0.4, 0.6)):
    """Give all corners one density and colour."""
    with torch.no_grad():
        voxels.table[:] = torch.tensor([logit / STEEPNESS, *color])
    return voxels


@torch.no_grad()
def look(voxels, rays, jitter=None):
    return voxels.render(rays, jitter)


def along_z(x=0.1, y=0.1, z=-3.0):
    return Rays(torch.tensor([[x, y, z]]), torch.tensor([[0.0, 0.0, 1.0]]))


@pytest.mark.parametrize("bounds", [CUBE, SLAB], ids=["cube", "three sides"])
@pytest.mark.parametrize("resolution", [5, 12, 19])
def test_value_and_gradient_are_those_of_the_twin(bounds, resolution, device):
    voxels, rays = random_voxels(bounds, resolution), random_rays(300, bounds)
    jitter = torch.rand(300, generator=torch.Generator().manual_seed(2))
    table = voxels.table.detach().double().requires_grad_()
    color, left, t = twin(voxels, table, rays, jitter)
    there = moved(voxels, device)
    seen = there.render(Rays(rays.origin.to(device), rays.direction.to(device)), jitter.to(device))
    seen = Composited(*(a.cpu() for a in seen))
    # a sample on the face between a full and an empty cell may belong to either
    near_enough = (seen.color - color).abs().amax(1) < 1e-4
    assert near_enough.float().mean() > 0.97 and 0.05 < float(left.detach().mean()) < 0.9
    assert torch.allclose(seen.left[near_enough].double(), left[near_enough], atol=1e-4)
    assert torch.allclose(seen.t[near_enough].double(), t[near_enough], atol=1e-4)
    by_color, by_left = torch.randn(300, 3), torch.randn(300)
    by_color[~near_enough], by_left[~near_enough] = 0, 0
    ((color * by_color).sum() + (left * by_left).sum()).backward()
    ((seen.color * by_color).sum() + (seen.left * by_left).sum()).backward()
    assert there.table.grad is not None and table.grad is not None
    ours, theirs = there.table.grad.cpu(), table.grad
    assert theirs[:, 0].norm() > 1
    for part in (slice(0, 1), slice(1, 4)):
        assert (ours[:, part] - theirs[:, part]).norm() < 1e-3 * theirs[:, part].norm()


def test_the_gradient_is_that_of_finite_differences():
    voxels, rays = random_voxels(), random_rays(400)
    weight = torch.randn(400, 4, generator=torch.Generator().manual_seed(3))

    def loss():
        seen = voxels.render(rays)
        return (torch.cat([seen.color, seen.left[:, None]], 1) * weight).double().sum()

    loss().backward()
    by_table = voxels.table.grad
    assert by_table is not None
    for column in (0, 1, 3):
        way = torch.zeros_like(voxels.table)
        way[:, column] = torch.randn(len(way), generator=torch.Generator().manual_seed(4))
        ends = []
        for h in (1e-3, -1e-3):
            with torch.no_grad():
                voxels.table += h * way
                ends.append(float(loss()))
                voxels.table -= h * way
        assert (ends[0] - ends[1]) / 2e-3 == pytest.approx(float((by_table * way).sum()), rel=5e-3)


@pytest.mark.parametrize("logit", [-6.0, -1.0, 0.0])
def test_a_block_of_one_density_passes_a_power_of_what_a_cell_passes(logit):
    """Along an axis n samples lie in n cells, each of which leaves 1 - sigmoid."""
    voxels = fill(DensityVoxels(CUBE, torch.ones((8,) * 3, dtype=torch.bool)), logit)
    seen = look(voxels, along_z())
    left = (1 - 1 / (1 + math.exp(-logit))) ** 8
    assert float(seen.left) == pytest.approx(left, rel=1e-4)
    assert seen.color[0].tolist() == pytest.approx([a * (1 - left) for a in (0.2, 0.4, 0.6)], rel=1e-4)


def test_a_ray_ends_where_hardly_any_light_is_left():
    """In cells that each leave a fifth, after five samples: 0.2^4 > 0.001 > 0.2^5."""
    voxels = fill(DensityVoxels(CUBE, torch.ones((12,) * 3, dtype=torch.bool)), math.log(4))
    assert float(look(voxels, along_z()).left) == pytest.approx(0.2**5, rel=1e-4)


def test_the_length_of_a_ray_ends_at_the_first_opaque_wall():
    """Two walls, two cells thick, so that the samples of a ray along z lie between corners of one density."""
    r = 16
    voxels = fill(DensityVoxels(CUBE, torch.ones((r,) * 3, dtype=torch.bool)), -30.0)
    with torch.no_grad():
        for front, color in ((4, (1.0, 0.0, 0.0)), (10, (0.0, 1.0, 0.0))):
            wall = (voxels.corner[:, 2] == front) | (voxels.corner[:, 2] == front + 1)
            voxels.table[wall] = torch.tensor([0.0, *color])
    seen = look(voxels, along_z())
    # of a wall only the sample between two equal corners has logit 0; those beside it have -15
    faint = 1 / (1 + math.exp(15))
    assert float(seen.left) == pytest.approx(0.25 * (1 - faint) ** 4, abs=1e-5)
    assert seen.color[0].tolist() == pytest.approx([0.5, 0.25, 0.0], abs=1e-5)
    assert float(seen.t) == pytest.approx(3 - 1 + (4 + 1) * 2 / r, abs=1e-5)  # the end of the middle step
    back = look(voxels, Rays(torch.tensor([[0.1, 0.1, 3.0]]), torch.tensor([[0.0, 0.0, -1.0]])))
    assert float(back.t) == pytest.approx(3 - 1 + (r - 11 + 1) * 2 / r, abs=1e-5)
    assert back.color[0].tolist() == pytest.approx([0.25, 0.5, 0.0], abs=1e-5)


def test_jitter_moves_the_first_sample_by_a_part_of_a_step():
    """In an opaque block half of the light is left soon after the beginning of the first step, around its sample."""
    voxels = fill(DensityVoxels(CUBE, torch.ones((8,) * 3, dtype=torch.bool)), 20.0)
    for jitter in (0.0, 0.25, 0.9):
        t = look(voxels, along_z(), torch.tensor([jitter])).t
        assert float(t) == pytest.approx(2 + (jitter - 0.5 + math.log(2) / 20) * 0.25, abs=1e-4)


@pytest.mark.parametrize("bounds", [CUBE, SLAB], ids=["cube", "three sides"])
def test_skipping_empty_blocks_changes_nothing(bounds):
    r = 37  # the last blocks are cut
    occupied = torch.zeros((r,) * 3, dtype=torch.bool)
    occupied[9:15, 20:27, 30:] = True
    occupied[30:, 2:5, 3:20] = True
    occupied[16:24, 16:24, 16:24] = True
    voxels = fill(DensityVoxels(bounds, occupied), -2.0)
    assert 0.02 < float(voxels._packed.members["block"].float().mean()) < 0.5
    rays = random_rays(2000, bounds)
    weight = torch.randn(2000, 3)

    def results():
        voxels.table.grad = None
        seen = voxels.render(rays)
        (seen.color * weight).sum().backward()
        return *seen, voxels.table.grad

    quick = results()
    voxels._packed.members["block"].fill_(True)
    assert (quick[1] < 0.5).any()
    assert all(torch.equal(a, b) for a, b in zip(quick, results(), strict=True))


def test_rays_that_miss_see_nothing():
    voxels = fill(DensityVoxels(CUBE, torch.ones((8,) * 3, dtype=torch.bool)), 20.0)
    away = Rays(torch.tensor([[0.1, 0.1, 3.0], [5.0, 0.0, -3.0]]), torch.tensor([[0.0, 0.0, 1.0]]).repeat(2, 1))
    seen = look(voxels, away)
    assert seen.color.eq(0).all() and seen.left.eq(1).all() and seen.t.isinf().all()
    inside = look(voxels, along_z(z=0.0))
    assert float(inside.t) == pytest.approx(math.log(2) / 20 * 0.25, abs=1e-5) and float(inside.left) < OPAQUE
    assert all(len(part) == 0 for part in look(voxels, Rays(torch.zeros(0, 3), torch.zeros(0, 3))))


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_what_is_no_ray_sees_nothing_and_teaches_nothing(number):
    voxels = fill(DensityVoxels(CUBE, torch.ones((8,) * 3, dtype=torch.bool)), 0.0)
    origin, direction = torch.zeros(8, 3), torch.zeros(8, 3)
    direction[:7, 2] = 1
    direction[7] = 0  # from within: no end
    for i in range(3):
        origin[i, i], direction[3 + i, i] = number, number
    origin[6, 2] = -3
    seen = voxels.render(Rays(origin, direction))
    wrong = torch.tensor([True] * 6 + [False, True])
    assert seen.color[wrong].eq(0).all() and seen.left[wrong].eq(1).all() and seen.t[wrong].isinf().all()
    seen.color.sum().backward()
    alone = fill(DensityVoxels(CUBE, torch.ones((8,) * 3, dtype=torch.bool)), 0.0)
    alone.render(Rays(origin[6:7], direction[6:7])).color.sum().backward()
    assert torch.equal(voxels.table.grad, alone.table.grad)


def test_a_camera_at_any_distance_comes_to_an_end():
    """A step is less than the rounding of the ray lengths."""
    voxels = fill(DensityVoxels(CUBE, torch.ones((32,) * 3, dtype=torch.bool)), 0.0)
    seen = look(voxels, along_z(z=-1e7))
    assert bool(seen.left.isfinite()) and bool(seen.color.isfinite().all())


def test_light_is_differentiated_once():
    voxels = random_voxels()
    seen = voxels.render(random_rays(50))
    for part in (seen.color, seen.left):
        (grad,) = torch.autograd.grad(part.sum(), voxels.table, create_graph=True)
        with pytest.raises(RuntimeError, match="density voxels: second derivatives are not provided"):
            grad.square().sum().backward()
    assert not seen.t.requires_grad


def test_cells_without_density_are_left_out_and_colours_stay_colours():
    voxels = DensityVoxels(CUBE, torch.ones((16,) * 3, dtype=torch.bool))
    with torch.no_grad():
        voxels.table[:, 0] = FAINT - 0.1
        voxels.table[(voxels.corner == 5).all(1), 0] = FAINT + 0.1
        voxels.table[:, 1:] = torch.tensor([-3.0, 0.5, 3.0])
    voxels.prune()
    kept = torch.zeros_like(voxels.occupied)
    kept[4:6, 4:6, 4:6] = True
    assert torch.equal(voxels.occupied, kept)
    assert torch.equal(voxels.table[:, 1:], torch.tensor([0.0, 0.5, 1.0]).expand(len(voxels.table), 3))
    rays = random_rays(100)
    voxels.table.data[:, 0] = 1.0
    assert float(look(voxels, rays).left.mean()) > 0.9  # what was left out is no longer seen ...
    voxels.prune()
    assert voxels.occupied.all() and float(look(voxels, rays).left.mean()) < 0.1  # ... unless it has filled again


def test_cells_that_are_not_allowed_stay_empty():
    allowed = torch.zeros((16,) * 3, dtype=torch.bool)
    allowed[3:5] = True
    voxels = fill(DensityVoxels(CUBE, allowed), 20.0)
    voxels.prune()
    assert torch.equal(voxels.occupied, allowed) and len(voxels.table) == 3 * 17 * 17


def test_a_state_holds_everything():
    voxels, rays = random_voxels(SLAB), random_rays(200, SLAB)
    voxels.table.data[voxels.corner[:, 0] < 6, 0] = FAINT - 0.1
    voxels.prune()
    again = DensityVoxels.from_state(SLAB, voxels.state())
    for a, b in zip(look(voxels, rays), look(again, rays), strict=True):
        assert torch.equal(a, b)
    assert voxels.allowed.sum() > voxels.occupied.sum()
    for some in (voxels, again):
        some.table.data[:, 0] = 0
        some.prune()
    assert torch.equal(voxels.occupied, again.occupied)


DAMAGE = {
    "no table": lambda s: s.pop("table"),
    "no cells": lambda s: s.pop("allowed"),
    "nothing occupied": lambda s: s.pop("occupied"),
    "fewer rows": lambda s: s.update(table=s["table"][1:]),
    "other cells": lambda s: s.update(allowed=s["allowed"].flip(0)),
    "a box": lambda s: s.update(allowed=s["allowed"][:, :-1]),
    "a plane": lambda s: s.update(allowed=s["allowed"][0]),
    "none": lambda s: s.update(allowed=s["allowed"][:0, :0, :0]),
    "fewer occupied": lambda s: s.update(occupied=s["occupied"][:-1]),
    "more occupied": lambda s: s.update(occupied=torch.ones_like(s["occupied"])),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_state_is_refused(damage):
    """Cells outside of the table would be read from anywhere in memory."""
    state = random_voxels(seed=5).state()
    damage(state)
    with pytest.raises(ValueError, match=r"^fit: the saved voxels of its beginning do not belong together$"):
        DensityVoxels.from_state(CUBE, state)


def test_numbers_of_the_module_are_what_their_texts_say():
    for logit, lost in ((density_voxels.FAINT, 0.007), (density_voxels.START, 0.018)):
        assert 1 / (1 + math.exp(-STEEPNESS * logit)) == pytest.approx(lost, rel=0.05)


def test_rays_shared_between_threads_see_and_teach_the_same(monkeypatch):
    """Each thread adds to a gradient of its own; the sums differ by rounding alone."""
    monkeypatch.setattr(density_voxels, "SPAN", 16)
    voxels, rays = random_voxels(), random_rays(203)
    results = []
    for threads in (1, 3):
        monkeypatch.setattr(density_voxels, "workers", lambda threads=threads: threads)
        seen = voxels.render(rays)
        (seen.color.sin().sum() + seen.left.square().sum()).backward()
        results.append((seen.color.detach(), seen.left.detach(), seen.t, voxels.table.grad))
        voxels.table.grad = None
    alone, shared = results
    assert all(torch.equal(a, b) for a, b in zip(alone[:3], shared[:3], strict=True))
    torch.testing.assert_close(shared[3], alone[3], rtol=1e-4, atol=1e-5)
    assert alone[3].abs().max() > 0.1


@pytest.mark.parametrize("bounds", [CUBE, SLAB], ids=["cube", "slab"])
def test_smaller_cells_hold_the_same_densities_and_colours(bounds, device):
    """Trilinear between the corners that there were; where a block was empty, nothing is added far from it."""
    voxels = moved(random_voxels(bounds, resolution=8, share=2.0), device)
    with torch.no_grad():
        voxels.table[voxels.corner[:, 0] > 4, 0] = 2 * FAINT
    voxels.prune()
    finer = voxels.refined(12)
    assert finer.resolution == 12 and not finer.occupied[11].any() and finer.occupied[:6].all()
    dense = torch.zeros(4, 9, 9, 9, device=device)
    dense[:, voxels.corner[:, 0], voxels.corner[:, 1], voxels.corner[:, 2]] = voxels.table.detach().T
    place = (2 * finer.corner / 12 - 1).flip(1)[None, None, None]  # as grid_sample takes it
    expected = torch.nn.functional.grid_sample(dense[None], place, align_corners=True)[0, :, 0, 0].T
    near = finer.corner[:, 0] <= 12
    torch.testing.assert_close(finer.table.detach()[near], expected[near], rtol=0, atol=1e-5)


def test_smaller_cells_are_only_where_they_are_allowed():
    allowed = torch.zeros(8, 8, 8, dtype=torch.bool)
    allowed[:4] = True
    finer = DensityVoxels(CUBE, allowed).refined(12)
    assert finer.allowed[:6].all() and not finer.allowed[6:].any()

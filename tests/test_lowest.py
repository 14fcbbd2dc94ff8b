"""The lowest value on a ray: against closed forms, and counted."""

import torch
from reference import Asked, aimed, beams, in_double
from torch import Tensor

from warpdvr import DenseMarch
from warpdvr.intersection.lowest import bracket_lowest, lengths_behind, lowest_on, refine_lowest, values_along


def ball() -> Asked:
    return Asked(lambda x: x.norm(dim=-1) - 0.5, lipschitz=1.0)


def closest(rays) -> Tensor:
    """Return the ray lengths where rays come closest to the origin, float64."""
    o, d = in_double(rays)
    return -(o * d).sum(1)


def test_behind_a_hit_it_is_found_to_the_distance_of_the_samples_and_counted(device):
    field, rays = ball().to(device), aimed(400, spread=0.3, device=device)
    hit = DenseMarch(64)(field, rays)
    field.asked = 0
    t, evaluations = lowest_on(field, rays, hit, depths=16)
    assert evaluations == field.asked == 17 * len(hit.ray) > 17 * 100
    behind = lengths_behind(hit.t, rays[hit.ray].clip(field.bounds)[1] - hit.t, 16)
    assert torch.allclose(behind[:, -1], rays[hit.ray].clip(field.bounds)[1]) and torch.equal(behind[:, 0], hit.t)
    spacing = behind.diff(dim=1).amax(1)
    off = t[hit.ray].cpu() - closest(rays)[hit.ray.cpu()]
    assert (off.abs() <= spacing.cpu()).all()
    missed = torch.ones(len(rays), dtype=torch.bool, device=device).index_fill(0, hit.ray, False)
    assert torch.equal(t[missed], hit.nearest[missed])
    near, _ = lowest_on(field, rays, hit, depths=16, max_depth=0.01)
    assert ((near[hit.ray] >= hit.t) & (near[hit.ray] <= hit.t + 0.0101)).all()


def test_parabolas_find_it_exactly(device):
    field, rays = ball().to(device), aimed(200, spread=0.6, device=device)
    exact = closest(rays)
    t, width = bracket_lowest(field, rays, torch.linspace(0.5, 4.0, 30, device=device).expand(200, 30))
    assert (t.cpu() - exact).abs().max() < 0.13 and torch.allclose(width, torch.full_like(width, 3.5 / 29), atol=1e-5)
    o, d = in_double(rays)
    distance = (o + exact[:, None] * d).norm(dim=1)
    refined = refine_lowest(field, rays, t, width)
    excess = values_along(field, rays, refined[:, None])[:, 0].cpu().double() + 0.5 - distance
    assert excess.abs().max() < 2e-5
    nowhere = refine_lowest(
        field, beams((0, 0, 3), (0, 0, 1), device), torch.tensor([torch.nan], device=device), width[:1]
    )
    assert nowhere.isnan().all()

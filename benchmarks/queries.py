"""Field queries per ray beside DVR, DIST and IDR: same fields, same rays, and what is missed.

    python benchmarks/queries.py [--data FOLDER] [--only NAME ...] [--size N]

Prints Markdown. The peers ran with their own code on the same fields and rays; their counts are noted here. The four
trained networks (Sharp and Jacobson 2022) need the data sets, WARPDVR_DATA or --data, and are left out without them.
"""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from networks import SLOPE, TRAINED, Perceptron, bumpy, trained, two, view  # noqa: E402
from reference import Asked, clip, double, first_crossing, in_double, weight_gradient  # noqa: E402

from warpdvr import DenseMarch, Rays, SphereTrace  # noqa: E402
from warpdvr.intersection.grid import BoundGrid  # noqa: E402
from warpdvr.rendering.surface import surface  # noqa: E402

HEAD = """| field | method | hits | missed | extra | max depth error | queries/ray | per hit | gradient |
|---|---|---|---|---|---|---|---|---|"""

PEERS = {
    "mlp": """| mlp | DVR n = 64 / 128 | 939 / 939 of 939 | 0 / 0 | | 8.7e-6 / 3.9e-6 | 65.8 / 129.8 | | 1.000 / 1.000 |
| mlp | DIST pyramid / recursive | 924 / 924 of 939 | 15 / 15 | | 7.2e-4 / 6.9e-4 | 10.0 / 15.1 | | 0.976 / 0.36 |
| mlp | IDR eval / train | 939 / 939 of 939 | 0 / 0 | | 9.0e-5 / 9.0e-5 | 41.6 / 114.0 | | 1.000 / 1.000 |""",
    "mlprelu": """| mlprelu | DVR n = 64 / 128 | 947 / 948 of 948 | 1 / 0 | | 3e-5 / 1e-5 | 65.8 / 129.9 | | 1 / 1 |
| mlprelu | DIST pyramid / recursive | 944 / 944 of 948 | 4 / 4 | | 1.9e-2 / 7.9e-4 | 8.7 / 13.6 | | .695 / 0.39 |
| mlprelu | IDR eval / train | 948 / 948 of 948 | 0 / 0 | | 9e-5 / 9e-5 | 22.5 / 97.3 | | 1.000 / 1.00 |""",
    "sphere": """| sphere | DVR n = 64 / 128 | of 3940 | 0 / 1 | | 2e-6 / 1e-6 | 65.9 / 129.9 | | |
| sphere | DIST pyramid / recursive | of 3940 | 16 / 16 | | 7.3e-4 / 7.1e-4 | 8.6 / 13.6 | | |
| sphere | IDR eval | of 3940 | 0 | | 9.2e-5 | 19.6 | | |""",
    "two": """| two | DVR n = 64 / 128 | of 2002 | 3 / 0 | | 3.7e-5 / 6.9e-6 | 65.0 / 129.0 | | |
| two | DIST pyramid / recursive | of 2002 | 6 / 6 | | 7.3e-3 / 1.6e-3 | 8.7 / 13.7 | | |
| two | IDR eval | of 2002 | 0 | | 1.0e-4 | 14.1 | | |""",
    "bumpy": """| bumpy | DVR n = 64 / 128 | of 3130 | 0 / 0 | | 4.3e-4 / 8.6e-6 | 65.5 / 129.5 | | 1.000 / 1.00 |
| bumpy | DIST pyramid / recursive | of 3130 | 16 / 16 | | 2.0e-3 / 1.7e-3 | 9.0 / 14.0 | | 0.91 / 0.50 |
| bumpy | IDR eval | of 3130 | 0 | | 9.6e-5 | 28.3 | | 1.000 / 1.000 |""",
}


@dataclass(frozen=True)
class Case:
    """A field and a view of it."""

    make: Callable[[], Any]
    """Makes the field."""
    slope: float | None
    """A bound of |grad value|, for the reference."""
    size: int
    """The view has size x size rays."""
    distance: float = 1.6
    """From the camera to the origin [scene unit]."""


LARGE = 256
"""Views of this many pixels on a side or more are left out for `DenseMarch`, which would take hours."""


def cases(data: Path) -> dict[str, Case]:
    found = {
        "mlp": Case(lambda: Perceptron(nn.Softplus(beta=100), lipschitz=1.2), 1.5, 64),
        "mlprelu": Case(lambda: Perceptron(nn.ReLU(), lipschitz=1.3), 1.5, 64),
        "sphere": Case(lambda: Asked(lambda x: x.norm(dim=-1) - 0.4, lipschitz=1.0), 1.0, 128),
        "two": Case(lambda: Asked(two, lipschitz=1.0), 1.0, 128),
        "bumpy": Case(lambda: Asked(bumpy, lipschitz=1.2), 1.2, 128),
    }
    if data.is_dir():
        for name in TRAINED:
            found[name] = Case(lambda name=name: trained(data, name), SLOPE[name], 64, 2.5)  # type: ignore[misc]
    for scale in (1.5, 2.0):
        ball = lambda x, scale=scale: scale * (x.norm(dim=-1) - 0.4)  # noqa: E731
        found[f"sphere x {scale}"] = Case(lambda f=ball, s=scale: Asked(f, lipschitz=s), scale, 128)  # type: ignore[misc]
        found[f"sphere x {scale}, bound 1"] = Case(lambda f=ball: Asked(f, lipschitz=1.0), scale, 128)  # type: ignore[misc]
    return found


def rows(name: str, case: Case, size: int) -> list[str]:
    """Return the lines of the table for one field."""
    field, rays = case.make(), view(size, distance=case.distance)
    o, d = in_double(rays)
    large = sum(p.numel() for p in field.parameters()) > 100_000
    precise = field if large else double(field)  # float64 takes too long there
    if large:
        o, d = o.float(), d.float()
    expected = first_crossing(precise, o, d, clip(o, d, field.bounds), 1024, case.slope).double()
    solvers: dict[str, Any] = {"DenseMarch(128)": DenseMarch()} if size < LARGE else {}
    if field.lipschitz is not None:
        solvers["SphereTrace()"] = SphereTrace()
    grid = BoundGrid(field)
    if size < LARGE:
        solvers[f"DenseMarch(grid) [{grid.evaluations:,}]"] = DenseMarch(grid=grid)
    solvers[f"SphereTrace(grid) [{grid.evaluations:,}]"] = SphereTrace(grid=grid)
    found = [row(name, label, solve, field, rays, expected) for label, solve in solvers.items()]
    more, solve = grid.sharpen(field), SphereTrace(grid=grid)
    return [*found, row(name, f"second picture [{more:,} more]", solve, field, rays, expected)]


def row(name: str, label: str, solve: Any, field: Any, rays: Rays, expected: Tensor) -> str:
    hit = solve(field, rays)
    t = torch.full((len(rays),), torch.nan, dtype=torch.float64)
    t[hit.ray] = hit.t.double()
    seen, should = ~t.isnan(), ~expected.isnan()
    error = (t - expected).abs()[seen & should].max()
    cells = [
        f"{name}, {len(rays):,} rays",
        f"warpdvr {label}",
        f"{int((seen & should).sum())} of {int(should.sum())}",
        f"{int((should & ~seen).sum())}",
        f"{int((seen & ~should).sum())}",
        f"{error:.1e}",
        f"**{hit.evaluations / len(rays):.2f}** ({hit.evaluations:,})",
        f"{hit.evaluations / len(hit.ray):.2f}",
        gradient(solve, field, rays, expected) if list(field.parameters()) else "",
    ]
    return f"| {' | '.join(cells)} |"


def gradient(solve: Any, field: Any, rays: Rays, expected: Tensor) -> str:
    """Return cosine and scale of d(sum w t)/d(weights) against the exact one in float64, over hits of one crossing."""
    torch.manual_seed(1)
    w = torch.randn(len(rays))
    seen = surface(field, rays, solve)
    common = (seen.hit.t - expected[seen.hit.ray]).abs() < 1e-4
    ray = seen.hit.ray[common]
    found = torch.autograd.grad((w[ray] * seen.t[common]).sum(), list(field.parameters()))
    flat = torch.cat([g.flatten() for g in found]).double()
    o, d = in_double(rays)
    exact = weight_gradient(double(field), o[ray], d[ray], expected[ray], w[ray].double())
    cosine = nn.functional.cosine_similarity(flat, exact, dim=0)
    return f"{cosine:.5f} / {(flat @ exact) / (exact @ exact):.5f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Field queries per ray, beside the peers.")
    default = os.environ.get("WARPDVR_DATA", ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=default, help="folder of the data sets")
    parser.add_argument("--only", nargs="+", help="names of fields")
    parser.add_argument("--size", type=int, help="pixels on a side of the views (default: those of the peers' figures)")
    options = parser.parse_args()
    print(HEAD)
    for name, case in cases(options.data).items():
        if options.only is None or name in options.only:
            peers = PEERS.get(name, "").splitlines() if options.size is None else []
            print("\n".join([*rows(name, case, options.size or case.size), *peers]), flush=True)


if __name__ == "__main__":
    main()

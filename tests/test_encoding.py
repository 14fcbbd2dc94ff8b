"""The hash encoding: against its twin in plain Torch, closed forms, finite differences, and the integers of a hash."""

from typing import Any

import pytest
import torch
from reference import hash_encoding
from torch import Tensor
from torch.autograd import grad, gradcheck, gradgradcheck

import warpdvr.fields.encoding as module
from warpdvr.fields.encoding import HashEncoding
from warpdvr.fields.lookup import bend, encode, scatter, scatter_bend, slope
from warpdvr.kernels.corners import CACHED_ROWS

BOUNDS = ((-1.0, -0.8, -0.5), (1.0, 1.2, 0.7))


def small(dtype: torch.dtype, device: torch.device, **options: Any) -> HashEncoding:
    """Two dense and two hashed levels, the last with 20 times as many corners as rows; a table of normal numbers."""
    options = {"levels": 4, "size": 2**6, "coarsest": 2, "finest": 10, "bounds": BOUNDS, **options}
    encoding = HashEncoding(**options).to(device, dtype)
    with torch.no_grad():
        noise = torch.randn(encoding.table.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        encoding.table.copy_(noise)
    return encoding


def points(n: int, dtype: torch.dtype, device: torch.device, size: float = 1.3) -> Tensor:
    x = 2 * torch.rand(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    return (size * x).to(device, dtype).requires_grad_()


def twin(encoding: HashEncoding, x: Tensor) -> Tensor:
    """The same by hash_encoding, as a function of the same table."""
    rows = [min((r + 1) ** 3, 2**6) for r in encoding.resolutions]
    return hash_encoding(x, list(encoding.table.split(rows)), encoding.resolutions, *encoding.bounds)


def close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= tolerance * b.abs().max())


@pytest.mark.parametrize("features", [1, 2, 3, 8])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_features_and_gradients_are_those_of_the_twin(features, dtype, tolerance, device):
    """In float32 a place in the bounds is rounded in another order, except where their side is a power of two."""
    bounds = BOUNDS if dtype == torch.float64 else 1.0
    encoding, x = small(dtype, device, features=features, bounds=bounds), points(3000, dtype, device)
    ours, theirs = encoding(x), twin(encoding, x)
    assert close(ours, theirs, tolerance)
    g = torch.randn_like(ours).requires_grad_()
    first, expected = (grad(y, [x, encoding.table], g, create_graph=True) for y in (ours, theirs))
    assert close(first[0], expected[0], 4 * tolerance)
    assert close(first[1], expected[1], tolerance)
    v = torch.randn_like(x)
    for found, should in zip(*(grad(y[0], [g, x, encoding.table], v) for y in (first, expected)), strict=True):
        assert close(found, should, 4 * tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rows_of_large_levels_are_fetched_ahead_and_stay_what_they_are(dtype, device):
    """On a CPU; one level is small, two are larger than what a core's cache holds, one stored and one hashed."""
    size = 2**18
    encoding = HashEncoding(levels=3, size=size, coarsest=30, finest=110).to(device, dtype)
    rows = [(r + 1) ** 3 if (r + 1) ** 3 <= size else size for r in encoding.resolutions]
    assert rows[0] < CACHED_ROWS < rows[1] and encoding.layout[:, 4].bool().tolist() == [False, False, True]
    assert len(encoding.table) > CACHED_ROWS * 3
    with torch.no_grad():
        encoding.table.normal_()
    x = points(2500, dtype, device)
    ours = encoding(x)
    theirs = hash_encoding(x, list(encoding.table.split(rows)), encoding.resolutions, *encoding.bounds)
    tolerance = 1e-12 if dtype == torch.float64 else 4e-6
    assert close(ours, theirs, tolerance)
    g = torch.randn_like(ours).requires_grad_()
    first, expected = (grad(y, [x, encoding.table], g, create_graph=True) for y in (ours, theirs))
    v = torch.randn_like(x)
    second, twice = (grad(y[0], [g, x, encoding.table], v) for y in (first, expected))
    for a, b in zip((*first, *second), (*expected, *twice), strict=True):
        assert close(a, b, 4 * tolerance)


@pytest.mark.parametrize("active", [4.0, 2.4])
def test_gradients_are_those_of_finite_differences(active, device):
    """Of the module, whose nodes for position and table are two, and of the operator, where they are one."""
    encoding, x = small(torch.float64, device), points(6, torch.float64, device)
    encoding.active = active
    frame = encoding.bounds, encoding.weight, encoding.layout

    def called(x: Tensor, table: Tensor) -> Tensor:
        return torch.func.functional_call(encoding, {"table": table}, (x,))

    for function in (called, lambda x, table: encode(x, table, *frame)):
        assert gradcheck(function, (x, encoding.table))
        assert gradgradcheck(function, (x, encoding.table))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_trilinear_function_on_the_corners_is_found_between_them(dtype, device):
    encoding = small(dtype, device, levels=1, coarsest=7, finest=7, size=2**9, features=1)
    low, high = encoding.bounds
    line = torch.arange(8, device=device, dtype=dtype) / 7
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")  # x runs fastest
    p = low + (high - low) * torch.stack([x, y, z], -1).reshape(-1, 3)

    def function(p: Tensor) -> Tensor:
        return 1 + p[:, 0] - 2 * p[:, 1] + p[:, 0] * p[:, 1] * p[:, 2]

    with torch.no_grad():
        encoding.table[:, 0] = function(p)
    q = points(500, dtype, device, 0.5)
    found = encoding(q)[:, 0]
    assert close(found, function(q), 1e-5 if dtype == torch.float32 else 1e-13)
    (by_q,) = grad(found.sum(), q, create_graph=True)
    (expected,) = grad(function(q).sum(), q, create_graph=True)
    assert close(by_q, expected, 1e-5 if dtype == torch.float32 else 1e-13)
    (twice,) = grad(by_q.square().sum(), q)
    assert close(twice, grad(expected.square().sum(), q)[0], 1e-4 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("corner", [(0, 0, 0), (1048576, 1048576, 1048576), (3, 1000003, 524287)])
def test_a_corner_of_the_finest_level_is_in_the_row_that_python_counts(corner, device):
    r = 2**20
    encoding = small(torch.float64, device, levels=2, coarsest=1, finest=r, size=2**12, bounds=1.0)
    i, j, k = corner
    row = (i ^ (j * 2654435761) ^ (k * 805459861)) % 2**12
    x = torch.tensor([corner], dtype=torch.float64, device=device) / r * 2 - 1
    assert torch.equal(encoding(x)[0, 2:], encoding.table[8 + row])


def test_levels_grow_as_in_the_paper():
    """b of eq. 3 for these numbers: exp(ln(2048 / 16) / 15) = 1.3819; the levels that fit are stored densely."""
    layout = module._layout(16, 2, 2**19, 16, 2048)
    assert [row[0] for row in layout][:6] == [16, 22, 30, 42, 58, 80] and layout[-1][0] == 2048
    assert [row[4] == 0 for row in layout] == [True] * 5 + [False] * 11
    assert [row[1] for row in layout][:3] == [0, 17**3, 17**3 + 23**3]


def test_outside_of_the_bounds_it_is_as_on_their_boundary(device):
    encoding, x = small(torch.float64, device), points(2000, torch.float64, device, 3.0)
    low, high = encoding.bounds
    inside = x.detach().clamp(low, high)
    moved = inside != x
    assert 0.3 < moved.double().mean() < 0.9
    assert torch.equal(encoding(x), encoding(inside))
    (slope,) = grad(encoding(x).sum(), x)
    assert (slope[moved] == 0).all() and (slope[~moved] != 0).all()
    far = torch.tensor([[torch.inf, -torch.inf, 0.1]], device=device, dtype=torch.float64)
    assert torch.equal(encoding(far), encoding(far.clamp(low, high)))


def test_a_point_that_is_not_a_number_harms_itself_alone(device):
    encoding, x = small(torch.float32, device), points(50, torch.float32, device)
    broken = x.detach().clone()
    broken[7, 1] = torch.nan
    broken.requires_grad_()
    good = torch.arange(50, device=device) != 7
    features, expected = encoding(broken), encoding(x)
    assert features[7].isnan().all() and torch.equal(features[good], expected[good])
    ours = grad(features[good].square().sum(), [broken, encoding.table], create_graph=True)
    should = grad(expected[good].square().sum(), [x, encoding.table], create_graph=True)
    assert torch.equal(ours[0][good], should[0][good]) and torch.equal(ours[1], should[1])
    g, v = torch.ones_like(features), torch.ones_like(x)  # the point that is no number is asked about as well
    ours = grad(features, [broken, encoding.table], g, create_graph=True)
    should = grad(expected[good], [x, encoding.table], g[good], create_graph=True)
    assert ours[0][7].isnan().all() and torch.equal(ours[1], should[1])
    assert torch.equal(grad(ours[0], encoding.table, v)[0], grad(should[0][good], encoding.table, v[good])[0])
    with (
        pytest.warns(UserWarning, match="Anomaly Detection has been enabled"),
        torch.autograd.detect_anomaly(check_nan=False),
        pytest.raises(ValueError, match="1 of 50 points are not numbers"),
    ):
        encoding(broken)


def test_levels_that_take_no_part_are_not_even_read(device):
    encoding, x = small(torch.float64, device), points(200, torch.float64, device)
    whole, second = encoding(x), 27 + 64
    encoding.active = 1.25
    with torch.no_grad():
        encoding.table[second:] = torch.nan
    features = encoding(x)
    assert torch.equal(features[:, :2], whole[:, :2]) and (features[:, 4:] == 0).all()
    assert torch.allclose(features[:, 2:4], 0.25 * whole[:, 2:4], rtol=1e-12)
    (by_x,) = grad(features.sum(), x, create_graph=True)
    found = grad(by_x.square().sum() + features.sum(), encoding.table)[0]
    assert found.isfinite().all() and (found[second:] == 0).all() and (found[:second] != 0).any()


def test_active_levels_and_the_cell_of_the_finest():
    encoding = HashEncoding(levels=4, size=2**6, coarsest=2, finest=16, bounds=BOUNDS)
    assert (encoding.active, encoding.resolutions, encoding.width) == (4.0, [2, 4, 8, 16], 8)
    cells = []
    for active in (0.0, 0.5, 1.0, 1.5, 3.75, 7.0):
        encoding.active = active
        assert encoding.active == min(active, 4.0)
        cells.append(encoding.cell)
    assert cells == [1.0, 1.0, 1.0, 0.5, 0.125, 0.125]
    encoding.active = 2.5
    other = HashEncoding(levels=4, size=2**6, coarsest=2, finest=16)
    other.load_state_dict(encoding.state_dict())
    x = torch.rand(9, 3)
    assert other.active == 2.5 and torch.equal(other(x), encoding(x))


def test_the_operators_are_what_they_say(device):
    encoding, x = small(torch.float64, device), points(5, torch.float64, device)
    table, frame = encoding.table, (encoding.bounds, encoding.weight, encoding.layout)
    g = torch.randn(5, 8, dtype=torch.float64, device=device, requires_grad=True)
    v = torch.randn(5, 3, dtype=torch.float64, device=device)
    plain = g.detach(), x.detach(), table.detach()
    torch.library.opcheck(encode, (x, table, *frame))
    torch.library.opcheck(slope, (g, x, table, *frame))
    torch.library.opcheck(scatter, (g, x, *frame, len(table)))
    torch.library.opcheck(bend, (v, *plain, *frame, True))
    torch.library.opcheck(bend, (v, *plain, *frame, False))
    torch.library.opcheck(scatter_bend, (v, *plain[:2], *frame, len(table)))


def test_a_field_on_it_can_be_compiled(device):
    encoding, x = small(torch.float32, device), points(64, torch.float32, device)
    field = torch.nn.Sequential(encoding, torch.nn.Linear(8, 1).to(device), torch.nn.Tanh())
    compiled = torch.compile(field, backend="aot_eager", fullgraph=True)
    inputs = [x, *field.parameters()]
    for ours, expected in zip(*(grad(f(x).sum(), inputs) for f in (compiled, field)), strict=True):
        assert torch.allclose(ours, expected, rtol=1e-5, atol=1e-6)


def test_the_gradient_by_position_does_not_wait_for_the_table(device, monkeypatch):
    """Nor the other way round: each is computed when it is asked for, and not before."""
    encoding, x = small(torch.float32, device), points(10, torch.float32, device)
    by_x, by_table = grad(encoding(x).sum(), [x, encoding.table])
    features = encoding(x)
    with monkeypatch.context() as patch:
        patch.setattr(module, "scatter", None)
        assert torch.equal(grad(features.sum(), x, retain_graph=True)[0], by_x)
    monkeypatch.setattr(module, "slope", None)
    assert torch.equal(grad(features.sum(), encoding.table)[0], by_table)


def test_the_number_of_threads_changes_nothing():
    encoding, x = small(torch.float32, torch.device("cpu")), points(10_000, torch.float32, torch.device("cpu"))
    g, v = torch.randn(10_000, 8, requires_grad=True), torch.randn(10_000, 3)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            y = encoding(x)
            first = grad(y, [x, encoding.table], g, create_graph=True)
            found.append([y, *first, *grad(first[0], [g, x, encoding.table], v)])
    finally:
        torch.set_num_threads(before)
    for one, three in zip(*found, strict=True):
        assert torch.equal(one, three)


@pytest.mark.parametrize("n", [0, 1, 1025])
def test_any_number_of_points(n, device):
    encoding, x = small(torch.float32, device), points(n, torch.float32, device)
    features = encoding(x)
    assert features.shape == (n, 8) and close_or_empty(features, twin(encoding, x))
    (by_x,) = grad(features.sum(), x, create_graph=True)
    (by_table,) = grad(by_x.square().sum(), encoding.table)
    assert by_x.shape == (n, 3) and by_table.shape == encoding.table.shape


def close_or_empty(a: Tensor, b: Tensor) -> bool:
    return a.numel() == 0 or close(a, b, 1e-6)


def test_points_and_gradients_may_lie_anywhere_in_memory(device):
    encoding, x = small(torch.float32, device), points(40, torch.float32, device).detach()
    odd = torch.stack([x, x], 1).permute(2, 1, 0).contiguous().permute(2, 1, 0)[:, 1].requires_grad_()
    assert not odd.is_contiguous() and torch.equal(encoding(odd), encoding(x))
    ones = torch.ones(1, 1, device=device).expand(40, 8)
    assert torch.equal(grad(encoding(odd), encoding.table, ones)[0], grad(encoding(x).sum(), encoding.table)[0])


def test_a_table_in_half_precision_adds_up_in_single(device):
    half, x = small(torch.float32, device), points(3000, torch.float32, device)
    single = small(torch.float32, device)
    half.table = torch.nn.Parameter(half.table.detach().half())
    with torch.no_grad():
        single.table.copy_(half.table)
    assert half(x).dtype == torch.float32 and close(half(x), single(x), 1e-6)
    ours, expected = (grad(e(x).sum(), [x, e.table]) for e in (half, single))
    assert close(ours[0], expected[0], 4e-6) and ours[1].dtype == torch.float16
    assert close(ours[1].float(), expected[1], 2**-11)  # rounded once, not at every addition


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": 1000}, "size must be a power of two, got 1000"),
        ({"size": 0}, "size must be a power of two, got 0"),
        ({"levels": 0}, "needs levels >= 1 and 1 to 8 features, got 0 and 2"),
        ({"features": 9}, "needs levels >= 1 and 1 to 8 features, got 16 and 9"),
        ({"coarsest": 64, "finest": 32}, "needs 1 <= coarsest <= finest < 2\\*\\*24, got 64 and 32"),
        ({"levels": 1, "coarsest": 4}, "one level has one resolution, got coarsest 4 and finest 2048"),
        ({"levels": 64, "size": 2**26, "coarsest": 2000}, "rows, more than 2\\*\\*31: choose a smaller size"),
        ({"bounds": -1.0}, "bounds must be a positive number or two corners low < high, got -1.0"),
    ],
)
def test_bad_options_are_said_in_one_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        HashEncoding(**options)


def test_a_table_larger_than_the_memory_is_refused_before_it_is_made(tmp_path, monkeypatch):
    memory = tmp_path / "meminfo"
    memory.write_text("MemTotal: 9999999 kB\nMemAvailable:    40960 kB\n")
    monkeypatch.setattr(module, "MEMORY", memory)
    with pytest.raises(ValueError, match=r"the table needs 0\.05 GiB, but 0\.04 GiB are free on cpu: choose"):
        HashEncoding()


def test_points_of_another_shape_or_type_are_refused(device):
    encoding = small(torch.float32, device)
    with pytest.raises(ValueError, match=r"expected points of shape \(n, 3\), got \(4, 2\)"):
        encoding(torch.zeros(4, 2, device=device))
    with pytest.raises(ValueError, match=r"a torch.float32 table needs points in torch.float32, got torch.float64"):
        encoding(torch.zeros(4, 3, device=device, dtype=torch.float64))


@pytest.mark.parametrize("active", [4, 2.5])
def test_third_derivatives_are_those_of_the_twin(active, device):
    """By position, table, and what the features and their first derivatives are multiplied with; mixed ones too."""
    encoding, x = small(torch.float64, device), points(200, torch.float64, device)
    encoding.active = active
    g, v, w = (
        torch.randn(*shape, device=device, dtype=torch.float64).requires_grad_()
        for shape in ((200, 8), (200, 3), (200, 3))
    )
    h, c = torch.randn(200, 8, device=device).double(), torch.randn_like(encoding.table)
    thirds = []
    for values in (encoding(x), twin(encoding, x) * encoding.weight.double().repeat_interleave(2)):
        (first,) = grad(values, x, g, create_graph=True)
        second = grad(first, [x, g, encoding.table], v, create_graph=True)
        total = (second[0] * w).sum() + (second[1] * h).sum() + (second[2] * c).sum()
        thirds.append(grad(total, [x, g, v, encoding.table], create_graph=True))
        thirds[-1] += grad(thirds[-1][0].square().sum(), [g, encoding.table])  # and the fourth
    assert all(close(found, expected, 1e-11) and expected.any() for found, expected in zip(*thirds, strict=True))


def test_starting_values_are_small_and_spread():
    torch.manual_seed(0)
    table = HashEncoding(levels=2, size=2**12, finest=32).table
    assert table.abs().max() <= 1e-4 and (table.std() - 1e-4 / 3**0.5).abs() < 2e-6

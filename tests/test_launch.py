"""Launches: what does not fit a kernel is said in one sentence, before Warp reads memory that is not there."""

import pytest
import torch

from warpdvr.geometry.search import triangle_mesh
from warpdvr.kernels import dense_march, ray_state, root
from warpdvr.runtime.launch import Packed, launch

N = 4


def arrays():
    """Return what `root.propose` takes: inputs by name, then outputs."""
    line = torch.tensor([1.0, 3.0, 1.0, 1.0, -1.0, 1.0])  # a root half way between 1 and 3
    direction = torch.tensor([0.0, 0.0, 1.0]).repeat(N, 1)
    inputs = {"brackets": line.repeat(N, 1), "origin": torch.zeros(N, 3), "direction": direction}
    return {**inputs, "active": torch.arange(N).int()}, {"t": torch.zeros(N), "x": torch.zeros(N, 3)}


def go(given, outputs, n=N, **options):
    frame = [given["brackets"], given["origin"], given["direction"], 1e-3, given["active"]]
    launch(root.propose, n, frame, list(outputs.values()), **options)


def test_tensors_go_in_as_they_are():
    given, outputs = arrays()
    given["brackets"].requires_grad_()
    go(given, outputs)
    assert outputs["t"].tolist() == [2.0] * N and outputs["x"].tolist() == [[0.0, 0.0, 2.0]] * N


def test_every_second_row_needs_no_copy():
    given, _ = arrays()
    wide, long = torch.zeros(2 * N, 3), torch.zeros(2 * N)
    go(given, {"t": long[::2], "x": wide[::2]})
    assert long.tolist() == [2.0, 0.0] * N and wide[:, 2].tolist() == [2.0, 0.0] * N


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("active", lambda a: a[:, None], r"^propose: expected 1 axes of active, got shape \(4, 1\)$"),
        ("origin", lambda a: a[None], r"^propose: expected 1 axes of origin, got shape \(1, 4, 3\)$"),
        ("t", lambda a: a[:, None], r"^propose: expected 1 axes of t, got shape \(4, 1\)$"),
        ("t", lambda a: a[:3], r"^propose: expected 4 rows, got shape \(3,\)$"),
        ("x", lambda a: a.repeat(2, 1), r"^propose: expected 4 rows, got shape \(8, 3\)$"),
        ("brackets", lambda a: a.to("meta"), "^propose: brackets is on meta, expected cpu$"),
        ("x", lambda a: a.to("meta"), "^propose: x is on meta, expected cpu$"),
    ],
)
def test_rows_axes_and_devices_are_checked(name, change, said):
    given, outputs = arrays()
    which = given if name in given else outputs
    which[name] = change(which[name])
    with pytest.raises(ValueError, match=said):
        go(given, outputs)
    assert not any(a.any() for a in outputs.values() if a.device.type == "cpu")  # nothing was launched


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("active", lambda a: a.long(), r"Cannot convert Torch type torch.int64 to Warp type .*int32"),
        ("origin", lambda a: a.double(), r"Cannot convert Torch type torch.float64 to Warp type .*vec3f"),
        ("t", lambda a: a.half(), r"Cannot convert Torch type torch.float16 to Warp type .*float32"),
        ("direction", lambda a: a[:, :2], r"shape \(4, 2\) .*source inner shape is \(3,\)"),
        ("direction", lambda a: a.t().contiguous().t(), "source inner strides are not contiguous"),
    ],
)
def test_types_are_checked(name, change, said):
    given, outputs = arrays()
    which = given if name in given else outputs
    which[name] = change(which[name])
    with pytest.raises(RuntimeError, match=said) as caught:
        go(given, outputs)
    assert "\n" not in str(caught.value)


def test_rows_of_inputs_are_checked_where_asked():
    given, outputs = arrays()
    with pytest.raises(ValueError, match=r"^propose: expected 4 rows, got shape \(3, 3\)$"):
        go(given, outputs, per_row=[given["origin"][:3]])
    go(given, outputs, per_row=[given["origin"]])


def test_of_several_axes_the_first_is_that_of_rows():
    given, outputs = arrays()
    go(given, outputs, (N, 1))
    with pytest.raises(ValueError, match=r"^propose: expected 2 rows, got shape \(4,\)$"):
        go(given, outputs, (2, N))


def test_no_rows_are_no_launch():
    given, outputs = arrays()
    given["active"] = given["active"].long()[:, None]  # nobody looks
    go(given, {name: a[:0] for name, a in outputs.items()}, 0)


# ---- structs


def lines(**change: object) -> dict[str, object]:
    """Return the members of `RayLines`, some of them changed."""
    direction = torch.tensor([0.0, 0.0, 1.0]).repeat(N, 1)
    ends = {"near": torch.ones(N), "far": torch.full((N,), 3.0)}
    return {"origin": torch.zeros(N, 3), "direction": direction} | ends | change


def test_a_struct_goes_on_meaning_its_tensors_memory():
    members = lines()
    packed, x = Packed(ray_state.RayLines, **members), torch.zeros(N, 2, 3)
    inputs = [packed, torch.full((N,), 0.5), 0, torch.arange(N).int()]
    launch(dense_march.propose, (N, 2), inputs, [x])
    assert x[..., 2].tolist() == [[1.0, 1.5]] * N
    members["near"].copy_(torch.arange(N))  # type: ignore[attr-defined]
    launch(dense_march.propose, (N, 2), inputs, [x])
    assert x[..., 2].tolist() == [[i, i + 0.5] for i in range(N)]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"near": torch.ones(N, 1)}, ValueError, r"^RayLines: expected 1 axes of near, got shape \(4, 1\)$"),
        ({"far": torch.ones(N, device="meta")}, ValueError, "^RayLines: far is on meta, expected cpu$"),
        ({"near": torch.ones(N).double()}, RuntimeError, "Cannot convert Torch type torch.float64"),
        ({"nearer": torch.ones(N)}, ValueError, "^RayLines: expected the members .*, got others: nearer$"),
    ],
)
def test_members_of_a_struct_are_checked(change, error, message):
    with pytest.raises(error, match=message):
        Packed(ray_state.RayLines, **lines(**change))


def test_a_struct_with_a_member_missing_is_refused():
    members = lines()
    del members["far"]
    with pytest.raises(ValueError, match=r"^RayLines: expected the members .*, got others: far$"):
        Packed(ray_state.RayLines, **members)


def test_a_struct_on_another_device_is_refused():
    members = {name: a.to("meta") for name, a in lines().items()}  # type: ignore[attr-defined]
    packed = Packed.__new__(Packed)
    packed.members, packed.value, packed.device = members, None, torch.device("meta")
    with pytest.raises(ValueError, match=r"^propose: lines is on meta, expected cpu$"):
        launch(dense_march.propose, (N, 1), [packed, torch.ones(N), 0, torch.arange(N).int()], [torch.zeros(N, 1, 3)])


def test_a_mesh_without_triangles_is_refused(device: torch.device) -> None:
    with pytest.raises(ValueError, match="expected triangles to search among, found none"):
        triangle_mesh(torch.zeros(3, 3, device=device), torch.empty(0, 3, dtype=torch.int64, device=device))

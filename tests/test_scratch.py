"""Memory that gradients of large tables take in turn."""

import pytest
import torch

from warpdvr.fields import scratch

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep blocks of more than 4 kB, and none of those that other tests left."""
    monkeypatch.setattr(scratch, "LARGE", 4096)
    monkeypatch.setattr(scratch, "_free", [])


def test_memory_is_used_again_once_nobody_has_it():
    first = scratch.zeros((600, 2), torch.float32, CPU)
    place = first.data_ptr()
    shown = first[:10]
    del first
    other = scratch.zeros((600, 2), torch.float32, CPU)
    assert other.data_ptr() != place  # a part of the first is still in use
    shown.fill_(7)
    assert (other == 0).all()
    del shown
    again = scratch.zeros((1200,), torch.float32, CPU)
    assert again.data_ptr() == place
    assert again.shape == (1200,) and (again == 0).all()
    other.fill_(3)
    assert (again == 0).all()


def test_what_is_small_or_elsewhere_is_left_to_torch():
    assert scratch.zeros((10, 2), torch.float64, CPU).dtype == torch.float64
    assert scratch.zeros((5000,), torch.float32, torch.device("meta")).device.type == "meta"
    assert not scratch._free


def test_few_blocks_are_kept():
    held = [scratch.zeros((2000 + i,), torch.float32, CPU) for i in range(5)]
    assert not scratch._free
    held.clear()
    assert len(scratch._free) == scratch.MAX_FREE_BLOCKS == 2


def test_results_that_outlive_one_another_are_apart():
    tables = [scratch.zeros((2000,), torch.float32, CPU).add_(i) for i in range(4)]
    assert [float(a.mean()) for a in tables] == [0, 1, 2, 3]

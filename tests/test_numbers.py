"""Numbers of tensors, fetched from a GPU once."""

import pretend_cuda
import pytest
import torch
from pretend_counts import counting

from warpdvr.runtime.numbers import numbers


@pytest.mark.skipif(torch.cuda.is_available(), reason="waits are counted on a GPU that is pretended")
def test_numbers_are_fetched_once_and_again_after_a_change():
    with pretend_cuda.active():
        bounds = torch.tensor([[-1.0, 2.0]], device="cuda")
        waits: list[int] = []
        for expected in ([[-1.0, 2.0]], [[-1.0, 2.0]], [[-2.0, 4.0]], [[-2.0, 4.0]]):
            if expected == [[-2.0, 4.0]] and len(waits) == 2:
                bounds.mul_(2)
            with counting() as counts:
                assert numbers(bounds) == expected
            waits.append(counts.total("sync"))
    assert waits == [1, 0, 1, 0]


def test_a_change_of_any_kind_is_seen_on_a_cpu():
    slope = torch.tensor(1.5)
    assert numbers(slope) == 1.5
    slope.data.fill_(2.5)
    assert numbers(slope) == 2.5
    with torch.inference_mode():
        assert numbers(torch.ones(2)) == [1.0, 1.0]

"""Torch's streams as Warp sees them: one object for each, which outlives every launch."""

from collections import namedtuple
from contextlib import contextmanager

import pytest
import torch
import warp as wp

from warpdvr.runtime import launch as launches
from warpdvr.runtime.launch import start_warp, warp_scope

Stream = namedtuple("Stream", ["device", "cuda_stream"])  # equal ones are equal, as those of Torch are
CUDA = torch.device("cuda:0")


@pytest.fixture
def streams(monkeypatch):
    """Pretend that a GPU is there; return the handle of its current stream and Warp's objects, by creation."""
    start_warp()
    current, made = {"handle": 7}, []

    def from_torch(stream):
        made.append(stream)
        return f"Warp's {stream.cuda_stream}"

    @contextmanager
    def scope(stream):
        current["scope"] = stream
        yield

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(device, current["handle"]))
    monkeypatch.setattr(wp, "stream_from_torch", from_torch)
    monkeypatch.setattr(wp, "device_from_torch", lambda device: wp.get_device("cpu"))
    monkeypatch.setattr(wp, "ScopedStream", scope)
    launches._warp_stream.cache_clear()
    yield current, made
    launches._warp_stream.cache_clear()


def test_launches_on_one_stream_share_an_object(streams):
    current, made = streams
    places = [launches._place(CUDA) for _ in range(3)]
    with warp_scope(CUDA):
        pass
    assert {place["stream"] for place in places} == {"Warp's 7"} == {current["scope"]}
    assert made == [Stream(CUDA, 7)]


def test_another_stream_or_device_has_another_object(streams):
    current, made = streams
    launches._place(CUDA)
    current["handle"] = 8
    assert launches._place(CUDA)["stream"] == "Warp's 8"
    launches._place(torch.device("cuda:1"))
    current["handle"] = 7
    launches._place(CUDA)
    assert made == [Stream(CUDA, 7), Stream(CUDA, 8), Stream(torch.device("cuda:1"), 8)]


def test_a_cpu_has_no_stream():
    start_warp()
    assert launches._place(torch.device("cpu"))["stream"] is None
    with warp_scope(torch.device("cpu")) as name:
        assert str(name) == "cpu"

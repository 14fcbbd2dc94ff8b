"""What lies on another device than it is needed on is refused in one sentence that names it."""

from dataclasses import replace

import pytest
import torch

import warpdvr
from warpdvr import CachedMarch, Camera, DenseMarch, Mesh, RangeMarch, Rays, SphereTrace, Views, make, reattach, surface
from warpdvr.cameras.transform import SceneTransform
from warpdvr.evaluation.overlap import iou
from warpdvr.fields.conditional import ConditionalOccupancy, Shapes
from warpdvr.fields.encoding import HashEncoding
from warpdvr.geometry.search import first_hit, triangle_mesh
from warpdvr.rendering.background import Background
from warpdvr.runtime.arguments import check_device

META = torch.device("meta")
RAYS = Rays(torch.tensor([[0.0, -2.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]]))
MOVE = "move one to the other, such as by {}.to('{}')"
ROTATION = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
CAMERA = Camera.look_at((0.0, -2.0, 0.0), width=4, height=4)


def photographs(**changes):
    picture = torch.zeros(4, 4, 3, dtype=torch.uint8)
    parts = {"images": (picture,), "masks": (torch.ones(4, 4, dtype=torch.bool),)} | changes
    return Views(
        **parts, cameras=(CAMERA,), names=("a",), train=(0,), test=(), transform=SceneTransform.identity(), summary=""
    )


def apart(camera):
    """Take a camera apart; on a device without numbers its pose would not come as far as to be compared."""
    object.__setattr__(parted := replace(camera), "pose", camera.pose.to(META))
    parted.__post_init__()


CASES = {
    "surface": (
        lambda: surface(make("sphere").to(META), RAYS),
        "surface: rays on cpu, but the field on meta; " + MOVE.format("rays", "meta"),
    ),
    "shape_index": (
        lambda: replace(RAYS, shape_index=torch.zeros(1, dtype=torch.int64, device=META)),
        "Rays: shape_index on meta, but origin on cpu; " + MOVE.format("shape_index", "cpu"),
    ),
    "reattach": (
        lambda: reattach(make("sphere").value, RAYS.origin, RAYS.direction, torch.zeros(1, device=META)),
        "reattach: t on meta, but origin on cpu; " + MOVE.format("t", "cpu"),
    ),
    "camera": (
        lambda: apart(CAMERA),
        "camera: pose on meta, but K on cpu; " + MOVE.format("pose", "cpu"),
    ),
    "mesh": (
        lambda: Mesh(torch.zeros(3, 3), torch.zeros(1, 3, dtype=torch.int64, device=META)),
        "mesh: faces on meta, but vertices on cpu; " + MOVE.format("faces", "cpu"),
    ),
    "codes": (
        lambda: Shapes(ConditionalOccupancy(4, 8, 1), torch.zeros(1, 4, device=META)),
        "shapes: codes on meta, but the decoder on cpu; " + MOVE.format("codes", "cpu"),
    ),
    "stretch": (
        lambda: Shapes(ConditionalOccupancy(4, 8, 1), torch.zeros(1, 4), torch.ones(1, 3, device=META)),
        "shapes: stretch on meta, but codes on cpu; " + MOVE.format("stretch", "cpu"),
    ),
    "iou": (
        lambda: iou(torch.ones(2, 2), torch.ones(2, 2, device=META)),
        "iou: b on meta, but a on cpu; " + MOVE.format("b", "cpu"),
    ),
    "image": (
        lambda: photographs(images=(torch.zeros(4, 4, 3, dtype=torch.uint8, device=META),)),
        "views: a: image on meta, but photographs have to be on cpu; " + MOVE.format("image", "cpu"),
    ),
    "mask": (
        lambda: photographs(masks=(torch.zeros(4, 4, dtype=torch.bool, device=META),)),
        "views: a: mask on meta, but photographs have to be on cpu; " + MOVE.format("mask", "cpu"),
    ),
    "background": (
        lambda: Background()(RAYS.to(META)),
        "background: rays on meta, but the network on cpu; " + MOVE.format("rays", "cpu"),
    ),
    "points": (
        lambda: HashEncoding(levels=2, size=16, finest=32)(torch.zeros(2, 3, device=META)),
        "HashEncoding: points on meta, but the table on cpu; " + MOVE.format("points", "cpu"),
    ),
}


@pytest.mark.parametrize(("call", "said"), CASES.values(), ids=CASES)
def test_the_sentence_names_the_argument_and_both_devices(call, said):
    with pytest.raises(ValueError) as refusal:
        call()
    assert str(refusal.value) == said


@pytest.mark.parametrize("solve", [SphereTrace(), DenseMarch(), CachedMarch(cells=8), RangeMarch()], ids=repr)
def test_solvers_refuse_rays_that_are_elsewhere(solve):
    with pytest.raises(ValueError, match=r"^intersect: rays on meta, but the field on cpu; move one to the other"):
        solve(make("sdf", width=8, depth=1), RAYS.to(META))


def test_remembered_values_are_of_one_device():
    field = make("sphere")
    remembering = CachedMarch(cells=8).prepare(field)
    for use in (remembering.follow, remembering.sample):
        with pytest.raises(
            ValueError, match=r"^CachedMarch: field on meta, but the remembered values on cpu; move one"
        ):
            use(make("sphere").to(META))


def test_a_mesh_on_another_device_is_not_searched(monkeypatch):
    corners = torch.eye(3)
    tree = triangle_mesh(corners, torch.tensor([[0, 1, 2]]))
    assert int(first_hit(tree, torch.zeros(1, 3), torch.ones(1, 3))[0]) == 0
    monkeypatch.setattr("warpdvr.geometry.search.warp_device", lambda device: "cuda:0")
    with pytest.raises(ValueError, match=r"^first_hit: rays on cpu, but the mesh on cpu; move one"):
        first_hit(tree, torch.zeros(1, 3), torch.ones(1, 3))


def test_a_camera_is_where_it_is_placed(device):
    eye, up = torch.tensor([0.0, -2.0, 0.0], device=device), (0.0, 0.0, 1.0)
    placed = (
        Camera.look_at(eye, up=up),
        Camera.orthographic(eye),
        Camera.from_krt(torch.eye(3, device=device), ROTATION, eye, 4, 4),
    )
    for camera in placed:
        assert camera.K.device == camera.pose.device == camera.rays().origin.device == eye.device


def test_rays_move():
    there = replace(RAYS, shape_index=torch.zeros(1, dtype=torch.int64)).to("meta")
    parts = [part for part in vars(there).values() if isinstance(part, torch.Tensor)]
    assert len(parts) == 3 and {part.device for part in parts} == {META}
    assert RAYS.to("cpu").shape_index is None


def test_where_all_agree_nothing_is_refused():
    check_device("here", torch.device("cpu"), rays=RAYS.origin, nothing=None)
    assert int(surface(make("sphere", radius=0.5), RAYS).hit.status) == warpdvr.Status.HIT

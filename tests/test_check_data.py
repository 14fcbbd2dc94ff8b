"""The data doctor: right data are good, and each fault that people's data have is named."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from data_faults import FAULTS, darker, few, inverted_poses, mirrored, other_axes, wrong_pose
from PIL import Image

import warpdvr
from warpdvr.cameras.camera import OPENGL, Camera
from warpdvr.cameras.paths import fibonacci_sphere
from warpdvr.cameras.transform import SceneTransform
from warpdvr.cli.main import main
from warpdvr.cli.report import FAILED, warn_of_failure
from warpdvr.datasets.check import check_data, refuse_contradictions
from warpdvr.datasets.check_colours import surface_cells
from warpdvr.datasets.check_hull import Hull, carve, outlines
from warpdvr.datasets.check_intrinsics import best_focal, principal_point, scaled_focal, shifted, unseen
from warpdvr.datasets.check_tangents import Rim, _rim, distances, rims, view_distances
from warpdvr.datasets.check_views import agreement
from warpdvr.datasets.views import Views

RADIUS = 0.6


def sphere_views(count=16, size=120, centre=(0.0, 0.0, 0.0)):
    """Return views of a sphere; its outline is where |o|^2 - (o . d)^2 < r^2, and it is coloured by its normals."""
    eyes = fibonacci_sphere(count)
    cameras = tuple(Camera.look_at(3 * eye, up=(0.1, 1.0, 0.2), width=size, height=size) for eye in eyes)
    images, masks = [], []
    for camera in cameras:
        rays = camera.rays(dtype=torch.float64)
        o, d = rays.origin - torch.tensor(centre).double(), rays.direction / rays.direction.norm(dim=1, keepdim=True)
        b = (o * d).sum(1)
        root = b**2 - o.square().sum(1) + RADIUS**2
        x = o + (-b - root.clamp_min(0).sqrt())[:, None] * d
        masks.append((root > 0).reshape(size, size))
        colour = 127 + 100 * torch.sin(4 * x / RADIUS)
        images.append(torch.where(root[:, None] > 0, colour, 0).to(torch.uint8).reshape(size, size, 3))
    names = tuple(f"{i:03d}" for i in range(count))
    everything = tuple(range(count))
    return Views(tuple(images), tuple(masks), cameras, names, everything, (), SceneTransform.identity(), "a sphere")


@pytest.fixture(scope="module")
def spot(data):
    return few(warpdvr.load(data / "renders" / "spot", hold_out=0), 16)


def write_nerfstudio(views, folder, change=lambda pose: pose):
    frames = []
    for camera, name, image, mask in zip(views.cameras, views.names, views.images, views.masks, strict=True):
        alpha = mask.to(torch.uint8)[..., None] * 255
        Image.fromarray(torch.cat([image, alpha], 2).numpy()).save(folder / f"{name}.png")
        pose = change(camera.pose.double() @ OPENGL)
        frames.append({"file_path": f"{name}.png", "transform_matrix": pose.tolist()})
    K, w, h = views.cameras[0].K, views.cameras[0].width, views.cameras[0].height
    intrinsics = {"fl_x": float(K[0, 0]), "fl_y": float(K[1, 1]), "cx": float(K[0, 2]), "cy": float(K[1, 2])}
    (folder / "transforms.json").write_text(json.dumps({**intrinsics, "w": w, "h": h, "frames": frames}))
    return folder


@pytest.fixture(scope="module")
def sphere():
    return sphere_views()


def test_the_hull_of_a_sphere_is_a_sphere(sphere):
    group = outlines(sphere, torch.zeros(3, dtype=torch.float64), range(len(sphere)))
    hull = carve(group)
    radii = hull.x.norm(dim=1)
    assert RADIUS - 2 * hull.side < radii.max() < 1.25 * RADIUS  # cones that touch the sphere meet outside of it
    volume = len(hull.x) * hull.side**3
    assert 0.95 < volume / (4 / 3 * math.pi * RADIUS**3) < 1.15
    assert min(hull.overlap(outline) for outline in group) > 0.93


def test_the_surface_of_a_block_of_cells_is_its_rim():
    step = torch.arange(5) * 0.25
    block = Hull(torch.cartesian_prod(step, step, step) + 7, 0.25)
    assert len(surface_cells(block)) == 5**3 - 3**3


def test_far_from_the_origin_the_hull_is_the_same(sphere):
    """At UTM coordinates float32 cannot hold a sphere of 0.6."""
    away = torch.eye(4, dtype=torch.float64)
    away[:3, 3] = torch.tensor([465432.0, 5412345.0, 100.0])
    moved = replace(sphere, cameras=tuple(replace(c, pose=away @ c.pose.double()) for c in sphere.cameras))
    report = check_data(moved)
    assert report.verdict == "good" and report.score is not None and report.score > 0.94


def pair_of_balls(lower=0.0):
    """Return two parallel cameras side by side that see a ball, the second with its principal point lowered [pixel]."""
    views = []
    for x, y in ((-0.5, 0.0), (0.5, lower)):
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, 3] = torch.tensor([x, 0.0, -4.0])
        camera = Camera([[300.0, 0, 150], [0, 300, 150], [0, 0, 1]], pose, 300, 300)
        rays = camera.rays(dtype=torch.float64)
        o, d = rays.origin, rays.direction / rays.direction.norm(dim=1, keepdim=True)
        mask = ((o * d).sum(1) ** 2 - o.square().sum(1) + RADIUS**2 > 0).reshape(300, 300)
        views.append((replace(camera, K=camera.K + torch.tensor([[0.0, 0, 0], [0, 0, y], [0, 0, 0]])), mask))
    return tuple(Rim(camera, _rim(camera, mask).pixel) for camera, mask in views)


def test_tangents_of_parallel_cameras_differ_by_their_rows():
    """Epipolar lines are rows: lowered by 3 pixels, both points would have to move by 1.5, together 3 / sqrt(2)."""
    assert distances(*[pair_of_balls()] * 2)[0, 1].abs().max() < 0.05
    apart = distances(*[pair_of_balls(3.0)] * 2)
    torch.testing.assert_close(apart[0, 1].abs(), torch.full((2,), 3 / math.sqrt(2)).double(), atol=0, rtol=0.05)
    torch.testing.assert_close(apart[0, 1], apart[1, 0].flip(0), atol=1e-9, rtol=0)
    assert apart[[0, 1], [0, 1]].isnan().all()


def test_a_tangent_beside_the_border_is_unknown():
    group = pair_of_balls()
    low = [replace(rim, camera=replace(rim.camera, height=170)) for rim in group]  # the ball's lower end is at 196
    cut = [replace(rim, pixel=rim.pixel.clamp_max(170)) for rim in low]
    assert distances(cut, cut)[0, 1].isfinite().tolist() in ([True, False], [False, True])


def test_the_principal_point_of_a_ball_is_found(sphere):
    """In pictures of 120 pixels the outline is known to a tenth of a pixel."""
    for x, y in ((0.0, 0.0), (0.5, 0.5), (-0.8, 0.3)):
        moved = replace(sphere, cameras=tuple(map(shifted(x, y), sphere.cameras)))
        point = principal_point(rims(moved))
        assert point is not None
        torch.testing.assert_close(point.shift, -torch.tensor([x, y]).double(), atol=0.08, rtol=0)
        assert point.half_pixel == (-0.5 if x == y == 0.5 else 0.0)


@pytest.mark.parametrize("factor", [0.6, 3.0])
def test_the_focal_length_is_found_unless_the_object_looks_the_same_from_everywhere(sphere, factor):
    """A ball in the middle of all pictures does not tell it: its tangent cones shrink as one."""
    aside = sphere_views(9, 240, centre=(0.25, 0.2, -0.1))
    for views, expected in ((aside, 1 / factor), (sphere, 1)):
        group = rims(replace(views, cameras=tuple(map(scaled_focal(factor), views.cameras))))
        found, apart = best_focal(group)
        assert found == pytest.approx(expected, rel=0.03) and apart < 0.3
    for views in (aside, sphere):
        texts = unseen(rims(views), principal_point(rims(views)))
        assert any("focal" in text for text in texts) == (views is sphere)


def test_a_ring_of_upright_cameras_does_not_tell_half_a_pixel():
    """A lower principal point is a higher object."""
    angles = torch.arange(12) / 12 * 2 * math.pi
    ball = rims(sphere_views(1, 240))[0]
    group = tuple(
        replace(
            ball,
            camera=Camera.look_at((3 * float(a.cos()), 0, 3 * float(a.sin())), up=(0, 1, 0), width=240, height=240),
        )
        for a in angles
    )
    point = principal_point(group)
    assert point is not None and point.half_pixel == 0
    assert any("half a pixel" in text for text in unseen(group, point))


def test_without_outlines_nothing_is_said_of_k():
    group = [replace(rim, pixel=rim.pixel[:0]) for rim in pair_of_balls()]
    assert principal_point(group) is None and best_focal(group)[0] == 1
    assert len(unseen(group, None)) == 1 and all(math.isnan(value) for value in view_distances(group))


def test_right_data_are_good(spot):
    report = check_data(spot)
    assert (report.verdict, report.status) == ("good", 0)
    assert report.score is not None and report.score > 0.9
    assert report.hull is not None and 0.7 < float(report.hull.norm(dim=1).max()) < 1.2  # its farthest vertex is at 0.9


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_named(spot, fault):
    kind, change = FAULTS[fault]
    report = check_data(change(spot))
    assert report.findings[0].kind == kind, report.verdict
    expected = {"exposure": (1,), "half-pixel": (1,), "wrong-pose": (1, 2)}  # 1 where the colours alone show it
    assert report.status in expected.get(kind, (2,))
    named = {"mask-of-another-view": (2,), "swapped-pictures": (2, 7), "wrong-pose": (3,), "exposure": (3,)}.get(
        kind, ()
    )
    assert report.findings[0].views == tuple(spot.names[i] for i in named)


def test_a_dark_picture_does_not_make_its_neighbours_odd(data):
    """A white figure: its shading is all that there is to compare. Its ring of cameras does not tell half a pixel."""
    views = warpdvr.load(data / "middlebury_dino", hold_out=0)
    report = check_data(darker(views))
    assert [(finding.kind, finding.views) for finding in report.findings] == [("exposure", (views.names[3],))]
    assert len(report.unseen) == 1 and "half a pixel" in report.unseen[0]


def test_a_pose_that_is_slightly_wrong_is_named_by_its_outline():
    """Ten degrees move a ball that is not in the middle by a few pixels; the cells of the hull are as large."""
    bent = wrong_pose(sphere_views(12, 160, (0.3, 0.2, -0.1)), degrees=10.0)
    apart = view_distances(rims(bent))
    assert apart[3] > 1.5 and max(apart[:3] + apart[4:]) < 0.2
    assert agreement(outlines(bent, torch.zeros(3, dtype=torch.float64), range(12))).outliers == ()
    report = check_data(bent)
    assert (report.findings[0].kind, report.findings[0].views) == ("wrong-pose", (bent.names[3],))


def test_without_masks_only_the_places_are_examined(sphere):
    report = check_data(replace(sphere, masks=(None,) * len(sphere)))
    assert report.status == 1 and report.findings[0].kind == "no-masks" and report.score is None
    one = replace(sphere, cameras=(sphere.cameras[0],) * len(sphere))
    assert check_data(one).verdict.startswith("wrong: all cameras stand in one place")


def test_the_command_prints_draws_and_returns_the_status(sphere, tmp_path, capsys):
    folder = write_nerfstudio(sphere, tmp_path)
    out = tmp_path / "seen" / "check.png"
    out.parent.mkdir()
    assert main(["check-data", str(folder), "--out", str(out)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == "good" and f"picture    {out}" in printed
    assert any(line.startswith("unseen     a wrong focal length") for line in printed)
    picture = np.asarray(Image.open(out)).astype(int)
    blue = (picture == (30, 120, 255)).all(2)  # outlines of the hull in the views beside the cameras
    assert picture.shape[1] == 1500 and blue[:, 900:].sum() > 1000
    assert main(["check-data", str(folder), "--out", str(out), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["status"] == 0 and table["score"] > 0.9 and len(table["overlap"]) == len(sphere)
    assert table["epipolar"] < 0.2 and max(table["distances"].values()) < 0.3 and len(table["unseen"]) == 1
    assert max(map(abs, table["principal_point"]["shift"])) < 0.1


def test_files_with_other_axes_are_wrong_though_they_cannot_be_located(spot, tmp_path, capsys):
    folder = write_nerfstudio(spot, tmp_path, lambda pose: pose @ OPENGL)
    assert main(["check-data", str(folder), "--out", str(tmp_path / "check.png"), "--json"]) == 2
    table = json.loads(capsys.readouterr().out)
    assert [finding["kind"] for finding in table["findings"]] == ["opencv-axes"]


def test_files_of_determinant_minus_one_are_mirrored(sphere, tmp_path, capsys):
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0, 1.0], dtype=torch.float64))
    folder = write_nerfstudio(sphere, tmp_path, lambda pose: mirror @ pose)
    assert main(["check-data", str(folder), "--out", str(tmp_path / "check.png")]) == 2
    assert "wrong: the frame is mirrored (determinant -1)" in capsys.readouterr().out
    assert not (tmp_path / "check.png").exists()


def test_a_folder_that_cannot_be_read_is_wrong(tmp_path, capsys):
    assert main(["check-data", str(tmp_path / "none")]) == 2
    out = capsys.readouterr().out
    assert "wrong: " in out and out.count("expected a folder of photographs, found nothing") == 1


def test_where_the_picture_goes_is_checked_first(tmp_path, capsys):
    assert main(["check-data", str(tmp_path), "--out", str(tmp_path / "seen.xyz")]) == 2
    assert "seen.xyz: the picture is written as .png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("format", "subfolder"), [("nsvf", "rgb"), ("scannet", "color"), ("nerfstudio", "images"), ("middlebury", ".")]
)
def test_a_mirrored_frame_is_named_in_any_format(sphere, tmp_path, format, subfolder):
    (tmp_path / subfolder).mkdir(exist_ok=True)
    write_nerfstudio(sphere, tmp_path / subfolder)
    (tmp_path / subfolder / "transforms.json").unlink()
    mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=torch.float64))
    pictures = {name: path.name for name, path in zip(sphere.names, sorted(tmp_path.rglob("*.png")), strict=True)}
    for path in warpdvr.export_cameras(sphere, tmp_path, format=format, pictures=pictures):
        path.write_text(mirrored_text(path, mirror))
    report = check_data(tmp_path)
    assert report.findings[0].kind == "mirrored-frame", report.verdict


def mirrored_text(path, mirror):
    """Return a file of poses with the first axis of the world negated."""
    if path.suffix == ".json":
        table = json.loads(path.read_text())
        for frame in table["frames"]:
            frame["transform_matrix"] = (mirror @ torch.tensor(frame["transform_matrix"]).double()).tolist()
        return json.dumps(table)
    rows = [line.split() for line in path.read_text().splitlines()]
    if path.name.endswith("_par.txt"):  # name, K, R, t: world to camera
        for row in rows[1:]:
            R = (torch.tensor([float(a) for a in row[10:19]]).double().reshape(3, 3) @ mirror[:3, :3]).flatten()
            row[10:19] = map(repr, R.tolist())
    elif path.parent.name == "pose":
        rows = (mirror @ torch.tensor([[float(a) for a in row] for row in rows]).double()).tolist()
    return "".join(" ".join(map(str, row)) + "\n" for row in rows)


@pytest.mark.parametrize("change", [mirrored, inverted_poses, other_axes])
def test_a_fit_refuses_contradictions_with_a_guess(spot, change):
    refuse_contradictions(spot, "folder")
    refuse_contradictions(wrong_pose(spot), "folder")  # one bad view of 12 is no reason to refuse
    with pytest.raises(ValueError, match=r"folder: masks and cameras contradict each other.*--no-check"):
        refuse_contradictions(change(spot), "folder")


@pytest.mark.parametrize(("iou", "psnr", "status"), [(0.9, 20.0, 0), (0.4, 20.0, FAILED), (0.9, 9.0, FAILED)])
def test_a_fit_that_failed_has_an_exit_status_of_its_own(iou, psnr, status):
    assert warn_of_failure({"views": 3, "iou": iou, "psnr": psnr}) == status
    assert warn_of_failure({"views": 0, "iou": math.nan, "psnr": math.nan}) == 0

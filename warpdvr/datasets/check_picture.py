"""Draw what was found about a data set: cameras and hull from outside, and the outlines of the worst views."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import interpolate

from warpdvr.cameras.camera import Camera
from warpdvr.datasets.check import DataReport
from warpdvr.datasets.check_hull import Hull, Outline, outlines
from warpdvr.datasets.views import Views
from warpdvr.runtime.files import replacing

WIDTH, HEIGHT, TILE, THUMBNAIL, MARGIN = 900, 700, 300, 56, 24
"""Size of the drawing of the cameras, width of a view beside it, longest side of a photograph in it, and what is kept
free around it [pixel]."""

WORST = 6
"""So many views are drawn beside the cameras."""

BACKGROUND, INK, WARNING, OUTLINE, HULL = (255, 255, 255), (60, 60, 60), (210, 30, 30), (240, 60, 40), (30, 120, 255)
"""Colours: the paper, text and cameras, views that are named, outlines of masks, and the hull."""


def draw_report(report: DataReport, path: Path) -> None:
    """Write a picture: the cameras with their photographs around the hull, and the views that fit the hull worst.

    Outlines of masks are red, those of the projected hull are blue; views that a finding names are red.

    Raises:
        ValueError: if the report has no views.
    """
    if report.views is None:
        raise ValueError("draw_report: the data could not be read, so there is nothing to draw")
    tiles = _worst(report, report.views)
    rows = (len(tiles) + 1) // 2
    page = Image.new("RGB", (WIDTH + 2 * TILE * bool(tiles), max(HEIGHT, rows * (TILE * 3 // 4 + 20)) + 30), BACKGROUND)
    page.paste(_scene(report, report.views), (0, 30))
    for k, tile in enumerate(tiles):
        page.paste(tile, (WIDTH + TILE * (k % 2), 30 + (TILE * 3 // 4 + 20) * (k // 2)))
    verdict = report.verdict if len(report.verdict) < 200 else report.verdict[:197] + "..."
    ImageDraw.Draw(page).text((8, 8), verdict, fill=WARNING if report.status else INK)
    with replacing(path) as unfinished:
        page.save(unfinished, format="PNG")


def _scene(report: DataReport, views: Views) -> Image.Image:
    """Draw the cameras, their photographs and the hull from outside."""
    page = Image.new("RGB", (WIDTH, HEIGHT), BACKGROUND)
    draw = ImageDraw.Draw(page)
    centres = torch.stack([camera.centre.detach().double() for camera in views.cameras])
    hull = torch.zeros(0, 3) if report.hull is None else report.hull
    middle = hull.double().mean(0) if len(hull) else centres.mean(0)
    reach = float((centres - middle).norm(dim=1).median()) or 1.0
    frusta = [_frustum(camera, 0.16 * reach) for camera in views.cameras]
    place = _projection(torch.cat([torch.stack(frusta).flatten(0, 1), hull.double()]), middle, centres)
    depth = place(centres)[:, 2]
    named = {name for finding in report.findings for name in finding.views}
    behind = [i for i in depth.argsort(descending=True).tolist() if depth[i] > 0]
    for i in behind:
        _draw_camera(page, draw, views, i, place(frusta[i]), named)
    _draw_hull(page, place(hull.double()))
    for i in [i for i in depth.argsort(descending=True).tolist() if i not in behind]:
        _draw_camera(page, draw, views, i, place(frusta[i]), named)
    note = f"{len(views)} cameras" + (f", hull of {len(hull)} cells" if len(hull) else ", no hull")
    draw.text((8, HEIGHT - 18), note, fill=INK)
    return page


def _frustum(camera: Camera, length: float) -> Float[Tensor, "5 3"]:
    """Return a camera's centre and the corners of its image, at a distance."""
    w, h = float(camera.width), float(camera.height)
    corners = camera.rays(torch.tensor([[0.0, 0.0], [w, 0.0], [w, h], [0.0, h]], dtype=torch.float64))
    ends = corners.origin.double() + length * corners.direction.double()
    return torch.cat([camera.centre.detach().double()[None], ends])


class _Projection:
    """A parallel projection onto the page."""

    def __init__(self, axes: Float[Tensor, "3 3"], scale: float, offset: Float[Tensor, "3"]):
        self.axes, self.scale, self.offset = axes, scale, offset

    def __call__(self, x: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Return column and row on the page [pixel], and the depth behind the middle of the hull."""
        return (x @ self.axes.T) * self.scale + self.offset


def _projection(x: Float[Tensor, "n 3"], middle: Float[Tensor, "3"], centres: Float[Tensor, "v 3"]) -> _Projection:
    """Return the projection onto the page: the cameras' mean is above, and the page holds all points."""
    up = (centres - middle).mean(0)
    if up.norm() < 0.2 * (centres - middle).norm(dim=1).mean():  # all around: any axis of the world will do
        up = torch.tensor([0.0, 1.0, 0.0]).to(up)
    up = up / up.norm()
    side = torch.linalg.cross(up, torch.eye(3).to(up)[int(up.abs().argmin())])
    side = side / side.norm()
    front = torch.linalg.cross(side, up)
    down, ahead = -(0.8 * up + 0.6 * front), 0.8 * front - 0.6 * up
    axes = torch.stack([side, down, ahead])
    flat = (x @ axes.T)[:, :2]
    low, high = flat.amin(0), flat.amax(0)
    free = torch.tensor([WIDTH - 2 * MARGIN - THUMBNAIL, HEIGHT - 2 * MARGIN - THUMBNAIL]).to(flat)
    scale = float((free / (high - low).clamp_min(1e-12)).min())
    offset = torch.tensor([WIDTH / 2, HEIGHT / 2]).to(flat) - scale * (low + high) / 2
    return _Projection(axes, scale, torch.cat([offset, -scale * (axes[2] @ middle)[None]]))


def _draw_camera(
    page: Image.Image,
    draw: ImageDraw.ImageDraw,
    views: Views,
    i: int,
    corners: Float[Tensor, "5 3"],
    named: set[str],
) -> None:
    """Draw a frustum, and the photograph at its end."""
    colour = WARNING if views.names[i] in named else INK
    apex, *ends = [(float(u), float(v)) for u, v in corners[:, :2].tolist()]
    thumbnail = _reduced(views, i, THUMBNAIL)
    u, v = (sum(end[k] for end in ends) / 4 for k in (0, 1))
    page.paste(thumbnail, (round(u - thumbnail.width / 2), round(v - thumbnail.height / 2)))
    for end, other in zip(ends, [*ends[1:], ends[0]], strict=True):
        draw.line([apex, end], fill=colour)
        draw.line([end, other], fill=colour)
    draw.ellipse([apex[0] - 2, apex[1] - 2, apex[0] + 2, apex[1] + 2], fill=colour)


def _draw_hull(page: Image.Image, x: Float[Tensor, "n 3"]) -> None:
    """Draw the hull's cells, the farther the lighter."""
    if len(x) == 0:
        return
    x = x[x[:, 2].argsort(descending=True)]
    depth = (x[:, 2] - x[:, 2].min()) / (x[:, 2].max() - x[:, 2].min()).clamp_min(1e-9)
    shade = torch.tensor(HULL) * (1 - 0.7 * depth[:, None]) + 255 * 0.7 * depth[:, None]
    pixels = np.array(page)
    u, v = x[:, 0].round().long().clamp(1, WIDTH - 2), x[:, 1].round().long().clamp(1, HEIGHT - 2)
    for du, dv in ((0, 0), (1, 0), (0, 1), (1, 1)):
        pixels[(v + dv).numpy(), (u + du).numpy()] = shade.to(torch.uint8).numpy()
    page.paste(Image.fromarray(pixels))


def _reduced(views: Views, i: int, longest: int) -> Image.Image:
    """Return a photograph with a longer side of at most `longest` [pixel]."""
    picture = Image.fromarray(views.images[i].numpy())
    picture.thumbnail((longest, longest))
    return picture


def _worst(report: DataReport, views: Views) -> list[Image.Image]:
    """Draw the views that are named, then those that fit the hull worst."""
    overlap = dict(report.overlap)
    named = [name for finding in report.findings for name in finding.views if name in overlap]
    names = list(dict.fromkeys([*named, *sorted(overlap, key=lambda name: overlap[name])]))[:WORST]
    if report.hull is None or not names:
        return []
    hull = Hull(report.hull, _side(report.hull))
    group = outlines(views, torch.zeros(3, dtype=torch.float64), [views.names.index(name) for name in names])
    return [
        _tile(view, hull, f"{name}: {100 * overlap[name]:.1f} %", name in named)
        for name, view in zip(names, group, strict=True)
    ]


def _side(x: Float[Tensor, "n 3"]) -> float:
    """Return the side of the cells with these centres."""
    steps = x[:, 0].unique().diff() if len(x) else torch.ones(1)
    steps = steps[steps > 0.5 * steps.max()] if len(steps) else torch.ones(1)
    return float(steps.median())


def _tile(view: Outline, hull: Hull, label: str, named: bool) -> Image.Image:
    """Draw a view with the outlines of its mask and of the hull."""
    drawn, _ = hull.silhouette(view)
    h, w = view.mask.shape
    factor = min((TILE - 8) / w, (TILE * 3 // 4) / h)
    size = round(h * factor), round(w * factor)
    image = interpolate(view.image.permute(2, 0, 1)[None].float(), size=size, mode="bilinear")[0].permute(1, 2, 0)
    pixels = (0.6 * image + 0.4 * 255).numpy().astype(np.uint8)
    for shape, colour in ((view.mask, OUTLINE), (drawn, HULL)):
        pixels[_edge(shape, size)] = colour
    page = Image.new("RGB", (TILE, TILE * 3 // 4 + 20), BACKGROUND)
    page.paste(Image.fromarray(pixels), (4, 16))
    ImageDraw.Draw(page).text((4, 2), label, fill=WARNING if named else INK)
    return page


def _edge(shape: Bool[Tensor, "h w"], size: Sequence[int]) -> NDArray[np.bool_]:
    """Return the pixels at the edge of a shape that is drawn in another size."""
    large = interpolate(shape[None, None].float(), size=tuple(size), mode="bilinear") > 0.5
    grown = torch.nn.functional.max_pool2d(large.float(), 3, 1, 1)[0, 0] > 0.5
    edge: NDArray[np.bool_] = (grown & ~large[0, 0]).numpy()
    return edge

"""Render views of a mesh: a scene that needs no data and whose true shape is known."""

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.paths import fibonacci_sphere
from warpdvr.cameras.transform import SceneTransform
from warpdvr.datasets.normalise import RADIUS
from warpdvr.datasets.studio import MeshHits, Studio, studio_lights
from warpdvr.datasets.texture import value_noise
from warpdvr.datasets.views import SparseDepth, Views, describe_split
from warpdvr.geometry.mesh import Mesh, bounding_ball, read_mesh, vertex_normals
from warpdvr.geometry.precision import as_precise_as_needed
from warpdvr.geometry.solids import SOLIDS
from warpdvr.runtime.validate import suggest
from warpdvr.shading.materials import Lambert

SAMPLES = ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))
"""Sample positions within a pixel [pixel]."""

OURS = "solid:"
"""What the name of a solid of `warpdvr.geometry.solids` begins with."""


def mesh_views(
    source: str | Path,
    *,
    count: int = 32,
    test: int = 8,
    size: int = 200,
    fov: float = 40.0,
    distance: float = 3.0,
    lowest: float = -90.0,
    up: str | None = None,
    seed: int = 0,
    depth: bool = False,
    points: int = 0,
) -> Views:
    """Render a mesh from all sides, matte and in soft colours; `Views.truth` is the mesh.

    A solid of ours has faces that are shaded flat, and a texture of many scales, which tells depth in its concavities.
    The scene keeps the axes of the mesh; the vertex farthest from the centre of its box is at distance 0.9.

    Args:
        source: a mesh file, "warp:NAME" for an asset that comes with Warp, such as "warp:bunny", or "solid:NAME" for a
            solid of `warpdvr.geometry.solids`, such as "solid:courtyard".
        count, test: number of views to fit, and of held-out views spread among them.
        size: width and height of the images [pixel].
        fov: field of view [degree].
        distance: distance of the cameras from the origin [scene unit].
        lowest: elevation below which no camera stands, above the horizon [degree]; -90: they stand all around.
        up: the axis of the mesh that points upwards, "y" or "z"; None takes the axis of the asset, "y" for a file.
        seed: seed of the small displacements of the cameras.
        depth: also return depth maps.
        points: number of random points of known depth per view, as structure from motion gives them.

    Raises:
        ValueError: if the source does not exist or holds no triangles, or a number is out of range.
    """
    _check_numbers(count, test, size, distance, points, lowest)
    vertices, faces, own_up = _read(str(source))
    up = own_up if up is None else up
    if up not in ("y", "z"):
        raise ValueError(f"mesh_views: up must be 'y' or 'z', found {up!r}")
    transform = _into_sphere(vertices)
    cameras = _cameras(count + test, _frame(up), size, fov, distance, lowest, seed)
    make_studio = _solid_studio if str(source).startswith(OURS) else _studio
    studio = make_studio(transform.inverse().apply(vertices), faces, _frame(up))
    images, masks = zip(*(studio.photograph(camera, torch.tensor(SAMPLES)) for camera in cameras), strict=True)
    depths = tuple(map(studio.depth, cameras)) if depth or points else ()
    generator = torch.Generator().manual_seed(seed)
    sparse = tuple(_random_depths(z, points, generator) for z in depths) if points else ()
    held_out = tuple(int((i + 0.5) * len(cameras) / test) for i in range(test))
    train = tuple(i for i in range(len(cameras)) if i not in held_out)
    summary = (
        f"Mesh {source}: {len(vertices)} vertices, {len(faces)} triangles, {_describe_edges(faces)}, {up} is up. "
        f"Rendered as {len(cameras)} views of {size} x {size} pixels, masks from pixel coverage. "
        f"{describe_split(train, held_out)}. "
        f"1 scene unit = {transform.scale:.4g} units of the mesh."
    )
    names, truth = tuple(f"{i:03d}" for i in range(len(cameras))), Mesh(as_precise_as_needed(vertices), faces)
    depths = depths if depth else ()
    return Views(images, masks, cameras, names, train, held_out, transform, summary, truth, depths, sparse)


def _check_numbers(count: int, test: int, size: int, distance: float, points: int, lowest: float) -> None:
    """Raise ValueError if an argument of `mesh_views` is out of range."""
    if not -90 <= lowest < 90:
        raise ValueError(f"mesh_views: lowest must be an elevation from -90 to below 90 degrees, found {lowest}")
    if points < 0:
        raise ValueError(f"mesh_views: points must not be negative, found {points}")
    if count < 1 or test < 0 or count + test < 2 or size < 1 or not distance > 1:
        raise ValueError(
            f"mesh_views: expected count >= 1, test >= 0, together at least 2, size >= 1 and distance > 1, "
            f"found {count}, {test}, {size} and {distance}"
        )


def _studio(vertices: Float[Tensor, "n 3"], faces: Int[Tensor, "m 3"], frame: Float[Tensor, "3 3"]) -> Studio:
    """Return a studio with a mesh in the scene frame that is smooth, matte and in soft colours."""
    normals, material, lights = vertex_normals(vertices, faces).float(), Lambert(), studio_lights(frame)

    def light(hits: MeshHits) -> Float[Tensor, "k 3"]:
        n = (normals[faces[hits.face]] * hits.weight[..., None]).sum(1)
        n = torch.nn.functional.normalize(n, dim=1)
        return material.reflected(_albedo(hits.rays.at(hits.t)), n, hits.rays.direction, lights)

    return Studio(vertices.float(), faces, light)


def _solid_studio(vertices: Float[Tensor, "n 3"], faces: Int[Tensor, "m 3"], frame: Float[Tensor, "3 3"]) -> Studio:
    """Return a studio with a mesh in the scene frame that has flat faces, is matte, and strongly textured."""
    a, b, c = vertices[faces].double().unbind(1)
    normals = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1).float()
    material, lights = Lambert(), studio_lights(frame)

    def light(hits: MeshHits) -> Float[Tensor, "k 3"]:
        albedo = value_noise(hits.rays.at(hits.t))
        return material.reflected(albedo, normals[hits.face], hits.rays.direction, lights)

    return Studio(vertices.float(), faces, light)


def _random_depths(depth: Float[Tensor, "h w"], n: int, generator: torch.Generator) -> SparseDepth:
    """Return the depths of up to `n` random pixels that see the mesh."""
    v, u = torch.nonzero(~depth.isnan(), as_tuple=True)
    pick = torch.randperm(len(u), generator=generator)[:n]
    return SparseDepth(torch.stack([u, v], 1)[pick] + 0.5, depth[v, u][pick])


def _read(source: str) -> tuple[Float[Tensor, "n 3"], Int[Tensor, "m 3"], str]:
    """Return vertices, float64, triangles, int64, and the axis that points upwards."""
    if source.startswith("warp:"):
        return _warp_asset(source)
    if source.startswith(OURS):
        name = source.removeprefix(OURS)
        if name not in SOLIDS:
            raise ValueError(
                f"{source}: there is no such solid, expected one of {', '.join(SOLIDS)}{suggest(name, SOLIDS)}"
            )
        mesh = SOLIDS[name]()
        return mesh.vertices.double(), mesh.faces, "y"
    mesh = read_mesh(Path(source))
    if len(mesh.faces) == 0:
        raise ValueError(f"{source}: expected a mesh with triangles, found none")
    return mesh.vertices.double(), mesh.faces, "y"


def _warp_asset(source: str) -> tuple[Float[Tensor, "n 3"], Int[Tensor, "m 3"], str]:
    """Return vertices, triangles and the axis that points upwards of an asset "warp:NAME"."""
    import warp.examples
    from pxr import Usd, UsdGeom

    home = Path(warp.examples.__path__[0]) / "assets"
    assets = {f.stem: f for f in sorted(home.glob("*.usd"))}
    name = source.removeprefix("warp:")
    if name not in assets:
        raise ValueError(f"{source}: Warp comes with no such asset, expected one of {', '.join(assets)}")
    stage = Usd.Stage.Open(str(assets[name]))
    prim = next((p for p in stage.Traverse() if p.IsA(UsdGeom.Mesh)), None)
    if prim is None or set(UsdGeom.Mesh(prim).GetFaceVertexCountsAttr().Get()) != {3}:
        raise ValueError(f"{source}: expected an asset with a mesh of triangles, found none")
    mesh = UsdGeom.Mesh(prim)
    vertices = torch.from_numpy(np.array(mesh.GetPointsAttr().Get(), dtype=np.float64))
    faces = torch.from_numpy(np.array(mesh.GetFaceVertexIndicesAttr().Get(), dtype=np.int64)).reshape(-1, 3)
    return vertices, faces, str(UsdGeom.GetStageUpAxis(stage)).lower()


def _into_sphere(vertices: Float[Tensor, "n 3"]) -> SceneTransform:
    """Return the transform to the vertices from a scene in which they lie within `RADIUS` of the origin."""
    try:
        centre, radius = bounding_ball(vertices)
    except ValueError as error:
        raise ValueError(f"mesh_views: {error}") from None
    return SceneTransform.around(centre, radius / RADIUS)


def _frame(up: str) -> Float[Tensor, "3 3"]:
    """Return the directions right, up and front of the object, as the rows of a rotation."""
    rows = [[1, 0, 0], [0, 1, 0], [0, 0, 1]] if up == "y" else [[1, 0, 0], [0, 0, 1], [0, -1, 0]]
    return torch.tensor(rows, dtype=torch.float64)


def _cameras(
    n: int, frame: Float[Tensor, "3 3"], size: int, fov: float, distance: float, lowest: float, seed: int
) -> tuple[Camera, ...]:
    """Return slightly displaced cameras on a Fibonacci sphere that look close to the origin."""
    generator = torch.Generator().manual_seed(seed)
    jitter = torch.rand(2, n, 3, generator=generator, dtype=torch.float64) - 0.5
    direction = fibonacci_sphere(n) if lowest == -90 else _raised(fibonacci_sphere(n), lowest)
    eye = (direction + 0.1 * jitter[0] / n**0.5) * distance @ frame
    target = 0.06 * jitter[1]
    pairs = zip(eye, target, strict=True)
    return tuple(Camera.look_at(e, a, up=frame[1], fov=fov, width=size, height=size) for e, a in pairs)


def _raised(direction: Float[Tensor, "n 3"], lowest: float) -> Float[Tensor, "n 3"]:
    """Return unit directions spread over the sphere, moved up along their meridians to spread above an elevation."""
    low = math.sin(math.radians(lowest))
    height = low + (direction[:, 1] + 1) / 2 * (1 - low)  # equal areas stay equal
    ring = torch.nn.functional.normalize(direction[:, [0, 2]], dim=1) * (1 - height**2).sqrt()[:, None]
    return torch.stack([ring[:, 0], height, ring[:, 1]], 1)


def _albedo(x: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """Return linear colours: a few waves through the scene."""
    x, y, z = x.unbind(1)
    wave = torch.stack([4 * x + 1.5 * (3 * y).sin(), 5 * y + z + 2, 4.5 * z + 2 * x + 4], 1)
    return 0.5 + 0.42 * wave.sin()


def _describe_edges(faces: Int[Tensor, "m 3"]) -> str:
    """Describe whether each edge belongs to two triangles."""
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).sort(1).values
    count = np.unique(edges.numpy(), axis=0, return_counts=True)[1]
    open_edges = int((count != 2).sum())
    return "closed" if open_edges == 0 else f"open or not manifold at {open_edges} edges"

"""Binary glTF files of triangle meshes, at any distance from the origin."""

import json
import struct

from jaxtyping import Float, Int
from torch import Tensor

from warpdvr.geometry.precision import local_origin
from warpdvr.shading.srgb import linear

_FLOAT, _UNSIGNED, _ATTRIBUTES, _INDICES = 5126, 5125, 34962, 34963


def glb_bytes(
    vertices: Float[Tensor, "n 3"],
    faces: Int[Tensor, "m 3"],
    normals: Float[Tensor, "n 3"] | None,
    colors: Float[Tensor, "n 3"] | None,
) -> bytes:
    """Return a GLB file: one mesh with linear vertex colours, as glTF 2.0 (Khronos, section 3.7.2) wants them.

    Coordinates are float32, the only ones of the format. Far from the origin they are relative to the centre of the
    mesh, which is the `translation` of the node: text, with all digits of float64. The axes stay those of the mesh.
    """
    origin = local_origin(vertices)
    arrays = {"POSITION": vertices.double() - origin, "NORMAL": normals}
    arrays["COLOR_0"] = None if colors is None else linear(colors.clamp(0, 1))
    floats = {k: a.detach().cpu().numpy().astype("<f4") for k, a in arrays.items() if a is not None}
    blocks = [(a, _ATTRIBUTES) for a in floats.values()] + [(faces.cpu().numpy().astype("<u4").reshape(-1), _INDICES)]
    views, accessors, start = [], list[dict[str, object]](), 0
    for i, (array, target) in enumerate(blocks):
        views.append({"buffer": 0, "byteOffset": start, "byteLength": array.nbytes, "target": target})
        kind = ("VEC3", _FLOAT) if target == _ATTRIBUTES else ("SCALAR", _UNSIGNED)
        accessors.append({"bufferView": i, "type": kind[0], "componentType": kind[1], "count": len(array)})
        start += array.nbytes
    position = floats["POSITION"]
    accessors[0] |= {"min": position.min(0).tolist(), "max": position.max(0).tolist()}
    primitive = {"attributes": {k: i for i, k in enumerate(floats)}, "indices": len(floats), "material": 0}
    node: dict[str, object] = {"mesh": 0}
    if origin.any():
        node["translation"] = origin.tolist()
    description = {
        "asset": {"version": "2.0", "generator": "warpdvr"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [node],
        "meshes": [{"primitives": [primitive]}],
        "materials": [{"pbrMetallicRoughness": {"metallicFactor": 0, "roughnessFactor": 1}}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": start}],
    }
    return _container(description, b"".join(array.tobytes() for array, _ in blocks))


def _container(description: dict[str, object], data: bytes) -> bytes:
    """Return the file of a description and a buffer: a header and two chunks, each a multiple of 4 bytes."""
    text = json.dumps(description, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks

"""Every kernel is compiled for CUDA, by the compiler that Warp brings: no GPU is needed.

Registers that do not fit go to local memory, which is as slow as any, and a GPU for pictures does float64 arithmetic at
1/64 of its speed: neither may come into a kernel unseen. By default that is tried on one architecture and two widths
of a table; `--arch all` takes those below, and every width (`make compile-cuda`).
"""

import ast
import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import cubin
import pytest
import warp as wp

import warpdvr.kernels
from warpdvr.kernels import composite, encode, fused, fused_cached
from warpdvr.kernels.analytic import Program, distance
from warpdvr.kernels.perceptron import fourier_perceptron, hash_perceptron
from warpdvr.kernels.voxels import Voxels, voxels
from warpdvr.runtime.launch import start_warp

ARCHITECTURES = {"75": "Turing", "86": "Ampere", "90": "Hopper", "100": "Blackwell"}

WIDTHS = range(1, 9)
"""Features of a level of a hash encoding; each width has kernels of its own."""

FEW = 2, 8
"""The usual width, and the one that needs most registers."""

FACTORIES = {"encode", "composite", "fused", "fused_cached"}
"""Modules that make their kernels by type; all others have theirs at the top."""

MESH_QUERIES = {"inside", "first_hit"}
"""Kernels with float64 arithmetic of Warp's: a ray that meets an edge of a mesh is tested once more in float64."""

SINES = "fourier_perceptron"
"""A function with sines: those of CUDA take large angles back to small ones in float64."""

PRECISIONS = {
    "float32": (wp.float32, wp.float32),
    "float16": (wp.float32, wp.float16),
    "float64": (wp.float64, wp.float64),
}
"""Types of positions and of the table, by the type of the table."""


def modules() -> dict[str, Any]:
    """Return all modules of kernels by name, which import what they need."""
    names = [info.name for info in pkgutil.iter_modules(warpdvr.kernels.__path__)]
    return {name: import_module(f"warpdvr.kernels.{name}") for name in names}


def builds(widths: tuple[int, ...]) -> Iterator[tuple[str, list[Any]]]:
    """Yield what is compiled at once, by name: kernels that share a module of Warp's."""
    for name, module in modules().items():
        if name not in FACTORIES and (kernels := [k for k in vars(module).values() if isinstance(k, wp.Kernel)]):
            yield name, kernels
    for scalar in (wp.float32, wp.float64):
        for part, kernel in vars(composite.kernels(scalar)).items():
            yield f"composite-{part}-{scalar.__name__}", [kernel]
    hashed, fourier = hash_perceptron(8, 2, 64), fourier_perceptron(6, 64)
    functions: list[tuple[Any, Any]] = [
        (distance, Program),
        (voxels, Voxels),
        (hashed.value, hashed.Parameters),
        (fourier.value, fourier.Parameters),
    ]
    for value, parameters in functions:
        for module in (fused, fused_cached):
            name = f"{module.__name__.rpartition('.')[2]}-{value.key.rpartition('.')[2]}"
            yield name, list(vars(module.kernels(value, parameters)).values())
    for width in widths:
        for stored, types in PRECISIONS.items():
            for part, kernel in vars(encode.kernels(width, *types, False)).items():
                if (part, stored) != ("scatter", "float16"):  # which has the type of positions
                    yield f"encode-{part}-{width}-{stored}", [kernel]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kernels" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--arch")
        table = list(builds(tuple(WIDTHS) if chosen == "all" else FEW))
        metafunc.parametrize("kernels", [kernels for _, kernels in table], ids=[name for name, _ in table])
        metafunc.parametrize("arch", ARCHITECTURES if chosen == "all" else chosen.split(","))


def compiled(module: wp.Module, arch: str, folder: Path, ptx: bool) -> Path:
    """Compile a module of Warp's, and return the file."""
    start_warp()
    wp.compile_aot_module(module, arch=int(arch), module_dir=folder, use_ptx=ptx)
    (file,) = folder.glob("*.ptx" if ptx else "*.cubin")
    return file


def entries(ptx: Path) -> dict[str, str]:
    """Return the text of each kernel by name."""
    parts = ptx.read_bytes().rstrip(b"\0").decode().split(".entry ")[1:]
    return {part.partition("(")[0]: part for part in parts}


def in_float64(kernel: wp.Kernel) -> bool:
    """Whether a kernel is given float64 numbers."""
    kinds = [getattr(arg.type, "dtype", arg.type) for arg in kernel.adj.args]
    return any(getattr(kind, "_wp_scalar_type_", kind) is wp.float64 for kind in kinds)


def faults(kernels: list[Any], arch: str, folder: Path) -> list[str]:
    """Compile kernels of one module, and return what is wrong with them."""
    (module,) = {kernel.module for kernel in kernels}
    usage = cubin.read_usage(compiled(module, arch, folder, ptx=False))
    text = entries(compiled(module, arch, folder, ptx=True))
    found, largest = [], 0
    for kernel in kernels:
        name = f"{kernel.get_mangled_name()}_cuda_kernel_forward"
        assert 16 <= usage[name].registers <= 255
        arrays = sum(map(int, re.findall(r"__local_depot\d+\[(\d+)\]", text[name])))  # indexed at run time
        largest = max(largest, arrays)
        if usage[name].frame > arrays:
            found.append(f"{kernel.key} spills {usage[name].frame - arrays} bytes of registers")
        if (
            ".f64" in text[name]
            and not in_float64(kernel)
            and kernel.key not in MESH_QUERIES
            and SINES not in kernel.module.name
        ):
            found.append(f"{kernel.key} computes in float64")
    functions = {name: use.frame for name, use in usage.items() if "_cuda_kernel_" not in name}  # such as divisions
    return found + [f"{name} needs {frame} bytes" for name, frame in functions.items() if frame > largest]


def test_kernels_fit_a_gpu(kernels, arch, tmp_path):
    assert faults(kernels, arch, tmp_path) == []


square = wp.types.matrix((16, 16), wp.float32)


@wp.kernel(enable_backward=False, module="unique")
def crowded(a: wp.array[square], b: wp.array[wp.float32]):  # type: ignore[valid-type]
    """Needs all numbers of a matrix before it can begin, more than there are registers."""
    m = a[wp.tid()]
    s = float(0.0)
    for i in range(16):
        for j in range(16):
            s = m[i, j] / (s + m[j, 15 - i])
    for i in range(16):
        for j in range(16):
            s = m[15 - j, i] / (s + m[i, j])
    b[wp.tid()] = s  # type: ignore[index]


@wp.kernel(enable_backward=False, module="unique")
def precise(a: wp.array[wp.float32]):
    """Takes a constant for a float64."""
    a[wp.tid()] = wp.float32(wp.float64(a[wp.tid()]) * wp.float64(0.1))  # type: ignore[index]


def test_faults_are_found(tmp_path):
    (spills,) = faults([crowded], "75", tmp_path / "crowded")
    assert re.fullmatch(r"crowded spills \d+ bytes of registers", spills)
    assert faults([precise], "75", tmp_path / "precise") == ["precise computes in float64"]


def test_no_kernel_is_left_out():
    """As many are compiled as there are decorators in the sources, and each belongs to a module of the package."""
    written = 0
    for file in Path(warpdvr.kernels.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef):
                written += any("wp.kernel" in ast.unparse(decorator) for decorator in node.decorator_list)
    table = dict(builds((2,)))
    instance = r"(composite|encode)-.*-float32|fused(_cached)?-distance"
    plain = sum(len(kernels) for name, kernels in table.items() if "-" not in name or re.fullmatch(instance, name))
    assert plain == written > 20

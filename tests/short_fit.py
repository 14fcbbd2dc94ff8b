"""A fit of a ball that takes seconds, to be interrupted; shared with benchmarks/survival.py."""


def short_fit(iterations: int) -> str:
    """Return its scene file."""
    return f"""
[views]
mesh = "warp:sphere"
count = 3
test = 1
size = 32

[field]
kind = "sdf"
width = 16
depth = 1

[fit]
iterations = {iterations}
rays = 32

[mesh]
resolution = 16
"""

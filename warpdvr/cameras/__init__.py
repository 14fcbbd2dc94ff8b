"""Cameras: rays, projections, poses, camera paths, and the transform between scene and data."""

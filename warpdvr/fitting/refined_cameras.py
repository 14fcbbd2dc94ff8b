"""The cameras of a fit: as they are given, or refined together with the field."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from warpdvr.cameras.camera import Camera
from warpdvr.cameras.intrinsics import Intrinsics
from warpdvr.cameras.pose import Poses
from warpdvr.datasets.pixels import PixelBatch, Pixels
from warpdvr.datasets.views import Views
from warpdvr.fitting.exposure import Exposure
from warpdvr.fitting.recipe import Recipe


class RefinedCameras:
    """Draws the rays of a fit with its cameras; what a recipe has rates for is learnt with the field, exposures too."""

    def __init__(self, recipe: Recipe, views: Views, pixels: Pixels, device: torch.device):
        self.recipe, self.views, self.pixels = recipe, views, pixels
        self.poses = Poses(pixels.pose) if recipe.cameras else None
        options: dict[str, Any] = {"principal_point": recipe.principal_point, "device": device}
        self.intrinsics = Intrinsics(views.cameras, **options) if recipe.intrinsics else None
        self.exposure = Exposure(len(views.train), device) if recipe.exposure != 0 else None

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """The cameras of all views [scene unit]: the poses of the training views, and intrinsics, as refined so far."""
        cameras = list(self.views.cameras)
        if self.intrinsics:
            cameras = self.intrinsics.refined(cameras)
        if self.poses:
            for view, pose in zip(self.views.train, self.poses().detach().cpu().double(), strict=True):
                cameras[view] = replace(cameras[view], pose=pose)
        return tuple(cameras)

    @property
    def groups(self) -> list[dict[str, Any]]:
        """What is learnt of the cameras, as parameter groups with their highest rate."""
        learnt: Sequence[tuple[nn.Module | None, float]] = (
            (self.poses, self.recipe.cameras),
            (self.intrinsics, self.recipe.intrinsics),
        )
        return [{"params": list(module.parameters()), "rate": rate} for module, rate in learnt if module]

    def draw(self, n: int, generator: torch.Generator) -> PixelBatch:
        """Draw n rays of the training views, in blocks if the recipe wants them."""
        pose = self.poses() if self.poses else None
        if self.intrinsics:
            K, projections = self.intrinsics()
            self.pixels.set_intrinsics(K[[*self.views.train]], [projections[i] for i in self.views.train])
        return self.pixels.draw(n, generator, patches=self.recipe.blocks, pose=pose)

    def state(self) -> dict[str, Tensor]:
        """Return what `resume` needs."""
        state = {}
        if self.poses:
            state["cameras"] = self.poses.twist.detach().clone()
        if self.intrinsics:
            state["intrinsics"] = self.intrinsics.correction.detach().clone()
        if self.exposure:
            state["exposures"] = self.exposure.correction.detach().clone()
        return state

    def resume(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state`.

        Raises:
            ValueError: if it is of a fit that took as given what is to be refined now.
        """
        learnt = ("cameras", self.poses), ("intrinsics", self.intrinsics), ("exposures", self.exposure)
        for name, refined in learnt:
            if refined and name not in state:
                found = "the saved state is of a fit that took them as given; with a rate of 0 they stay so"
                raise ValueError(f"fit: {name} are to be refined, but {found}")
            if refined:
                refined.resume(state[name])

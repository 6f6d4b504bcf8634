"""What a fit rasterises with and grows by: our kernel and density control on the CPU, gsplat on CUDA."""

from __future__ import annotations

from math import inf
from typing import Any, Protocol

import torch

from kernels.gaussians.covariances import gaussian_covariances
from kernels.gaussians.rasterize import RasterOutput, ScreenSpace, View, rasterize
from kernels.gaussians.rasterize_gsplat import rasterize_gsplat
from machine.devices import choose_device
from settings.config import Config
from settings.fitting import FittingConfig
from settings.teacher import NEAR
from teacher.fitting.density_control import DensityControl
from teacher.fitting.gaussian_model import GaussianModel
from teacher.gsplat_setup import ensure_gsplat, gsplat_runs

_NEVER = 1 << 40  # a step no fit reaches


class Backend(Protocol):
    """One way to rasterise and to grow; both are called once a step."""

    def render(self, model: GaussianModel, view: View, sh_degree: int, near: float = NEAR) -> RasterOutput:
        """The view's image; differentiable in the model's tables. ``near`` as of ``Drawing``."""

    def after_step(
        self, model: GaussianModel, step: int, phase: str | None, most: int, generator: torch.Generator
    ) -> None:
        """After backward pass and optimiser: takes in how the screen pulled, clones, splits and prunes when it is due.

        Args:
            step: steps done.
            phase: ``"grow"``, ``"prune"`` (no growing any more) or None (neither).
            most: Gaussians that growing may reach.
        """

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores what ``state`` gave."""


def fitting_device(config: Config) -> torch.device:
    """The device of a fit: the config's; the CPU where that is left open and gsplat, which CUDA needs, does not run.

    Raises:
        InputError: as ``choose_device``.
    """
    device = choose_device(config)
    left_open = config.device == "auto" and device.type == "cuda"
    return torch.device("cpu") if left_open and not gsplat_runs(device) else device


def choose_backend(settings: FittingConfig, extent: float, count: int, device: torch.device) -> Backend:
    """The backend for a device.

    Args:
        extent: size of the scene, world units; count: Gaussians at the start.

    Raises:
        InputError: the device is CUDA and gsplat cannot run there; what is missing.
    """
    if device.type == "cuda":
        ensure_gsplat(device)
        return GsplatBackend(settings, extent)
    return CpuBackend(settings, extent, count)


class CpuBackend(DensityControl):
    """``kernels.gaussians.rasterize`` and our density control."""

    def __init__(self, settings: FittingConfig, extent: float, count: int) -> None:
        super().__init__(settings, extent, count)
        self._screen, self._view = ScreenSpace(), None

    def render(self, model: GaussianModel, view: View, sh_degree: int, near: float = NEAR) -> RasterOutput:
        self._screen, self._view = ScreenSpace(), view
        return rasterize(*_tensors(model, sh_degree), view, near=near, screen=self._screen)

    def after_step(
        self, model: GaussianModel, step: int, phase: str | None, most: int, generator: torch.Generator
    ) -> None:
        if phase is None:
            return
        if phase == "grow":
            self.observe(self._screen, self._view.width, self._view.height)
        if step >= self.settings.grow_from and step % self.settings.grow_every == 0:
            self.refine(model, most if phase == "grow" else 0, generator)


class GsplatBackend:
    """``gsplat.rasterization`` and ``gsplat.DefaultStrategy``, whose random numbers are the device's."""

    def __init__(self, settings: FittingConfig, extent: float) -> None:
        import gsplat  # optional, and slow to import

        self._settings = settings
        self._strategy = gsplat.DefaultStrategy(
            prune_opa=settings.prune_opacity,
            refine_start_iter=settings.grow_from - 1,
            refine_stop_iter=_NEVER,
            refine_every=settings.grow_every,
            reset_every=_NEVER,
        )
        self._state = self._strategy.initialize_state(scene_scale=extent)
        self._meta: dict[str, Any] = {}

    def render(self, model: GaussianModel, view: View, sh_degree: int, near: float = NEAR) -> RasterOutput:
        batch, self._meta = rasterize_gsplat(*_tensors(model, sh_degree), [view], near=near)
        self._strategy.step_pre_backward(**self._tables(model), step=0, info=self._meta)
        return RasterOutput(*(plane[0] for plane in batch))

    def after_step(
        self, model: GaussianModel, step: int, phase: str | None, most: int, generator: torch.Generator
    ) -> None:
        if phase is None:
            return
        # The strategy knows no limit: over it, and once growing is over, no pull is enough.
        grows = phase == "grow" and len(model) < most
        self._strategy.grow_grad2d = self._settings.grow_gradient if grows else inf
        self._strategy.step_post_backward(**self._tables(model), step=step, info=self._meta)

    def _tables(self, model: GaussianModel) -> dict[str, Any]:
        return {"params": model.params, "optimizers": model.optimizers, "state": self._state}

    def state(self) -> dict[str, Any]:
        return dict(self._state)

    def load_state(self, state: dict[str, Any]) -> None:
        self._state = dict(state)


def _tensors(model: GaussianModel, sh_degree: int) -> tuple[torch.Tensor, ...]:
    covariances = gaussian_covariances(model.params["scales"], model.params["quats"])
    return model.params["means"], covariances, model.opacities, model.sh(sh_degree)

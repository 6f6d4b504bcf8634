"""The fitting loop: draw a view, rasterise, compare, step; grow and prune; log, save, stop cleanly."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from kernels.losses.ssim import ssim
from kernels.threads import one_torch_thread
from machine.files import CsvLog
from machine.interrupts import Interrupt, SaveClock
from machine.run_folder import RunFolder
from machine.terminal import progress_bar
from scene.cameras import Cameras
from scene.images import psnr_from_mse
from scene.rays import SceneBox
from settings.errors import TrainingDiverged
from settings.fitting import FittingConfig
from settings.sections import Color
from teacher.fitting.backends import choose_backend
from teacher.fitting.gaussian_model import GaussianModel
from teacher.fitting.picture_levels import Pictures
from teacher.gaussians import Gaussians
from teacher.rasterizer import Drawing, camera_view

COLUMNS = (
    *("step", "wall_s", "steps_per_s", "width", "gaussians", "sh_degree", "lr_means", "loss"),
    *("loss_l1", "loss_dssim", "psnr_batch"),
)


@dataclass
class FitProgress:
    """Where a fit stands; restored on resume.

    Attributes:
        rounds: of cloning and splitting.
    """

    step: int = 0
    seconds: float = 0.0
    rounds: int = 0


class TeacherFit:
    """Fits Gaussians to the training pictures of a scene.

    Args:
        settings: the config's ``fitting`` section.
        pictures: what is fitted.
        start: the Gaussians at the start.
        extent: size of the scene, world units (``scene_extent``); positions learn in proportion to it.
        background: behind the pictures where they have alpha and ``random_background`` is off.
        seed: of every random number.
        device: where it is fitted: our kernels on the CPU, gsplat on CUDA.
        drawing: at which size Gaussians are drawn before they are averaged to a picture's, and from which near plane
            on; None: at the picture's.

    Raises:
        InputError: the device is CUDA and gsplat cannot run there.
    """

    def __init__(
        self,
        settings: FittingConfig,
        pictures: Pictures,
        start: Gaussians,
        extent: float,
        background: Color,
        seed: int,
        device: torch.device,
        drawing: Drawing | None = None,
    ) -> None:
        self.settings, self.pictures, self.extent = settings, pictures, extent
        self.device, self.drawing = device, drawing or Drawing()
        self.model = GaussianModel(start, settings.sh_degree, self._rates(), device)
        self.backend = choose_backend(settings, extent, len(start), device)
        shown_on = background if pictures.has_alpha else pictures.background
        self.background = torch.tensor(shown_on, device=device)
        # Before one colour, a floor of that colour would stay a hole.
        self.random_background = settings.random_background and (pictures.has_alpha or pictures.are_photographs)
        self.generator = torch.Generator().manual_seed(seed)
        self.progress, self.order = FitProgress(), []
        self.stopped_by: int | None = None
        """Number of the signal that ended the fit early."""

    def fraction_done(self) -> float:
        """0 to 1, by steps or by time, whichever will end the fit first."""
        settings, progress = self.settings, self.progress
        by_time = progress.seconds / settings.max_seconds if settings.max_seconds else 0.0
        return max(progress.step / settings.max_steps, by_time)

    def run(self, folder: RunFolder, save: Callable[[TeacherFit], None]) -> None:
        """Fits to the end of the schedule, or until a signal (``stopped_by``); ``save(self)`` is called at the end too.

        Raises:
            OSError: a row or the state cannot be written; after a row the state is saved, if that can be.
            TrainingDiverged: the loss is not a finite number.
        """
        settings, progress = self.settings, self.progress
        if self.fraction_done() < 1:
            self._compile()  # what is not in numba's cache yet, so that the clock measures the fit
        log = CsvLog(folder.logs / "fitting_metrics.csv", COLUMNS, progress.step + 1 if progress.step else None)
        by_time = settings.max_seconds is not None
        bar = progress_bar(
            desc="fit",
            total=settings.max_seconds if by_time else settings.max_steps,
            initial=min(progress.seconds, settings.max_seconds) if by_time else progress.step,
            unit="s" if by_time else "step",
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} {unit}{postfix}",
        )
        start, logged = time.perf_counter() - progress.seconds, (progress.step, progress.seconds)
        clock = SaveClock(settings.checkpoint_minutes)
        with bar, one_torch_thread(), Interrupt() as interrupt:
            while self.fraction_done() < 1 and not interrupt.asked:
                record = self._step()
                progress.step += 1
                progress.seconds = time.perf_counter() - start
                self._grow_and_prune()
                # The last step ends when the time is over already: the bar is full, not more than full.
                bar.n = min(progress.seconds if by_time else progress.step, bar.total)
                bar.update(0)  # draws it, now and then
                if progress.step % settings.log_every == 0 or self.fraction_done() >= 1:
                    pace = (progress.step - logged[0]) / max(1e-9, progress.seconds - logged[1])
                    logged = progress.step, progress.seconds
                    row = self._figures(record) | {"steps_per_s": round(pace, 3)}
                    try:
                        log.append(row)
                    except OSError:
                        save(self)  # only the row is lost: the step is whole
                        raise
                    shown = {"gaussians": f"{row['gaussians']:,}", "width": str(row["width"])}
                    bar.set_postfix({"psnr": f"{row['psnr_batch']:.2f}", **shown}, refresh=False)
                every = settings.checkpoint_every
                if (every and progress.step % every == 0) or clock.due():
                    save(self)
            save(self)  # still within: another signal must not end it
            self.stopped_by = interrupt.signal

    def _compile(self) -> None:
        """Goes through a step and leaves everything as it is."""
        with one_torch_thread():
            compared = self._compared(0, 0, self.settings.sh_degree, self.background)
            compared["loss"].backward()
            self.model.clear_gradients()

    def _rates(self) -> dict[str, float]:
        settings = self.settings
        return {
            "means": settings.lr_means * self.extent,
            "scales": settings.lr_scales,
            "quats": settings.lr_rotations,
            "opacities": settings.lr_opacities,
            "sh0": settings.lr_sh,
            "shN": settings.lr_sh / 20,  # Kerbl et al. 2023
        }

    def _step(self) -> dict[str, Any]:
        """One step; returns what it did, tensors staying on the device."""
        settings, done = self.settings, self.fraction_done()
        level, index = self._level(done), self._next_view()
        degree = self._sh_degree(done)
        rate = settings.lr_means * self.extent * settings.lr_means_final_ratio**done
        self.model.optimizers["means"].param_groups[0]["lr"] = rate
        background = self.background
        if self.random_background:
            background = torch.rand(3, generator=self.generator).to(self.device)
        compared = self._compared(level, index, degree, background)
        loss = compared["loss"]
        # In every step, though a GPU has to be waited for: the rasteriser leaves out Gaussians that are not finite, so
        # that a later loss would look healthy again.
        if not torch.isfinite(loss):
            raise TrainingDiverged(f"step {self.progress.step + 1}: the loss is {loss.item()}; lower fitting.lr_means")
        loss.backward()
        self.model.step()
        width = self.pictures.cameras(level).width
        figures = {name: value.detach() for name, value in compared.items()}
        return {"width": width, "sh_degree": degree, "lr_means": rate, **figures}

    def _compared(self, level: int, index: int, degree: int, background: Tensor) -> dict[str, Tensor]:
        """The loss of the model in one picture, its terms and the squared error."""
        settings, cameras = self.settings, self.pictures.cameras(level)
        picture = self.pictures.level(level)[index].to(self.device)
        alpha = picture[..., 3:].float() / 255
        target = picture[..., :3].float() / 255 * alpha + (1 - alpha) * background
        image = self._drawn(cameras, index, degree, background)
        counted = self.pictures.counted(level, index)
        compared = 1.0  # share of the pixels
        if counted is not None:
            counted = counted.to(self.device).float()[..., None]
            compared = counted.mean().clamp(min=1 / counted.numel())
            image, target = image * counted, target * counted
        l1 = (image - target).abs().mean() / compared
        dssim = (1 - ssim(image, target)) / compared
        loss = (1 - settings.dssim_weight) * l1 + settings.dssim_weight * dssim
        squared_error = (image.detach() - target).square().mean() / compared
        return {"loss": loss, "loss_l1": l1, "loss_dssim": dssim, "squared_error": squared_error}

    def _drawn(self, cameras: Cameras, index: int, degree: int, background: Tensor) -> Tensor:
        """(H, W, 3) the model before a background."""
        drawing, fine = self.drawing, self.drawing.fine(cameras)
        view = camera_view(fine, index, drawing.dilation(fine.width))
        output = self.backend.render(self.model, view, degree, drawing.near)
        return drawing.averaged(output.rgb + (1 - output.alpha)[..., None] * background, cameras)

    def _figures(self, record: dict[str, Any]) -> dict[str, object]:
        """A row of ``COLUMNS`` but for the pace; what a step left on the device is fetched here only."""
        row = {name: value.item() if isinstance(value, Tensor) else value for name, value in record.items()}
        squared = row.pop("squared_error")
        return row | {
            "step": self.progress.step,
            "wall_s": round(self.progress.seconds, 3),
            "gaussians": len(self.model),
            "psnr_batch": round(psnr_from_mse(squared), 4),
        }

    def _level(self, done: float) -> int:
        """The size to train on: the coarser ones share the first part of the fit equally."""
        coarse, share = self.pictures.levels - 1, self.settings.coarse_until
        return coarse if done >= share or not coarse else int(done / share * coarse)

    def _sh_degree(self, done: float) -> int:
        degree, every = self.settings.sh_degree, self.settings.sh_degree_every
        return min(degree, int(done / every)) if every else degree

    def _next_view(self) -> int:
        if not self.order:
            self.order = torch.randperm(len(self.pictures), generator=self.generator).tolist()
        return self.order.pop()

    def _grow_and_prune(self) -> None:
        settings, step, done = self.settings, self.progress.step, self.fraction_done()
        phase = "grow" if done < settings.grow_until else "prune" if done < settings.prune_until else None
        # Coarse pictures can neither place nor justify as many Gaussians as fine ones.
        level = self._level(done)
        width, full = self.pictures.cameras(level).width, self.pictures.cameras(self.pictures.levels - 1).width
        most = round(settings.max_gaussians * width / full)
        self.backend.after_step(self.model, step, phase, most, self.generator)
        if phase == "grow" and step >= settings.grow_from and step % settings.grow_every == 0:
            self.progress.rounds += 1

    def state(self) -> dict[str, Any]:
        """Everything a resumed fit needs to go on bit for bit."""
        return {
            "progress": asdict(self.progress),
            "model": self.model.state(),
            "growth": self.backend.state(),
            "order": list(self.order),
            "generator": self.generator.get_state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores what ``state`` gave, to go on from there."""
        self.progress, self.order = FitProgress(**state["progress"]), list(state["order"])
        if "rounds" not in state["progress"]:  # of an earlier version: as if it had had time enough
            self.progress.rounds = self.progress.step // self.settings.grow_from
        self.model.load_state(state["model"])
        self.backend.load_state(state["growth"])
        self.generator.set_state(state["generator"].cpu())


def scene_extent(cameras: Cameras, box: SceneBox) -> float:
    """Size of the scene in world units: 1.1 times the farthest camera from their mean (Kerbl et al. 2023), or the
    box's half diagonal where the cameras stand closer together than that."""
    spread = (cameras.centers - cameras.centers.mean(dim=0)).norm(dim=1).max().item()
    return max(1.1 * spread, 0.5 * sum(side * side for side in box.extent) ** 0.5)

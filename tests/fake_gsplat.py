"""A stand-in for the package gsplat where there is no GPU: its arguments and results, drawn by the torch reference."""

from __future__ import annotations

from types import ModuleType

import torch

from kernels.rasterize import View, rasterize


class FakeGsplat(ModuleType):
    """``rasterization`` with gsplat 1.5's argument names, shapes and conventions; ``calls`` holds what it was given."""

    __version__ = "1.5.3"

    def __init__(self) -> None:
        super().__init__("gsplat")
        self.calls: list[dict] = []

    def rasterization(
        self, means, quats, scales, opacities, colors, viewmats, Ks, width, height, near_plane=0.01, eps2d=0.3,  # noqa: N803
        packed=True, absgrad=False, rasterize_mode="classic", channel_chunk=32, covars=None,
    ):  # fmt: skip
        count, cameras = len(means), len(viewmats)
        assert means.shape == (count, 3) and opacities.shape == (count,) and covars.shape == (count, 3, 3)
        assert quats is None and scales is None and eps2d == 0.3 and rasterize_mode == "classic" and not packed
        assert viewmats.shape == (cameras, 4, 4) and Ks.shape == (cameras, 3, 3)
        assert colors.shape == (cameras, count, colors.shape[-1])
        tensors = (means, opacities, colors, viewmats, Ks, covars)
        assert all(tensor.dtype == torch.float32 and tensor.device == means.device for tensor in tensors)
        self.calls.append({"near_plane": near_plane, "absgrad": absgrad, "cameras": cameras, "colors": colors})
        # gsplat reads the upper triangle.
        upper = covars.triu()
        symmetric = upper + covars.triu(1).transpose(1, 2)
        images, alphas = [], []
        for pose, intrinsics, color in zip(viewmats, Ks, colors, strict=True):
            # Its cameras look down +z with y down, the reference's down -z with y up.
            view = View(
                torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0])) @ pose,
                *(float(intrinsics[row, column]) for row, column in ((0, 0), (1, 1), (0, 2), (1, 2))),
                width, height,
            )  # fmt: skip
            out = rasterize(
                means, symmetric, opacities, torch.zeros(count, 1, 3), view, channels=color, near=near_plane,
                implementation="torch",
            )  # fmt: skip
            images.append(out.channels)
            alphas.append(out.alpha[..., None])
        meta = {"means2d": torch.zeros(cameras, count, 2), "radii": torch.ones(cameras, count, 2), "width": width}
        return torch.stack(images), torch.stack(alphas), meta

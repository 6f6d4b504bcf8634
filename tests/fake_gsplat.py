"""A stand-in for the package gsplat where there is no GPU: its arguments and results, drawn by the torch reference."""

from __future__ import annotations

from types import ModuleType

import torch

from kernels.encoding.spherical_harmonics import sh_basis
from kernels.gaussians.covariances import gaussian_covariances
from kernels.gaussians.rasterize import View, rasterize


class FakeGsplat(ModuleType):
    """``rasterization`` with gsplat 1.5's argument names, shapes and conventions; ``calls`` holds what it was given."""

    __version__ = "1.5.3"

    def __init__(self) -> None:
        super().__init__("gsplat")
        self.calls: list[dict] = []
        self.strategies: list[FakeStrategy] = []

    def DefaultStrategy(self, **settings) -> FakeStrategy:  # noqa: N802
        self.strategies.append(FakeStrategy(**settings))
        return self.strategies[-1]

    def rasterization(
        self, means, quats, scales, opacities, colors, viewmats, Ks, width, height, near_plane=0.01, eps2d=0.3,  # noqa: N803
        packed=True, absgrad=False, rasterize_mode="classic", channel_chunk=32, covars=None, sh_degree=None,
        render_mode="RGB",
    ):  # fmt: skip
        count, cameras, as_it_is = len(means), len(viewmats), covars is None
        if as_it_is:
            assert quats.shape == (count, 4) and scales.shape == (count, 3) and colors.shape[1:] == (colors.shape[1], 3)
            covars, quats, scales = gaussian_covariances(scales.log(), quats), None, None
        if sh_degree is not None:
            assert (sh_degree + 1) ** 2 == colors.shape[1] and render_mode == "RGB+D"
            rows = [torch.linalg.inv(pose)[:3, 3] for pose in viewmats]
            directions = torch.nn.functional.normalize(means - torch.stack(rows)[:, None], dim=-1)
            shades = (torch.einsum("vnk,nkc->vnc", sh_basis(directions, sh_degree), colors) + 0.5).clamp(min=0)
            depths = torch.stack([means @ pose[2, :3] + pose[2, 3] for pose in viewmats])
            colors = torch.cat([shades, depths[..., None]], dim=-1)
        assert means.shape == (count, 3) and opacities.shape == (count,) and covars.shape == (count, 3, 3)
        assert quats is None and scales is None and rasterize_mode == "classic" and not packed
        assert viewmats.shape == (cameras, 4, 4) and Ks.shape == (cameras, 3, 3)
        assert colors.shape == (cameras, count, colors.shape[-1])
        tensors = (means, opacities, colors, viewmats, Ks, covars)
        assert all(tensor.dtype == torch.float32 and tensor.device == means.device for tensor in tensors)
        self.calls.append(
            {"near_plane": near_plane, "absgrad": absgrad, "cameras": cameras, "colors": colors, "as_it_is": as_it_is}
        )
        # gsplat reads the upper triangle.
        upper = covars.triu()
        symmetric = upper + covars.triu(1).transpose(1, 2)
        # As in gsplat: not a leaf, one row per camera and Gaussian, in the graph of the image.
        means2d = torch.zeros(cameras, count, 2) + 0 * means[..., :2]
        images, alphas = [], []
        for pose, intrinsics, color in zip(viewmats, Ks, colors, strict=True):
            # Its cameras look down +z with y down, the reference's down -z with y up.
            view = View(
                torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0])) @ pose,
                *(float(intrinsics[row, column]) for row, column in ((0, 0), (1, 1), (0, 2), (1, 2))),
                width, height, eps2d,
            )  # fmt: skip
            out = rasterize(
                means, symmetric, opacities, torch.zeros(count, 1, 3), view, channels=color, near=near_plane,
                implementation="torch",
            )  # fmt: skip
            images.append(out.channels + means2d.sum())
            alphas.append(out.alpha[..., None])
        meta = {"means2d": means2d, "radii": torch.ones(cameras, count, 2), "width": width, "height": height}
        meta |= {"n_cameras": cameras, "gaussian_ids": None}
        return torch.stack(images), torch.stack(alphas), meta


class FakeStrategy:
    """gsplat 1.5's ``DefaultStrategy`` as far as its callers see it: clones and prunes, tables and moments in step."""

    def __init__(
        self, prune_opa=0.005, grow_grad2d=0.0002, refine_start_iter=500, refine_stop_iter=15000, reset_every=3000,
        refine_every=100,
    ) -> None:  # fmt: skip
        self.prune_opa, self.grow_grad2d, self.refine_every = prune_opa, grow_grad2d, refine_every
        self.refine_start_iter, self.refine_stop_iter, self.reset_every = (
            refine_start_iter,
            refine_stop_iter,
            reset_every,
        )

    def initialize_state(self, scene_scale=1.0):
        return {"grad2d": None, "count": None, "scene_scale": scene_scale}

    def step_pre_backward(self, params, optimizers, state, step, info):
        assert set(params) == set(optimizers) and {"means", "scales", "quats", "opacities"} <= set(params)
        info["means2d"].retain_grad()

    def step_post_backward(self, params, optimizers, state, step, info, packed=False):
        pull = info["means2d"].grad[0].norm(dim=-1)
        for name, value in (("grad2d", pull), ("count", torch.ones_like(pull))):
            state[name] = value if state[name] is None else state[name] + value
        if step <= self.refine_start_iter or step % self.refine_every:
            return
        grown = (state["grad2d"] / state["count"] > self.grow_grad2d).nonzero()[:5, 0]
        kept = (torch.sigmoid(params["opacities"]) >= self.prune_opa).nonzero()[:, 0]
        rows = torch.cat([kept, grown])
        for name, old in list(params.items()):
            new = torch.nn.Parameter(old.detach()[rows])
            moments = optimizers[name].state.pop(old, {})
            optimizers[name].state[new] = {k: v if k == "step" else v[rows] for k, v in moments.items()}
            optimizers[name].param_groups[0]["params"] = [new]
            params[name] = new
        state["grad2d"], state["count"] = (torch.zeros(len(rows)) for _ in range(2))

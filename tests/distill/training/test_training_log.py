from dataclasses import replace

import pytest
import torch

from distill.losses.pictures import DepthStatistics, RayBatch
from distill.rendering.renderer import RenderedRays, SampledField
from distill.training.step import StepResult
from distill.training.training_log import COLUMNS, metrics_row, postfix
from kernels.compositing.compositing import Composite
from machine.telemetry import GpuMonitor
from scene.rays import Rays

CPU = torch.device("cpu")


def make_result(depth=True):
    """Two rays: one hits, and its colour is off by 0.1; one misses the box."""
    rays = Rays(torch.zeros(2, 3), torch.zeros(2, 3), torch.tensor([2.0, 1.0]), torch.tensor([5.0, 1.0]))
    rgb = torch.tensor([[0.3, 0.3, 0.3], [0.0, 0.0, 0.0]])
    result = Composite(rgb, torch.tensor([0.5, 0.0]), torch.tensor([1.5, 0.0]), torch.zeros(0))
    batch = RayBatch(
        rays=rays,
        rgb=torch.tensor([[0.9, 0.9, 0.9], [1.0, 1.0, 1.0]]),
        background=torch.ones(2, 3),
        coverage=torch.tensor([0.6, 0.0]),
        distance=torch.tensor([3.0, 0.0]),
    )
    valid = torch.tensor([True, False])
    statistics = DepthStatistics(valid, torch.tensor([3.0, 4.0]), torch.tensor([0.25, 0.5]))
    terms = {"rgb": torch.tensor(0.005), **({"depth": torch.tensor(0.125)} if depth else {})}
    field = SampledField(torch.zeros(30, 3), torch.zeros(30), torch.zeros(30), torch.zeros(30, 3), {})
    rendered = RenderedRays(result, field)
    depth = statistics if depth else None
    return StepResult(batch, rendered, torch.tensor(0.25), terms, depth, seconds=0.004, lr=0.01, rays=len(batch.rays))


def make_row(depth=True):
    with GpuMonitor(CPU) as monitor:
        return metrics_row(50, 12.34567, make_result(depth), CPU, monitor)


def test_a_row_by_hand():
    row = make_row()
    assert (row["step"], row["wall_s"], row["rays_per_s"], row["samples_per_ray"]) == (50, 12.346, 500, 15)
    assert (row["lr"], row["loss"]) == (0.01, 0.25)
    assert (row["loss_rgb"], row["loss_depth"]) == (pytest.approx(0.005), 0.125)
    # 0.3 + 0.5 against 0.9 on one ray, nothing on the other: a mean square of 0.005.
    assert row["psnr_batch"] == pytest.approx(23.0103, abs=1e-3)
    assert row["alpha_mean"] == 0.25
    assert row["depth_valid_fraction"] == 0.5
    # The second ray's depth is not valid.
    assert [row[f"teacher_depth_{name}"] for name in ("min", "max", "mean")] == [3, 3, 3]
    assert [row[f"teacher_depth_norm_{name}"] for name in ("min", "max", "mean")] == [0.25, 0.25, 0.25]
    # Only the ray that crosses the box has a depth range.
    assert [row[f"ray_depth_range_{name}"] for name in ("min", "max", "mean")] == [3, 3, 3]


def test_columns_are_those_the_design_fixes():
    expected = """
        step wall_s rays_per_s samples_per_ray lr loss loss_rgb loss_alpha loss_depth psnr_batch alpha_mean
        depth_valid_fraction teacher_depth_min teacher_depth_max teacher_depth_mean
        teacher_depth_norm_min teacher_depth_norm_max teacher_depth_norm_mean
        ray_depth_range_min ray_depth_range_max ray_depth_range_mean gpu_mem_gib power_w
        live_views live_views_per_s live_starved_s occupied_fraction
        loss_density loss_color loss_feature_l2 loss_feature_cos feature_valid_fraction
        grad_ratio_alpha grad_ratio_depth grad_ratio_density grad_ratio_color
        grad_ratio_feature_l2 grad_ratio_feature_cos
        loss_scale skipped_steps dropped_rays loss_distortion grad_ratio_distortion
        bits_per_entry size_estimate_mib
    """
    assert list(COLUMNS) == expected.split()
    assert set(make_row()) <= set(COLUMNS)


def test_what_was_not_measured_is_left_out():
    row = make_row(depth=False)
    missing = ["loss_alpha", "loss_depth", "depth_valid_fraction", "teacher_depth_min", "teacher_depth_norm_mean"]
    assert [row.get(name) for name in missing] == [None] * 5
    assert row["gpu_mem_gib"] is None
    assert row["power_w"] is None


def test_postfix_shortens_the_key_figures():
    assert postfix(make_row()) == {
        "step": "50",
        "psnr": "23.01",
        "alpha": "0.25",
        "krays/s": "0",
        "samples/ray": "15.0",
        "depth": "0.1250",
    }
    row = {**make_row(depth=False), "rays_per_s": 41_800.0, "gpu_mem_gib": 1.25}
    assert postfix(row) == {
        "step": "50",
        "psnr": "23.01",
        "alpha": "0.25",
        "krays/s": "42",
        "samples/ray": "15.0",
        "GiB": "1.2",
    }


def test_postfix_tells_of_a_live_teacher():
    row = {**make_row(depth=False), "live_views": 70, "live_views_per_s": 2.1, "live_starved_s": 0.25}
    assert {"views": "70", "waited": "0.2s"}.items() <= postfix(row).items()


def test_rays_that_were_not_rendered_do_not_count():
    result = make_result()
    rendered = result.rendered._replace(kept=torch.tensor([True, False]), wanted=torch.tensor(30))
    with GpuMonitor(CPU) as monitor:
        row = metrics_row(50, 1.0, replace(result, rendered=rendered), CPU, monitor)
    # 0.3 + 0.5 against 0.9 on the one ray.
    assert row["psnr_batch"] == pytest.approx(20, abs=1e-3)
    assert row["alpha_mean"] == 0.5
    assert row["samples_per_ray"] == 15

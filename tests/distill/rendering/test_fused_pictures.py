"""Pictures of students by the fused renderer and in waves of samples: the same, and which of the two draws them."""

import logging
from dataclasses import replace

import pytest
import torch

from distill.rendering.occupancy import OccupancyGrid
from distill.rendering.renderer import clip_to_box, render_rays, renders_fused
from kernels import dispatch
from kernels.rendering import fused_render
from scene.rays import SceneBox, camera_rays, image_rays
from students.hash_grid import HashGridSettings, HashGridStudent
from students.kilo_uniform import KiloUniformSettings, KiloUniformStudent
from tests.distill.rendering.test_renderer import BACKGROUND, BOX, SETTINGS, ball, make_grid, picture_of
from tests.triton_device import DEVICE, TRITON, device_of, needs_triton


def hash_grid():
    settings = HashGridSettings(
        levels=2, features=2, table_size=64, base_resolution=3, finest_resolution=9,
        hidden_width=16, density_layers=1, color_layers=1, geo_features=3, direction_degree=1,
    )  # fmt: skip
    student = HashGridStudent((BOX.lower, BOX.upper), settings)
    with torch.no_grad():
        student.table.uniform_(-1, 1)
        student.density_weights[-1][0] *= 6
    return student


def kilo_uniform():
    settings = KiloUniformSettings(
        grid=(1, 2, 1), frequencies=1, hidden_width=16, density_layers=1, color_layers=1,
        geo_features=3, direction_degree=1,
    )  # fmt: skip
    student = KiloUniformStudent((BOX.lower, BOX.upper), settings)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    return student


@pytest.mark.parametrize("implementation", ["numba", TRITON])
@pytest.mark.parametrize("make", [hash_grid, kilo_uniform])
def test_fused_pictures_are_those_of_the_waves(make, implementation, look_at, monkeypatch):
    device = device_of(implementation)
    student, grid = make().to(device), make_grid()
    grid.bound_by_teacher((torch.rand(8, 8, 8) < 0.5).byte())
    grid, cameras = grid.to(device), look_at([(0.5, -0.4, 3.0)], width=9, height=7, focal=8.0).to(device)
    settings = replace(SETTINGS, step=0.4, picture_step=0.5, termination=1e-4)
    waves = picture_of(student, grid, cameras, 0, replace(settings, fused=False), BACKGROUND)
    assert waves.alpha.max() > 0.9 and (waves.alpha == 0).any()
    monkeypatch.setattr("distill.rendering.renderer._render_waves", None)
    fused = picture_of(student, grid, cameras, 0, replace(settings, implementation=implementation), BACKGROUND)
    assert (fused.rgb - waves.rgb).abs().max() < 1 / 2550
    assert (fused.alpha - waves.alpha).abs().max() < 1 / 2550
    solid = waves.alpha > 0.1
    assert (fused.distance - waves.distance)[solid].abs().max() < 0.01
    assert torch.equal(fused.distance == 0, waves.distance == 0)


@needs_triton
def test_a_student_the_fused_renderer_does_not_know_is_rendered_in_waves_and_that_is_said_once(
    field, look_at, caplog, monkeypatch
):
    monkeypatch.setattr("distill.rendering.renderer._told", set())
    student, cameras = (
        field(ball(), box=(BOX.lower, BOX.upper)).to(DEVICE),
        look_at([(0.0, -3.0, 0.0)], width=3, height=2).to(DEVICE),
    )
    settings = replace(SETTINGS, step=0.2, implementation="triton")
    with caplog.at_level(logging.WARNING):
        frames = [picture_of(student, make_grid().to(DEVICE), cameras, 0, settings, BACKGROUND) for _ in range(2)]
    assert [record.message for record in caplog.records if "waves" in record.message] == [
        "pictures are rendered in waves of samples, not by the fused renderer: it does not know this kind of student"
    ]
    waves = picture_of(student, make_grid().to(DEVICE), cameras, 0, replace(settings, fused=False), BACKGROUND)
    assert torch.equal(frames[0].rgb, waves.rgb) and student.batches
    with pytest.raises(ValueError, match="it does not know this kind of student"):
        picture_of(student, make_grid().to(DEVICE), cameras, 0, replace(settings, fused=True), BACKGROUND)


def test_on_a_gpu_pictures_are_fused_unless_the_kernels_or_the_config_are_others(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    cuda, student = torch.device("cuda", 0), hash_grid()
    for module in (dispatch, fused_render):
        monkeypatch.setattr(module, "triton_refusal", lambda device: None)
    assert renders_fused(student, SETTINGS, cuda)
    assert not renders_fused(student, replace(SETTINGS, implementation="torch"), cuda)
    assert not renders_fused(student, replace(SETTINGS, fused=False), cuda)
    assert renders_fused(student, replace(SETTINGS, implementation="torch", fused=True), cuda)
    for module in (dispatch, fused_render):
        monkeypatch.setattr(module, "triton_refusal", lambda device: "no triton")
    assert not renders_fused(student, SETTINGS, cuda)
    with pytest.raises(ValueError, match="no triton"):
        renders_fused(student, replace(SETTINGS, fused=True), cuda)


def test_on_a_cpu_pictures_are_fused_unless_the_kernels_are_torchs(caplog):
    cpu = torch.device("cpu")
    assert renders_fused(hash_grid(), SETTINGS, cpu)
    assert not renders_fused(hash_grid(), replace(SETTINGS, implementation="torch"), cpu)
    assert renders_fused(hash_grid(), replace(SETTINGS, implementation="torch", fused=True), cpu)
    assert renders_fused(hash_grid(), replace(SETTINGS, precision="float16"), cpu)
    assert not caplog.records


def test_while_numba_renders_torch_keeps_off_the_cores(look_at, monkeypatch, three_torch_threads):
    """Its pool would wait for cores that numba's threads are on: three quarters of the frame rate."""
    seen = []
    monkeypatch.setattr(
        "distill.rendering.renderer.camera_rays",
        lambda *arguments: seen.append(torch.get_num_threads()) or camera_rays(*arguments),
    )
    for implementation in ("numba", "torch"):
        settings = replace(SETTINGS, step=0.2, implementation=implementation)
        cameras = look_at([(0.0, -3.0, 0.0)], width=3, height=2)
        picture_of(hash_grid(), make_grid(), cameras, 0, settings, BACKGROUND)
    assert seen == [1, 3] and torch.get_num_threads() == 3


def test_a_picture_step_is_of_pictures_alone(look_at):
    student, grid, cameras = hash_grid(), make_grid(), look_at([(0.5, -0.4, 3.0)])
    ways = [replace(SETTINGS, step=step, picture_step=part) for step, part in ((0.2, 0.5), (0.1, 1.0), (0.2, 1.0))]
    closer, fine, coarse = (picture_of(student, grid, cameras, 0, way, BACKGROUND).rgb for way in ways)
    assert torch.equal(closer, fine) and (closer - coarse).abs().max() > 0.01
    rays = clip_to_box(*image_rays(cameras, 0), BOX, SETTINGS)
    assert torch.equal(*(render_rays(student, grid, rays, way, seed=1).field.positions for way in ways[::2]))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("implementation", ["numba", TRITON])
@pytest.mark.parametrize("make", [hash_grid, kilo_uniform])
def test_a_scene_64_times_as_large_has_the_same_picture(make, implementation, fused, look_at):
    device, scale = device_of(implementation), 64
    large_box = SceneBox(*(tuple(scale * value for value in corner) for corner in (BOX.lower, BOX.upper)))
    student, grid, cells = make(), make_grid(), (torch.rand(8, 8, 8) < 0.5).byte()
    large = type(student)((large_box.lower, large_box.upper), student.settings)
    large.load_state_dict({**student.state_dict(), "box": large.box.clone()})
    assert large.density_unit == student.density_unit / scale
    large_grid = OccupancyGrid(large_box, 8, scale * SETTINGS.step, threshold=0.01, decay=0.95)
    settings = replace(SETTINGS, step=0.4, picture_step=0.5, implementation=implementation, fused=fused)
    far_off = replace(settings, step=scale * 0.4, near=scale * settings.near, far=scale * settings.far)
    cameras = look_at([(0.5, -0.4, 3.0)], width=9, height=7, focal=8.0)
    poses = cameras.c2w.clone()
    poses[:, :3, 3] *= scale
    pictures = []
    for each, space, views, how in (
        (student, grid, cameras, settings),
        (large, large_grid, replace(cameras, c2w=poses), far_off),
    ):
        space.bound_by_teacher(cells)
        pictures.append(picture_of(each.to(device), space.to(device), views.to(device), 0, how, BACKGROUND))
    near, far = pictures
    assert near.alpha.max() > 0.9 and (near.alpha == 0).any()
    torch.testing.assert_close(far.rgb, near.rgb)
    torch.testing.assert_close(far.alpha, near.alpha)
    torch.testing.assert_close(far.distance / scale, near.distance)

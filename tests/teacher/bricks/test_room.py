"""The capture that the program makes itself, written and read back."""

import numpy as np
import pytest
import torch

from scene.formats import load_frames
from scene.images import read_image
from settings.loading import load_config
from teacher.bricks.room import build_room, room_cameras, room_capture
from teacher.gaussian_files.ply import read_ply
from teacher.rasterizer import Rasterizer
from teacher.sources import load_teacher
from teacher.sources.sparse_points import read_sparse_points

WIDTH, FRAMES = 32, 3


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield room_capture(WIDTH, FRAMES, 0)


def test_it_is_a_colmap_capture_of_the_room(capture):
    frames, cameras = load_frames(capture), room_cameras(FRAMES, WIDTH, 24, 0)
    assert frames.names == ("view_000", "view_001", "view_002") and frames.size_of(0) == (WIDTH, 24)
    torch.testing.assert_close(frames.cameras.c2w, cameras.c2w, atol=1e-6, rtol=0)
    assert torch.equal(frames.cameras.fx, cameras.fx)
    room = read_ply(capture / "point_cloud.ply")
    output = Rasterizer(room).render(cameras.resized(2 * WIDTH, 48), 1)
    assert output.alpha.min() > 0.97, "walls and floor are closed"
    shown = output.rgb.view(24, 2, WIDTH, 2, 3).mean(dim=(1, 3)).clamp(0, 1).numpy()
    np.testing.assert_allclose(read_image(frames.image_paths[1]) / 255, shown, atol=0.01)
    points = read_sparse_points(frames, None).positions
    assert len(points) == 6000
    assert {tuple(row) for row in points[:50].tolist()} <= {tuple(row) for row in room.means.tolist()}


def test_it_is_made_once(capture, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(capture.parents[2]))
    monkeypatch.setattr("teacher.bricks.room.build_room", lambda seed: pytest.fail("made again"))
    assert room_capture(WIDTH, FRAMES, 0) == capture
    with pytest.raises(pytest.fail.Exception, match="made again"):
        room_capture(WIDTH, FRAMES, 1)


def test_the_teacher_is_the_room_and_its_pictures_are_ground_truth(capture, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(capture.parents[2]))
    path = tmp_path / "room.yaml"
    path.write_text(f"scene: r\nrun: r\ndata: {{resolution: {WIDTH}}}\nteacher: {{kind: room, frames: {FRAMES}}}\n")
    teacher = load_teacher(load_config(path))
    assert teacher.box.contains(build_room().means).float().mean() > 0.99
    torch.testing.assert_close(torch.tensor(teacher.box.extent), torch.tensor([6.4, 5.6, 2.65]), atol=0.5, rtol=0)
    truth = teacher.views.ground_truth
    assert bool((truth[..., 3] == 255).all()) and teacher.views.holdout.tolist() == [True, False, False]
    shown = (teacher.views.rgb * (teacher.views.alpha[..., None] / 255)).float()
    assert (shown - truth[..., :3].float()).abs().max() <= 2

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from scene.cameras import Cameras
from scene.rays import SceneBox, image_rays, intersect_box
from settings.errors import InputError
from teacher.depth import DepthKind, DepthReport, infer_depth_kind, read_depth, to_distance, view_agreement, view_pairs

BOX = SceneBox((-1.2, -1.2, -0.8), (1.2, 1.2, 1.2))
SPHERES = [((0.0, 0.1, 0.4), 0.5), ((0.6, 0.5, -0.3), 0.4), ((-0.7, 0.6, 0.0), 0.35)]
BLOCKS = [SceneBox((-1.0, -1.0, -0.7), (1.0, 1.0, -0.5)), SceneBox((-0.9, -0.9, -0.5), (-0.3, -0.2, 0.3))]
SUPERSAMPLE = 3


def orbit(frames: int, size: int = 56, radius: float = 4.0, focal: float = 1.3) -> Cameras:
    """Cameras on a rising spiral around the scene, looking at its centre."""
    poses = torch.eye(4).repeat(frames, 1, 1)
    for frame in range(frames):
        turn, height = 2 * math.pi * frame / frames, 0.3 + 0.6 * frame / frames
        back = torch.tensor([math.cos(height) * math.cos(turn), math.cos(height) * math.sin(turn), math.sin(height)])
        right = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([0.0, 0, 1]), back), dim=0)
        poses[frame, :3, :3] = torch.stack([right, torch.linalg.cross(back, right), back], dim=1)
        poses[frame, :3, 3] = radius * back + torch.tensor([0.0, 0, 0.1])
    full = torch.full((frames,), 1.0)
    return Cameras(poses, full * size * focal, full * size * focal, full * size / 2, full * size / 2, size, size)


def trace(cameras: Cameras, frame: int) -> torch.Tensor:
    """(H, W) exact distance to the first surface, inf where there is none."""
    origins, directions = image_rays(cameras, frame)
    nearest = torch.full((len(origins),), torch.inf)
    for centre, radius in SPHERES:
        offset = origins - torch.tensor(centre)
        b = (offset * directions).sum(-1)
        root = b**2 - (offset**2).sum(-1) + radius**2
        hit = torch.where(root > 0, -b - root.clamp(min=0).sqrt(), torch.inf)
        nearest = torch.minimum(nearest, hit)
    for block in BLOCKS:
        near, far = intersect_box(origins, directions, block, 0.0, 100.0)
        nearest = torch.minimum(nearest, torch.where(far > near, near, torch.inf))
    return nearest.reshape(cameras.height, cameras.width)


def render(cameras: Cameras) -> tuple[dict[DepthKind, torch.Tensor], torch.Tensor]:
    """All six kinds of depth (N, H, W) with supersampled edges, and alpha."""
    fine = cameras.resized(cameras.width * SUPERSAMPLE, cameras.height * SUPERSAMPLE)

    def shrink(image: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(image[:, None], SUPERSAMPLE)[:, 0]

    distance = torch.stack([trace(fine, frame) for frame in range(len(cameras))])
    hit = distance.isfinite()
    forward = -(fine.c2w[:, None, :3, 2] * torch.stack([image_rays(fine, f)[1] for f in range(len(fine))])).sum(-1)
    z = distance * forward.reshape(distance.shape)
    alpha = shrink(hit.float())
    depth = {}
    for kind, values in (("z", z), ("distance", distance), ("inverse_z", 1 / z)):
        accumulated = shrink(torch.where(hit, values, 0))
        depth[DepthKind(kind)] = accumulated
        depth[DepthKind(f"{kind}_normalized")] = torch.where(alpha > 0, accumulated / alpha.clamp(min=1e-9), 0)
    return depth, alpha


@pytest.fixture(scope="module")
def scene():
    cameras = orbit(24)
    return cameras, *render(cameras)


@pytest.mark.parametrize("kind", DepthKind)
@pytest.mark.parametrize("with_alpha", [True, False])
def test_auto_finds_every_kind(scene, kind, with_alpha):
    cameras, depth, alpha = scene
    report = infer_depth_kind(depth[kind], alpha if with_alpha else None, cameras, BOX)
    assert report.kind == kind, report.evidence
    assert report.inside[kind.quantity] > 0.98 and report.agreement[kind.quantity] < 0.02
    assert f"so the depth is {kind.value}" in report.evidence[-1]
    assert any("%" in sentence for sentence in report.evidence)
    assert report.require("depth") == kind


@pytest.mark.parametrize("kind", DepthKind)
def test_noise_above_the_difference_is_refused_rather_than_guessed(kind):
    # At a focal length of 20 image widths z and distance are the same to a thousandth; depth is noisy to 2%.
    cameras = orbit(6, size=24, radius=56, focal=20)
    depth, alpha = render(cameras)
    noise = torch.rand(alpha.shape, generator=torch.Generator().manual_seed(0)) * 0.04 + 0.98
    report = infer_depth_kind(depth[kind] * noise, alpha, cameras, SceneBox((-3, -3, -3), (3, 3, 3)))
    if kind.quantity == "inverse_z":
        assert report.kind == kind
    else:
        assert report.kind is None and "do not tell them apart" in report.evidence[-1]
        with pytest.raises(InputError, match="teacher: depth kind: .*Set teacher.depth_kind to one of z, distance"):
            report.require("teacher")


@pytest.mark.parametrize("kind", DepthKind)
def test_a_single_view_cannot_tell_z_from_distance(scene, kind):
    cameras, depth, alpha = scene
    report = infer_depth_kind(depth[kind][:1], alpha[:1], cameras[0], BOX)
    assert report.kind == (kind if kind.quantity == "inverse_z" else None)


def test_what_is_no_depth_is_refused(scene):
    cameras, depth, alpha = scene
    true = depth[DepthKind.Z]
    picture = true / true.amax((1, 2), keepdim=True)  # rescaled to [0, 1] for viewing
    report = infer_depth_kind(picture, alpha, cameras, BOX)
    assert report.kind is None and "none reaches 80%" in report.evidence[-1]
    report = infer_depth_kind(true.roll(5, 0), alpha.roll(5, 0), cameras, BOX)  # another file's poses
    assert report.kind is None, report.evidence
    report = infer_depth_kind(torch.zeros_like(true), None, cameras, BOX)
    assert report.kind is None and "no pixel is fully covered" in report.evidence[0]
    noise = torch.rand(true.shape, generator=torch.Generator().manual_seed(0)) * 2 + 3
    report = infer_depth_kind(noise * (true > 0), None, cameras, BOX)
    assert report.kind is None, report.evidence


def test_silhouettes_that_fit_no_kind_are_refused(scene):
    cameras, depth, alpha = scene
    between = depth[DepthKind.Z_NORMALIZED] * alpha.sqrt()
    assert infer_depth_kind(between, alpha, cameras, BOX).kind is None
    # z that someone made from accumulated 1/z without dividing by alpha: too far at the silhouette.
    inverse = depth[DepthKind.INVERSE_Z]
    report = infer_depth_kind(torch.where(inverse > 0, 1 / inverse, 0), None, cameras, BOX)
    assert report.kind is None and "neither fading" in report.evidence[-1]


def test_no_silhouette_in_view():
    # So close that the scene fills every picture: alpha is 1 throughout, and both readings are the same.
    cameras = orbit(24, size=20, radius=2.2, focal=7)
    depth, alpha = render(cameras)
    assert (alpha == 1).all()
    report = infer_depth_kind(depth[DepthKind.DISTANCE], None, cameras, BOX)
    assert report.kind == DepthKind.DISTANCE and "no silhouette is in view" in report.evidence[-2]
    report = infer_depth_kind(depth[DepthKind.DISTANCE], alpha, cameras, BOX)
    assert report.kind.quantity == "distance" and "makes no difference" in report.evidence[-2]


@pytest.mark.parametrize("kind", DepthKind)
def test_to_distance_recovers_the_surface(scene, kind):
    cameras, depth, alpha = scene
    exact = trace(cameras, 7)
    distance, valid = to_distance(depth[kind][7], kind, cameras, 7, alpha[7])
    opaque = alpha[7] == 1
    assert (distance[~valid] == 0).all() and valid[opaque].all() and not valid[alpha[7] < 0.5].any()
    assert (distance - exact)[opaque].abs().median() < 2e-3
    # Away from depth steps, partly covered pixels are right too: that is what dividing by alpha is for.
    rim = valid & ~opaque & exact.isfinite()
    assert rim.sum() > 20 and (distance - exact)[rim].abs().median() < 0.06


def test_to_distance_by_hand():
    one = torch.ones(1)
    cameras = Cameras(torch.eye(4)[None], one * 2, one * 2, one * 1.5, one * 1.5, 3, 3)
    depth = torch.full((3, 3), 0.25)
    factor = math.sqrt(0.5**2 + 0.5**2 + 1)  # the corner pixel
    alpha = torch.full((3, 3), 0.5)
    corner = {kind: to_distance(depth, kind, cameras, 0, alpha)[0][0, 0].item() for kind in DepthKind}
    assert corner == pytest.approx(
        {
            DepthKind.Z: 0.5 * factor,
            DepthKind.DISTANCE: 0.5,
            DepthKind.INVERSE_Z: 2 * factor,
            DepthKind.Z_NORMALIZED: 0.25 * factor,
            DepthKind.DISTANCE_NORMALIZED: 0.25,
            DepthKind.INVERSE_Z_NORMALIZED: 4 * factor,
        }
    )


def test_without_alpha_accumulated_depth_is_valid_only_inside():
    ones = torch.ones(1)
    cameras = Cameras(torch.eye(4)[None], ones, ones, ones * 2.5, ones * 2.5, 5, 5)
    depth = torch.ones(5, 5)
    depth[0, 0] = 0
    distance, valid = to_distance(depth, DepthKind.INVERSE_Z, cameras, 0)
    assert (~valid).nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]] and distance[1, 1] == 0
    distance, valid = to_distance(depth, DepthKind.INVERSE_Z_NORMALIZED, cameras, 0)
    assert (~valid).nonzero().tolist() == [[0, 0]] and distance[1, 1].item() == pytest.approx(math.sqrt(3))


def test_views_agree_on_exact_depth(scene):
    cameras, _, alpha = scene
    pairs = view_pairs(cameras, BOX, 25.0)
    assert len(pairs) == 12 and all(i != j for i, j in pairs)
    i, j = pairs[3]
    exact = [trace(cameras, frame) for frame in (i, j)]
    valid = [torch.isfinite(distance) for distance in exact]
    exact = [torch.where(mask, distance, 0) for mask, distance in zip(valid, exact, strict=True)]
    difference = view_agreement(exact, valid, cameras, (i, j))
    assert len(difference) > 300 and difference.abs().median() < 0.01
    farther = [distance * 1.04 for distance in exact]
    assert view_agreement((farther[0], exact[1]), valid, cameras, (i, j)).median() > 0.02


def test_kind_names():
    assert DepthKind.parse("auto") is None and DepthKind.parse("inverse_z") is DepthKind.INVERSE_Z
    assert DepthKind.INVERSE_Z_NORMALIZED.quantity == "inverse_z" and not DepthKind.Z.normalized
    with pytest.raises(InputError, match="cfg.yaml: depth_kind: found 'metres', expected auto or one of z, distance"):
        DepthKind.parse("metres", "cfg.yaml")
    with pytest.raises(InputError, match="depth kind: found a; b"):
        DepthReport(None, ["a", "b"]).require("x")


def test_headers_are_read_one_at_a_time(tmp_path, monkeypatch):
    np.save(tmp_path / "d.npy", np.ones((2, 3), np.float32))
    load, inside, most = np.load, threading.Semaphore(0), []

    def slow_load(*args, **kwargs):
        inside.release()
        time.sleep(0.01)
        most.append(inside._value)
        inside.acquire()
        return load(*args, **kwargs)

    monkeypatch.setattr(np, "load", slow_load)
    with ThreadPoolExecutor(4) as pool:
        depths = list(pool.map(read_depth, [tmp_path / "d.npy"] * 8))
    assert all(depth.shape == (2, 3) for depth in depths)
    assert most == [1] * 8


def test_read_depth(tmp_path):
    np.save(tmp_path / "d.npy", np.arange(6, dtype=np.float64).reshape(1, 2, 3))
    values = read_depth(tmp_path / "d.npy")
    assert values.dtype == torch.float32 and values.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[1, np.nan], [np.inf, 1]], np.float32), "d.npy: depth: found 2 non-finite of 4"),
        (np.array([[1, -0.5], [0, 1]], np.float32), "d.npy: depth: found 1 negative of 4"),
        (np.ones((2, 2), np.uint16), "d.npy: depth dtype: found uint16"),
        (np.ones((2, 2, 3), np.float32), r"d.npy: depth shape: found \(2, 2, 3\)"),
        (np.array([[{}]], dtype=object), "d.npy: depth: found unreadable data .*allow_pickle=False"),
    ],
)
def test_bad_depth_values(tmp_path, array, message):
    np.save(tmp_path / "d.npy", array)
    with pytest.raises(InputError, match=message):
        read_depth(tmp_path / "d.npy")


def test_bad_depth_files(tmp_path):
    with pytest.raises(InputError, match="d.npy: depth: found no such file"):
        read_depth(tmp_path / "d.npy")
    np.save(tmp_path / "d.npy", np.ones((8, 8), np.float32))
    whole = (tmp_path / "d.npy").read_bytes()
    for length in (0, 40, len(whole) - 4):
        (tmp_path / "d.npy").write_bytes(whole[:length])
        with pytest.raises(InputError, match="d.npy: depth: found unreadable data"):
            read_depth(tmp_path / "d.npy")
    np.savez(tmp_path / "d.npz", np.ones((2, 2)))
    (tmp_path / "d.npz").rename(tmp_path / "d.npy")
    with pytest.raises(InputError, match="depth dtype: found an archive"):
        read_depth(tmp_path / "d.npy")

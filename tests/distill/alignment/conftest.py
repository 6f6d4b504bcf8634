"""A student that is good but not perfect, beside a teacher's pictures: what mistakes are planted in."""

from dataclasses import replace

import pytest
import torch

from distill.alignment.comparison import Comparison, StoredDepth
from distill.model.view_renderers import gaussians_renderer
from scene.frames import spread
from teacher.depth import DepthKind
from teacher.export.planes import depth_map, view_planes
from teacher.rasterizer import Rasterizer
from tests.remembered import remembered
from tests.toy_scene import block_of_gaussians, ring_of_cameras, write_toy_scene

VIEWS, SIZE, WHITE = 30, 32, (1.0, 1.0, 1.0)
DIAGONAL = 1.3  # of the box around the block, 0.8 x 0.5 x 0.6 and two standard deviations of 0.05 more on each side


@pytest.fixture
def toy(tmp_path):
    """The folder of a toy scene."""
    return write_toy_scene(tmp_path).parent


@pytest.fixture(scope="session")
def teacher():
    """Renders the block itself."""
    return remembered(gaussians_renderer(Rasterizer(block_of_gaussians())))


@pytest.fixture(scope="session")
def student():
    """Renders a block whose Gaussians are off in size, place and colour: some 27 dB."""
    block = block_of_gaussians()
    noise = torch.Generator().manual_seed(1)

    def off(values, by):
        return values + by * torch.randn(values.shape, generator=noise)

    worse = replace(block, means=off(block.means, 0.01), log_scales=off(block.log_scales, 0.1), sh=off(block.sh, 0.25))
    return remembered(gaussians_renderer(Rasterizer(worse)))


@pytest.fixture(scope="session")
def stored_depth():
    """Makes the teacher's depth files of some frames: of one kind on disk, read as another."""
    rasterizer, cameras = Rasterizer(block_of_gaussians()), ring_of_cameras(VIEWS, SIZE, SIZE)

    def make(frames, kind, read_as=None, with_alpha=True):
        outputs = [rasterizer.render(cameras, frame) for frame in frames]
        planes = [view_planes(output, kind, cameras, frame) for output, frame in zip(outputs, frames, strict=True)]
        values = torch.stack([torch.from_numpy(depth_map(one, kind)) for one in planes])
        alpha = torch.stack([output.alpha for output in outputs]) if with_alpha else None
        names = tuple(f"r_{index}" for index in range(VIEWS))
        return StoredDepth(values, alpha, cameras, read_as or kind, tuple(frames), names, DIAGONAL)

    return make


@pytest.fixture(scope="session")
def comparison(teacher, student, stored_depth):
    """A comparison in which nothing is wrong."""
    cameras = ring_of_cameras(VIEWS, SIZE, SIZE)
    views = [teacher(cameras, index) for index in range(VIEWS)]
    frames = tuple(spread(range(VIEWS), 6))
    return Comparison(
        render=student,
        cameras=cameras,
        pictures=torch.stack([view.over(WHITE) for view in views]),
        coverage=torch.stack([view.alpha for view in views]),
        background=WHITE,
        names=tuple(f"r_{index}" for index in range(VIEWS)),
        frames=frames,
        has_alpha=True,
        depth=stored_depth(frames, DepthKind.INVERSE_Z),
    )

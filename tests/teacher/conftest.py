"""What several tests of the teacher's views load."""

import numpy as np
import pytest

from scene.formats.transforms_json import write_transforms
from scene.images import write_image
from tests.teacher.toy_outputs import FRAMES, HEIGHT, WIDTH, ring


@pytest.fixture
def teacher(tmp_path):
    """A folder with transforms, RGB renders on white and z depth 3 in a block of pixels."""
    cameras = ring(FRAMES, WIDTH, HEIGHT)
    write_transforms(tmp_path / "transforms.json", cameras, [f"r_{i}" for i in range(FRAMES)])
    for i in range(FRAMES):
        picture = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
        picture[2:7, 2:9] = [100, 50, 10 * i]
        depth = np.zeros((HEIGHT, WIDTH), np.float32)
        depth[2:7, 2:9] = 3
        write_image(tmp_path / "ours_7" / "renders" / f"{i:05d}.png", picture)
        (tmp_path / "ours_7" / "depth").mkdir(exist_ok=True)
        np.save(tmp_path / "ours_7" / "depth" / f"{i:05d}.npy", depth)
    return tmp_path

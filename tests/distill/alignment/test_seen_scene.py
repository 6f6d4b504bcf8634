"""Which cameras see a box; what is said of them and of cells: in test_before_training.py."""

from distill.alignment.seen_scene import seeing
from scene.rays import SceneBox
from tests.toy_scene import ring_of_cameras


def test_which_cameras_see_a_box():
    cameras = ring_of_cameras(5)
    assert seeing(cameras, SceneBox((-0.1,) * 3, (0.1,) * 3), 0.0, 10.0).all()
    assert not seeing(cameras, SceneBox((-0.1,) * 3, (0.1,) * 3), 3.0, 10.0).any(), "nearer than near"
    assert not seeing(cameras, SceneBox((0, 0, 5), (1, 1, 6)), 0.0, 10.0).any()
    assert seeing(cameras, SceneBox((-9,) * 3, (9,) * 3), 0.0, 10.0).all(), "from inside"

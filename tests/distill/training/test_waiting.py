import pytest

from distill.training.waiting import waiting_parts
from settings.loading import load_config
from students import build_student
from tests.toy_scene import write_toy_scene

BOX = ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
KILO = "student={kind: kilo_uniform, grid: [1, 1, 2], hidden_width: 16, blend: 0.1}"
PLAIN = KILO.replace("blend: 0.1", "blend: 0.0")
ALIGNED = ("loss.feature_l2.weight=0.1", "features.tap=geo")
LIVE = ("teacher.kind=gaussians", "teacher.outputs=null", "teacher.live=true")


@pytest.mark.parametrize(
    ("overrides", "fields"),
    [
        ((), []),
        ((PLAIN,), []),
        ((KILO,), ["student.blend"]),
        (ALIGNED, []),
        ((PLAIN, *ALIGNED), ["features.tap: geo"]),
        ((PLAIN, "loss.feature_l2.weight=0.1", "features.tap=sample"), []),
        (LIVE, ["teacher.live"]),
    ],
)
def test_what_waits_is_named_by_its_field(tmp_path, overrides, fields):
    config = load_config(write_toy_scene(tmp_path), [*overrides], tmp_path)
    parts = waiting_parts(config, build_student(BOX, config.student))
    assert [part.split(",")[0] for part in parts] == fields

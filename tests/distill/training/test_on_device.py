import pytest
import torch

from distill.training.on_device import training_precision, waiting_parts
from settings.errors import InputError
from settings.loading import load_config
from students import build_student
from tests.toy_scene import write_toy_scene

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def config_of(tmp_path):
    path = write_toy_scene(tmp_path)
    return lambda *overrides: load_config(path, [*overrides], tmp_path)


@pytest.mark.parametrize(("device", "expected"), [(CPU, torch.float32), (CUDA, torch.float16)])
def test_auto_follows_the_device(config_of, device, expected):
    assert training_precision(config_of(), device) == expected


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_a_type_is_taken_by_its_name(config_of, name):
    wanted = getattr(torch, name)
    assert training_precision(config_of(f"train.precision={name}"), CUDA) == wanted
    assert training_precision(config_of(f"train.precision={name}", "kernels=torch"), CPU) == wanted


@pytest.mark.parametrize("kernels", ["auto", "numba"])
def test_half_precision_on_the_cpus_own_kernels_is_refused(config_of, kernels):
    config = config_of("train.precision=float16", f"kernels={kernels}")
    with pytest.raises(InputError, match="train.precision: found float16, expected auto or float32.*kernels: torch"):
        training_precision(config, CPU)


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

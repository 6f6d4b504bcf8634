import pytest
import torch

from distill.training.precision import training_precision
from settings.errors import InputError
from settings.loading import load_config
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

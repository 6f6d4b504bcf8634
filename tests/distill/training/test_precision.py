import pytest
import torch

from distill.training.precision import CEILING, FLOOR, INITIAL, MOST_SKIPPED, LossScale, training_precision
from settings.errors import InputError
from settings.loading import load_config
from tests.toy_scene import write_toy_scene

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
CALM, OVERFLOW = torch.tensor(False), torch.tensor(True)


def after(*steps, **settings):
    scale = LossScale(CPU, **settings)
    for step in steps:
        scale.update(step)
    return scale


def test_an_overflow_halves_and_calm_doubles():
    scale = after(initial=64.0, growth_every=3)
    found = []
    for step in (OVERFLOW, CALM, CALM, CALM, CALM, OVERFLOW, CALM, CALM, CALM):
        scale.update(step)
        found.append(scale.value.item())
    assert found == [32, 32, 32, 64, 64, 32, 32, 32, 64]
    assert scale.figures().skipped == 2


def test_it_stays_between_floor_and_ceiling():
    assert after(*[CALM] * 50, growth_every=1).value == CEILING
    assert after(*[OVERFLOW] * 50).value == FLOOR


def test_a_few_overflows_are_no_trouble():
    figures = after(*[OVERFLOW] * 5).figures()
    assert (figures.scale, figures.skipped, figures.trouble) == (INITIAL / 32, 5, None)


def test_an_overflow_at_the_floor_is_trouble():
    to_floor = [OVERFLOW] * 16
    assert after(*to_floor).figures().trouble is None
    assert "at its floor of 1 and float16 still overflows" in after(*to_floor, OVERFLOW).figures().trouble
    # However calm it was before anybody asked.
    assert after(*to_floor, OVERFLOW, *[CALM] * 30).figures().trouble is not None


def test_too_many_skipped_steps_in_a_row_are_trouble():
    limit = [OVERFLOW] * MOST_SKIPPED
    assert after(*limit, initial=CEILING).figures().trouble is None
    trouble = after(*limit, OVERFLOW, CALM, initial=CEILING).figures().trouble
    assert trouble == "21 steps in a row overflowed float16 and were skipped (at most 20 may)"
    assert after(*limit, CALM, *limit[:3], initial=CEILING).figures().trouble is None


def test_a_restored_scale_goes_on():
    steps = [OVERFLOW, CALM, OVERFLOW, CALM, CALM, CALM, OVERFLOW, CALM, CALM]
    whole = after(*steps, growth_every=3)
    again = LossScale(CPU, growth_every=3)
    again.restore(after(*steps[:5], growth_every=3).state())
    for step in steps[5:]:
        again.update(step)
    assert again.state() == whole.state()
    assert again.figures() == whole.figures()


@pytest.mark.parametrize("step", [CALM, OVERFLOW])
def test_updates_keep_the_kept_types(step):
    scale = after(step)
    assert scale.value.dtype == torch.float32 and scale.value.shape == ()
    assert isinstance(scale.state()["skipped"], int)


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

"""What Triton alone does of the grouped MLPs: programs that share a cell, half precision, no error; real sizes."""

import pytest
import torch

from kernels.networks.grouped_layout import GroupedLayout
from kernels.networks.grouped_mlp import grouped_radiance_mlp
from kernels.networks.radiance_mlp import twins_of
from tests.kernels.networks.grouped_cases import SEEN, SMALL, assert_twins_agree, random_case, random_upstream, run
from tests.triton_device import DEVICE, needs_gpu, needs_triton


@needs_triton
def test_triton_matches_torch_in_cells_shared_by_several_programs(monkeypatch):
    # Pieces of 70 points: 4 of cell 4, 2 of cell 1, one of cell 0; a second run gives the same bits.
    monkeypatch.setattr("kernels.networks.grouped_mlp_triton._PIECE", 70)
    case = random_case(SEEN, torch.tensor([4] * 217 + [1] * 71 + [0] * 70)[torch.randperm(358)], cells=6)
    upstream = random_upstream(case)
    first = assert_twins_agree(SEEN, case, "triton", upstream)
    _, second = run("triton", SEEN, case, upstream)
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


@needs_triton
def test_triton_multiplies_in_the_parameters_type():
    case = random_case(SMALL, torch.randint(3, (99,)), cells=3)
    upstream = random_upstream(case)
    expected, expected_grads = run("torch", SMALL, case, upstream)
    names = ("density_parameters", "color_parameters")
    found, grads = run("triton", SMALL, case | {name: case[name].half() for name in names}, upstream)
    assert all(value.dtype == torch.float32 for value in found)
    assert all(value.dtype == torch.float16 for value in grads)
    for value, reference in zip([*found, *grads], [*expected, *expected_grads], strict=True):
        assert 0 < ((value.float() - reference).norm() / reference.norm()).item() < 1e-2


@pytest.mark.parametrize(
    ("dtype", "width", "offered"), [(torch.float32, 32, True), (torch.float32, 64, False), (torch.float16, 64, True)]
)
def test_triton_takes_narrow_layers_alone(dtype, width, offered):
    assert ("triton" in twins_of(dtype, GroupedLayout(2, width, 1, 1, 15, 4).widest)) is offered


@needs_triton
def test_triton_rounds_parameters_but_not_the_sums_of_their_gradients():
    """Beside a sum of 3000 an addition of 1 is lost to float16."""
    case = random_case(SMALL, torch.zeros(600, dtype=torch.int64), cells=1)
    leaves = {name: case[name].clone().requires_grad_() for name in ("density_parameters", "color_parameters")}
    given = {name: value.to(DEVICE) for name, value in (case | leaves).items()}
    density, rgb, _ = grouped_radiance_mlp(**given, layout=SMALL, precision=torch.float16, implementation="triton")
    half = {name: value.detach().half() for name, value in leaves.items()}
    expected, _ = run("triton", SMALL, case | half, random_upstream(case))
    assert torch.equal(density.cpu(), expected[0].cpu()) and torch.equal(rgb.cpu(), expected[1].cpu())
    density.sum().backward()
    grad = leaves["density_parameters"].grad
    assert grad.dtype == torch.float32 and (grad != grad.half().float()).float().mean() > 0.5


@needs_triton
def test_triton_gives_nan_for_cells_out_of_range():
    case = random_case(SMALL, [-1, 0, 3], cells=3)
    (density, rgb), grads = run("triton", SMALL, case, random_upstream(case))
    assert density.isnan().tolist() == [True, False, True]
    assert rgb.isnan().all(dim=1).tolist() == [True, False, True]
    assert all(grad.abs().sum(1).nonzero()[:, 0].tolist() == [0] for grad in grads)


@needs_gpu
@pytest.mark.parametrize("width", [16, 32])
def test_triton_matches_torch_at_a_real_size(width):
    layout = GroupedLayout(4, width, 2, 1, 15, 16)
    cell_index = torch.cat([torch.randint(4096, (150_000,)), torch.full((50_003,), 77)])
    assert_twins_agree(layout, random_case(layout, cell_index, cells=4096, rays=4096), "triton")


@needs_gpu
@pytest.mark.parametrize("width", [32, 64])
def test_triton_multiplies_in_half_precision_at_a_real_size(width):
    layout = GroupedLayout(4, width, 2, 1, 15, 16)
    cell_index = torch.cat([torch.randint(512, (20_000,)), torch.full((5_003,), 77)])
    case = random_case(layout, cell_index, cells=512, rays=4096)
    names = ("density_parameters", "color_parameters")
    case |= {name: case[name] * 0.3 for name in names}
    upstream = random_upstream(case)
    expected, expected_grads = run("torch", layout, case, upstream)
    found, grads = run("triton", layout, case | {name: case[name].half() for name in names}, upstream)
    for value, reference in zip([*found, *grads], [*expected, *expected_grads], strict=True):
        assert ((value.float() - reference).norm() / reference.norm()).item() < 2e-2

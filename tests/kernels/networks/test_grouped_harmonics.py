"""What density networks of a grid take of directions: every way to ask for a density agrees, and gradients do."""

import pytest
import torch

from kernels.networks.grouped_mlp import grouped_density_mlp, grouped_geometry_mlp, grouped_radiance_mlp
from tests.kernels.networks.grouped_cases import SEEN, random_case
from tests.triton_device import TRITON, device_of

IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ["torch", "numba", TRITON])


def case_on(implementation, count=333):
    torch.manual_seed(count)
    case = random_case(SEEN, torch.randint(4, (count,)), cells=5)
    return {name: value.to(device_of(implementation)) for name, value in case.items()}


def geometry(implementation, case, **changes):
    """The density networks' two outputs, and the gradient of their parameters."""
    leaf = case["density_parameters"].clone().requires_grad_()
    rays = {"harmonics": case["harmonics"], "ray_index": case["ray_index"], **changes}
    density, features, _ = grouped_geometry_mlp(
        case["x"], case["cell_index"], leaf, SEEN, implementation=implementation, **rays
    )
    torch.manual_seed(9)
    upstream = [torch.randn(part.shape).to(part.device) for part in (density, features)]
    torch.autograd.backward((density, features), upstream)
    return [part.detach().cpu() for part in (density, features, leaf.grad)]


@IMPLEMENTATIONS
def test_every_way_to_ask_for_density_sees_the_same(implementation):
    case = case_on(implementation)
    density = grouped_radiance_mlp(**case, layout=SEEN, implementation=implementation)[0].cpu()
    where = case["x"], case["cell_index"], case["density_parameters"], SEEN
    of_points = case["harmonics"][case["ray_index"]]
    alone = grouped_density_mlp(*where, harmonics=of_points, implementation=implementation).cpu()
    torch.testing.assert_close(alone, density, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(geometry(implementation, case)[0], density, rtol=1e-5, atol=1e-6)
    blind = grouped_density_mlp(*where, implementation=implementation).cpu()
    assert ((blind - density).abs() > 0.01 * density).float().mean() > 0.5


@IMPLEMENTATIONS
def test_without_harmonics_they_are_zero(implementation):
    case = case_on(implementation)
    silent = torch.zeros_like(case["harmonics"])
    where = case["x"], case["cell_index"], case["density_parameters"], SEEN
    expected = geometry(implementation, case, harmonics=silent)
    for found, value in zip(geometry(implementation, case, harmonics=None, ray_index=None), expected, strict=True):
        assert torch.equal(found, value)
    assert torch.equal(grouped_density_mlp(*where, implementation=implementation).cpu(), expected[0])
    without = {name: value for name, value in case.items() if name != "harmonics"}
    plain = grouped_radiance_mlp(**without, layout=SEEN, implementation=implementation)[:2]
    given = grouped_radiance_mlp(**case | {"harmonics": silent}, layout=SEEN, implementation=implementation)[:2]
    assert all(torch.equal(one, other) for one, other in zip(plain, given, strict=True))


@pytest.mark.parametrize("twin", ["numba", TRITON])
@pytest.mark.parametrize("count", [0, 1, 333])
def test_geometry_of_twins_is_that_of_torch(twin, count):
    expected, found = (geometry(name, case_on(name, count)) for name in ("torch", twin))
    for value, reference in zip(found, expected, strict=True):
        scale = max(1.0, float(reference.abs().max())) if reference.numel() else 1.0
        torch.testing.assert_close(value, reference, rtol=1e-3, atol=1e-4 * scale)


def test_harmonics_of_another_number_of_rays():
    case = case_on("torch") | {"harmonics": torch.zeros(6, 3)}
    with pytest.raises(ValueError, match=r"harmonics must be \(7, 3\), found \(6, 3\)"):
        grouped_radiance_mlp(**case, layout=SEEN)
    with pytest.raises(ValueError, match=r"harmonics must be \(333, 3\), found \(333, 2\)"):
        grouped_density_mlp(
            case["x"], case["cell_index"], case["density_parameters"], SEEN, harmonics=torch.zeros(333, 2)
        )

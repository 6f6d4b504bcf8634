"""Random inputs of the grouped MLPs, and how an implementation's results are held to torch's."""

from dataclasses import replace

import torch

from kernels.networks.grouped_layout import LEAK, GroupedLayout, fourier_features
from kernels.networks.grouped_mlp import grouped_radiance_mlp
from tests.triton_device import device_of

SMALL = GroupedLayout(
    frequencies=3, hidden_width=16, density_layers=1, color_layers=1, geo_features=5, direction_width=4
)
SEEN = replace(SMALL, harmonics=3)


def random_case(layout, cell_index, cells, rays=7):
    """Everything the kernel takes but the layout; biases included, as no parameter is zero."""
    count = len(cell_index)
    return {
        "x": torch.rand(count, 3) * 2.4 - 1.2,  # some beyond the cell's faces, as outside the box
        "basis": torch.randn(rays, layout.direction_width),
        "ray_index": torch.randint(rays, (count,)).sort().values,
        "cell_index": torch.as_tensor(cell_index, dtype=torch.int64),
        "density_parameters": torch.randn(cells, layout.density_size) * 0.3,
        "color_parameters": torch.randn(cells, layout.color_size) * 0.3,
        "harmonics": torch.randn(rays, layout.harmonics),
    }


def run(implementation, layout, case, upstream, touched=None):
    """Both outputs, and the gradients of both parameter matrices, computed on the implementation's device."""
    device = device_of(implementation)
    case = {name: value.to(device) for name, value in case.items()}
    leaves = {name: case[name].clone().requires_grad_() for name in ("density_parameters", "color_parameters")}
    named = {"layout": layout, "touched": touched, "implementation": implementation}
    outputs = grouped_radiance_mlp(**{**case, **leaves}, **named)[:2]
    torch.autograd.backward(outputs, [grad.to(device) for grad in upstream])
    return [output.detach().cpu() for output in outputs], [leaf.grad.cpu() for leaf in leaves.values()]


def random_upstream(case):
    return torch.randn(len(case["x"])), torch.randn(len(case["x"]), 3)


def away_from_kinks(layout, case, upstream):
    """Upstream gradients, zero for points of which some neuron is within rounding of its ReLU's kink.

    There the gradient jumps: two sums of the same products may fall on different sides, and both are right.
    """
    smooth = torch.ones(len(case["x"]), dtype=torch.bool)
    for cell in case["cell_index"].unique().tolist():
        inside = (case["cell_index"] == cell).nonzero()[:, 0]
        x, behind = fourier_features(case["x"][inside].double(), layout.frequencies), case["basis"].double()
        x = torch.cat([x, case["harmonics"][case["ray_index"][inside]]], dim=1)
        for name, dims in (("density_parameters", layout.density_dims), ("color_parameters", layout.color_dims)):
            *hidden, last = case[name][cell].double().split(dims.prod(axis=1).tolist())
            for flat, shape in zip(hidden, dims, strict=False):
                matrix = flat.view(*shape)
                x = x @ matrix[:-1] + matrix[-1]
                smooth[inside] &= (x.abs() > 1e-5 * x.square().mean().sqrt()).all(1)
                x = torch.where(x > 0, x, LEAK * x)
            matrix = last.view(*dims[-1])
            x = torch.cat([(x @ matrix[:-1] + matrix[-1])[:, :-1], behind[case["ray_index"][inside]]], dim=1)
    assert len(smooth) < 500 or smooth.float().mean() > 0.98
    return [grad * (smooth if grad.ndim == 1 else smooth[:, None]) for grad in upstream]


def assert_twins_agree(layout, case, twin="numba", upstream=None):
    """Returns the twin's gradients."""
    upstream = away_from_kinks(layout, case, random_upstream(case) if upstream is None else upstream)
    expected, expected_grads = run("torch", layout, case, upstream)
    found, found_grads = run(twin, layout, case, upstream)
    for value, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(value, reference, rtol=2e-4, atol=1e-5)
    for value, reference in zip(found_grads, expected_grads, strict=True):
        torch.testing.assert_close(value, reference, rtol=1e-3, atol=1e-4 * max(1.0, float(reference.abs().max())))
    return found_grads

"""Activations tapped out of the grouped MLPs, and their gradients' way back in."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from kernels.dispatch import chosen_implementations
from kernels.networks.grouped_layout import GroupedLayout, fourier_features
from kernels.networks.grouped_mlp import grouped_radiance_mlp
from tests.triton_device import DEVICE, device_of, needs_triton

CHOICES = [taps for count in (0, 1, 2) for taps in itertools.combinations(("hidden", "geo"), count)]


def arguments(count: int, density_layers: int = 2, cells: int = 5) -> tuple:
    torch.manual_seed(count)
    layout = GroupedLayout(2, 16, density_layers, 1, geo_features=5, direction_width=4)
    parameters = [0.3 * torch.randn(cells, size) for size in (layout.density_size, layout.color_size)]
    cell_index = torch.randint(cells - 1, (count,))  # the last cell stays empty
    directions = torch.randn(7, 4), torch.randint(7, (count,))
    return torch.rand(count, 3) * 2 - 1, *directions, cell_index, *parameters, layout


def gradients(name: str, given: tuple, taps: tuple[str, ...], only_taps: bool) -> tuple[list[Tensor], list[Tensor]]:
    leaves = [parameters.clone().requires_grad_() for parameters in given[4:6]]
    density, rgb, inside = grouped_radiance_mlp(*given[:4], *leaves, given[6], taps, implementation=name)
    assert tuple(inside) == tuple(tap for tap in ("hidden", "geo") if tap in taps)
    outputs = [*inside.values()] if only_taps else [density, rgb, *inside.values()]
    loss = sum((output * torch.linspace(-1, 1, output.numel()).view(output.shape)).sum() for output in outputs)
    loss.backward()
    return outputs, [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("taps", CHOICES)
@pytest.mark.parametrize(("count", "density_layers"), [(0, 1), (1, 1), (333, 1), (333, 3), (9001, 2)])
def test_numba_gives_what_torch_gives(count, density_layers, taps) -> None:
    given = arguments(count, density_layers)
    for only_taps in (False, True) if taps else (False,):
        found, expected = (gradients(name, given, taps, only_taps) for name in ("numba", "torch"))
        for first, second in zip(found[0] + found[1], expected[0] + expected[1], strict=True):
            scale = max(1.0, second.abs().max().item()) if second.numel() else 1.0
            torch.testing.assert_close(first, second, rtol=3e-4, atol=3e-4 * scale)


@pytest.mark.parametrize("name", ["torch", "numba"])
def test_tapping_leaves_the_outputs_as_they_are(name) -> None:
    given = arguments(200)
    plain = grouped_radiance_mlp(*given, implementation=name)
    tapped = grouped_radiance_mlp(*given, ("hidden", "geo"), implementation=name)
    assert torch.equal(plain[0], tapped[0]) and torch.equal(plain[1], tapped[1])


@needs_triton
def test_without_taps_triton_serves() -> None:
    *tensors, layout = arguments(20)
    given = (*(tensor.to(device_of("triton")) for tensor in tensors), layout)
    assert grouped_radiance_mlp(*given, implementation="triton")[2] == {}
    assert chosen_implementations()[f"grouped_mlp[{DEVICE.type}]"] == "triton"
    inside = grouped_radiance_mlp(*given, ("geo",), implementation="triton")[2]  # by another: triton's has none
    assert inside["geo"].shape == (20, 5)


def test_the_taps_are_the_cells_own_activations() -> None:
    given = arguments(40, 1)
    x, cell_index, parameters, layout = given[0], given[3], given[4], given[6]
    _, _, inside = grouped_radiance_mlp(*given, ("hidden", "geo"))
    (rows, columns), encoded = layout.density_dims[0].tolist(), fourier_features(x, layout.frequencies)
    for point in (0, 17, 39):
        matrix = parameters[cell_index[point]][: rows * columns].view(rows, columns)
        raw = encoded[point] @ matrix[:-1] + matrix[-1]
        torch.testing.assert_close(inside["hidden"][point], torch.where(raw > 0, raw, 0.01 * raw), rtol=1e-4, atol=1e-5)


def test_an_activation_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="taps"):
        grouped_radiance_mlp(*arguments(3), ("encoding",))
    with pytest.raises(ValueError, match="taps"):
        grouped_radiance_mlp(*arguments(3, 0), ("hidden",))

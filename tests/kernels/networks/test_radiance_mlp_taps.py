"""Activations tapped out of the fused radiance MLPs, and their gradients' way back in."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from kernels.dispatch import chosen_implementations
from kernels.networks.radiance_mlp import density_mlp, geometry_mlp, radiance_mlp
from kernels.triton_support import MAX_WIDTHS
from tests.triton_device import DEVICE, TRITON, device_of, needs_triton

CHOICES = [taps for count in (0, 1, 2) for taps in itertools.combinations(("hidden", "geo"), count)]


def arguments(count: int, density_layers: int = 2) -> tuple:
    torch.manual_seed(count)
    widths = [10, *[24] * density_layers, 6]
    density = [torch.randn(out, into) / into**0.5 for into, out in itertools.pairwise(widths)]
    color = [torch.randn(16, 5 + 4) / 3, torch.randn(3, 16) / 4]
    basis, ray_index = torch.randn(7, 4), torch.randint(7, (count,))
    leaves = [tensor.requires_grad_() for tensor in (torch.randn(count, 10), *density, *color)]
    return leaves[0], basis, ray_index, leaves[1 : 2 + density_layers], leaves[2 + density_layers :]


def gradients(name: str, given: tuple, taps: tuple[str, ...], only_taps: bool = False) -> tuple[list, list]:
    density, rgb, inside = radiance_mlp(*given, taps, implementation=name)
    assert tuple(inside) == tuple(tap for tap in ("hidden", "geo") if tap in taps)
    outputs = [*inside.values()] if only_taps else [density, rgb, *inside.values()]
    loss = sum((output * torch.linspace(-1, 1, output.numel()).view(output.shape)).sum() for output in outputs)
    leaves = [given[0], *given[3], *given[4]]
    return outputs, [*torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)]


def close(found: list[Tensor], expected: list[Tensor]) -> None:
    for first, second in zip(found, expected, strict=True):
        scale = max(1.0, second.abs().max().item()) if second.numel() else 1.0
        torch.testing.assert_close(first, second, rtol=2e-4, atol=2e-4 * scale)


@pytest.mark.parametrize("taps", CHOICES)
@pytest.mark.parametrize(("count", "density_layers"), [(0, 1), (1, 1), (333, 1), (333, 3), (5001, 2)])
def test_numba_gives_what_torch_gives(count, density_layers, taps) -> None:
    given = arguments(count, density_layers)
    for only_taps in (False, True) if taps else (False,):
        found, expected = (gradients(name, given, taps, only_taps) for name in ("numba", "torch"))
        close(found[0], expected[0])
        close(found[1], expected[1])


@pytest.mark.parametrize("name", ["torch", "numba"])
def test_tapping_leaves_the_outputs_as_they_are(name) -> None:
    given = arguments(100)
    plain = radiance_mlp(*given, implementation=name)
    tapped = radiance_mlp(*given, ("hidden", "geo"), implementation=name)
    assert torch.equal(plain[0], tapped[0]) and torch.equal(plain[1], tapped[1])


@needs_triton
def test_without_taps_triton_serves() -> None:
    features, basis, ray_index, density, color = arguments(20, 1)
    on = [tensor.detach().to(device_of("triton")) for tensor in (features, basis, ray_index, *density, *color)]
    given = (*on[:3], on[3 : 3 + len(density)], on[3 + len(density) :])
    assert radiance_mlp(*given, implementation="triton")[2] == {}
    assert chosen_implementations()[f"radiance_mlp[{DEVICE.type}]"] == "triton"
    inside = radiance_mlp(*given, ("geo",), implementation="triton")[2]  # by another: triton's has no taps
    assert inside["geo"].shape == (20, 5)


def test_the_taps_are_the_networks_own_activations() -> None:
    features, basis, ray_index, density, color = arguments(50, 1)
    _, _, inside = radiance_mlp(features, basis, ray_index, density, color, ("hidden", "geo"))
    hidden = (features @ density[0].T).clamp(min=0)
    torch.testing.assert_close(inside["hidden"], hidden, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(inside["geo"], (hidden @ density[1].T)[:, 1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("taps", "density_layers"), [(("sample",), 1), (("hidden",), 0)])
def test_an_activation_that_is_not_there_is_refused(taps, density_layers) -> None:
    with pytest.raises(ValueError, match="taps"):
        radiance_mlp(*arguments(3, density_layers), taps)


@pytest.mark.parametrize("implementation", ["torch", "numba", TRITON])
@pytest.mark.parametrize("shaded", [True, False])
def test_harmonics_of_rays_are_inputs_behind_the_features(shaded, implementation) -> None:
    """Which is what features that hold them already give, but for the gradient of those."""
    inputs, basis, ray_index, density, color = arguments(333)
    harmonics, device = torch.randn(7, 3), device_of(implementation)
    inputs = torch.cat([inputs.detach()[:, :7], harmonics[ray_index]], dim=1)

    def run(name: str, features: Tensor, heard: Tensor | None, device: torch.device) -> list[Tensor]:
        leaves = [tensor.detach().to(device, copy=True).requires_grad_() for tensor in (features, *density, *color)]
        features, networks, rays = leaves[0], (leaves[1:4], leaves[4:]), ray_index.to(device)
        heard = None if heard is None else heard.to(device)
        named = {"harmonics": heard, "implementation": name}
        taps = () if implementation == "triton" else ("hidden", "geo")
        if shaded:
            *outputs, inside = radiance_mlp(features, basis.to(device), rays, *networks, taps, **named)
        else:
            *outputs, inside = geometry_mlp(features, networks[0], taps, ray_index=rays, **named)
        outputs += inside.values()
        upstream = [torch.linspace(-1, 1, output.numel()).to(device).view(output.shape) for output in outputs]
        torch.autograd.backward(outputs, upstream)
        grads = [leaf.grad[:, :7] if leaf is features else leaf.grad for leaf in leaves if leaf.grad is not None]
        return [tensor.detach().cpu() for tensor in (*outputs, *grads)]

    close(run(implementation, inputs[:, :7], harmonics, device), run("torch", inputs, None, torch.device("cpu")))


@needs_triton
@pytest.mark.parametrize("shaded", [True, False])
def test_beside_harmonics_an_encoding_and_its_gradient_stay_channel_major(shaded) -> None:
    """Kernels on a GPU read and write a channel of neighbouring points together."""
    encoding = torch.randn(7, 50, device=DEVICE).t().requires_grad_()
    rays, basis, harmonics = torch.randint(7, (50,)), torch.randn(7, 4), torch.randn(7, 3)
    weights = [torch.randn(16, 10), torch.randn(4, 16), torch.randn(16, 7), torch.randn(3, 16)]
    rays, basis, harmonics, *weights = (part.to(DEVICE) for part in (rays, basis, harmonics, *weights))
    named = {"harmonics": harmonics, "implementation": "triton"}
    if shaded:
        outputs = radiance_mlp(encoding, basis, rays, weights[:2], weights[2:], **named)[:2]
    else:
        outputs = geometry_mlp(encoding, weights[:2], ray_index=rays, **named)[:2]
    (grad,) = torch.autograd.grad([output.sum() for output in outputs], encoding)
    assert grad.any() and grad.t().is_contiguous()


@needs_triton
@pytest.mark.parametrize("shaded", [True, False])
def test_triton_takes_harmonics_beside_as_wide_an_encoding_as_it_takes_alone(shaded) -> None:
    """Those of a wider tensor's rows among them."""
    count, device = 50, DEVICE
    widest = MAX_WIDTHS[torch.float32.itemsize]
    features, rays = torch.randn(count, widest), torch.randint(7, (count,))
    basis, harmonics = torch.randn(7, 4), torch.randn(7, 16)[:, 1:9]
    weights = [torch.randn(24, widest + 8) / 6, torch.randn(4, 24), torch.randn(16, 7) / 3, torch.randn(3, 16)]

    def run(name: str, device: torch.device) -> list[Tensor]:
        leaves = [part.detach().to(device, copy=True).requires_grad_() for part in (features, *weights)]
        named = {"harmonics": harmonics.to(device), "implementation": name}
        if shaded:
            given = basis.to(device), rays.to(device), leaves[1:3], leaves[3:]
            outputs = radiance_mlp(leaves[0], *given, **named)[:2]
        else:
            outputs = geometry_mlp(leaves[0], leaves[1:3], ray_index=rays.to(device), **named)[:2]
        torch.autograd.backward(
            outputs, [torch.linspace(-1, 1, each.numel()).to(each).view_as(each) for each in outputs]
        )
        return [part.detach().cpu() for part in (*outputs, *(leaf.grad for leaf in leaves if leaf.grad is not None))]

    found, kernel = run("triton", device), "radiance_mlp" if shaded else "geometry_mlp"
    assert chosen_implementations()[f"{kernel}[{device.type}]"] == "triton"
    close(found, run("torch", torch.device("cpu")))


@pytest.mark.parametrize("implementation", ["torch", "numba", TRITON])
def test_a_density_without_a_direction_is_that_of_harmonics_of_zero(implementation) -> None:
    device = device_of(implementation)
    features, density = torch.randn(50, 7), [torch.randn(24, 10) / 3, torch.randn(6, 24) / 5]
    harmonics = torch.randn(50, 3)

    def found(features: Tensor, heard: Tensor | None = None) -> Tensor:
        weights = [weight.to(device) for weight in density]
        heard = None if heard is None else heard.to(device)
        return density_mlp(features.to(device), weights, harmonics=heard, implementation=implementation).cpu()

    of_all = [
        density_mlp(torch.cat([features, part], 1), density, implementation="torch")
        for part in (0 * harmonics, harmonics)
    ]
    close([found(features), found(features, harmonics)], of_all)

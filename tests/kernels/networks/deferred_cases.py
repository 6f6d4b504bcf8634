"""Colours of whole rays by each implementation, and how far two may be apart."""

from __future__ import annotations

import torch

from kernels.networks import radiance_mlp
from kernels.networks.grouped_layout import GroupedLayout
from tests.triton_device import device_of


def run_colors(kind, implementation, count, precision=torch.float32):
    """Colours of rays, of which some meet nothing and some next to nothing, and all gradients."""
    generator = torch.Generator().manual_seed(count)
    device, layout = device_of(implementation), GroupedLayout(2, 16, 1, 2, geo_features=7, direction_width=9)
    alpha = torch.rand(count, generator=generator) * torch.tensor([1.0, 0.0, 1e-9, 1.0]).repeat(count)[:count]
    features = alpha[:, None] * torch.randn(count, 7, generator=generator)
    basis, upstream = (torch.randn(count, width, generator=generator).to(device) for width in (9, 3))
    sizes = [(24, 16), (24, 24), (3, 24)] if kind is radiance_mlp else [(layout.color_size,)]
    weights = [torch.randn(size, generator=generator) * 0.4 for size in sizes]
    leaves = [leaf.to(device).requires_grad_() for leaf in (features, alpha, *weights)]
    network = (leaves[2:],) if kind is radiance_mlp else (leaves[2], layout)
    named = {"precision": precision, "implementation": implementation}
    rgb = kind.color_of_rays(*leaves[:2], basis, *network, **named)
    (rgb * upstream).sum().backward()
    return [rgb.detach().cpu()], [leaf.grad.cpu() for leaf in leaves]


def assert_close(found, expected, tolerance):
    for value, reference in zip([*found[0], *found[1]], [*expected[0], *expected[1]], strict=True):
        assert value.dtype == reference.dtype and value.shape == reference.shape
        scale = reference.float().norm().item()
        assert (value.float() - reference.float()).norm().item() <= tolerance * scale + 1e-7

"""The kernels of students and their training. What they move and compute is counted from their sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from importlib.util import find_spec

import torch

from distill.benchmarks.case import Case, Sizes, implementations, precision_on
from kernels.compositing import compositing
from kernels.encoding import hash_encoding
from kernels.marching import ray_marching
from kernels.networks import grouped_mlp, radiance_mlp
from kernels.networks.grouped_layout import GroupedLayout
from kernels.optimization import adam
from kernels.optimization.muon import COEFFICIENTS, turns_of
from kernels.optimization.updates import TouchedRows, Update
from kernels.threads import one_torch_thread


def hash_encoding_cases(device: torch.device, sizes: Sizes) -> Iterator[Case]:
    """Forward and backward of random points through a table of two features per entry."""
    layout, precision = hash_encoding.HashLayout(sizes.levels, 2, 2**sizes.log2_table, 16, 2048), precision_on(device)
    points, width = sizes.points, layout.output_width
    x, grad = torch.rand(points, 3, device=device), torch.randn(points, width, device=device).to(precision)
    name = f"hash_encoding {points:,} points L{sizes.levels} F2 T2^{sizes.log2_table}, forward+backward"
    # Entries are read at least once, and their gradients read and written, but no more of them than points touch.
    entries = 4 * layout.features * min(layout.entries, 8 * layout.levels * points)
    counts = {
        "items": points,
        "unit": "points",
        "bytes": points * (2 * 12 + 2 * precision.itemsize * width) + 3 * entries,
        "flops": 2 * points * layout.levels * 8 * (2 * layout.features + 2),
    }
    extra = ("tinycudann",) if device.type == "cuda" and find_spec("tinycudann") else ()
    for implementation in (*implementations(device), *extra):
        table = torch.nn.Parameter(torch.randn(layout.entries, layout.features, device=device))

        def work(implementation: str = implementation, table: torch.nn.Parameter = table) -> None:
            # These two add to the gradient in place, as in training, where Adam's pass clears it.
            table.grad = table.grad if implementation in ("numba", "triton") else None
            encoded = hash_encoding.hash_encode(x, table, layout, precision=precision, implementation=implementation)
            encoded.backward(grad)

        yield Case(name, implementation, work, **counts)
    if find_spec("nerfstudio"):
        yield Case(name, "nerfstudio (torch)", _nerfstudio_work(sizes, x, grad.float()), **counts)


def _nerfstudio_work(sizes: Sizes, x: torch.Tensor, grad: torch.Tensor) -> Callable[[], object]:
    """Its pure torch encoding of the same sizes; imported in the first call, so that what it lacks is a refusal."""
    made: list[torch.nn.Module] = []

    def work() -> None:
        if not made:
            from nerfstudio.field_components.encodings import HashEncoding

            encoding = HashEncoding(sizes.levels, 16, 2048, sizes.log2_table, 2, implementation="torch")
            made.append(encoding.to(x.device))
        made[0].zero_grad()
        made[0](x).backward(grad)

    return work


def radiance_mlp_cases(device: torch.device, sizes: Sizes) -> Iterator[Case]:
    """Forward and backward of the density and colour networks; then with planes' channels and directions' harmonics."""
    yield from _radiance_mlp_cases(device, sizes, 24, 0, "")
    yield from _radiance_mlp_cases(device, sizes, 44, 8, ", 44 inputs and 8 harmonics")


def _radiance_mlp_cases(device: torch.device, sizes: Sizes, inputs: int, seen: int, words: str) -> Iterator[Case]:
    samples, width, precision = sizes.samples, sizes.width, precision_on(device)
    features = torch.randn(inputs, samples, device=device).to(precision).t()
    basis = torch.randn(samples // 16, 16, device=device)
    harmonics = basis[:, 1 : 1 + seen] if seen else None
    ray_index = torch.arange(samples, device=device) // 16
    shapes = [(width, inputs + seen), (16, width), (width, 31), (width, width), (3, width)]
    weights = [torch.nn.Parameter(torch.randn(shape, device=device) / 6) for shape in shapes]
    features.requires_grad_()
    parameters = sum(weight.numel() for weight in weights)
    for implementation in implementations(device):

        def work(implementation: str = implementation) -> None:
            named = {"harmonics": harmonics, "implementation": implementation}
            density, rgb, _ = radiance_mlp.radiance_mlp(features, basis, ray_index, weights[:2], weights[2:], **named)
            (density.sum() + rgb.sum()).backward()

        yield Case(
            f"radiance_mlp {samples:,} samples width {width}{words}, forward+backward", implementation, work,
            items=samples, unit="samples",
            bytes=samples * (3 * inputs * precision.itemsize + 2 * 4 * 4) + 12 * parameters,
            flops=6 * samples * parameters,
        )  # fmt: skip


def shading_cases(device: torch.device, sizes: Sizes) -> Iterator[Case]:
    """Forward and backward of the colour network of deferred shading, 64 wide, on whole rays."""
    rays, width, precision = sizes.rays, 64, precision_on(device)
    basis, grad = torch.randn(rays, 9, device=device), torch.randn(rays, 3, device=device)
    features, alpha = torch.randn(rays, 15, device=device), torch.rand(rays, device=device)
    shapes = [(width, 24), (width, width), (3, width)]
    weights = [torch.nn.Parameter(torch.randn(shape, device=device) / 6) for shape in shapes]
    features.requires_grad_()
    parameters = sum(weight.numel() for weight in weights)
    for implementation in implementations(device):

        def work(implementation: str = implementation) -> None:
            named = {"precision": precision, "implementation": implementation}
            radiance_mlp.color_of_rays(features, alpha, basis, weights, **named).backward(grad)

        yield Case(
            f"color_of_rays {rays:,} rays width {width}, forward+backward", implementation, work,
            items=rays, unit="rays", bytes=4 * rays * (3 * 15 + 2 * 9 + 2 + 2 * 3) + 12 * parameters,
            flops=6 * rays * parameters,
        )  # fmt: skip


def grouped_mlp_cases(device: torch.device, sizes: Sizes) -> Iterator[Case]:
    """Forward and backward of points in cells with networks of width 32 of their own; torch loops over the cells.

    On a CPU torch on one thread, as in training: on two, beside other work, its many small products took minutes.
    """
    layout = GroupedLayout(4, 32, 3, 1, 16, 16)
    points, cells = sizes.grouped_points, sizes.cells
    x, basis = torch.rand(points, 3) * 2 - 1, torch.randn(points // 16, layout.direction_width)
    ray_index, cell_index = torch.arange(points) // 16, torch.randint(cells, (points,))
    inputs, precision = [tensor.to(device) for tensor in (x, basis, ray_index, cell_index)], precision_on(device)
    parameters = layout.density_size + layout.color_size
    for implementation in implementations(device):
        networks = [
            torch.nn.Parameter(torch.randn(cells, size, device=device) / 6)
            for size in (layout.density_size, layout.color_size)
        ]

        def work(implementation: str = implementation, networks: list[torch.nn.Parameter] = networks) -> None:
            with one_torch_thread() if device.type == "cpu" else nullcontext():
                rounded = (network.to(precision) for network in networks)
                density, rgb, _ = grouped_mlp.grouped_radiance_mlp(
                    *inputs, *rounded, layout, implementation=implementation
                )
                (density.sum() + rgb.sum()).backward()

        yield Case(
            f"grouped_mlp {points:,} points in {cells} cells, width 32, forward+backward", implementation, work,
            items=points, unit="points", bytes=points * (2 * 28 + 2 * 16) + 12 * cells * parameters,
            flops=6 * points * parameters,
        )  # fmt: skip


def marching_cases(device: torch.device, sizes: Sizes) -> Iterator[Case]:
    """Rays through a shell of cells, and compositing of their samples."""
    rays, resolution = sizes.rays, sizes.resolution
    axes = torch.meshgrid(*[torch.linspace(-1, 1, resolution)] * 3, indexing="ij")
    radius = torch.stack(axes).norm(dim=0)
    shell = ((radius > 0.7) & (radius < 0.8)).to(torch.uint8).to(device)
    cells = ray_marching.Cells((-1.0, -1.0, -1.0), 2 / resolution, shell)
    origins = torch.nn.functional.normalize(torch.randn(rays, 3), dim=-1) * 3
    directions = torch.nn.functional.normalize(torch.rand(rays, 3) - 0.5 - origins, dim=-1).to(device)
    origins = origins.to(device)
    near, far = torch.full((rays,), 1.0, device=device), torch.full((rays,), 5.0, device=device)

    def march(implementation: str, capacity: int | None = None) -> ray_marching.Samples:
        options = {"step": 0.005, "limit": 1024, "seed": 1, "capacity": capacity, "implementation": implementation}
        return ray_marching.march(origins, directions, near, far, cells, **options)

    samples = march(implementations(device)[0])
    count = len(samples.t)
    room = count if device.type == "cuda" else None  # as in training, which does not wait for a GPU
    written = sum(tensor.nbytes for tensor in samples if isinstance(tensor, torch.Tensor))
    density = torch.rand(count, device=device).requires_grad_()
    rgb = torch.rand(count, 3, device=device).requires_grad_()
    for implementation in implementations(device):
        yield Case(
            f"ray_marching {rays:,} rays, {count:,} samples", implementation,
            lambda implementation=implementation: march(implementation, room),
            items=rays, unit="rays", bytes=32 * rays + written,
        )  # fmt: skip

        def render(implementation: str = implementation) -> None:
            result = compositing.composite(
                density, rgb, samples.t, samples.dt, samples.offsets, implementation=implementation
            )
            torch.autograd.grad(result.rgb.sum(), (density, rgb))

        # Density, rgb, t, dt read twice; weights written and read; two gradients written.
        yield Case(
            f"compositing {count:,} samples, forward+backward", implementation, render,
            items=count, unit="samples", bytes=count * (2 * 24 + 2 * 4 + 16) + 2 * 20 * rays,
        )  # fmt: skip


def adam_cases(device: torch.device, sizes: Sizes) -> Iterator[Case]:
    """One update of a table after a step that touched the entries of 16,384 samples near a surface."""
    for log2_size in sizes.adam_log2_tables:
        layout = hash_encoding.HashLayout(sizes.levels, 2, 2**log2_size, 16, 2048)
        radius = 0.35 + 0.002 * torch.arange(16)[:, None]
        points = 0.5 + radius * torch.nn.functional.normalize(torch.randn(1024, 1, 3), dim=-1)
        points = points.reshape(-1, 3)
        values = layout.entries * layout.features
        dense = [(f"dense {name}", name) for name in implementations(device)]
        names = [("torch.optim.Adam", None), *dense, ("lazy", implementations(device)[-1])]
        for label, implementation in names:
            table = torch.nn.Parameter(torch.randn(layout.entries, layout.features))
            touched = TouchedRows(layout.entries)
            hash_encoding.hash_encode(points, table, layout, touched=touched, implementation="numba").sum().backward()
            lazy = label == "lazy"
            work, restore = _adam_work(implementation, table, touched, lazy, device)
            # Lazily a gradient is read, the rest is moved where it is not zero.
            moved = 4 * values + 28 * int((table.grad != 0).sum()) if lazy else 32 * values
            yield Case(
                f"adam {values:,} values, 16,384 samples' entries touched", label, work, restore,
                items=values, unit="values", bytes=moved,
            )  # fmt: skip


def _adam_work(
    implementation: str | None, table: torch.nn.Parameter, touched: adam.TouchedRows, lazy: bool, device: torch.device
) -> tuple[Callable[[], object], Callable[[], object]]:
    """One step (None: torch's own, fused), and what brings the gradient and the flags back for the next."""
    parameter = torch.nn.Parameter(table.data.to(device))
    grad, set_flags = table.grad.to(device), touched.flags.clone()
    parameter.grad = grad.clone()
    moments = torch.zeros_like(parameter), torch.zeros_like(parameter)
    optimizer = torch.optim.Adam([parameter], lr=1e-4, betas=(0.9, 0.99), eps=1e-15, fused=True)

    def restore() -> None:
        parameter.grad.copy_(grad)
        touched.flags.copy_(set_flags)

    def work() -> None:
        if implementation is None:
            optimizer.step()
            parameter.grad.zero_()
            return
        adam.adam_step(
            parameter.data, parameter.grad, *moments, step=10, lr=1e-4, betas=(0.9, 0.99), eps=1e-15,
            touched=touched if lazy else None, implementation=implementation,
        )  # fmt: skip

    return work, restore


def muon_cases(device: torch.device, sizes: Sizes) -> Iterator[Case]:
    """One update of the matrices of a hash grid's two networks, 32 and 64 wide, and one of KiloUniform's density
    networks, of which a few have their turn.
    """
    of_one = [(1, [shape]) for shape in ((32, 60), (16, 32), (64, 31), (64, 64), (3, 64))]
    of_cells = [(sizes.cells, GroupedLayout(4, 32, 3, 1, 16, 16).density_dims.tolist())]
    for what, parameters in (("5 matrices", of_one), (f"{sizes.cells} networks", of_cells)):
        for implementation in implementations(device):
            yield _muon_case(what, parameters, implementation, device)


def _muon_case(what: str, parameters: list, implementation: str, device: torch.device) -> Case:
    """An update of parameters, each of so many rows of matrices of these shapes."""
    controls = torch.tensor([[1e-4, 1e-15, 1.0, 0.0]] * len(parameters), device=device)
    updates, values, products = [], 0, 0
    for rows, shapes in parameters:
        tensors = [torch.rand(rows, sum(math.prod(shape) for shape in shapes), device=device) for _ in range(4)]
        several = (TouchedRows(rows, 1), shapes, torch.ones((), dtype=torch.float64, device=device))
        own = (None, shapes) if rows == 1 else several
        updates.append(Update(torch.nn.Parameter(tensors[0]), *tensors[1:], 0.0, *own))
        turns = turns_of(tensors[0].numel(), shapes)
        values += tensors[0].numel()
        products += rows // turns * sum(min(shape) ** 2 * (min(shape) + 2 * max(shape)) for shape in shapes)
    gradients = [entry.grad.clone() for entry in updates]

    def restore() -> None:
        for entry, gradient in zip(updates, gradients, strict=True):
            entry.grad.copy_(gradient)
            if entry.touched is not None:
                entry.touched.mark_all(device)

    def work() -> None:
        adam.controlled_adam_steps(updates, controls, betas=adam.BETAS, implementation=implementation)

    return Case(
        f"muon {what}, {values:,} values", implementation, work, restore,
        items=values, unit="values", flops=2 * len(COEFFICIENTS) * products,
    )  # fmt: skip

"""Compiles what the kernels launch in Triton, for GPUs that need not be there.

``python -m tests.compile_triton CASE/CAPABILITY...``, e.g. ``radiance_64/80 adam/90``, without TRITON_INTERPRET. The
public functions get tensors on the CPU; every launch is recorded and compiled to machine code with the very arguments,
options and specialisations of the call. Prints a line per kernel: case, name, compute capability, bytes of shared
memory, registers read before they are written (see ``tests.sass``), and how often its PTX has each of ``COUNTED``. The
interpreter lets pass what the compiler does not: types that change in a loop, blocks that are no powers of two,
operations without a lowering.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from kernels import adam, dispatch, fused_render
from kernels.compositing import composite
from kernels.fused_render import GroupedField, HashField, render_fused
from kernels.grouped_layout import GroupedLayout
from kernels.grouped_mlp import grouped_density_mlp, grouped_radiance_mlp
from kernels.hash_encoding import hash_encode
from kernels.hash_layout import HashLayout
from kernels.radiance_mlp import density_mlp, radiance_mlp
from kernels.ray_marching import march
from kernels.ray_samples import Cells
from tests.sass import unwritten

_OPTIONS = ("num_warps", "num_stages", "num_ctas", "maxnreg")
_TYPES = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.uint8: "*u8",
    torch.bool: "*i1",
}
HALF, FULL = torch.float16, torch.float32
COUNTED = ("wgmma.mma_async", "relaxed.add.f32", "relaxed.add.v2.f32", "st.global.b32", "st.global.v4.b32")


def _specialised(value):
    """Type and attributes of an argument as a launch would specialise them; the number 1 becomes a constant."""
    divisible = [["tt.divisibility", 16]]
    if isinstance(value, torch.Tensor):
        return _TYPES[value.dtype], divisible if value.data_ptr() % 16 == 0 else []
    if isinstance(value, float):
        return "fp32", []
    if value is None or value == 1:
        return "constexpr", []
    return "i32" if -(2**31) <= value < 2**31 else "i64", divisible if value % 16 == 0 else []


def _source(function, positional, named):
    values = dict(zip(function.arg_names, positional, strict=False)) | named
    signature, constants, attributes = {}, {}, {}
    for place, parameter in enumerate(function.params):
        value = values.get(parameter.name, parameter.default)
        kind, attribute = ("constexpr", []) if parameter.is_constexpr else _specialised(value)
        signature[parameter.name] = kind
        if kind == "constexpr":
            constants[(place,)] = value
        elif attribute:
            attributes[(place,)] = attribute
    return ASTSource(function, signature, constants, attributes)


def backward(*outputs):
    torch.autograd.backward(outputs, [torch.zeros_like(output) for output in outputs])


def hash_encoding():
    for features, held, precision in ((2, FULL, HALF), (3, torch.bfloat16, FULL)):
        layout = HashLayout(4, features, 2**12, 16, 128)
        table = torch.zeros(layout.entries, features, dtype=held, requires_grad=True)
        backward(hash_encode(torch.zeros(300, 3), table, layout, precision=precision, implementation="triton"))


def ray_marching():
    rays = torch.zeros(300, 3), torch.zeros(300, 3), torch.zeros(300), torch.zeros(300)
    cells = Cells((0.0, 0.0, 0.0), 0.1, torch.zeros(18, 19, 20, dtype=torch.uint8))
    for seed in (None, 3, torch.tensor(3)):
        march(*rays, cells, step=0.1, limit=1024, seed=seed, capacity=1000, implementation="triton")


def compositing():
    offsets = torch.arange(0, 310, 10)
    for dtype, channels in ((FULL, 3), (HALF, 3), (FULL, 15)):
        leaves = [torch.zeros(shape, dtype=dtype, requires_grad=True) for shape in ((300,), (300, channels))]
        backward(*composite(*leaves, torch.zeros(300), torch.zeros(300), offsets, implementation="triton"))


def adam_steps():
    tensors = [torch.zeros(320, 2) for _ in range(4)]
    for touched in (None, adam.TouchedRows(320)):
        named = {"betas": (0.9, 0.99), "touched": touched, "implementation": "triton"}
        adam.adam_step(*tensors, step=1, lr=0.01, eps=1e-15, **named)
        adam.controlled_adam_step(*tensors, torch.zeros(4), **named)


def radiance(width, dtype=FULL, channels=32, color_hidden=2):
    features = torch.zeros(300, channels, dtype=dtype, requires_grad=True)
    density = [torch.zeros(width, channels), torch.zeros(16, width)]
    weights = [weight.requires_grad_() for weight in (*density, *color_weights(width, color_hidden))]
    rays = torch.zeros(300, dtype=torch.int64)
    backward(*radiance_mlp(features, torch.zeros(5, 16), rays, weights[:2], weights[2:], implementation="triton"))
    density_mlp(features, density, implementation="triton")


def color_weights(width, hidden):
    between = [torch.zeros(width, width) for _ in range(hidden - 1)]
    return [torch.zeros(width, 31), *between, torch.zeros(3, width)]


def grouped(width, dtype=FULL, frequencies=4, density_layers=2):
    layout = GroupedLayout(frequencies, width, density_layers, 1, 15, 16)
    parameters = [torch.zeros(6, size, dtype=dtype) for size in (layout.density_size, layout.color_size)]
    x, index = torch.zeros(600, 3), torch.zeros(600, dtype=torch.int64)
    leaves = [matrix.requires_grad_() for matrix in parameters]
    backward(*grouped_radiance_mlp(x, torch.zeros(5, 16), index, index, *leaves, layout, implementation="triton"))
    grouped_density_mlp(x, index, parameters[0], layout, implementation="triton")


def fused(field, precision):
    rays = torch.zeros(1200, 3), torch.zeros(1200, 3), torch.zeros(1200), torch.zeros(1200)
    cells = Cells((0.0, 0.0, 0.0), 0.1, torch.zeros(18, 19, 20, dtype=torch.uint8))
    render_fused(
        field,
        *rays,
        cells,
        width=40,
        step=0.1,
        limit=1024,
        termination=1e-4,
        precision=precision,
        implementation="triton",
    )


def fused_hash(width, precision=FULL, levels=16, color_hidden=2):
    layout = HashLayout(levels, 2, 2**15, 16, 2048)
    density, color = [torch.zeros(width, 2 * levels), torch.zeros(16, width)], color_weights(width, color_hidden)
    fused(HashField(torch.zeros(2, 3), torch.zeros(layout.entries, 2), layout, density, color, 3), precision)


def fused_grouped(width, precision=FULL, blend=0.2, frequencies=4, density_layers=2):
    layout = GroupedLayout(frequencies, width, density_layers, 1, 15, 16)
    networks = [torch.zeros(210, size) for size in (layout.density_size, layout.color_size)]
    fused(GroupedField(torch.rand(2, 3), (5, 6, 7), blend, 1e-6, *networks, layout, 3), precision)


CASES = {
    "adam": adam_steps,
    "compositing": compositing,
    "hash_encoding": hash_encoding,
    "ray_marching": ray_marching,
    # All branches and loops of the networks, in both types, in half the time that students' sizes take.
    "radiance_small": partial(radiance, 32, HALF, channels=16, color_hidden=1),
    "grouped_small": partial(grouped, 32, HALF, frequencies=2, density_layers=1),
    "fused_hash_small": partial(fused_hash, 32, levels=8, color_hidden=1),
    "fused_grouped_small": partial(fused_grouped, 16, frequencies=2, density_layers=1),
    # Students' sizes, to see what a change does to them.
    "radiance_16": partial(radiance, 16),
    "radiance_64": partial(radiance, 64),
    "radiance_128_half": partial(radiance, 128, HALF),
    "radiance_64_half": partial(radiance, 64, HALF),
    "grouped_32": partial(grouped, 32),
    "grouped_128_half": partial(grouped, 128, HALF),
    "grouped_32_half": partial(grouped, 32, HALF),
    "fused_hash_64": partial(fused_hash, 64),
    "fused_hash_64_half": partial(fused_hash, 64, HALF),
    "fused_hash_128": partial(fused_hash, 128),
    "fused_grouped_32": partial(fused_grouped, 32, blend=0.0),
    "fused_grouped_32_blend": partial(fused_grouped, 32),
    "fused_grouped_32_half": partial(fused_grouped, 32, HALF),
    "fused_grouped_128": partial(fused_grouped, 128),
}


def _disassembled(cubin):
    """The text of machine code, by the disassembler that Triton brings; empty where it brings none."""
    program = Path(triton.__file__).parent / "backends/nvidia/bin/nvdisasm"
    if not program.exists():
        return ""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(cubin)
        return subprocess.run([program, "-c", file.name], capture_output=True, text=True, check=True).stdout


def compile_case(job):
    """Lines to print of a job, "CASE/CAPABILITY"."""
    case, capability = job.split("/")
    lines = {}

    def record(function, *positional, grid, warmup, **named):
        options = {name: named.pop(name) for name in _OPTIONS if name in named}
        source = _source(function, positional, named)
        compiled = triton.compile(source, target=GPUTarget("cuda", int(capability), 32), options=options)
        assert compiled.asm["cubin"]
        counts = [len(unwritten(_disassembled(compiled.asm["cubin"]))), *map(compiled.asm["ptx"].count, COUNTED)]
        lines[" ".join(map(str, (case, function.__name__, capability, compiled.metadata.shared, *counts)))] = None

    JITFunction.run = record
    dispatch.triton_refusal = fused_render.triton_refusal = lambda device: None
    CASES[case]()
    return list(lines)


def main():
    torch.set_num_threads(1)
    # Forked workers have torch and triton imported already, which takes as long as compiling several kernels.
    with multiprocessing.get_context("fork").Pool(min(2, os.cpu_count())) as pool:
        for lines in pool.imap_unordered(compile_case, sys.argv[1:], chunksize=1):
            print(*lines, sep="\n", flush=True)


if __name__ == "__main__":
    main()

"""Compiles what the MLPs and the fused renderers launch in Triton, for GPUs that need not be there.

``python -m tests.compile_mlps CASE... CAPABILITY...``, e.g. ``radiance_64 grouped_32 80 90``, without TRITON_INTERPRET.
The functions get tensors on the CPU; every launch is recorded and compiled to machine code with the very arguments,
options and specialisations of the call. Prints a line per kernel: case, name, compute capability, bytes of shared
memory.
"""

import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from kernels import dispatch, fused_render
from kernels.fused_render import GroupedField, HashField, render_fused
from kernels.grouped_layout import GroupedLayout
from kernels.grouped_mlp import grouped_density_mlp, grouped_radiance_mlp
from kernels.hash_layout import HashLayout
from kernels.radiance_mlp import density_mlp, radiance_mlp
from kernels.ray_samples import Cells

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


def radiance(width, dtype=torch.float32):
    features = torch.zeros(300, 32, dtype=dtype, requires_grad=True)
    density = [torch.zeros(width, 32), torch.zeros(16, width)]
    color = [torch.zeros(width, 31), torch.zeros(width, width), torch.zeros(3, width)]
    weights = [weight.requires_grad_() for weight in (*density, *color)]
    rays = torch.zeros(300, dtype=torch.int64)
    outputs = radiance_mlp(features, torch.zeros(5, 16), rays, weights[:2], weights[2:], implementation="triton")
    torch.autograd.backward(outputs, [torch.zeros_like(output) for output in outputs])
    density_mlp(features, density, implementation="triton")


def grouped(width, dtype=torch.float32):
    layout = GroupedLayout(4, width, 2, 1, 15, 16)
    parameters = [torch.zeros(6, size, dtype=dtype) for size in (layout.density_size, layout.color_size)]
    x, index = torch.zeros(600, 3), torch.zeros(600, dtype=torch.int64)
    leaves = [matrix.requires_grad_() for matrix in parameters]
    outputs = grouped_radiance_mlp(x, torch.zeros(5, 16), index, index, *leaves, layout, implementation="triton")
    torch.autograd.backward(outputs, [torch.zeros_like(output) for output in outputs])
    grouped_density_mlp(x, index, parameters[0], layout, implementation="triton")


def fused(field, precision=torch.float32):
    rays = torch.zeros(1200, 3), torch.zeros(1200, 3), torch.zeros(1200), torch.zeros(1200)
    cells = Cells((0.0, 0.0, 0.0), 0.1, torch.zeros(18, 19, 20, dtype=torch.uint8))
    render_fused(field, *rays, cells, width=40, step=0.1, limit=1024, termination=1e-4, precision=precision)


def fused_hash(width, precision=torch.float32):
    layout = HashLayout(16, 2, 2**19, 16, 2048)
    density = [torch.zeros(width, 32), torch.zeros(16, width)]
    color = [torch.zeros(width, 31), torch.zeros(width, width), torch.zeros(3, width)]
    fused(HashField(torch.zeros(2, 3), torch.zeros(layout.entries, 2), layout, density, color, 3), precision)


def fused_grouped(width, precision=torch.float32, blend=0.2):
    layout = GroupedLayout(4, width, 2, 1, 15, 16)
    networks = [torch.zeros(210, size) for size in (layout.density_size, layout.color_size)]
    fused(GroupedField(torch.rand(2, 3), (5, 6, 7), blend, 1e-6, *networks, layout, 3), precision)


CASES = {
    "radiance_16": lambda: radiance(16),
    "radiance_64": lambda: radiance(64),
    "radiance_128": lambda: radiance(128),
    "radiance_64_half": lambda: radiance(64, torch.float16),
    "grouped_32": lambda: grouped(32),
    "grouped_128": lambda: grouped(128),
    "grouped_32_half": lambda: grouped(32, torch.float16),
    "fused_hash_64": lambda: fused_hash(64),
    "fused_hash_64_half": lambda: fused_hash(64, torch.float16),
    "fused_hash_128": lambda: fused_hash(128),
    "fused_grouped_32": lambda: fused_grouped(32, blend=0.0),
    "fused_grouped_32_blend": lambda: fused_grouped(32),
    "fused_grouped_32_half": lambda: fused_grouped(32, torch.float16),
    "fused_grouped_128": lambda: fused_grouped(128),
}


def main():
    cases = [word for word in sys.argv[1:] if not word.isdigit()]
    capabilities = [int(word) for word in sys.argv[1:] if word.isdigit()]
    dispatch.triton_refusal = fused_render.triton_refusal = lambda device: None

    def record(function, *positional, grid, warmup, **named):
        options = {name: named.pop(name) for name in _OPTIONS if name in named}
        source = _source(function, positional, named)
        for capability in capabilities:
            compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
            assert compiled.asm["cubin"]
            print(case, function.__name__, capability, compiled.metadata.shared, flush=True)

    JITFunction.run = record
    for case in cases:
        CASES[case]()


if __name__ == "__main__":
    main()

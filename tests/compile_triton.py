"""Compiles what the kernels launch in Triton, for GPUs that need not be there.

``python -m tests.compile_triton CASE/CAPABILITY...``, e.g. ``radiance_64/80 adam/90``, without TRITON_INTERPRET. The
public functions get tensors on the CPU; every launch is recorded and compiled to machine code with the very arguments,
options and specialisations of the call. Prints a line per kernel: case, name, compute capability, bytes of shared
memory, registers read before they are written where it has wgmma (see ``tests.sass``), and how often its PTX has each
of ``COUNTED``. The interpreter lets pass what the compiler does not: types that change in a loop, blocks that are no
powers of two, operations without a lowering.
"""

import gc
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

from kernels import dispatch
from kernels.compositing import finish_triton
from kernels.compositing.compositing import composite
from kernels.encoding.hash_encoding import hash_encode
from kernels.encoding.hash_layout import HashLayout
from kernels.encoding.spherical_harmonics import sh_basis
from kernels.losses.picture_terms_triton import PictureTermsTriton
from kernels.marching.ray_marching import march
from kernels.marching.ray_samples import Cells
from kernels.networks.cell_routing import route_to_cells
from kernels.networks.grouped_layout import GroupedLayout
from kernels.networks.grouped_mlp import grouped_density_mlp, grouped_geometry_mlp, grouped_radiance_mlp
from kernels.networks.radiance_mlp import color_of_rays, density_mlp, geometry_mlp, radiance_mlp
from kernels.optimization import adam
from kernels.optimization.muon import WIDEST
from kernels.optimization.step_control import Scaling
from kernels.optimization.step_control_triton import control
from kernels.optimization.straight_through import average_moved, straight_through
from kernels.optimization.updates import TouchedRows, Update
from kernels.rays import camera_rays_triton
from kernels.rays.interleaving import interleaved
from kernels.rays.training_rays_numba import Pixels
from kernels.rays.training_rays_triton import draw
from kernels.rendering import fused_render
from kernels.rendering.fused_render import FusedRenderer, GroupedField, HashField, density_harmonics
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
    torch.int16: "*i16",
    torch.float64: "*fp64",
}
HALF, FULL = torch.float16, torch.float32
_WGMMA = "wgmma.mma_async"
COUNTED = (_WGMMA, "relaxed.add.f32", "relaxed.add.v2.f32", "st.global.b32", "st.global.v4.b32", "fma.rn.f32")


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
        if isinstance(value, tuple) and not parameter.is_constexpr:
            kinds = [_specialised(part) for part in value]
            signature[parameter.name] = tuple(kind for kind, _ in kinds)
            attributes |= {(place, index): attribute for index, (_, attribute) in enumerate(kinds) if attribute}
            continue
        kind, attribute = ("constexpr", []) if parameter.is_constexpr else _specialised(value)
        signature[parameter.name] = kind
        if kind == "constexpr":
            tuples = [part for part in value if isinstance(part, tuple)] if isinstance(value, tuple) else []
            # What Triton 3.6 takes out of a tuple may be a tuple of numbers, and no tuple of tuples.
            assert not any(isinstance(part, tuple) for each in tuples for part in each), parameter.name
            constants[(place,)] = value
        elif attribute:
            attributes[(place,)] = attribute
    return ASTSource(function, signature, constants, attributes)


def backward(*outputs):
    torch.autograd.backward(outputs, [torch.zeros_like(output) for output in outputs])


def hash_encoding():
    kinds = (2, FULL, HALF, (32, 128)), (3, torch.bfloat16, FULL, ())
    for features, held, precision, planes in kinds:
        layout = HashLayout(4, features, 2**12, 16, 128, planes)
        table = torch.zeros(layout.entries, features, dtype=held, requires_grad=True)
        backward(hash_encode(torch.zeros(300, 3), table, layout, precision=precision, implementation="triton"))


def ray_marching():
    rays = torch.zeros(300, 3), torch.zeros(300, 3), torch.zeros(300), torch.zeros(300)
    cells = Cells((0.0, 0.0, 0.0), 0.1, torch.zeros(18, 19, 20, dtype=torch.uint8))
    for seed in (None, torch.tensor(3)):
        march(*rays, cells, step=0.1, limit=1024, seed=seed, capacity=1000, implementation="triton")


def compositing():
    offsets = torch.arange(0, 310, 10)
    for dtype, channels in ((HALF, 3), (FULL, 15)):
        leaves = [torch.zeros(shape, dtype=dtype, requires_grad=True) for shape in ((300,), (300, channels))]
        backward(*composite(*leaves, torch.zeros(300), torch.zeros(300), offsets, implementation="triton")[:3])


def adam_steps():
    tensors = [torch.zeros(320, 2) for _ in range(4)]
    for touched in (None, TouchedRows(320)):
        named = {"betas": (0.9, 0.99), "touched": touched, "implementation": "triton"}
        adam.adam_step(*tensors, step=1, lr=0.01, eps=1e-15, **named)
        adam.controlled_adam_step(*tensors, torch.zeros(4), **named)
    several = [Update(*(torch.zeros(size) for _ in range(4)), decay) for size, decay in ((300, 0.0), (7, 0.1))]
    several += [Update(*(torch.zeros(size) for _ in range(4)), 0.0, None, [size]) for size in ((16, 20), (32, 3))]
    cells = [torch.zeros(6, 320) for _ in range(4)]
    several += [Update(*cells, 0.0, TouchedRows(6, 1), [(20, 16)], torch.zeros((), dtype=torch.float64))]
    adam.controlled_adam_steps(several, torch.zeros(5, 4), betas=(0.9, 0.99), implementation="triton")


def muon():
    """LEGO's hash grid with planes and directions, the largest matrices that are Triton's, and KiloUniform's cells."""
    alone = (64, 52), (16, 64), (64, 31), (64, 64), (3, 64), WIDEST
    several = [Update(*(torch.zeros(size) for _ in range(4)), 0.0, None, [size]) for size in alone]
    shapes = GroupedLayout(4, 32, 3, 1, 15, 16, harmonics=3).density_dims.tolist()
    cells = [torch.zeros(6, sum(height * width for height, width in shapes)) for _ in range(4)]
    several.append(Update(*cells, 0.0, TouchedRows(6, 1), shapes, torch.zeros((), dtype=torch.float64)))
    adam.controlled_adam_steps(several, torch.zeros(7, 4), betas=(0.9, 0.99), implementation="triton")


def rounded_weights():
    values = [torch.ones(320, 2) for _ in range(3)]
    less, others = torch.zeros(320, 2, dtype=torch.uint8), (torch.zeros(320, 2), torch.zeros(320, 2))
    straight_through(*values, less, others[0], torch.zeros(()), implementation="triton")
    average_moved(*values, less, *others, 0.5, implementation="triton")


def training_step():
    """What a step does beside the networks, with what it is told as numbers and as tensors."""
    sh_basis(torch.zeros(300, 3), 4, implementation="triton")
    route_to_cells(torch.zeros(3, 300).t(), torch.rand(2, 3), (5, 6, 7), implementation="triton")
    batch = [torch.zeros(shape) for shape in ((300, 3), (300, 3), 300, 300, 300, 300)]
    kinds = ("l1", "bce", "l2"), ("huber", "l2", "smooth_l1")
    for weights, (rgb, alpha, depth) in zip((torch.ones(3), (1.0, 0.1, 0.0)), kinds, strict=True):
        leaves = [torch.zeros(shape, requires_grad=True) for shape in ((300, 3), 300, 300)]
        options = {
            "RGB": rgb,
            "RGB_DELTA": 0.1,
            "ALPHA": alpha,
            "DEPTH": depth,
            "DEPTH_DELTA": 0.1,
            "LEAST_COVERAGE": 0.5,
        }
        kept = torch.ones(300, dtype=torch.bool)
        total, terms, _, _ = PictureTermsTriton.apply(*leaves, *batch, kept, weights, options)
        (total + terms.sum()).backward()
    first, updates = torch.zeros(8, dtype=torch.int64), torch.ones(3, dtype=torch.float64)
    scaling = Scaling(torch.ones(()), torch.zeros(5, dtype=torch.int64), 1000, 1.0, 2.0**24)
    numbers = torch.tensor(3), torch.tensor(0.5, dtype=torch.float64)
    for (step, factor), scale in (((3, 0.5), None), (numbers, scaling)):
        told = [torch.zeros(()), torch.zeros(())], (0, 2), torch.zeros(3), step, factor
        control(*told, first, torch.zeros(8), 2**62, scale, updates, updates, updates.byte(), (0.9, 0.99), 1e-15)


def training_rays():
    frames, count = 2, 70
    image = [torch.zeros(shape, dtype=torch.uint8) for shape in ((count, 3), count, count)]
    pool = torch.zeros(frames, 35, dtype=torch.int32), torch.full((frames,), 35)
    intrinsics = tuple(torch.ones(frames) for _ in range(4))
    chosen, box = torch.zeros(300, dtype=torch.int64), ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0), 0.1, 10.0)
    for known, drawn_of in (((torch.zeros(count), torch.zeros(count, dtype=HALF)), pool), ((None, None), None)):
        pixels = Pixels(torch.zeros(frames, 4, 4), intrinsics, (7, 5), *image, *known, drawn_of)
        draw(chosen, torch.zeros(300, 3), pixels, *box)
    ones, shared = torch.ones(300), torch.ones(3).expand(300, 3)
    lists = [torch.ones(300, 3), shared, ones, ones, None], [torch.ones(75, 3), shared[:75], ones[:75], None, ones[:75]]
    interleaved(*lists, (300, 75), (0.0, 0.0, 0.0, 0.0, torch.inf), implementation="triton")


def pictures():
    ones, corners = torch.ones(3), ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
    parts = [torch.zeros(shape) for shape in ((35, 3), (35, 3), 35, 35)]
    camera_rays_triton.camera_rays(
        torch.zeros(3, 4, 4), (ones, ones), (ones, ones), 2, (5, 7), corners, (0.1, 9.0), parts
    )
    finish_triton.finish_in_place(*parts[1:], 0.005, (1.0, 1.0, 1.0))


def radiance(width, dtype=FULL, channels=32, color_hidden=2, harmonics=0):
    features = torch.zeros(300, channels, dtype=dtype, requires_grad=True)
    density = [torch.zeros(width, channels + harmonics), torch.zeros(16, width)]
    weights = [weight.requires_grad_() for weight in (*density, *color_weights(width, color_hidden))]
    rays, basis = torch.zeros(300, dtype=torch.int64), torch.zeros(5, 16)
    seen = {"harmonics": basis[:, 1 : 1 + harmonics] if harmonics else None, "implementation": "triton"}
    backward(*radiance_mlp(features, basis, rays, weights[:2], weights[2:], **seen)[:2])
    density_mlp(features, density, implementation="triton")
    backward(*geometry_mlp(features, weights[:2], ray_index=rays, **seen)[:2])
    sums, alpha = torch.zeros(300, 15, requires_grad=True), torch.zeros(300, requires_grad=True)
    shown = color_of_rays(sums, alpha, torch.zeros(300, 16), weights[2:], precision=dtype, implementation="triton")
    backward(shown)


def color_weights(width, hidden):
    between = [torch.zeros(width, width) for _ in range(hidden - 1)]
    return [torch.zeros(width, 31), *between, torch.zeros(3, width)]


def grouped(width, dtype=FULL, frequencies=4, density_layers=2, harmonics=0):
    layout = GroupedLayout(frequencies, width, density_layers, 1, 15, 16, harmonics)
    parameters = [torch.zeros(6, size, dtype=dtype) for size in (layout.density_size, layout.color_size)]
    x, index = torch.zeros(600, 3), torch.zeros(600, dtype=torch.int64)
    leaves = [matrix.requires_grad_() for matrix in parameters]
    seen = {"harmonics": torch.zeros(5, harmonics), "implementation": "triton"}
    backward(*grouped_radiance_mlp(x, torch.zeros(5, 16), index, index, *leaves, layout, **seen)[:2])
    # As the occupancy's refresh asks: of no direction, by cells as narrow as routing gives them.
    grouped_density_mlp(x, index.short(), parameters[0], layout, implementation="triton")
    backward(*grouped_geometry_mlp(x, index, leaves[0], layout, ray_index=index, **seen)[:2])


def fused(field, precision):
    rays = torch.zeros(1200, 3), torch.zeros(1200, 3), torch.zeros(1200), torch.zeros(1200)
    cells = Cells((0.0, 0.0, 0.0), 0.1, torch.zeros(18, 19, 20, dtype=torch.uint8))
    FusedRenderer(field, cells, precision, "triton")(*rays, width=40, step=0.1, limit=1024, termination=1e-4)


def fused_hash(
    width, precision=FULL, levels=16, features=2, color_hidden=2, color_width=None, deferred=False, planes=(),
    density_degree=None,
):  # fmt: skip
    layout = HashLayout(levels, features, 2**15, 16, 2048, planes)
    density = [torch.zeros(width, layout.output_width + density_harmonics(density_degree)), torch.zeros(16, width)]
    networks = density, color_weights(color_width or width, color_hidden)
    shading = 3, deferred, density_degree
    fused(HashField(torch.zeros(2, 3), torch.zeros(layout.entries, features), layout, *networks, *shading), precision)


def fused_grouped(width, precision=FULL, frequencies=4, density_layers=2, deferred=False, harmonics=0):
    layout = GroupedLayout(frequencies, width, density_layers, 1, 15, 16, harmonics)
    networks = torch.zeros(210, layout.density_size), torch.zeros(1 if deferred else 210, layout.color_size)
    fused(GroupedField(torch.rand(2, 3), (5, 6, 7), *networks, layout, 3, deferred), precision)


CASES = {
    "adam": adam_steps,
    "rounded_weights": rounded_weights,
    "training_step": training_step,
    "training_rays": training_rays,
    "compositing": compositing,
    "pictures": pictures,
    "hash_encoding": hash_encoding,
    "ray_marching": ray_marching,
    # All branches and loops of the networks, in both types, in half the time that students' sizes take.
    "radiance_small": partial(radiance, 32, HALF, channels=16, color_hidden=1, harmonics=3),
    "grouped_small": partial(grouped, 32, HALF, frequencies=2, density_layers=1, harmonics=8),
    "fused_hash_small": partial(fused_hash, 32, levels=8, color_hidden=1, density_degree=1),
    "fused_grouped_small": partial(fused_grouped, 16, frequencies=2, density_layers=1, harmonics=3),
    "deferred_hash_small": partial(
        fused_hash, 32, HALF, levels=5, color_hidden=1, color_width=64, deferred=True, planes=(128,), density_degree=2
    ),
    "deferred_grouped_small": partial(
        fused_grouped, 16, HALF, frequencies=1, density_layers=1, deferred=True, harmonics=3
    ),
    # Students' sizes, to see what a change does to them.
    "radiance_16": partial(radiance, 16),
    "radiance_64": partial(radiance, 64),
    "radiance_64_half": partial(radiance, 64, HALF),
    "radiance_64_wide_half": partial(radiance, 64, HALF, channels=64),
    "grouped_32": partial(grouped, 32),
    "grouped_32_half": partial(grouped, 32, HALF),
    "fused_hash_64": partial(fused_hash, 64),
    "fused_hash_64_half": partial(fused_hash, 64, HALF),
    "fused_grouped_32": partial(fused_grouped, 32),
    "fused_grouped_32_half": partial(fused_grouped, 32, HALF),
    "deferred_hash_64_half": partial(fused_hash, 64, HALF, deferred=True),
    "deferred_hash_64_planes_half": partial(fused_hash, 64, HALF, levels=20, deferred=True, planes=(64, 256)),
    "deferred_grouped_32_half": partial(fused_grouped, 32, HALF, deferred=True),
    "muon": muon,
    # With planes and density by direction: a record, lego_compact.yaml, base/model.yaml.
    "radiance_64_directions_half": partial(radiance, 64, HALF, channels=44, harmonics=8),
    "radiance_64_compact_half": partial(radiance, 64, HALF, channels=26, harmonics=8),
    "radiance_32_model_half": partial(radiance, 32, HALF, channels=52, harmonics=8),
    "fused_hash_64_directions_half": partial(fused_hash, 64, HALF, planes=(64, 256), density_degree=2),
    "fused_hash_64_compact_half": partial(fused_hash, 64, HALF, levels=7, planes=(64, 256), density_degree=2),
    "fused_hash_64_capture_half": partial(fused_hash, 64, HALF, features=4),
    "fused_hash_32_model_half": partial(fused_hash, 32, HALF, levels=7, features=4, planes=(64, 256), density_degree=2),
    "grouped_32_directions_half": partial(grouped, 32, HALF, density_layers=3, harmonics=3),
    "deferred_grouped_32_directions_half": partial(fused_grouped, 32, HALF, deferred=True, harmonics=3),
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
        counts = list(map(compiled.asm["ptx"].count, COUNTED))
        # Its descriptors are what ``tests.sass`` looks after, and the disassembler takes as long as the compiler.
        early = unwritten(_disassembled(compiled.asm["cubin"])) if counts[COUNTED.index(_WGMMA)] else []
        counts.insert(0, len(early))
        lines[" ".join(map(str, (case, function.__name__, capability, compiled.metadata.shared, *counts)))] = None

    JITFunction.run = record
    dispatch.triton_refusal = fused_render.triton_refusal = lambda device: None
    CASES[case]()
    return list(lines)


def main():
    torch.set_num_threads(1)
    # Compilers make and drop a great many objects, and what torch and Triton consist of is looked through each time.
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)
    # Forked workers have torch and triton imported already, which takes as long as compiling several kernels.
    with multiprocessing.get_context("fork").Pool(min(2, os.cpu_count())) as pool:
        for lines in pool.imap_unordered(compile_case, sys.argv[1:], chunksize=1):
            print(*lines, sep="\n", flush=True)


if __name__ == "__main__":
    main()

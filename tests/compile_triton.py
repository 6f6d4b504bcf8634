"""Compiles the Triton kernels for a GPU that need not be there: ``python -m tests.compile_triton [capability]``.

The interpreter lets pass what the compiler does not: types that change in a loop, blocks that are no powers of two,
operations without a lowering. This goes as far as machine code.
"""

import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels import adam_triton, compositing_triton, hash_encoding_triton, ray_marching_triton

_HASH = {"FEATURES": 2, "PADDED": 2, "BLOCK": 256}
_MARCH = {"CENTRED": False, "SEED_IN_MEMORY": False, "RAYS": 16, "BINS": 32}
_COMPOSITE = {"RAYS": 8, "SAMPLES": 32}
KERNELS = [
    (hash_encoding_triton._encode, _HASH, {}),
    (hash_encoding_triton._encode, _HASH, {"table": "*fp16"}),
    (hash_encoding_triton._encode, {**_HASH, "FEATURES": 3, "PADDED": 4}, {"table": "*bf16"}),
    (hash_encoding_triton._encode, _HASH, {"table": "*fp16", "out": "*fp16"}),
    (hash_encoding_triton._encode_backward, _HASH, {}),
    (hash_encoding_triton._encode_backward, _HASH, {"grad": "*fp16"}),
    (ray_marching_triton._count, _MARCH, {}),
    (ray_marching_triton._count, {**_MARCH, "CENTRED": True}, {}),
    (ray_marching_triton._count, {**_MARCH, "SEED_IN_MEMORY": True}, {"seed": "*i64"}),
    (ray_marching_triton._fill, _MARCH, {}),
    (ray_marching_triton._fill, {**_MARCH, "SEED_IN_MEMORY": True}, {"seed": "*i64"}),
    (compositing_triton._forward, _COMPOSITE, {}),
    (compositing_triton._forward, _COMPOSITE, {"density": "*fp16", "rgb": "*fp16"}),
    (compositing_triton._backward, _COMPOSITE, {}),
    (adam_triton._adam, {"LAZY": False, "BLOCK": 1024}, {}),
    (adam_triton._adam, {"LAZY": True, "BLOCK": 1024}, {}),
    (adam_triton._controlled_adam, {"LAZY": False, "BLOCK": 1024}, {}),
    (adam_triton._controlled_adam, {"LAZY": True, "BLOCK": 1024}, {}),
]
# Types of arguments by their names; all others are pointers to float32.
_NAMES = {
    "*i64": "offsets resolutions first_bin counts next_bin ray_index",
    "*u8": "hashes occupied",
    "i32": "x_row x_axis out_row out_channel grad_row grad_channel rgb_row rgb_channel count rays nx ny nz limit seed",
    "i64": "total",
    "fp32": "lower_x lower_y lower_z inverse_size step rate beta1 beta2 eps weight_decay",
}
_TYPES = {name: kind for kind, names in _NAMES.items() for name in names.split()}


def compile_kernel(kernel, constants, types, capability):
    """The kernel's assembly by stage, ``ptx`` and ``cubin`` among them."""
    signature, attributes = {}, {}
    for place, name in enumerate(kernel.arg_names):
        kind = "constexpr" if name in constants else types.get(name) or _TYPES.get(name, "*fp32")
        signature[name] = kind
        if kind.startswith("*"):
            attributes[(place,)] = [["tt.divisibility", 16]]  # as a tensor's own memory is
    source = ASTSource(kernel, signature, constants, attributes)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 4}).asm


if __name__ == "__main__":
    for kernel, constants, types in KERNELS:
        assembly = compile_kernel(kernel, constants, types, int(sys.argv[1]) if len(sys.argv) > 1 else 90)
        print(f"{kernel.__module__}.{kernel.__name__} {constants} {types}: {len(assembly['cubin'])} bytes")

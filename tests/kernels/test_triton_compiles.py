"""What the interpreter lets pass, the compiler must take too: names that change type in a loop, shapes, lowerings."""

import os
import subprocess
import sys

import pytest

from kernels.triton_support import _installed

# Of the multiprocessor's shared memory a block may have 99 KiB on consumer GPUs since Ampere, 227 on an H100.
_LEAST_SHARED = 99 * 1024
# Matrix products compile differently before the H100: all their branches and loops at small sizes.
WITH_PRODUCTS = {
    "grouped_small": ("_density", "_radiance", "_radiance_backward", "_fold"),
    "fused_hash_small": ("_render",),
    "fused_grouped_small": ("_render",),
    "radiance_small": ("_density", "_radiance", "_radiance_backward"),
}
# As large as students are, whose shared memory must fit too.
STUDENTS_SIZES = {
    "radiance_64_half": ("_density", "_radiance", "_radiance_backward"),
    "grouped_32_half": ("_density", "_radiance", "_radiance_backward", "_fold"),
    "fused_hash_64": ("_render",),
    "fused_grouped_32_blend": ("_render",),
}
OTHERS = {
    "hash_encoding": ("_encode", "_encode_backward"),
    "ray_marching": ("_count", "_fill"),
    "compositing": ("_forward", "_backward"),
    "adam": ("_adam", "_controlled_adam"),
}
JOBS = [
    *((case, names, "80") for case, names in WITH_PRODUCTS.items()),
    *((case, names, "90") for case, names in (STUDENTS_SIZES | OTHERS).items()),
]


@pytest.mark.skipif(not _installed(), reason="triton is not installed")
def test_launches_compile_for_gpus_that_need_not_be_here(tmp_path):
    # Another process: this one has imported triton for its interpreter. An empty cache, so that all is compiled.
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "tests.compile_triton", *(f"{case}/{capability}" for case, _, capability in JOBS)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    compiled = [line.split() for line in result.stdout.splitlines()]
    assert {(case, name, capability) for case, name, capability, _ in compiled} == {
        (case, name, capability) for case, names, capability in JOBS for name in names
    }
    assert all(int(shared) <= _LEAST_SHARED for *_, shared in compiled)

"""What the interpreter lets pass, the compiler must take too: names that change type in a loop, shapes, lowerings."""

import os
import subprocess
import sys

import pytest

from kernels.triton_support import _installed

# Of the multiprocessor's shared memory a block may have 99 KiB on consumer GPUs since Ampere, 227 on an H100.
_LEAST_SHARED = 99 * 1024
CAPABILITIES = ("80", "90")
EXPECTED = {
    "radiance_64_half": ("_density", "_radiance", "_radiance_backward"),
    "grouped_32_half": ("_density", "_radiance", "_radiance_backward", "_fold"),
    "fused_hash_64": ("_render",),
    "fused_grouped_32_blend": ("_render",),
}


@pytest.mark.skipif(not _installed(), reason="triton is not installed")
def test_launches_compile_for_gpus_that_need_not_be_here(tmp_path):
    # Other processes: this one has imported triton for its interpreter. An empty cache, so that all is compiled.
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "tests.compile_mlps", *EXPECTED]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    processes = [subprocess.Popen([*command, capability], **pipes) for capability in CAPABILITIES]
    results = [process.communicate() for process in processes]
    assert not any(process.returncode for process in processes), "\n".join(errors for _, errors in results)
    compiled = [line.split() for output, _ in results for line in output.splitlines()]
    assert {(case, name, capability) for case, name, capability, _ in compiled} == {
        (case, name, capability) for case, names in EXPECTED.items() for name in names for capability in CAPABILITIES
    }
    assert all(int(shared) <= _LEAST_SHARED for *_, shared in compiled)

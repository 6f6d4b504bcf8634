import os
import subprocess
import sys

import pytest

from kernels.triton_support import _installed


@pytest.mark.skipif(not _installed(), reason="triton is not installed")
def test_all_kernels_compile_for_a_gpu_that_need_not_be_here(tmp_path):
    # Another process: this one has imported triton for its interpreter. An empty cache, so that all is compiled.
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "tests.compile_triton"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "hash_encoding_triton._encode_backward" in result.stdout

"""What the interpreter lets pass, the compiler must take too: names that change type in a loop, shapes, lowerings."""

import os
import subprocess
import sys

import pytest

from kernels.triton_support import _installed
from tests.sass import unwritten
from tests.triton_device import needs_gpu

# Of the multiprocessor's shared memory a block may have 99 KiB on consumer GPUs since Ampere, 227 on an H100.
_LEAST_SHARED = 99 * 1024
# All branches and loops of the networks at small sizes.
JOBS = {
    "radiance_small/90": (
        *("_density", "_radiance", "_radiance_backward", "_geometry", "_geometry_backward"),
        *("_shade", "_shade_backward"),
    ),
    "fused_hash_small/90": ("_basis", "_find", "_render"),
    "grouped_small/90": (
        *("_density", "_radiance", "_radiance_backward", "_geometry", "_geometry_backward"),
        *("_fold", "_ends", "_cut"),
    ),
    "fused_grouped_small/80": ("_basis", "_find", "_render"),
    "deferred_hash_small/90": ("_basis", "_find", "_render", "_shade"),
    "deferred_grouped_small/90": ("_basis", "_find", "_render", "_shade"),
    "hash_encoding/90": ("_encode", "_encode_backward"),
    "ray_marching/90": ("_count", "_room", "_fill"),
    "training_rays/90": ("_draw", "_interleave"),
    "training_step/90": ("_basis", "_route", "_errors", "_total", "_gradients", "_control"),
    "compositing/90": ("_forward", "_backward"),
    "pictures/90": ("_rays", "_finish"),
    "adam/90": ("_adam", "_controlled_adam", "_controlled_adam_several", "_controlled_muon_several"),
    "rounded_weights/90": ("_straight_through", "_average_moved"),
}
# As large as students are, whose shared memory must fit too (at most 62 KiB of it on an H100 so far).
STUDENTS_JOBS = {
    f"{case}/{capability}": JOBS[small]
    for case, small in {
        "radiance_64_half": "radiance_small/90",
        "radiance_64_wide_half": "radiance_small/90",
        "grouped_32_half": "grouped_small/90",
        "fused_hash_64": "fused_hash_small/90",
        "fused_grouped_32": "fused_grouped_small/80",
        "deferred_hash_64_half": "deferred_hash_small/90",
        "deferred_hash_64_planes_half": "deferred_hash_small/90",
        "deferred_grouped_32_half": "deferred_grouped_small/90",
    }.items()
    for capability in (80, 90)
} | {f"muon/{capability}": ("_controlled_muon_several",) for capability in (80, 90)}


@pytest.mark.skipif(not _installed(), reason="triton is not installed")
@pytest.mark.parametrize("jobs", [JOBS, pytest.param(STUDENTS_JOBS, marks=needs_gpu)], ids=["small", "students"])
def test_launches_compile_for_gpus_that_need_not_be_here(jobs, pytestconfig, tmp_path):
    # Another process: this one has imported triton for its interpreter. Triton's cache knows a kernel by its source and
    # that of all it calls, by types and constants, and by the compiler: what has changed is compiled anew.
    kept = getattr(pytestconfig, "cache", None)  # none with -p no:cacheprovider
    cache = kept.mkdir("triton") if kept else tmp_path
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(cache)}
    command = [sys.executable, "-m", "tests.compile_triton", *jobs]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    compiled = [line.split() for line in result.stdout.splitlines()]
    assert {(f"{case}/{capability}", name) for case, name, capability, *_ in compiled} == {
        (job, name) for job, names in jobs.items() for name in names
    }
    assert all(int(shared) <= _LEAST_SHARED for _, _, _, shared, *_ in compiled)
    for case, name, _, _, *counts in compiled:
        read_unwritten, wgmma, single_add, pair_add, single_store, quad_store, fused = map(int, counts)
        assert read_unwritten == 0, (case, name)
        # See ``kernels.networks.mlp_triton.block_of``: where there are many, ptxas 12.8 makes code that reads
        # elsewhere.
        assert wgmma <= (8 if name.endswith("_backward") else 0), (case, name)
        # An entry's two values are added by one instruction, and four values are written by one; 256 points by 128
        # threads make 2 x 8 entries each, 1024 values 2 x 4 each, of four tensors.
        if name == "_encode_backward":
            assert (single_add, pair_add) in ((0, 16), (64, 0))  # the other has three values an entry
        if name in ("_adam", "_controlled_adam"):
            assert (single_store, quad_store) == (0, 8)
        # 160 of a matrix's products in one of ten iterations, of three matrices; written out ten times, those of
        # matrices 64 wide took ptxas minutes.
        if (case, name) == ("adam", "_controlled_muon_several"):
            assert fused < 1000
        if name in ("_straight_through", "_average_moved"):  # of two tensors, of one
            assert (single_store, quad_store) == (0, 4 if name == "_straight_through" else 2)


def test_machine_code_that_reads_what_it_has_not_written_is_found():
    code = """
        /*0090*/                   UMOV UR4, 0x400 ;
        /*00c0*/                   ULDC.64 UR22, c[0x0][0x278] ;
        /*0170*/                   UIADD3 UR25, UP1, UR25, 0x20, URZ ;
        /*01a0*/                   UIADD3 UR5, UP0, UR4, UR23, URZ ;
        /*01b0*/                   ULOP3.LUT UP2, UR28, UR25, 0x3, URZ, 0xc0, !UPT ;
        /*8090*/                   HGMMA.64x16x16.F32 R24, R44, gdesc[UR20].tnspB, RZ, !UPT ;
        /*80a0*/               @P1 HGMMA.64x16x16.F32 R24, gdesc[UR20].tnspB, R24 ;
        /*80b0*/               @P1 STS [R3+UR28], R24 ;
        /*80c0*/                   UISETP.NE.AND UP0, UPT, UR29, URZ, UPT ;
    """
    assert [line.split()[0] for line in unwritten(code)] == ["0170", "80a0", "80c0"]

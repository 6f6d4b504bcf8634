"""What the machine does wrong, told from what the program does wrong; terminals that go away."""

import errno
import io
import sys

import pytest

from machine.failures import ForgivingStream, forgiving_output, is_machines_fault, machine_failure


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.csv"), "a.csv: No space left on device. Make room"),
        (PermissionError(errno.EACCES, "Permission denied", "a.csv"), "a.csv: Permission denied."),
        (
            OSError(errno.ENAMETOOLONG, "File name too long", "a.csv"),
            "a.csv: File name too long. Choose a shorter one.",
        ),
        (OSError("encoder error"), "encoder error."),
        (MemoryError(), "out of memory. Use"),
        (
            RuntimeError("CUDA error: an illegal memory access was encountered\nSearch for"),
            "the GPU: CUDA error: an illegal memory access was encountered. CUDA_LAUNCH_BLOCKING=1",
        ),
        (
            RuntimeError("Triton Error [CUDA]: device-side assert triggered"),
            "the GPU: Triton Error [CUDA]: device-side",
        ),
        (RuntimeError("CUDA error: out of memory"), "out of memory (CUDA error"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 4 bytes"), "out of memory (DefaultCPUAllocator"),
    ],
)
def test_the_machine_is_named_in_one_line(error, words):
    assert machine_failure(error).startswith(words) and "\n" not in machine_failure(error)


def test_a_gpu_that_cannot_run_a_kernel_is_named_with_what_runs_there():
    """Triton's errors are of no kind that others share, and Triton need not be installed to be told from others."""
    too_little = type("OutOfResources", (Exception,), {"__module__": "triton.runtime.errors"})
    text = "out of resource: shared memory, Required: 70000, Hardware limit: 65536. Reducing block sizes may help."
    found = machine_failure(too_little(text))
    assert found.startswith("the GPU: out of resource: shared memory, Required: 70000, Hardware limit: 65536.")
    assert "--set kernels=torch" in found
    assert machine_failure(type("OutOfResources", (Exception,), {"__module__": "other"})(text)) is None


def test_a_full_disk_names_a_way_to_go_on_where_the_command_has_one():
    full, other = OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EIO, "Input/output error")
    plain = "No space left on device. Make room and run it again; what was finished before is whole."
    assert machine_failure(full) == plain
    assert machine_failure(full, "--resume goes on.") == f"{plain} --resume goes on."
    assert machine_failure(other, "--resume goes on.") == "Input/output error."


def test_errors_of_the_program_are_none_of_the_machine():
    assert machine_failure(RuntimeError("shapes differ")) is None and machine_failure(KeyError("a")) is None
    assert is_machines_fault(OSError(errno.EFBIG, "")) and not is_machines_fault(OSError(errno.EACCES, ""))


class _Gone(io.StringIO):
    def write(self, text: str) -> int:
        if self.tell() > 3:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        return super().write(text)


def test_a_stream_that_nobody_reads_takes_what_comes():
    stream = ForgivingStream(_Gone())
    for text in ("abc\n", "def\n", "ghi\n"):
        stream.write(text)
    stream.flush()
    assert stream.getvalue() == "abc\n" and isinstance(stream.error, BrokenPipeError)
    closed = io.StringIO()
    closed.close()
    ForgivingStream(closed).write("x")
    ForgivingStream(None).write("x")


def test_standard_streams_come_back(capsys):
    before = sys.stdout, sys.stderr
    with pytest.raises(KeyError), forgiving_output():
        print("told")
        raise KeyError
    assert (sys.stdout, sys.stderr) == before and capsys.readouterr().out == "told\n"

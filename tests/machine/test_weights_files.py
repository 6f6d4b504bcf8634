"""Files of tensors as they are written; what is read of damaged ones is in the tests of checkpoints."""

import errno

import pytest
import torch

from machine.weights_files import read_weights, write_weights
from tests.memory_peak import with_peak


def test_a_state_is_written_without_a_copy_of_the_file_in_memory(tmp_path):
    path, state = tmp_path / "state.pth", {"means": torch.arange(1_000_000.0), "step": 7}
    _, peak = with_peak(lambda: write_weights(path, state))
    assert peak < path.stat().st_size / 4
    read = read_weights(path, "state", "a state")
    assert torch.equal(read["means"], state["means"]) and read["step"] == 7


def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path, monkeypatch):
    path, state = tmp_path / "state.pth", {"means": torch.arange(1000.0)}
    write_weights(path, state)
    before = path.read_bytes()

    class Full:
        def __init__(self, *_):
            self.room = 2000

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def write(self, part):
            self.room -= len(part)
            if self.room < 0:
                raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("machine.weights_files.open", Full, raising=False)
    with pytest.raises(OSError, match="No space left on device") as raised:
        write_weights(path, state)
    assert raised.value.errno == errno.ENOSPC and raised.value.filename == str(path)
    assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == ["state.pth"]

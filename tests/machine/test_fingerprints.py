"""Values told from others by a few digits."""

import hashlib
import os

import numpy as np
import torch

from machine.fingerprints import cache_key, digest, files_digest
from tests.memory_peak import with_peak


def test_the_digest_in_files_is_that_of_the_values():
    tensors = [torch.arange(6, dtype=torch.float32).view(2, 3).t(), torch.tensor([7], dtype=torch.int64)]
    values = np.array([0, 3, 1, 4, 2, 5], np.float32).tobytes() + np.array([7]).tobytes()
    assert digest(tensors) == hashlib.sha256(values).hexdigest()[:16]


def test_a_digest_takes_no_copy():
    values = torch.arange(300_000, dtype=torch.float32)
    expected = hashlib.sha256(values.numpy().tobytes()).hexdigest()[:16]
    found, peak = with_peak(lambda: digest([values]))
    assert found == expected and peak < values.nbytes / 4
    assert digest([torch.empty(0, 3), torch.tensor(1.0)]) == digest([torch.tensor(1.0)])


def test_a_key_sees_values_types_shapes_and_order():
    base = torch.arange(6, dtype=torch.float32)
    others = [base.double(), base.view(2, 3), base + torch.tensor([0, 0, 0, 0, 0, 1e-5]), base.flip(0)]
    parts = [(base,), *((other,) for other in others), (base, None), (None, base), ("a", "b"), ("ab",), (["a", "b"],)]
    assert len({cache_key(*part) for part in parts}) == len(parts)
    assert (
        cache_key(base)
        == cache_key(base.clone())
        == cache_key(base.numpy())
        == cache_key(np.arange(6, dtype=np.float32))
    )


def test_files_are_known_by_what_is_in_them(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"x" * 1000)
    second.write_bytes(b"x" * 1000)
    os.utime(second, (1, 1))
    assert files_digest([first]) == files_digest([second]) != files_digest([tmp_path / "none"])
    second.write_bytes(b"x" * 999 + b"y")
    assert len({files_digest(files) for files in ([first], [second], [first, second], [second, first])}) == 4


def test_large_files_are_sampled_from_end_to_end(tmp_path, monkeypatch):
    monkeypatch.setattr("machine.fingerprints._READ_WHOLE", 1 << 20)
    path = tmp_path / "large"
    path.write_bytes(bytes(5 << 20))
    digests = {files_digest([path])}
    for place in (0, (5 << 20) - 1):
        path.write_bytes(bytes(place) + b"x" + bytes((5 << 20) - 1 - place))
        digests.add(files_digest([path]))
    path.write_bytes(bytes((5 << 20) + 1))
    assert len(digests | {files_digest([path])}) == 4

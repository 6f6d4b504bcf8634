"""Values told from others by a few digits."""

import hashlib

import numpy as np
import torch

from machine.fingerprints import cache_key, digest


def test_the_digest_in_files_is_that_of_the_values():
    tensors = [torch.arange(6, dtype=torch.float32).view(2, 3).t(), torch.tensor([7], dtype=torch.int64)]
    values = np.array([0, 3, 1, 4, 2, 5], np.float32).tobytes() + np.array([7]).tobytes()
    assert digest(tensors) == hashlib.sha256(values).hexdigest()[:16]


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

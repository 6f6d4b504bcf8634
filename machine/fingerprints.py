"""Telling one set of values from another without keeping both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch


def digest(tensors: Iterable[torch.Tensor]) -> str:
    """SHA-256 of the tensors' values alone, shortened to 16 digits: files of users hold it, so it stays as it is."""
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(tensor.detach().cpu().contiguous().numpy())  # not its bytes: of millions of Gaussians a copy
    return sha.hexdigest()[:16]


def cache_key(*parts: Any) -> str:
    """SHA-256 of tensors (type, shape and values), arrays, and whatever JSON can hold."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.Tensor):
            part = part.detach().cpu().numpy()
        if isinstance(part, np.ndarray):
            total.update(f"{part.dtype}{part.shape}".encode())
            total.update(np.ascontiguousarray(part).data)
        else:
            total.update(json.dumps(part, sort_keys=True).encode())
        total.update(b"\0")
    return total.hexdigest()


_READ_WHOLE, _SAMPLE = 64 << 20, 64 << 10


def files_digest(paths: Sequence[Path]) -> str:
    """Digest of some files' contents in their order, whatever their names and times are.

    Up to 64 MiB together are read whole; of more than that each file gives its size and evenly spread samples, its
    beginning and its end among them, so that it takes a fraction of a second. A file that is not there is told from one
    that is.
    """
    total = hashlib.blake2b(digest_size=16)
    sizes = [path.stat().st_size if path.is_file() else -1 for path in paths]
    share = min(1.0, _READ_WHOLE / max(1, sum(sizes)))
    for path, size in zip(paths, sizes, strict=True):
        total.update(f"{size};".encode())
        if size <= 0:
            continue
        with open(path, "rb") as file:
            if share == 1 or size <= 2 * _SAMPLE:
                total.update(file.read())
                continue
            count = max(2, round(share * size / _SAMPLE))
            for sample in range(count):
                file.seek(sample * (size - _SAMPLE) // (count - 1))
                total.update(file.read(_SAMPLE))
    return total.hexdigest()

"""Telling one set of values from another without keeping both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch


def digest(tensors: Iterable[torch.Tensor]) -> str:
    """SHA-256 of the tensors' values alone, shortened to 16 digits: files of users hold it, so it stays as it is."""
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
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

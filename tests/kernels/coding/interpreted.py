"""Modules of compiled kernels as plain Python."""

import importlib
import sys

import numba


def interpreted_modules(monkeypatch, *names):
    """The modules imported anew with nothing compiled, until the test is over."""
    monkeypatch.setattr(numba.config, "DISABLE_JIT", True)
    for name in names:
        package, _, own = name.rpartition(".")
        monkeypatch.setattr(sys.modules[package], own, sys.modules[name])  # put back afterwards
        monkeypatch.delitem(sys.modules, name)
    return [importlib.import_module(name) for name in names]

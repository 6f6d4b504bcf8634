"""Numeric kernels, each chosen by ``implementation``; a folder for each part of the way from rays to weights.

``<name>.py`` holds a kernel's public function and its plain torch reference; the fast twins lie beside it, in
``<name>_numba.py`` for the CPU and ``<name>_triton.py`` for CUDA. The reference of some is where they are
called, in ``scene`` and ``distill``. What all kernels share lies here.
"""

from kernels.numba_cache import place_numba_cache

place_numba_cache()  # before any kernel is compiled

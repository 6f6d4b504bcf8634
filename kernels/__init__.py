"""Numeric kernels, each chosen by ``implementation``; a folder for each part of the way from rays to weights.

``<name>.py`` holds a kernel's public function and its plain torch reference; the fast twins lie beside it, in
``<name>_numba.py`` for the CPU and ``<name>_triton.py`` for CUDA, or name the reference where it is elsewhere. What all
kernels share lies here.
"""

from kernels.numba_cache import place_numba_cache

place_numba_cache()  # before any kernel is compiled

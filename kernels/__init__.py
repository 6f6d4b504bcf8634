"""Numeric kernels, each chosen by ``implementation``.

``<name>.py`` holds a kernel's public function and its plain torch reference; the fast twins lie beside it, in
``<name>_numba.py`` for the CPU and ``<name>_triton.py`` for CUDA.
"""

from kernels.numba_cache import place_numba_cache

place_numba_cache()  # before any kernel is compiled

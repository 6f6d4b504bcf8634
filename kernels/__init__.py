"""Numeric kernels: each file holds a plain torch reference and its fast twins, chosen by ``implementation``."""

"""Rays of cameras' pixels, for pictures and for training."""

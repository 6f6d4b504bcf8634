"""Fitting a 3DGS teacher to images with known cameras."""

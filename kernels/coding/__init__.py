"""Integers as bytes, and back to the last bit; and the maps of matrices before that."""

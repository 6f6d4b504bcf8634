"""Integers as bytes, and back to the last bit."""

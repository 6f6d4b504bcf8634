"""Whole pictures of a student in one kernel, from rays to pixels."""

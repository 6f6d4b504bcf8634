"""Whole pictures of a student, from rays to pixels, in one kernel or a few."""

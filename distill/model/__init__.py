"""A student with what it takes to render it: built, saved, restored."""

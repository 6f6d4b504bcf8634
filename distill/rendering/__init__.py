"""A student as pictures: occupied space, sampling, compositing, films."""

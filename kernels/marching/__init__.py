"""Where a ray's samples are: occupied cells on its way, inside the scene box and outside it."""

"""Training of a city's students beyond their own runs: all blocks together, and coarser ones for views from afar."""

"""From a checkpoint to a compact file: training with rounded weights, and the search for the setting."""

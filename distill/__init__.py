"""The work: configuration, training, rendering, evaluation."""

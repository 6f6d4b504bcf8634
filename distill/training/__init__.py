"""The training loop and its steps: precision, updates, what is watched, recorded and logged."""

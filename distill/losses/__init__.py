"""Feature distillation: the teacher's densities, colours and features as supervision of samples and rays."""

"""A run's report: its curves, pictures, settings and versions, made from the files that the run wrote."""

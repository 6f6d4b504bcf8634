"""Students and teachers looked at in a browser, from wherever its camera is."""

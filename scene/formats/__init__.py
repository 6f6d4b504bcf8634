"""Dataset formats, each in a file of its own, behind one door."""

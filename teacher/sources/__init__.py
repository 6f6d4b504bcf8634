"""Where a teacher comes from: one class for each kind, behind one door."""

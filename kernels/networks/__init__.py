"""Small MLPs: one of all samples, one of each cell, and that of whole rays' colours."""

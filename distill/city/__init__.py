"""A city as blocks, each an ordinary run: how it is cut, who sees what, and the file that says how far it is."""

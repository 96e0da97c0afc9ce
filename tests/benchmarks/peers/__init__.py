"""One module for each peer; `base` holds what they have in common."""

"""One file a peer; `base` is what they have in common."""

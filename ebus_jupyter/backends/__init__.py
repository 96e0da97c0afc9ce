"""Where a bus's log lives. `base` is the seam; each other module is one implementation of it."""

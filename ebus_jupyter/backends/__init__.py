"""Where a bus's log is stored. `base` is the seam; each other module implements it."""

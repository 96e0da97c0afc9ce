"""Storage of the buses' logs. `base` is the seam; each other module implements it."""

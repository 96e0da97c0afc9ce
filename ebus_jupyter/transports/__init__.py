"""How frames travel between a client and a broker. `base` is the seam; each other module is one implementation of it."""

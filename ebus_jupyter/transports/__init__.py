"""Transports carry frames between a client and a broker. `base` is the seam; each other module implements it."""

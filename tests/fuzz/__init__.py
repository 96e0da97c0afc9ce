"""Fuzzers with oracles for what a thing costs, not only for crashes.

In `make test` hypothesis draws a moderate number of inputs, and `cost` counts the steps and bytes that each takes. ``make
fuzz`` runs the decoders under atheris, which looks for inputs that reach new code, for as long as it is given.
"""

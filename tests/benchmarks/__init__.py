"""The product measured beside its peers, all in one session: `python -m tests.benchmarks`, or `make bench`.

Figures of two sessions can't be compared (another machine, another load); the ratios of one session can. Every peer is
really run, in a server process of its own; what can't be had on a machine is left out and named.
"""

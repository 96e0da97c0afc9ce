"""Measures ebus_jupyter and its peers in one session: `python -m tests.benchmarks`, or `make bench`.

Figures from two sessions cannot be compared, because the machine and its load differ; ratios within one session can. Every
peer runs in a server process of its own. A peer that is not installed is reported and left out.
"""

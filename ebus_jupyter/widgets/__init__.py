"""Buses in pages: `handle` gives a bus to anyone's widget, `share` makes any widget one live value for everybody."""

"""The examples in the docstrings of the core, its errors and the transports."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

from ebus_jupyter import core, transports

MODULES = ["ebus_jupyter.errors"] + [
    module.name
    for package in (core, transports)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0

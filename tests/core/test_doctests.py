"""What the modules' documentation shows is so."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

from ebus_jupyter import core

MODULES = [module.name for module in pkgutil.walk_packages(core.__path__, f"{core.__name__}.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0

"""The laws of each seam, as classes of tests. An implementation's test file names a fixture and inherits them."""

import pytest

pytest.register_assert_rewrite("tests.contracts.backend", "tests.contracts.transport")

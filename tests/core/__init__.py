import pytest

pytest.register_assert_rewrite("tests.core.laws", "tests.core.listener")

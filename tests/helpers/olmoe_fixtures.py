"""Fixtures of the tests that run stages of warm-up; a module names it in ``pytest_plugins``."""

import pytest
from olmoe_stage import Stage, converted


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return converted(tmp_path_factory.mktemp("base"))


@pytest.fixture
def stage(base, tmp_path):
    return Stage(base, tmp_path)

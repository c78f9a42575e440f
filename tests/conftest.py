"""What all tests share: one seed for hypothesis, one thread per test, and the switch that rewrites expected outputs."""

import os

import pytest
from hypothesis import settings

settings.register_profile("archsim", derandomize=True, deadline=None)
settings.load_profile("archsim")


os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite expected outputs; review the diff")

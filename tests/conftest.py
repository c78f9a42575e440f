"""What all tests share: one seed for hypothesis, one thread per test, and the switch that rewrites expected outputs."""

import os
from collections import Counter

import pytest
from hypothesis import settings

settings.register_profile("archsim", derandomize=True, deadline=None)
settings.load_profile("archsim")


os.environ.setdefault("OMP_NUM_THREADS", "1")


QUICK_SHARE = 3
"""Of the seeds of a test marked `many_seeds`, one in this many runs by default; the others run with `-m slow`."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark most seeds of `many_seeds` tests slow, before pytest deselects what is slow."""
    counts: Counter[str] = Counter()
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        if "seed" in params and item.get_closest_marker("many_seeds"):
            others = {name: value for name, value in params.items() if name != "seed"}
            function = f"{item.nodeid.split('[')[0]} {others}"
            if counts[function] % QUICK_SHARE:
                item.add_marker(pytest.mark.slow)
            counts[function] += 1


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite expected outputs; review the diff")

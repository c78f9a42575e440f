"""Every example runs, and prints what is written beside it (`--update-golden` rewrites that)."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_example_prints_what_is_written_beside_it(script, request):
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = script.with_suffix(".out")
    if request.config.getoption("--update-golden"):
        expected.write_text(done.stdout)
    assert done.stdout == expected.read_text()

"""Decorators of compiled functions, in one place; whoever imports this module imports numba.

With NUMBA_DISABLE_JIT=1 the same functions run as plain Python. Compiled functions make no arrays and keep none, so
they do without numba's reference counts, which would take most of the time.
"""

from typing import Any

from numba import njit

_options: dict[str, Any] = {"cache": True, "_nrt": False}

compiled = njit(**_options)
"""Compiles a function at its first call; the machine code is kept beside the source for later runs."""

inlined = njit(forceinline=True, **_options)
"""Part of a compiled function: its machine code is put where it is called, as passing many arrays costs more than it
does. Inlining by LLVM takes a third of the time that numba's own (`inline="always"`) takes to compile."""

"""Who may import whom: the rooms of the house, read from the source with `ast`."""

from __future__ import annotations

import ast
from functools import lru_cache
from pathlib import Path

import pytest

import archsim

ROOT = Path(archsim.__file__).parent
GROUND = {"errors", "units", "shipped", "version", "yamlfile", "jit"}
"""Modules that every room may import."""
MAY_IMPORT = {
    "hardware": set(),
    "workload": set(),
    "activity": set(),
    "eventlog": {"hardware"},
    "result": {"hardware", "eventlog"},
    "analog": {"hardware"},
    "mapping": {"hardware", "workload"},
    "components": {"hardware", "eventlog"},
    "inference": {"workload", "analog", "mapping", "activity"},
    "engine": {"components", "mapping", "activity", "result"},
    "training": {"workload", "analog", "inference"},
    "analysis": {"result", "engine", "inference"},
    "report": {"analysis", "engine"},
    "sweeps": {"analysis", "engine", "report"},
    "validation": {"analysis", "engine"},
}
"""Arrows of the house; a room may also import what the rooms it imports may import."""
TOP = {"api", "cli", "__init__", "__main__"}
"""May import everything, and no room imports them."""
HEAVY = {"analog": "simpy", "components": "torch", "engine": "torch", "hardware": "torch", "mapping": "torch"}
"""What a room never imports."""


def room(path: Path) -> str:
    """Room of a source file."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@lru_cache
def files() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


@lru_cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path) -> set[str]:
    """Dotted names of the modules that a file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms_of(path: Path) -> set[str]:
    """Rooms that a file imports from, without its own and the ground."""
    parts = [name.split(".") for name in imported(path) if name.startswith("archsim.")]
    found = {part[1] for part in parts} - {"__version__"}
    return {name if _is_module(name) else "__init__" for name in found} - GROUND - {room(path)}


def _is_module(name: str) -> bool:
    return (ROOT / name).is_dir() or (ROOT / f"{name}.py").is_file()


def reach(name: str) -> set[str]:
    """Rooms below a room."""
    return MAY_IMPORT[name].union(*(reach(below) for below in MAY_IMPORT[name]))


def test_every_file_belongs_to_a_room():
    assert [str(path) for path in files() if room(path) not in set(MAY_IMPORT) | GROUND | TOP] == []


def test_no_arrow_runs_up():
    allowed = {name: reach(name) for name in MAY_IMPORT} | {name: set() for name in GROUND}
    inner = [path for path in files() if room(path) not in TOP]
    arrows = {(str(path.relative_to(ROOT)), to) for path in inner for to in rooms_of(path) - allowed[room(path)]}
    assert arrows == set()


def test_the_rooms_form_no_cycle():
    arrows = {name: set().union(*(rooms_of(path) for path in files() if room(path) == name)) for name in MAY_IMPORT}
    while free := {name for name, to in arrows.items() if not to & set(arrows)}:
        arrows = {name: to for name, to in arrows.items() if name not in free}
    assert arrows == {}


@pytest.mark.parametrize(("name", "library"), sorted(HEAVY.items()))
def test_a_room_never_imports_its_forbidden_library(name, library):
    mine = [path for path in files() if room(path) == name]
    assert [str(path) for path in mine if library in {found.split(".")[0] for found in imported(path)}] == []


def test_only_the_command_line_prints():
    def prints(path: Path) -> bool:
        calls = [node.func for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
        return any(isinstance(call, ast.Name) and call.id == "print" for call in calls)

    assert [str(path) for path in files() if room(path) != "cli" and prints(path)] == []

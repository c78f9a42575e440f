"""Finds the hardware files, workloads and sweeps that come with archsim, and the user's own by path.

In a checkout they lie at the top level, in an installed wheel inside the package.
"""

from __future__ import annotations

from pathlib import Path

from archsim.errors import ArchsimError

_PACKAGE = Path(__file__).resolve().parent


def shipped_folder(name: str) -> Path:
    """Folder of shipped files: `hwconfigs`, `workloads` or `sweepconfigs`."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def shipped_names(folder: str, suffix: str) -> list[str]:
    """Names (without suffix) of the shipped files of one kind, sorted."""
    return sorted(path.name[: -len(suffix)] for path in shipped_folder(folder).glob(f"*{suffix}"))


def find_file(name_or_path: str, folder: str, suffix: str, error: type[ArchsimError]) -> Path:
    """Resolve what a user typed: an existing path, else the name of a shipped file.

    Raises:
        error: Nothing of that name exists; the message lists the shipped names.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    plain = path.name == name_or_path and not name_or_path.startswith(".")
    if plain:
        for candidate in (shipped_folder(folder) / name_or_path, shipped_folder(folder) / f"{name_or_path}{suffix}"):
            if candidate.is_file():
                return candidate
    kind = "a folder" if path.is_dir() else "no such file"
    names = ", ".join(shipped_names(folder, suffix))
    raise error(f"{name_or_path}: {kind}, and no shipped name; shipped are {names}")

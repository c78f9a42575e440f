"""The resolved configuration that a result carries, as plain data: every key of the chip, every cost with its source.

What is read here may come from a folder of somebody else's, or from another kind of chip: a key that is not
there is None, never an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from archsim.errors import ConfigError
from archsim.result import Result


def configuration(result: Result) -> Mapping[str, Any]:
    """Sections `hardware`, `cost_library` and `workload` of a result's config.yaml.

    Raises:
        ConfigError: It is not YAML, or no mapping.
    """
    return _parsed(result.config)


def setting(result: Result, path: str) -> Any:
    """The value at a dotted path such as `hardware.chip.clock_mhz`; None where there is no such key."""
    found: Any = configuration(result)
    for key in path.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


@lru_cache(maxsize=2)
def _parsed(text: str) -> Mapping[str, Any]:
    from ruamel.yaml import YAML, YAMLError  # a tenth of a second, and not every result is looked at

    try:
        found = YAML(typ="safe", pure=True).load(text)
    except YAMLError as err:
        raise ConfigError(f"config.yaml of the result: not valid YAML ({err}). Run the simulation again.") from err
    if not isinstance(found, Mapping):
        raise ConfigError("config.yaml of the result: holds no keys. Run the simulation again.")
    return found

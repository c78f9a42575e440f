"""Numbers and names as people read them. Names come from files, so they are data, never markup."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

DASH = "–"
"""Stands where a value does not apply; never a made-up number."""

_UNIT = re.compile(r"(?<=\d) (?=(?:%|[pnum]?s|[pnum]?J)(?!\w))")

_ENERGY_UNITS = ((1e12, "J"), (1e9, "mJ"), (1e6, "uJ"), (1e3, "nJ"), (1.0, "pJ"))
_TIME_UNITS = ((1e12, "s"), (1e9, "ms"), (1e6, "us"), (1e3, "ns"), (1.0, "ps"))
_BIT_UNITS = ((1e9, "Gbit"), (1e6, "Mbit"), (1e3, "kbit"), (1.0, "bit"))
_AREA_UNITS = ((1e6, "mm2"), (1.0, "um2"))

_KIND_LABELS = {
    "accumulator": "accumulators",
    "adc": "ADCs",
    "crossbar": "crossbars",
    "dram": "DRAM",
    "fetch": "PE fetch",
    "global_buffer": "global buffer",
    "htree": "H-trees",
    "index_table": "index tables",
    "input": "input port",
    "link": "NoC links",
    "mac": "MAC units",
    "mac_weights": "weights of MAC units",
    "mux": "column muxes",
    "neuron": "neuron units",
    "output": "output port",
    "pe": "whole PEs",
    "pe_array": "PE array",
    "pooling": "pooling units",
    "port": "tile ports",
    "product_unit": "product units",
    "router": "NoC routers",
    "row_counter": "row counters",
    "row_driver": "row drivers",
    "scratchpad": "scratchpads",
    "shift_add": "shift-and-add",
    "tile_buffer": "tile buffers",
    "v_mem": "membrane memories",
}


@dataclass(frozen=True)
class Scale:
    """One unit for a whole column, so that its numbers can be compared by eye."""

    factor: float
    unit: str
    decimals: int

    def text(self, value: float | None) -> str:
        """The number without its unit; `<0.01` for what would round to nothing."""
        if is_missing(value):
            return DASH
        number = float(value or 0.0) / self.factor
        if number == 0:
            return "0"
        if abs(number) < 0.5 * 10.0**-self.decimals:
            return f"<{10.0**-self.decimals:.{self.decimals}f}" if number > 0 else f"{number:.1g}"
        return f"{number:,.{self.decimals}f}"


def energy_scale(values_pj: Sequence[float]) -> Scale:
    """Unit for a column of energies."""
    return _scale(values_pj, _ENERGY_UNITS)


def time_scale(values_ps: Sequence[float]) -> Scale:
    """Unit for a column of times."""
    return _scale(values_ps, _TIME_UNITS)


def bit_scale(values: Sequence[float]) -> Scale:
    """Unit for a column of bits."""
    return _scale(values, _BIT_UNITS)


def area_scale(values_um2: Sequence[float]) -> Scale:
    """Unit for a column of areas."""
    return _scale(values_um2, _AREA_UNITS)


def _scale(values: Sequence[float], units: tuple[tuple[float, str], ...]) -> Scale:
    largest = max((abs(value) for value in values if not is_missing(value)), default=0.0)
    factor, unit = next((step for step in units if largest >= step[0]), units[-1])
    if factor == 1.0 and all(is_missing(value) or float(value).is_integer() for value in values):
        return Scale(factor, unit, 0)
    digits = math.floor(math.log10(largest / factor)) if largest > 0 else 0
    return Scale(factor, unit, min(max(0, 3 - max(digits, 0)), 3))


def is_missing(value: object) -> bool:
    """Whether a cell holds no value: None, or NaN as tables read from CSV have it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction as percent; what is not quite none or all is not written as 0 or 100 %."""
    if is_missing(fraction):
        return DASH
    value = 100.0 * float(fraction or 0.0)
    smallest = 10.0**-digits
    if 0 < value < smallest / 2:
        return f"<{smallest:.{digits}f} %"
    if 100 - smallest / 2 <= value < 100:
        return f">{100 - smallest:.{digits}f} %"
    return f"{value:.{digits}f} %" if value not in (0.0, 100.0) else f"{value:.0f} %"


def points(fraction: float | None, digits: int = 1) -> str:
    """A difference of fractions in percentage points."""
    return DASH if is_missing(fraction) else f"{100.0 * float(fraction or 0.0):.{digits}f} points"


def share(part: float, whole: float, digits: int = 1) -> str:
    """`part` of `whole` as percent; a dash where there is no whole."""
    return percent(part / whole, digits) if whole else DASH


def kind_label(kind: object) -> str:
    """Kind of component in words; a kind that is not known loses its underscores only."""
    return _KIND_LABELS.get(str(kind), plain(str(kind)).replace("_", " "))


def plain(name: object) -> str:
    """A name with control and direction characters made visible, so it cannot rearrange what is around it."""
    return "".join(char if char.isprintable() else "�" for char in str(name))


def shorten(name: object, limit: int = 40) -> str:
    """A plain name of at most `limit` characters, cut in the middle, where names differ least."""
    text = plain(name)
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


def layer_label(name: object) -> str:
    """Name of a layer; what belongs to none has an empty one."""
    return shorten(name) if str(name) else "no layer"


def keep_units(text: str) -> str:
    """Bind numbers to their units, so that no line of prose ends between them."""
    return _UNIT.sub("\N{NO-BREAK SPACE}", text)

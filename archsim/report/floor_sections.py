"""Sections of the report on the chip's floor: what sits where, and how busy the links between are."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from archsim.analysis.critical_path import kinds_of
from archsim.report import charts, drawing
from archsim.report.charts import Bar
from archsim.report.drawing import Shape
from archsim.report.page import Chart, Part, Picture, Section, Table, Text
from archsim.report.text import area_scale, bit_scale, percent, share, shorten, time_scale
from archsim.result import Result
from archsim.units import format_number

if TYPE_CHECKING:
    import pandas as pd

_MESH_LINK = re.compile(r"^noc\.router(\d+)\.(east|west|south|north|eject|inject)$")
_TILE = re.compile(r"^tile(\d+)\.")
_STEPS = {"east": (1, 0), "west": (-1, 0), "south": (0, 1), "north": (0, -1)}
_N_LINKS = 12
_WIDEST = 2.5
"""Width of a cell over its height, at most."""
_WIDE = 6
"""Columns of a mesh from which on its tiles are too narrow for names on a phone; only the first of a layer has one."""


def tiles(result: Result) -> Section | None:
    """The tiles at their places on the NoC, filled as far as their cells are; None where there are no tiles."""
    frame = result.tiles
    if frame is None or frame.empty:
        return None
    question = "What sits where, and how full is it?"
    frame = frame.assign(layers=frame["layers"].fillna("").astype(str)).join(_sums(result), on="tile")
    frame[["works", "area_um2"]] = frame[["works", "area_um2"]].fillna(0.0)
    # tiles of digital units have no cells, and are drawn full
    frame["fill"] = frame["cell_utilisation"].astype(float).fillna(1.0).where(frame["layers"] != "", 0.0)
    used = frame[frame["layers"] != ""]
    crossbars = int(frame["n_crossbars"].sum())
    fill = float((frame["cell_utilisation"].fillna(0.0) * frame["n_crossbars"]).sum()) / max(crossbars, 1)
    text = (
        f"{len(used)} of {len(frame)} tiles hold layers; {percent(fill)} of the cells of the {format_number(crossbars)}"
        f" crossbars in use hold a weight. Every box is a tile at its place on the NoC, filled from below as far as "
        "the cells of its crossbars in use are; neighbouring layers have different colours."
    )
    cell = _Grid(int(frame["x"].max()) + 1, int(frame["y"].max()) + 1)
    shapes: list[Shape] = []
    order = {str(name): index for index, name in enumerate(result.layers["layer"])}
    named: set[str] = set()
    for row in frame.to_dict("records"):
        shapes += _tile(row, cell, order, named)
    picture = Picture("Tiles and their fill", (), cell.height, tuple(shapes), _tile_table(used), cell.most)
    return Section("tiles", question, (Text(text), picture))


class _Grid:
    """Where the cells of a grid are: percent across, pixels down."""

    def __init__(self, n_columns: int, n_rows: int) -> None:
        self.n_columns = n_columns
        self.wide = 100.0 / n_columns
        self.tall = float(max(16, min(64, 560 // n_rows)))
        self.height = round(self.tall * n_rows)
        self.most = round(_WIDEST * self.tall * n_columns)

    def corner(self, x: int, y: int) -> tuple[float, float]:
        return x * self.wide, y * self.tall

    def middle(self, x: int, y: int) -> tuple[float, float]:
        return (x + 0.5) * self.wide, (y + 0.5) * self.tall


def _tile(row: Mapping[str, Any], cell: _Grid, order: Mapping[str, int], named: set[str]) -> list[Shape]:
    left, top = cell.corner(row["x"], row["y"])
    names = row["layers"].split(" + ") if row["layers"] else []
    wide, tall = cell.wide * 0.9, cell.tall * 0.9
    fill = float(row["fill"])
    what = shorten(row["layers"], 60) if names else "unused"
    tip = (
        f"tile{row['tile']}: {what}; {row['n_pes']} PEs, {row['n_crossbars']} crossbars, cells {percent(fill)} full; "
        f"its busiest part works {percent(row['works'])} of the run"
    )
    shapes: list[Shape] = [drawing.box(left, top, wide, tall, "c-none", tip)]
    if fill > 0:
        colour = ("c4", "c1")[order.get(names[0], 0) % 2]
        shapes.append(drawing.box(left, top + tall * (1 - fill), wide, tall * fill, colour, tip))
    if names and (cell.n_columns < _WIDE or names[0] not in named):
        named.add(names[0])
        text = shorten(names[0], 8) + (" +" if len(names) > 1 else "")
        at = left + wide * 0.04, top + min(tall - 4, 15)
        shapes.append(drawing.label(*at, text, fine=cell.n_columns >= _WIDE))
    return shapes


def _sums(result: Result) -> pd.DataFrame:
    """Area of every tile, and the share of the run in which its busiest part works, by its number."""
    number = result.components["component"].astype(str).str.extract(_TILE, expand=False)
    inside = result.components[number.notna()].groupby(number.dropna().astype(int))
    return inside.agg(works=("utilisation", "max"), area_um2=("area_um2", "sum"))


def _tile_table(used: pd.DataFrame) -> Table:
    groups = used.groupby("layers", sort=False)
    area = area_scale([float(mine["area_um2"].sum()) for _, mine in groups])
    rows = []
    for names, mine in groups:
        crossbars = int(mine["n_crossbars"].sum())
        full = float((mine["cell_utilisation"].fillna(0.0) * mine["n_crossbars"]).sum()) / max(crossbars, 1)
        rows.append(
            (
                shorten(names, 60),
                *(format_number(value) for value in (len(mine), int(mine["n_pes"].sum()), crossbars)),
                percent(full) if crossbars else percent(None),
                percent(float(mine["works"].max())),
                area.text(float(mine["area_um2"].sum())),
            )
        )
    head = ("layers of a tile", "tiles", "PEs", "crossbars", "cells in use", "busiest part works")
    caption = "Tiles, PEs, crossbars, cells and area of every layer"
    return Table(caption, (*head, f"area of its tiles [{area.unit}]"), tuple(rows))


def noc(result: Result) -> Section:
    """How busy the links of the NoC are: on a mesh at their places, else the busiest as bars."""
    question = "Where is the NoC busy?"
    kinds = kinds_of(result)
    links = result.components[[kinds[str(name)] == "link" for name in result.components["component"]]]
    links = links[links["n_actions"] > 0]
    if links.empty:
        return Section("noc", question, (Text("Nothing passes a link of a NoC in this run."),))
    top = links.loc[links["utilisation"].idxmax()]
    text = (
        f"The busiest link is {shorten(top['component'])}: it carries flits {percent(top['utilisation'])} of the run "
        f"and is blocked {share(top['blocked_ps'], _run_ps(top))} of it. {_mean_words(links)}"
    )
    parts: list[Part] = [Text(text)]
    table = _link_table(result, links)
    places = _places(result)
    found = [(_MESH_LINK.match(str(name)), row) for name, row in zip(links["component"], links.index, strict=True)]
    if places and all(match is not None and int(match.group(1)) in places for match, _ in found):
        parts += [Text(_MESH_TEXT, "soft"), _mesh(result, links, places, table)]
    else:
        bars = tuple(
            Bar(
                shorten(row["component"]),
                f"{percent(row['utilisation'])} busy",
                charts.stacked([("busy", row["busy_ps"])], lambda _: "c5", _run_ps(row), lambda *_: ""),
            )
            for row in _busiest(links).to_dict("records")
        )
        parts.append(Chart(question, (("carries flits", "c5"),), bars, table))
    return Section("noc", question, tuple(parts))


_MESH_TEXT = (
    "Squares are nodes, lines their links, one line for each direction: the stronger, the busier, as the square "
    "root of the share of the busiest. The mark inside a node is its injection (left) and ejection port (right)."
)


def _run_ps(row: Mapping[str, Any]) -> float:
    return float(sum(row[f"{state}_ps"] for state in ("busy", "blocked", "starved", "idle")))


def _mean_words(links: pd.DataFrame) -> str:
    mean = percent(float(links["utilisation"].mean()))
    return f"The {format_number(len(links))} links in use carry flits {mean} of it on average."


def _busiest(links: pd.DataFrame) -> pd.DataFrame:
    return links.sort_values("utilisation", ascending=False, kind="stable").head(_N_LINKS)


def _places(result: Result) -> dict[int, tuple[int, int]]:
    """Node -> column and row of every router of a mesh: those of tiles, and what is in line with them."""
    if result.tiles is None or result.tiles.empty:
        return {}
    below = result.tiles[result.tiles["y"] > 0]
    last = int(result.tiles["node"].max())
    first = below.iloc[0] if len(below) else None
    width = last + 1 if first is None else (int(first["node"]) - int(first["x"])) // int(first["y"])
    routers = (re.fullmatch(r"noc\.router(\d+)", str(name)) for name in result.components["component"])
    nodes = {int(match.group(1)) for match in routers if match} | set(map(int, result.tiles["node"]))
    return {node: (node % width, node // width) for node in nodes}


def _mesh(result: Result, links: pd.DataFrame, places: dict[int, tuple[int, int]], table: Table) -> Picture:
    cell = _Grid(max(x for x, _ in places.values()) + 1, max(y for _, y in places.values()) + 1)
    most = float(links["utilisation"].max()) or 1.0
    tile_at = dict(zip(result.tiles["node"], result.tiles["tile"], strict=True)) if result.tiles is not None else {}
    lines: list[Shape] = []
    ports: list[Shape] = []
    nodes: list[Shape] = []
    for node, (x, y) in places.items():
        left, top = cell.corner(x, y)
        tip = f"node {node}: " + (f"tile{tile_at[node]}" if node in tile_at else "no tile")
        nodes.append(
            drawing.box(
                left + cell.wide * 0.25, top + cell.tall * 0.25, cell.wide * 0.5, cell.tall * 0.5, "c-none", tip
            )
        )
    for row in links.to_dict("records"):
        match = _MESH_LINK.match(str(row["component"]))
        assert match is not None, "only links of a mesh are drawn"
        node, port = int(match.group(1)), match.group(2)
        x, y = places[node]
        busy = float(row["utilisation"])
        tip = f"{shorten(row['component'])}: busy {percent(busy)}, {format_number(int(row['n_actions']))} services"
        strength = 0.08 + 0.92 * math.sqrt(busy / most)
        if port in _STEPS:
            lines.append(_line(cell, x, y, port, strength, tip))
        else:
            left, top = cell.corner(x, y)
            across = left + cell.wide * (0.27 if port == "inject" else 0.52)
            ports.append(
                drawing.box(across, top + cell.tall * 0.3, cell.wide * 0.21, cell.tall * 0.4, "c5", tip, strength)
            )
    return Picture(
        "Load of every link",
        (("busy, relative to the busiest", "c5"),),
        cell.height,
        (*nodes, *lines, *ports),
        table,
        cell.most,
    )


def _line(cell: _Grid, x: int, y: int, port: str, strength: float, tip: str) -> Shape:
    """A link between two nodes; those of opposite directions lie side by side."""
    step_x, step_y = _STEPS[port]
    from_x, from_y = cell.middle(x, y)
    aside = 0.12 if port in ("east", "south") else -0.12
    move_x, move_y = (0.0, aside * cell.tall) if step_x else (aside * cell.wide, 0.0)
    start = (from_x + step_x * cell.wide * 0.25 + move_x, from_y + step_y * cell.tall * 0.25 + move_y)
    end = (from_x + step_x * cell.wide * 0.75 + move_x, from_y + step_y * cell.tall * 0.75 + move_y)
    return drawing.stroke(start, end, "c5", 4, strength, tip)


def _link_table(result: Result, links: pd.DataFrame) -> Table:
    busiest = _busiest(links)
    bits = bit_scale(list(busiest["bits_out"]))
    waits = result.queues.set_index("component") if result.queues is not None else None
    scale = time_scale([] if waits is None else list(waits["wait_p95_ps"]))
    rows = []
    for row in busiest.to_dict("records"):
        name = row["component"]
        known = waits is not None and name in waits.index
        rows.append(
            (
                shorten(name),
                percent(row["utilisation"]),
                share(row["blocked_ps"], _run_ps(row)),
                format_number(int(row["n_actions"])),
                bits.text(row["bits_out"]),
                scale.text(float(waits.loc[name, "wait_mean_ps"]) if known and waits is not None else None),
                scale.text(float(waits.loc[name, "wait_p95_ps"]) if known and waits is not None else None),
            )
        )
    head = ("link", "busy", "blocked", "services", f"bits [{bits.unit}]")
    return Table(
        f"The {len(rows)} busiest links",
        (*head, f"mean wait [{scale.unit}]", f"95 % wait [{scale.unit}]"),
        tuple(rows),
    )

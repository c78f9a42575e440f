"""What the views of the report show: against the log, closed forms and each other; the pictures as data."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from tiny_result import tiny_result

import archsim
from archsim.analysis import bounds, checks, costs, profiles, timeline
from archsim.analysis.configuration import setting
from archsim.errors import ConfigError
from archsim.report import (
    activity_sections,
    balance_sections,
    floor_sections,
    movement_section,
    roofline_section,
    timeline_section,
    trust_sections,
)
from archsim.report.html import render_html
from archsim.report.page import Section
from archsim.report.run_report import report_page
from archsim.result import Result


def simulate(chip: str = "demo", samples: int = 1, **changes: object) -> Result:
    hardware = archsim.load_hardware(chip, {key.replace("__", "."): value for key, value in changes.items()})
    workload = archsim.load_workload("digits-cnn", "poisson:0.2", timesteps=3, samples=samples)
    return archsim.simulate(hardware, workload, samples=samples)


@pytest.fixture(scope="module", params=["demo", "spikesim-rram-64", "two samples on a tree"])
def run(request) -> Result:
    if request.param.startswith("two"):
        return simulate(samples=2, chip__noc__topology="tree", chip__dram__kind="lpddr4", chip__dram__input="load")
    return simulate(request.param)


@pytest.fixture(scope="module")
def demo() -> Result:
    return simulate()


def words(section: Section | None) -> str:
    assert section is not None
    return " ".join(part.text for part in section.parts if part.kind == "text")


def picture(section: Section | None):
    assert section is not None
    return next(part for part in section.parts if part.kind == "picture")


def tips(section: Section | None) -> list[str]:
    return [shape.title for shape in picture(section).shapes if getattr(shape, "title", "")]


# Timesteps


def test_times_and_energies_of_timesteps_add_up_to_those_of_the_run(run):
    frame = profiles.timestep_profile(run)
    assert frame["energy_pj"].sum() == pytest.approx(run.summary["energy_dynamic_pj"], rel=1e-12)
    assert frame["done_ps"].sum() == frame["last_leave_ps"].iloc[-1] - frame["first_start_ps"].iloc[0]
    assert frame["spikes"].sum() == run.layers["spikes_out"].sum()
    if run.summary["n_samples"] == 1:
        assert frame["done_ps"].sum() == run.summary["latency_ps"]


def test_one_timestep_has_no_profile():
    assert activity_sections.timesteps(tiny_result(n_timesteps=1)) is None


def test_timesteps_are_columns_as_high_as_their_values():
    shapes = picture(activity_sections.timesteps(tiny_result())).shapes
    boxes = [shape for shape in shapes if shape.kind == "box"]
    assert [shape.title for shape in boxes] == [
        "timestep 0, time since the one before was done: 1 ns",
        "timestep 0, dynamic energy: 4.2 pJ",
    ]


# Rows


def test_rows_driven_are_those_of_the_log(run):
    found = profiles.active_rows(run)
    log = run.log
    for name, counts in found.items():
        mine = log["layer"] == log.layers.index(name)
        driven = int(log["count"][mine & log.actions_of("drive")].sum())
        assert counts @ np.arange(len(counts)) == driven
        assert counts.sum() == run.layers.set_index("layer").loc[name, "crossbar_reads"]


def test_rows_of_a_service_are_spread_evenly_over_its_reads():
    assert profiles._spread(np.array([7, 0]), np.array([3, 2])).tolist() == [2, 0, 2, 1]


def test_silence_that_is_read_is_said_to_be(demo):
    assert "had no active row and were skipped" in words(activity_sections.sparsity(demo))
    text = words(activity_sections.sparsity(simulate(tile__pe__crossbar__zero_skip=False)))
    assert "No read was skipped: a crossbar without an active row is read and converted like any other" in text


def test_chip_without_row_drivers_has_no_histogram():
    assert words(activity_sections.sparsity(tiny_result())) == "No rows of crossbars were driven in this run."


# Ceilings


def test_no_layer_is_above_its_ceilings(run):
    points, found = bounds.roofline(run), bounds.layer_bounds(run)
    near = roofline_section._ceilings(points, found)
    assert len(points) == 4
    assert near["near"].between(0, 1 + 1e-12).all()
    window = (points["synaptic_ops"] / points["ops_per_s"]).sum()
    layers = run.layers.iloc[1:]
    assert window == pytest.approx((layers["last_leave_ps"] - layers["first_start_ps"]).sum() * 1e-12, rel=1e-12)


def test_bounds_are_busy_times_of_components(run):
    found, log = bounds.layer_bounds(run), run.log
    for row in found[found["kind"] != bounds.PE].to_dict("records"):
        mine = log.rows_of(row["component"]) & (log["layer"] == log.layers.index(row["layer"]))
        assert row["busy_ps"] == log["service_ps"][mine].sum()


def test_bytes_of_layers_are_the_bits_of_the_movement_table(run):
    assert sum(bounds.moved_bytes(run).values()) * 8 == run.movement["bits"].sum()


def test_roofline_needs_operations():
    assert roofline_section.roofline(tiny_result()) is None


def test_ceilings_are_listed_for_what_papers_draw(run):
    table = picture(roofline_section.roofline(run)).table
    assert list(table.head[6:]) == ["ADCs", "crossbars", "NoC links"]
    busy = bounds.layer_bounds(run).set_index(["layer", "kind"])["busy_ps"]
    for row in table.rows:
        ops = run.layers.set_index("layer").loc[row[0], "synaptic_ops"]
        if (row[0], "adc") in busy:
            assert float(row[6].replace(",", "")) == pytest.approx(ops / busy[row[0], "adc"] * 1e3, rel=1e-3)
        else:
            assert row[6] == "–"


def test_every_layer_is_a_dot_below_its_marks(demo):
    shapes = picture(roofline_section.roofline(demo)).shapes
    dots = [shape for shape in shapes if shape.kind == "dot"]
    assert [dot.title.split(":")[0] for dot in dots] == ["conv1", "conv2", "conv3", "fc4"]
    for dot in dots:
        name = dot.title.split(":")[0]
        marks = [shape for shape in shapes if shape.kind == "stroke" and shape.title.startswith(f"{name}, ceiling")]
        assert marks
        assert all(float(mark.y1) <= float(dot.y) + 0.01 for mark in marks)


# Balance and area


def test_copies_for_twice_the_pace_divide_the_work(demo):
    frame = bounds.stage_times(demo).set_index("layer")
    half = frame["busy_ps"].max() / 2
    assert (frame["busy_ps"] / frame["copies_for_twice"] <= half).all()
    fewer = frame[frame["copies_for_twice"] > 1]
    assert (fewer["busy_ps"] / (fewer["copies_for_twice"] - 1) > half).all()
    assert (frame["pes_for_twice"] == frame["n_pes"] * frame["copies_for_twice"]).all()
    assert f"conv1: {frame.loc['conv1', 'copies_for_twice']}" in words(balance_sections.balance(demo))


def test_layers_that_share_a_part_have_no_balance():
    assert words(balance_sections.balance(tiny_result())) == (
        "Layers take turns on tile0.pe0, so none of them sets the pace of the others."
    )


def test_area_is_used_where_something_acts_or_bits_pass(demo):
    used = dict(zip(demo.components["component"], bounds.is_used(demo), strict=True))
    assert used["noc.router0"]
    assert used["global_buffer"]
    assert not used["tile4.pe3.adc"]
    section = balance_sections.idle_area(demo)
    foot = section.parts[-1].table.foot
    area, *parts = (float(cell.replace(",", "")) for cell in foot[1:6])
    assert sum(parts) == pytest.approx(area, abs=3)


def test_chip_without_area_says_so():
    result = tiny_result()
    result.components["area_um2"] = 0.0
    assert "no area" in words(balance_sections.idle_area(result))


# The floor


def test_tiles_are_drawn_where_they_are(demo):
    section = floor_sections.tiles(demo)
    found = picture(section)
    assert len({tip.split(":")[0] for tip in tips(section)}) == len(demo.tiles)
    labels = [shape.text for shape in found.shapes if shape.kind == "label"]
    assert labels == demo.tiles["layers"].tolist()
    assert floor_sections.tiles(tiny_result()) is None


def test_area_of_tiles_is_that_of_their_parts(demo):
    table = picture(floor_sections.tiles(demo)).table
    inside = demo.components["component"].str.startswith("tile")
    areas = [float(row[-1].replace(",", "")) for row in table.rows]
    assert sum(areas) == pytest.approx(demo.components["area_um2"][inside].sum(), rel=1e-3)


def test_links_of_a_mesh_are_drawn_and_those_of_a_tree_listed(demo):
    section = floor_sections.noc(demo)
    links = demo.components[(demo.components["kind"] == "link") & (demo.components["n_actions"] > 0)]
    drawn = [tip.split(":")[0] for tip in tips(section) if tip.startswith("noc.")]
    assert sorted(drawn) == sorted(links["component"])
    tree = floor_sections.noc(simulate(chip__noc__topology="tree"))
    assert [part.kind for part in tree.parts] == ["text", "chart"]


def test_run_without_a_noc_says_so():
    assert words(floor_sections.noc(tiny_result())) == "Nothing passes a link of a NoC in this run."


# Movement


def test_ribbons_are_as_wide_as_the_bits(demo):
    shapes = picture(movement_section.movement(demo)).shapes
    ribbons = [shape for shape in shapes if shape.kind == "ribbon"]
    widths = []
    for ribbon in ribbons:
        top, bottom = re.match(r"M0 ([\d.]+)C.* 0 ([\d.]+)Z$", ribbon.path).groups()
        widths.append(float(bottom) - float(top))
    assert sum(widths) == pytest.approx(movement_section._FLOW_PX, abs=0.02 * len(widths))
    shares = demo.movement.groupby(["level", "class"])["bits"].sum() / demo.movement["bits"].sum()
    assert sorted(widths) == pytest.approx(sorted(shares * movement_section._FLOW_PX), abs=0.02)


def test_run_without_movement_says_so():
    result = tiny_result()
    result.movement = result.movement.iloc[:0]
    assert words(movement_section.movement(result)) == "No bits were moved in this run."


# The window


def test_window_shows_work_and_gaps_side_by_side(run):
    chart = next(part for part in timeline_section.window(run).parts if part.kind == "chart")
    assert chart.bars
    for bar in chart.bars:
        edges = [(float(part.left), float(part.left) + float(part.width)) for part in bar.segments]
        assert all(end <= start + 0.03 for (_, end), (start, _) in pairwise(edges))
        assert edges[-1][1] <= 100.03


def test_services_of_a_window_are_those_of_the_log(run):
    shown = timeline.middle_window(run)
    log = run.log
    for name in timeline.acting(run, shown, 6):
        found = timeline.services(log, name, shown)
        inside = (
            log.rows_of(name) & (log["start_ps"] < shown[1]) & (log["leave_ps"] > shown[0]) & (log["service_ps"] > 0)
        )
        assert len(found) == inside.sum() > 0
        assert found.service_ps.sum() == log["service_ps"][inside].sum()


@pytest.mark.parametrize(("text", "window"), [("10us:12.5us", (10_000_000, 12_500_000)), ("0s:3ns", (0, 3000))])
def test_windows_are_spans_of_time(text, window):
    assert timeline.parse_window(text) == window


@pytest.mark.parametrize("text", ["", "10us", "10:20", "20us:10us", "1us:1us", "a:b", "1us:2us:3us", "-1us:2us"])
def test_what_is_no_window_is_refused(text):
    with pytest.raises(ConfigError) as caught:
        timeline.parse_window(text)
    assert str(caught.value) == (
        f"window {text!r} is not a span of time; write two times such as 10us:12.5us, the first one lower"
    )


# Trust


def test_all_checks_hold(run):
    found = checks.cross_checks(run)
    assert [check.name for check in found if not check.holds] == []
    assert len(found) == 9
    assert words(trust_sections.cross_checks(run)).startswith("All checks hold.")


@pytest.mark.parametrize(
    ("table", "column", "name"),
    [
        ("components", "energy_leakage_pj", "energy of components"),
        ("layers", "energy_pj", "energy of layers"),
        ("components", "idle_ps", "states, longest sum"),
    ],
)
def test_a_figure_that_is_off_fails_its_check(demo, table, column, name):
    broken = getattr(demo, table).copy()
    broken.loc[1, column] += 1
    result = replace(demo, **{table: broken})
    assert name in [check.name for check in checks.cross_checks(result) if not check.holds]
    assert "NOT all checks hold" in words(trust_sections.cross_checks(result))


def test_entries_in_use_carry_all_energy_and_area(run):
    frame = costs.used_entries(run)
    assert frame["energy_pj"].sum() == pytest.approx(run.summary["energy_pj"], rel=1e-12)
    assert frame["area_um2"].sum() == pytest.approx(run.summary["area_um2"], rel=1e-12)
    assert frame["entry"].is_unique
    assert frame["source"].notna().all()


@pytest.mark.parametrize("chip", ["sata-16x8", "eyeriss-16x8"])
def test_systolic_arrays_have_the_same_report(chip):
    workload = archsim.load_workload("digits-mlp", "poisson:0.2", timesteps=2)
    result = archsim.simulate(archsim.load_hardware(chip), workload)
    assert [check.name for check in checks.cross_checks(result) if not check.holds] == []
    assert costs.used_entries(result)["source"].notna().all()
    page = render_html(report_page(result))
    assert "Nothing passes a link of a NoC in this run." in page
    assert "No rows of crossbars were driven in this run." in page
    assert "Layers take turns on pe_array" in page
    assert re.search(r"\b(nan|None|inf)\b", page) is None


def test_entries_show_value_node_and_source(demo):
    section = trust_sections.provenance(demo)
    table = next(part for part in section.parts if part.kind == "table" and "library" in part.caption)
    rows = {row[0]: row for row in table.rows}
    entry = demo.origin.mapping.hardware.library.action("adc", "convert")
    assert rows["adc.convert"][1] == f"{entry.energy_pj:.4g} pJ per event at bits {entry.at['bits']:g}"
    assert rows["adc.convert"][2] == "32 nm"
    assert "does not say" in words(trust_sections.provenance(tiny_result()))


def test_settings_are_read_from_the_configuration(demo):
    assert setting(demo, "hardware.tile.pe.crossbar.rows") == demo.origin.mapping.hardware.tile.pe.crossbar.rows
    assert setting(demo, "hardware.no.such.key") is None


@pytest.mark.parametrize("config", ["a: [", "just words", ""])
def test_configuration_that_is_none_is_refused(config):
    result = tiny_result()
    result.config = config
    with pytest.raises(ConfigError, match=r"^config\.yaml of the result: "):
        setting(result, "hardware")


# The whole page


def test_page_begins_with_what_limits_the_run(demo):
    page = report_page(demo)
    assert page.verdict.startswith("One inference of digits-cnn takes ")
    said = next(section for section in page.sections if section.id == "why").parts[0]
    assert said.tone == "strong"
    assert page.verdict.endswith(said.text)


def test_written_and_loaded_run_gives_the_same_page(run, tmp_path):
    assert report_page(Result.load(run.write(tmp_path / "run"))) == report_page(run)


@pytest.mark.slow
def test_page_of_a_large_network_is_small_and_its_charts_are_complete():
    result = archsim.simulate(archsim.load_hardware("spikesim-rram-64"), archsim.load_workload("vgg16-cifar10"))
    page = report_page(result)
    assert len(render_html(page)) < 1_000_000
    assert len([tip for tip in tips(floor_sections.tiles(result)) if tip.endswith("of the run")]) >= len(result.tiles)


def test_page_of_a_run_without_optional_files_still_renders(run, tmp_path):
    folder = run.write(tmp_path / "run")
    for name in ("tiles.csv", "spikes.csv", "queues.csv", "critical_path.parquet"):
        (folder / name).unlink()
    page = render_html(report_page(Result.load(folder)))
    assert re.search(r"\b(nan|None|inf)\b", page) is None
    assert "written without critical paths" in page


def test_components_of_unknown_kinds_and_names_are_shown(demo):
    """As another architecture names them: no crossbars, no tiles, no NoC of routers."""
    names = {name: f"array.part{index}" for index, name in enumerate(demo.log.components)}
    components = demo.components.assign(component=demo.components["component"].map(names), kind="processing_element")
    log = replace(demo.log, components=list(names.values()))
    result = Result(demo.summary, components, demo.layers, demo.movement, log, demo.chips)
    result.config = "hardware:\n  kind: systolic_array\n"
    page = render_html(report_page(result))
    assert "processing element" in page
    assert re.search(r"\b(nan|None|inf)\b", page) is None
    assert pd.isna(result.layers["nf"]).all()

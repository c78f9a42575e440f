"""The cost library: entries with sources, scaling, and the libraries that are shipped."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from archsim.errors import ConfigError
from archsim.hardware.costs import CostLibrary, Entry
from archsim.hardware.reader import ACTIONS, load_hardware
from archsim.shipped import shipped_folder, shipped_names
from archsim.yamlfile import dump_model, read_model

SHIPPED = shipped_names("hwconfigs/costs", ".yaml")
CHIPS = [name for name in SHIPPED if not name.startswith(("sata-", "arithmetic-"))]
"""Libraries of crossbar chips."""


def shipped(name: str) -> CostLibrary:
    return read_model(shipped_folder("hwconfigs") / "costs" / f"{name}.yaml", CostLibrary, ConfigError)


def entries_of(costs: CostLibrary) -> list[Entry]:
    parts = costs.components.values()
    return [
        entry for part in parts for entry in (*part.actions.values(), part.area, part.leakage, part.peak_power) if entry
    ]


def library(**action: object) -> CostLibrary:
    """A library with one action, adc.convert."""
    entry = {"energy_pj": 2.0, "node_nm": 65, "kind": "assumption", "source": "a test", **action}
    costs = {"format_version": 1, "name": "tiny", "node_nm": 65, "components": {"adc": {"actions": {"convert": entry}}}}
    return CostLibrary.model_validate(costs)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_entry_has_a_source(name):
    entries = entries_of(shipped(name))
    assert len(entries) >= 4
    assert min(len(entry.source.split()) for entry in entries) >= 4


@pytest.mark.parametrize("name", CHIPS)
def test_a_shipped_library_has_exactly_the_actions_of_a_simulation(name):
    has = {component: tuple(costs.actions) for component, costs in shipped(name).components.items()}
    optional = {"index_table": ("read",), "row_counter": ("count",)}
    assert has == ACTIONS | optional | {"dram_lpddr4": ("read", "write"), "dram_hbm2": ("read", "write")}


@pytest.mark.parametrize("name", SHIPPED)
def test_an_assumption_says_why(name):
    entries = entries_of(shipped(name))
    zero = [entry for entry in entries if 0 in (getattr(entry, "energy_pj", 1), getattr(entry, "area_um2", 1))]
    assert {entry.kind for entry in zero} <= {"assumption"}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_library_reads_back_equal(name, tmp_path):
    path = tmp_path / f"{name}.yaml"
    path.write_text(dump_model(shipped(name)))
    assert read_model(path, CostLibrary, ConfigError) == shipped(name)


def test_spikesim_entries_give_the_energy_of_a_pe_cycle():
    """828.4861472 pJ: released ela_spikesim.py at commit c2627bc, 64 x 64 RRAM, k = 3."""
    costs, k = shipped("spikesim-65nm"), 3
    counts = [
        (1, "tile_buffer", "read", {}),
        (1, "fetch", "latch", {}),
        (8 * k * k, "crossbar", "read", {"rows": 64, "cols": 64}),
        (64, "adc", "convert", {"bits": 4}),
        (64, "mux", "select", {"cols_per_adc": 8}),
        (8, "shift_add", "write_temp", {}),
        (128, "shift_add", "subtract", {}),
        (1, "htree", "transfer", {}),
        (64, "neuron", "update", {"bits": 22}),
    ]
    total = sum(n * costs.energy_pj(component, action, **at) for n, component, action, at in counts)
    assert total == pytest.approx(828.4861472, rel=1e-12)


def test_the_sram_library_differs_from_the_rram_one_in_the_crossbar_only():
    rram, sram = shipped("spikesim-65nm").components, shipped("spikesim-sram-65nm").components
    assert [name for name in rram if sram[name] != rram[name]] == ["crossbar"]
    assert list(sram) == list(rram)


def test_the_sram_crossbar_does_not_have_its_area_as_its_energy():
    """SpikeSim ela:42 and ela:76 give 671.089 for both; here all 128 lines of the array swing once in eight steps."""
    costs, size = shipped("spikesim-sram-65nm"), {"rows": 64, "cols": 64}
    assert costs.area_um2("crossbar", **size) == pytest.approx(64**2 * 160 * 0.032**2, rel=1e-6) == 671.089
    line_pj = 64 * 0.35e-3 * 65 / 28 * 1.1**2
    assert costs.energy_pj("crossbar", "read", **size) == pytest.approx(128 * line_pj / 8, rel=1e-12)
    assert 2.52 / 8 < costs.energy_pj("crossbar", "read", **size) < 64 * 2.52 / 8


def test_peak_power_scales_like_any_entry():
    costs = shipped("isaac-32nm")
    assert costs.peak_power_mw("adc", bits=4) == pytest.approx(2 * 0.79 / 1.667)
    assert (costs.peak_power_mw("v_mem"), costs.peak_power_mw("no_such")) == (0.0, 0.0)


def test_converter_of_isaac_is_looked_up_by_bits():
    costs = shipped("imc-32nm")
    assert [costs.energy_pj("adc", "convert", bits=bits) for bits in (4, 6, 8, 10)] == pytest.approx(
        [0.79, 1.20, 1.667, 2.38], rel=1e-15
    )
    assert costs.area_um2("adc", bits=10) == pytest.approx(3002)


@pytest.mark.parametrize(
    ("rule", "bits", "energy_pj"),
    [("linear", 6, 3.0), ("quadratic", 6, 4.5), ("exp2", 6, 8.0), ({4: 10, 6: 15}, 6, 3.0), ("linear", 4, 2.0)],
)
def test_rules_scale_from_the_value_under_at(rule, bits, energy_pj):
    assert library(at={"bits": 4}, scale={"bits": rule}).energy_pj("adc", "convert", bits=bits) == energy_pj


def test_parameters_without_a_rule_change_nothing():
    assert library().energy_pj("adc", "convert", bits=12) == 2.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: library(at={"bits": 4}, scale={"bits": {4: 1, 6: 2}}).energy_pj("adc", "convert", bits=5),
            "cost library 'tiny': adc.convert has no value at bits 5; available are 4, 6",
        ),
        (
            lambda: library(at={"rows": 4}, scale={"rows": "linear"}).energy_pj("adc", "convert", bits=5),
            "cost library 'tiny': adc.convert scales with rows; it can scale with bits",
        ),
        (
            lambda: library(at={"bits": 4}, scale={"bits": "exp2"}).energy_pj("adc", "convert", bits=5000),
            "cost library 'tiny': adc.convert has no value at bits 5000; available are 4",
        ),
        (
            lambda: library().action("adc", "sample"),
            "cost library 'tiny' has no action adc.sample; adc has convert",
        ),
        (
            lambda: library().action("dac", "drive"),
            "cost library 'tiny' has no component dac (for action dac.drive); it has adc",
        ),
        (
            lambda: library().with_factor("adc", "area", 2),
            "cost library 'tiny' has no entry adc.area; adc has convert",
        ),
        (
            lambda: library().with_factor("adc", "convert", -1),
            "adc.convert x -1 is -2.0, which is not a valid cost",
        ),
    ],
)
def test_what_the_library_cannot_answer(call, message):
    with pytest.raises(ConfigError) as caught:
        call()
    assert str(caught.value) == message


def test_components_without_area_or_leakage_count_none():
    assert (library().area_um2("adc"), library().leakage_mw("anything")) == (0.0, 0.0)


def test_with_factor_changes_one_entry_of_a_copy():
    before = shipped("imc-32nm")
    after = before.with_factor("router", "hop", 1.1)
    assert after.energy_pj("router", "hop") == before.energy_pj("router", "hop") * 1.1
    assert after.with_factor("router", "hop", 0).energy_pj("router", "hop") == 0
    assert after.with_factor("router", "leakage", 2).leakage_mw("router") == 0.82
    assert before == shipped("imc-32nm")
    assert {**after.components, "router": None} == {**before.components, "router": None}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"source": ""}, "at least 3 characters"),
        ({"source": "    "}, "match pattern"),
        ({"kind": "guess"}, "Input should be 'measured'"),
        ({"energy_pj": -1}, "greater than or equal to 0"),
        ({"energy_pj": float("inf")}, "finite number"),
        ({"scale": {"bits": "linear"}}, "scale has bits but at has not; add the value that the number holds for"),
        (
            {"scale": {"bits": {4: 1}}, "at": {"bits": 6}},
            "the table of scale.bits lacks 6, the value under at",
        ),
    ],
)
def test_faulty_entries_are_refused(entry, message):
    with pytest.raises(ValidationError, match=message):
        library(**entry)


def test_an_entry_without_source_is_refused_at_its_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(
        "format_version: 1\nname: tiny\nnode_nm: 65\ncomponents:\n  adc:\n    actions:\n"
        "      convert: {energy_pj: 2 nJ, node_nm: 65, kind: assumption}\n"
    )
    with pytest.raises(ConfigError) as caught:
        read_model(Path("tiny.yaml"), CostLibrary, ConfigError)
    assert str(caught.value).splitlines() == [
        "tiny.yaml:7: missing key components.adc.actions.convert.source; it is required",
        "tiny.yaml:7: components.adc.actions.convert.energy_pj is '2 nJ'; it must be a number in pJ "
        "(the unit stands in the key's name); write 2000",
    ]


def test_static_power_cannot_be_counted_twice():
    costs = shipped("imc-32nm").model_dump()
    costs["components"]["adc"]["leakage"] = costs["components"]["router"]["leakage"]
    with pytest.raises(ValidationError, match="static power is counted twice: convert has static_included: true"):
        CostLibrary.model_validate(costs)


def test_only_memories_have_sizes_per_bit():
    costs = shipped("imc-32nm").model_dump()
    costs["components"]["router"]["area"]["per"] = "bit"
    with pytest.raises(ValidationError, match=r"components\.router has a size per bit; only tile_buffer, fetch"):
        CostLibrary.model_validate(costs)


@pytest.mark.parametrize("folder", [".", "costs"])
def test_a_library_beside_the_hardware_file_comes_first(tmp_path, folder):
    hardware = (shipped_folder("hwconfigs") / "demo.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(hardware)
    (tmp_path / folder).mkdir(exist_ok=True)
    mine = shipped("imc-32nm").with_factor("router", "hop", 3)
    (tmp_path / folder / "imc-32nm.yaml").write_text(dump_model(mine))
    assert load_hardware(tmp_path / "mine.yaml").library == mine

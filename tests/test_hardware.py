"""Hardware files: the shipped ones, the faults of others, area and leakage."""

from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pytest

from archsim.errors import ConfigError
from archsim.hardware.models import Hardware
from archsim.hardware.platform import Platform
from archsim.hardware.reader import hardware_schema, load_costs, load_hardware
from archsim.hardware.rollup import Part, chip_parts, pe_parts, tile_parts
from archsim.shipped import shipped_folder, shipped_names
from archsim.yamlfile import dump_model, read_model

SHIPPED = shipped_names("hwconfigs", ".yaml")
DEMO = (shipped_folder("hwconfigs") / "demo.yaml").read_text(encoding="utf-8")


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a changed demo chip into the working folder."""
    monkeypatch.chdir(tmp_path)

    def _write(*changes: tuple[str, str]) -> str:
        text = DEMO
        for old, new in changes:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        Path("my.yaml").write_text(text, encoding="utf-8")
        return "my.yaml"

    return _write


def line(text: str) -> int:
    """Line of the demo file that holds a text."""
    return DEMO[: DEMO.index(text)].count("\n") + 1


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_file_loads_with_its_library(name):
    hardware = load_hardware(name)
    assert (hardware.name, hardware.library.name) == (name, hardware.costs)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_file_names_the_schema_first(name):
    text = (shipped_folder("hwconfigs") / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=archsim.schema.json\n")


def test_the_stored_schema_is_current():
    stored = (shipped_folder("hwconfigs") / "archsim.schema.json").read_text(encoding="utf-8")
    assert json.loads(stored) == hardware_schema()


def test_every_key_of_the_schema_is_described():
    models = hardware_schema()["$defs"].values()
    keys = [(name, key) for model in models for name, key in model["properties"].items()]
    assert [name for name, key in keys if not key.get("description")] == []


@pytest.mark.parametrize("name", SHIPPED)
def test_the_resolved_file_reads_back_equal(name, tmp_path):
    hardware = load_hardware(name, {"chip.clock_mhz": 100.0})
    (tmp_path / "config.yaml").write_text(dump_model(hardware), encoding="utf-8")
    assert load_hardware(tmp_path / "config.yaml") == hardware


def test_spikesim_pe_cycle_is_26_clocks():
    """ELA: 26 clocks at 250 MHz for one output position."""
    pe = load_hardware("spikesim-rram-64").tile.pe
    fetch = pe.crossbars * pe.crossbar.rows / pe.fetch_bits_per_cycle
    conversions = pe.adc.cols_per_adc * pe.adc.cycles_per_conversion
    assert fetch + pe.crossbar.read_cycles + conversions + pe.shift_add_cycles == 26


def test_hardware_keeps_its_library_through_pickle_and_copies():
    hardware = load_hardware("demo")
    assert pickle.loads(pickle.dumps(hardware)).library == hardware.library
    assert hardware.model_copy().library is hardware.library
    assert "library" not in dump_model(hardware)


def test_hardware_without_library_says_so():
    bare = Hardware.model_validate(load_hardware("demo").model_dump())
    with pytest.raises(ConfigError, match=r"^hardware 'demo' has no cost library; use load_hardware"):
        _ = bare.library
    assert bare.with_library(load_costs(None, bare)).library.name == "imc-32nm"


def test_with_library_leaves_the_original_alone():
    hardware = load_hardware("demo")
    dearer = hardware.with_library(hardware.library.with_factor("adc", "convert", 2))
    assert dearer.library.energy_pj("adc", "convert", bits=6) == 2 * hardware.library.energy_pj(
        "adc", "convert", bits=6
    )
    assert dearer != hardware


def test_a_library_of_another_node_is_refused():
    with pytest.raises(ConfigError, match=r"node_nm of hardware 'demo' is 32; cost library 'spikesim-65nm' is for 65"):
        load_hardware("demo").with_library(load_hardware("spikesim-rram-64").library)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("      rows: 64\n", "      rows: 0\n", "tile.pe.crossbar.rows is 0; it must be at least 1"),
        ("      bits: 6 ", "      bit: 6 ", "unknown key tile.pe.adc.bit; did you mean tile.pe.adc.bits?"),
        (
            "clock_mhz: 500 ",
            "clock_mhz: 500 MHz ",
            "chip.clock_mhz is '500 MHz'; it must be a number in MHz (the unit stands in the key's name); write 500",
        ),
        (
            "      signed: differential",
            "      signed: twos_complement",
            "tile.pe.crossbar.signed is 'twos_complement'; "
            "it must be 'diff', 'differential', 'differential_arrays' or 'offset'",
        ),
        ("kind: crossbar_chip", "kind: gpu", "kind is 'gpu'; it must be 'crossbar_chip' or 'systolic_array'"),
        ("name: demo", "name: ../demo", "name is '../demo'; it must be text that matches ^[A-Za-z0-9][A-Za-z0-9._-]*$"),
        (
            "costs: imc-32nm",
            "costs: imc-7nm",
            "costs is 'imc-7nm'; there is no imc-7nm.yaml beside the hardware file; "
            "shipped are arithmetic-45nm, imc-32nm, isaac-32nm, sata-28nm, sata-training-65nm, "
            "spikesim-65nm, spikesim-sram-65nm",
        ),
        ("node_nm: 32", "node_nm: 28", "node_nm is 28; cost library 'imc-32nm' is for 32; they must be equal"),
        (
            "      read_cycles: 5 ",
            "      read_cycles: 4 ",
            "tile.pe.crossbar.read_cycles is 4 (8 ns at 500 MHz); crossbar.read of cost library 'imc-32nm' "
            "takes 10 ns; set it to at least 5 or lower chip.clock_mhz",
        ),
    ],
)
def test_faults_of_a_file_in_full(write, old, new, message):
    with pytest.raises(ConfigError) as caught:
        load_hardware(write((old, new)))
    assert str(caught.value) == f"my.yaml:{line(old)}: {message}"


def test_a_resolution_that_the_library_does_not_price_is_refused(write):
    with pytest.raises(ConfigError) as caught:
        load_hardware(write(("      bits: 6 ", "      bits: 3 ")))
    table = "has no value at bits 3; available are 4, 5, 6, 7, 8, 9, 10"
    assert str(caught.value).splitlines() == [
        f"my.yaml:{line('costs: imc')}: cost library 'imc-32nm': adc.convert {table}",
        f"my.yaml:{line('costs: imc')}: cost library 'imc-32nm': adc.area {table}",
    ]


def test_too_few_converters_name_the_section(write):
    with pytest.raises(ConfigError) as caught:
        load_hardware(write(("count: auto ", "count: 3 ")))
    assert str(caught.value) == (
        f"my.yaml:{line('  pe:')}: tile.pe: adc.count (3) x adc.cols_per_adc (8) serves 24 columns; "
        "crossbar.cols is 64; raise one of them or set adc.count: auto"
    )


def test_a_weight_wider_than_the_crossbar_is_refused():
    with pytest.raises(ConfigError, match=r"one weight takes 4 columns \(5 bits, 2 per cell, signed: differential\)"):
        load_hardware("demo", {"tile.pe.crossbar.cols": 2})


def test_several_faults_come_together(write):
    changes = (
        ("rows: 64\n", "rows: -1\n"),
        ("bits: 6 ", "bitz: 6 "),
        ("pes: 4", "pes: four"),
        ("latch_depth", "latches"),
    )
    with pytest.raises(ConfigError) as caught:
        load_hardware(write(*changes))
    assert str(caught.value).splitlines() == [
        f"my.yaml:{line('pes: 4')}: tile.pes is 'four'; it must be a whole number",
        f"my.yaml:{line('latch_depth')}: unknown key tile.pe.latches; did you mean tile.pe.latch_depth?",
        f"my.yaml:{line('rows: 64')}: tile.pe.crossbar.rows is -1; it must be at least 1",
        f"my.yaml:{line('bits: 6 ')}: unknown key tile.pe.adc.bitz; did you mean tile.pe.adc.bits?",
    ]


def test_a_faster_clock_shows_the_stages_that_become_too_short(write):
    with pytest.raises(ConfigError) as caught:
        load_hardware(write(), {"chip.clock_mhz": 2000})
    costs = "of cost library 'imc-32nm' takes"
    assert str(caught.value).splitlines() == [
        f"my.yaml:{line('read_cycles')}: tile.pe.crossbar.read_cycles is 5 (2.5 ns at 2000 MHz); "
        f"crossbar.read {costs} 10 ns; set it to at least 20 or lower chip.clock_mhz",
        f"my.yaml:{line('cycles_per_conversion')}: tile.pe.adc.cycles_per_conversion is 1 (0.5 ns at 2000 MHz); "
        f"adc.convert {costs} 0.8333 ns; set it to at least 2 or lower chip.clock_mhz",
    ]


@pytest.mark.parametrize(
    ("name", "cycles"), [("demo", 43), ("isaac-rram-128", 110), ("spikesim-rram-64", 13), ("spikesim-sram-64", 1)]
)
def test_a_row_is_written_in_the_cycles_that_the_library_asks_for(name, cycles):
    """85.7 ns at 500 and 1280 MHz, 50 ns and 4 ns at 250 MHz."""
    assert load_hardware(name).row_write_cycles == cycles


def test_cycles_of_a_row_write_can_be_given_but_not_too_few(write):
    assert load_hardware("demo", {"tile.pe.crossbar.write_cycles": 50}).row_write_cycles == 50
    changed = write(("      read_cycles: 5 ", "      write_cycles: 42\n      read_cycles: 5 "))
    with pytest.raises(ConfigError) as caught:
        load_hardware(changed)
    assert str(caught.value) == (
        f"my.yaml:{line('      read_cycles: 5 ')}: tile.pe.crossbar.write_cycles is 42 (84 ns at 500 MHz); "
        "crossbar.write of cost library 'imc-32nm' takes 85.7 ns; set it to at least 43 or lower chip.clock_mhz"
    )


def test_a_row_write_without_a_time_is_refused(write, tmp_path):
    costs = (shipped_folder("hwconfigs") / "costs" / "imc-32nm.yaml").read_text(encoding="utf-8")
    assert costs.count("latency_ns: 85.7, ") == 1
    (tmp_path / "imc-32nm.yaml").write_text(costs.replace("latency_ns: 85.7, ", ""), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_hardware(write())
    assert str(caught.value) == (
        f"my.yaml:{line('    crossbar:')}: tile.pe.crossbar.write_cycles is auto; crossbar.write of cost library "
        "'imc-32nm' has no latency_ns. Give either of them a number."
    )


def test_an_unknown_name_lists_what_is_shipped():
    with pytest.raises(
        ConfigError,
        match=r"^demoo: no such file, and no shipped name; shipped are demo, eyeriss-16x8, isaac-rram-128, "
        r"sata-16x8, spikesim-rram-64, "
        r"spikesim-sram-64",
    ):
        load_hardware("demoo")


@pytest.mark.parametrize("value", [False, "off"])
def test_switches_take_words(value):
    assert load_hardware("demo", {"tile.pe.crossbar.zero_skip": value}).tile.pe.crossbar.zero_skip is False


# Area and leakage.


def by_kind(parts: list[Part]) -> dict[str, float]:
    return {part.kind: sum(other.area_um2 for other in parts if other.kind == part.kind) for part in parts}


def test_pe_area_is_counts_times_entries():
    """SpikeSim ELA: nine crossbars, eight converters and multiplexers, a DIFF module and an eighth of a temp buffer."""
    assert by_kind(pe_parts(load_hardware("spikesim-rram-64"))) == pytest.approx(
        {
            "fetch": 0,
            "row_driver": 0,
            "crossbar": 9 * 26.2144,
            "mux": 8 * 45.9,
            "adc": 8 * 693.633,
            "shift_add": 13411.41498 + 484.643999 / 8,
        }
    )


def test_digital_merge_has_a_converter_bank_per_crossbar():
    overrides = {"tile.pe.column_merge": "digital"}
    area = by_kind(pe_parts(load_hardware("spikesim-rram-64", overrides)))
    assert area["adc"] == pytest.approx(9 * 8 * 693.633)


def test_tile_parts_name_every_pe_then_what_they_share():
    parts = tile_parts(load_hardware("demo", {"tile.pes": 2}), line_buffer_bits=0, v_mem_bits=0)
    in_pe = ["fetch", "row_driver", "crossbar", "mux", "adc", "shift_add"]
    shared = ["buffer", "htree", "accumulator", "neuron", "v_mem", "pooling"]
    assert [part.path for part in parts] == [f"pe{pe}.{name}" for pe in (0, 1) for name in in_pe] + shared


def test_memories_count_bits():
    """0.7391 um2 per bit (SpikeSim); CACTI 7: 8 KB leak 0.30 mW."""
    parts = {part.path: part for part in tile_parts(load_hardware("spikesim-rram-64"), 8192, 65536)}
    assert parts["buffer"].area_um2 == pytest.approx(6054.7072)
    assert parts["v_mem"].area_um2 == pytest.approx(65536 * 0.7391)
    assert parts["v_mem"].leakage_mw == pytest.approx(0.30)


def test_lanes_and_rows_are_counted():
    area = by_kind(tile_parts(load_hardware("demo", {"tile.pes": 1}), 0, 0))
    assert area["accumulator"] == pytest.approx(16 * 67)
    assert area["neuron"] == pytest.approx(16 * 702)
    assert area["row_driver"] == pytest.approx(4 * 64 * 0.166)
    assert area["fetch"] == pytest.approx(4 * 64 * 5.98)


def test_chip_parts_are_the_input_the_global_buffer_and_the_routers():
    parts = chip_parts(load_hardware("demo"), n_nodes=2)
    assert [part.path for part in parts] == ["input", "global_buffer", "noc.router0", "noc.router1"]
    assert [part.leakage_mw for part in parts] == pytest.approx([0, 6.4, 0.41, 0.41])


@pytest.mark.parametrize(("entry", "kind"), [("area", "adc"), ("leakage", "v_mem")])
def test_one_entry_moves_the_total_by_its_share(entry, kind):
    hardware = load_hardware("demo")
    dearer = hardware.with_library(hardware.library.with_factor(kind, entry, 1.1))
    field = {"area": "area_um2", "leakage": "leakage_mw"}[entry]
    before, after = ([getattr(part, field) for part in tile_parts(h, 999, 777)] for h in (hardware, dearer))
    share = sum(getattr(part, field) for part in tile_parts(hardware, 999, 777) if part.kind == kind)
    assert sum(after) - sum(before) == pytest.approx(0.1 * share)


def test_parameters_of_an_entry_follow_the_hardware():
    hardware = load_hardware("demo", {"tile.pe.adc.bits": 5})
    assert hardware.cost_parameters("adc") == {"bits": 5}
    assert hardware.cost_parameters("htree") == {}


# Hostile files.

SNIPPETS = (
    "!!python/object/apply:os.system ['true']", "&a [*a, *a]", "*a", "<<: *a", "9" * 5000, "-" * 50, "[" * 200,
    "{" * 200, "1e999", ".nan", "-.inf", "0x" + "F" * 3000, "? ", "? [a, b]\n: c", "- " * 100, "---\n", "...\n",
    "%YAML 9.9\n---\n", "\t", "\x00", "\x85", "\u2028", '"\\UFFFFFFFF"', "'", '"', "|", "> ", "|99", "`", "@",
    "null", "~", "true", "0", "-1", "1" * 39, "{a: {a: {a: 1}}}", "[1, 2, 3]", "\ud7ff", "\N{PILE OF POO}", "# ",
    "#", ":", ": ", "!", "!<>", "&", "auto", "tile:", "chip: {}", "format_version: 2", "demo", "costs: demo\n",
    "spikesim-65nm", "1_000", "250 MHz", "1:30",
)  # fmt: skip


def mutated(text: str, rng: random.Random) -> bytes:
    """The text after one to four random edits of bytes, lines or values."""
    data = text.encode()
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        lines = data.split(b"\n")
        i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
        snippet = rng.choice(SNIPPETS).encode()
        key = lines[i].partition(b": ")[0]
        kind = rng.randrange(8)
        if kind == 0:
            data = data[:at] + data[at + rng.randint(1, 20) :]
        elif kind == 1:
            data = data[:at] + bytes(rng.randrange(256) for _ in range(rng.randint(1, 3))) + data[at:]
        elif kind == 2:
            data = data[:at] + snippet + data[at:]
        elif kind == 3:
            lines[i] = key + b": " + snippet
        elif kind == 4:
            lines[i] = key + b": " + lines[j].partition(b": ")[2]
        elif kind == 5:
            lines[i], lines[j] = lines[j], lines[i]
        elif kind == 6:
            lines.insert(i, lines[j] if rng.random() < 0.5 else snippet)
        else:
            del lines[i]
        data = b"\n".join(lines) if kind >= 3 else data
    return data[: rng.randrange(len(data) + 1)] if rng.random() < 0.05 else data


@pytest.mark.parametrize("seed", range(20))
def test_a_mutilated_file_is_hardware_or_a_config_error(seed, tmp_path):
    rng = random.Random(seed)
    path = tmp_path / "mutilated.yaml"
    texts = [(shipped_folder("hwconfigs") / f"{name}.yaml").read_text(encoding="utf-8") for name in SHIPPED]
    outcomes = {"hardware": 0, "fault": 0}
    for _ in range(100):
        path.write_bytes(mutated(rng.choice(texts), rng))
        try:
            hardware = load_hardware(path)
            outcomes["hardware"] += isinstance(hardware, Platform)
        except ConfigError as err:
            outcomes["fault"] += str(err).startswith(str(tmp_path))
    assert sum(outcomes.values()) == 100
    assert min(outcomes.values()) > 0


def test_a_faulty_file_imports_nothing_heavy(tmp_path):
    (tmp_path / "bad.yaml").write_text(DEMO.replace("rows: 64", "rows: 0"), encoding="utf-8")
    program = (
        "import sys\nfrom archsim.errors import ConfigError\nfrom archsim.hardware.reader import load_hardware\n"
        "try:\n    load_hardware(sys.argv[1])\nexcept ConfigError:\n"
        "    print(sorted({'torch', 'pandas', 'matplotlib', 'numba', 'numpy', 'simpy'} & set(sys.modules)))\n"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path / "bad.yaml")]
    result = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert result.stdout.strip() == "[]"


def test_reading_twice_gives_the_same(tmp_path):
    path = shipped_folder("hwconfigs") / "demo.yaml"
    assert read_model(path, Hardware, ConfigError) == read_model(path, Hardware, ConfigError)

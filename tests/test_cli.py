"""The command from outside: exit codes, messages, files, and what it does not import."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from archsim.cli import main

RUN_FILES = {
    "summary.json",
    "components.csv",
    "layers.csv",
    "movement.csv",
    "chips.csv",
    "queues.csv",
    "tiles.csv",
    "spikes.csv",
    "critical_path.parquet",
    "events.parquet",
    "config.yaml",
    "report.html",
    "run.json",
}
HEAVY = ("torch", "pandas", "matplotlib", "numba", "pyarrow", "jinja2")


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """The default pair, written once."""
    folder = tmp_path_factory.mktemp("run") / "result"
    assert main(["run", "spikesim-rram-64", "digits-cnn", "-o", str(folder)]) == 0
    return folder


def test_run_writes_every_file_of_the_contract(digits_run):
    assert {path.name for path in digits_run.iterdir()} == RUN_FILES


def test_a_second_run_gives_the_same_bytes(digits_run, tmp_path):
    main(["run", "spikesim-rram-64", "digits-cnn", "-o", str(tmp_path / "again")])
    differing = [
        name
        for name in sorted(RUN_FILES - {"run.json"})
        if (digits_run / name).read_bytes() != (tmp_path / "again" / name).read_bytes()
    ]
    assert differing == []


def test_json_prints_the_summary_and_nothing_else(tmp_path, capsys):
    main(["run", "demo", "digits-mlp", "-o", str(tmp_path / "r"), "--json"])
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads((tmp_path / "r" / "summary.json").read_text())
    assert printed.err == ""


def test_run_without_a_folder_makes_a_new_one_each_time(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        main(["run", "demo", "digits-mlp", "--json"])
    assert [path.name for path in sorted(Path("reports/runs").iterdir())] == [
        "demo_digits-mlp_001",
        "demo_digits-mlp_002",
    ]


def test_set_changes_one_key_of_hardware_or_workload(tmp_path):
    folder = tmp_path / "r"
    arguments = ["--set", "tile.pe.adc.bits=7", "--set", "workload.reset=zero", "-o", str(folder), "--json"]
    main(["run", "demo", "digits-mlp", *arguments])
    config = (folder / "config.yaml").read_text()
    assert "bits: 7" in config
    assert 'reset: "zero"' in config


FAULTS = [
    (
        ["run", "nowhere", "digits-cnn"],
        "nowhere: no such file, and no shipped name; shipped are demo, eyeriss-16x8, isaac-rram-128, sata-16x8, "
        "spikesim-rram-64",
    ),
    (["run", "demo", "digits-mlp", "--set", "tile.pe.adc.bit=3"], "--set tile.pe.adc.bit=3: unknown key"),
    (["run", "demo", "digits-mlp", "--set", "tile.pe.adc.bit=3"], "did you mean tile.pe.adc.bits?"),
    (["run", "demo", "digits-mlp", "--set", "tile.pe.crossbar.rows=0"], "it must be at least 1"),
    (["run", "demo", "digits-mlp", "--set", "chip.clock_mhz=250 MHz"], "'250 MHz'"),
    (["run", "demo", "digits-mlp", "--set", "workload.rest=zero"], "rest"),
    (["run", "demo", "digits-cnn", "--set", "chip.tiles=1"], "chip 'demo' has 1,"),
    (["run", "demo", "digits-mlp", "--samples", "0"], "--samples is 0; it must be at least 1"),
    (["run", "demo", "digits-mlp", "--samples", "100000"], "100000"),
    (["run", "demo", "digits-mlp", "--seed", "-1"], "--seed is -1; it must be at least 0"),
    (["run", "demo", "digits-mlp", "--engine", "warp"], "engine 'warp' is not known; engines are auto, simpy"),
    (["run", "demo", "digits-mlp", "--input", "missing.npz"], "missing.npz"),
    (["run", "demo", "digits-cnn", "--set", "tile.line_buffer.rows=1"], "needs at least"),
    (["run", "demo", "digits-mlp", "--set", "chip.neuron.v_mem_kib=0.001"], "chip.neuron.v_mem_kib is 0.001"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), FAULTS, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_bad_input_is_one_message_and_exit_code_2(arguments, message, tmp_path, capsys):
    target = tmp_path / "out"
    code = main([*arguments, "-o", str(target)])
    printed = capsys.readouterr()
    assert (code, printed.out) == (2, "")
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_of_the_folder_is_said(tmp_path, capsys):
    (tmp_path / "out").write_text("precious")
    assert main(["run", "demo", "digits-mlp", "-o", str(tmp_path / "out")]) == 2
    assert "is a file; the result needs a folder. Choose another -o." in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "precious"


def test_a_folder_below_a_file_is_said_before_anything_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("archsim.api.simulate", lambda *_: pytest.fail("the run began"))
    (tmp_path / "file").write_text("precious")
    assert main(["run", "demo", "digits-mlp", "-o", str(tmp_path / "file" / "out")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_describe_shows_hierarchy_area_sources_and_mapping(capsys):
    assert main(["describe", "spikesim-rram-64", "vgg9-convolutions"]) == 0
    printed = capsys.readouterr().out
    for text in ("64 x 64", "693.6 um2", "1.764 pJ per event", "conv7", "cell utilisation"):
        assert text in printed


def test_schema_is_json_with_the_key_descriptions(capsys):
    main(["schema"])
    schema = json.loads(capsys.readouterr().out)
    assert schema["$defs"]["Adc"]["properties"]["bits"]["description"] == "Resolution in bits."


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["run", "demo", "digits-mlp", "--set", "chip.clock=1"],
        ["run", "no-such-chip"],
        ["robustness", "demo", "digits-mlp", "--set", "chip.clock=1"],
    ],
    ids=" ".join,
)
def test_help_and_config_faults_import_nothing_heavy(arguments):
    code = (
        "import sys\nfrom archsim.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        f"sys.exit(' '.join(name for name in {HEAVY!r} if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"imported: {done.stderr}"

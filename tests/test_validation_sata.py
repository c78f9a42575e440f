"""SATA_Sim regenerated: counts, energies, factors, training; layer tables by the command."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archsim.cli import main
from archsim.hardware.reader import load_library
from archsim.validation import sata
from archsim.validation.sata_counts import LayerShape, dram_ifmap_reads, layer_counts
from archsim.validation.sata_training import Setting, counts, printed
from archsim.validation.sata_works import CIFARNET, RESNET19, VGG9, WORKS
from archsim.workload.builders import vgg5

DATA = Path(os.environ.get("ARCHSIM_TEST_DATA", "")) / "sata" / "networks.csv"
HEADER = "layer,in_height,in_width,in_channels,out_channels,kernel_height,kernel_width,stride"


def test_everything_that_the_command_compares_agrees():
    found = list(sata.checks())
    assert len({check.name for check in found}) == len(found) > 150
    assert [check.name for check in found if not check.passed] == []


def test_factors_are_those_of_the_stored_results_and_are_near_the_papers():
    factors = {
        work.name: sata.improvement(
            work.network, sata.inference.network_counts(work.network), work.regime, work.baseline
        )
        for work in WORKS
    }
    assert [round(factor, 3) for factor in factors.values()] == [4.565, 2.900, 2.289, 4.881, 1.320, 6.776]
    assert [abs(factors[work.name] - work.sata) < 0.101 for work in WORKS] == [True] * 6


@pytest.mark.skipif(not DATA.is_file(), reason="ARCHSIM_TEST_DATA has no sata/networks.csv")
def test_the_networks_are_those_of_the_workload_files():
    columns = ("in_height", "in_width", "in_channels", "out_channels", "kernel_height", "kernel_width", "stride")
    stored: dict[str, list[LayerShape]] = {}
    with DATA.open(newline="") as file:
        for row in csv.DictReader(file):
            stored.setdefault(row["work"], []).append(LayerShape(*(int(row[name]) for name in columns)))
    ours = {"sbp": VGG9, "bntt": VGG9, "direct": CIFARNET, "tssl": CIFARNET, "tdbn": RESNET19, "lth": RESNET19}
    assert {work: tuple(layers) for work, layers in stored.items()} == ours


# Counts against requests in their order, one by one


def requests(layer: LayerShape, rows: int, cols: int) -> Iterator[tuple[int, int, int]]:
    """Words (y, x, channel) that an output-stationary run asks for: row p of a fold k + p cycles after its start."""
    kernel = [
        (y, x, c)
        for y in range(layer.kernel_height)
        for x in range(layer.kernel_width)
        for c in range(layer.in_channels)
    ]
    for _ in range(-(-layer.out_channels // cols)):
        for first in range(0, layer.positions, rows):
            mine = range(first, min(first + rows, layer.positions))
            for cycle in range(layer.depth + rows - 1):
                for row, position in enumerate(mine):
                    if 0 <= cycle - row < layer.depth:
                        y, x, c = kernel[cycle - row]
                        top, left = divmod(position, layer.out_width)
                        word = top * layer.stride + y, left * layer.stride + x, c
                        if word[0] < layer.in_height and word[1] < layer.in_width:
                            yield word


@given(
    layer=st.builds(
        LayerShape,
        in_height=st.integers(3, 7),
        in_width=st.integers(3, 7),
        in_channels=st.integers(1, 3),
        out_channels=st.integers(1, 7),
        kernel_height=st.integers(1, 3),
        kernel_width=st.integers(1, 3),
        stride=st.integers(1, 3),
    ),
    rows=st.integers(1, 5),
    cols=st.integers(1, 4),
    half_sets=st.integers(1, 3),
)
def test_words_fetched_are_the_misses_of_a_buffer_that_is_emptied_when_full(layer, rows, cols, half_sets):
    held: set[tuple[int, int, int]] = set()
    fetched = 0
    for word in requests(layer, rows, cols):
        if word not in held:
            held.add(word)
            fetched += 1
            if len(held) == 50 * half_sets:
                held.clear()
    assert dram_ifmap_reads(layer, rows, cols, 100 * half_sets) == fetched


def test_a_layer_with_every_dimension_different():
    """By hand: 3 x 6 positions (the last reach beyond the map) of 42 words, 3 filters; 5 * 2 and 11 * 2 folds."""
    found = layer_counts(LayerShape(6, 12, 7, 3, 2, 3, 2), 4, 2)
    assert (found.os_stop, found.ws_filter_span) == (10 * (4 + 2 + 42 - 2) - 1, 22 * (8 + 2 + 18 - 2) - 22 - 1)
    assert (found.sram_ifmap_reads, found.sram_filter_reads) == (18 * 42 * 2, 126)
    assert (found.sram_ofmap_writes, found.dram_ofmap_writes, found.dram_filter_reads) == (54 + 10 * 6, 54, 126)


# Training calculator without its first defect


@pytest.mark.parametrize(
    ("timesteps", "bits", "sparsity", "fwd_comp", "total"),
    [
        (1, 2, 0.0, 1.199e6, None),
        (1, 2, 0.9, 2.607e5, None),
        (4, 16, 0.5, 2.169e7, None),
        (8, 16, 0.0, 7.674e7, 7.6280e9),
        (8, 16, 0.9, 1.669e7, 7.5079e9),
        (4, 2, 0.5, None, 4.8144e9),
    ],
)
def test_with_the_operations_of_convolutions_the_forward_energy_follows_the_spikes(
    timesteps, bits, sparsity, fwd_comp, total
):
    counted = counts(vgg5(), Setting(timesteps, bits, sparsity), keeps_forward=True)
    found = printed(counted, bits, load_library("sata-training-65nm"))
    if fwd_comp is not None:
        assert found.fwd_comp == pytest.approx(fwd_comp, rel=5e-4)
    if total is not None:
        assert found.total == pytest.approx(total, rel=1e-5)


def test_without_it_forward_energy_does_not_follow_the_spikes():
    library = load_library("sata-training-65nm")
    energies = {printed(counts(vgg5(), Setting(spike_sparsity=s)), 2, library).fwd_comp for s in (0.0, 0.5, 0.9)}
    assert len(energies) == 1


# The command


def table(tmp_path: Path, *rows: str, header: str = HEADER) -> str:
    path = tmp_path / "net.csv"
    path.write_text("\n".join((header, *rows)) + "\n")
    return str(path)


def test_counts_of_a_layer_table_as_json(tmp_path, capsys):
    path = table(tmp_path, "Conv2,32,32,64,64,3,3,1", "Fc,1,1,1024,512,1,1,1")
    assert main(["validate", "sata", "--network", path, "--json"]) == 0
    conv, linear = json.loads(capsys.readouterr().out)
    assert conv == {
        "layer": "Conv2",
        "os_stop": 272687,
        "ws_filter_span": 269221,
        "sram_ifmap_reads": 4147200,
        "sram_filter_reads": 36864,
        "sram_ofmap_writes": 68544,
        "dram_ifmap_reads": 649682,
        "dram_filter_reads": 36864,
        "dram_ofmap_writes": 57600,
    }
    assert (linear["layer"], linear["os_stop"], linear["ws_filter_span"]) == ("Fc", 66943, 159720)


def test_rows_of_several_works_keep_their_names(tmp_path, capsys):
    path = table(tmp_path, "a,c,4,4,1,1,3,3,1", "b,c,5,5,1,1,3,3,1", header=f"work,{HEADER}")
    main(["validate", "sata", "--network", path, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [(row["work"], row["layer"], row["dram_ofmap_writes"]) for row in found] == [("a", "c", 4), ("b", "c", 9)]
    assert main(["validate", "sata", "--network", path]) == 0
    assert capsys.readouterr().out.startswith("validate sata: counts per timestep")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["spice", "--network", "x.csv"], "validate spice counts no layers; --network belongs to `validate sata`"),
        (["sata", "--network", "no.csv"], "no.csv: no such file; give a layer table (.csv)"),
        (["sata", "--k", "4"], "validate sata has no traffic; leave the options of `validate noc` out"),
    ],
)
def test_wrong_options_of_the_command(arguments, message, capsys):
    assert main(["validate", *arguments]) == 2
    assert capsys.readouterr().err == f"archsim: {message}\n"


def test_a_kernel_larger_than_its_map_is_a_fault_of_the_table(tmp_path, capsys):
    path = table(tmp_path, "c,2,9,1,1,3,3,1")
    assert main(["validate", "sata", "--network", path]) == 2
    expected = f"archsim: {path}:2: kernel 3 x 3 is larger than its map of 2 x 9; SATA_Sim has no padding\n"
    assert capsys.readouterr().err == expected


def test_counting_needs_no_torch(tmp_path):
    import subprocess
    import sys

    script = (
        "import sys; from archsim.cli import main; "
        f"main(['validate', 'sata', '--network', {table(tmp_path, 'c,9,9,1,1,3,3,1')!r}, '--json']); "
        "assert not {'torch', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)


def test_the_walk_returns_whole_numbers_far_beyond_its_buffer():
    layer = LayerShape(9, 9, 8, 16, 3, 3, 1)
    assert dram_ifmap_reads(layer, 16, 8, 50 * 2**20) == 9 * 9 * 8
    assert dram_ifmap_reads(layer, 16, 8, 200) > np.prod([9, 9, 8])


def test_the_study_shows_the_factors_that_its_code_finds():
    """The stored table of reports/snn-efficiency against the figures that need no simulation."""
    study = Path(__file__).resolve().parent.parent / "reports" / "snn-efficiency" / "README.md"
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in study.read_text().splitlines() if "|" in line]
    table = [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]
    assert [row["work"] for row in table] == [work.name for work in WORKS]
    for row, work in zip(table, WORKS, strict=True):
        counts_of = sata.inference.network_counts(work.network)
        factor = sata.improvement(work.network, counts_of, work.regime, work.baseline)
        assert row["SATA, regenerated"] == f"{factor:.3g}x"
        assert row["SATA, paper"] == f"{work.sata:.3g}x"
        assert row["SpikeSim, ratio of T"] == f"{work.baseline.timesteps / work.regime.timesteps:.3g}x"
        assert row["SpikeSim, paper"] == f"{work.spikesim:.3g}x"

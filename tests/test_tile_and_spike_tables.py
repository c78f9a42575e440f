"""Where tiles are and what they hold, and spikes per timestep: against the mapping and the activity they describe."""

from __future__ import annotations

import numpy as np
import pytest

import archsim
from archsim.mapping.rules import cols_per_value


@pytest.fixture(scope="module", params=[{}, {"mapping.replication": 2, "mapping.share_tiles": True}])
def run(request):
    hardware = archsim.load_hardware("demo", {"mapping.placement": "traffic", **request.param})
    return archsim.simulate(hardware, archsim.load_workload("digits-cnn", timesteps=2), samples=2)


def test_every_tile_is_at_its_node(run):
    mapping, tiles = run.origin.mapping, run.tiles
    assert list(tiles["tile"]) == list(range(mapping.n_tiles))
    assert list(tiles["node"]) == list(mapping.nodes)
    assert (tiles["y"] * mapping.mesh_width + tiles["x"] == tiles["node"]).all()
    assert (tiles["y"] < mapping.mesh_height).all()


def test_tiles_hold_what_layers_have(run):
    mapping, tiles = run.origin.mapping, run.tiles
    assert int(tiles["n_crossbars"].sum()) == run.summary["n_crossbars"]
    assert int(tiles["n_pes"].sum()) == run.summary["n_pes"]
    found = [name for names in tiles["layers"] for name in names.split(" + ") if name]
    assert {layer.layer.name: found.count(layer.layer.name) for layer in mapping.layers} == {
        layer.layer.name: len(layer.tiles) for layer in mapping.layers
    }


def test_cells_of_tiles_are_those_of_layers(run):
    mapping, tiles = run.origin.mapping, run.tiles
    crossbar = mapping.hardware.tile.pe.crossbar
    filled = (tiles["cell_utilisation"].fillna(0) * tiles["n_crossbars"]).sum() * crossbar.rows * crossbar.cols
    cells = [item.n_stored * item.n_copies * cols_per_value(mapping.hardware, item.layer) for item in mapping.layers]
    assert filled == pytest.approx(sum(cells), rel=1e-12)
    assert tiles["cell_utilisation"].dropna().between(0, 1).all()
    assert tiles["cell_utilisation"].isna().equals(tiles["n_crossbars"] == 0)


def test_spikes_of_timesteps_sum_to_those_of_layers(run):
    layers = run.layers.set_index("layer").drop(index="input")
    sums = run.spikes.groupby("layer")[["spikes_in", "spikes_out"]].sum().loc[layers.index]
    assert sums.equals(layers[["spikes_in", "spikes_out"]])
    spikes = run.origin.activity.layers["conv2"].spikes
    mine = run.spikes[run.spikes["layer"] == "conv2"]
    assert list(mine["spikes_out"]) == np.count_nonzero(spikes, axis=(0, 2, 3, 4)).tolist()


def test_operations_of_layers_sum_to_those_of_the_run(run):
    for name in ("synaptic_ops", "effective_acs", "effective_macs"):
        assert run.layers[name].sum() == pytest.approx(run.summary[name] * run.summary["n_samples"], rel=1e-12)


def test_tables_survive_the_files(run, tmp_path):
    loaded = archsim.Result.load(run.write(tmp_path / "run"))
    assert loaded.spikes.equals(run.spikes)
    assert loaded.tiles.fillna({"layers": ""}).equals(run.tiles)

"""Runs repeated from their folders: the same result, from any folder, or a message that says what differs."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import archsim
from archsim.errors import ConfigError
from archsim.shipped import shipped_folder
from archsim.workload.trace import write_trace

TABLES = ("components", "layers", "movement", "events")


def repeated(folder) -> archsim.Result:
    return archsim.repeat_run(archsim.Result.load(folder))


def written(tmp_path, workload: archsim.api.Workload, keys: dict[str, object] | None = None, **options):
    """A written run on the demo chip."""
    result = archsim.simulate(archsim.load_hardware("demo", keys or {}), workload, **options)
    return result, result.write(tmp_path / "run")


def test_a_repeated_run_is_the_run_in_every_table(tmp_path):
    workload = archsim.load_workload("digits-mlp", timesteps=2, settings={"reset": "zero"})
    result, folder = written(tmp_path, workload, {"tile.pe.adc.bits": 5}, samples=2, seed=3)
    again = repeated(folder)
    assert again.summary == result.summary
    assert all(getattr(again, name).equals(getattr(result, name)) for name in TABLES)
    assert again.config == result.config
    assert archsim.repeat_run(again) is again


@pytest.fixture
def network(tmp_path):
    shutil.copy(shipped_folder("workloads") / "digits-mlp.nir", tmp_path / "net.nir")
    np.savez(tmp_path / "in.npz", images=np.eye(8, dtype=np.uint8).reshape(1, 64) * 15)
    return tmp_path / "net.nir"


def test_paths_are_found_from_any_folder(tmp_path, network, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workload = archsim.load_workload("net.nir", input="in.npz", timesteps=2, settings={"timestep_s": 1e-3})
    result, folder = written(tmp_path, workload)
    monkeypatch.chdir("/")
    assert repeated(folder).summary == result.summary


def test_generated_input_is_generated_again(tmp_path, network):
    workload = archsim.load_workload(network, input="poisson:0.3", timesteps=3, samples=2, seed=5)
    result, folder = written(tmp_path, workload, samples=2, seed=5)
    assert repeated(folder).summary == result.summary


def test_a_trace_and_shapes_are_repeated(tmp_path):
    columns = "layer,in_height,in_width,in_channels,out_channels,kernel_height,kernel_width,stride"
    (tmp_path / "small.csv").write_text(f"{columns}\nfc,1,1,32,10,1,1,1\n")
    shapes = archsim.load_workload(tmp_path / "small.csv", timesteps=2, settings={"assumed_rate": 0.2})
    result, folder = written(tmp_path, shapes)
    assert repeated(folder).summary == result.summary
    mlp = archsim.load_workload("digits-mlp", timesteps=2)
    write_trace(tmp_path / "t.npz", mlp, archsim.api.record(mlp))
    result, folder = written(tmp_path, archsim.load_workload(tmp_path / "t.npz"))
    assert repeated(folder).summary == result.summary


def test_several_chips_are_repeated(tmp_path):
    keys = {"tile.pe.crossbar.device.preset": "rram-20k-200k", "tile.pe.crossbar.device.d2d_sigma_rel": 0.1}
    result, folder = written(tmp_path, archsim.load_workload("digits-mlp", timesteps=1), keys, chips=2)
    assert repeated(folder).chips.equals(result.chips)


def test_a_network_that_has_changed_since_is_named(tmp_path, network):
    _, folder = written(tmp_path, archsim.load_workload(network, input=tmp_path / "in.npz", timesteps=2))
    np.savez(tmp_path / "in.npz", images=np.zeros((1, 64), np.uint8))
    with pytest.raises(ConfigError) as caught:
        repeated(folder)
    first, second = str(caught.value).splitlines()
    assert first.startswith("this run of 'net' on 'demo' comes out differently now: ")
    assert first.endswith("; its workload has changed since.")
    assert second == "Run the simulation again."


def test_a_run_of_another_version_says_so(tmp_path):
    _, folder = written(tmp_path, archsim.load_workload("digits-mlp", timesteps=1))
    summary = json.loads((folder / "summary.json").read_text()) | {"archsim_version": "0.0.1"}
    (folder / "summary.json").write_text(json.dumps(summary))
    assert repeated(folder).summary["latency_ps"] == summary["latency_ps"]
    was = summary["latency_ps"]
    (folder / "summary.json").write_text(json.dumps(summary | {"latency_ps": 1}))
    with pytest.raises(ConfigError) as caught:
        repeated(folder)
    assert str(caught.value) == (
        f"this run of 'digits-mlp' on 'demo' comes out differently now: latency_ps is {was} and was 1; "
        "archsim was 0.0.1 then.\nRun the simulation again."
    )


def test_a_workload_that_was_made_in_python_cannot_be_loaded_again(tmp_path):
    loaded = archsim.load_workload("digits-mlp", timesteps=1)
    made = archsim.api.Workload(loaded.name, loaded.network, 1, loaded.input, loaded.calibration, loaded.settings)
    _, folder = written(tmp_path, made)
    with pytest.raises(ConfigError) as caught:
        repeated(folder)
    assert str(caught.value) == (
        "workload 'digits-mlp' was not loaded from a file, so its run cannot be repeated; "
        "keep the result of archsim.simulate and call archsim.what_if with it"
    )


def test_a_damaged_configuration_is_named_by_line(tmp_path):
    _, folder = written(tmp_path, archsim.load_workload("digits-mlp", timesteps=1))
    config = (folder / "config.yaml").read_text().replace("clock_mhz: 500.0", "clock_mhz: fast")
    (folder / "config.yaml").write_text(config)
    with pytest.raises(ConfigError, match=r"^config\.yaml:\d+: hardware\.chip\.clock_mhz is 'fast'; it must be "):
        repeated(folder)

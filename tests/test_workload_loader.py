"""Workload files and the ways to name a workload, an input and its settings."""

import subprocess
import sys
from math import prod
from pathlib import Path

import nir
import numpy as np
import pytest

from archsim.errors import WorkloadError
from archsim.workload.builders import BUILDERS
from archsim.workload.loader import load_workload

FILE = """\
format_version: 1
name: demo
network: net.nir
input: frames.npz
timesteps: 3
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with net.nir (8 -> 5 -> 3), frames.npz (4 images) and spikes.npz (2 samples of 6 steps)."""
    weights = np.arange(55, dtype=np.float32) / 55 - 0.5
    fc1, fc2 = nir.Linear(weights[:40].reshape(5, 8)), nir.Linear(weights[40:].reshape(3, 5))
    graph = nir.NIRGraph.from_list(fc1, nir.IF(np.ones(5), np.ones(5)), fc2, nir.IF(np.ones(3), np.ones(3)))
    nir.write(tmp_path / "net.nir", graph)
    images, labels = np.arange(32).reshape(4, 8), np.array([0, 1, 2, 0])
    np.savez(tmp_path / "frames.npz", images=images, labels=labels, calibration_images=images[:2])
    np.savez(tmp_path / "spikes.npz", spikes=np.ones((2, 6, 8), int), calibration_spikes=np.ones((1, 5, 8), int))
    (tmp_path / "demo.yaml").write_text(FILE)
    return tmp_path


@pytest.fixture
def fault(folder):
    """Text of the fault without the folder."""

    def text(name, *arguments, **options):
        with pytest.raises(WorkloadError) as caught:
            load_workload(folder / name, *arguments, **options)
        return str(caught.value).replace(f"{folder}/", "")

    return text


def test_a_workload_file_brings_network_input_and_calibration(folder):
    workload = load_workload(folder / "demo.yaml", settings={"reset": "subtract", "timestep_s": 1e-3})
    assert (workload.name, workload.network.name, workload.n_timesteps) == ("demo", "demo", 3)
    assert workload.input.values.shape == (4, 1, 8, 1, 1)
    assert workload.input.labels.tolist() == [0, 1, 2, 0]
    assert workload.calibration.values.shape == (2, 1, 8, 1, 1)
    assert (workload.settings.reset, workload.settings.timestep_s) == ("subtract", 1e-3)
    assert workload.network.layers[0].neuron.reset == "subtract"
    assert workload.source == str(folder / "demo.yaml")


def test_input_timesteps_and_samples_replace_those_of_the_file(folder):
    workload = load_workload(folder / "demo.yaml", input=folder / "spikes.npz", timesteps=2, samples=1)
    assert (workload.input.values.shape, workload.n_timesteps) == ((1, 2, 8, 1, 1), 2)
    assert workload.calibration.values.shape == (1, 2, 8, 1, 1)


def test_a_network_runs_with_a_generator(folder):
    workload = load_workload(str(folder / "net.nir"), input="poisson:0.5", timesteps=9, samples=2, seed=3)
    assert (workload.name, workload.input.values.shape, workload.calibration) == ("net", (2, 9, 8, 1, 1), None)
    again = load_workload(str(folder / "net.nir"), input="poisson:0.5", timesteps=9, samples=2, seed=3)
    np.testing.assert_array_equal(workload.input.values, again.input.values)


def test_a_recording_gives_its_own_length(folder):
    np.savez(folder / "plain.npz", spikes=np.ones((6, 8), int))
    assert load_workload(folder / "net.nir", input=folder / "plain.npz").n_timesteps == 6


def test_the_shipped_convolutions_have_shapes_only():
    workload = load_workload("vgg9-convolutions")
    assert (workload.n_timesteps, workload.settings.assumed_rate, workload.input) == (5, 1.0, None)
    assert not workload.network.has_weights
    shapes = [(x.in_shape[0], x.out_channels, x.in_shape[1], x.pool is not None) for x in workload.network.layers]
    assert shapes == [
        (3, 64, 32, False), (64, 64, 32, True), (64, 128, 16, False), (128, 128, 16, True),
        (128, 256, 8, False), (256, 256, 8, False), (256, 256, 8, True),
    ]  # fmt: skip
    assert sum(layer.n_weights for layer in workload.network.layers) == 1_734_336


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_builders_chain_their_layers(name):
    layers = BUILDERS[name]().layers
    shapes = {layer.name: layer.out_shape for layer in layers}
    for layer in layers:
        received = shapes.get(layer.source, layer.in_shape)
        assert layer.in_shape in (received, (prod(received), 1, 1))


@pytest.mark.parametrize("network", ["../net.nir", "/etc/passwd", "..", "a\\b.nir", "C:net.nir", ".hidden"])
def test_files_of_a_workload_lie_beside_it(folder, fault, network):
    (folder / "demo.yaml").write_text(FILE.replace("net.nir", f"'{network}'"))
    message = f"demo.yaml:3: network: {network!r} is not a plain file name; the file must lie beside this one"
    assert fault("demo.yaml") == message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("network: net.nir\n", ""),
            "demo.yaml:2: a workload has either network, builder or table, exactly one of them",
        ),
        (("timesteps: 3", "work: a"), "demo.yaml:5: only a layer table holds several works; remove work"),
        (("network: net.nir", "netwrok: net.nir"), "demo.yaml:3: unknown key netwrok; did you mean network?"),
        (("timesteps: 3", "timesteps: 0"), "demo.yaml:5: timesteps is 0; it must be at least 1"),
        (
            ("timesteps: 3", "assumed_rate: 0.5"),
            "demo.yaml:5: the network has weights, so its activity is computed; remove assumed_rate",
        ),
        (("timesteps: 3\n", ""), "frames.npz: images enter at every timestep and have no length; give --timesteps"),
        (
            ("input: frames.npz\n", ""),
            "demo.yaml: names no input; give one with --input: "
            "a file (.npz, .npy, .h5, .nir) or a generator (poisson:RATE, constant:K, burst:PERIOD:LENGTH:COUNT)",
        ),
        (("net.nir", "nte.nir"), "nte.nir: no such file"),
        (
            ("frames.npz", "frames.csv"),
            "frames.csv: not an input; "
            "it must be an .npz, .npy or HDF5 file (.h5, .nir) or a generator such as poisson:0.1",
        ),
    ],
)  # fmt: skip
def test_faulty_workload_files_are_explained(folder, fault, change, message):
    (folder / "demo.yaml").write_text(FILE.replace(*change))
    assert fault("demo.yaml") == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "net.nir: names no input; give one with --input: "
             "a file (.npz, .npy, .h5, .nir) or a generator (poisson:RATE, constant:K, burst:PERIOD:LENGTH:COUNT)"),
        ({"input": "poisson:0.1"}, "poisson:0.1: a generator has no length of its own; give --timesteps"),
        ({"input": "spikes.npz", "timesteps": 9}, "spikes.npz: holds 6 timesteps; 9 were asked for"),
        ({"input": "spikes.npz", "timesteps": 6}, "spikes.npz: calibration: holds 5 timesteps; 6 were asked for"),
        ({"input": "frames.npz", "timesteps": 2, "samples": 5}, "frames.npz: holds 4 samples; 5 were asked for"),
        ({"timesteps": 0}, "timesteps is 0; it must be a whole number of at least 1"),
        ({"settings": {"resett": "zero"}}, "--set workload.resett=zero: unknown key resett; did you mean reset?"),
        (
            {"settings": {"reset": "hard"}},
            "--set workload.reset=hard: reset is 'hard'; it must be 'subtract' or 'zero'",
        ),
        (
            {"settings": {"assumed_rate": 0.5}},
            "workload.assumed_rate: the network has weights, so its activity is computed; remove it",
        ),
        (
            {"settings": {"work": "tdbn"}},
            "workload.work: only a layer table (.csv) holds several works; remove it",
        ),
    ],
)  # fmt: skip
def test_faulty_options_are_explained(folder, fault, options, message, monkeypatch):
    monkeypatch.chdir(folder)
    assert fault("net.nir", **options) == message


def test_contradicting_settings_are_told_where_they_were_set(fault):
    text = fault("demo.yaml", settings={"spikes_per_step": "many"})
    assert text.startswith("--set workload.spikes_per_step=many: workload.spikes_per_step is 'many' but workload.reset")


def test_shapes_without_weights_take_no_input():
    with pytest.raises(WorkloadError, match=r"it takes no input \(poisson:0.1\)$"):
        load_workload("vgg9-convolutions", input="poisson:0.1")


def test_unknown_names_and_suffixes_are_told(folder, fault):
    with pytest.raises(WorkloadError, match=r"^nothing: no such file, and no shipped name; shipped are .*vgg9-conv"):
        load_workload("nothing")
    kinds = "a workload file (.yaml), a network (.nir), a layer table (.csv) or a trace (.npz)"
    message = f"spikes.npz: a workload is a shipped name, {kinds}"
    assert fault("spikes.npz") == message


def test_loading_needs_no_heavy_package_and_no_hdf5_in_this_process(folder):
    program = (
        "import sys; from archsim.workload.loader import load_workload\n"
        f"load_workload({str(folder / 'demo.yaml')!r})\n"
        "print(sorted({'torch', 'pandas', 'matplotlib', 'h5py', 'nir'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, cwd=root)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")

"""Events of cameras: exact bins, a real recording, and the full text of what is refused."""

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archsim.errors import WorkloadError
from archsim.inference import run_ideal
from archsim.workload.inputs import read_input
from archsim.workload.loader import load_workload
from archsim.workload.model import WorkloadSettings
from archsim.workload.network import Layer, Network, NeuronModel
from archsim.workload.recordings import bin_times, event_place

DATA = Path(os.environ.get("ARCHSIM_TEST_DATA", "/nonexistent")) / "nir"
TONIC = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", bool)])


def network_for(shape):
    zero, one = np.zeros((1, 1, 1)), np.ones((1, 1, 1))
    neuron = NeuronModel("accumulate", one, one, one, zero, zero)
    layer = Layer("fc", "linear", "input", (int(np.prod(shape)), 1, 1), 10, (1, 1), (1, 1), (0, 0), None, None, neuron)
    return Network("net", shape, (layer,))


@pytest.fixture
def read(tmp_path):
    """Read arrays x, y, t, p for an input of 2 x 3 x 4 (channel, height, width), 1 ms bins by default."""

    def save_and_read(shape=(2, 3, 4), timesteps=None, timestep_s=1e-3, **arrays):
        np.savez(tmp_path / "events.npz", **arrays)
        settings = WorkloadSettings(timestep_s=timestep_s)
        return read_input(tmp_path / "events.npz", network_for(shape), settings, timesteps)[0]

    return save_and_read


@pytest.fixture
def fault(read, tmp_path):
    def text(**options):
        with pytest.raises(WorkloadError) as caught:
            read(**options)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return text


EVENTS = {"x": [0, 3, 3], "y": [0, 2, 2], "t": [0, 999, 2000], "p": [0, 1, 1]}


def test_events_fall_where_and_when_they_happened(read):
    data = read(**EVENTS)
    assert (data.coding, data.values.shape, int(data.values.sum())) == ("spikes", (1, 3, 2, 3, 4), 3)
    assert np.argwhere(data.values).tolist() == [[0, 0, 0, 0, 0], [0, 0, 1, 2, 3], [0, 2, 1, 2, 3]]


def test_events_of_one_bin_add_up(read):
    assert read(x=[1] * 5, y=[1] * 5, t=[0, 1, 2, 3, 999], p=[0] * 5).values[0, 0, 0, 1, 1] == 5


def test_time_units_are_stated(read):
    in_seconds = {**EVENTS, "t": np.array(EVENTS["t"]) * 1e-6, "t_unit": "s"}
    np.testing.assert_array_equal(read(**in_seconds).values, read(**EVENTS).values)


def test_samples_labels_and_silence_may_be_given(read):
    data = read(**EVENTS, sample=[0, 0, 2], labels=[1, 2, 3], n_steps=7)
    assert data.values.sum(axis=(1, 2, 3, 4)).tolist() == [2, 0, 1]
    assert (data.values.shape[1], data.labels.tolist()) == (7, [1, 2, 3])
    assert read(x=[], y=[], t=np.array([], int), p=[], n_steps=4).values.shape == (1, 4, 2, 3, 4)


def test_polarity_may_be_absent_for_one_channel(read):
    assert read(shape=(1, 3, 4), x=[0], y=[0], t=[5]).values.shape == (1, 1, 1, 3, 4)


def test_only_the_steps_asked_for_take_memory(read):
    assert read(timesteps=2, x=[0, 0], y=[0, 0], t=[1500, 10**12], p=[0, 0]).values.sum(axis=(2, 3, 4)).tolist() == [
        [0, 1]
    ]


def test_tonic_arrays_are_events_in_microseconds(read, tmp_path):
    records = np.array(list(zip(*EVENTS.values(), strict=True)), TONIC)
    np.save(tmp_path / "events.npy", records)
    data, _ = read_input(tmp_path / "events.npy", network_for((2, 3, 4)), WorkloadSettings(timestep_s=1e-3))
    np.testing.assert_array_equal(data.values, read(**EVENTS).values)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=20), st.sampled_from([1e-4, 1e-3, 3.3e-4, 0.007, 1.0]))
def test_whole_times_are_binned_exactly(times, timestep_s):
    steps = bin_times(np.array(times), "us", timestep_s, event_place)
    assert steps.tolist() == [Fraction(t, 10**6) // Fraction(repr(timestep_s)) for t in times]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("timestep_s", [0.1, 1e-3, 1e-4, 3e-4])
def test_fractional_times_on_an_edge_open_the_bin(dtype, timestep_s):
    edges = np.arange(2000)
    np.testing.assert_array_equal(bin_times((edges * timestep_s).astype(dtype), "s", timestep_s, event_place), edges)
    middles = ((edges + 0.99) * timestep_s).astype(dtype)
    np.testing.assert_array_equal(bin_times(middles, "s", timestep_s, event_place), edges)


@pytest.mark.skipif(not DATA.is_dir(), reason="ARCHSIM_TEST_DATA names no folder with nir/sample_nmnist.bin")
def test_a_real_recording_keeps_every_event(tmp_path):
    raw = np.fromfile(DATA / "sample_nmnist.bin", np.uint8).reshape(-1, 5).astype(np.int64)
    records = np.zeros(len(raw), TONIC)
    records["x"], records["y"], records["p"] = raw[:, 0], raw[:, 1], raw[:, 2] >> 7
    records["t"] = (raw[:, 2] & 127) << 16 | raw[:, 3] << 8 | raw[:, 4]
    np.save(tmp_path / "nmnist.npy", records)
    data, _ = read_input(tmp_path / "nmnist.npy", network_for((2, 34, 34)), WorkloadSettings(timestep_s=1e-3))
    assert (len(records), int(data.values.sum())) == (4325, 4325)
    assert data.values.shape == (1, int(records["t"].max()) // 1000 + 1, 2, 34, 34)
    ones = np.bincount(records["t"] // 1000)
    np.testing.assert_array_equal(data.values.sum(axis=(0, 2, 3, 4)), ones)
    assert data.values[0, :, 1].sum() == records["p"].sum()


@pytest.mark.skipif(not DATA.is_dir(), reason="ARCHSIM_TEST_DATA names no folder with nir/sample_nmnist.bin")
def test_a_real_recording_drives_a_real_network_to_its_known_answer(tmp_path):
    """Trained on N-MNIST; output spikes as Sinabs' multi-spike neurons give them."""
    raw = np.fromfile(DATA / "sample_nmnist.bin", np.uint8).reshape(-1, 5).astype(np.int64)
    t = (raw[:, 2] & 127) << 16 | raw[:, 3] << 8 | raw[:, 4]
    np.savez(tmp_path / "nmnist.npz", x=raw[:, 0], y=raw[:, 1], t=t, p=raw[:, 2] >> 7)
    settings = {"timestep_s": 1e-3, "reset": "subtract", "spikes_per_step": "many"}
    workload = load_workload(DATA / "cnn_sinabs.nir", tmp_path / "nmnist.npz", settings=settings)
    outputs = run_ideal(workload.network, workload.input.values, workload.n_timesteps).outputs
    assert outputs.tolist() == [[2, 0, 0, 0, 983, 18, 0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": [0, 4, 0]}, "event 1: x is 4; it must be from 0 to 3, the width of the network's input"),
        ({"y": [0, 0, -1]}, "event 2: y is -1; it must be from 0 to 2, the height of the network's input"),
        ({"p": [2, 0, 0]}, "event 0: p is 2; it must be from 0 to 1, the channels of the network's input"),
        ({"t": [0, -5, 1]}, "event 1: t is -5 us; it must be a time from 0 on"),
        ({"t": [0, 1, np.nan]}, "event 2: t is nan us; it must be a time from 0 on"),
        ({"t": [0, 1, np.inf]}, "event 2: t is inf us; it must be a time from 0 on"),
        (
            {"t": [0, 1, 1.7e15]},
            "event 2: t is 1.7e+15 us, bin 1.7e+12; times count from the start of the recording",
        ),
        (
            {"t": [0, 1, 10**12]},
            "1 samples x 1000000001 steps x 24 neurons are more than 2 GiB of counts; "
            "a bin is 0.001 s (workload.timestep_s); use a longer one, or fewer --timesteps",
        ),
        ({"t_unit": "min"}, "'t_unit' is 'min'; units are 's', 'ms', 'us', 'ns'"),
        ({"t_unit": 1e-6}, "'t_unit' is '1e-06'; units are 's', 'ms', 'us', 'ns'"),
        ({"x": [0, 0]}, "'x' has shape (2,) but 't' has 3 entries; one entry per event"),
        ({"x": [0, 0.5, 0]}, "'x' holds 0.5; its values must be whole numbers"),
        ({"t": [True, False, True]}, "times are bool of shape (3,); they must be one number per event"),
        (
            {"timesteps": 9},
            "the recording has 3 bins of 0.001 s (workload.timestep_s); 9 were asked for",
        ),
        ({"shape": (1, 3, 4)}, "event 1: p is 1; it must be from 0 to 0, the channels of the network's input; "
                               "leave p out to count both polarities alike"),
        ({"neuron": [1, 2, 3]}, "'x' does not go with 'neuron'"),
        ({"count": [1, 2, 3]}, "'count' does not go with 'x'"),
        ({"spikes": np.ones((3, 24))}, "holds 'spikes' and 't'; it must hold one of 'images', 'spikes', "
                                       "or 't' with 'neuron' or with 'x', 'y', 'p'"),
    ],
)  # fmt: skip
def test_faulty_events_are_named(fault, change, message):
    assert fault(**(EVENTS | change)) == f"events.npz: {message}"


def test_missing_columns_are_named(fault):
    message = "events need 'p'; events of 2 channels have x, y, t and p, these have 'x', 'y', 't'"
    assert fault(x=[0], y=[0], t=[0]) == f"events.npz: {message}"
    assert fault(x=[0], t=[0], p=[0]).startswith("events.npz: events need 'y'; ")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(3), "the array is of type float64; it must hold records with the fields x, y, t and p"),
        (np.zeros((2, 2), TONIC), "its records have shape (2, 2); events are one list, one record each"),
        (
            np.zeros(3, [("x", "i4"), ("t", "O")]),
            "the array holds Python objects (pickle), which archsim never loads; save plain numbers",
        ),
        (np.zeros(3, [("x", "i4"), ("t", "U5")]), "the array has a field 't' of type <U5; it must be numbers"),
        (np.zeros(3, [("x", "i4", 2)]), "the array has a field 'x' of type ('<i4', (2,)); it must be numbers"),
        (np.zeros(3, [("x", "i4"), ("kind", "i4")]), "unknown field 'kind'; events have the fields x, y, t and p"),
        (np.zeros(3, "V8"), "the array is of type |V8, bytes without meaning; it must hold records with fields"),
    ],
)
def test_foreign_arrays_are_refused(tmp_path, array, message):
    path = tmp_path / "events.npy"
    np.save(path, array, allow_pickle=True)
    with pytest.raises(WorkloadError) as caught:
        read_input(path, network_for((2, 3, 4)))
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize("length", [0, 7, 60, 200])
def test_truncated_arrays_are_told(tmp_path, length):
    path = tmp_path / "events.npy"
    np.save(path, np.zeros(100, TONIC))
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(WorkloadError, match=r"^\S*events.npy: "):
        read_input(path, network_for((2, 3, 4)))


@pytest.mark.parametrize("seed", range(60))
def test_damaged_arrays_end_in_data_or_a_workload_error(tmp_path, seed):
    path = tmp_path / "events.npy"
    np.save(path, np.zeros(20, TONIC))
    rng = np.random.default_rng(seed)
    data = bytearray(path.read_bytes())
    for position in rng.integers(0, len(data), 3):
        data[position] = rng.integers(256)
    path.write_bytes(data)
    text = fault_of(path)
    assert text is None or text.startswith(f"{path}: ")


def fault_of(path):
    try:
        read_input(path, network_for((2, 3, 4)))
    except WorkloadError as fault:
        return str(fault)
    return None


def test_content_decides_before_the_suffix(tmp_path):
    with (tmp_path / "events.dat").open("wb") as file:
        np.save(file, np.zeros(3, TONIC))
    assert read_input(tmp_path / "events.dat", network_for((2, 3, 4)))[0].values.sum() == 3
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(WorkloadError, match=r"text.h5: not an HDF5 file, although its name ends in .h5$"):
        read_input(tmp_path / "text.h5", network_for((2, 3, 4)))
    (tmp_path / "text.csv").write_text("no")
    with pytest.raises(WorkloadError, match=r"text.csv: not an input; it must be an .npz, .npy or HDF5 file"):
        read_input(tmp_path / "text.csv", network_for((2, 3, 4)))

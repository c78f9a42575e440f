"""NIRData and SONATA: what real writers leave behind becomes spikes, and damage becomes one message."""

import h5py
import numpy as np
import pytest

from archsim.errors import WorkloadError
from archsim.workload.inputs import read_input
from archsim.workload.model import WorkloadSettings
from archsim.workload.network import Layer, Network, NeuronModel

nir = pytest.importorskip("nir")


def network_of(n_neurons=6):
    zero, one = np.zeros((1, 1, 1)), np.ones((1, 1, 1))
    neuron = NeuronModel("accumulate", one, one, one, zero, zero)
    layer = Layer("fc", "linear", "input", (n_neurons, 1, 1), 2, (1, 1), (1, 1), (0, 0), None, None, neuron)
    return Network("net", (n_neurons, 1, 1), (layer,))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "spikes.h5"


@pytest.fixture
def read(path):
    """Counts (sample, step, neuron) of the file at a timestep of 0.1 s."""

    def read_counts(timestep_s=0.1, timesteps=None, **settings):
        settings = WorkloadSettings(timestep_s=timestep_s, **settings)
        data, calibration = read_input(path, network_of(), settings, timesteps)
        assert (data.coding, data.scale, calibration) == ("spikes", 1.0, None)
        return data.values[..., 0, 0]

    return read_counts


@pytest.fixture
def fault(read, path):
    def text(**options):
        with pytest.raises(WorkloadError) as caught:
            read(**options)
        return str(caught.value).replace(f"{path.parent}/", "")

    return text


def write_nir(path, observable, node="input", name="spikes", **more):
    observables = {name: observable} | more
    nir.write_data(path, nir.NIRGraphData({node: nir.NIRNodeData(observables)}))


def write_sonata(path, timestamps, node_ids, units="ms", sorting=None, population="retina"):
    with h5py.File(path, "w") as file:
        group = file.create_group(f"spikes/{population}")
        group["timestamps"], group["node_ids"] = timestamps, np.array(node_ids, np.uint64)
        if units is not None:
            group["timestamps"].attrs["units"] = units
        if sorting is not None:
            names = h5py.enum_dtype({"none": 0, "by_id": 1, "by_time": 2}, basetype="u1")
            group.attrs.create("sorting", sorting, dtype=names)


GRID = np.random.default_rng(0).random((2, 7, 6)) < 0.3


def test_gridded_data_of_nir_are_the_spikes(path, read):
    write_nir(path, nir.TimeGriddedData(GRID, 0.1))
    np.testing.assert_array_equal(read(), GRID)
    np.testing.assert_array_equal(read(timesteps=3), GRID[:, :3])


def test_gridded_counts_stay_counts(path, read):
    write_nir(path, nir.TimeGriddedData(GRID * 3.0, 0.1), node="a", name="b")
    np.testing.assert_array_equal(read(), GRID * 3)


def test_events_of_nir_are_binned_and_padding_is_no_event(path, read):
    write_nir(path, nir.TimeGriddedData(GRID, 0.1).to_event(n_events=30))
    np.testing.assert_array_equal(read(), GRID)
    halves = read(timestep_s=0.05)
    np.testing.assert_array_equal(halves[:, ::2], GRID)
    assert (halves.shape, int(halves[:, 1::2].sum())) == ((2, 14, 6), 0)


def test_an_incomplete_last_bin_counts(path, read):
    write_nir(path, nir.EventData(np.array([[0]]), np.array([[0.0]]), 6, 0.25))
    assert read().shape == (1, 3, 6)


def test_valued_events_carry_their_counts(path, read):
    idx, time, value = np.array([[2, 2, -1]]), np.array([[0.1, 0.15, np.inf]]), np.array([[2.0, 3.0, 0.0]])
    write_nir(path, nir.ValuedEventData(idx=idx, time=time, value=value, n_neurons=6, t_max=0.3))
    assert read()[0, :, 2].tolist() == [0, 5, 0]


def test_the_input_node_and_its_spikes_are_chosen_among_several(path, read):
    spikes, voltage = nir.TimeGriddedData(GRID, 0.1), nir.TimeGriddedData(GRID * 0.5, 0.1)
    nodes = {"input": nir.NIRNodeData({"spikes": spikes, "v": voltage}), "lif": nir.NIRNodeData({"v": voltage})}
    nir.write_data(path, nir.NIRGraphData(nodes))
    np.testing.assert_array_equal(read(), GRID)


def test_sonata_spikes_are_in_milliseconds_by_default(path, read):
    write_sonata(path, [0.0, 99.9, 250.0, 250.0], [0, 5, 1, 1], units=None)
    assert np.argwhere(read()).tolist() == [[0, 0, 0], [0, 0, 5], [0, 2, 1]]
    assert read()[0, 2, 1] == 2


@pytest.mark.parametrize(("units", "factor"), [("ms", 1e3), ("s", 1), ("us", 1e6)])
def test_sonata_units_and_sorting_are_honoured(path, read, units, factor):
    write_sonata(path, np.array([0.3, 0.1]) * factor, [0, 1], units=units, sorting=1)
    assert np.argwhere(read()).tolist() == [[0, 1, 1], [0, 3, 0]]


def test_content_not_suffix_tells_the_formats_apart(path, read, tmp_path):
    write_nir(tmp_path / "spikes.nir", nir.TimeGriddedData(GRID, 0.1))
    data, _ = read_input(tmp_path / "spikes.nir", network_of(), WorkloadSettings(timestep_s=0.1))
    np.testing.assert_array_equal(data.values[..., 0, 0], GRID)


def events(idx=(0, 1), time=(0.0, 0.1), n_neurons=6, t_max=0.5):
    return nir.EventData(np.array([idx]), np.array([time]), n_neurons, t_max)


WHERE = "node 'input', observable 'spikes'"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (events(idx=(0, 6)), "event 1 of sample 0: neuron index 6 is outside layer 'input' (6 neurons, 0..5)"),
        (events(idx=(-2, 1)), "event 0 of sample 0: neuron index -2 is outside layer 'input' (6 neurons, 0..5)"),
        (events(time=(0.0, np.nan)), "event 1 of sample 0: t is nan s; it must be a time from 0 on"),
        (events(time=(-0.1, 0.0)), "event 0 of sample 0: t is -0.1 s; it must be a time from 0 on"),
        (events(time=(0.0, np.inf)), "event 1 of sample 0: t is inf s; it must be a time from 0 on"),
        (events(t_max=0.05), "event 1 of sample 0: t is 0.1 s, behind the end of the recording, 0.05 s"),
        (events(t_max=np.nan), "attribute 't_max' must be one finite number"),
        (events(n_neurons=7), "n_neurons is 7 but layer 'input' has 6 neurons"),
        (events(idx=(0.5, 1)), "'idx' holds 0.5; its values must be whole numbers"),
        (
            nir.TimeGriddedData(GRID, 0.2),
            "its steps are 0.2 s but workload.timestep_s is 0.1; set workload.timestep_s=0.2 or bin the recording anew",
        ),
        (nir.TimeGriddedData(GRID[..., :5], 0.1), "data has shape (2, 7, 5); this network needs (sample, step, 6)"),
        (nir.TimeGriddedData(GRID * 0.3, 0.1), "'data' holds 0.3; its values must be whole numbers"),
        (nir.TimeGriddedData(GRID * -1, 0.1), "'data' holds -1; spike counts cannot be negative"),
    ],
)
def test_faulty_nir_data_are_named(path, fault, data, message):
    write_nir(path, data)
    assert fault() == f"spikes.h5: {WHERE}: {message}"


def test_recordings_that_are_too_short_say_how_long_they_are(path, fault):
    write_nir(path, events())
    assert fault(timesteps=9) == "spikes.h5: the recording has 5 bins of 0.1 s (workload.timestep_s); 9 were asked for"


def test_recordings_that_are_too_long_say_what_to_do(path, fault):
    write_nir(path, events(t_max=1e8))
    assert fault().startswith("spikes.h5: 1 samples x 1000000000 steps x 6 neurons are more than 2 GiB of counts; ")


def test_recordings_are_not_encoded_again(path, fault):
    write_nir(path, events())
    assert "which turns images into spikes, but the file holds spikes already" in fault(encoding="rate")


@pytest.mark.parametrize(
    ("times", "ids", "options", "message"),
    [
        ([0.0, 1.0], [0, 6], {}, "event 1: neuron index 6 is outside layer 'input' (6 neurons, 0..5)"),
        ([0.0, -1.0], [0, 1], {}, "event 1: t is -1 ms; it must be a time from 0 on"),
        ([np.nan, 1.0], [0, 1], {}, "event 0: t is nan ms; it must be a time from 0 on"),
        ([0.0], [0, 1], {}, "population 'retina' has 1 timestamps but 2 node_ids"),
        ([], [], {}, "population 'retina' has no spikes"),
        ([0.0], [2**40], {}, "'node_ids' holds values beyond 32 bits"),
        ([0.0], [0], {"units": "min"}, "units of /spikes/retina/timestamps are 'min'; units are s, ms, us, ns"),
        ([2.0, 1.0], [0, 1], {"sorting": 2}, "sorting is 'by_time' but event 1 (1) lies behind 0 (2)"),
        ([1.0, 2.0], [1, 0], {"sorting": 1}, "sorting is 'by_id' but event 1 (0) lies behind 0 (1)"),
    ],
)
def test_faulty_sonata_files_are_named(path, fault, times, ids, options, message):
    write_sonata(path, times, ids, **options)
    assert fault() == f"spikes.h5: {message}"


def write_nested(path):
    with h5py.File(path, "w") as file:
        file.attrs["__type__"] = "NIRGraphData"
        file.create_group("nodes/sub").attrs["__type__"] = "NIRGraphData"


def write_network(path):
    nir.write(path, nir.NIRGraph.from_list(nir.Linear(np.ones((3, 6), np.float32))))


def write_old_sonata(path):
    with h5py.File(path, "w") as file:
        file["spikes/timestamps"], file["spikes/gids"] = [0.0], [0]


def write_two(path):
    nodes = {name: nir.NIRNodeData({"spikes": events()}) for name in ("b", "a")}
    nir.write_data(path, nir.NIRGraphData(nodes))


def write_strange(path):
    with h5py.File(path, "w") as file:
        file["data"] = [1, 2]


def write_untyped(path):
    write_nir(path, events())
    with h5py.File(path, "r+") as file:
        del file["nodes/input/observables/spikes"].attrs["__type__"]


def write_linked(path):
    write_nir(path, events())
    with h5py.File(path, "r+") as file:
        del file["nodes/input/observables/spikes/time"]
        file["nodes/input/observables/spikes/time"] = h5py.ExternalLink("/etc/passwd", "/")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_nested, "node 'sub' is a nested NIRGraphData; only flat recordings are read"),
        (write_network, "holds a NIR network, not spikes; name it as the workload and give spikes with --input"),
        (write_old_sonata, "its spikes belong to no population; SONATA keeps them in /spikes/<population>/timestamps"),
        (write_two, "which node enters the network? call it 'input' or keep one; there are 'a', 'b'"),
        (write_strange, "HDF5, but neither NIRData (nir.write_data) nor SONATA (a group 'spikes')"),
        (write_untyped, f"{WHERE} is of type None; types are TimeGriddedData, EventData, ValuedEventData"),
        (write_linked, f"{WHERE}: has no numbers under 'time'"),
    ],
)
def test_other_contents_are_told_apart(path, fault, write, message):
    write(path)
    assert fault() == f"spikes.h5: {message}"


def test_attributes_of_odd_types_do_no_harm(path, read):
    write_nir(path, nir.TimeGriddedData(GRID, 0.1))
    with h5py.File(path, "r+") as file:
        file.attrs["empty"] = h5py.Empty("f4")
        file.attrs["large"] = np.zeros(5000)
        file.attrs["texts"] = ["a", "b"]
        file.attrs["records"] = np.zeros(2, [("x", "i4")])
        file.attrs["reference"] = file["nodes"].ref
    np.testing.assert_array_equal(read(), GRID)


@pytest.mark.parametrize("writer", ["nir", "sonata"])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_truncated_files_are_told(path, fault, writer, fraction):
    if writer == "nir":
        write_nir(path, nir.TimeGriddedData(GRID, 0.1))
    else:
        write_sonata(path, [1.0], [1])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
    assert fault().startswith("spikes.h5: damaged or truncated; the HDF5 library says: ")


@pytest.mark.parametrize("seed", range(25))
def test_damaged_files_end_in_data_or_a_workload_error(path, read, seed):
    write_nir(path, events()) if seed % 2 else write_sonata(path, [1.0, 2.0], [1, 2], sorting=2)
    rng = np.random.default_rng(seed)
    data = bytearray(path.read_bytes())
    for position in rng.integers(0, len(data), 8):
        data[position] = rng.integers(256)
    path.write_bytes(data)
    text = fault_of(read)
    assert text is None or text.startswith(f"{path}: ")


def fault_of(read):
    try:
        read()
    except WorkloadError as fault:
        return str(fault)
    return None

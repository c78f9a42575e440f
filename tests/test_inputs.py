"""Input files and generators: what they accept, and the full text of what they refuse."""

import io
import zipfile

import numpy as np
import pytest

from archsim.errors import WorkloadError
from archsim.workload.builders import spikesim_vgg9_convolutions
from archsim.workload.generators import generate_input
from archsim.workload.inputs import read_input
from archsim.workload.network import Layer, Network, NeuronModel


def network_for(shape, n_outputs=10):
    features = (int(np.prod(shape)), 1, 1)
    zero, one = np.zeros((1, 1, 1)), np.ones((1, 1, 1))
    readout = NeuronModel("accumulate", one, one, one, zero, zero)
    layer = Layer("fc", "linear", "input", features, n_outputs, (1, 1), (1, 1), (0, 0), None, None, readout)
    return Network("net", shape, (layer,))


FORMS = "one of 'images', 'spikes', or 't' with 'neuron' or with 'x', 'y', 'p'"
MAP, VECTOR = network_for((2, 4, 8)), network_for((64, 1, 1))


@pytest.fixture
def read(tmp_path):
    def save_and_read(network=VECTOR, **arrays):
        np.savez(tmp_path / "spikes.npz", **arrays)
        return read_input(tmp_path / "spikes.npz", network)

    return save_and_read


@pytest.fixture
def fault(read, tmp_path):
    """Text of the fault without the folder."""

    def text(network=VECTOR, **arrays):
        with pytest.raises(WorkloadError) as caught:
            read(network, **arrays)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return text


@pytest.mark.parametrize("shape", [(5, 64), (5, 2, 4, 8)])
def test_integer_images_enter_as_they_are(read, shape):
    images = np.arange(320, dtype=np.int16).reshape(shape) - 100
    data, calibration = read(MAP, images=images, labels=np.arange(5))
    assert (data.coding, data.scale, data.values.shape, calibration) == ("direct", 1.0, (5, 1, 2, 4, 8), None)
    np.testing.assert_array_equal(data.values.ravel(), images.ravel())
    np.testing.assert_array_equal(data.labels, range(5))
    assert data.frame(1, 3, 7).shape == (2, 7, 2, 4, 8)


def test_positive_float_images_are_quantised_to_0_255(read):
    images = np.linspace(0, 2, 128).reshape(2, 64)
    data, _ = read(images=images, scale=3.0)
    assert (data.values.dtype, data.values.max(), data.scale) == (np.uint8, 255, 3.0 * 2 / 255)
    assert np.abs(data.values.reshape(2, 64) * data.scale - 3 * images).max() <= data.scale / 2 + 1e-12


def test_signed_float_images_become_twos_complement(read):
    data, calibration = read(images=np.linspace(-1, 0.5, 64)[None], calibration_images=np.full((3, 64), 9.0))
    assert (data.values.dtype, data.values.min(), data.values.max()) == (np.int8, -127, 64)
    assert (calibration.scale, calibration.values.max(), calibration.values.shape[0]) == (data.scale, 127, 3)


@pytest.mark.parametrize(
    ("shape", "n_samples", "n_steps"),
    [((3, 64), 1, 3), ((3, 2, 4, 8), 1, 3), ((5, 3, 64), 5, 3), ((5, 3, 2, 4, 8), 5, 3)],
)
def test_dense_spikes_may_lack_the_sample_axis(read, shape, n_samples, n_steps):
    spikes = np.random.default_rng(0).integers(0, 3, shape)
    data, _ = read(MAP, spikes=spikes)
    assert (data.coding, data.values.shape) == ("spikes", (n_samples, n_steps, 2, 4, 8))
    np.testing.assert_array_equal(data.values.ravel(), spikes.ravel())


def test_spikes_of_a_single_neuron(read):
    assert read(network_for((1, 1, 1)), spikes=np.ones(7, bool))[0].values.shape == (1, 7, 1, 1, 1)
    assert read(network_for((1, 1, 1)), spikes=np.ones((7, 1)))[0].values.shape == (1, 7, 1, 1, 1)


def test_events_are_counted_where_they_fall(read):
    data, _ = read(MAP, t=[0, 0, 4], neuron=[63, 63, 8], count=[1, 2, 5], sample=[0, 0, 1], n_steps=6)
    assert data.values.shape == (2, 6, 2, 4, 8)
    assert (data.values[0, 0, 1, 3, 7], data.values[1, 4, 0, 1, 0], data.values.sum()) == (3, 5, 8)


def test_labels_extend_events_to_silent_samples(read):
    assert read(t=[0], neuron=[1], labels=[3, 4, 5])[0].values.shape == (3, 1, 64, 1, 1)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"t": [3, 12], "neuron": [0, 64]},
            "neuron index 64 at step 12 is outside layer 'input' (64 neurons, 0..63)",
        ),
        ({"t": [100], "neuron": [0], "n_steps": 100}, "step 100 is outside the recording (100 steps, 0..99)"),
        ({"t": [-1, 0], "neuron": [0, 0]}, "step -1 is outside the recording (1 steps, 0..0)"),
        ({"t": [0.5], "neuron": [0]}, "'t' holds 0.5; its values must be whole numbers"),
        ({"t": [0, 1], "neuron": [0]}, "'neuron' has shape (1,) but 't' has 2 entries; one entry per event"),
        (
            {"t": [2**30], "neuron": [0]},
            "1 samples x 1073741825 steps x 64 neurons are more than 2 GiB of counts; is 't' in timesteps?",
        ),
        ({"t": [0], "neuron": [0], "n_neurons": 65}, "'n_neurons' is 65 but layer 'input' has 64 neurons"),
        ({"t": [], "neuron": []}, "has 0 steps; it must be at least 1 (set 'n_steps' when there are no events)"),
        ({"t": [0]}, "holds 't' without 'neuron'; events need both, or 'x', 'y' and 'p'"),
        ({"spikes": -np.ones((2, 64))}, "'spikes' holds -1; spike counts cannot be negative"),
        ({"spikes": np.full((2, 64), np.nan)}, "'spikes' holds nan; its values must be whole numbers"),
        ({"spikes": np.full((2, 64), 2**40)}, "'spikes' holds values beyond 32 bits"),
        (
            {"spikes": np.ones((2, 65))},
            "'spikes' has shape (2, 65); this network needs (step, 64), with or without a sample axis in front",
        ),
        ({"spikes": np.ones((0, 64))}, "'spikes' is empty, shape (0, 64)"),
        ({"images": np.ones((2, 8))}, "'images' has shape (2, 8); this network needs (sample, 64)"),
        ({"images": np.full((2, 64), np.inf)}, "'images' holds 128 values that are NaN or infinite"),
        ({"images": np.ones((2, 64)), "labels": [1]}, "'labels' has shape (1,) for 2 samples; it must be (2,)"),
        (
            {"images": np.ones((2, 64)), "labels": [1, 12]},
            "'labels' holds 12 but the network has 10 outputs (0..9)",
        ),
        ({"images": np.ones((2, 64)), "scale": 0.0}, "'scale' is 0; it must be a finite number above 0"),
        (
            {"images": np.ones((1, 64)), "count": [1]},
            "'count' belongs to events (with 't') but the file holds 'images'",
        ),
        (
            {"images": np.ones((1, 64)), "calibration_spikes": np.ones((1, 64))},
            "'calibration_spikes' does not go with 'images'; calibration has the coding of the input",
        ),
        ({"image": np.ones((1, 64))}, "unknown key 'image'; did you mean 'images'?"),
        ({"labels": [1]}, f"holds 'labels'; it must hold {FORMS}"),
        (
            {"images": np.ones((1, 64)), "spikes": np.ones((1, 64))},
            f"holds 'images' and 'spikes'; it must hold {FORMS}",
        ),
    ],
)  # fmt: skip
def test_faults_name_file_key_and_value(fault, arrays, message):
    assert fault(**arrays) == f"spikes.npz: {message}"


def test_a_map_shape_is_told_both_ways(fault):
    wanted = "(step, 2, 4, 8) or (step, 64), with or without a sample axis in front"
    assert fault(MAP, spikes=np.ones((3, 5))) == f"spikes.npz: 'spikes' has shape (3, 5); this network needs {wanted}"


def test_pickles_are_never_loaded(fault):
    message = "spikes.npz: key 'images' holds Python objects (pickle), which archsim never loads; save plain numbers"
    assert fault(images=np.array([{}], dtype=object)) == message


@pytest.mark.parametrize("length", [0, 30, 400])
def test_truncated_archives_are_told(tmp_path, length):
    path = tmp_path / "spikes.npz"
    np.savez(path, spikes=np.ones((100, 64)))
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(WorkloadError, match=r"^\S*spikes.npz: not a complete .npz archive \(.*\); was it truncated\?$"):
        read_input(path, VECTOR)


def test_zip_bombs_are_refused_by_their_directory(tmp_path):
    path = tmp_path / "bomb.npz"
    np.savez(path, spikes=np.ones((3, 64)))
    size = zipfile.ZipFile(path).infolist()[0].file_size
    path.write_bytes(path.read_bytes().replace(size.to_bytes(4, "little"), (0xF0000000).to_bytes(4, "little")))
    with pytest.raises(WorkloadError, match=r"bomb.npz: unpacks to 3.8 GiB; at most 2 GiB are read$"):
        read_input(path, VECTOR)


def test_headers_that_claim_more_than_they_hold_are_refused(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 50,)})
    path = tmp_path / "liar.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("spikes.npy", header.getvalue() + bytes(100))
    with pytest.raises(WorkloadError, match=r"liar.npz: key 'spikes' says its shape is .* it is damaged$"):
        read_input(path, VECTOR)


@pytest.mark.parametrize("seed", range(60))
def test_damaged_archives_end_in_data_or_a_workload_error(tmp_path, seed):
    path = tmp_path / "spikes.npz"
    np.savez_compressed(path, spikes=np.eye(64, dtype=np.uint8), labels=np.array([1]))
    rng = np.random.default_rng(seed)
    data = bytearray(path.read_bytes())
    for position in rng.integers(0, len(data), 3):
        data[position] = rng.integers(256)
    path.write_bytes(data)
    text = fault_of(path)
    assert text is None or text.startswith(f"{path}: ")


def fault_of(path):
    try:
        read_input(path, VECTOR)
    except WorkloadError as fault:
        return str(fault)
    return None


def test_poisson_has_its_rate_and_its_seed():
    data = generate_input("poisson:0.25", MAP, 400, n_samples=2, seed=7)
    assert data.values.shape == (2, 400, 2, 4, 8)
    assert data.values.max() == 1
    assert data.values.mean() == pytest.approx(0.25, abs=0.01)
    np.testing.assert_array_equal(data.values[:1], generate_input("poisson:0.25", MAP, 400, seed=7).values)
    assert (data.values[0] != data.values[1]).any()


def test_constant_and_burst_repeat_in_time():
    assert set(generate_input("constant:3", MAP, 5).values.ravel()) == {3}
    burst = generate_input("burst:4:2:9", VECTOR, 7).values
    assert burst[0, :, 0, 0, 0].tolist() == [9, 9, 0, 0, 9, 9, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("posson:0.1", "unknown generator 'posson'; did you mean poisson:RATE?"),
        ("x:1", "unknown generator 'x'; generators are poisson:RATE, constant:K, burst:PERIOD:LENGTH:COUNT"),
        ("poisson", "a generator is written poisson:RATE"),
        ("poisson:1.5", "RATE is '1.5'; it must be a probability from 0 to 1"),
        ("poisson:nan", "RATE is 'nan'; it must be a probability from 0 to 1"),
        ("constant:-1", "K is '-1'; it must be a whole number from 0 to 255"),
        ("burst:4:5:1", "LENGTH is '5'; it must be a whole number from 1 to 4"),
        ("burst:4:1", "a generator is written burst:PERIOD:LENGTH:COUNT"),
    ],
)
def test_bad_generators_are_explained(text, message):
    with pytest.raises(WorkloadError) as caught:
        generate_input(text, VECTOR, 5)
    assert str(caught.value) == f"{text}: {message}"


def test_generated_spikes_must_fit_in_memory():
    with pytest.raises(WorkloadError, match=r"more than 2 GiB of counts$"):
        generate_input("constant:1", spikesim_vgg9_convolutions(), 10**7)

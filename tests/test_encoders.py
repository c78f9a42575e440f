"""Images as spikes: closed forms of every encoder, agreement with snnTorch, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archsim.errors import WorkloadError
from archsim.workload.encoders import encode_delta, encode_latency, encode_rate, split_polarity
from archsim.workload.inputs import read_input
from archsim.workload.loader import load_workload
from archsim.workload.model import WorkloadSettings
from archsim.workload.network import Layer, Network, NeuronModel

RAMP = np.array([0.0, 0.25, 0.5, 1.0]).reshape(1, 1, 1, 4)


def network_for(shape):
    zero, one = np.zeros((1, 1, 1)), np.ones((1, 1, 1))
    neuron, features = NeuronModel("accumulate", one, one, one, zero, zero), (int(np.prod(shape)), 1, 1)
    return Network(
        "net", shape, (Layer("fc", "linear", "input", features, 10, (1, 1), (1, 1), (0, 0), None, None, neuron),)
    )


@pytest.fixture
def read(tmp_path):
    """Read arrays as a network of the given input shape would, with settings by key."""

    def save_and_read(shape, timesteps=None, arrays=None, seed=0, **settings):
        np.savez(tmp_path / "images.npz", **arrays)
        return read_input(tmp_path / "images.npz", network_for(shape), WorkloadSettings(**settings), timesteps, seed)

    return save_and_read


@pytest.fixture
def fault(read, tmp_path):
    def text(*arguments, **options):
        with pytest.raises(WorkloadError) as caught:
            read(*arguments, **options)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return text


def test_rate_spikes_as_often_as_the_image_is_bright():
    spikes = encode_rate(RAMP, 4000, 1.0, seed=3)[0, :, 0, 0]
    sigma = np.sqrt(RAMP.ravel() * (1 - RAMP.ravel()) / 4000)
    assert np.all(np.abs(spikes.mean(axis=0) - RAMP.ravel()) <= 4 * sigma)
    assert set(np.unique(spikes)) == {0, 1}


def test_rate_is_independent_from_step_to_step():
    spikes = encode_rate(np.full((1, 1, 1, 1), 0.5), 4000, 1.0, seed=1).ravel().astype(int)
    assert np.mean(spikes[1:] & spikes[:-1]) == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 4000))


def test_rate_repeats_for_a_seed_and_sample_whatever_their_number():
    images = np.full((3, 1, 2, 4), 0.5)
    three, one = encode_rate(images, 50, 1.0, seed=7), encode_rate(images[:1], 50, 1.0, seed=7)
    np.testing.assert_array_equal(three[:1], one)
    assert (three[0] != three[1]).any()
    assert (one != encode_rate(images[:1], 50, 1.0, seed=8)).any()
    assert (one != encode_rate(images[:1], 50, 1.0, seed=7, stream=1)).any()


def test_latency_spikes_once_and_earlier_for_brighter():
    spikes = encode_latency(RAMP, 9, 1.0)[0, :, 0, 0]
    assert spikes.sum(axis=0).tolist() == [0, 1, 1, 1]
    assert spikes.argmax(axis=0).tolist() == [0, 6, 4, 0]


def test_latency_counts_values_above_full_scale_as_full():
    assert encode_latency(RAMP, 5, 0.25)[0, 0, 0, 0].tolist() == [0, 1, 1, 1]


@given(st.lists(st.integers(0, 255), min_size=1, max_size=20), st.integers(1, 30))
def test_latency_never_reverses_the_order_of_brightness(values, n_timesteps):
    image = np.array(values, np.uint8).reshape(1, 1, 1, -1)
    spikes = encode_latency(image, n_timesteps, 255)[0, :, 0, 0]
    assert spikes.sum(axis=0).tolist() == [int(value > 0) for value in values]
    order = [step for value, step in sorted(zip(values, spikes.argmax(axis=0).tolist(), strict=True)) if value]
    assert order == sorted(order, reverse=True)


def test_delta_spikes_where_the_signal_changes_by_the_threshold():
    signal = np.array([1.0, 3.0, 3.5, 0.5, 0.5, 1.5]).reshape(1, 6, 1, 1, 1)
    changes = encode_delta(signal, 1.0)
    assert changes.ravel().tolist() == [0, 1, 0, -1, 0, 1]
    falls, rises = split_polarity(changes)[0, :, :, 0, 0].T.tolist()
    assert (falls, rises) == ([0, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 1])


def test_delta_of_unsigned_frames_does_not_wrap():
    frames = np.array([200, 10, 250], np.uint8).reshape(1, 3, 1, 1, 1)
    assert encode_delta(frames, 100).ravel().tolist() == [0, -1, 1]


def test_latency_and_delta_agree_with_snntorch():
    torch, spikegen = pytest.importorskip("torch"), pytest.importorskip("snntorch.spikegen")
    image = np.random.default_rng(0).uniform(0.02, 1, (1, 2, 5, 5))
    theirs = spikegen.latency(torch.tensor(image[0]), num_steps=16, normalize=True, linear=True).numpy()
    np.testing.assert_array_equal(encode_latency(image, 16, 1.0)[0], theirs)
    signal = np.random.default_rng(1).normal(size=(20, 2, 3, 3))
    theirs = spikegen.delta(torch.tensor(signal), threshold=0.7, padding=True, off_spike=True).numpy()
    np.testing.assert_array_equal(encode_delta(signal[None], 0.7)[0], theirs)


def test_images_of_a_file_become_spikes_by_the_setting(read):
    images = np.arange(8, dtype=np.uint8).reshape(2, 1, 2, 2)
    data, calibration = read((1, 2, 2), 8, {"images": images, "labels": [1, 2]}, encoding="latency")
    assert (data.coding, data.scale, data.values.shape, calibration) == ("spikes", 1.0, (2, 8, 1, 2, 2), None)
    assert data.values[1].argmax(axis=0).ravel().tolist() == [3, 2, 1, 0]
    assert data.labels.tolist() == [1, 2]


def test_calibration_images_share_the_full_scale_and_have_draws_of_their_own(read):
    images = np.full((1, 4), 0.5)
    arrays = {"images": images, "calibration_images": images}
    data, calibration = read((4, 1, 1), 500, arrays, encoding="rate", encoding_max=1.0)
    assert calibration.values.mean() == pytest.approx(0.5, abs=0.05)
    assert (data.values != calibration.values).any()
    _, full = read((4, 1, 1), 5, arrays, encoding="rate")
    assert full.values.min() == 1


@pytest.mark.parametrize(("frame", "n_samples"), [((3, 6, 1, 2, 2), 3), ((6, 1, 2, 2), 1), ((3, 6, 2, 2), 3)])
def test_frames_of_half_the_channels_are_split_by_polarity(read, frame, n_samples):
    frames = np.random.default_rng(0).normal(size=frame)
    data, _ = read((2, 2, 2), None, {"images": frames}, encoding="delta", delta_threshold=0.5)
    expected = split_polarity(encode_delta(frames.reshape(n_samples, 6, 1, 2, 2), 0.5))
    np.testing.assert_array_equal(data.values, expected)


def test_rising_frames_need_no_second_channel(read):
    frames = np.cumsum(np.ones((5, 4)), axis=0)
    data, _ = read((4, 1, 1), None, {"images": frames}, encoding="delta", delta_threshold=1)
    assert data.values[0, :, 0, 0, 0].tolist() == [0, 1, 1, 1, 1]


IMAGES = {"images": np.ones((2, 4))}


@pytest.mark.parametrize(
    ("settings", "arrays", "message"),
    [
        ({"encoding": "rate"}, IMAGES, "encoding 'rate' has no length of its own; give --timesteps"),
        (
            {"encoding": "latency"},
            {"images": -np.ones((1, 4))},
            "'images' holds -1; encoding 'latency' needs values of at least 0",
        ),
        (
            {"encoding": "delta"},
            IMAGES,
            "encoding 'delta' needs workload.delta_threshold, the smallest change that spikes",
        ),
        (
            {"encoding": "delta", "delta_threshold": 1.0},
            {"images": np.array([[[3, 3, 3, 3], [3, 3, 2, 3]]])},
            "'images' falls by at least 1 at step 1 of sample 0; "
            "falls need channels of their own, a network input of 8 channels",
        ),
        (
            {"encoding": "delta", "delta_threshold": 1.0},
            {"images": np.ones((5, 3))},
            "'images' has shape (5, 3); encoding 'delta' needs (step, 4), with or without a sample axis in front; "
            "or (step, 2), with or without a sample axis in front",
        ),
        (
            {"encoding": "rate"},
            {"spikes": np.ones((5, 4))},
            "workload.encoding is 'rate', which turns images into spikes, but the file holds spikes already; "
            "leave it at 'direct'",
        ),
    ],
)
def test_what_cannot_be_encoded_is_explained(fault, settings, arrays, message):
    assert fault((4, 1, 1), None, arrays, **settings) == f"images.npz: {message}"


def test_encoded_spikes_must_fit_in_memory(fault):
    text = fault((4, 1, 1), 2**30, IMAGES, encoding="rate")
    assert text == "images.npz: 2 x 4 x 1 x 1 values x 1073741824 timesteps are more than 2 GiB of spikes"


def test_a_workload_takes_its_encoding_from_its_settings(tmp_path):
    nir = pytest.importorskip("nir")
    nir.write(tmp_path / "net.nir", nir.NIRGraph.from_list(nir.Linear(np.ones((3, 4), np.float32))))
    np.savez(tmp_path / "images.npz", **IMAGES)
    options = {"input": tmp_path / "images.npz", "timesteps": 6, "settings": {"encoding": "latency"}}
    workload = load_workload(tmp_path / "net.nir", **options)
    assert (workload.input.coding, workload.n_timesteps, int(workload.input.values.sum())) == ("spikes", 6, 8)
    options["settings"] = {"encoding": "rank"}
    with pytest.raises(WorkloadError, match=r"^--set workload.encoding=rank: encoding is 'rank'; it must be 'direct'"):
        load_workload(tmp_path / "net.nir", **options)

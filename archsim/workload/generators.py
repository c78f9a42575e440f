"""Synthetic spikes from a short text: `poisson:RATE`, `constant:K`, `burst:PERIOD:LENGTH:COUNT`."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from math import prod

import numpy as np

from archsim.errors import WorkloadError
from archsim.workload.model import InputData
from archsim.workload.network import Network
from archsim.workload.npz import MAX_BYTES

USAGE = {"poisson": "poisson:RATE", "constant": "constant:K", "burst": "burst:PERIOD:LENGTH:COUNT"}
MAX_COUNT = 255
_FILE_SUFFIXES = (".npz", ".npy", ".h5", ".hdf5", ".nir")

Frames = Callable[[int, int, np.random.Generator], np.ndarray]
"""(timesteps, neurons, random source) -> counts of shape (step, neuron), uint8."""


def is_generator(text: str) -> bool:
    """Whether the text is meant as a generator, right or wrong, and not as the path of a file."""
    head, colon, _ = text.partition(":")
    is_file = "\\" in text or text.lower().endswith(_FILE_SUFFIXES)
    return text in USAGE or bool(colon and head.isidentifier() and not is_file)


def generate_input(text: str, network: Network, n_timesteps: int, n_samples: int = 1, seed: int = 0) -> InputData:
    """Make spikes for the input of a network.

    - `poisson:RATE`: a neuron spikes in a timestep with probability RATE (0..1), independently; the
      discrete form of a Poisson process, at most one spike per neuron and timestep.
    - `constant:K`: every neuron emits K spikes (0..255) at every timestep.
    - `burst:PERIOD:LENGTH:COUNT`: every neuron emits COUNT spikes (0..255) in the first LENGTH of
      each PERIOD timesteps, and is silent in the others.

    Sample i is the same whatever the number of samples; the same seed gives the same spikes.

    Raises:
        WorkloadError: The text is not a generator, or the spikes would not fit in memory.
    """
    frames = _parse(text)
    n_neurons = prod(network.input_shape)
    if n_timesteps < 1 or n_samples < 1:
        raise WorkloadError(f"{text}: needs at least 1 timestep and 1 sample, not {n_timesteps} and {n_samples}")
    if n_samples * n_timesteps * n_neurons > MAX_BYTES:
        size = f"{n_samples} samples x {n_timesteps} timesteps x {n_neurons} neurons"
        raise WorkloadError(f"{text}: {size} are more than {MAX_BYTES >> 30} GiB of counts")
    sources = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(n_samples)]
    values = np.stack([frames(n_timesteps, n_neurons, source) for source in sources])
    return InputData(values.reshape(n_samples, n_timesteps, *network.input_shape))


def _parse(text: str) -> Frames:
    kind, *arguments = text.split(":")
    if kind not in USAGE:
        close = difflib.get_close_matches(kind, USAGE, 1)
        advice = f"did you mean {USAGE[close[0]]}?" if close else f"generators are {', '.join(USAGE.values())}"
        raise WorkloadError(f"{text}: unknown generator {kind!r}; {advice}")
    if len(arguments) != USAGE[kind].count(":"):
        raise WorkloadError(f"{text}: a generator is written {USAGE[kind]}")
    makers: dict[str, Callable[[str, list[str]], Frames]] = {
        "poisson": _poisson,
        "constant": _constant,
        "burst": _burst,
    }
    return makers[kind](text, arguments)


def _poisson(text: str, arguments: list[str]) -> Frames:
    try:
        rate = float(arguments[0])
    except ValueError:
        rate = float("nan")
    if not 0 <= rate <= 1:
        raise WorkloadError(f"{text}: RATE is {arguments[0]!r}; it must be a probability from 0 to 1")

    def frames(n_steps: int, n_neurons: int, source: np.random.Generator) -> np.ndarray:
        # Step by step, because the random numbers take eight times the memory of the spikes.
        return np.stack([(source.random(n_neurons) < rate).astype(np.uint8) for _ in range(n_steps)])

    return frames


def _constant(text: str, arguments: list[str]) -> Frames:
    count = _integer(text, "K", arguments[0], 0, MAX_COUNT)
    return lambda n_steps, n_neurons, _: np.full((n_steps, n_neurons), count, np.uint8)


def _burst(text: str, arguments: list[str]) -> Frames:
    period = _integer(text, "PERIOD", arguments[0], 1, 2**31)
    length = _integer(text, "LENGTH", arguments[1], 1, period)
    count = _integer(text, "COUNT", arguments[2], 0, MAX_COUNT)

    def frames(n_steps: int, n_neurons: int, _: np.random.Generator) -> np.ndarray:
        active = np.arange(n_steps) % period < length
        return np.repeat(active[:, None] * np.uint8(count), n_neurons, axis=1)

    return frames


def _integer(text: str, name: str, value: str, lowest: int, highest: int) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 12 and lowest <= int(value) <= highest):
        raise WorkloadError(f"{text}: {name} is {value!r}; it must be a whole number from {lowest} to {highest}")
    return int(value)

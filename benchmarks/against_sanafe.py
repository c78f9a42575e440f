"""archsim and SANA-FE side by side on the same networks: `python benchmarks/against_sanafe.py`.

SANA-FE (`pip install sanafe`, GPL-3, so never a dependency) simulates Loihi, archsim a chip of crossbars: they answer
different questions about the same spikes. Compared are CPU seconds of the simulation, synaptic events per second
(spikes times fan-out), what each calls an event, and peak memory of a process. Both run in processes of their own; a
network is SANA-FE's DVS gesture network with its weights (package data of `sanafe`), or a perceptron with random ones.
Spikes are compared, too; layer l of SANA-FE lags by l timesteps, which archsim's count leaves out.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

import numpy as np

CHIP = "spikesim-rram-64"
N_TIMESTEPS = 100
MESSAGE = "SANA-FE is not installed (pip install sanafe); only archsim ran"


@dataclass(frozen=True)
class Spec:
    """A network of IF neurons that fire above a whole threshold and are reset to zero."""

    input_hwc: tuple[int, int, int]
    biases: np.ndarray
    """What charges each input neuron at every timestep, in order (height, width, channel)."""
    thresholds: list[int]
    """Of the input neurons, then layer by layer."""
    weights: tuple[np.ndarray, ...]
    """Whole numbers, (kernel height, kernel width, in, out) of a convolution or (in, out)."""
    strides: tuple[int, ...]
    cores: tuple[int, ...]
    """Cores of Loihi that the input and each layer are spread over."""


def dvs_gesture() -> Spec:
    """The network of SANA-FE's tutorial, with the cores that it suggests."""
    data = np.load(files("sanafe") / "examples/dvs_challenge.npz")
    weights = tuple(data[name] for name in ("conv1", "conv2", "conv3", "conv4", "dense1"))
    thresholds = data["thresholds"].tolist()
    return Spec((32, 32, 1), data["inputs"], thresholds, weights, (2, 1, 1, 1, 1), (1, 4, 16, 16, 4, 1))


def perceptron() -> Spec:
    """784-500-10 with random weights; inputs fire at rates around 0.15."""
    rng = np.random.default_rng(0)
    weights = (rng.integers(-20, 30, (784, 500)), rng.integers(-20, 24, (500, 10)))
    return Spec((28, 28, 1), rng.integers(10, 70, 784), [255, 400, 400], weights, (1, 1), (1, 1, 1))


NETWORKS = {"dvs-gesture": dvs_gesture, "mlp-784-500-10": perceptron}


def run_sanafe(spec: Spec) -> dict[str, Any]:
    import sanafe
    from sanafe import layers

    arch, network = sanafe.load_loihi(), sanafe.Network()
    height, width, channels = spec.input_hwc
    stack: list[Any] = [layers.Input2D(network, width, height, channels, threshold=spec.thresholds[0])]
    for weights, stride, threshold in zip(spec.weights, spec.strides, spec.thresholds[1:], strict=True):
        if weights.ndim == 4:
            strides = {"stride_width": stride, "stride_height": stride}
            stack.append(layers.Conv2D(network, stack[-1], weights, **strides, threshold=threshold))
        else:
            stack.append(layers.Dense(network, stack[-1], weights.shape[1], weights, threshold=threshold))
    for neuron, bias in zip(stack[0], spec.biases.tolist(), strict=True):
        neuron.set_attributes(model_attributes={"bias": bias})
    cores, first = arch.cores(), 0
    for layer, n_cores in zip(stack, spec.cores, strict=True):
        for index, neuron in enumerate(layer):
            neuron.map_to_core(cores[first + index * n_cores // len(layer)])
        first += n_cores
    chip = sanafe.SpikingChip(arch)
    chip.load(network)
    began = time.process_time()
    found = chip.sim(N_TIMESTEPS, processing_threads=1)
    seconds = time.process_time() - began
    events = {"synaptic_events": found["spikes"], "events": found["packets_sent"], "event": "message"}
    return {"seconds": seconds, "fired": found["neurons_fired"], **events}


def run_archsim(spec: Spec) -> dict[str, Any]:
    import archsim
    from archsim.api import record
    from archsim.workload.model import InputData, Workload

    network, inputs = _network(spec), _input_spikes(spec)
    weighted = Workload("network", network, N_TIMESTEPS, InputData(inputs[None].astype(np.int8)))
    recording = record(weighted)
    replay = Workload("network", network, N_TIMESTEPS, None, recording=recording)
    archsim.simulate(archsim.load_hardware(CHIP), replay, engine="compiled")  # loads the kernel
    began = time.process_time()
    result = archsim.simulate(archsim.load_hardware(CHIP), replay, engine="compiled")
    seconds = time.process_time() - began
    spikes = [inputs[None], *(recording.spikes[layer.name] for layer in network.layers)]
    fired = sum(int(part[0, : N_TIMESTEPS - lag].sum()) for lag, part in enumerate(spikes))
    synaptic = result.summary["effective_acs"] + result.summary["effective_macs"]
    events = {"synaptic_events": synaptic, "events": result.summary["n_services"], "event": "service"}
    return {"seconds": seconds, "fired": fired, **events}


def _network(spec: Spec) -> Any:
    """The network as archsim has it: channels first."""
    from archsim.workload.network import Layer, Network, NeuronModel

    height, width, channels = spec.input_hwc
    shape, source = (channels, height, width), "input"
    layers: list[Layer] = []
    for number, (raw, stride) in enumerate(zip(spec.weights, spec.strides, strict=True), start=1):
        one, none = np.ones((1, 1, 1)), np.zeros((1, 1, 1))
        neuron = NeuronModel("if", one, one, one * (spec.thresholds[number] + 1), none, none, reset="zero")
        if raw.ndim == 4:
            weights, kind, size = raw.transpose(3, 2, 0, 1), "conv2d", (raw.shape[0], raw.shape[1])
        else:
            rows = raw.reshape(shape[1], shape[2], shape[0], -1).transpose(3, 2, 0, 1)
            weights, kind, size = rows.reshape(raw.shape[1], -1, 1, 1), "linear", (1, 1)
            shape = (raw.shape[0], 1, 1)
        wiring = (shape, weights.shape[0], size, (stride, stride), (0, 0))
        layer = Layer(f"layer{number}", kind, source, *wiring, weights.astype(np.float64), None, neuron)
        layers.append(layer)
        shape, source = layer.out_shape, layer.name
    return Network("network", (channels, height, width), tuple(layers))


def _input_spikes(spec: Spec) -> np.ndarray:
    """Spikes of the input neurons, shape (step, channel, height, width)."""
    potential, spikes = np.zeros(spec.biases.shape), []
    for _ in range(N_TIMESTEPS):
        potential = potential + spec.biases
        spikes.append(potential > spec.thresholds[0])
        potential[spikes[-1]] = 0
    return np.array(spikes).reshape(N_TIMESTEPS, *spec.input_hwc).transpose(0, 3, 1, 2)


def main() -> None:
    if len(sys.argv) > 1:
        found = {"archsim": run_archsim, "SANA-FE": run_sanafe}[sys.argv[1]](NETWORKS[sys.argv[2]]())
        found["mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps(found))
        return
    is_installed = find_spec("sanafe") is not None
    for name in NETWORKS if is_installed else ("mlp-784-500-10",):
        for tool in ("archsim", "SANA-FE") if is_installed else ("archsim",):
            command = [sys.executable, __file__, tool, name]
            lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
            found = json.loads(lines[-1])
            print(
                f"{name}, {N_TIMESTEPS} timesteps, {tool}: {found['seconds']:.2f} s, {found['fired']:,} spikes, "
                f"{found['synaptic_events'] / found['seconds'] / 1e6:.1f} M synaptic events/s, "
                f"{found['events'] / found['seconds'] / 1e6:.2f} M {found['event']}s/s, peak {found['mib']:,} MiB",
                flush=True,
            )
    if not is_installed:
        print(MESSAGE)


if __name__ == "__main__":
    main()

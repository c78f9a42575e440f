"""Finds what a network does on a chip, and how right it is.

`infer_network` pushes the whole labelled input through the mapped chip (raw and calibrated) and through
the ideal network, and keeps the activity of the first samples for timing. `run_ideal` is the network
without hardware.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from archsim.activity import Accuracy, Activity, ChipAccuracy, LayerActivity
from archsim.analog.devices import ChipSeed
from archsim.analog.layer import InputFormat, ProgrammedLayer
from archsim.errors import WorkloadError
from archsim.inference.chip import (
    ChipLayer,
    drawn_power_w,
    fit,
    ideal_products,
    program,
    row_format,
    run_chip,
    run_layer,
    with_bias,
    with_full_scale,
    without_gains,
)
from archsim.inference.flow import (
    Arrived,
    LayerRun,
    State,
    fire,
    last_layer,
    layer_input,
    outputs_of,
    pooled,
    run_network,
)
from archsim.inference.judging import Judge
from archsim.mapping import AnyMapping, ArrayLayer, LayerMapping
from archsim.workload.attention import require_products
from archsim.workload.model import InputData, Workload
from archsim.workload.network import INPUT, Layer, Network

MAX_BATCH = 128
"""Samples evaluated at a time, at most."""
BATCH_ELEMENTS = 1 << 24
"""Values of the largest layer over all timesteps in one batch, at most."""
MAX_CHIPS = 10_000
"""Chips of one Monte Carlo run, at most."""
MAX_CALIBRATION = 256
"""Calibration samples used, at most."""

Progress = Callable[[str, float], None]
"""Called with the name of a phase and the fraction of it that is done."""


@dataclass(frozen=True)
class IdealRun:
    """What a network does without hardware."""

    spikes: dict[str, np.ndarray]
    """Per layer the spikes before pooling, shape (sample, step, channel, height, width)."""
    outputs_over_time: np.ndarray
    """Spike counts after pooling so far, or potentials of a readout, float64, shape (sample, step, class)."""

    @property
    def outputs(self) -> np.ndarray:
        """Outputs after the last timestep, shape (sample, class)."""
        return self.outputs_over_time[:, -1]


def run_ideal(network: Network, values: np.ndarray, n_timesteps: int, input_scale: float = 1.0) -> IdealRun:
    """Run the network in float64 without quantisation or crossbars.

    Args:
        network: A network with weights.
        values: Input integers, shape (sample, step, channel, height, width); one step is repeated.
        n_timesteps: Timesteps to run.
        input_scale: Real value of one input integer.

    Returns:
        Spikes of every layer and the network's outputs.

    Raises:
        WorkloadError: A product layer does not fit what it reads.
    """
    require_products(network)

    def run(index: int, arrived: Arrived, n_steps: int, state: State | None) -> LayerRun:
        layer = network.layers[index]
        scale = input_scale if layer.source == INPUT else 1.0
        sums = with_bias(layer, ideal_products(layer, arrived.values, scale, arrived.operand)) + arrived.joined
        return fire(layer, sums, n_steps, state)

    runs = run_network(network.layers, values, n_timesteps, run)
    spikes = {layer.name: run.spikes.numpy() for layer, run in zip(network.layers, runs, strict=True)}
    last = last_layer(network.layers)
    return IdealRun(spikes, outputs_of(network.layers[last], runs[last]))


def infer_network(
    mapping: AnyMapping,
    workload: Workload,
    samples: int = 1,
    seed: int = 0,
    chips: int = 1,
    progress: Progress | None = None,
) -> Activity:
    """Find what a network with weights does on this chip, and how right it is.

    Accuracy is evaluated over the whole labelled input three times: `ideal` (float64, no hardware),
    `raw` (mapped, quantised, converted) and `calibrated` (with the digital gains of
    `mapping.calibration`). The recorded activity is that of the first chip, calibrated, or raw where
    calibration is none. Further chips have devices of their own; each is calibrated by itself.

    Args:
        mapping: The network on the chip.
        workload: The same network with its input.
        samples: First samples of the input to record.
        seed: Seed of everything random.
        chips: Chips whose accuracy is evaluated.
        progress: Called after every batch.

    Returns:
        Activity of the recorded samples and accuracy over all samples, mean over chips.

    Raises:
        WorkloadError: There is no input, or fewer samples or timesteps than asked for.
    """
    torch.set_num_threads(1)
    data = checked_input(workload, samples)
    calibration, notes = _calibration_set(workload, data)
    if not 1 <= chips <= MAX_CHIPS:
        raise WorkloadError(f"chips is {chips}; it must be 1 to {MAX_CHIPS}.")
    if chips > 1 and data.labels is None:
        raise WorkloadError(
            f"workload '{workload.name}' has no labels, so {chips} chips cannot be compared; give labels or chips: 1."
        )
    rows, judge = _input_format(mapping, data, calibration), Judge.of(mapping.hardware)
    with torch.inference_mode():
        chip = _calibrate(mapping, workload, calibration, rows, ChipSeed(seed), progress)
        activity = _evaluate(chip, workload, data, samples, judge, notes, progress)
        found = list(activity.accuracy.chips)
        for number in range(1, chips):
            chip = _calibrate(mapping, workload, calibration, rows, ChipSeed(seed, number), None)
            found.append(_chip_accuracy(chip, workload, data, judge))
            if progress is not None:
                progress("chips", (number + 1) / chips)
    return replace(activity, accuracy=_over_chips(activity.accuracy, found))


def calibrated_chip(mapping: AnyMapping, workload: Workload, chip: ChipSeed) -> list[ChipLayer]:
    """The layers of one chip as `infer_network` runs them: written and fitted to the calibration batch.

    Raises:
        WorkloadError: There is no input, or it has too few timesteps.
    """
    data = checked_input(workload, 1)
    calibration, _ = _calibration_set(workload, data)
    with torch.no_grad():
        return _calibrate(mapping, workload, calibration, _input_format(mapping, data, calibration), chip, None)


def checked_input(workload: Workload, samples: int) -> InputData:
    """The workload's input, once it is there and long enough; a WorkloadError says what is missing."""
    data = workload.input
    if data is None:
        raise WorkloadError(f"workload '{workload.name}' has weights but no input; give one with --input.")
    if not 1 <= samples <= data.n_samples:
        raise WorkloadError(f"workload '{workload.name}' holds {data.n_samples} samples; {samples} were asked for.")
    for part in (data, workload.calibration):
        if part is not None and part.coding == "spikes" and part.values.shape[1] < workload.n_timesteps:
            raise WorkloadError(
                f"the input of workload '{workload.name}' has {part.values.shape[1]} timesteps; "
                f"timesteps is {workload.n_timesteps}. Lower it or give a longer input."
            )
    return data


def _calibration_set(workload: Workload, data: InputData) -> tuple[InputData, tuple[str, ...]]:
    """Samples for converter ranges and gains, and a note where they are the evaluated ones."""
    if workload.calibration is not None:
        own = workload.calibration
        return replace(own, values=own.values[: _batch_size(workload, MAX_CALIBRATION)], labels=None), ()
    values = data.values[: _batch_size(workload, MAX_CALIBRATION)]
    note = (
        f"the workload ships no calibration set: converter ranges and gains are fitted to the first {len(values)} "
        "samples of the evaluated input"
    )
    return replace(data, values=values, labels=None), (note,)


def _input_format(mapping: AnyMapping, *parts: InputData) -> InputFormat:
    """Format of the network's input, wide enough for every sample; MAC units take it as wide as it is."""
    low = min(int(part.values.min(initial=0)) for part in parts)
    high = max(int(part.values.max(initial=0)) for part in parts)
    policy = mapping.hardware.policy
    if policy.first_layer == "digital":
        policy = policy.model_copy(update={"input_coding": "bit_serial", "input_bits": "auto"})
    return row_format(policy, low, high)


def _over_chips(first: Accuracy, chips: list[ChipAccuracy]) -> Accuracy:
    """Mean accuracy of all chips; the ideal network is the same for all."""
    if len(chips) < 2:
        return first
    fitted = [chip.calibrated for chip in chips if chip.calibrated is not None]
    raw = sum(chip.raw for chip in chips) / len(chips)
    return replace(first, raw=raw, calibrated=sum(fitted) / len(fitted) if fitted else None, chips=tuple(chips))


def _chip_accuracy(chip: list[ChipLayer], workload: Workload, data: InputData, judge: Judge) -> ChipAccuracy:
    """How many samples a further chip has right."""
    assert data.labels is not None, "only labelled inputs come with several chips"
    n_right = {"raw": 0, "calibrated": 0}
    raw_chip, calibrates = [without_gains(layer) for layer in chip], _has_gains(chip)
    for first, end in _batches(workload, data.n_samples):
        values = _steps(replace(data, values=data.values[first:end]), workload.n_timesteps)
        for name, layers in (("raw", raw_chip), ("calibrated", chip)):
            if name == "raw" or calibrates:
                outputs = _chip_outputs(layers, run_chip(layers, values, workload.n_timesteps))
                n_right[name] += judge.n_right(outputs, data.labels[first:end])
    raw, calibrated = n_right["raw"] / data.n_samples, n_right["calibrated"] / data.n_samples
    return ChipAccuracy(raw, calibrated if calibrates else None)


def _has_gains(chip: list[ChipLayer]) -> bool:
    return any(layer.crossbars is not None and layer.crossbars.gains is not None for layer in chip)


def _calibrate(
    mapping: AnyMapping,
    workload: Workload,
    data: InputData,
    rows: InputFormat,
    seed: ChipSeed,
    progress: Progress | None,
) -> list[ChipLayer]:
    """Program the chip and fit it layer by layer, each on what the layers before (with exact V_mem) feed it."""
    network, n_timesteps = mapping.network, workload.n_timesteps
    chip = []
    layers: Sequence[LayerMapping | ArrayLayer] = mapping.layers
    for number, mapped in enumerate(layers):
        written = _programming(progress, number, len(layers))
        chip.append(program(mapping, mapped, data.scale, rows, seed, written))
    values = _steps(data, n_timesteps)
    if any(layer.delayed for layer in network.layers):
        ideal = run_ideal(network, values, n_timesteps, data.scale).spikes
        for index, layer in enumerate(chip):
            operand = None if layer.layer.operand is None else _ideal_emission(network, layer.layer.operand, ideal)
            chip[index] = fit(layer, _ideal_input(network, layer.layer, values, ideal), operand)
        largest = [run.largest_state for run in run_chip(chip, values, n_timesteps)]
        return [with_full_scale(layer, size) for layer, size in zip(chip, largest, strict=True)]

    def run(index: int, arrived: Arrived, n_steps: int, state: State | None) -> LayerRun:
        chip[index] = fit(chip[index], arrived.values, arrived.operand)
        done = run_layer(chip[index], arrived, n_steps, state)
        chip[index] = with_full_scale(chip[index], done.largest_state)
        return done

    run_network(network.layers, values, n_timesteps, run)
    return chip


def _programming(progress: Progress | None, layer: int, n_layers: int) -> Callable[[int, int], None] | None:
    """Progress of writing one layer of several."""
    if progress is None:
        return None
    return lambda done, total: progress("programming", (layer + done / total) / n_layers)


def _ideal_input(network: Network, layer: Layer, values: np.ndarray, spikes: dict[str, np.ndarray]) -> Tensor:
    """What a layer would read if the layers before were ideal."""
    if layer.source == INPUT:
        return layer_input(layer, torch.as_tensor(np.ascontiguousarray(values)))
    source = _ideal_emission(network, layer.source, spikes)
    if layer.delayed:
        source = torch.cat([torch.zeros_like(source[:, :1]), source[:, :-1]], dim=1)
    return layer_input(layer, source)


def _ideal_emission(network: Network, name: str, spikes: dict[str, np.ndarray]) -> Tensor:
    return pooled(torch.as_tensor(spikes[name]), network.layer(name).pool)


def _evaluate(
    chip: list[ChipLayer],
    workload: Workload,
    data: InputData,
    samples: int,
    judge: Judge,
    notes: tuple[str, ...],
    progress: Progress | None,
) -> Activity:
    """Run ideal, raw and calibrated over the whole input, batch by batch."""
    calibrates, raw_chip = _has_gains(chip), [without_gains(layer) for layer in chip]
    recorder = _Recorder(chip, samples)
    n_taken = 0
    n_right = {"ideal": 0, "raw": 0, "calibrated": 0}
    last = data.n_samples if data.labels is not None else samples
    for first, end in _batches(workload, last):
        values = _steps(replace(data, values=data.values[first:end]), workload.n_timesteps)
        hardware = recorder.add(run_chip(chip, values, workload.n_timesteps, compares=True))
        n_taken += int(judge.exits(hardware).sum())
        if data.labels is not None:
            raw = _chip_outputs(raw_chip, run_chip(raw_chip, values, workload.n_timesteps)) if calibrates else hardware
            ideal = run_ideal(workload.network, values, workload.n_timesteps, data.scale).outputs_over_time
            labels = data.labels[first:end]
            for name, outputs in (("ideal", ideal), ("raw", raw), ("calibrated", hardware)):
                n_right[name] += judge.n_right(outputs, labels)
        if progress is not None:
            progress("inference", end / last)
    accuracy = Accuracy(mean_timesteps=None if judge.confidence is None else n_taken / last)
    if data.labels is not None:
        fractions = {name: count / last for name, count in n_right.items()}
        calibrated = fractions["calibrated"] if calibrates else None
        only = ChipAccuracy(fractions["raw"], calibrated)
        accuracy = replace(
            accuracy,
            ideal=fractions["ideal"],
            raw=fractions["raw"],
            calibrated=calibrated,
            n_samples=last,
            chips=(only,),
        )
    outputs = recorder.outputs()
    return Activity(
        layers=recorder.layers(),
        n_samples=samples,
        n_timesteps=workload.n_timesteps,
        kind="inferred",
        accuracy=accuracy,
        outputs=judge.answers(outputs),
        exits=None if judge.confidence is None else judge.exits(outputs),
        notes=notes,
    )


@dataclass(frozen=True)
class _KeptRun:
    """What is recorded of a layer's run."""

    inputs: Tensor
    operand: Tensor | None
    spikes: Tensor
    n_clipped_inputs: int
    n_clipped_operands: int
    n_adc_clips: int
    n_saturations: int


class _Recorder:
    """Keeps the first samples of a run, and error statistics of all of them."""

    def __init__(self, chip: list[ChipLayer], samples: int) -> None:
        self._chip = chip
        self._kept: dict[str, list[_KeptRun]] = {layer.layer.name: [] for layer in chip}
        self._errors = {layer.layer.name: np.zeros(2) for layer in chip}
        self._outputs: list[np.ndarray] = []
        self._n_missing = samples

    def add(self, runs: list[LayerRun]) -> np.ndarray:
        """Take in one batch; returns its outputs after every timestep."""
        outputs = _chip_outputs(self._chip, runs)
        keep = min(self._n_missing, len(outputs))
        for layer, run in zip(self._chip, runs, strict=True):
            self._errors[layer.layer.name] += (run.squared_error, run.squared_ideal)
            if keep:
                self._kept[layer.layer.name].append(_first_samples(run, keep))
        if keep:
            self._outputs.append(outputs[:keep])
        self._n_missing -= keep
        return outputs

    def outputs(self) -> np.ndarray:
        """Outputs of the recorded samples after every timestep, shape (sample, step, class)."""
        return np.concatenate(self._outputs)

    def layers(self) -> dict[str, LayerActivity]:
        """Activity of every layer."""
        return {layer.layer.name: self._layer(layer) for layer in self._chip}

    def _layer(self, layer: ChipLayer) -> LayerActivity:
        runs = self._kept[layer.layer.name]
        error, ideal = self._errors[layer.layer.name]
        inputs = torch.cat([run.inputs for run in runs])
        operands = [run.operand for run in runs if run.operand is not None]
        operand = torch.cat(operands) if operands else None
        seen = LayerActivity(
            inputs=smallest_dtype(inputs.numpy()),
            spikes=smallest_dtype(torch.cat([run.spikes for run in runs]).numpy()),
            operand=None if operand is None else smallest_dtype(operand.numpy()),
            clipped_inputs=sum(run.n_clipped_inputs for run in runs),
            clipped_operands=sum(run.n_clipped_operands for run in runs),
            adc_clips=sum(run.n_adc_clips for run in runs),
            error_rel=float(np.sqrt(error / ideal)) if ideal > 0 else None,
            v_mem_saturations=sum(run.n_saturations for run in runs),
        )
        if layer.crossbars is None:
            return seen
        return _with_circuit(seen, layer.crossbars, drawn_power_w(layer, inputs, operand))


def _with_circuit(seen: LayerActivity, crossbars: ProgrammedLayer, power_w: Tensor | None) -> LayerActivity:
    """What only layers on crossbars have: clipped biases, gain, non-ideality, power of reads."""
    shares = crossbars.effective.energy_shares
    return replace(
        seen,
        clipped_biases=crossbars.clipped_biases,
        gain=float(crossbars.gains.mean()) if crossbars.gains is not None else None,
        nf=crossbars.effective.nf,
        read_power_w=None if power_w is None else power_w.numpy(),
        energy_shares=None if shares is None else shares.numpy(),
    )


def _chip_outputs(chip: list[ChipLayer], runs: list[LayerRun]) -> np.ndarray:
    last = last_layer([layer.layer for layer in chip])
    return outputs_of(chip[last].layer, runs[last])


def _first_samples(run: LayerRun, n_samples: int) -> _KeptRun:
    """What is recorded of the first samples, in memory of its own so that the batch can be freed."""
    assert run.inputs is not None, "only chip runs are recorded"
    return _KeptRun(
        inputs=run.inputs[:n_samples].clone(),
        operand=None if run.operand is None else run.operand[:n_samples].clone(),
        spikes=run.spikes[:n_samples].clone(),
        n_clipped_inputs=_sum_of_first(run.n_clipped_inputs, n_samples),
        n_clipped_operands=_sum_of_first(run.n_clipped_operands, n_samples),
        n_adc_clips=_sum_of_first(run.n_adc_clips, n_samples),
        n_saturations=_sum_of_first(run.n_saturations, n_samples),
    )


def _sum_of_first(counts: Tensor | int, n_samples: int) -> int:
    return int(counts[:n_samples].sum()) if isinstance(counts, Tensor) else counts


def _steps(data: InputData, n_timesteps: int) -> np.ndarray:
    """Input values, one step for direct coding, n_timesteps otherwise."""
    return data.values[:, :1] if data.coding == "direct" else data.values[:, :n_timesteps]


def _batches(workload: Workload, n_samples: int) -> Iterator[tuple[int, int]]:
    """First and last + 1 sample of batches that fit in memory."""
    size = _batch_size(workload, MAX_BATCH)
    for first in range(0, n_samples, size):
        yield first, min(first + size, n_samples)


def _batch_size(workload: Workload, limit: int) -> int:
    """Samples that may be held at once, up to a limit."""
    largest = max(max(layer.n_neurons, int(np.prod(layer.in_shape))) for layer in workload.network.layers)
    return min(limit, max(1, BATCH_ELEMENTS // (largest * workload.n_timesteps)))


def smallest_dtype(values: np.ndarray) -> np.ndarray:
    """The same integers in uint8, int16 or int32, whichever suffices first."""
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    for dtype in (np.uint8, np.int16):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return values.astype(dtype)
    return values.astype(np.int32)

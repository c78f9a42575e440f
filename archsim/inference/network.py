"""Runs a network through the analog core and records what happened, layer by layer.

`infer_network` pushes the whole labelled input through the mapped chip (raw and calibrated) and through the
ideal network, and keeps the activity of the first samples for timing. `run_ideal` is the network
without hardware. Layers are processed one after the other over all timesteps, since the networks
feed forward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from archsim.activity import Accuracy, Activity, LayerActivity
from archsim.analog.neurons import filter_current, load_neuron, potential_full_scale, quantize_potential, step
from archsim.analog.product import (
    InputFormat,
    LayerGeometry,
    ProgrammedLayer,
    calibrate_ranges,
    fit_gains,
    hardware_sums,
    program_layer,
)
from archsim.errors import SimulationError, WorkloadError
from archsim.hardware.models import MappingPolicy
from archsim.mapping.model import LayerMapping, Mapping
from archsim.workload.model import InputData, Workload
from archsim.workload.network import INPUT, Layer, Network, Pool

MAX_BATCH = 128
"""Samples evaluated at a time, at most."""
BATCH_ELEMENTS = 1 << 24
"""Values of the largest layer over all timesteps in one batch, at most."""
MAX_CALIBRATION = 256
"""Calibration samples used, at most."""

Progress = Callable[[int, int], None]
"""Called with samples done and samples in all."""


@dataclass(frozen=True)
class IdealRun:
    """What a network does without hardware."""

    spikes: dict[str, np.ndarray]
    """Per layer the spikes before pooling, shape (sample, step, channel, height, width)."""
    outputs: np.ndarray
    """Spike counts after pooling, or final potentials of a readout, float64, shape (sample, class)."""


@dataclass(frozen=True)
class _State:
    """What neurons keep between timesteps: potentials and synaptic currents, (sample, channel, height, width)."""

    potential: Tensor
    current: Tensor


@dataclass(frozen=True)
class _Arrived:
    """What reaches a layer: integers for its rows, and what joins its weighted sums (0 for nothing)."""

    values: Tensor
    joined: Tensor


@dataclass(frozen=True)
class _LayerRun:
    """Values of one layer for one batch; spikes before pooling."""

    spikes: Tensor
    sums: Tensor
    """Weighted sums with bias and all that joins, shape (sample, step or 1, channel, height, width)."""
    state: _State
    """After the last timestep."""
    largest_state: float
    n_saturations: Tensor
    """Per sample, like the two below."""
    inputs: Tensor | None = None
    n_clipped_inputs: Tensor | int = 0
    n_adc_clips: Tensor | int = 0
    squared_error: float = 0.0
    squared_ideal: float = 0.0


RunLayer = Callable[[int, _Arrived, int, _State | None], _LayerRun]
"""Runs the layer of an index over a number of timesteps, from a state (None: rest)."""


@dataclass(frozen=True)
class _ChipLayer:
    """A layer on the chip: its cells, the format of its inputs, its V_mem store."""

    layer: Layer
    programmed: ProgrammedLayer
    policy: MappingPolicy
    input_scale: float
    """Real value of one input integer."""
    first_rows: InputFormat | None
    """Format of the network's input, known beforehand; None for layers fed by spikes."""
    v_mem_bits: int
    v_full_scale: float | None = None
    """Full scale of V_mem; None before calibration, when potentials are exact."""


def run_ideal(network: Network, values: np.ndarray, n_timesteps: int, input_scale: float = 1.0) -> IdealRun:
    """Run the network in float64 without quantisation or crossbars.

    Args:
        network: A network with weights.
        values: Input integers, shape (sample, step, channel, height, width); one step is repeated.
        n_timesteps: Timesteps to run.
        input_scale: Real value of one input integer.

    Returns:
        Spikes of every layer and the network's outputs.
    """

    def run(index: int, arrived: _Arrived, n_steps: int, state: _State | None) -> _LayerRun:
        layer = network.layers[index]
        scale = input_scale if layer.source == INPUT else 1.0
        sums = _with_bias(layer, _ideal_products(layer, arrived.values, scale)) + arrived.joined
        return _fire(layer, sums, n_steps, state)

    runs = _run_network(network.layers, values, n_timesteps, run)
    spikes = {layer.name: run.spikes.numpy() for layer, run in zip(network.layers, runs, strict=True)}
    last = _last_layer(network.layers)
    return IdealRun(spikes, _outputs(network.layers[last], runs[last]).numpy())


def infer_network(mapping: Mapping, workload: Workload, samples: int = 1, progress: Progress | None = None) -> Activity:
    """Find what a network with weights does on this chip, and how right it is.

    Accuracy is evaluated over the whole labelled input three times: `ideal` (float64, no hardware),
    `raw` (mapped, quantised, converted) and `calibrated` (with the digital gains of
    `mapping.calibration`). The recorded activity is that of the calibrated chip, of the raw one
    where calibration is none.

    Args:
        mapping: The network on the chip.
        workload: The same network with its input.
        samples: First samples of the input to record.
        progress: Called after every batch.

    Returns:
        Activity of the recorded samples and accuracy over all samples.

    Raises:
        WorkloadError: There is no input, or fewer samples or timesteps than asked for.
    """
    torch.set_num_threads(1)
    data = checked_input(workload, samples)
    calibration, notes = _calibration_set(workload, data)
    with torch.inference_mode():
        chip = _calibrate(mapping, workload, calibration, _input_format(mapping, data, calibration))
        return _evaluate(chip, workload, data, samples, notes, progress)


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


def _input_format(mapping: Mapping, *parts: InputData) -> InputFormat:
    """Row format of the network's input, wide enough for every sample."""
    low = min(int(part.values.min(initial=0)) for part in parts)
    high = max(int(part.values.max(initial=0)) for part in parts)
    return _row_format(mapping.hardware.mapping, low, high)


def _row_format(policy: MappingPolicy, low: int, high: int) -> InputFormat:
    """Bits that values from `low` to `high` take under a mapping policy."""
    if policy.input_coding == "binary":
        return InputFormat(1)
    signed = low < 0
    if policy.input_bits != "auto":
        return InputFormat(policy.input_bits, signed)
    magnitude_bits = max(high.bit_length(), (-low - 1).bit_length() if signed else 0)
    return InputFormat(max(1, magnitude_bits) + signed, signed)


def _program(mapping: Mapping, mapped: LayerMapping, input_scale: float, rows: InputFormat) -> _ChipLayer:
    """Write a layer's weights into its crossbars."""
    layer = mapped.layer
    pairs = frozenset((pe.row_block, pe.col_block) for pe in mapped.pes)
    geometry = LayerGeometry(
        mapped.row_blocks, mapped.col_blocks, pairs, layer.stride, layer.padding, layer.conv_shape[1:]
    )
    return _ChipLayer(
        layer=layer,
        programmed=program_layer(_weight_tensor(layer), geometry, mapping.hardware),
        policy=mapping.hardware.mapping,
        input_scale=input_scale if layer.source == INPUT else 1.0,
        first_rows=rows if layer.source == INPUT else None,
        v_mem_bits=mapping.hardware.chip.neuron.v_mem_bits,
    )


def _calibrate(mapping: Mapping, workload: Workload, data: InputData, rows: InputFormat) -> list[_ChipLayer]:
    """Program the chip and fit it layer by layer, each on what the layers before (with exact V_mem) feed it."""
    network, n_timesteps = mapping.network, workload.n_timesteps
    chip = [_program(mapping, mapped, data.scale, rows) for mapped in mapping.layers]
    values = _steps(data, n_timesteps)
    if any(layer.delayed for layer in network.layers):
        ideal = run_ideal(network, values, n_timesteps, data.scale).spikes
        for index, layer in enumerate(chip):
            chip[index] = _fit(layer, _ideal_input(network, layer.layer, values, ideal))
        largest = [run.largest_state for run in _run_chip(chip, values, n_timesteps)]
        return [_with_full_scale(layer, size) for layer, size in zip(chip, largest, strict=True)]

    def run(index: int, arrived: _Arrived, n_steps: int, state: _State | None) -> _LayerRun:
        chip[index] = _fit(chip[index], arrived.values)
        done = _run_layer(chip[index], arrived, n_steps, state)
        chip[index] = _with_full_scale(chip[index], done.largest_state)
        return done

    _run_network(network.layers, values, n_timesteps, run)
    return chip


def _fit(layer: _ChipLayer, values: Tensor) -> _ChipLayer:
    """Fit converter ranges and gains of a layer to what its rows see."""
    inputs, rows, _ = _driven(layer, values)
    frames = inputs.flatten(0, 1)
    return replace(layer, programmed=fit_gains(calibrate_ranges(layer.programmed, frames, rows), frames, rows))


def _with_full_scale(layer: _ChipLayer, largest_state: float) -> _ChipLayer:
    return replace(layer, v_full_scale=potential_full_scale(largest_state))


def _ideal_input(network: Network, layer: Layer, values: np.ndarray, spikes: dict[str, np.ndarray]) -> Tensor:
    """What a layer would read if the layers before were ideal."""
    if layer.source == INPUT:
        return _layer_input(layer, torch.as_tensor(np.ascontiguousarray(values)))
    source = _pooled(torch.as_tensor(spikes[layer.source]), network.layer(layer.source).pool)
    if layer.delayed:
        source = torch.cat([torch.zeros_like(source[:, :1]), source[:, :-1]], dim=1)
    return _layer_input(layer, source)


def _evaluate(
    chip: list[_ChipLayer],
    workload: Workload,
    data: InputData,
    samples: int,
    notes: tuple[str, ...],
    progress: Progress | None,
) -> Activity:
    """Run ideal, raw and calibrated over the whole input, batch by batch."""
    calibrates = any(layer.programmed.gains is not None for layer in chip)
    raw_chip = [replace(layer, programmed=replace(layer.programmed, gains=None)) for layer in chip]
    recorder = _Recorder(chip, samples)
    n_right = {"ideal": 0, "raw": 0, "calibrated": 0}
    last = data.n_samples if data.labels is not None else samples
    for first, end in _batches(workload, last):
        values = _steps(replace(data, values=data.values[first:end]), workload.n_timesteps)
        hardware = recorder.add(_run_chip(chip, values, workload.n_timesteps))
        if data.labels is not None:
            raw = _chip_outputs(raw_chip, _run_chip(raw_chip, values, workload.n_timesteps)) if calibrates else hardware
            ideal = run_ideal(workload.network, values, workload.n_timesteps, data.scale).outputs
            labels = data.labels[first:end]
            for name, outputs in (("ideal", ideal), ("raw", raw), ("calibrated", hardware)):
                n_right[name] += int((outputs.argmax(1) == labels).sum())
        if progress is not None:
            progress(end, last)
    accuracy = Accuracy()
    if data.labels is not None:
        fractions = {name: count / last for name, count in n_right.items()}
        accuracy = Accuracy(fractions["ideal"], fractions["raw"], fractions["calibrated"] if calibrates else None, last)
    return Activity(
        layers=recorder.layers(),
        n_samples=samples,
        n_timesteps=workload.n_timesteps,
        kind="inferred",
        accuracy=accuracy,
        outputs=recorder.outputs(),
        notes=notes,
    )


@dataclass(frozen=True)
class _KeptRun:
    """What is recorded of a layer's run."""

    inputs: Tensor
    spikes: Tensor
    n_clipped_inputs: int
    n_adc_clips: int
    n_saturations: int


class _Recorder:
    """Keeps the first samples of a run, and error statistics of all of them."""

    def __init__(self, chip: list[_ChipLayer], samples: int) -> None:
        self._chip = chip
        self._samples = samples
        self._kept: dict[str, list[_KeptRun]] = {layer.layer.name: [] for layer in chip}
        self._errors = {layer.layer.name: np.zeros(2) for layer in chip}
        self._outputs: list[np.ndarray] = []
        self._n_missing = samples

    def add(self, runs: list[_LayerRun]) -> np.ndarray:
        """Take in one batch; returns its outputs."""
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
        """Outputs of the recorded samples, shape (sample, class)."""
        return np.concatenate(self._outputs)

    def layers(self) -> dict[str, LayerActivity]:
        """Activity of every layer."""
        return {layer.layer.name: self._layer(layer) for layer in self._chip}

    def _layer(self, layer: _ChipLayer) -> LayerActivity:
        runs = self._kept[layer.layer.name]
        error, ideal = self._errors[layer.layer.name]
        gains = layer.programmed.gains
        return LayerActivity(
            inputs=smallest_dtype(torch.cat([run.inputs for run in runs]).numpy()),
            spikes=smallest_dtype(torch.cat([run.spikes for run in runs]).numpy()),
            clipped_inputs=sum(run.n_clipped_inputs for run in runs),
            adc_clips=sum(run.n_adc_clips for run in runs),
            error_rel=float(np.sqrt(error / ideal)) if ideal > 0 else None,
            gain=float(gains.mean()) if gains is not None else None,
            v_mem_saturations=sum(run.n_saturations for run in runs),
        )


def _run_chip(chip: list[_ChipLayer], values: np.ndarray, n_timesteps: int) -> list[_LayerRun]:
    """Run every layer on one batch of input integers, shape (sample, step or 1, channel, height, width)."""

    def run(index: int, arrived: _Arrived, n_steps: int, state: _State | None) -> _LayerRun:
        return _run_layer(chip[index], arrived, n_steps, state)

    return _run_network([layer.layer for layer in chip], values, n_timesteps, run)


def _run_network(layers: Sequence[Layer], values: np.ndarray, n_timesteps: int, run: RunLayer) -> list[_LayerRun]:
    """Run the layers in order of data flow: over all timesteps at once, or step by step where spikes come back."""
    inputs = torch.as_tensor(np.ascontiguousarray(values))
    if not any(layer.delayed for layer in layers):
        return _run_pass(layers, inputs, n_timesteps, run, {}, {})[0]
    parts: list[list[_LayerRun]] = []
    states: dict[str, _State] = {}
    before = {layer.name: torch.zeros(inputs.shape[0], 1, *layer.out_shape, dtype=torch.int32) for layer in layers}
    for step_index in range(n_timesteps):
        now = inputs[:, min(step_index, inputs.shape[1] - 1)].unsqueeze(1)
        runs, before = _run_pass(layers, now, 1, run, states, before)
        states = {layer.name: part.state for layer, part in zip(layers, runs, strict=True)}
        parts.append(runs)
    return [_in_sequence([runs[index] for runs in parts]) for index in range(len(layers))]


def _run_pass(
    layers: Sequence[Layer],
    inputs: Tensor,
    n_timesteps: int,
    run: RunLayer,
    states: dict[str, _State],
    before: dict[str, Tensor],
) -> tuple[list[_LayerRun], dict[str, Tensor]]:
    """One pass through the layers; delayed ones read `before` and so come first. Returns what each emits, too."""
    emitted: dict[str, Tensor] = {INPUT: inputs}
    sums: dict[str, Tensor] = {}
    runs: dict[int, _LayerRun] = {}
    for index in sorted(range(len(layers)), key=lambda index: not layers[index].delayed):
        layer = layers[index]
        source = before[layer.source] if layer.delayed else emitted[layer.source]
        joined = torch.zeros(())
        for name in layer.adds:
            joined = joined + sums.get(name, emitted[name])
        done = run(index, _Arrived(_layer_input(layer, source), joined), n_timesteps, states.get(layer.name))
        runs[index] = done
        emitted[layer.name] = _pooled(done.spikes, layer.pool)
        if layer.neuron.kind == "none":
            sums[layer.name] = done.sums
    return [runs[index] for index in range(len(layers))], emitted


def _in_sequence(parts: list[_LayerRun]) -> _LayerRun:
    """Runs of single timesteps as one run."""
    inputs = [part.inputs for part in parts if part.inputs is not None]
    return _LayerRun(
        spikes=torch.cat([part.spikes for part in parts], dim=1),
        sums=torch.cat([part.sums for part in parts], dim=1),
        state=parts[-1].state,
        largest_state=max(part.largest_state for part in parts),
        n_saturations=torch.stack([part.n_saturations for part in parts]).sum(0),
        inputs=torch.cat(inputs, dim=1) if inputs else None,
        n_clipped_inputs=sum(part.n_clipped_inputs for part in parts),
        n_adc_clips=sum(part.n_adc_clips for part in parts),
        squared_error=sum(part.squared_error for part in parts),
        squared_ideal=sum(part.squared_ideal for part in parts),
    )


def _run_layer(layer: _ChipLayer, arrived: _Arrived, n_timesteps: int, state: _State | None) -> _LayerRun:
    """Run one layer; a single input step (direct coding) is read again at every timestep, with the same result."""
    inputs, rows, clipped = _driven(layer, arrived.values)
    n_samples, n_steps = inputs.shape[:2]
    repeats = n_timesteps // n_steps
    frame_sums, clips = hardware_sums(layer.programmed, inputs.flatten(0, 1), rows)
    products = (frame_sums * layer.input_scale).unflatten(0, (n_samples, n_steps))
    ideal = _ideal_products(layer.layer, inputs, layer.input_scale)
    sums = _with_bias(layer.layer, products) + arrived.joined
    done = _fire(layer.layer, sums, n_timesteps, state, layer.v_full_scale, layer.v_mem_bits)
    if not bool(torch.isfinite(done.state.potential).all()):
        raise SimulationError(f"layer '{layer.layer.name}': a membrane potential is not finite; check its weights")
    return replace(
        done,
        inputs=inputs.expand(-1, n_timesteps, -1, -1, -1) if n_steps == 1 else inputs,
        n_clipped_inputs=clipped * repeats,
        n_adc_clips=clips.view(n_samples, n_steps).sum(1) * repeats,
        squared_error=float((products - ideal).square().sum()),
        squared_ideal=float(ideal.square().sum()),
    )


def _driven(layer: _ChipLayer, values: Tensor) -> tuple[Tensor, InputFormat, Tensor]:
    """Integers as rows carry them, how, and how many per sample were clipped."""
    rows = layer.first_rows
    if rows is None:
        rows = _row_format(layer.policy, 0, int(values.max()) if values.numel() else 0)
    inputs = values.to(torch.int32).clamp(*rows.limits)
    return inputs, rows, (inputs != values).flatten(1).sum(1)


def _layer_input(layer: Layer, values: Tensor) -> Tensor:
    """Values of the feeding layer in this layer's shape (a linear layer flattens channel-major)."""
    return values.reshape(*values.shape[:2], *layer.in_shape)


def _ideal_products(layer: Layer, inputs: Tensor, scale: float) -> Tensor:
    """Products with the real weights, without bias."""
    frames = inputs.flatten(0, 1).to(torch.float64) * scale
    products = functional.conv2d(frames, _weight_tensor(layer), stride=layer.stride, padding=layer.padding)
    return products.unflatten(0, inputs.shape[:2])


def _with_bias(layer: Layer, sums: Tensor) -> Tensor:
    if layer.bias is None:
        return sums
    return sums + torch.as_tensor(np.array(layer.bias, np.float64)).view(-1, 1, 1)


def _weight_tensor(layer: Layer) -> Tensor:
    return torch.as_tensor(np.array(layer.full_weights, np.float64))


def _fire(
    layer: Layer,
    sums: Tensor,
    n_timesteps: int,
    state: _State | None,
    v_full_scale: float | None = None,
    v_mem_bits: int = 0,
) -> _LayerRun:
    """Update neurons over the timesteps, from a state or from rest (0); one step of sums serves all timesteps.

    State is stored in `v_mem_bits` where a full scale is given, else exactly. Neurons of kind `none`
    do nothing: their sums join elsewhere.
    """
    shape = (sums.shape[0], *sums.shape[2:])
    saturations = torch.zeros(sums.shape[0], dtype=torch.int64)
    emitted = torch.zeros(sums.shape[0], n_timesteps, *sums.shape[2:], dtype=torch.int32)
    v, current = (torch.zeros(shape, dtype=torch.float64) for _ in range(2))
    if layer.neuron.kind == "none":
        return _LayerRun(emitted, sums, _State(v, current), 0.0, saturations)
    if state is not None:
        v, current = state.potential, state.current
    neuron = load_neuron(layer.neuron)
    has_current = neuron.synapse_decay is not None
    largest = 0.0
    for index in range(n_timesteps):
        current = filter_current(current, sums[:, min(index, sums.shape[1] - 1)], neuron)
        v, spikes = step(v, current, neuron)
        if v_full_scale is not None:
            v, saturated = quantize_potential(v, v_full_scale, v_mem_bits)
            saturations += saturated.flatten(1).sum(1)
            if has_current:
                current, saturated = quantize_potential(current, v_full_scale, v_mem_bits)
                saturations += saturated.flatten(1).sum(1)
        largest = max(largest, float(v.abs().max()), float(current.abs().max()) if has_current else 0.0)
        emitted[:, index] = spikes.to(torch.int32)
    return _LayerRun(emitted, sums, _State(v, current), largest, saturations)


def _pooled(spikes: Tensor, pool: Pool | None) -> Tensor:
    """Sums of spike counts over pooling windows, int32."""
    if pool is None:
        return spikes
    frames = spikes.flatten(0, 1).to(torch.float32)
    sums = functional.avg_pool2d(frames, pool.kernel, pool.stride, divisor_override=1)
    return sums.to(torch.int32).unflatten(0, spikes.shape[:2])


def _last_layer(layers: Sequence[Layer]) -> int:
    """Index of the layer whose output is the network's: the last one with neurons."""
    return max(index for index, layer in enumerate(layers) if layer.neuron.kind != "none")


def _outputs(layer: Layer, run: _LayerRun) -> Tensor:
    """What a last layer tells: potentials of a readout, else spike counts; shape (sample, class)."""
    is_readout = layer.neuron.kind == "accumulate"
    values = run.state.potential if is_readout else _pooled(run.spikes, layer.pool).sum(1)
    return values.flatten(1).to(torch.float64)


def _chip_outputs(chip: list[_ChipLayer], runs: list[_LayerRun]) -> np.ndarray:
    last = _last_layer([layer.layer for layer in chip])
    return _outputs(chip[last].layer, runs[last]).numpy()


def _first_samples(run: _LayerRun, n_samples: int) -> _KeptRun:
    """What is recorded of the first samples, in memory of its own so that the batch can be freed."""
    assert run.inputs is not None, "only chip runs are recorded"
    return _KeptRun(
        inputs=run.inputs[:n_samples].clone(),
        spikes=run.spikes[:n_samples].clone(),
        n_clipped_inputs=_sum_of_first(run.n_clipped_inputs, n_samples),
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

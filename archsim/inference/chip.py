"""One layer on the chip: programming it, fitting it to a calibration batch, running it.

Entry points: `program`, `fit`, `run_layer`, `run_chip`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from archsim.analog.arrays import Progress
from archsim.analog.calibration import calibrate_ranges, fit_gains
from archsim.analog.devices import ChipSeed
from archsim.analog.digital import DigitalLayer, digital_sums, program_digital
from archsim.analog.layer import DEFAULT_CHIP, InputFormat, LayerGeometry, ProgrammedLayer
from archsim.analog.neurons import potential_full_scale
from archsim.analog.product import hardware_sums, read_power_w
from archsim.analog.programming import program_layer, program_operand
from archsim.errors import MappingError, SimulationError
from archsim.hardware.policy import MappingPolicy
from archsim.hardware.systolic import SystolicArray
from archsim.inference.flow import Arrived, LayerRun, State, fire, run_network
from archsim.mapping import AnyMapping, ArrayLayer, LayerMapping
from archsim.mapping.rules import shared_channels
from archsim.workload.network import INPUT, Layer, Shape

_ANY_WIDTH = InputFormat(31)
"""How a digital product unit takes values: as they are."""


@dataclass(frozen=True)
class ChipLayer:
    """A layer on the chip: its cells or digital weights, the format of its inputs, its V_mem store."""

    layer: Layer
    programmed: ProgrammedLayer | DigitalLayer | None
    """None for products of two activities in a digital unit, which holds nothing."""
    policy: MappingPolicy
    row_shape: Shape
    """Shape of the inputs as rows are ordered: that of a streamed layer's map, else the layer's."""
    input_scale: float
    """Real value of one input integer."""
    first_rows: InputFormat | None
    """Format of the network's input, known beforehand; None for layers fed by spikes."""
    v_mem_bits: int
    n_shared: int
    """Channels that share a neuron unit."""
    v_full_scale: float | None = None
    """Full scale of V_mem; None before calibration, when potentials are exact."""

    @property
    def crossbars(self) -> ProgrammedLayer | None:
        """The layer's crossbars and converters; None where digital units do its work."""
        return self.programmed if isinstance(self.programmed, ProgrammedLayer) else None

    @property
    def is_noisy(self) -> bool:
        """Whether the same inputs give other sums at every timestep; those of a layer that is read once do not."""
        is_read_once = self.layer.source == INPUT and self.policy.first_layer == "once"
        return self.crossbars is not None and self.crossbars.is_noisy and not is_read_once

    @property
    def n_bias_rows(self) -> int:
        """Bias rows; 0 where biases are added digitally."""
        return 0 if self.crossbars is None else self.crossbars.n_bias_rows


def program(
    mapping: AnyMapping,
    mapped: LayerMapping | ArrayLayer,
    input_scale: float,
    rows: InputFormat,
    chip: ChipSeed = DEFAULT_CHIP,
    progress: Progress | None = None,
) -> ChipLayer:
    """Write a layer's weights into its crossbars, and where they have bias rows its biases; or into MAC units.

    A driven bias row counts like an input integer of 1, so its cells hold bias / input_scale. `progress`
    is called with crossbars done and in all. Operands of products are written when they are there.
    """
    layer, hardware = mapped.layer, mapping.hardware
    scale = input_scale if layer.source == INPUT else 1.0
    programmed: ProgrammedLayer | DigitalLayer | None
    if isinstance(mapped, ArrayLayer) or isinstance(hardware, SystolicArray):
        weight_bits = hardware.policy.weight_bits
        programmed = program_digital(_weight_tensor(layer), weight_bits, layer.stride, layer.padding)
    elif layer.kind == "product":
        shape = (layer.out_channels, layer.in_shape[0])
        programmed = None
        if not mapped.is_digital:
            programmed = program_operand(shape, layer.groups, _geometry(mapped), hardware, layer.name, chip)
    elif mapped.is_digital:
        weight_bits = hardware.policy.weight_bits
        programmed = program_digital(_weight_tensor(layer), weight_bits, layer.stride, layer.padding)
    else:
        bias = _bias_tensor(layer) / scale if mapped.n_bias_rows else None
        weights, cut = _weight_tensor(mapped.row_layer), _geometry(mapped)
        programmed = program_layer(weights, cut, hardware, bias, layer.name, chip, progress)
    return ChipLayer(
        layer=layer,
        programmed=programmed,
        policy=hardware.policy,
        row_shape=layer.in_shape if isinstance(mapped, ArrayLayer) else mapped.row_layer.in_shape,
        input_scale=scale,
        first_rows=rows if layer.source == INPUT else None,
        v_mem_bits=hardware.chip.neuron.v_mem_bits,
        n_shared=shared_channels(hardware, layer),
    )


def rewritten(mapping: AnyMapping, mapped: LayerMapping | ArrayLayer, fitted: ChipLayer, chip: ChipSeed) -> ChipLayer:
    """A layer of another chip, or with other weights, with the converter ranges, gains and V_mem store of a fitted one.

    Args:
        mapping: The network on the chip, with the weights to write.
        mapped: The layer there, cut as the fitted one is.
        fitted: The layer as it was fitted.
        chip: Which chip to write to.
    """
    rows = fitted.first_rows or InputFormat(1)  # of other layers rows show what they take
    layer = program(mapping, mapped, fitted.input_scale, rows, chip)
    old = fitted.crossbars
    if layer.crossbars is None or old is None:
        return replace(layer, v_full_scale=fitted.v_full_scale)
    programmed = replace(layer.crossbars, ranges=old.ranges, gains=old.gains, normalisation=old.normalisation)
    return replace(layer, programmed=programmed, v_full_scale=fitted.v_full_scale)


def _geometry(mapped: LayerMapping) -> LayerGeometry:
    pairs = frozenset((pe.row_block, pe.col_block) for pe in mapped.pes)
    layer = mapped.row_layer
    cut = (mapped.row_blocks, mapped.col_blocks, pairs)
    outputs = {(pe.row_block, pe.col_block): pe.outputs for pe in mapped.pes if pe.outputs is not None}
    slides = (layer.stride, layer.padding, layer.conv_shape[1:])
    return LayerGeometry(*cut, *slides, mapped.streamed_map is not None, outputs)


def fit(layer: ChipLayer, values: Tensor, operand: Tensor | None) -> ChipLayer:
    """Fit converter ranges and gains of a layer to what its rows see and to what its cells hold of an operand.

    Digital units have neither.
    """
    if layer.crossbars is None:
        return layer
    inputs, rows, _ = _driven(layer, values)
    frames, matrices = inputs.reshape(-1, *layer.row_shape), _matrices(layer, _held(layer, operand)[0])
    ranged = calibrate_ranges(layer.crossbars, frames, rows, matrices)
    return replace(layer, programmed=fit_gains(ranged, frames, rows, matrices))


def without_gains(layer: ChipLayer) -> ChipLayer:
    """The layer as it is without digital repair."""
    if layer.crossbars is None:
        return layer
    return replace(layer, programmed=replace(layer.crossbars, gains=None, normalisation=None))


def with_full_scale(layer: ChipLayer, largest_state: float) -> ChipLayer:
    """The layer with a V_mem store that takes states up to `largest_state`, with headroom."""
    return replace(layer, v_full_scale=potential_full_scale(largest_state))


def run_chip(chip: list[ChipLayer], values: np.ndarray, n_timesteps: int, compares: bool = False) -> list[LayerRun]:
    """Run every layer on one batch of input integers, shape (sample, step or 1, channel, height, width).

    Sums are compared with the ideal ones only where `compares` asks for it.
    """

    def run(index: int, arrived: Arrived, n_steps: int, state: State | None) -> LayerRun:
        return run_layer(chip[index], arrived, n_steps, state, compares)

    return run_network([layer.layer for layer in chip], values, n_timesteps, run)


def layer_sums(layer: ChipLayer, values: Tensor) -> Tensor:
    """Weighted sums of input integers as the chip delivers them, bias included, in real units.

    Args:
        layer: A layer with weights, fitted.
        values: Integers, shape (sample, step, channel, height, width); the sums are float64 of the same form.
    """
    inputs, rows, _ = _driven(layer, values)
    sums, _ = _sums(layer, inputs.reshape(-1, *layer.row_shape), rows, None)
    products = (sums * layer.input_scale).unflatten(0, inputs.shape[:2])
    return products if layer.n_bias_rows else with_bias(layer.layer, products)


def run_layer(
    layer: ChipLayer, arrived: Arrived, n_timesteps: int, state: State | None, compares: bool = False
) -> LayerRun:
    """Run one layer, and perhaps compare its sums with ideal ones of the same inputs.

    A single input step (direct coding) is read again at every timestep. The result of a read repeats, unless there
    is noise. With `mapping.first_layer: once` it is one read anyway.
    """
    inputs, rows, clipped = _driven(layer, arrived.values)
    if layer.is_noisy and inputs.shape[1] == 1:
        inputs, clipped = inputs.expand(-1, n_timesteps, -1, -1, -1), clipped * n_timesteps
    operand, clipped_operands = _held(layer, arrived.operand)
    n_samples, n_steps = inputs.shape[:2]
    repeats = n_timesteps // n_steps
    frame_sums, clips = _sums(layer, inputs.reshape(-1, *layer.row_shape), rows, operand)
    products = (frame_sums * layer.input_scale).unflatten(0, (n_samples, n_steps))
    sums = (products if layer.n_bias_rows else with_bias(layer.layer, products)) + arrived.joined
    done = fire(layer.layer, sums, n_timesteps, state, layer.v_full_scale, layer.v_mem_bits, layer.n_shared)
    if not bool(torch.isfinite(done.state.potential).all()):
        raise SimulationError(f"layer '{layer.layer.name}': a membrane potential is not finite; check its weights")
    squared_error, squared_ideal = _errors(layer, inputs, products, operand) if compares else (0.0, 0.0)
    return replace(
        done,
        inputs=inputs.expand(-1, n_timesteps, -1, -1, -1) if n_steps == 1 else inputs,
        operand=operand,
        n_clipped_inputs=clipped * repeats,
        n_clipped_operands=clipped_operands,
        n_adc_clips=clips.view(n_samples, n_steps).sum(1) * repeats,
        squared_error=squared_error,
        squared_ideal=squared_ideal,
    )


def _errors(layer: ChipLayer, inputs: Tensor, products: Tensor, operand: Tensor | None) -> tuple[float, float]:
    """Squared error of a layer's products, with the bias where cells hold it, and square of the ideal ones."""
    ideal = ideal_products(layer.layer, inputs, layer.input_scale, operand)
    ideal = with_bias(layer.layer, ideal) if layer.n_bias_rows else ideal
    return float((products - ideal).square().sum()), float(ideal.square().sum())


def drawn_power_w(layer: ChipLayer, inputs: Tensor, operand: Tensor | None) -> Tensor | None:
    """Power of every read of recorded inputs, shape (token, row_block); see `read_power_w`.

    Args:
        layer: The layer.
        inputs: Integers as rows carry them, shape (sample, step, channel, height, width).
        operand: Integers as cells hold them, where the layer has no weights.
    """
    if layer.crossbars is None:
        return None
    _, rows, _ = _driven(layer, inputs)
    return read_power_w(layer.crossbars, inputs.reshape(-1, *layer.row_shape), rows, _matrices(layer, operand))


def _sums(layer: ChipLayer, frames: Tensor, rows: InputFormat, operand: Tensor | None) -> tuple[Tensor, Tensor]:
    """Weighted sums in weights times input integers, and the conversions that clipped in each frame."""
    if isinstance(layer.programmed, ProgrammedLayer):
        return hardware_sums(layer.programmed, frames, rows, _matrices(layer, operand))
    nothing_clipped = torch.zeros(len(frames), dtype=torch.int64)
    if layer.programmed is not None:
        return digital_sums(layer.programmed, frames), nothing_clipped
    assert operand is not None, "only products have nothing programmed"
    exact = layer.layer.products(frames.numpy(), operand.flatten(0, 1).numpy())
    return torch.as_tensor(exact).to(torch.float64), nothing_clipped


def _driven(layer: ChipLayer, values: Tensor) -> tuple[Tensor, InputFormat, Tensor]:
    """Integers as rows carry them, how, and how many per sample were clipped."""
    rows = layer.first_rows if layer.programmed is not None else _ANY_WIDTH
    if rows is None:
        rows = row_format(layer.policy, 0, int(values.max()) if values.numel() else 0)
    inputs = values.to(torch.int32).clamp(*rows.limits)
    return inputs, rows, (inputs != values).flatten(1).sum(1)


def _held(layer: ChipLayer, operand: Tensor | None) -> tuple[Tensor | None, Tensor | int]:
    """An operand as cells hold it, and how many values per sample were clipped; a digital unit takes any size."""
    if operand is None or layer.programmed is None:
        return operand, 0
    held = operand.clamp(0, 2**layer.policy.operand_bits - 1)
    return held, (held != operand).flatten(1).sum(1)


def _matrices(layer: ChipLayer, operand: Tensor | None) -> Tensor | None:
    """What is written to the cells for every frame, shape (frame, out_channel, in_channel / groups)."""
    return None if operand is None else torch.as_tensor(layer.layer.operand_matrix(operand.flatten(0, 1).numpy()))


def row_format(policy: MappingPolicy, low: int, high: int) -> InputFormat:
    """Bits that values from `low` to `high` take under a mapping policy.

    Raises:
        MappingError: Negative values have one bit, and a bias row is to be driven with it.
    """
    if policy.input_coding == "binary":
        return InputFormat(1)
    signed = low < 0
    if policy.input_bits != "auto":
        if signed and policy.input_bits == 1 and policy.bias == "row":
            raise MappingError(
                "mapping.input_bits is 1 and the input has negative values: the only bit is the sign, while "
                "mapping.bias: row drives its row with bit 0 as a one.\n"
                "Set mapping.input_bits to 2 or more, or mapping.bias: digital."
            )
        return InputFormat(policy.input_bits, signed)
    magnitude_bits = max(high.bit_length(), (-low - 1).bit_length() if signed else 0)
    return InputFormat(max(1, magnitude_bits) + signed, signed)


def ideal_products(layer: Layer, inputs: Tensor, scale: float, operand: Tensor | None = None) -> Tensor:
    """Products with the real weights, without bias; with the operand where a layer has none."""
    if operand is not None:
        return torch.as_tensor(layer.products(inputs.numpy(), operand.numpy())).to(torch.float64)
    frames = inputs.flatten(0, 1).to(torch.float64) * scale
    products = functional.conv2d(frames, _weight_tensor(layer), stride=layer.stride, padding=layer.padding)
    return products.unflatten(0, inputs.shape[:2])


def with_bias(layer: Layer, sums: Tensor) -> Tensor:
    """Weighted sums plus the layer's bias, if it has one."""
    if layer.bias is None:
        return sums
    return sums + _bias_tensor(layer).view(-1, 1, 1)


def _bias_tensor(layer: Layer) -> Tensor:
    return torch.as_tensor(np.array(layer.bias, np.float64))


def _weight_tensor(layer: Layer) -> Tensor:
    return torch.as_tensor(np.array(layer.full_weights, np.float64))

"""How robust a network is on a chip: where errors come from, how they grow, and what repairs them, cheapest first.

Values only, nothing is timed: the chip is changed one way at a time and the labelled input runs through the analog
core again. Entry point: `robustness`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from archsim.activity import Accuracy, Activity
from archsim.analysis.candidates import Change
from archsim.analysis.tuning import Tuner, samples_to_learn_from
from archsim.errors import ConfigError, MappingError, WorkloadError
from archsim.hardware.models import Hardware
from archsim.hardware.reader import change_hardware
from archsim.hardware.rollup import pe_parts, unit_parts
from archsim.inference import infer, run_ideal
from archsim.mapping import map_network
from archsim.mapping.model import LayerMapping
from archsim.mapping.model import Mapping as ChipMapping
from archsim.workload.model import Workload

SIZES = (16, 32, 64, 128, 256, 512)
"""Rows and columns of the crossbars that are tried."""
N_TRACED = 32
"""Samples whose spikes are compared timestep by timestep, at most."""

Progress = Callable[[str, float], None]
"""Called with the name of a phase and the fraction of it that is done."""

JOINT = "the best together"
"""Name of the trial of several repairs at once."""
WIDEST_ADC = 14
"""Bits of converters that count as ideal; where the cost library has none of them, the widest that it has."""
N_JOINT = 3
"""Repairs that are tried together, at most."""
_TILES = "chip.tiles"
_CROSSBAR, _DEVICE, _ADC = "tile.pe.crossbar", "tile.pe.crossbar.device", "tile.pe.adc"


@dataclass(frozen=True)
class LayerError:
    """How wrong one layer is."""

    layer: str
    error_rel: float | None
    """Relative RMS error of its weighted sums, inputs as the layers before deliver them on the chip."""
    nf: float | None
    """Share of their current that its columns lose; None where cells are ideal."""
    spike_errors: tuple[float, ...]
    """After each timestep: spikes too many or too few so far, mean over neurons and samples."""


@dataclass(frozen=True)
class Trial:
    """The chip with one change, or what is wrong with it."""

    name: str
    changes: Change
    raw: float | None = None
    """Share of samples classified right, mean over chips; None where the change cannot be made."""
    calibrated: float | None = None
    """The same with digital gains; None without."""
    n_crossbars: int | None = None
    area_um2: float | None = None
    """Area of all PEs and digital units in use."""
    gain_words: int | None = None
    """Numbers that the digital calibration keeps."""
    n_epochs: int = 0
    """How often weights were tuned on each of `n_tuning_samples`; 0: they stay as they are."""
    n_tuning_samples: int = 0
    note: str = ""
    """Why the change cannot be made."""

    @property
    def accuracy(self) -> float | None:
        """What the chip delivers in the end."""
        return self.raw if self.calibrated is None else self.calibrated


@dataclass(frozen=True)
class Robustness:
    """What `robustness` found."""

    ideal: float
    baseline: Trial
    n_samples: int
    budget: float
    layers: tuple[LayerError, ...]
    causes: tuple[Trial, ...]
    """The chip without one of its non-idealities each, the largest gain first."""
    sizes: tuple[Trial, ...]
    """The chip with square crossbars of every size."""
    repairs: tuple[Trial, ...]
    """The chip with one repair each, the cheapest first: by area, then by numbers to keep; then retraining, the only
    one that changes weights; last the best of the others together."""
    notes: tuple[str, ...]
    tuned: Workload | None = None
    """The judged samples with the retrained network; None without one."""

    @property
    def largest_size(self) -> Trial | None:
        """The largest crossbars whose accuracy is within the budget; None if no size is."""
        return next((trial for trial in reversed(self.sizes) if self.is_within(trial)), None)

    @property
    def cheapest_repair(self) -> Trial | None:
        """The first repair that brings accuracy within the budget; None if none does."""
        return next((trial for trial in self.repairs if self.is_within(trial)), None)

    def is_within(self, trial: Trial) -> bool:
        """Whether a chip loses no more than the budget."""
        return trial.accuracy is not None and self.ideal - trial.accuracy <= self.budget + 1e-12


def robustness(
    hardware: Hardware,
    workload: Workload,
    budget: float = 0.01,
    samples: int = 120,
    chips: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
    tuner: Tuner | None = None,
) -> Robustness:
    """Find what makes a network wrong on a chip and what helps.

    Args:
        hardware: The chip.
        workload: A network with weights and its input. Without labels, what the ideal network says counts as right.
        budget: Accuracy that may be lost, as a share of the samples, 0 to 1.
        samples: Samples that are classified, at most.
        chips: Chips with devices of their own that accuracy is a mean over.
        seed: Seed of everything random.
        progress: Called after every trial.
        tuner: Retrains the network, on samples that are not judged; None: that is not tried.

    Raises:
        ConfigError: The budget is outside its range.
        WorkloadError: The network has no weights or no input.
        MappingError: The network does not fit on the chip.
    """
    if not 0 <= budget <= 1:
        raise ConfigError(f"budget is {budget!r}; the accuracy that may be lost is a share from 0 to 1")
    given = workload
    workload, notes = _labelled(workload, samples)
    mapping = map_network(hardware, workload)
    n_traced = min(N_TRACED, _n_samples(workload))
    activity = infer(mapping, workload, n_traced, seed, chips)
    ideal = activity.accuracy.ideal
    assert ideal is not None, "the workload has labels"
    plans = {
        "causes": list(_causes(hardware)),
        "sizes": [(f"{size} x {size}", _size(size)) for size in SIZES],
        "repairs": list(_repairs(hardware)),
    }
    baseline = _trial("as it is", {}, mapping, activity.accuracy)
    n_trials, found = sum(map(len, plans.values())) + 1, dict[str, list[Trial]]()
    for phase, plan in plans.items():
        found[phase] = []
        for name, changes in plan:
            found[phase].append(_tried(name, changes, hardware, workload, chips, seed))
            if progress is not None:
                progress("trials", sum(map(len, found.values())) / n_trials)
    repairs = sorted(found["repairs"], key=_price)
    joint, tuned = _joint(baseline, repairs), None
    if tuner is not None:
        trial, tuned = _retrained(tuner, hardware, given, workload, chips, seed, progress)
        repairs.append(trial)
    if joint:
        repairs.append(_tried(JOINT, joint, hardware, workload, chips, seed))
    return Robustness(
        ideal=ideal,
        baseline=baseline,
        n_samples=_n_samples(workload),
        budget=budget,
        layers=tuple(_layer_errors(workload, activity, n_traced)),
        causes=tuple(sorted(found["causes"], key=lambda trial: -_or_zero(trial.accuracy))),
        sizes=tuple(found["sizes"]),
        repairs=tuple(repairs),
        notes=(*notes, *activity.notes),
        tuned=tuned,
    )


def _labelled(workload: Workload, samples: int) -> tuple[Workload, tuple[str, ...]]:
    """The workload with its first samples only, and with the ideal network's answers where it has no labels."""
    data = workload.input
    if workload.recording is not None or not workload.network.has_weights or data is None:
        raise WorkloadError(
            f"workload '{workload.name}' has no weights or no input, so nothing can be right or wrong; "
            "give a network with weights (.nir) and an input"
        )
    if samples < 1:
        raise WorkloadError(f"samples is {samples}; it must be at least 1")
    count = min(samples, data.n_samples)
    first = replace(data, values=data.values[:count], labels=None if data.labels is None else data.labels[:count])
    if first.labels is not None:
        return replace(workload, input=first), ()
    run = run_ideal(workload.network, first.frame(0, count, workload.n_timesteps), workload.n_timesteps, first.scale)
    note = "the input has no labels: what the ideal network says counts as right"
    return replace(workload, input=replace(first, labels=run.outputs.argmax(1))), (note,)


def _n_samples(workload: Workload) -> int:
    assert workload.input is not None, "checked by _labelled"
    return workload.input.n_samples


def _tried(name: str, changes: Change, hardware: Hardware, workload: Workload, chips: int, seed: int) -> Trial:
    """Accuracy of the changed chip; a change that cannot be made says why."""
    try:
        changed = change_hardware(hardware, changes)
        mapping = map_network(changed, workload)
    except (ConfigError, MappingError) as fault:
        return Trial(name, changes, note=_in_one_line(fault))
    return _trial(name, changes, mapping, infer(mapping, workload, 1, seed, chips).accuracy)


def _retrained(
    tuner: Tuner,
    hardware: Hardware,
    given: Workload,
    judged: Workload,
    chips: int,
    seed: int,
    progress: Progress | None,
) -> tuple[Trial, Workload | None]:
    """Accuracy of the chip with a retrained network, and the judged samples with it; or why it cannot be retrained."""
    name = f"retrained for {tuner.n_epochs} epoch{'s' if tuner.n_epochs > 1 else ''}"
    try:
        taught = samples_to_learn_from(given, _n_samples(judged))
        tuned = replace(judged, network=tuner.tune(hardware, taught, seed, progress))
    except (ConfigError, MappingError, WorkloadError) as fault:
        return Trial(name, {}, note=_in_one_line(fault)), None
    trial = _tried(name, {}, hardware, tuned, chips, seed)
    return replace(trial, n_epochs=tuner.n_epochs, n_tuning_samples=_n_samples(taught)), tuned


def _in_one_line(fault: Exception) -> str:
    return " ".join(str(fault).split())


def _trial(name: str, changes: Change, mapping: ChipMapping, accuracy: Accuracy) -> Trial:
    area = mapping.n_pes * sum(part.area_um2 for part in pe_parts(mapping.hardware))
    area += sum(_digital_area_um2(mapping.hardware, layer) for layer in mapping.layers if layer.is_digital)
    words = sum(_gain_words(layer, mapping.hardware.mapping.calibration) for layer in mapping.layers)
    return Trial(name, changes, accuracy.raw, accuracy.calibrated, mapping.n_crossbars, area, words)


def _digital_area_um2(hardware: Hardware, layer: LayerMapping) -> float:
    """Area of the digital units of a layer."""
    weights = [(unit, layer.layer.n_weights_of(layer.col_blocks[unit.col_block])) for unit in layer.pes]
    return sum(part.area_um2 for unit, n_weights in weights for part in unit_parts(hardware, unit.path, n_weights))


def _gain_words(layer: LayerMapping, scope: str) -> int:
    """Numbers that the calibration of a layer keeps."""
    if layer.is_digital or scope == "none":
        return 0
    pes = [pe for pe in layer.pes if pe.copy == layer.pes[0].copy]
    by_scope = {
        "layer": 1,
        "tile": len(pes),
        "column": sum(layer.width_of(pe) for pe in pes),
        "batch_norm": 1 + 2 * layer.layer.out_channels,
    }
    return by_scope[scope]


def _layer_errors(workload: Workload, activity: Activity, n_traced: int) -> Iterator[LayerError]:
    """Errors of every layer, and of its spikes over time beside the ideal network's."""
    data = workload.input
    assert data is not None, "checked by _labelled"
    ideal = run_ideal(workload.network, data.frame(0, n_traced, workload.n_timesteps), workload.n_timesteps, data.scale)
    for name, layer in activity.layers.items():
        shift = np.cumsum(layer.spikes.astype(np.int64) - ideal.spikes[name].astype(np.int64), axis=1)
        errors = tuple(np.abs(shift).mean(axis=(0, 2, 3, 4)).tolist())
        yield LayerError(name, layer.error_rel, layer.nf, errors)


def _causes(hardware: Hardware) -> Iterator[tuple[str, Change]]:
    """Every non-ideality that the chip has, with the change that takes it away."""
    crossbar, adc = hardware.tile.pe.crossbar, hardware.tile.pe.adc
    physics = crossbar.device.physics
    yield "weights of 8 bits", {"mapping.weight_bits": 8}
    bits = next((wide for wide in range(WIDEST_ADC, adc.bits, -1) if _is_priced(hardware, wide)), None)
    if bits is not None:
        yield f"converters of {bits} bits", {f"{_ADC}.bits": bits}
    yield "potentials of 32 bits", {"chip.neuron.v_mem_bits": 32}
    parts: dict[str, tuple[str, tuple[str, ...], Mapping[str, object]]] = {
        "curved converters": (_ADC, ("inl_lsb",), vars(adc)),
        "offsets and gains of converters": (_ADC, ("offset_sigma_lsb", "gain_sigma_rel"), vars(adc)),
        "noise of converters": (_ADC, ("noise_sigma_lsb",), vars(adc)),
        "resistance of drivers and sense inputs": (_CROSSBAR, ("r_driver_ohm", "r_sense_ohm"), vars(crossbar)),
        "resistance of wires": (_CROSSBAR, ("r_wire_row_ohm", "r_wire_col_ohm"), vars(crossbar)),
        "spread of drivers": (_CROSSBAR, ("driver_sigma_rel",), vars(crossbar)),
        "spread from device to device": (_DEVICE, ("d2d_sigma_rel",), vars(physics)),
        "spread from write to write": (_DEVICE, ("programming_sigma_rel", "c2c_sigma_rel"), vars(physics)),
        "stuck and open cells": (
            _DEVICE,
            tuple(f"{kind}_fraction" for kind in ("stuck_on", "stuck_off", "open", "open_row", "open_col")),
            vars(physics),
        ),
        "age": (_DEVICE, ("age_s",), vars(physics)),
        "read noise": (_DEVICE, ("read_noise_sigma_rel",), vars(physics)),
        "access transistors": (_DEVICE, ("r_access_ohm",), vars(physics)),
    }
    for name, (path, keys, values) in parts.items():
        active = {f"{path}.{key}": 0.0 for key in keys if values[key]}
        if active:
            yield f"no {name}", active
    if physics.nonlinearity != "off":
        yield "no bent I-V curves", {f"{_DEVICE}.nonlinearity": "off"}


def _is_priced(hardware: Hardware, adc_bits: int) -> bool:
    """Whether the cost library knows converters of so many bits."""
    try:
        change_hardware(hardware, {f"{_ADC}.bits": adc_bits})
    except ConfigError:
        return False
    return True


def _size(size: int) -> Change:
    """Square crossbars, with as many tiles and converters as that takes."""
    return {f"{_CROSSBAR}.rows": size, f"{_CROSSBAR}.cols": size, _TILES: "auto"}


def _repairs(hardware: Hardware) -> Iterator[tuple[str, Change]]:
    """What might help, as far as the chip does not have it."""
    crossbar, adc, policy = hardware.tile.pe.crossbar, hardware.tile.pe.adc, hardware.mapping
    for scope in ("layer", "tile", "column", "batch_norm"):
        if policy.calibration != scope:
            yield f"digital gains: {scope}", {"mapping.calibration": scope}
    for scope in ("tile", "column"):
        if adc.range == "calibrated" and adc.range_scope != scope:
            yield f"converter ranges: {scope}", {f"{_ADC}.range_scope": scope}
    for more in (1, 2):
        if adc.bits + more <= 16:
            yield f"converters of {adc.bits + more} bits", {f"{_ADC}.bits": adc.bits + more}
    if policy.unused_cells != "open":
        yield "unused cells open", {"mapping.unused_cells": "open"}
    for end, side in (("drive", "rows driven"), ("sense", "columns sensed")):
        if getattr(crossbar, end) == "one_side":
            yield f"{side} from both ends", {f"{_CROSSBAR}.{end}": "both_sides"}
    for signed in ("differential", "differential_arrays", "offset"):
        if crossbar.signed != signed:
            of_pairs = {} if signed == "offset" else {"mapping.encoding": "standard", "mapping.polarity": "as_is"}
            yield f"signs: {signed}", {f"{_CROSSBAR}.signed": signed, _TILES: "auto", **of_pairs}
    if not crossbar.signed.startswith("differential"):
        for name, key, value in (
            ("cells at higher resistance", "encoding", "high_resistance"),
            ("crossbars of swapped polarity", "polarity", "per_crossbar"),
        ):
            if getattr(policy, key) != value:
                yield name, {f"mapping.{key}": value}
    if crossbar.device.physics.age_s > 0:
        yield "written again", {f"{_DEVICE}.age_s": 0.0}
    half = crossbar.rows // 2
    if half >= 8 and crossbar.rows == crossbar.cols:
        yield f"crossbars of {half} x {half}", _size(half)
    if policy.first_layer != "digital":
        yield "digital first layer", {"mapping.first_layer": "digital"}


def _joint(baseline: Trial, repairs: list[Trial]) -> dict[str, object]:
    """The best repairs that touch different keys and keep the size of the crossbars; empty if fewer than two help."""
    helping = [trial for trial in repairs if _or_zero(trial.accuracy) > _or_zero(baseline.accuracy)]
    joint: dict[str, object] = {}
    n_joined = 0
    for trial in sorted(helping, key=lambda trial: -_or_zero(trial.accuracy)):
        free = not (set(trial.changes) - {_TILES}) & set(joint)
        if free and f"{_CROSSBAR}.rows" not in trial.changes and n_joined < N_JOINT:
            joint |= trial.changes
            n_joined += 1
    return joint if n_joined > 1 else {}


def _or_zero(value: float | None) -> float:
    return 0.0 if value is None else value


def _price(trial: Trial) -> tuple[bool, float, int]:
    """What a repair costs, for sorting; those that cannot be made come last."""
    return trial.accuracy is None, _or_zero(trial.area_um2), trial.gain_words or 0

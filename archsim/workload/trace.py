"""Workload traces: the spikes of every layer, timestep and sample in one versioned file.

A trace is an npz archive: `archsim_trace` holds a JSON header (the network's shapes, settings,
figures that need the weights), the other arrays hold the network's input and each layer's spikes.
It holds no weights; only how many of them are not zero, per input and kernel position.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from archsim.errors import WorkloadError
from archsim.workload.attention import require_products
from archsim.workload.model import Recording, Workload, WorkloadSettings
from archsim.workload.network import INPUT, Layer, Network, NeuronModel, Pool, Shape
from archsim.workload.npz import read_npz

FORMAT_VERSION = 1
MAX_WEIGHTS = 1 << 30
MAX_KERNEL_POSITIONS = 1 << 14
HEADER = "archsim_trace"
_SIZE = Annotated[int, Field(ge=1, le=1 << 24)]
_NAME = Annotated[str, Field(min_length=1, max_length=200)]
_SIDE = Annotated[int, Field(ge=1, le=4096)]
_PAIR = tuple[_SIDE, _SIDE]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)


class _LayerHeader(_Model):
    name: _NAME
    kind: Literal["conv2d", "linear", "product"]
    source: _NAME
    in_shape: tuple[_SIZE, _SIZE, _SIZE]
    out_channels: _SIZE
    kernel: _PAIR
    stride: _PAIR
    padding: tuple[Annotated[int, Field(ge=0, le=4096)], Annotated[int, Field(ge=0, le=4096)]]
    neuron: Literal["if", "lif", "threshold", "accumulate", "none", "count"]
    state_words: Literal[1, 2] = 1
    pool_kernel: _PAIR | None = None
    pool_stride: _PAIR | None = None
    groups: _SIZE = 1
    delayed: bool = False
    adds: tuple[_NAME, ...] = ()
    operand: _NAME | None = None
    transpose: bool = False
    has_bias: bool = False
    error_rel: float | None = None


class _Header(_Model):
    format_version: int
    name: _NAME
    source: str = ""
    network: _NAME
    input_shape: tuple[_SIZE, _SIZE, _SIZE]
    n_timesteps: _SIZE
    layers: tuple[_LayerHeader, ...] = Field(min_length=1, max_length=10_000)
    settings: dict[str, float | str | None] = {}
    accuracy: dict[Literal["ideal", "raw", "calibrated", "n_samples"], float | None] = {}
    notes: tuple[str, ...] = ()
    pooling: Literal["sum", "any"] = "sum"


def write_trace(path: Path, workload: Workload, recording: Recording) -> None:
    """Write a trace; same recording, same bytes.

    Raises:
        WorkloadError: The file cannot be written.
    """
    try:
        header = _header(workload, recording)
    except ValidationError as err:
        fault = err.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise WorkloadError(f"workload '{workload.name}' cannot be stored as a trace: {place}: {fault['msg']}") from err
    arrays = {HEADER: np.frombuffer(header.model_dump_json().encode(), np.uint8), INPUT: recording.inputs}
    for number, layer in enumerate(workload.network.layers):
        arrays[f"spikes_{number}"] = recording.spikes[layer.name]
        fan_out = _fan_out(layer)
        if fan_out is not None:
            arrays[f"fan_out_{number}"] = fan_out
    if recording.outputs is not None:
        arrays["outputs"] = recording.outputs
    try:
        _write_npz(path, arrays)
    except OSError as err:
        raise WorkloadError(f"{path}: cannot be written ({err.strerror}). Choose another -o.") from err


def is_trace(path: Path) -> bool:
    """Whether a file is an archive with a trace header; what else is wrong with it is not asked here."""
    try:
        with zipfile.ZipFile(path) as archive:
            return f"{HEADER}.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError):
        return False


def read_trace(path: Path) -> Workload:
    """Read a trace as a workload that is replayed.

    Raises:
        WorkloadError: Damaged, of another version, or with arrays that do not fit the network.
    """
    arrays = read_npz(path)
    header = _read_header(path, arrays)
    layers = tuple(_layer(path, item, arrays.get(f"fan_out_{number}")) for number, item in enumerate(header.layers))
    network = Network(header.network, header.input_shape, layers)
    _check_graph(path, network)
    inputs = _array(path, arrays, INPUT, (header.n_timesteps, *network.input_shape), None)
    spikes = {
        layer.name: _array(path, arrays, f"spikes_{number}", (header.n_timesteps, *layer.conv_shape), len(inputs))
        for number, layer in enumerate(layers)
    }
    recording = Recording(
        inputs=inputs,
        spikes=spikes,
        outputs=_outputs(path, arrays.get("outputs"), len(inputs)),
        accuracy={str(key): value for key, value in header.accuracy.items()},
        errors_rel={item.name: item.error_rel for item in header.layers},
        notes=header.notes,
        pooling=header.pooling,
    )
    known = {key: value for key, value in header.settings.items() if key in WorkloadSettings.__dataclass_fields__}
    settings = WorkloadSettings(**known)  # type: ignore[arg-type]
    return Workload(
        header.name, network, header.n_timesteps, None, settings=settings, source=header.source, recording=recording
    )


def _header(workload: Workload, recording: Recording) -> _Header:
    return _Header(
        format_version=FORMAT_VERSION,
        name=workload.name,
        source=workload.source,
        network=workload.network.name,
        input_shape=workload.network.input_shape,
        n_timesteps=workload.n_timesteps,
        layers=tuple(_layer_header(layer, recording) for layer in workload.network.layers),
        settings={key: value for key, value in vars(workload.settings).items() if isinstance(value, (int, float, str))},
        accuracy={key: value for key, value in recording.accuracy.items()},  # type: ignore[misc]
        notes=recording.notes,
        pooling=recording.pooling,
    )


def _layer_header(layer: Layer, recording: Recording) -> _LayerHeader:
    return _LayerHeader(
        name=layer.name,
        kind=layer.kind,
        source=layer.source,
        in_shape=layer.in_shape,
        out_channels=layer.out_channels,
        kernel=layer.kernel,
        stride=layer.stride,
        padding=layer.padding,
        neuron=layer.neuron.kind,
        state_words=2 if layer.neuron.state_words == 2 else 1,
        pool_kernel=layer.pool.kernel if layer.pool else None,
        pool_stride=layer.pool.stride if layer.pool else None,
        groups=layer.groups,
        delayed=layer.delayed,
        adds=layer.adds,
        operand=layer.operand,
        transpose=layer.transpose,
        has_bias=layer.bias is not None,
        error_rel=recording.errors_rel.get(layer.name),
    )


def _fan_out(layer: Layer) -> np.ndarray | None:
    weights = layer.full_weights
    return layer.fan_out if weights is None else np.count_nonzero(weights, axis=0).astype(np.int32)


def _read_header(path: Path, arrays: dict[str, np.ndarray]) -> _Header:
    if HEADER not in arrays:
        raise WorkloadError(f"{path}: no trace of archsim; make one with archsim record")
    if arrays[HEADER].dtype != np.uint8 or arrays[HEADER].ndim != 1:
        raise WorkloadError(f"{path}: the header of the trace is damaged (not a list of bytes)")
    try:
        fields: Any = json.loads(arrays[HEADER].tobytes().decode())
        version = fields.get("format_version") if isinstance(fields, dict) else None
        if version != FORMAT_VERSION or isinstance(version, bool):
            raise WorkloadError(
                f"{path}: trace of format {version!r}; this archsim reads {FORMAT_VERSION}. Record it again."
            )
        return _Header.model_validate(fields)
    except ValidationError as err:
        fault = err.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise WorkloadError(f"{path}: header of the trace: {place}: {fault['msg']}") from err
    except (ValueError, RecursionError) as err:
        raise WorkloadError(f"{path}: the header of the trace is damaged ({err})") from err


def _layer(path: Path, header: _LayerHeader, fan_out: np.ndarray | None) -> Layer:
    pool = None
    if header.pool_kernel is not None:
        pool = Pool(header.pool_kernel, header.pool_stride or header.pool_kernel)
    shape = (header.in_shape[0], *header.kernel)
    if fan_out is not None and (fan_out.shape != shape or fan_out.dtype.kind not in "iu" or fan_out.min(initial=0) < 0):
        raise WorkloadError(
            f"{path}: fan-out of layer {header.name!r} has shape {fan_out.shape}; expected {shape} counts"
        )
    nothing, one = np.zeros(1), np.ones(1)
    two_words = header.state_words == 2
    neuron = NeuronModel(
        header.neuron, one, one, one, nothing, nothing, synapse_decay=one if two_words else None, synapse_gain=one
    )
    layer = Layer(
        header.name,
        header.kind,
        header.source,
        header.in_shape,
        header.out_channels,
        header.kernel,
        header.stride,
        header.padding,
        None,
        np.zeros(header.out_channels) if header.has_bias else None,
        neuron,
        pool,
        fan_out=fan_out,
        groups=header.groups,
        delayed=header.delayed,
        adds=header.adds,
        operand=header.operand,
        transpose=header.transpose,
    )
    if min(layer.out_shape) < 1 or header.in_shape[0] % header.groups or header.out_channels % header.groups:
        raise WorkloadError(f"{path}: layer {header.name!r} has no valid shape ({layer.in_shape} to {layer.out_shape})")
    return layer


def _check_graph(path: Path, network: Network) -> None:
    """Every name points to a layer before it (delayed ones excepted) of a fitting shape."""
    shapes = {INPUT: network.input_shape}
    every = {layer.name: layer for layer in network.layers}
    if len(every) != len(network.layers) or INPUT in every:
        raise WorkloadError(f"{path}: two layers of the trace have the same name")
    for layer in network.layers:
        if layer.source not in (every if layer.delayed else shapes):
            raise WorkloadError(f"{path}: layer {layer.name!r} reads {layer.source!r}, which is no layer before it")
        source = every.get(layer.source)
        _check_layer(path, layer, network.input_shape if source is None else source.out_shape)
        if source is not None and source.neuron.kind in ("none", "accumulate"):
            raise WorkloadError(f"{path}: layer {layer.name!r} reads {layer.source!r}, which emits no spikes")
        for joining in layer.adds:
            if joining not in every or not (joining in shapes or every[joining].delayed):
                raise WorkloadError(f"{path}: layer {layer.name!r} adds {joining!r}, which is no layer before it")
            if every[joining].out_shape != layer.conv_shape:
                raise WorkloadError(f"{path}: layer {layer.name!r} adds {joining!r}, which has another shape")
            if layer.adds.count(joining) > 1 or every[joining].neuron.kind == "accumulate":
                raise WorkloadError(f"{path}: layer {layer.name!r} adds {joining!r} twice, or it emits nothing")
        shapes[layer.name] = layer.out_shape
    if not any(layer.source == INPUT and not layer.delayed for layer in network.layers):
        raise WorkloadError(f"{path}: no layer of the trace reads the input")
    for name, layer in every.items():
        n_joins = sum(name in other.adds for other in network.layers)
        if layer.neuron.kind == "none" and n_joins != 1:
            raise WorkloadError(f"{path}: layer {name!r} has no neurons and joins {n_joins} layers; it must join one")
    try:
        require_products(network)
    except WorkloadError as err:
        raise WorkloadError(f"{path}: {err}") from err


def _check_layer(path: Path, layer: Layer, source_shape: Shape) -> None:
    """The layer takes what its source emits, and is small enough to be cut into crossbars."""
    is_linear = layer.kind == "linear"
    fits = math.prod(source_shape) == layer.in_shape[0] if is_linear else source_shape == layer.in_shape
    if not fits or (is_linear and (layer.in_shape[1:] != (1, 1) or layer.kernel != (1, 1) or layer.padding != (0, 0))):
        raise WorkloadError(f"{path}: layer {layer.name!r} takes {layer.in_shape}; its source has {source_shape}")
    if layer.delayed and (layer.neuron.kind != "none" or layer.adds):
        raise WorkloadError(f"{path}: layer {layer.name!r} is delayed; it must have no neurons and add nothing")
    if layer.n_synapses > MAX_WEIGHTS or math.prod(layer.kernel) > MAX_KERNEL_POSITIONS:
        raise WorkloadError(f"{path}: layer {layer.name!r} has {layer.n_weights} weights; more than can be mapped")


def _outputs(path: Path, outputs: np.ndarray | None, n_samples: int) -> np.ndarray | None:
    if outputs is not None and (outputs.ndim != 2 or len(outputs) != n_samples):
        raise WorkloadError(f"{path}: outputs have shape {outputs.shape}; expected ({n_samples}, classes)")
    return outputs


def _array(
    path: Path, arrays: dict[str, np.ndarray], key: str, shape: tuple[int, ...], n_samples: int | None
) -> np.ndarray:
    values = arrays.get(key)
    if values is None:
        raise WorkloadError(f"{path}: the trace lacks {key!r}; was it truncated?")
    if (
        values.ndim != len(shape) + 1
        or values.shape[1:] != shape
        or n_samples not in (None, len(values))
        or not len(values)
    ):
        raise WorkloadError(
            f"{path}: {key!r} has shape {values.shape}; expected (sample, {', '.join(map(str, shape))})"
        )
    is_whole = values.dtype.kind in "iu"
    if not is_whole or (key != INPUT and values.min(initial=0) < 0) or np.abs(values).max(initial=0) >= 1 << 31:
        raise WorkloadError(f"{path}: {key!r} must hold spike counts, whole numbers from 0 up, below 2^31")
    return values if values.dtype.itemsize <= 4 else values.astype(np.int32)


def _write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an archive with fixed dates, complete or not at all."""
    staging = path.with_name(f".{path.name}.part")
    try:
        with zipfile.ZipFile(staging, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            for key, array in arrays.items():
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{key}.npy"), buffer.getvalue(), zipfile.ZIP_DEFLATED)
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)

"""Traces: what is recorded on a chip is replayed to the byte, and what is no sound trace is refused."""

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import nir
import numpy as np
import pytest
from nir_graphs import conv, dense, graph, save

from archsim.cli import main
from archsim.workload.trace import read_trace

pytestmark = pytest.mark.many_seeds

FILES = ("summary.json", "components.csv", "layers.csv", "movement.csv", "events.parquet")


def lif(n):
    one = np.ones(n)
    values = {"tau_syn": 2e-3 * one, "tau_mem": 4e-3 * one, "r": 3 * one, "v_leak": 0 * one, "v_threshold": one / 2}
    return nir.CubaLIF(**values, w_in=2 * one)


def recurrent(path: Path) -> Path:
    """Two layers with synaptic currents, the first with weights back to itself."""
    net = graph([8], [3], fc1=dense(5, 8), lif=lif(5), fc2=dense(3, 5), out=lif(3))
    net.nodes["back"] = dense(5, 5)
    net.edges += [("lif", "back"), ("back", "lif")]
    return save(path, net)


def residual(path: Path) -> Path:
    """A pooled block of two convolutions with a 1x1 shortcut, then a grouped convolution and a readout."""
    shape = {"v_threshold": np.full((4, 6, 6), 0.5), "r": np.ones((4, 6, 6))}
    net = graph(
        [2, 6, 6], [3], a=conv(4, 2), act=nir.IF(**shape), b=conv(4, 4), mid=nir.IF(**shape), c=conv(4, 4),
        join=nir.IF(**shape), pool=nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        g=conv(4, 2, groups=2), last=nir.IF(r=np.ones((4, 3, 3)), v_threshold=np.ones((4, 3, 3))),
        flat=nir.Flatten(np.array([4, 3, 3]), 0, -1), fc=dense(3, 36),
    )  # fmt: skip
    net.nodes["short"] = conv(4, 4, kernel=1, padding=0)
    net.edges += [("act", "short"), ("short", "join")]
    return save(path, net)


WORKLOADS = {
    "mlp": lambda folder: ["digits-mlp"],
    "recurrent": lambda folder: [recurrent(folder / "rnn.nir"), "--input", "poisson:0.4", "--timesteps", "4"],
    "residual": lambda folder: [residual(folder / "res.nir"), "--input", "poisson:0.4", "--timesteps", "3"],
}


def run(*arguments) -> int:
    return main([str(argument) for argument in arguments])


def files_that_differ(one: Path, other: Path) -> list[str]:
    return [name for name in FILES if (one / name).read_bytes() != (other / name).read_bytes()]


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize(
    "chip",
    [
        ("demo",),
        ("demo", "--set", "mapping.input_coding=binary", "--set", "tile.pe.adc.bits=4"),
        ("spikesim-rram-64", "--set", "mapping.layout=dense"),
    ],
    ids=lambda chip: "-".join(chip).replace("--set-", ""),
)
def test_a_replay_is_the_direct_run_to_the_byte(name, chip, tmp_path):
    workload, trace = WORKLOADS[name](tmp_path), tmp_path / "t.npz"
    hardware, changes = chip[0], chip[1:]
    assert run("record", *workload, "-o", trace, "--hardware", hardware, "--samples", 2, *changes) == 0
    assert run("run", hardware, *workload, "-o", tmp_path / "direct", "--samples", 2, *changes) == 0
    assert run("run", hardware, trace, "-o", tmp_path / "replay", "--samples", 2, *changes) == 0
    assert files_that_differ(tmp_path / "direct", tmp_path / "replay") == []


TABLE = """layer,in_height,in_width,in_channels,out_channels,kernel_height,kernel_width,stride
conv1,6,6,2,4,3,3,1
conv2,6,6,4,8,3,3,2
fc,1,1,72,10,1,1,1
"""


def test_a_replay_of_assumed_spikes_is_the_direct_run_to_the_byte(tmp_path):
    table, trace = tmp_path / "shapes.csv", tmp_path / "t.npz"
    table.write_text(TABLE)
    workload = [table, "--timesteps", 3, "--set", "workload.assumed_rate=0.3"]
    assert run("record", *workload, "-o", trace, "--hardware", "demo", "--samples", 2) == 0
    assert run("run", "demo", *workload, "-o", tmp_path / "direct", "--samples", 2) == 0
    assert run("run", "demo", trace, "-o", tmp_path / "replay", "--samples", 2) == 0
    assert files_that_differ(tmp_path / "direct", tmp_path / "replay") == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("traces")


@pytest.fixture(scope="module")
def trace(folder) -> Path:
    """A small recurrent network on the demo chip, two samples of three timesteps."""
    path = folder / "rnn.npz"
    network = recurrent(folder / "rnn.nir")
    arguments = ["--input", "poisson:0.5", "--timesteps", 3, "--samples", 2]
    assert run("record", network, "-o", path, "--hardware", "demo", *arguments) == 0
    return path


@pytest.fixture(scope="module")
def arrays(trace) -> dict[str, np.ndarray]:
    with np.load(trace) as held:
        return dict(held)


def test_the_same_record_is_the_same_bytes(trace, folder, tmp_path):
    arguments = ["--input", "poisson:0.5", "--timesteps", 3, "--samples", 2]
    assert run("record", folder / "rnn.nir", "-o", tmp_path / "t.npz", "--hardware", "demo", *arguments) == 0
    assert (tmp_path / "t.npz").read_bytes() == trace.read_bytes()


def test_a_recording_of_a_replay_is_the_same_trace(trace, tmp_path):
    assert run("record", trace, "-o", tmp_path / "again.npz", "--hardware", "demo", "--samples", 2) == 0
    first, again = read_trace(trace), read_trace(tmp_path / "again.npz")
    assert [
        np.array_equal(first.recording.spikes[name], again.recording.spikes[name]) for name in first.recording.spikes
    ]
    assert np.array_equal(first.recording.inputs, again.recording.inputs)


@pytest.mark.parametrize("chip", ["spikesim-rram-64", "demo"])
def test_a_trace_of_the_ideal_network_runs_on_any_chip(chip, folder, trace, tmp_path):
    path = tmp_path / "ideal.npz"
    assert run("record", folder / "rnn.nir", "-o", path, "--input", "poisson:0.5", "--timesteps", 3) == 0
    assert run("run", chip, path, "-o", tmp_path / "run") == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["hardware"], summary["accuracy_ideal"], summary["n_timesteps"]) == (chip, None, 3)


def test_the_spikes_of_an_ideal_trace_are_those_of_the_ideal_network(folder, trace, tmp_path):
    from archsim.inference import run_ideal
    from archsim.workload.loader import load_workload

    path = tmp_path / "ideal.npz"
    run("record", folder / "rnn.nir", "-o", path, "--input", "poisson:0.5", "--timesteps", 3, "--seed", 5)
    workload = load_workload(folder / "rnn.nir", "poisson:0.5", 3, seed=5, samples=1)
    ideal, found = run_ideal(workload.network, workload.input.values, 3), read_trace(path).recording
    assert [name for name, spikes in ideal.spikes.items() if not np.array_equal(spikes, found.spikes[name])] == []


def test_a_trace_runs_on_another_chip_with_the_same_spikes(trace, tmp_path):
    columns = ["layer", "spikes_in", "spikes_out", "n_neurons", "tokens"]
    tables = []
    for chip in ("demo", "spikesim-rram-64"):
        assert run("run", chip, trace, "-o", tmp_path / chip, "--samples", 2) == 0
        header, *rows = ((tmp_path / chip / "layers.csv").read_text()).splitlines()
        picked = [header.split(",").index(column) for column in columns]
        tables.append([[row.split(",")[index] for index in picked] for row in rows])
    assert tables[0] == tables[1]


def test_replay_imports_no_torch(trace, tmp_path):
    arguments = ["run", "demo", str(trace), "-o", str(tmp_path / "run"), "--json"]
    code = (
        f"import sys\nfrom archsim.cli import main\nassert main({arguments!r}) == 0\nsys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# What is refused


def packed(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def with_header(arrays: dict[str, np.ndarray], change) -> dict[str, np.ndarray]:
    """The arrays with a header that `change` was applied to, a function on its fields."""
    fields = json.loads(arrays["archsim_trace"].tobytes())
    change(fields)
    return arrays | {"archsim_trace": np.frombuffer(json.dumps(fields).encode(), np.uint8)}


def refused(path: Path, capsys, *arguments) -> str:
    """The message of a run that writes nothing and ends with exit code 2."""
    target = path.parent / f"{path.stem}-run"
    code = run("run", "demo", path, "-o", target, *arguments)
    printed = capsys.readouterr()
    assert (code, printed.out, target.exists()) == (2, "", False)
    assert printed.err.startswith("archsim: ")
    assert len(printed.err.splitlines()) == 1
    return printed.err.removeprefix("archsim: ").removeprefix(f"{path}: ").rstrip("\n")


def layer(fields, name="fc1"):
    return next(item for item in fields["layers"] if item["name"] == name)


HEADERS = {
    "another version": (
        lambda f: f.update(format_version=2),
        "trace of format 2; this archsim reads 1. Record it again.",
    ),
    "no version": (
        lambda f: f.pop("format_version"),
        "trace of format None; this archsim reads 1. Record it again.",
    ),
    "unknown field": (lambda f: f.update(nonsense=1), "header of the trace: nonsense: Extra inputs are not permitted"),
    "no layers": (lambda f: f.update(layers=[]), "header of the trace: layers: "),
    "unknown source": (
        lambda f: layer(f).update(source="nobody"),
        "layer 'fc1' reads 'nobody', which is no layer before it",
    ),
    "source behind it": (
        lambda f: layer(f).update(source="fc2"),
        "layer 'fc1' reads 'fc2', which is no layer before it",
    ),
    "unknown join": (
        lambda f: layer(f).update(adds=["nobody"]),
        "layer 'fc1' adds 'nobody', which is no layer before it",
    ),
    "join of another shape": (
        lambda f: layer(f, "fc2").update(adds=["fc1"]),
        "layer 'fc2' adds 'fc1', which has another shape",
    ),
    "an added input": (
        lambda f: layer(f).update(adds=["input"]),
        "layer 'fc1' adds 'input', which is no layer before it",
    ),
    "a delayed layer with neurons": (
        lambda f: layer(f, "fc2").update(delayed=True),
        "layer 'fc2' is delayed; it must have no neurons and add nothing",
    ),
    "a kernel without bound": (
        lambda f: layer(f).update(kernel=[8193, 8193], padding=[4096, 4096]),
        "header of the trace: layers.0.kernel.0: Input should be less than or equal to 4096",
    ),
    "a version that is true": (
        lambda f: f.update(format_version=True),
        "trace of format True; this archsim reads 1",
    ),
    "two layers of one name": (
        lambda f: layer(f, "fc2").update(name="fc1"),
        "two layers of the trace have the same name",
    ),
    "a layer called input": (
        lambda f: layer(f, "fc2").update(name="input"),
        "two layers of the trace have the same name",
    ),
    "more timesteps": (
        lambda f: f.update(n_timesteps=4),
        "'input' has shape (2, 3, 8, 1, 1); expected (sample, 4, 8, 1, 1)",
    ),
    "more neurons": (
        lambda f: layer(f, "fc2").update(out_channels=4),
        "'spikes_2' has shape (2, 3, 3, 1, 1); expected (sample, 3, 4, 1, 1)",
    ),
    "more inputs": (
        lambda f: layer(f).update(in_shape=[9, 1, 1]),
        "fan-out of layer 'fc1' has shape (8, 1, 1); expected (9, 1, 1) counts",
    ),
    "a kernel larger than the map": (
        lambda f: layer(f).update(kernel=[2, 2]),
        "fan-out of layer 'fc1' has shape (8, 1, 1); expected (8, 2, 2) counts",
    ),
    "groups that divide nothing": (
        lambda f: layer(f).update(groups=3),
        "layer 'fc1' has no valid shape ((8, 1, 1) to (5, 1, 1))",
    ),
    "an endless size": (
        lambda f: f.update(n_timesteps=10**30),
        "header of the trace: n_timesteps: Input should be less than or equal to 16777216",
    ),
    "a stride of 0": (
        lambda f: layer(f).update(stride=[0, 1]),
        "header of the trace: layers.0.stride.0: Input should be greater than or equal to 1",
    ),
    "a name that is a list": (
        lambda f: f.update(name=[]),
        "header of the trace: name: Input should be a valid string",
    ),
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_header_that_makes_no_network_is_refused(what, arrays, tmp_path, capsys):
    change, message = HEADERS[what]
    assert refused(packed(tmp_path / "t.npz", with_header(arrays, change)), capsys).startswith(message)


ARRAYS = {
    "negative spikes": (
        lambda a: a.update(spikes_0=-a["spikes_0"].astype(np.int16) - 1),
        "'spikes_0' must hold spike counts, whole numbers from 0 up",
    ),
    "spikes with fractions": (
        lambda a: a.update(spikes_2=a["spikes_2"] * 0.5),
        "'spikes_2' must hold spike counts, whole numbers from 0 up",
    ),
    "lost spikes": (lambda a: a.pop("spikes_1"), "the trace lacks 'spikes_1'; was it truncated?"),
    "lost input": (lambda a: a.pop("input"), "the trace lacks 'input'; was it truncated?"),
    "fewer samples": (
        lambda a: a.update(spikes_0=a["spikes_0"][:1]),
        "'spikes_0' has shape (1, 3, 5, 1, 1); expected (sample, 3, 5, 1, 1)",
    ),
    "no samples": (
        lambda a: a.update(input=a["input"][:0]),
        "'input' has shape (0, 3, 8, 1, 1); expected (sample, 3, 8, 1, 1)",
    ),
    "other axes": (
        lambda a: a.update(input=a["input"][..., 0]),
        "'input' has shape (2, 3, 8, 1); expected (sample, 3, 8, 1, 1)",
    ),
    "fan-out below 0": (
        lambda a: a.update(fan_out_0=-a["fan_out_0"]),
        "fan-out of layer 'fc1' has shape (8, 1, 1); expected (8, 1, 1) counts",
    ),
    "a header that is no JSON": (
        lambda a: a.update(archsim_trace=np.frombuffer(b"{'format", np.uint8)),
        "the header of the trace is damaged (",
    ),
    "a header that is no object": (
        lambda a: a.update(archsim_trace=np.frombuffer(b"[1]", np.uint8)),
        "trace of format None; this archsim reads 1. Record it again.",
    ),
    "a header of nested lists": (
        lambda a: a.update(archsim_trace=np.frombuffer(b"[" * 100_000, np.uint8)),
        "the header of the trace is damaged (",
    ),
    "a header that is no text": (
        lambda a: a.update(archsim_trace=np.frombuffer(b"\xff\xfe{", np.uint8)),
        "the header of the trace is damaged (",
    ),
    "no header": (
        lambda a: a.pop("archsim_trace"),
        "a workload is a shipped name, a workload file (.yaml), a network (.nir), a layer table (.csv) "
        "or a trace (.npz)",
    ),
}


@pytest.mark.parametrize("what", ARRAYS)
def test_arrays_that_do_not_fit_the_header_are_refused(what, arrays, tmp_path, capsys):
    change, message = ARRAYS[what]
    changed = dict(arrays)
    change(changed)
    assert refused(packed(tmp_path / "t.npz", changed), capsys).startswith(message)


def test_pickled_spikes_are_never_loaded(arrays, tmp_path, capsys):
    path = tmp_path / "t.npz"
    np.savez(path, **(arrays | {"spikes_0": np.array([{"a": 1}], object)}), allow_pickle=True)
    assert refused(path, capsys) == (
        "key 'spikes_0' holds Python objects (pickle), which archsim never loads; save plain numbers"
    )


def test_an_array_that_says_it_is_endless_is_refused_before_it_is_read(arrays, tmp_path, capsys):
    path, content = tmp_path / "t.npz", io.BytesIO()
    np.lib.format.write_array_header_1_0(
        content, {"descr": "|u1", "fortran_order": False, "shape": (1 << 40, 3, 8, 1, 1)}
    )
    packed(path, {key: value for key, value in arrays.items() if key != "input"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("input.npy", content.getvalue())
    assert refused(path, capsys).startswith("key 'input' says its shape is (1099511627776, 3, 8, 1, 1), more than its ")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_trace_is_refused(share, trace, tmp_path, capsys):
    path = tmp_path / "t.npz"
    path.write_bytes(trace.read_bytes()[: int(share * trace.stat().st_size)])
    assert refused(path, capsys).startswith("a workload is a shipped name, ")


def outcome(path: Path, capsys) -> str:
    """`ok`, or what the one message is about; anything else fails the test."""
    code = run("run", "demo", path, "-o", path.parent / "run", "--json")
    printed = capsys.readouterr()
    if code == 0:
        return "ok"
    assert (code, printed.out) == (2, "")
    assert printed.err.startswith("archsim: ")
    assert len(printed.err.strip().splitlines()) == 1
    return "refused"


@pytest.mark.parametrize("seed", range(100))
def test_a_changed_byte_is_harmless_or_refused(seed, trace, tmp_path, capsys):
    rng = np.random.default_rng(seed)
    content = bytearray(trace.read_bytes())
    content[rng.integers(len(content))] = rng.integers(256)
    path = tmp_path / "t.npz"
    path.write_bytes(content)
    assert outcome(path, capsys) in ("ok", "refused")


@pytest.mark.parametrize("seed", range(100))
def test_a_changed_byte_of_the_header_is_harmless_or_refused(seed, arrays, tmp_path, capsys):
    """Repacked, so that the checksums of the archive are right."""
    rng = np.random.default_rng(seed)
    header = arrays["archsim_trace"].copy()
    header[rng.integers(len(header))] = rng.integers(32, 127)
    assert outcome(packed(tmp_path / "t.npz", arrays | {"archsim_trace": header}), capsys) in ("ok", "refused")


CHANGES = [
    (["--input", "poisson:0.1"], "--input poisson:0.1"),
    (["--set", "workload.reset=zero"], "workload.reset"),
    (["--input", "x.npz", "--set", "workload.reset=zero"], "--input x.npz"),
]


@pytest.mark.parametrize(("arguments", "what"), CHANGES)
def test_what_a_trace_has_fixed_cannot_be_changed(arguments, what, trace, capsys):
    message = f"a trace is replayed as it was recorded; {what} cannot change it. Record it again."
    assert refused(trace, capsys, *arguments) == message


def test_other_timesteps_than_those_of_the_trace_are_refused(trace, capsys):
    assert refused(trace, capsys, "--timesteps", 4) == "the trace has 3 timesteps; 4 were asked for"
    assert refused(trace, capsys, "--timesteps", 2) == "the trace has 3 timesteps; 2 were asked for"


def test_more_samples_than_the_trace_has_are_refused(trace, capsys):
    assert refused(trace, capsys, "--samples", 3) == "trace 'rnn' holds 2 samples; 3 were asked for"


def test_a_trace_is_written_as_npz_only(folder, trace, tmp_path, capsys):
    code = run("record", folder / "rnn.nir", "-o", tmp_path / "t.trace", "--input", "poisson:0.5", "--timesteps", 3)
    assert (code, list(tmp_path.iterdir())) == (2, [])
    assert capsys.readouterr().err == f"archsim: {tmp_path}/t.trace: a trace is an .npz file; give it that ending\n"


def test_a_trace_that_cannot_be_written_leaves_nothing(folder, trace, tmp_path, capsys):
    path = tmp_path / "missing" / "t.npz"
    code = run("record", folder / "rnn.nir", "-o", path, "--input", "poisson:0.5", "--timesteps", 3)
    assert (code, list(tmp_path.iterdir())) == (2, [])
    assert "cannot be written (No such file or directory). Choose another -o." in capsys.readouterr().err

"""Layer tables: the network and the activity they state, and the full text of their faults."""

import os
from pathlib import Path

import pytest

from archsim.errors import WorkloadError
from archsim.workload.loader import load_workload
from archsim.workload.network import Pool

COLUMNS = "layer,in_height,in_width,in_channels,out_channels,kernel_height,kernel_width,stride"
ROWS = ("conv1,8,8,2,4,3,3,1", "conv2,4,4,4,8,3,3,2", "fc,1,1,32,10,1,1,1")


@pytest.fixture
def table(tmp_path):
    """Write a table: rows as text, columns as a list of cells each."""

    def write(rows=ROWS, name="small.csv", **columns):
        header = ",".join([COLUMNS, *columns])
        lines = [",".join([row, *map(str, extra)]) for row, *extra in zip(rows, *columns.values(), strict=True)]
        (tmp_path / name).write_text("\n".join([header, *lines]) + "\n")
        return tmp_path / name

    return write


@pytest.fixture
def load(table):
    def read(rows=ROWS, settings=None, timesteps=4, **columns):
        settings = {"assumed_rate": 0.25} if settings is None else settings
        return load_workload(table(rows, **columns), timesteps=timesteps, settings=settings)

    return read


@pytest.fixture
def fault(load, tmp_path):
    def text(*arguments, **options):
        with pytest.raises(WorkloadError) as caught:
            load(*arguments, **options)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return text


def test_rows_become_layers_without_weights(load):
    workload = load()
    found = [(x.name, x.kind, x.source, x.in_shape, x.padding, x.stride, x.pool) for x in workload.network.layers]
    assert found == [
        ("conv1", "conv2d", "input", (2, 8, 8), (1, 1), (1, 1), Pool((2, 2), (2, 2))),
        ("conv2", "conv2d", "conv1", (4, 4, 4), (1, 1), (2, 2), None),
        ("fc", "linear", "conv2", (32, 1, 1), (0, 0), (1, 1), None),
    ]
    assert (workload.name, workload.n_timesteps, workload.network.has_weights) == ("small", 4, False)
    assert {layer.neuron.kind for layer in workload.network.layers} == {"if"}


def test_without_sparsity_every_layer_spikes_at_the_assumed_rate(load):
    workload = load()
    assert (workload.assumed_rates, workload.rates_of("conv1"), workload.rates_of("input")) == (
        {}, (0.25,) * 4, (0.25,) * 4,
    )  # fmt: skip


def test_sparsity_is_that_of_the_inputs_of_a_layer(load):
    workload = load(sparsity=(0.5, 0.19, 0.9))
    assert workload.rates_of("input") == (0.5,) * 4
    assert workload.rates_of("conv2") == pytest.approx((0.1,) * 4)
    assert workload.rates_of("fc") == (0.25,) * 4
    pooled = 1 - (1 - workload.rates_of("conv1")[0]) ** 4
    assert pooled == pytest.approx(0.81), "one of four pooled neurons spikes at the rate of the next layer's input"


def test_the_last_layer_spikes_as_its_input_unless_told(load):
    assert load(settings={}, sparsity=(0.5, 0.5, 0.75)).rates_of("fc") == (0.25,) * 4


def test_sparsity_may_change_with_the_timestep(load):
    columns = {f"sparsity_{step}": (1 - (step + 1) / 4,) * 3 for step in range(3)}
    workload = load(settings={}, timesteps=None, **columns)
    assert (workload.n_timesteps, workload.rates_of("conv2")) == (3, (0.25, 0.5, 0.75))
    assert load(settings={}, timesteps=2, **columns).rates_of("input") == (0.25, 0.5)


def test_padding_may_have_a_column(load):
    layers = load(("a,8,8,1,2,4,4,2", "b,1,1,32,3,1,1,1"), padding=(1, 0)).network.layers
    assert [(layer.padding, layer.conv_shape) for layer in layers] == [((1, 1), (2, 4, 4)), ((0, 0), (3, 1, 1))]


def test_a_work_is_chosen(load):
    rows = [*ROWS[:1], *ROWS]
    workload = load(rows, {"assumed_rate": 0.5, "work": "b"}, work=("a", "b", "b", "b"))
    assert (workload.name, len(workload.network.layers), workload.settings.work) == ("small-b", 3, "b")


def test_a_workload_file_may_name_a_table(table, tmp_path):
    table()
    text = "format_version: 1\nname: mine\ntable: small.csv\ntimesteps: 2\nassumed_rate: 0.5\n"
    (tmp_path / "mine.yaml").write_text(text)
    workload = load_workload(tmp_path / "mine.yaml")
    assert (workload.name, workload.network.name, workload.rates_of("fc")) == ("mine", "mine", (0.5, 0.5))


def test_all_faults_of_a_table_are_told_with_their_lines(fault):
    rows = ("conv1,8,8,2,4,3,3,0", "conv1,8,8,4,4,2,3,1", "fc,1,1,32,x,1,1,1", ",1,1,1,1,1,1,1", "d,1,1,1,1,1,1,1")
    assert fault(rows, sparsity=(0, 1.5, 0, 0, "nan")).splitlines() == [
        "small.csv:2: stride is '0'; it must be a whole number of at least 1",
        "small.csv:3: kernel 2 x 3 is even, so its padding cannot be inferred; add a column 'padding'",
        "small.csv:3: sparsity is '1.5'; it must be a number from 0 to 1",
        "small.csv:4: out_channels is 'x'; it must be a whole number of at least 1",
        "small.csv:5: layer is ''; it must be a name other than 'input'",
        "small.csv:6: sparsity is 'nan'; it must be a number from 0 to 1",
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ("a,8,8,2,4,3,3,1", "b,8,8,5,4,3,3,1"),
            "small.csv:3: layer 'b' receives 5 x 8 x 8 values but 'a' emits 4 x 8 x 8; channels must be equal",
        ),
        (
            ("a,8,8,2,4,3,3,1", "b,3,3,4,4,3,3,1"),
            "small.csv:3: layer 'b' receives 4 x 3 x 3 values but 'a' emits 4 x 8 x 8; "
            "the map must be the same, or smaller by a whole factor",
        ),
        (
            ("a,8,8,2,4,3,3,1", "b,1,1,63,4,1,1,1"),
            "small.csv:3: layer 'b' receives 63 x 1 x 1 values but 'a' emits 4 x 8 x 8; "
            "no pooling of it has as many values",
        ),
        (("a,8,8,2,4,3,3,1", "a,8,8,4,4,3,3,1"), "small.csv:3: layer 'a' appears again (first in line 2)"),
        (("a,8,8,2,4,3,3",), "small.csv:2: 7 cells; the table has 8 columns"),
        ((), "small.csv:1: no rows; a table has a row of column names, then one row per layer"),
        (
            ("a,200000,200000,2,4,3,3,1",),
            "small.csv:2: layer 'a' has more than 268435456 inputs, weights or neurons",
        ),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit_are_told(fault, rows, message):
    assert fault(rows) == message


def test_a_kernel_larger_than_its_map_is_told(fault):
    message = "small.csv:2: kernel 5 x 5 is larger than its map of 1 x 2 x 2 with padding 0 x 0"
    assert fault(("a,2,2,1,1,5,5,1",), padding=(0,)) == message


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"strides": (1, 1, 1)}, "small.csv:1: unknown column 'strides'; did you mean 'stride'?"),
        (
            {"sparsity": (0, 0, 0), "sparsity_0": (0, 0, 0)},
            "small.csv:1: both 'sparsity' and 'sparsity_0'; a table has one of them",
        ),
        (
            {"sparsity_1": (0, 0, 0)},
            "small.csv:1: columns sparsity_1; timesteps count from 0 without gaps: sparsity_0, ...",
        ),
        ({"stride ": (1, 1, 1)}, "small.csv:1: column 'stride' appears 2 times"),
    ],
)  # fmt: skip
def test_faulty_columns_are_told(fault, columns, message):
    assert fault(**columns) == message


def test_missing_columns_are_told(fault, tmp_path, table):
    path = table()
    path.write_text("layer,in_height\na,3\n")
    with pytest.raises(WorkloadError) as caught:
        load_workload(path, timesteps=1)
    assert str(caught.value).splitlines()[0] == f"{path}:1: no column 'in_width'"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"settings": {}},
            "small.csv: has no column 'sparsity'; give workload.assumed_rate, the activity to assume (0 to 1)",
        ),
        ({"timesteps": None}, "small.csv: the network has shapes only; give timesteps, the steps to assume"),
        ({"work": ("a", "b", "b")}, "small.csv: holds several works (a, b); choose one with workload.work"),
        (
            {"work": ("ann", "bob", "bob"), "settings": {"work": "bobby"}},
            "small.csv: no work 'bobby'; did you mean 'bob'?",
        ),
        (
            {"sparsity_0": (0, 0, 0), "sparsity_1": (0, 0, 0)},
            "small.csv: states the sparsity of 2 timesteps; 4 were asked for",
        ),
    ],
)  # fmt: skip
def test_faulty_choices_are_told(fault, options, message):
    assert fault(**options) == message


def test_other_files_called_csv_are_told(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WorkloadError, match=r"t.csv: not a CSV table \(.*invalid start byte\)$"):
        load_workload(path, timesteps=1)


@pytest.mark.parametrize(("work", "n_weights"), [("bntt", 3_307_200), ("tssl", 19_828_096), ("tdbn", 14_486_912)])
def test_published_tables_have_their_numbers_of_weights(work, n_weights):
    """Weights that SATA_Sim loads once for the workloads it compares."""
    folder = os.environ.get("ARCHSIM_TEST_DATA")
    if not folder:
        pytest.skip("ARCHSIM_TEST_DATA names no folder with sata/networks.csv")
    path = Path(folder) / "sata" / "networks.csv"
    workload = load_workload(path, timesteps=4, settings={"work": work, "assumed_rate": 0.1})
    assert sum(layer.n_weights for layer in workload.network.layers) == n_weights

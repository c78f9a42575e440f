"""A finished run in a terminal, and the headline that terminal and report share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from archsim.report.text import DASH, is_missing, percent, plain, points, share, shorten
from archsim.result import Result
from archsim.units import format_area, format_energy, format_number, format_time

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Summary = Mapping[str, Any]


def headline_rows(summary: Summary) -> list[tuple[str, str]]:
    """Name and value, with its unit, of every headline figure; a dash where a value does not apply."""
    return [(name, value(summary)) for name, value, _ in _HEADLINE]


def headline_meanings() -> list[str]:
    """One sentence per headline row: what exactly is counted."""
    return [meaning for _, _, meaning in _HEADLINE]


def print_result(result: Result, console: Console) -> None:
    """Print headline and layers of a run to `console`."""
    console.print(_headline_table(result))
    console.print(_layer_table(result))
    for note in result.notes:
        console.print(f"note: {plain(note)}", markup=False, highlight=False)


def _headline_table(result: Result) -> Table:
    from rich.table import Table
    from rich.text import Text  # cells as Text: names from files are not markup

    summary = result.summary
    table = Table(
        title=Text(f"{plain(summary['workload'])} on {plain(summary['hardware'])}"),
        show_header=False,
        title_justify="left",
    )
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in headline_rows(summary):
        table.add_row(name, Text(value))
    return table


def _layer_table(result: Result) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Layers", title_justify="left")
    table.add_column("layer", overflow="fold")
    has_nf = bool(result.layers["nf"].notna().any())
    numbers = ("first start", "last leave", "energy", "reads", "skipped", "spikes", "error")
    for name in (*numbers, "NF") if has_nf else numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for layer in result.layers.to_dict("records"):
        cells = (
            _or_dash(layer["first_start_ps"], format_time),
            _or_dash(layer["last_leave_ps"], format_time),
            format_energy(layer["energy_pj"]),
            format_number(int(layer["crossbar_reads"])),
            share(layer["skipped_reads"], layer["skipped_reads"] + layer["crossbar_reads"]),
            format_number(int(layer["spikes_out"])),
            percent(layer["error_rel"]),
        )
        table.add_row(Text(shorten(layer["layer"], 32)), *cells, *([percent(layer["nf"])] if has_nf else []))
    return table


def _or_dash(value: Any, write: Callable[[Any], str]) -> str:
    return DASH if is_missing(value) else write(value)


def _value(key: str, write: Callable[[Any], str], unit: str = "") -> Callable[[Summary], str]:
    def text(summary: Summary) -> str:
        value = summary.get(key)
        return DASH if is_missing(value) else write(value) + (f" {unit}" if unit else "")

    return text


def _pair(first: Callable[[Summary], str], second: Callable[[Summary], str]) -> Callable[[Summary], str]:
    def text(summary: Summary) -> str:
        values = first(summary), second(summary)
        return DASH if set(values) == {DASH} else " / ".join(values)

    return text


def _energy_split(summary: Summary) -> str:
    n_samples = summary["n_samples"]
    dynamic: Any = summary.get("energy_dynamic_pj")
    leakage: Any = summary.get("energy_leakage_pj")
    if is_missing(dynamic) or is_missing(leakage):
        return DASH
    total = dynamic + leakage
    parts = (("dynamic", dynamic), ("leakage", leakage))
    return ", ".join(f"{format_energy(value / n_samples)} {name} ({share(value, total)})" for name, value in parts)


def _timesteps(summary: Summary) -> str:
    n_timesteps, mean = summary["n_timesteps"], summary.get("mean_timesteps")
    if is_missing(mean) or mean == n_timesteps:
        return format_number(n_timesteps)
    return f"{format_number(mean)} of {n_timesteps}, {format_number(summary['mean_timesteps_begun'])} begun"


def _wasted(summary: Summary) -> str:
    wasted: Any = summary.get("energy_wasted_pj")
    if not wasted:
        return DASH
    dynamic = float(summary["energy_dynamic_pj"])
    return f"{format_energy(wasted / summary['n_samples'])} ({share(wasted, dynamic)} of the dynamic energy)"


def _energy_per_op(summary: Summary) -> str:
    ops = (summary.get("effective_acs") or 0) + (summary.get("effective_macs") or 0)
    energy: Any = summary.get("energy_per_sample_pj")
    return DASH if is_missing(energy) or not ops else f"{format_number(float(energy) / ops)} pJ"


def _synaptic_ops(summary: Summary) -> str:
    counts = (("synaptic_ops", "dense"), ("effective_acs", "effective ACs"), ("effective_macs", "effective MACs"))
    known = [(summary[key], name) for key, name in counts if not is_missing(summary.get(key))]
    return ", ".join(f"{format_number(round(value))} {name}" for value, name in known) or DASH


def _accuracy(key: str) -> Callable[[Summary], str]:
    def text(summary: Summary) -> str:
        value, std = summary.get(key), summary.get(f"{key}_std")
        if is_missing(value):
            return DASH
        over_chips = "" if is_missing(std) else f", mean of {summary['n_chips']} chips ± {points(std)}"
        return f"{percent(value)} of {summary['n_accuracy_samples']} samples{over_chips}"

    return text


def _chip_used(summary: Summary) -> str:
    counts = ((summary.get("n_tiles"), "tile"), (summary.get("n_pes"), "PE"), (summary.get("n_crossbars"), "crossbar"))
    known = [(count, name) for count, name in counts if not is_missing(count)]
    return ", ".join(f"{format_number(count)} {name}{'' if count == 1 else 's'}" for count, name in known) or DASH


_HEADLINE: tuple[tuple[str, Callable[[Summary], str], str], ...] = (
    (
        "Latency",
        _value("latency_ps", format_time),
        "First input service to last output of a sample; mean over samples.",
    ),
    ("Timesteps", _timesteps, "Until samples are decided; mean over samples."),
    ("Latency per timestep", _value("latency_per_timestep_ps", format_time), "Latency over the number of timesteps."),
    (
        "Latency p50 / p99",
        _pair(_value("latency_p50_ps", format_time), _value("latency_p99_ps", format_time)),
        "Nearest-rank percentiles over samples; needs 20 samples.",
    ),
    (
        "Throughput",
        _value("throughput_samples_per_s", format_number, "samples/s"),
        "Between second and last departure; needs 3 samples.",
    ),
    (
        "Energy per inference",
        _value("energy_per_sample_pj", format_energy),
        "Everything on the chip, leakage included.",
    ),
    ("Dynamic and leakage", _energy_split, "Parts of the energy per inference."),
    ("Energy wasted", _wasted, "Dynamic, per inference, on timesteps behind the one of the decision."),
    ("Mean power", _value("power_mw", format_number, "mW"), "Energy of the run over its length."),
    ("Area", _value("area_um2", format_area), "All components of the chip, also the unused ones."),
    (
        "Energy-delay product",
        _value("edp_pj_s", format_energy, "s"),
        "Energy per inference times latency.",
    ),
    (
        "Energy efficiency",
        _value("tops_per_w", format_number, "TOPS/W"),
        "Two operations per dense synaptic operation, over the energy with leakage.",
    ),
    (
        "Compute density",
        _value("tops_per_mm2", format_number, "TOPS/mm2"),
        "The same operations, over the length of the run and the area.",
    ),
    (
        "Energy per effective synaptic operation",
        _energy_per_op,
        "Effective: non-zero weight and non-zero input.",
    ),
    ("Synaptic operations", _synaptic_ops, "Per inference; in NeuroBench Dense, Effective_ACs and Effective_MACs."),
    ("Accuracy, ideal", _accuracy("accuracy_ideal"), "The network in floating point, without the chip."),
    ("Accuracy, raw", _accuracy("accuracy_raw"), "Mapped, quantised, through crossbars and converters."),
    ("Accuracy, calibrated", _accuracy("accuracy_calibrated"), "Raw, with digital gains after the converters."),
    (
        "Activation sparsity",
        _value("activation_sparsity", percent),
        "Neurons and timesteps without a spike; in NeuroBench ActivationSparsity.",
    ),
    (
        "Connection sparsity",
        _value("connection_sparsity", percent),
        "Weights that are zero; in NeuroBench ConnectionSparsity.",
    ),
    (
        "Footprint",
        _value("footprint_bytes", format_number, "bytes"),
        "Weights and biases as float32; in NeuroBench Footprint.",
    ),
    ("Chip used", _chip_used, "What holds weights of the network."),
    ("Cell utilisation", _value("cell_utilisation", percent), "Cells holding a weight, of the crossbars used."),
)

"""The trace for Perfetto: parsed again, its tracks, spans and counters are those of the log and of the queues."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tiny_result import tiny_result

import archsim
from archsim.cli import main
from archsim.errors import ConfigError
from archsim.report import trace_file
from archsim.report.trace_file import slots_of, write_trace
from archsim.result import Result


@pytest.fixture(scope="module", params=["packet", "flit"])
def run(request) -> Result:
    hardware = archsim.load_hardware("demo", {"chip.noc.detail": request.param})
    return archsim.simulate(hardware, archsim.load_workload("digits-cnn", "poisson:0.2", timesteps=2))


def read(path: Path) -> dict:
    return json.loads(gzip.decompress(path.read_bytes()), parse_float=Decimal)


def written(result: Result, folder: Path, window: tuple[int, int] | None = None) -> dict:
    archsim.write_timeline(result, folder / "timeline.json.gz", window)
    return read(folder / "timeline.json.gz")


def spans(trace: dict) -> list[dict]:
    return [event for event in trace["traceEvents"] if event["ph"] == "X"]


def ps(microseconds: Decimal) -> int:
    exact = Decimal(microseconds) * 1_000_000
    assert exact == int(exact)
    return int(exact)


def test_spans_are_the_services_of_the_log_to_the_picosecond(run, tmp_path):
    log = run.log
    takes_time = ~log.is_leakage & (log["service_ps"] > 0)
    expected = sorted(zip(log["start_ps"][takes_time].tolist(), log["service_ps"][takes_time].tolist(), strict=True))
    found = sorted((ps(event["ts"]), ps(event["dur"])) for event in spans(written(run, tmp_path)))
    assert found == expected


@pytest.mark.parametrize("window", [(0, 500_000), (1_000_000, 2_000_000)])
def test_a_window_holds_what_overlaps_it(run, tmp_path, window):
    log = run.log
    inside = ~log.is_leakage & (log["service_ps"] > 0) & (log["start_ps"] < window[1]) & (log["leave_ps"] > window[0])
    trace = written(run, tmp_path, window)
    assert len(spans(trace)) == inside.sum() > 100
    assert trace["otherData"]["window_ps"] == list(window)


def test_spans_of_a_track_never_overlap_and_tracks_have_names(run, tmp_path):
    trace = written(run, tmp_path)
    tracks = defaultdict(list)
    for event in spans(trace):
        tracks[event["pid"], event["tid"]].append((ps(event["ts"]), ps(event["ts"]) + ps(event["dur"])))
    for times in tracks.values():
        assert all(end <= start for (_, end), (start, _) in pairwise(sorted(times)))
    names = [event for event in trace["traceEvents"] if event["ph"] == "M"]
    assert {(event["pid"], event["tid"]) for event in names if event["name"] == "thread_name"} == set(tracks)
    groups = [event["args"]["name"] for event in names if event["name"] == "process_name"]
    acting = dict.fromkeys(name.split(".")[0] for name in run.log.components if acts(run, name))
    assert groups[: len(acting)] == list(acting)


def acts(run: Result, name: str) -> bool:
    return bool((run.log["service_ps"][run.log.rows_of(name)] > 0).any())


def test_spans_say_layer_timestep_token_and_energy(run, tmp_path):
    log = run.log
    trace = written(run, tmp_path)
    latch = [event for event in spans(trace) if event["name"] == "conv1 latch"]
    assert {event["args"]["layer"] for event in latch} == {"conv1"}
    assert {event["args"]["timestep"] for event in latch} == {0, 1}
    mine = (log["layer"] == log.layers.index("conv1")) & log.actions_of("latch") & (log["service_ps"] > 0)
    assert sum(float(event["args"]["energy_pj"]) for event in latch) == pytest.approx(log["energy_pj"][mine].sum())


def test_counters_are_the_queues(run, tmp_path):
    trace = written(run, tmp_path)
    peaks = defaultdict(int)
    last = {}
    for event in trace["traceEvents"]:
        if event["ph"] == "C":
            name = event["name"].removeprefix("waiting at ")
            peaks[name], last[name] = max(peaks[name], event["args"]["tokens"]), event["args"]["tokens"]
    known = run.queues.set_index("component")["depth_peak"]
    assert dict(peaks) == {name: peak for name, peak in known.items() if peak}
    assert set(last.values()) == {0}


def test_loaded_run_has_the_same_spans_without_counters(run, tmp_path):
    loaded = written(Result.load(run.write(tmp_path / "run")), tmp_path)
    fresh = written(run, tmp_path)
    assert spans(loaded) == spans(fresh)
    assert "C" not in {event["ph"] for event in loaded["traceEvents"]}


def test_same_run_gives_the_same_bytes(tmp_path):
    for name in ("one.json.gz", "two.json.gz"):
        write_trace(tiny_result(), tmp_path / name)
    assert (tmp_path / "one.json.gz").read_bytes() == (tmp_path / "two.json.gz").read_bytes()


def test_a_large_run_is_cut_in_time(run, tmp_path, monkeypatch):
    monkeypatch.setattr(trace_file, "N_SERVICES", 100)
    trace = written(run, tmp_path)
    end = trace["otherData"]["window_ps"][1]
    assert 0 < len(spans(trace)) <= 100
    assert max(ps(event["ts"]) for event in spans(trace)) < end
    assert end < run.summary["latency_ps"]


def test_services_that_overlap_get_slots_of_their_own():
    start, end = np.array([0, 1, 2, 5, 6]), np.array([4, 3, 6, 7, 8])
    assert slots_of(start, end).tolist() == [0, 1, 2, 0, 1]


def test_names_from_files_stay_text(tmp_path):
    trace = written(tiny_result(('"}]</script>', "a\u202eb")), tmp_path)
    assert {event["name"] for event in spans(trace)} >= {'"}]</script> read', "a�b read"}


def test_trace_that_cannot_be_written_says_where(tmp_path):
    with pytest.raises(ConfigError, match=r"missing/t\.json\.gz: cannot be written"):
        write_trace(tiny_result(), tmp_path / "missing" / "t.json.gz")


def test_commands_write_a_timeline_when_asked(tmp_path, capsys):
    pair = ["demo", "digits-mlp", "--input", "poisson:0.1", "--timesteps", "2", "-o", str(tmp_path / "run")]
    path = tmp_path / "run" / "timeline.json.gz"
    assert main(["run", *pair, "--timeline", "0ns:100ns"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"timeline: {path}"
    assert read(path)["otherData"]["window_ps"] == [0, 100_000]
    assert main(["run", *pair]) == 0
    assert not path.exists()
    assert main(["report", str(tmp_path / "run"), "--redraw", "--timeline"]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert read(path)["otherData"]["window_ps"] == [0, summary["latency_ps"]]
    assert main(["report", str(tmp_path / "run"), "--timeline"]) == 0
    assert "C" in {event["ph"] for event in read(path)["traceEvents"]}
    assert main(["run", *pair, "--timeline", "soon"]) == 2
    assert "window 'soon' is not a span of time" in capsys.readouterr().err

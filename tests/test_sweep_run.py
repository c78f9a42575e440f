"""Sweeps that run: the same table whoever evaluates the points and however often it was stopped."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_sweep import LONG_SWEEP, N_POINTS, SWEEP, write_sweep

from archsim import cli
from archsim.errors import ConfigError, SimulationError
from archsim.hardware.reader import load_hardware
from archsim.inference import infer
from archsim.mapping import map_network
from archsim.sweeps import store
from archsim.sweeps.activities import activity_key, activity_of, arrays_of
from archsim.sweeps.cache import Cache
from archsim.sweeps.driver import MAX_DEATHS, Driver
from archsim.sweeps.evaluation import Answer, evaluate_batch
from archsim.sweeps.measures import MEASURES
from archsim.sweeps.plan import Plan
from archsim.sweeps.run import run_sweep
from archsim.sweeps.space import load_space
from archsim.sweeps.store import Store
from archsim.sweeps.workers import Processes
from archsim.workload.loader import load_workload

COMMAND = [sys.executable, "-m", "archsim.cli", "sweep"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    """The sweep file."""
    return write_sweep(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def undisturbed(sweep) -> Path:
    """Folder of the sweep, run in this process without a break."""
    folder = sweep.parent / "undisturbed"
    run_sweep(sweep, output=folder, jobs=1)
    return folder


def tables(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("sweep.csv", "sweep.parquet")]


def records(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("points/*/*")}


def test_the_table_has_one_row_per_point_in_order(undisturbed):
    table = pd.read_parquet(undisturbed / "sweep.parquet")
    assert table["point"].tolist() == list(range(N_POINTS))
    assert set(table["status"]) == {"ok"}
    assert table["chip.clock_mhz"].tolist() == [50.0, 100.0, 200.0] * 9
    slow, fast = (table[table["chip.clock_mhz"] == clock]["latency_ps"].sum() for clock in (50.0, 200.0))
    assert slow > fast
    again = pd.read_csv(undisturbed / "sweep.csv")
    pd.testing.assert_frame_equal(again, table, check_dtype=False)


def test_a_point_is_what_a_run_with_its_keys_is(sweep, undisturbed):
    import archsim

    table = pd.read_parquet(undisturbed / "sweep.parquet")
    keys = {key: table[key].tolist()[17] for key in load_space(sweep).keys}
    workload = load_workload(sweep.parent / "tiny.csv", timesteps=2, settings={"assumed_rate": 0.25})
    summary = archsim.simulate(archsim.load_hardware("demo", keys), workload).summary
    row = json.loads(table.loc[[17], list(MEASURES)].to_json(orient="records", double_precision=15))[0]
    for name in MEASURES:
        assert row[name] == (summary[name] if summary[name] is None else pytest.approx(summary[name], rel=1e-12)), name


def test_processes_give_the_same_bytes_as_one(sweep, undisturbed, tmp_path):
    run_sweep(sweep, output=tmp_path / "out", jobs=2)
    assert tables(tmp_path / "out") == tables(undisturbed)
    assert records(tmp_path / "out") == records(undisturbed)


def test_any_executor_gives_the_same_bytes(sweep, undisturbed, tmp_path):
    with ThreadPoolExecutor(2) as executor:
        run_sweep(sweep, executor, output=tmp_path / "out")
    assert tables(tmp_path / "out") == tables(undisturbed)


@pytest.mark.slow
def test_dask_gives_the_same_bytes(sweep, undisturbed, tmp_path):
    pytest.importorskip("distributed")
    done = subprocess.run(
        [*COMMAND, sweep, "-o", tmp_path / "out", "--executor", "dask", "--jobs", "2"], capture_output=True, text=True
    )
    out = tmp_path / "out"
    said = f"{N_POINTS} points, 0 failed: {out / 'sweep.csv'}; archsim report {out} compares them\n"
    assert (done.returncode, done.stdout) == (0, said)
    assert tables(tmp_path / "out") == tables(undisturbed)


def test_what_is_there_is_not_done_again_and_what_is_damaged_is(sweep, undisturbed, tmp_path):
    run_sweep(sweep, output=tmp_path, jobs=1)
    kept = sorted(tmp_path.glob("points/*/*"))
    for path in kept[:5]:
        path.unlink()
    kept[5].write_text('{"format_version": 1, "ke')
    seen = []
    run_sweep(sweep, output=tmp_path, jobs=1, progress=lambda tally: seen.append((tally.done, tally.new)))
    assert seen[0] == (N_POINTS - 6, 0)
    assert seen[-1] == (N_POINTS, 6)
    assert tables(tmp_path) == tables(undisturbed)


def test_a_failed_point_is_a_row_and_is_retried_on_request(tmp_path):
    text = SWEEP.replace("chip.noc.flit_bits: [8, 16, 32]", "chip.noc.flit_bits: [8]")
    path = write_sweep(tmp_path, text.replace("[1, 4, 16]", "[1, 3000000]"))
    table = run_sweep(path, output=tmp_path / "out", jobs=1)
    assert table["status"].tolist() == ["ok"] * 3 + ["failed"] * 3
    assert set(table["error"][3:]) == {
        "ConfigError: --set tile.pe.adc.cols_per_adc=3000000: tile.pe.adc.cols_per_adc is 3000000; "
        "it must be at most 1000000"
    }
    counts = []
    for retry in (False, True):
        run_sweep(
            path, output=tmp_path / "out", jobs=1, retry_failed=retry, progress=lambda tally: counts.append(tally.new)
        )
    assert (counts[0], counts[-1]) == (0, 3)


def test_a_systolic_array_is_swept_like_a_chip(tmp_path):
    text = SWEEP.split("axes:")[0].replace("hardware: demo", "hardware: sata-16x8") + "axes: {array.rows: [8, 16]}\n"
    table = run_sweep(write_sweep(tmp_path, text), output=tmp_path / "out", jobs=1)
    assert table["status"].tolist() == ["ok", "ok"]
    assert table["area_um2"][0] < table["area_um2"][1]


def test_inputs_are_generated_or_lie_beside_the_sweep_file(tmp_path):
    spikes = np.zeros((2, 3, 64), np.uint8)
    spikes[:, :, ::2] = 1
    np.savez(tmp_path / "half.npz", spikes=spikes)
    text = SWEEP.split("set:")[0].replace("[tiny.csv]", "[digits-mlp]") + (
        "set: {workload.timesteps: 3}\naxes: {workload.input: ['poisson:0.1', half.npz, none.npz]}\n"
    )
    table = run_sweep(write_sweep(tmp_path, text), output=tmp_path / "out", jobs=1)
    assert table["status"].tolist() == ["ok", "ok", "failed"]
    assert table["effective_acs"][0] < table["effective_acs"][1]
    assert table["error"][2].startswith("WorkloadError: none.npz: ")


def test_points_of_equal_content_are_evaluated_once(tmp_path):
    path = write_sweep(
        tmp_path, SWEEP.split("axes:")[0] + "points:\n  - {chip.clock_mhz: 100.0}\n  - {chip.clock_mhz: 100}\n"
    )
    table = run_sweep(path, output=tmp_path / "out", jobs=1)
    assert len(table) == 2
    assert table["key"].nunique() == 1
    assert len(records(tmp_path / "out")) == 1


# Workers that die


class _Mortal:
    """Workers of which one dies whenever it meets the deadly point, or at its first `n_deaths` batches."""

    n_workers = 2

    def __init__(self, deadly: int, n_deaths: int = 0) -> None:
        self.deadly, self.n_deaths, self.n_rebuilt = deadly, n_deaths, 0

    def submit(self, call, job, tasks):
        future = Future()
        if self.n_deaths or any(task.point.index == self.deadly for task in tasks):
            self.n_deaths = max(0, self.n_deaths - 1)
            future.set_exception(BrokenProcessPool("a worker died"))
        else:
            future.set_result(call(job, tasks))
        return future

    def rebuild(self) -> bool:
        self.n_rebuilt += 1
        return True

    def stop(self) -> None:
        """Nothing to stop."""


def drive(sweep: Path, folder: Path, workers: _Mortal) -> dict[int, str]:
    plan = Plan.of(load_space(sweep), folder)
    found: dict[int, str] = {}
    tasks = [plan.task(point) for point in plan.space.points()[:12]]

    def kept(task, record):
        found[task.point.index] = record["status"]

    Driver(plan.job, plan.store, workers, kept).run(tasks)
    return found


def test_a_point_that_kills_its_worker_fails_alone(sweep, tmp_path):
    workers = _Mortal(deadly=7)
    found = drive(sweep, tmp_path, workers)
    assert found == {index: "failed" if index == 7 else "ok" for index in range(12)}
    assert workers.n_rebuilt <= 1 + MAX_DEATHS
    errors = [json.loads(data)["error"] for data in records(tmp_path).values()]
    assert set(errors) == {None, f"its worker died {MAX_DEATHS} times: killed, or out of memory"}


def test_workers_that_die_at_birth_end_the_sweep(sweep, tmp_path):
    with pytest.raises(SimulationError, match="die as they start") as fault:
        drive(sweep, tmp_path, _Mortal(deadly=-1, n_deaths=99))
    assert "call run_sweep under `if __name__ == '__main__':`" in str(fault.value)


def test_stopped_processes_are_gone_at_once():
    workers = Processes(1)
    pid = workers.submit(os.getpid).result()
    sleeper = workers.submit(time.sleep, 600)
    began = time.monotonic()
    workers.stop()
    assert time.monotonic() - began < 300
    assert not is_alive(pid)
    with pytest.raises((BrokenProcessPool, CancelledError)):
        sleeper.result()


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """Worker processes; the helper of multiprocessing that removes semaphores is none."""
    try:
        pids = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return [each for each in pids if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes()]
    except OSError:
        return []


def kill_at_random(sweep: Path, folder: Path, n_kills: int, seed: int) -> None:
    """Start the sweep and kill it, and every other time a worker of it before, again and again; then let it end."""
    chance = random.Random(seed)
    for number in range(n_kills):
        process = subprocess.Popen([*COMMAND, sweep, "-o", folder, "--jobs", "2"], stderr=subprocess.DEVNULL)
        while not children(process.pid) and process.poll() is None:
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 3))
        workers = children(process.pid)
        if workers and number % 2:
            os.kill(chance.choice(workers), signal.SIGKILL)
            time.sleep(chance.uniform(0, 3))
        workers = children(process.pid)
        process.kill()
        process.wait()
        deadline = time.monotonic() + 60
        while any(map(is_alive, workers)):
            assert time.monotonic() < deadline, "workers outlive their parent"
            time.sleep(0.05)
        for data in records(folder).values():
            json.loads(data)
    assert subprocess.run([*COMMAND, sweep, "-o", folder, "--jobs", "2"], stdout=subprocess.DEVNULL).returncode == 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="finds processes through /proc")
def test_killed_sweeps_end_like_undisturbed_ones(sweep, undisturbed, tmp_path):
    kill_at_random(sweep, tmp_path / "out", n_kills=2, seed=1)
    assert tables(tmp_path / "out") == tables(undisturbed)
    assert records(tmp_path / "out") == records(undisturbed)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="finds processes through /proc")
def test_sweeps_killed_twenty_times_end_like_undisturbed_ones(tmp_path):
    path = write_sweep(tmp_path, LONG_SWEEP)
    run_sweep(path, output=tmp_path / "undisturbed", jobs=2)
    kill_at_random(path, tmp_path / "out", n_kills=20, seed=2)
    assert tables(tmp_path / "out") == tables(tmp_path / "undisturbed")
    assert records(tmp_path / "out") == records(tmp_path / "undisturbed")


def test_ctrl_c_says_how_to_go_on(sweep, tmp_path, capsys, monkeypatch):
    def interrupted(job, tasks):
        if tasks[0].point.index >= 2:
            raise KeyboardInterrupt
        return evaluate_batch(job, tasks)

    monkeypatch.setattr("archsim.sweeps.driver.evaluate_batch", interrupted)
    assert cli.main(["sweep", str(sweep), "-o", str(tmp_path / "out"), "--jobs", "1"]) == 130
    said = f"archsim: stopped; finished points are kept, and the same command goes on: {tmp_path / 'out'}\n"
    assert capsys.readouterr().err == said
    assert len(records(tmp_path / "out")) == 2


# Folders that cannot be written


def test_a_full_disk_leaves_no_broken_record(sweep, tmp_path, monkeypatch):
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", full)
    with pytest.raises(ConfigError) as fault:
        run_sweep(sweep, output=tmp_path, jobs=1)
    assert str(fault.value) == (
        f"{tmp_path}: a record cannot be written (No space left on device). All earlier records are whole; "
        "make room or the folder writable, and run the same command again to go on."
    )
    assert not list(tmp_path.glob("**/*.part"))
    assert all(json.loads(data)["status"] == "ok" for data in records(tmp_path).values())
    monkeypatch.undo()
    assert len(run_sweep(sweep, output=tmp_path, jobs=1)) == N_POINTS


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda folder: folder.write_text("mine"), "{}: is a file; a sweep needs a folder. Choose another -o."),
        (
            lambda folder: (folder.mkdir(), (folder / "thesis.tex").write_text("mine")),
            "{}: holds files, but no sweep; choose another -o, or empty it",
        ),
    ],
)
def test_a_folder_that_is_no_sweeps_is_left_alone(sweep, tmp_path, make, fault):
    folder = tmp_path / "out"
    make(folder)
    with pytest.raises(ConfigError) as found:
        run_sweep(sweep, output=folder, jobs=1)
    assert str(found.value) == fault.format(folder)


def test_a_folder_that_cannot_be_made_is_told_before_anything_runs(sweep):
    with pytest.raises(ConfigError, match=r"^/proc/sweep: cannot be written \(.*\)\. Choose another -o\.$"):
        run_sweep(sweep, output="/proc/sweep", jobs=1)


def test_two_sweeps_in_one_folder_exclude_each_other(sweep, tmp_path):
    with Store(tmp_path).held(), pytest.raises(ConfigError) as fault:
        run_sweep(sweep, output=tmp_path, jobs=1)
    assert str(fault.value) == f"{tmp_path}: another sweep is at work in this folder; wait for it, or stop it"


# The cache


def test_the_cache_makes_an_entry_once_and_forgets_the_oldest(tmp_path):
    cache, made = Cache(tmp_path, limit_bytes=3000), []

    def entry(key):
        return cache.arrays("thing", key, lambda: {"number": np.full(100, made.append(key) or len(made))})["number"][0]

    assert [entry("a"), entry("b"), entry("a")] == [1, 2, 1]
    os.utime(tmp_path / "thing-b.npz", ns=(0, 0))
    assert entry("c") == 3
    assert sorted(path.name for path in tmp_path.glob("*.npz")) == ["thing-a.npz", "thing-c.npz"]


def test_who_needs_an_entry_waits_for_who_makes_it(tmp_path):
    made = []

    def entry(number):
        def make():
            time.sleep(0.1)
            return {"number": np.array(made.append(number) or number)}

        return int(Cache(tmp_path, 10**6).arrays("thing", "a", make)["number"])

    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(entry, range(4))) == set(made)
    assert len(made) == 1


def test_a_damaged_entry_is_made_again(tmp_path):
    cache = Cache(tmp_path, limit_bytes=10**6)
    cache.arrays("thing", "a", lambda: {"a": np.arange(3)})
    (tmp_path / "thing-a.npz").write_bytes(b"PK\x03\x04 no archive")
    assert cache.arrays("thing", "a", lambda: {"a": np.arange(4)})["a"].tolist() == [0, 1, 2, 3]


def test_an_activity_survives_the_cache():
    keys = {"tile.pe.crossbar.v_read_v": 0.2, "tile.pe.crossbar.device.preset": "rram-20k-200k"}
    hardware, workload = load_hardware("demo", keys), load_workload("digits-mlp")
    activity = infer(map_network(hardware, workload), workload, samples=2, chips=2)
    again = activity_of(arrays_of(activity))
    assert arrays_of(again).keys() == arrays_of(activity).keys()
    assert all(np.array_equal(array, arrays_of(again)[name]) for name, array in arrays_of(activity).items())
    assert (again.accuracy, again.kind, again.notes) == (activity.accuracy, activity.kind, activity.notes)


@pytest.mark.parametrize(
    ("change", "is_shared"),
    [
        ({"chip.noc.flit_bits": 8}, True),
        ({"mapping.layer_replication": {"fc1": 2}}, True),
        ({"tile.pe.adc.bits": 7}, False),
        ({"tile.pe.crossbar.device.preset": "rram-20k-200k"}, False),
    ],
)
def test_chips_share_an_activity_if_they_differ_in_timing_alone(change, is_shared):
    keys = [activity_key(load_hardware("demo", each), "workload", 1, 1, 0) for each in ({}, change)]
    assert (keys[0] == keys[1]) == is_shared


@pytest.mark.slow
def test_processes_infer_a_network_and_solve_its_crossbars_once(tmp_path):
    text = SWEEP.replace("[tiny.csv]", "[digits-mlp]").replace("workload.assumed_rate: 0.25, ", "")
    fixed = {"tile.pe.crossbar.device.preset": "rram-20k-200k", "tile.pe.crossbar.r_wire_row_ohm": 2.5}
    axes = {"chip.noc.flit_bits": [8, 16, 32], "tile.pe.adc.bits": [5, 6]}
    space = load_space(write_sweep(tmp_path, text), {"axes": axes, "set": fixed})
    run_sweep(space, output=tmp_path / "out", jobs=2)
    names = [path.name.split("-")[0] for path in (tmp_path / "out" / "cache").glob("*.npz")]
    n_layers = len(load_workload("digits-mlp").network.layers)
    assert (names.count("activity"), names.count("circuits")) == (2, n_layers)
    run_sweep(space, output=tmp_path / "uncached", jobs=1, cache_mib=0)
    assert tables(tmp_path / "uncached") == tables(tmp_path / "out")


def test_an_answer_has_the_records_of_its_batch_in_order(sweep, tmp_path):
    plan = Plan.of(load_space(sweep), tmp_path)
    tasks = [plan.task(point) for point in plan.space.points()[:3]]
    answer = evaluate_batch(plan.job, tasks)
    assert isinstance(answer, Answer)
    assert [record["key"] for record in answer.records] == [task.key for task in tasks]

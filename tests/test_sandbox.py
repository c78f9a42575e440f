"""Files that crash, hang or fill memory end as one WorkloadError, and the reader lives on or restarts."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from archsim.errors import WorkloadError
from archsim.workload.sandbox import Hdf5Reader, Unreadable, read_hdf5

REPLACED_READ = """
import importlib.util, os, sys, time
spec = importlib.util.spec_from_file_location("worker", {worker!r})
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
def read_tree(path):
    {body}
worker.read_tree = read_tree
worker.serve()
"""


@pytest.fixture
def hdf5_file(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["group/numbers"] = np.arange(6, dtype=np.float32).reshape(2, 3)
        file["group/scalar"] = 3
        file["group/text"] = "héllo"
        file["group/texts"] = np.array([["a", "b"]], dtype=object)
        file["group/compound"] = np.zeros(2, dtype=[("x", "i4")])
        file["group/soft"] = h5py.SoftLink("/group/numbers")
        file["group/external"] = h5py.ExternalLink("/etc/passwd", "/")
    return path


@pytest.fixture
def reader_that(tmp_path):
    """Make a reader whose every read runs the given statement instead."""
    readers = []

    def make(body, wall_limit_s=20):
        script = tmp_path / "worker.py"
        real = Path(sys.modules["archsim.workload.sandbox"].__file__).with_name("hdf5_worker.py")
        script.write_text(REPLACED_READ.format(worker=str(real), body=body))
        readers.append(Hdf5Reader(script, wall_limit_s))
        return readers[-1]

    yield make
    for reader in readers:
        reader.close()


def test_numbers_texts_and_foreign_things_come_back_as_plain_data(hdf5_file):
    group = read_hdf5(hdf5_file)["group"]
    np.testing.assert_array_equal(group["numbers"], [[0, 1, 2], [3, 4, 5]])
    assert group["numbers"].dtype == np.float32
    assert group["scalar"].shape == ()
    assert (group["text"], group["texts"]) == ("héllo", [["a", "b"]])
    assert group["soft"] == group["external"] == Unreadable("a link")
    assert isinstance(group["compound"], Unreadable)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("os.kill(os.getpid(), 11)", "reading it crashed the HDF5 library (signal 11); the file is damaged"),
        ("while True: pass", "reading it took longer than 1 s; the file is damaged or far too large"),
        ("time.sleep(60)", "reading it took longer than 1 s; the file is damaged or far too large"),
        ("bytearray(5 << 30)", "reading it needs more than 4 GiB of memory; the file is damaged or far too large"),
        ("os._exit(3)", "the process that reads HDF5 files failed (exit status 3); is h5py installed?"),
        ("raise OSError('bad heap')", "damaged or truncated; the HDF5 library says: bad heap"),
    ],
)
def test_what_ends_the_reading_is_told(reader_that, hdf5_file, body, message):
    with pytest.raises(WorkloadError) as caught:
        reader_that(body, wall_limit_s=1).read(hdf5_file)
    assert str(caught.value) == f"{hdf5_file}: {message}"


def test_a_crash_leaves_the_warm_process_alive(reader_that, hdf5_file):
    reader = reader_that("os.kill(os.getpid(), 11)")
    pids = set()
    for _ in range(2):
        with pytest.raises(WorkloadError, match="signal 11"):
            reader.read(hdf5_file)
        pids.add(reader.pid)
    assert len(pids) == 1


def test_a_killed_reader_is_started_again(hdf5_file):
    reader = Hdf5Reader()
    reader.read(hdf5_file)
    os.kill(reader.pid, signal.SIGKILL)
    time.sleep(0.05)
    assert "group" in reader.read(hdf5_file)
    reader.close()


def test_a_dataset_that_claims_too_much_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "bomb.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("bomb", shape=(1 << 40,), dtype="f8", chunks=(1 << 20,))
    with pytest.raises(WorkloadError, match="more than 2 GiB of data"):
        read_hdf5(path)


def test_groups_that_contain_themselves_are_refused(tmp_path):
    path = tmp_path / "loop.h5"
    with h5py.File(path, "w") as file:
        file["a/b"] = 1
        file["a/self"] = file["a"]
    with pytest.raises(WorkloadError, match="nested more than 32 deep"):
        read_hdf5(path)


def test_missing_and_irregular_files_are_named(tmp_path):
    with pytest.raises(WorkloadError, match=r"nothing.h5: no such file$"):
        read_hdf5(tmp_path / "nothing.h5")
    with pytest.raises(WorkloadError, match=r"not a regular file$"):
        read_hdf5(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see whether a process lives")
@pytest.mark.parametrize("ending", ["os._exit(0)", "os.kill(os.getpid(), 9)"])
def test_the_reader_dies_with_its_parent(hdf5_file, ending):
    program = (
        "import os, sys; from pathlib import Path; from archsim.workload import sandbox\n"
        f"sandbox.read_hdf5(Path({str(hdf5_file)!r})); print(sandbox._shared_reader.pid, flush=True); {ending}"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root, timeout=30)
    pid = int(done.stdout)
    deadline = time.monotonic() + 5
    while _lives(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _lives(pid)


def _lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

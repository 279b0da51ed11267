"""Runs: names, seeds, locks; and writing files whole."""

import hashlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from severity.core import files, params, runs
from severity.core.errors import SeverityError
from severity.core.runs import Run
from tests.checks import every
from tests.trees import TOP


def test_the_grid_is_every_combination_in_order():
    grid = runs.grid({"grid": {"backbone": ["a", "b"], "loss": ["x"], "seed": [1, 0]}})
    assert [run.name for run in grid] == ["a-x-1", "a-x-0", "b-x-1", "b-x-0"]


def test_seeds_depend_on_names_alone_and_are_pinned():
    assert runs.seed_for("a", 1) == runs.seed_for("a", 1) != runs.seed_for("a", 2)
    assert runs.seed_for("a", "b") != runs.seed_for("ab")
    assert 0 <= runs.seed_for("anything") < 2**63
    # A change of this number changes every published result: renew it only with a new major version.
    assert runs.seed_for("resnet18-hxe-0", "epoch", 3) == 5422339993884741176


def test_a_run_can_be_held_once(tmp_path):
    run = Run("a", "b", 0)
    with runs.scratch(run, {"x": 1}, root=tmp_path) as folder:
        assert folder.is_dir()
        with pytest.raises(SeverityError, match="Another process is training the run a-b-0"):
            with runs.scratch(run, {"x": 1}, root=tmp_path):
                pass
        with runs.scratch(run, {"x": 2}, root=tmp_path) as other:
            assert other != folder
    assert not folder.exists()


def test_a_lock_whose_folder_was_removed_meanwhile_holds_nothing(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    real, calls = os.fstat, []

    def removed_by_its_holder(descriptor):
        calls.append(descriptor)
        if len(calls) == 1:  # Between opening the lock and looking at it, who held it ends.
            shutil.rmtree(folder)
        return real(descriptor)

    if runs.fcntl is None:
        pytest.skip("no flock here")
    monkeypatch.setattr(runs.os, "fstat", removed_by_its_holder)
    assert runs._locked(folder, "busy", "comfort") is None
    held = runs._locked(folder, "busy", "comfort")
    assert held is not None and (folder / "lock").exists()
    with pytest.raises(SeverityError, match="busy .it holds .*: comfort"):
        runs._locked(folder, "busy", "comfort")
    held.close()


def _hold_in_turn(root, count) -> None:
    """Enter and leave the same scratch folder again and again; each time nobody else may be inside."""
    entered = 0
    while entered < count:
        try:
            with runs.scratch(Run("a", "b", 0), {}, root=root) as folder:
                os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))  # fails where another is inside
                entered += 1
        except SeverityError:
            pass


@pytest.mark.skipif(runs.fcntl is None, reason="no flock here")
def test_two_processes_are_never_inside_together(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_hold_in_turn, args=(tmp_path, 200)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]


def test_sources_are_the_code_that_is_loaded_and_change_with_it():
    found = runs.sources()
    assert found["severity/core/runs.py"] == hashlib.sha256(Path(runs.__file__).read_bytes()).hexdigest()
    assert "severity/core/errors.py" in found
    assert every(name.startswith(("severity/", "stages/")) for name in found)
    program = "import sys; from severity.core import runs; before = runs.sources(); import severity.losses.haf; "
    program += "print(sorted(runs.sources().keys() - before.keys()))"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "severity/losses/haf.py" in told and "severity/links/links.py" in told


def test_what_determines_a_run_knows_neither_the_machine_nor_the_schema():
    settings = params.load(TOP / "params.yaml")
    run = Run("tiny_resnet", "hxe", 0)
    record = runs.record(run, settings)
    assert record["train"] and record == runs.record(run, settings | {"machine": {"device": "cuda:1", "devices": 4}})
    assert "severity.schema" in sys.modules and not [path for path in runs.sources() if "schema" in path]


@pytest.mark.skipif(runs.fcntl is None, reason="no locks of files here")
def test_a_lock_that_was_removed_before_it_was_held_is_none(tmp_path, monkeypatch):
    """Its last holder removes the folder with the lock; a third process would lock the file of a new folder."""
    flock, times = runs.fcntl.flock, []

    def removed_before(lock, how):
        times.append(1)
        if len(times) == 1:
            shutil.rmtree(tmp_path / "work")
        flock(lock, how)

    monkeypatch.setattr(runs.fcntl, "flock", removed_before)
    with runs.held(tmp_path / "work", "Another", "later"):
        assert len(times) == 2
        with pytest.raises(
            SeverityError, match=r"Another \(it holds .*\). Wait for it, or stop it and run again: later\."
        ):
            with runs.held(tmp_path / "work", "Another", "later"):
                pass
    assert not (tmp_path / "work").exists()


def test_the_state_of_a_run_that_failed_stays(tmp_path):
    with pytest.raises(RuntimeError):
        with runs.scratch(Run("a", "b", 0), {}, root=tmp_path) as folder:
            (folder / "state.pt").write_text("half way")
            raise RuntimeError
    with runs.scratch(Run("a", "b", 0), {}, root=tmp_path) as again:
        assert (again / "state.pt").read_text() == "half way"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_a_stage_dies_with_the_process_that_started_it(tmp_path):
    child = "import time; from severity.core import commands; commands.die_with_parent(); print('ready', flush=True); time.sleep(60)"
    parent = (
        "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', sys.argv[1]]); "
        "print(child.pid, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent, child], stdout=subprocess.PIPE, text=True)
    try:
        lines = {process.stdout.readline().strip(), process.stdout.readline().strip()}
        pid = int(next(line for line in lines if line != "ready"))
        assert "ready" in lines
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    for _ in range(100):
        if not _runs(pid):
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the child outlived its parent")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_a_process_whose_parent_has_ended_ends_too():
    for parent, code in ((os.getpid(), 0), (os.getpid() + 1, 1)):
        command = [sys.executable, "-c", f"from severity.core import commands; commands.die_with_parent({parent})"]
        ended = subprocess.run(command, capture_output=True, text=True)
        assert ended.returncode == code
        assert ("the process that started this one has ended" in ended.stderr) == bool(code)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"  # A zombie has died.
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_replacing_writes_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), files.replacing(path) as beside:
        beside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["file.txt"]
    folder = tmp_path / "folder"
    for content in ("one", "two"):
        with files.replacing(folder) as beside:
            beside.mkdir()
            (beside / content).write_text(content)
    assert [each.name for each in folder.iterdir()] == ["two"]


def _write_and_die(path) -> None:
    with files.replacing(path) as beside:
        beside.write_text("half")
        os._exit(9)


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    process = multiprocessing.get_context("spawn").Process(target=_write_and_die, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == 9 and path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2  # The half-written file lies beside it ...
    with files.replacing(path) as beside:
        beside.write_text("new")
    assert [each.name for each in tmp_path.iterdir()] == ["file.txt"]  # ... until the next writer clears it away.


def test_json_refuses_nan_and_tells_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not (tmp_path / "x.json").exists()
    with pytest.raises(SeverityError, match="dvc repro"):
        files.read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(SeverityError, match="not JSON"):
        files.read_json(tmp_path / "x.json")


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_kept_memory_is_not_asked_for_again():
    program = """
import ctypes, resource, sys
from severity.core import runs
if not hasattr(ctypes.CDLL(None), "mallopt"):
    sys.exit("no glibc")
if sys.argv[1] == "kept":
    runs.keep_memory()
for block in range(20):
    if block == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    first, second = bytearray(20_000_000), bytearray(20_000_000)
    del first, second
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = {}
    for way in ("kept", "as it is"):
        done = subprocess.run([sys.executable, "-c", program, way], capture_output=True, text=True)
        if "no glibc" in done.stderr:
            pytest.skip("the C library is another")
        faults[way] = int(done.stdout)
    assert faults["kept"] < 1000 < faults["as it is"]

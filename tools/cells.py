"""Run the cells of the grid that are not up to date side by side on one machine, each pinned to its own devices.

A cell is what DVC's matrix calls an entry of the grid: one run, its training and its prediction.

Reads   what `dvc status` says
Writes  what the stages train and predict write, and one log a cell under data/unfinished/logs, removed when it ends well
Run     python -m tools.cells                           on CPUs: as many at a time as the cores allow, each begun in a
                                                        process that has torch already; on a GPU: one, through DVC
        python -m tools.cells --jobs 2                  two at a time
        python -m tools.cells --devices 0 1 2 3         four at a time, a GPU each (CUDA_VISIBLE_DEVICES)
        python -m tools.cells --devices 0,1 2,3         two at a time, two GPUs each (with machine.devices: all)
        python -m tools.cells --list                    only say which are not up to date
        Then `dvc repro` finds them all up to date and runs what comes after.
"""

import hashlib
import importlib
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from severity.core import commands, errors, params, runs
from severity.core.errors import SeverityError

LOGS = Path("data/unfinished/logs")
# The stages that all cells need, and the two that a cell is.
BEFORE = ("prepare", "hierarchy")
CELL = ("train", "predict")
# Seconds that a cell has to end before it is killed.
PATIENCE = 20.0


def stale() -> list[str]:
    """The cells whose network or predictions DVC would make again, in the order of the grid."""
    status = dvc("status", "--json", *CELL)
    outdated = {name.partition("@")[2] for name in json.loads(status.splitlines()[-1])}
    return [run.name for run in runs.grid(params.load()) if run.name in outdated]


def through_dvc(cell: str) -> list[str]:
    """The command that makes one cell and records it in dvc.lock."""
    return ["dvc", "--wait-for-lock", "repro", "--single-item", *(f"{stage}@{cell}" for stage in CELL)]


def direct(cell: str) -> list[str]:
    """The command that makes one cell without DVC; `record` registers it with DVC afterwards."""
    run = _run(cell)
    options = f"--backbone {run.backbone} --loss {run.loss} --seed {run.seed}"
    return ["sh", "-c", " && ".join(f"python -m stages.{stage} {options}" for stage in CELL)]


class Forked:
    """A process that makes one cell, forked from one that has imported torch: a cell on a CPU takes half a minute, and what
    two stages and DVC would import takes a third of that. It is to a caller what `subprocess.Popen` is."""

    _context = multiprocessing.get_context("forkserver")

    def __init__(self, cell: str, log: Path, environment: Mapping[str, str]):
        # OpenMP reads its variables once, when the first process loads it.
        os.environ.update({name: value for name, value in environment.items() if name.startswith("OMP_")})
        self._context.set_forkserver_preload([f"stages.{stage}" for stage in CELL])
        self._process = self._context.Process(target=_make, args=(cell, str(log), dict(environment)))
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(["cell"], timeout or 0)
        return self._process.exitcode


def _make(cell: str, log: str, environment: Mapping[str, str]) -> None:
    """Train and predict one cell in this process, its output in a file."""
    os.setsid()  # Ctrl-C reaches only who started this.
    threading.Thread(target=_end_with_starter, daemon=True).start()
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(file, 1)
    os.dup2(file, 2)
    run = _run(cell)
    for stage in CELL:
        sys.argv = [f"stages.{stage}", "--backbone", run.backbone, "--loss", run.loss, "--seed", str(run.seed)]
        errors.run(importlib.import_module(f"stages.{stage}").main)


def _end_with_starter() -> None:
    """Wait until the process that asked for this one is gone, and end then, with whatever was started from here."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os.killpg(0, signal.SIGTERM)


def _run(cell: str) -> runs.Run:
    (run,) = (run for run in runs.grid(params.load()) if run.name == cell)
    return run


def inputs() -> str:
    """Stands for all that cells are made from: code, params, and the summaries of their data."""
    files = [Path("params.yaml"), Path("dvc.yaml"), *Path().glob("severity/**/*.py"), *Path().glob("stages/*.py")]
    files += [*Path("data/hierarchy").glob("*"), Path("data/images/summary.json"), Path("data/prepared/summary.json")]
    contents = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files) if path.is_file()}
    return runs.fingerprint(contents)


def record(cells: Sequence[str], made_from: str) -> None:
    """Write cells that were made without DVC into dvc.lock and DVC's cache.

    Raises:
        SeverityError: what they were made from has changed since: DVC would call them up to date all the same.
    """
    if inputs() != made_from:
        raise SeverityError(
            "params.yaml, code or data changed while the cells ran, so nobody can say what they were made from. Undo "
            "the change and record them then, or run them again."
        )
    if cells:
        dvc("commit", "--force", *(f"{stage}@{cell}" for cell in cells for stage in CELL))


def dvc(*arguments: str) -> str:
    try:
        done = subprocess.run(["dvc", *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        raise SeverityError("dvc is not on the PATH. Activate the environment: source .venv/bin/activate") from None
    if done.returncode:
        raise SeverityError(f"dvc {' '.join(arguments[:4])} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout


@dataclass
class _Running:
    name: str
    process: subprocess.Popen | Forked
    log: TextIO
    slot: int
    since: float = field(default_factory=time.monotonic)


def aside(
    commands: Mapping[str, Sequence[str] | type[Forked]],
    slots: Sequence[Mapping[str, str]],
    logs: Path,
    *,
    done: Callable[[str], None] = lambda name: None,
) -> dict[str, int]:
    """Run commands side by side, one in each slot; one that fails stops no other.

    Args:
        commands: what to run, by name, in this order: words, or `Forked` for the cell of this name.
        done: called with the name of each that has ended well, when the next one has begun.
        slots: the environment variables that a command gets in this slot, besides those of this process.
        logs: folder for the output of each, in <name>.log; removed when it ends well.

    Returns:
        the exit status of those that failed, by name; negative: the signal.
    """
    logs.mkdir(parents=True, exist_ok=True)
    waiting, free, running, failed = list(commands.items()), list(range(len(slots))), [], {}
    ended: list[str] = []
    try:
        while waiting or running or ended:
            while waiting and free:
                name, command = waiting.pop(0)
                running.append(_start(name, command, free.pop(0), slots, logs))
            for name in ended:
                done(name)
            ended.clear()
            time.sleep(0.1)
            for each in [each for each in running if each.process.poll() is not None]:
                running.remove(each)
                free.append(each.slot)
                status = _ended(each)
                if status:
                    failed[each.name] = status
                else:
                    ended.append(each.name)
    finally:
        _stop(running)
    return failed


def _start(
    name: str, command: Sequence[str] | type[Forked], slot: int, slots: Sequence[Mapping[str, str]], logs: Path
) -> _Running:
    log = open(logs / f"{name}.log", "w+", encoding="utf-8")
    if command is Forked:
        print(f"{name}: started{_where(slots[slot])}", flush=True)
        return _Running(name, Forked(name, logs / f"{name}.log", slots[slot]), log, slot)
    process = subprocess.Popen(
        command, env=os.environ | dict(slots[slot]), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C reaches only this process, which then ends the whole session of each.
        preexec_fn=commands.die_with_parent,
    )  # fmt: skip
    print(f"{name}: started{_where(slots[slot])}", flush=True)
    return _Running(name, process, log, slot)


def _where(slot: Mapping[str, str]) -> str:
    return f" on device {slot['CUDA_VISIBLE_DEVICES']}" if "CUDA_VISIBLE_DEVICES" in slot else ""


def _ended(each: _Running) -> int:
    """Say how it ended; returns its exit status."""
    seconds, status = time.monotonic() - each.since, each.process.returncode
    each.log.close()
    if status == 0:
        os.unlink(each.log.name)
        print(f"{each.name}: done in {seconds:.0f} s", flush=True)
        return 0
    last = [line for line in Path(each.log.name).read_text("utf-8", "replace").splitlines() if line.strip()][-3:]
    print(f"{each.name}: FAILED ({status}) after {seconds:.0f} s; {each.log.name} ends with", flush=True)
    print("".join(f"    {line}\n" for line in last), end="", flush=True)
    return status


def _stop(running: Sequence[_Running]) -> None:
    for each in running:
        os.killpg(each.process.pid, signal.SIGTERM)
    end = time.monotonic() + PATIENCE
    for each in running:
        try:
            each.process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(each.process.pid, signal.SIGKILL)
            each.process.wait()
        each.log.close()


def on_cpus(machine: Mapping[str, Any]) -> bool:
    """Whether cells run on the machine's CPUs, each in one process."""
    from severity.networks import inference  # torch takes a second; only these two functions need it.

    return inference.device(machine["device"]).type == "cpu" and machine["devices"] == 1


def jobs(machine: Mapping[str, Any]) -> int:
    """How many cells the machine of params.yaml runs side by side: on CPUs what its cores allow, on GPUs one."""
    from severity.networks import inference, processes

    if inference.device(machine["device"]).type != "cpu":
        return 1
    each = machine["threads"] * processes.process_count(machine["devices"], machine["device"])
    return max(1, processes.cores() // each)


def slots(count: int, devices: Sequence[str]) -> list[dict[str, str]]:
    """The environments of so many commands side by side: devices in turn, and their share of the processor's cores.

    Networks on CPUs have `machine.threads`; the share is of what else has threads. Those that wait for work must not
    spin: the core is another command's.
    """
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, len(os.sched_getaffinity(0)) // count))
    common = {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive")}
    pinned = [{"CUDA_VISIBLE_DEVICES": devices[slot % len(devices)]} if devices else {} for slot in range(count)]
    return [{**common, **each} for each in pinned]


def _forked(cells: Sequence[str], environments: Sequence[Mapping[str, str]], made_from: str) -> dict[str, int]:
    """Make cells in forked processes and record each when it is done; what cannot be recorded then, at the end."""
    unrecorded: list[str] = []

    def done(cell: str) -> None:
        try:
            record([cell], made_from)
        except SeverityError:
            unrecorded.append(cell)

    failed = aside(dict.fromkeys(cells, Forked), environments, LOGS, done=done)
    record(unrecorded, made_from)
    return failed


def main(arguments: Sequence[str] | None = None) -> None:
    parser = commands.parser(__doc__)
    parser.add_argument(
        "--jobs", type=int, help="how many side by side; default: one for each of --devices, else see above"
    )
    parser.add_argument("--devices", nargs="+", default=[], help="values of CUDA_VISIBLE_DEVICES, one for each job")
    parser.add_argument("--list", action="store_true", help="only say which cells are not up to date")
    parser.add_argument(
        "--direct", action="store_true",
        help="run without DVC and record all at the end: for more than about 100 cells",
    )  # fmt: skip
    parser.add_argument(
        "--through-dvc", action="store_true", help="run each through DVC on CPUs too, as on GPUs; slower by a third"
    )
    options = parser.parse_args(arguments)
    if options.jobs is not None and options.jobs < 1:
        raise SeverityError(f"--jobs is {options.jobs}; it must be 1 or more.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if not runs.grid(params.load()):
        print("The grid is empty: there is nothing to train.")
        return
    dvc("repro", *BEFORE)
    cells = stale()
    if options.list or not cells:
        print("\n".join(cells) or "All cells are up to date.")
        return
    made_from = inputs()
    count = options.jobs or len(options.devices) or jobs(params.load()["machine"])
    environments = slots(count, options.devices)
    if options.direct or options.through_dvc or options.devices or not on_cpus(params.load()["machine"]):
        command = direct if options.direct else through_dvc
        failed = aside({cell: command(cell) for cell in cells}, environments, LOGS)
    else:
        failed = _forked(cells, environments, made_from)
    if options.direct:
        record([cell for cell in cells if cell not in failed], made_from)
    if failed:
        raise SeverityError(
            f"{len(failed)} of {len(cells)} cells failed: {', '.join(failed)}. See {LOGS}/<cell>.log; run again: what "
            "is done stays done, and training resumes where it was."
        )
    print(f"{len(cells)} cells made; `dvc repro` runs what comes after.")


if __name__ == "__main__":
    try:
        errors.run(main)
    except KeyboardInterrupt:
        sys.exit("stopped; run again: what is done stays done, and training resumes where it was")

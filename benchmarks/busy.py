"""What a busy machine does to a training: seconds of one cell, alone and beside processes that spin.

    python -m benchmarks.busy [--epochs 2] [--competitors 1]      some ten minutes on two cores; nothing else should run

The stage `train` of `tiny_resnet`-`ce`, as `dvc repro` calls it, on the drawn phantoms with the default params: with one thread,
with a thread a core that waits passively (as stages do by themselves), and with a thread a core that spins while it waits. A
competitor is a process that does nothing but count, at the same priority, as many as cores are meant to be taken. Then two
cells: one after the other with a thread a core each, and side by side with one thread each.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from benchmarks.decoding import processor
from benchmarks.full_size import TOP, project, run
from severity.core import markdown

STAGES = ("collect", "read", "decode", "prepare", "hierarchy")
PASSIVE = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
SPINNING = {"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "infinity"}


@contextmanager
def competitors(count: int) -> Iterator[None]:
    """So many processes that spin."""
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for each in spinning:
            each.kill()
            each.wait()


def start(folder: Path, seed: int, environment: dict[str, str]) -> subprocess.Popen:
    """Start the training of one cell."""
    command = [sys.executable, "-m", "stages.train", "--backbone", "tiny_resnet", "--loss", "ce", "--seed", str(seed)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    return subprocess.Popen(
        command, cwd=folder, env=inherited | {"PYTHONPATH": str(TOP)} | environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


def seconds(folder: Path, threads: int, environment: dict[str, str], groups: Sequence[Sequence[int]]) -> float:
    """How long the cells of these seeds take: those of a group side by side, one group after the other."""
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["machine"]["threads"] = threads
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    started = time.perf_counter()
    for seeds in groups:
        cells = [start(folder, seed, environment) for seed in seeds]
        if any([cell.wait() for cell in cells]):
            raise RuntimeError("a training failed; run `python -m stages.train` in a project to see why")
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--competitors", type=int, default=1)
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(
        f"{processor()}, {cores} cores, {options.epochs} epochs, {options.competitors} competing processes", flush=True
    )
    kinds = {
        "one thread": (1, {}),
        f"{cores} threads, passive": (cores, PASSIVE),
        f"{cores} threads, spinning": (cores, SPINNING),
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "phantom"
        with project(folder) as params:
            params["train"]["epochs"] = options.epochs
        for stage in STAGES:
            run(stage, folder)
        seconds(folder, 1, {}, [[0]])  # files and libraries are then in memory
        rows = []
        for name, (threads, environment) in kinds.items():
            alone = seconds(folder, threads, environment, [[0]])
            with competitors(options.competitors):
                busy = seconds(folder, threads, environment, [[0]])
            rows.append([name, f"{alone:.1f} s", f"{busy:.1f} s", f"{busy / alone:.2f}"])
            print(rows[-1], file=sys.stderr, flush=True)
        print(markdown.table(["One cell", "alone", "busy", "busy / alone"], rows))
        pair = []
        for name, threads, groups in (
            (f"one after the other, {cores} threads each", cores, [[0], [1]]),
            ("side by side, one thread each", 1, [[0, 1]]),
        ):
            alone = seconds(folder, threads, PASSIVE, groups)
            with competitors(options.competitors):
                busy = seconds(folder, threads, PASSIVE, groups)
            pair.append([name, f"{alone:.1f} s", f"{busy:.1f} s", f"{busy / alone:.2f}"])
            print(pair[-1], file=sys.stderr, flush=True)
        print(markdown.table(["Two cells", "alone", "busy", "busy / alone"], pair))


if __name__ == "__main__":
    main()

"""Kill stages at random moments, run them again, and compare every byte with a study that nobody disturbed.

Of each point: a stage is started on a finished small study and ends by SIGKILL, or the process that started it does, at a
random moment of the time that it takes. Then no process may be left; what is visible of the study must still be whole, the
former bytes; and the stage, run again, must leave the same bytes, nothing half-written and no unfinished work. With --dvc it
is `dvc repro` of the whole study that is killed, and run again.

Reads   the code and params.yaml of the project
Writes  FOLDER: study/, a project of its own; reference.json, its bytes; points.jsonl, a line a point. Stopped and started
        again, it goes on behind the last one
Run     python -m benchmarks.kill_points FOLDER                             40 points of stages, about ten minutes
        python -m benchmarks.kill_points FOLDER --points 40 --dvc 4         and four of `dvc repro`
        python -m benchmarks.kill_points FOLDER --page docs/robustness.md   and put the table there
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from severity.core import files, markdown

TOP = Path(__file__).resolve().parent.parent
RUN = "test_resnet-hxe-0"
OF_RUN = ["--backbone", "test_resnet", "--loss", "hxe", "--seed", "0"]
STAGES = {name: [] for name in ("collect", "read", "decode", "prepare", "describe", "hierarchy")}
STAGES |= {"train": OF_RUN, "predict": OF_RUN}
STAGES |= {name: [] for name in ("evaluate", "aggregate", "compare", "plot", "illustrate", "explain", "report")}
RESULTS = ("data", "metrics", "plots", "report")
NO_RESULTS = ("data/times", "data/unfinished")
HIDDEN = (".writing-", ".former-", ".ended-")
WAIT = 5.0  # seconds in which what was left by a killed process must have ended
WAYS = ("the stage", "its parent")
CHECKS = {
    "orphans": "no process left",
    "whole": "former results whole",
    "same": "same bytes after",
    "clean": "nothing left",
}
# Starts a command as DVC does, by a shell that gives way to it.
PARENT = (
    "import subprocess, sys; "
    "child = subprocess.Popen(['/bin/sh', '-c', 'exec \"$@\"', 'sh', *sys.argv[1:]]); "
    "print(child.pid, flush=True); sys.exit(child.wait())"
)


def small(params: dict[str, Any]) -> dict[str, Any]:
    """One network on few images, with everything that a study has."""
    params["datasets"]["phantom"]["collect"] |= {"images": 120, "size": 64}
    params["machine"]["workers"] = 2
    params["decode"]["size"] = 32
    params["prepare"] |= {"min_positives": 0, "validation_fraction": 0.3}
    params["grid"] = {"backbone": ["test_resnet"], "loss": ["hxe"], "seed": [0]}
    params["backbones"]["test_resnet"] = {"model": "test_resnet", "pretrained": False}
    params["train"] |= {"epochs": 2, "warmup_epochs": 0.5}
    params["evaluate"]["shuffles"] = 3
    params["compare"] |= {"resamples": 50, "permutations": 199}
    params["explain"] |= {"mistakes": 1, "maps": 2}
    return params


def project(folder: Path) -> None:
    """A project of its own with these params."""
    folder.mkdir(parents=True)
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(TOP / name, folder / name)
    for name in ("stages", "severity", "data/costs", "data/external_predictions", "data/hierarchies"):
        shutil.copytree(TOP / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "data/models").mkdir()
    shutil.copytree(TOP / ".dvc", folder / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    params = small(yaml.safe_load((TOP / "params.yaml").read_text(encoding="utf-8")))
    files.write_text(folder / "params.yaml", yaml.safe_dump(params, sort_keys=False))
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)


def command(stage: str) -> list[str]:
    """What runs a stage; `dvc` stands for the whole graph."""
    if stage == "dvc":
        return [sys.executable, "-m", "dvc", "repro"]
    return [sys.executable, "-m", f"stages.{stage}", *STAGES[stage]]


def environment() -> dict[str, str]:
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
        "SHELL": "/bin/sh",
    }


def finish(folder: Path, stage: str) -> float:
    """Run to the end; returns the seconds."""
    start = time.perf_counter()
    done = subprocess.run(command(stage), cwd=folder, env=environment(), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: {stage} ended with {done.returncode}: {done.stdout[-1000:]}{done.stderr[-2000:]}")
    return time.perf_counter() - start


def results(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that is a result, by its path."""
    found = {}
    for path in sorted(each for top in RESULTS for each in (folder / top).rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(NO_RESULTS) and not any(mark in name for mark in HIDDEN):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def left_over(folder: Path) -> list[str]:
    """Half-written files, and unfinished work."""
    hidden = [
        path for top in RESULTS for path in (folder / top).rglob(".*") if any(mark in path.name for mark in HIDDEN)
    ]
    return [path.relative_to(folder).as_posix() for path in [*hidden, *(folder / "data/unfinished").glob("*")]]


def processes(folder: Path) -> list[int]:
    """Processes that work in the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            at_work = os.readlink(process / "cwd") == str(folder)
            if at_work and (process / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                found.append(int(process.name))
        except OSError:
            pass  # It has ended meanwhile.
    return found


def killed(folder: Path, stage: str, way: str, after: float) -> bool:
    """Start a stage and kill it, or its parent; returns whether it was still running."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, *command(stage)], cwd=folder, env=environment() | {"DVC_STAGE": stage},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    child = int(parent.stdout.readline())
    try:
        parent.wait(after)
        running = False
    except subprocess.TimeoutExpired:
        running = True
        os.kill(child if way == WAYS[0] else parent.pid, signal.SIGKILL)
    parent.stdout.close()
    parent.wait()
    return running


def point(number: int, seed: int, folder: Path, reference: dict[str, Any], stage: str) -> dict[str, Any]:
    """One point: what was killed when, and what was found."""
    chance = random.Random(f"{seed} {number} {stage}")
    way = WAYS[number % 2]
    after = chance.uniform(0, reference["seconds"][stage])
    if stage == "dvc":  # On a finished study it would find nothing to do.
        shutil.rmtree(folder / "report")
        changed = yaml.safe_load((folder / "params.yaml").read_text())
        changed["datasets"]["phantom"]["collect"]["seed"] = number + 1
        files.write_text(folder / "params.yaml", yaml.safe_dump(changed, sort_keys=False))
    running = killed(folder, stage, way, after)
    end = time.monotonic() + WAIT
    while (orphans := processes(folder)) and time.monotonic() < end:
        time.sleep(0.05)
    for orphan in orphans:
        os.kill(orphan, signal.SIGKILL)
    if stage == "dvc":
        changed["datasets"]["phantom"]["collect"]["seed"] = 0
        files.write_text(folder / "params.yaml", yaml.safe_dump(changed, sort_keys=False))
    whole = stage == "dvc" or results(folder) == reference["results"]
    finish(folder, stage)
    found = {"orphans": not orphans, "whole": whole, "same": results(folder) == reference["results"]}
    return (
        {"point": number, "stage": stage, "killed": way, "after": round(after, 3), "running": running}
        | found
        | {"clean": not left_over(folder)}
    )


def reference_of(folder: Path) -> dict[str, Any]:
    """The undisturbed study: made once; its results and the seconds of each stage."""
    path = folder / "reference.json"
    if not path.exists():
        shutil.rmtree(folder / "study", ignore_errors=True)
        project(folder / "study")
        for stage in STAGES:  # Once without measuring: compiled code and caches are then there.
            finish(folder / "study", stage)
        first = results(folder / "study")
        seconds = {stage: finish(folder / "study", stage) for stage in STAGES}
        if results(folder / "study") != first:
            sys.exit("error: the study is not the same the second time, so there is nothing to compare with.")
        files.write_json(path, {"results": first, "seconds": seconds})
    return files.read_json(path)


def with_dvc(folder: Path, reference: dict[str, Any]) -> None:
    """Let DVC know the study, and measure it."""
    if "dvc" not in reference["seconds"]:
        finish(folder / "study", "dvc")
        reference["seconds"]["dvc"] = sum(reference["seconds"].values()) * 1.5
        files.write_json(folder / "reference.json", reference)


def table(points: Sequence[dict[str, Any]]) -> str:
    """A row a stage: how many points, and at how many of these each check held."""
    rows = []
    for stage in (*STAGES, "dvc"):
        of_stage = [each for each in points if each["stage"] == stage]
        if of_stage:
            rows.append(_row("`dvc repro`" if stage == "dvc" else f"`{stage}`", of_stage))
    rows.append(_row("all", points))
    headings = ["killed", "points", "while it ran", *CHECKS.values()]
    held = sum(all(each[check] for check in CHECKS) for each in points)
    return f"{markdown.table(headings, rows)}\n{held} of {len(points)} points held in every respect.\n"


def _row(name: str, points: Sequence[dict[str, Any]]) -> list[str]:
    return [name, str(len(points)), *(str(sum(each[key] for each in points)) for key in ("running", *CHECKS))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--points", type=int, default=40, help="of stages, in turn")
    parser.add_argument("--dvc", type=int, default=0, help="of `dvc repro`")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", help="whose part between the marks kill-points is renewed")
    options = parser.parse_args()
    folder = options.folder.resolve()
    reference = reference_of(folder)
    log = folder / "points.jsonl"
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    plan = [(number, list(STAGES)[number % len(STAGES)]) for number in range(options.points)]
    plan += [(number, "dvc") for number in range(options.dvc)]
    for number, stage in plan:
        if any((each["point"], each["stage"] == "dvc") == (number, stage == "dvc") for each in done):
            continue
        if stage == "dvc":
            with_dvc(folder, reference)
        done.append(point(number, options.seed, folder / "study", reference, stage))
        with open(log, "a", encoding="utf-8") as file:
            file.write(json.dumps(done[-1]) + "\n")
        print(json.dumps(done[-1]), flush=True)
    print(table(done))
    if options.page:
        markdown.renew(options.page, "kill-points", table(done))


if __name__ == "__main__":
    main()

"""How commands begin: threads that wait, params.yaml before what takes seconds, an end with the parent, ``-OO``."""

import ast
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from severity.core import commands
from tests.trees import TOP

STAGES = sorted(path.stem for path in (TOP / "stages").glob("[a-z]*.py"))
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")


def run(*command: str, folder: Path = TOP, **environment: str) -> subprocess.CompletedProcess:
    here = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "DVC_STAGE")}
    here |= {"PYTHONPATH": str(TOP)} | environment
    return subprocess.run([sys.executable, *command], cwd=folder, env=here, capture_output=True, text=True)


@pytest.mark.parametrize("package", ["stages", "tools", "benchmarks"])
def test_threads_wait_passively_before_any_library_is_loaded(package):
    program = (
        f"import os, sys, {package}; print(os.environ['OMP_WAIT_POLICY'], {{'numpy', 'torch'}} & sys.modules.keys())"
    )
    assert run("-c", program).stdout.split() == ["passive", "set()"]
    assert run("-c", program, OMP_WAIT_POLICY="active").stdout.split()[0] == "active"


def test_every_stage_checks_params_first(tmp_path):
    """Within the first second, so before torch: -X importtime names what was imported until the error."""
    content = (TOP / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(content.replace("\n  epochs: 10\n", "\n  epochs: 1.5\n"), encoding="utf-8")
    for stage in STAGES:
        done = run("-X", "importtime", "-m", f"stages.{stage}", folder=tmp_path)
        assert done.returncode == 1 and "train.epochs is 1.5" in done.stderr, stage
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
        assert "yaml" in imported and not imported & {"torch", "numpy", "pandas", "matplotlib"}, stage
        assert "Traceback" not in done.stderr


def test_importing_a_stage_checks_nothing(tmp_path):
    assert run("-c", "import stages.hierarchy", folder=tmp_path).returncode == 0


def test_nothing_needs_docstrings_or_assertions():
    """``python -OO`` leaves them out. Seen in the source: to import torch without them takes most of a minute."""
    used, asserted = [], []
    for folder in ("severity", "stages", "tools"):
        for path in (TOP / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Assert):
                    asserted.append(path)
                elif isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.value, ast.Name):
                    used += [path] if node.value.id == "__doc__" else []
                elif isinstance(node, ast.Attribute) and node.attr == "__doc__":
                    used.append(path)
    assert used == [] and asserted == []
    program = "from severity.core import commands; print(commands.parser(commands.__doc__).format_usage())"
    assert run("-OO", "-c", program).stdout.startswith("usage: ")


def test_a_parser_is_described_by_the_first_line():
    assert commands.parser("What it does.\n\nMore.").description == "What it does."
    assert commands.parser(None).description == ""


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# Starts a stage as DVC does, by a shell that gives way to it, and tells its number.
PARENT = """
import os, subprocess, sys
os.environ["DVC_STAGE"] = "train"
child = subprocess.Popen(["/bin/sh", "-c", f"exec {sys.executable} -m stages.train --backbone a --loss ce --seed 0"])
print(child.pid, flush=True)
child.wait()
"""


@LINUX
def test_no_stage_outlives_its_parent_whenever_that_is_killed(tmp_path):
    """At any moment of the first two seconds, while the stage still imports torch."""
    (tmp_path / "params.yaml").write_bytes((TOP / "params.yaml").read_bytes())
    environment = os.environ | {"PYTHONPATH": str(TOP)}
    moments = random.Random(0)
    for moment in sorted([0.0, 0.01, *(moments.uniform(0, 2) for _ in range(8))]):
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT], cwd=tmp_path, env=environment, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            child = int(parent.stdout.readline())
            time.sleep(moment)
        finally:
            parent.send_signal(signal.SIGKILL)
            parent.wait()
            parent.stdout.close()
        end = time.monotonic() + 10
        while alive(child) and time.monotonic() < end:
            time.sleep(0.02)
        if alive(child):
            os.kill(child, signal.SIGKILL)
            pytest.fail(f"the stage outlived a parent that was killed after {moment:.2f} s")

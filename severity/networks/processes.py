"""Starting the processes of a group: by torchrun, by Slurm's srun, or by this process itself."""

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import torch.multiprocessing

from severity.core.commands import die_with_parent
from severity.core.errors import SeverityError, told
from severity.networks import inference
from severity.networks.group import Group

ALL = "all"
# The variables in which torchrun describes each process.
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def start(work: Callable[..., None], *arguments: Any, devices: int | str, device: str) -> None:
    """Call ``work(group, *arguments)`` in every process of a group, and return when all have ended.

    A process that torchrun or srun started is one of theirs, whatever `devices` says. Else this process starts as many
    as there are to be; it trains itself when that is one.

    Args:
        work: a function at the top level of its module. arguments: whatever can be pickled.
        devices: how many processes, a GPU each where there are GPUs; ``all``: as many as GPUs are visible, at least
            one.
        device: the params' name of the device.

    Raises:
        SeverityError: `devices` is not possible here; or what `work` raised; or a process was killed: the others are
            then stopped.
    """
    given = launched(os.environ)
    if given is not None:
        group, rendezvous = given
        with _joined(group, rendezvous, device):
            work(group, *arguments)
        return
    count = process_count(devices, device)
    if count == 1:
        work(Group(), *arguments)
    else:
        _spawn(work, arguments, count, device)


def launched(environment: Mapping[str, str]) -> tuple[Group, str] | None:
    """The group that torchrun or srun started this process in, and where it meets; None when neither did."""
    if all(name in environment for name in TORCHRUN):
        rank, size, local = (int(environment[name]) for name in TORCHRUN[:3])
        return Group(rank, size, local), "env://"
    # A batch script, too, has the job's number of tasks in its environment; only srun starts a step of that many.
    size = int(environment.get("SLURM_STEP_NUM_TASKS", 1))
    if size > 1:
        group = Group(int(environment["SLURM_PROCID"]), size, int(environment["SLURM_LOCALID"]))
        host = environment.get("MASTER_ADDR") or _first_host(environment["SLURM_STEP_NODELIST"])
        port = environment.get("MASTER_PORT") or _port(environment["SLURM_JOB_ID"], environment["SLURM_STEP_ID"])
        return group, f"tcp://{host}:{port}"
    return None


def _first_host(nodes: str) -> str:
    """The first of ``node3``, ``node[3-5,7],other1`` and the like."""
    with contextlib.suppress(FileNotFoundError, subprocess.CalledProcessError):
        listed = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
        return listed.stdout.split()[0]
    return re.sub(r"^([^,\[]*)(?:\[([^-,\]]*)[^\]]*\])?.*", r"\1\2", nodes)


def _port(job: str, step: str) -> int:
    """The same for all processes of a step, another one for another step."""
    return 20000 + (31 * int(job) + int(step)) % 20000


def process_count(devices: int | str, device: str) -> int:
    """How many processes params ask for. Raises SeverityError when that is not possible here."""
    on = inference.device(device)
    if devices == 1 or (devices == ALL and on.type == "cpu"):
        return 1
    if on.index is not None:
        raise SeverityError(
            f"params.yaml: machine.devices is {devices}, but machine.device names one GPU, {device}. Set it to auto, "
            "and CUDA_VISIBLE_DEVICES to the GPUs to use."
        )
    if on.type == "cpu":
        if devices > cores():
            # Each process loads its own torch into memory: a number meant for GPUs would bring the machine down.
            raise SeverityError(
                f"params.yaml: machine.devices is {devices}, but this machine has {cores()} cores and trains on them. "
                f"Set it to {cores()} or less."
            )
        return devices
    visible = torch.cuda.device_count()
    if devices == ALL:
        return visible
    if devices > visible:
        raise SeverityError(
            f"params.yaml: machine.devices is {devices}, but {visible} GPU{'s are' if visible > 1 else ' is'} visible "
            f"here. Set it to {visible} or {ALL}, or set CUDA_VISIBLE_DEVICES."
        )
    return devices


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _joined(group: Group, rendezvous: str, device: str) -> Iterator[None]:
    if group.size == 1:
        yield
        return
    on = inference.device(device, group)
    backend = "cpu:gloo,cuda:nccl" if on.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, init_method=rendezvous, rank=group.rank, world_size=group.size)
    yield
    # Not after an error: it could wait for a process that has ended.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _spawn(work: Callable[..., None], arguments: tuple, count: int, device: str) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // count)))
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # They are all here, whatever the machine's name resolves to.
    logging.getLogger("torch.multiprocessing.spawn").setLevel(
        logging.ERROR
    )  # That it ends the others is reported below.
    with tempfile.TemporaryDirectory() as folder:
        started = torch.multiprocessing.start_processes(
            _one_of, (work, arguments, count, device, folder, os.getpid()), count, join=False, daemon=True
        )
        try:
            while not started.join():
                pass
        except (torch.multiprocessing.ProcessRaisedException, torch.multiprocessing.ProcessExitedException):
            _explain(started, Path(folder))
            raise


def _one_of(rank: int, work: Callable, arguments: tuple, count: int, device: str, folder: str, parent: int) -> None:
    die_with_parent(parent)
    group = Group(rank, count, rank)
    try:
        with _joined(group, f"file://{folder}/rendezvous", device):
            work(group, *arguments)
    except Exception as error:
        message = told(error)
        if message is None:
            raise
        # Every process meets the same mistake; the one that started them reports it once.
        (Path(folder) / f"error-{rank}").write_text(message, encoding="utf-8")
        sys.exit(1)


def _explain(started: torch.multiprocessing.ProcessContext, folder: Path) -> None:
    """Raise SeverityError if a process reported an error that a person can fix, or was killed."""
    for report in sorted(folder.glob("error-*")):
        raise SeverityError(report.read_text(encoding="utf-8"))
    for rank, process in enumerate(started.processes):
        # SIGTERM is what the others were ended with.
        if process.exitcode < 0 and process.exitcode != -signal.SIGTERM:
            raise SeverityError(
                f"Process {rank + 1} of {len(started.processes)} was ended by "
                f"{signal.Signals(-process.exitcode).name}, so the others were stopped. Run again: training resumes "
                "where it was. (SIGKILL often means that memory ran out: lower the batch_size.)"
            )

"""What a command does first: before torch and all else that takes seconds is imported.

Python imports the package `stages` before the stage that ``python -m stages.train`` names, and the same goes for `tools` and
`benchmarks`: their __init__.py call what is here. So this module imports next to nothing itself.
"""

import ctypes
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def begin() -> None:
    """For every command: threads that have nothing to do sleep.

    OpenMP's would spin, which costs a training five times its time as soon as anything else runs on the machine. The
    variable is read when a library with OpenMP is loaded, and passive also means no spinning at first (GOMP_SPINCOUNT,
    KMP_BLOCKTIME). Whoever sets it differently is heeded.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def begin_stage() -> None:
    """For the stages: the same, and where one is being run: end with who started it, and check params.yaml at once."""
    begin()
    if sys.argv[:1] != ["-m"]:  # Python's word while it looks for the module to run; else a test or a worker imports.
        return
    if "DVC_STAGE" in os.environ and _orphaned():
        sys.exit("error: the process that started this one has ended.")
    die_with_parent()
    if not {"-h", "--help"}.intersection(sys.argv):
        from severity.core import errors, params  # only now: they take a tenth of a second

        errors.run(params.load)


def parser(documentation: str | None) -> "argparse.ArgumentParser":
    """A parser described by the first line of a module's docstring, which ``python -OO`` leaves out."""
    import argparse

    return argparse.ArgumentParser(description=(documentation or "").partition("\n")[0])


def die_with_parent(parent: int | None = None) -> None:
    """Ask the kernel to end this process when the one that started it ends (Linux only).

    DVC, when killed, leaves its commands running; the next `dvc repro` would then start a second training alongside it.

    Args:
        parent: number of the process that started this one, if known; with it, an end before this call is noticed too.
    """
    if sys.platform != "linux":
        return
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG in <sys/prctl.h>
    parent = parent or os.getppid()
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
    if os.getppid() != parent:  # It ended before the call.
        sys.exit("error: the process that started this one has ended.")


def _orphaned() -> bool:
    """Whether a process that DVC started has lost it already: whoever takes in orphans is its parent then.

    That is a process of another session, or the first of the machine; in a container DVC may be this one itself.
    """
    if sys.platform != "linux":
        return False
    parent = os.getppid()
    try:
        with open(f"/proc/{parent}/cmdline", "rb") as file:
            first = parent == 1 and b"python" not in file.read()
        return first or os.getsid(parent) != os.getsid(0)
    except OSError:  # The parent ended in this very moment, or there is no /proc.
        return os.getppid() != parent

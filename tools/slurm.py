"""Run the cells of the grid that are not up to date as one Slurm job array, from a folder that all nodes share.

Reads   what `dvc status` says
Writes  data/unfinished/slurm/: the list of cells, the batch script, one log a task; and what train and predict write
Run     python -m tools.slurm --jobs 8 -- --gpus=1 --cpus-per-task=8 --time=12:00:00      what follows -- is sbatch's
        python -m tools.slurm --print -- --gpus=1       write the script, submit nothing
        python -m tools.slurm --record                  after an array with --direct
        After the array `dvc repro` finds them all up to date. What failed is not: the first command then submits only
        that.
"""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from severity.core import commands, errors, files
from severity.core.errors import SeverityError
from tools import cells

FOLDER = Path("data/unfinished/slurm")


def script(commands: Sequence[Sequence[str]], *, jobs: int | None, options: Sequence[str], top: Path) -> str:
    """The batch script of an array with one task a command.

    Args:
        commands: what the tasks run, from 0.
        jobs: at most this many tasks at a time; None: as Slurm decides.
        options: of sbatch, one a line.
        top: the project's top folder, the same on all nodes.
    """
    limit = f"%{jobs}" if jobs else ""
    lines = [
        "#!/bin/bash",
        "#SBATCH --job-name=severity",
        f"#SBATCH --array=0-{len(commands) - 1}{limit}",
        f"#SBATCH --output={top / FOLDER}/%a.log",
        *(f"#SBATCH {option}" for option in options),
        "set -eu",
        f"cd {shlex.quote(str(top))}",
        f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH",
        'export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"',
        "case $SLURM_ARRAY_TASK_ID in",
        *(f"    {task}) exec {shlex.join(command)} ;;" for task, command in enumerate(commands)),
        "esac",
    ]
    return "\n".join(lines) + "\n"


def record() -> None:
    """Write the cells of the last array, run without DVC, into dvc.lock. Those that are not whole stay as they were."""
    submitted = files.read_json(FOLDER / "array.json")
    whole = [name for name in submitted["cells"] if (FOLDER / f"{name}.done").exists()]
    cells.record(whole, submitted["inputs"])
    unfinished = [name for name in submitted["cells"] if name not in whole]
    print(f"recorded {len(whole)} cells" + (f"; not done: {', '.join(unfinished)}" if unfinished else ""))


def _marked(cell: str) -> list[str]:
    """A command without DVC that leaves a file when it ends well."""
    *shell, made = cells.direct(cell)
    return [*shell, f"{made} && touch {FOLDER / f'{cell}.done'}"]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = commands.parser(__doc__)
    parser.add_argument("--jobs", type=int, help="at most this many tasks at a time")
    parser.add_argument("--print", action="store_true", help="write and show the script, submit nothing")
    parser.add_argument("--direct", action="store_true", help="tasks run without DVC: for more than about 100 cells")
    parser.add_argument(
        "--record", action="store_true", help="register the cells of an array with --direct in dvc.lock"
    )
    parser.add_argument("sbatch", nargs="*", metavar="OPTION", help="options of sbatch, behind --")
    options = parser.parse_args(arguments)
    if options.record:
        record()
        return
    cells.dvc("repro", *cells.BEFORE)
    names = cells.stale()
    if not names:
        print("All cells are up to date.")
        return
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    command = _marked if options.direct else cells.through_dvc
    tasks = [command(name) for name in names]
    files.write_text(FOLDER / "array.sh", script(tasks, jobs=options.jobs, options=options.sbatch, top=Path.cwd()))
    files.write_json(FOLDER / "array.json", {"cells": names, "inputs": cells.inputs()})
    if options.print:
        print((FOLDER / "array.sh").read_text(encoding="utf-8"), end="")
        return
    _submit()
    print(f"{len(names)} cells; logs in {FOLDER}/<task>.log. Afterwards: ", end="")
    print("python -m tools.slurm --record; dvc repro" if options.direct else "dvc repro")


def _submit() -> None:
    try:
        done = subprocess.run(["sbatch", str(FOLDER / "array.sh")], capture_output=True, text=True)
    except FileNotFoundError:
        raise SeverityError(
            f"sbatch is not installed here. Submit {FOLDER}/array.sh on a machine that has it, or use --print."
        ) from None
    if done.returncode:
        raise SeverityError(f"sbatch refused {FOLDER}/array.sh: {done.stderr.strip()}")
    print(done.stdout.strip())


if __name__ == "__main__":
    errors.run(main)

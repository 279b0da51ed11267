"""Many cells: run side by side, each pinned; one that fails is named and stops no other; and the script of a job array."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from severity.core.errors import SeverityError
from severity.networks import inference
from tests.trees import TOP
from tools import cells, slurm


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def test_commands_run_side_by_side_each_in_its_slot(tmp_path, capsys):
    note = "import os, sys, time; from pathlib import Path; device = os.environ['CUDA_VISIBLE_DEVICES']; "
    note += f"top = Path(r'{tmp_path}'); start = time.time(); (top / f'{{sys.argv[1]}}.begun').touch(); "
    # The first one waits for the second, however busy the machine is.
    note += "exec('while len(list(top.glob(\"*.begun\"))) < 2: time.sleep(0.02)'); "
    note += "(top / sys.argv[1]).write_text(f'{device} {start} {time.time()}')"
    names = [f"cell{number}" for number in range(5)]
    commands = {name: [*python(note), name] for name in names}
    assert cells.aside(commands, cells.slots(2, ["2", "5"]), tmp_path / "logs") == {}
    told = {name: (tmp_path / name).read_text().split() for name in names}
    assert {device for device, _, _ in told.values()} == {"2", "5"}
    intervals = [(device, float(start), float(end)) for device, start, end in told.values()]
    for device in ("2", "5"):
        own = sorted((start, end) for where, start, end in intervals if where == device)
        assert all(before[1] <= after[0] for before, after in zip(own, own[1:], strict=False)), "two on one device"
    most = max(sum(start <= moment < end for _, start, end in intervals) for _, moment, _ in intervals)
    assert most == 2
    assert list((tmp_path / "logs").iterdir()) == []
    assert "cell0: started on device 2" in capsys.readouterr().out


def test_one_that_fails_is_named_and_stops_no_other(tmp_path, capsys):
    commands = {
        "bad": python("import sys; print('it begins'); sys.exit('error: no such thing')"),
        "killed": python("import os; os.kill(os.getpid(), 9)"),
        "good": python(f"open(r'{tmp_path}/good', 'w')"),
    }
    assert cells.aside(commands, [{}], tmp_path / "logs") == {"bad": 1, "killed": -signal.SIGKILL}
    assert (tmp_path / "good").exists()
    out = capsys.readouterr().out
    assert "bad: FAILED (1)" in out and "    error: no such thing" in out and "good: done" in out
    assert "it begins" in (tmp_path / "logs/bad.log").read_text() and not (tmp_path / "logs/good.log").exists()


STARTER = """
import signal, sys
from pathlib import Path
from tools import cells
signal.signal(signal.SIGINT, signal.default_int_handler)  # Whoever runs the tests may ignore it.
child = "import os, sys, time; open(sys.argv[1] + '/' + str(os.getpid()), 'w'); time.sleep(3600)"
grand = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1], sys.argv[2]])"
folder = sys.argv[1]
commands = {name: [sys.executable, "-c", grand, child, folder] for name in ("a", "b", "c")}
cells.aside(commands, [{}, {}], Path(folder + "-logs"))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs sessions of processes")
def test_ctrl_c_ends_all_that_run_and_starts_no_more(tmp_path):
    folder = tmp_path / "processes"
    folder.mkdir()
    starter = subprocess.Popen([*python(STARTER), folder], cwd=TOP, stderr=subprocess.PIPE, text=True)
    while len(list(folder.iterdir())) < 2:
        assert starter.poll() is None
        time.sleep(0.05)
    starter.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in starter.communicate()[1]
    numbers = [int(path.name) for path in folder.iterdir()]
    assert len(numbers) == 2
    end = time.monotonic() + 300
    while left := [number for number in numbers if Path(f"/proc/{number}").exists()]:
        assert time.monotonic() < end, f"processes {left} were left behind"
        time.sleep(0.05)


def test_slots_share_the_cores_and_take_the_devices_in_turn(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert cells.slots(3, []) == [{"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}] * 3
    assert cells.slots(1, []) == [{"OMP_NUM_THREADS": "8", "OMP_WAIT_POLICY": "passive"}]
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in cells.slots(3, ["0,1", "2,3"])] == ["0,1", "2,3", "0,1"]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    expected = {"OMP_NUM_THREADS": "5", "OMP_WAIT_POLICY": "active", "CUDA_VISIBLE_DEVICES": "0"}
    assert cells.slots(2, ["0"]) == [expected] * 2


@pytest.mark.parametrize(
    ("threads", "devices", "expected"), [(1, 1, 8), (3, 1, 2), (1, 2, 4), (2, 4, 1), (16, 1, 1), (1, "all", 8)]
)
def test_as_many_side_by_side_as_the_cores_allow(monkeypatch, threads, devices, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert cells.jobs({"device": "cpu", "devices": devices, "threads": threads}) == expected


def test_one_at_a_time_on_a_gpu(monkeypatch):
    monkeypatch.setattr(inference, "device", lambda name: torch.device("cuda"))
    assert cells.jobs({"device": "auto", "devices": 1, "threads": 1}) == 1


def test_an_empty_grid_is_nothing_to_train(project, capsys):
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["grid"]["seed"], params["external"]["runs"] = [], ["a-b-0"]
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    cells.main([])
    assert "nothing to train" in capsys.readouterr().out and not (project / "called").exists()


FAKE_DVC = """#!{python}
import json, os, pathlib, sys
with open("called", "a") as file:
    print(*sys.argv[1:], file=file)
if sys.argv[1] == "status":
    print("a line that is no JSON")
    print(json.dumps({{name: ["changed deps"] for name in pathlib.Path("stale").read_text().split()}}))
elif "--wait-for-lock" in sys.argv:
    sys.exit("error: it diverged" if any("hxe" in word for word in sys.argv) else 0)
elif sys.argv[1] == "commit" and pathlib.Path("broken").exists():
    sys.exit("ERROR: cannot commit")
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with params, a stand-in for dvc, and two of four cells that are not up to date."""
    params = yaml.safe_load((TOP / "params.yaml").read_text())
    params["grid"] = {"backbone": ["tiny_resnet"], "loss": ["hxe", "ce"], "seed": [1, 0]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    (tmp_path / "stages").mkdir()
    for stage in cells.CELL:
        (tmp_path / f"stages/{stage}.py").write_text("import sys; sys.exit('hxe' in sys.argv)")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/dvc").write_text(FAKE_DVC.format(python=sys.executable))
    (tmp_path / "bin/dvc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stale").write_text(
        "predict@tiny_resnet-ce-0 train@tiny_resnet-hxe-1 predict@tiny_resnet-hxe-1 train@old"
    )
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, before)


def test_what_is_not_up_to_date_is_run_in_the_order_of_the_grid(project, capsys):
    with pytest.raises(SeverityError, match=r"1 of 2 cells failed: tiny_resnet-hxe-1\. See"):
        cells.main(["--jobs", "1", "--through-dvc"])
    assert (project / "called").read_text().splitlines() == [
        "repro prepare hierarchy",
        "status --json train predict",
        *(
            f"--wait-for-lock repro --single-item train@{cell} predict@{cell}"
            for cell in ("tiny_resnet-hxe-1", "tiny_resnet-ce-0")
        ),
    ]
    assert "error: it diverged" in capsys.readouterr().out
    assert [path.name for path in (project / cells.LOGS).iterdir()] == ["tiny_resnet-hxe-1.log"]


def test_cells_without_dvc_are_recorded_afterwards(project):
    with pytest.raises(SeverityError, match="1 of 2 cells failed: tiny_resnet-hxe-1"):
        cells.main(["--direct"])
    last = (project / "called").read_text().splitlines()[-1]
    assert last == "commit --force train@tiny_resnet-ce-0 predict@tiny_resnet-ce-0"
    (project / "broken").touch()
    with pytest.raises(SeverityError, match="dvc commit --force train@.* failed: ERROR: cannot commit"):
        cells.record(["tiny_resnet-ce-0"], cells.inputs())


STAGE = """
import os, sys
from severity.core.errors import SeverityError

def main():
    print(__name__, os.getpid())
    if "{name}" == "predict" and "hxe" in sys.argv:
        raise SeverityError("it diverged")
    with open(f"made-{name}-{{sys.argv[4]}}-{{sys.argv[6]}}", "w") as file:
        file.write(f"{{os.getppid()}} {{os.environ['OMP_WAIT_POLICY']}}")
"""


def test_on_cpus_cells_are_forked_from_one_process_and_each_is_recorded(project):
    (project / "stages/__init__.py").touch()
    for stage in cells.CELL:
        (project / f"stages/{stage}.py").write_text(STAGE.format(name=stage))
    command = [sys.executable, "-m", "tools.cells", "--jobs", "2"]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(TOP)}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1 and "1 of 2 cells failed: tiny_resnet-hxe-1" in done.stderr, done.stderr
    assert "error: it diverged" in done.stdout and "tiny_resnet-ce-0: done" in done.stdout
    made = {path.name: path.read_text().split() for path in project.glob("made-*")}
    assert set(made) == {"made-train-ce-0", "made-predict-ce-0", "made-train-hxe-1"}
    assert len({parent for parent, _ in made.values()}) == 1 and {policy for _, policy in made.values()} == {"passive"}
    called = (project / "called").read_text().splitlines()
    assert called[-1] == "commit --force train@tiny_resnet-ce-0 predict@tiny_resnet-ce-0"
    assert [path.name for path in (project / cells.LOGS).iterdir()] == ["tiny_resnet-hxe-1.log"]


def test_cells_end_with_the_one_who_started_them(project):
    (project / "stages/__init__.py").touch()
    for stage in cells.CELL:
        (project / f"stages/{stage}.py").write_text(
            "import os, time\ndef main():\n    open('begun', 'w').write(str(os.getpid()))\n    time.sleep(60)\n"
        )
    starter = subprocess.Popen(
        [sys.executable, "-m", "tools.cells", "--jobs", "1"],
        env=os.environ | {"PYTHONPATH": str(TOP)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    end = time.monotonic() + 60
    while not (project / "begun").exists() or not (project / "begun").read_text():
        assert time.monotonic() < end and starter.poll() is None
        time.sleep(0.1)
    cell = int((project / "begun").read_text())
    starter.kill()
    starter.wait()
    while Path(f"/proc/{cell}").exists() and "Z" not in Path(f"/proc/{cell}/stat").read_text().split()[2]:
        assert time.monotonic() < end, "the cell goes on"
        time.sleep(0.1)


@pytest.mark.parametrize("changed", ["params.yaml", "stages/train.py", "data/prepared/summary.json"])
def test_cells_whose_inputs_changed_meanwhile_are_not_recorded(project, changed):
    before = cells.inputs()
    (project / changed).parent.mkdir(parents=True, exist_ok=True)
    with open(project / changed, "a") as file:
        file.write("\n# changed\n")
    with pytest.raises(SeverityError, match="changed while the cells ran"):
        cells.record(["tiny_resnet-ce-0"], before)
    assert not (project / "called").exists()


def test_only_a_list_is_asked_for(project, capsys):
    cells.main(["--list"])
    assert capsys.readouterr().out == "tiny_resnet-hxe-1\ntiny_resnet-ce-0\n"
    (project / "stale").write_text("")
    cells.main(["--list"])
    assert "All cells are up to date" in capsys.readouterr().out


def test_what_cannot_run_is_said(project, monkeypatch):
    with pytest.raises(SeverityError, match="--jobs is 0"):
        cells.main(["--jobs", "0"])
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SeverityError, match="dvc is not on the PATH"):
        cells.main([])


def test_the_stages_before_the_cells_are_those_of_the_graph():
    stages = yaml.safe_load((TOP / "dvc.yaml").read_text())["stages"]
    grid = stages["train"]["matrix"]
    assert tuple(name for name, stage in stages.items() if stage.get("matrix") == grid) == cells.CELL
    made = {out: name for name, stage in stages.items() for out in stage.get("outs", []) if isinstance(out, str)}
    needed = {made[dep] for dep in stages["train"]["deps"] if dep in made}
    after = {made[dep] for name in needed for dep in stages[name]["deps"] if dep in made}
    assert needed - after <= set(cells.BEFORE) <= needed


# --- Slurm ----------------------------------------------------------------------------------------------------------


def run_script(text: str, task: int, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    path = folder / "array.sh"
    path.write_text(text)
    given = os.environ | {"SLURM_ARRAY_TASK_ID": str(task)} | environment
    return subprocess.run(["bash", str(path)], env=given, capture_output=True, text=True)


def test_each_task_of_the_script_runs_its_command(tmp_path):
    top = tmp_path / "a folder"
    top.mkdir()
    commands = [
        python(f"import os; print({number}, os.getcwd(), os.environ['OMP_NUM_THREADS'])") for number in range(3)
    ]
    commands[1] = ["sh", "-c", "echo 'it''s quoted' && exit 3"]
    text = slurm.script(commands, jobs=2, options=["--gpus=1", "--time=1:00:00"], top=top)
    assert "#SBATCH --array=0-2%2\n" in text and "#SBATCH --gpus=1\n#SBATCH --time=1:00:00\n" in text
    assert run_script(text, 0, tmp_path, SLURM_CPUS_PER_TASK="4").stdout == f"0 {top} 4\n"
    assert run_script(text, 2, tmp_path).stdout == f"2 {top} 1\n"
    failed = run_script(text, 1, tmp_path)
    assert (failed.stdout, failed.returncode) == ("its quoted\n", 3)
    assert "#SBATCH --array=0-2\n" in slurm.script(commands, jobs=None, options=[], top=top)


def test_a_printed_script_is_not_submitted(project, capsys):
    slurm.main(["--print", "--jobs", "3", "--", "--gpus=1"])
    out = capsys.readouterr().out
    assert "#SBATCH --array=0-1%3\n" in out and "#SBATCH --gpus=1\n" in out
    assert "0) exec dvc --wait-for-lock repro --single-item train@tiny_resnet-hxe-1 predict@tiny_resnet-hxe-1 ;;" in out


def test_an_array_without_dvc_is_recorded_once_whole(project, capsys):
    slurm.main(["--print", "--direct"])
    script = (project / slurm.FOLDER / "array.sh").read_text()
    assert [run_script(script, task, project).returncode for task in (0, 1)] == [1, 0]
    slurm.main(["--record"])
    assert "recorded 1 cells; not done: tiny_resnet-hxe-1" in capsys.readouterr().out
    assert (project / "called").read_text().splitlines()[-1].startswith("commit --force train@tiny_resnet-ce-0")
    (project / "params.yaml").write_text((project / "params.yaml").read_text() + "# changed\n")
    with pytest.raises(SeverityError, match="changed while the cells ran"):
        slurm.main(["--record"])


def test_nothing_is_submitted_where_nothing_is_stale_or_sbatch_is_missing(project, capsys, monkeypatch):
    def refused(*arguments, **options):
        raise FileNotFoundError

    (project / "bin/sbatch").write_text("#!/bin/sh\necho 'Submitted batch job 7'\n")
    (project / "bin/sbatch").chmod(0o755)
    slurm.main([])
    assert "Submitted batch job 7\n2 cells" in capsys.readouterr().out
    (project / "bin/sbatch").write_text("#!/bin/sh\necho 'no such partition' >&2; exit 1\n")
    with pytest.raises(SeverityError, match="sbatch refused .*no such partition"):
        slurm.main([])
    monkeypatch.setattr(slurm.cells, "dvc", lambda *arguments: "{}")
    slurm.main([])
    assert "All cells are up to date" in capsys.readouterr().out
    monkeypatch.setattr(slurm.subprocess, "run", refused)
    with pytest.raises(SeverityError, match="sbatch is not installed here"):
        slurm._submit()


@pytest.mark.skipif(shutil.which("sbatch") is None, reason="Slurm is not installed")
def test_sbatch_accepts_the_script(project):
    if subprocess.run(["sinfo"], capture_output=True).returncode:
        pytest.skip("no Slurm controller answers")
    slurm.main(["--print", "--", "--cpus-per-task=1"])
    done = subprocess.run(["sbatch", "--test-only", slurm.FOLDER / "array.sh"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

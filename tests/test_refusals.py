"""What the system refuses: a sentence that names the file and what is needed, nothing half-written, the former file kept."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pandas
import pytest

from severity.core import errors, files
from severity.core.errors import SeverityError
from tests.trees import TOP

WRITERS = {
    "text": lambda path: path.write_text("x" * 100_000),
    "table": lambda path: pandas.DataFrame({"a": range(20_000)}).to_csv(path, index=False),
    "array": lambda path: numpy.save(path, numpy.arange(50_000)),
    "arrays": lambda path: numpy.savez(path, a=numpy.arange(50_000)),
}
# Under a limit of the size of files, which every device has; a full one gives another number in the same way.
LIMITED = """
import resource, sys
from pathlib import Path
from severity.core import errors, files
from tests.test_refusals import WRITERS

path = Path("former" + {"text": ".txt", "table": ".csv", "array": ".npy", "arrays": ".npz"}[sys.argv[1]])
path.write_text("former")
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

def main():
    with files.replacing(path) as beside:
        WRITERS[sys.argv[1]](beside)

try:
    errors.run(main)
except SystemExit as ended:
    assert ended.code == 1
assert [each.name for each in Path().iterdir()] == [path.name] and path.read_text() == "former"
"""


@pytest.mark.skipif(os.name != "posix", reason="limits of files are POSIX's")
@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_that_does_not_fit_leaves_the_former_one(writer, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(TOP)}
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, writer], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "former." in done.stderr and "cannot be written" in done.stderr and "kept" in done.stderr


def refusal(number: int, name: object = None) -> OSError:
    return OSError(number, os.strerror(number), name)


@pytest.mark.parametrize("number", sorted(files.FULL))
@pytest.mark.parametrize("former", [True, False])
def test_a_full_or_failing_device_is_named_with_what_is_needed(number, former, tmp_path):
    folder = tmp_path / "runs"
    if former:
        folder.mkdir()
        (folder / "a.json").write_text("1")
    with pytest.raises(SeverityError) as raised, files.replacing(folder) as beside:
        beside.mkdir()
        with files.replacing(beside / "b.json") as inner:
            inner.write_text("half")
            raise refusal(number)
    message = str(raised.value)
    assert str(tmp_path / "runs/b.json") in message and errors.NEEDED[number] in message and "writing-" not in message
    assert [each.name for each in tmp_path.rglob("*")] == (["runs", "a.json"] if former else [])
    with files.replacing(folder) as beside:  # The next run goes on.
        beside.mkdir()
    assert list(folder.iterdir()) == []


def test_a_folder_that_may_not_be_written_to(tmp_path, monkeypatch):
    def refused(path, *_, **__):
        raise refusal(errno.EACCES, str(path))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(SeverityError, match="new.x.json cannot be written: permission denied"):
        files.write_json(tmp_path / "new/x.json", {})


def test_a_former_folder_comes_back_if_it_cannot_be_replaced(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old").write_text("1")
    real = os.rename

    def rename(source, target):
        if Path(target).name == "out" and "writing-" in str(source):
            raise refusal(errno.EACCES, str(source))
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(SeverityError, match="out cannot be written"), files.replacing(tmp_path / "out") as beside:
        beside.mkdir()
    assert [each.name for each in tmp_path.rglob("*")] == ["out", "old"]


def test_errors_of_reading_within_a_write_are_not_called_errors_of_writing(tmp_path):
    with pytest.raises(FileNotFoundError), files.replacing(tmp_path / "out") as beside:
        beside.mkdir()
        (tmp_path / "missing").read_text()


@pytest.mark.parametrize("number", sorted(errors.NEEDED))
def test_whatever_the_system_refuses_ends_a_stage_with_one_line(number, capsys):
    def main():
        raise refusal(number, "data/x.csv")

    with pytest.raises(SystemExit) as ended:
        errors.run(main)
    told = capsys.readouterr().err
    assert ended.value.code == 1
    assert len(told.splitlines()) == 1 and "data/x.csv" in told and errors.NEEDED[number] in told


def test_lack_of_memory_is_told_and_faults_of_the_program_are_not_hidden(capsys):
    def short():
        raise MemoryError("Unable to allocate 9 TiB")

    with pytest.raises(SystemExit):
        errors.run(short)
    assert "Unable to allocate 9 TiB" in capsys.readouterr().err
    for fault in (KeyError("x"), OSError("what a library says")):
        with pytest.raises(type(fault)):
            errors.run(lambda fault=fault: (_ for _ in ()).throw(fault))

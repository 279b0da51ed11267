"""The record of a run: every key documented, and what is not of its shape refused with the key's name."""

import copy
import re
import time
import typing

import numpy
import pytest

from severity.core import files
from severity.core.errors import SeverityError
from severity.core.runs import Run
from severity.metrics import record
from severity.tree import costs
from tests import records
from tests.trees import chexpert_default, six_classes

SHAPES = [each for each in vars(record).values() if typing.is_typeddict(each)]
RUN = Run("net", "ce", 0)


def record_of(tree, validation: int = 20) -> record.Record:
    size = len(tree.classes)
    truth = numpy.eye(size)[numpy.random.default_rng(0).integers(0, size, 80)]
    made = records.predict(RUN, tree, truth=truth, validation=validation)
    options = {"rules": ["argmax", "crm", "crm_ts"], "multi_label": ["threshold", "threshold_f1"]}
    return records.of(made, tree, costs.lca_height(tree), **options)


@pytest.fixture(scope="module")
def made() -> record.Record:
    return record_of(six_classes())


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_every_key_is_documented(shape):
    """A key's own name, or its end where several begin alike: severity_mean, _median."""
    words = set(re.findall(r"\w+", shape.__doc__))
    ends = tuple(word for word in words if word.startswith("_"))
    own = set(shape.__annotations__) - (set(record.Measured.__annotations__) if shape is record.Record else set())
    assert own or shape is record.Brief
    assert [key for key in own if key not in words and not key.endswith(ends or ("?",))] == []


@pytest.mark.parametrize("validation", [20, 0])
def test_what_is_evaluated_is_read_again(tmp_path, validation):
    made = record_of(six_classes(), validation)
    files.write_json(tmp_path / f"{RUN.name}.json", made)
    assert record.read(tmp_path / f"{RUN.name}.json") == made
    assert record.read_runs(tmp_path, [RUN], ["argmax", "crm_ts"]) == {RUN: made}
    assert ("crm_ts" in made["rules"]) == (validation > 0)
    assert record.read_existing(tmp_path, [RUN, Run("net", "ce", 1)]) == {RUN: made}


def test_a_run_without_a_file_and_one_without_a_rule_are_named(tmp_path, made):
    files.write_json(tmp_path / f"{RUN.name}.json", made)
    with pytest.raises(SeverityError, match="net-ce-1 has no metrics"):
        record.read_runs(tmp_path, [RUN, Run("net", "ce", 1)], ["argmax"])
    with pytest.raises(SeverityError, match="no metrics for the rule 'hie'"):
        record.read_runs(tmp_path, [RUN], ["hie"])


def changed(made, path: str, value) -> dict:
    """The record with another value at a path; without the key where the value is DELETED."""
    again = copy.deepcopy(made)
    *way, last = path.split(".")
    place = again
    for key in way:
        place = place[key]
    if value is DELETED:
        del place[last]
    else:
        place[last] = value
    return again


DELETED = object()


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("version", DELETED, "version None, not 4"),
        ("version", 0, "version 0, not 4"),
        ("version", 3, "version 3, not 4"),
        ("cost", DELETED, "cost is missing"),
        ("seed", "0", "seed is not of type int: '0'"),
        ("seed", True, "seed is not of type int: True"),
        ("classes", "abc", "classes is no list"),
        ("counts", None, "counts is no mapping"),
        ("counts.more", 1, "counts.more is unknown"),
        ("macro_auroc", "high", "macro_auroc is not of type float or int"),
        ("rules.crm.top1_error", DELETED, "rules.crm.top1_error is missing"),
        ("rules.crm.mistake_severity", "low", "rules.crm.mistake_severity is not of type float or int"),
        ("rules.crm.severity_mean", None, "rules.crm.severity_mean is not of type float or int"),
        ("rules.crm.batches.means", [0.5, None], "rules.crm.batches.means is not of type float or int"),
        ("rules.crm.confusion", {"a": {"b": "1"}}, "rules.crm.confusion.a.b is not of type float or int"),
        ("rules.crm.least", [{"id": "image0"}], "rules.crm.least.* is missing"),
        ("null_hierarchies.flat.rules.crm.remade", {}, "null_hierarchies.flat.rules.crm.remade.* is missing"),
        ("lab.val_time", 3, "lab.val_time is not of type NoneType"),
    ],
)
def test_another_shape_is_refused_with_the_key(tmp_path, made, path, value, said):
    files.write_json(tmp_path / "run.json", changed(made, path, value))
    pattern = re.escape(said).replace(r"\*", r"\.?\w*").replace(r"\.\.?", r"\.")
    with pytest.raises(SeverityError, match=pattern + r".*Run `dvc repro evaluate`"):
        record.read(tmp_path / "run.json")


@pytest.mark.parametrize("content", [[], "text", None, {}])
def test_what_is_no_record_at_all_is_refused(tmp_path, content):
    files.write_json(tmp_path / "run.json", content)
    with pytest.raises(SeverityError, match="dvc repro evaluate"):
        record.read(tmp_path / "run.json")


def test_a_study_of_45_runs_is_read_in_under_two_seconds(tmp_path):
    files.write_json(tmp_path / "run.json", record_of(chexpert_default()))
    begin = time.process_time()
    for _ in range(45):
        record.read(tmp_path / "run.json")
    assert time.process_time() - begin < 2  # A quarter of a second on an idle machine.

"""The benchmark of train.keep: each criterion takes its epoch of the same trainings, and the tables say what came."""

import pandas
import pytest

from benchmarks import kept_epoch as benchmark
from severity.training import training

EPOCHS = {
    "validation_loss": [0.5, 0.25, 0.75],
    "validation_macro_auroc": [0.5, 0.5, 0.75],
    "validation_hd_at_1": [0.25, 1.0, 0.5],
}


@pytest.fixture
def chosen() -> pandas.DataFrame:
    """Two losses, two seeds; a test number is the epoch's number plus 10 times the seed."""
    trainings = []
    for loss in ("ce", "hxe"):
        for seed in (0, 1):
            epochs = pandas.DataFrame({"epoch": [1, 2, 3], **EPOCHS})
            tests = {metric: epochs["epoch"] + 10 * seed for metric in benchmark.METRICS}
            trainings.append(epochs.assign(**tests, loss=loss, seed=seed, collection="made up"))
    return benchmark.choices(pandas.concat(trainings))


def test_each_criterion_takes_its_epoch_of_each_training(chosen):
    assert len(chosen) == 4 * len(training.CRITERIA)
    expected = {"last": 3, "validation_loss": 2, "validation_macro_auroc": 3, "validation_hd_at_1": 1}
    assert chosen.groupby("keep")["epoch"].agg(["min", "max"]).to_dict("index") == {
        keep: {"min": epoch, "max": epoch} for keep, epoch in expected.items()
    }


def test_the_tables_have_means_and_standard_deviations_between_seeds(chosen):
    lines = benchmark.by_loss(chosen).splitlines()
    assert len(lines) == 2 + 2 * len(training.CRITERIA)
    # Of 2 and 12: mean 7, standard deviation the root of 50.
    assert "| `hxe` | `validation_loss` | 2 to 2 | 7.000 ± 7.071 | 7.000 ± 7.071 | 7.000 ± 7.071 |" in lines
    assert "| `validation_hd_at_1` | 6.0000 ± 7.0711 |" in benchmark.pooled(chosen)


def test_criteria_are_held_against_the_last_epoch_of_the_same_training(chosen):
    # Two epochs fewer in each training: the seeds differ, the trainings' own differences do not.
    assert "| `validation_hd_at_1` | -2.0000 ± 0.0000 |" in benchmark.against_last(chosen)
    assert "`last`" not in benchmark.against_last(chosen)

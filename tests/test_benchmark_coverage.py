"""The benchmark of statements about methods: its simulated studies, its deals, and its table of real files."""

import numpy
import pytest

from benchmarks import coverage
from severity.core.runs import Run
from severity.tree import costs
from tests import renew_golden
from tests.trees import six_classes


def test_deals_are_all_pairs_of_disjoint_groups_once():
    for size, count in ((2, 210), (3, 280), (4, 35)):
        found = list(coverage.deals(range(8), size))
        assert len(found) == count == len({frozenset(map(frozenset, pair)) for pair in found})
        assert all(not set(a) & set(b) for a, b in found)


def test_the_simulated_difference_is_the_one_that_is_told():
    world = coverage.World("many patients, seeds alike", 2000, 0.0, 0.2)
    a, b = coverage.simulate(world, seeds=2, studies=4, random=numpy.random.default_rng(0))
    found = numpy.mean([[one.whole - two.whole] for one, two in zip(a, b, strict=True)])
    assert found == pytest.approx(coverage.SHIFT * coverage.COSTS.mean(), abs=0.03)
    # Networks of one method are alike on an image, but not the same.
    assert 0.5 < numpy.corrcoef(a[0].above[:, 0], a[1].above[:, 0])[0, 1] < 0.99


@pytest.mark.parametrize("seeds", [3, 6])
def test_a_known_difference_between_methods_is_covered_at_the_level_told(seeds):
    as_methods, as_networks = coverage.coverage(coverage.WORLDS[1], seeds=seeds, studies=600)
    assert as_networks < 0.9 and 0.93 <= as_methods <= 0.98


def test_the_table_of_trainings(tmp_path, monkeypatch):
    tree = six_classes()
    (tmp_path / "hierarchy").mkdir()
    tree.write(tmp_path / "hierarchy/hierarchy.json")
    costs.write(tmp_path / "cost/cost.csv", costs.lca_height(tree), tree.classes)
    monkeypatch.setitem(renew_golden.GRID, "seed", list(range(8)))
    (tmp_path / "predictions").mkdir()
    for seed in range(8):
        run = Run("tiny_resnet", "ce", seed)
        renew_golden.make_predictions(run).write(tmp_path / f"predictions/{run.name}.npz")
    scored, drawn, settings = coverage.trainings(tmp_path / "predictions")
    assert [run.seed for run in scored.runs] == list(range(8)) and scored.rules == coverage.RULES
    shown = coverage.verdicts(scored, drawn, settings, 4)
    assert len(shown) == 2 * 4 + 1 and {len(each) for each in shown.values()} == {35}
    assert max(numpy.mean(each, axis=0)[0] for each in shown.values()) <= 0.1
    two = coverage.verdicts(scored, drawn, settings, 2)
    assert not any(methods for each in two.values() for methods, _ in each)
    table = coverage.deals_table(tmp_path / "predictions")
    assert "groups of 3 (280 deals)" in table and "| crm | hd@1 |" in table

"""The benchmark of decisions runs, its loops agree with what they are compared to, and memory stays that of a chunk."""

from benchmarks import decisions as benchmark
from severity.arrays import probabilities
from severity.tree import costs


def test_a_small_row_of_the_table():
    images, classes, *numbers = benchmark.measure(400, 14, 5, 50)  # compares the loops' numbers itself
    assert (images, classes) == ("400", "14")
    assert len(numbers) == 7


def test_memory_above_the_inputs_is_the_results_and_a_chunk(monkeypatch):
    monkeypatch.setattr(probabilities, "CHUNK", 1 << 16)
    hierarchy = benchmark.tree(200, 40)
    posterior, truth = benchmark.case(20_000, hierarchy)
    above = benchmark.peak(benchmark.vectorised, posterior, truth, costs.lca_height(hierarchy), hierarchy)
    ranking = posterior.size * 4 / 1e9
    assert ranking < above < 2 * ranking

"""The benchmark of a large study runs through the project's own stages."""

import json
import sys

import pytest

from benchmarks import results
from tests.checks import every


@pytest.mark.skipif(sys.platform != "linux", reason="Memory is read from Linux's /proc.")
def test_a_small_study_goes_from_predictions_to_figures(tmp_path):
    folder = tmp_path / "study"
    rows = results.measure(folder, 9, 400)
    assert [stage for stage, _, _ in rows] == ["evaluate", "aggregate", "compare", "plot"]
    for _, seconds, memory in rows:
        assert float(seconds) >= 0 and 0 <= float(memory) < 2
    found = [json.loads(path.read_text()) for path in sorted((folder / "metrics/runs").iterdir())]
    assert len(found) == 9 and len({json.dumps(record["rules"]["argmax"]) for record in found}) == 9
    # A signal, but no certainty: neither chance nor perfect.
    assert every(0.6 < record["macro_auroc"] < 0.99 for record in found)
    assert (folder / "plots/scores/tradeoff.png").stat().st_size > 1000

"""A small study of external predictions, stored with what came of it.

`external_predictions/` holds two runs on 60 made-up images of 40 patients, one as marginals without No Finding, one as a distribution,
with labels of ChestX-ray14; `table.csv` and `lab.json` what the stages make of them. Renew both, after a change that is
meant to change numbers, with ``python -m tests.golden``, and look at the difference before you commit it.
"""

import shutil
import sys
from pathlib import Path
from unittest import mock

import yaml

from severity.core import files
from stages import aggregate, collect, evaluate, external, hierarchy, read
from tests.study import inside
from tests.trees import TOP

HERE = Path(__file__).resolve().parent
EXTERNAL = HERE / "external_predictions"
RUNS = ("sigmoids-bce-0", "softmax-ce-0")
RULES = ["argmax", "crm", "hie", "top_down", "crm_ts"]


def settings(**changes) -> dict:
    """params.yaml for predictions alone."""
    params = yaml.safe_load((TOP / "params.yaml").read_text())
    params["data"]["name"] = "external"
    params["grid"]["seed"] = []
    params["evaluate"] |= {"rules": RULES, "batch_size": 16}
    params["external"] |= {"runs": list(RUNS), "truth": "data/collection", "missing_class": "complement"}
    params["external"] |= {"validation_fraction": 0.4, **changes}
    return params


def study(folder: Path, params: dict, external_files: Path = EXTERNAL) -> None:
    """Run every stage that predictions alone want, in an empty folder."""
    shutil.copytree(TOP / "data/hierarchies", folder / "data/hierarchies")
    shutil.copytree(external_files, folder / "data/external_predictions")
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    with inside(folder):
        for stage in (collect, read, hierarchy):
            stage.main()
        for run in params["external"]["runs"]:
            with mock.patch.object(sys, "argv", ["external", "--run", run]):
                external.main()
        for stage in (evaluate, aggregate):
            stage.main()


def lab(folder: Path) -> dict:
    """The lab's report of each run."""
    return {run: files.read_json(folder / f"metrics/runs/{run}.json")["lab"] for run in RUNS}

"""The shape of params.yaml: pydantic models with ranges next to the types, but without values or defaults.

`severity.core.params` loads this by name: what only refuses changes no result, so no stage depends on it. A loss is one
entry of `losses.LOSSES`, a data set one of `data.DATASETS`; tests/test_params.py compares both with the code.
"""

import functools
from typing import Any

from pydantic import create_model, model_validator

from severity.core import runs
from severity.core.errors import nearest
from severity.schema import data, losses, machine, plots, scoring, training
from severity.schema.kinds import Name, Section


def _one_of_each(name: str, models: dict[str, type[Section]]) -> type[Section]:
    return create_model(name, __base__=Section, **{key: (model, ...) for key, model in models.items()})


class Data(Section):
    name: Name
    hidden_names: bool


class Params(Section):
    """params.yaml."""

    machine: machine.Machine
    data: Data
    datasets: data.Datasets
    decode: data.Decode
    prepare: data.Prepare
    describe: data.Describe
    cost: scoring.Cost
    grid: training.Grid
    backbones: dict[Name, training.Backbone]
    losses: _one_of_each("Losses", losses.LOSSES)
    train: training.Train
    predict: training.Predict
    external: scoring.External
    evaluate: scoring.Evaluate
    compare: scoring.Compare
    plot: plots.Plot
    explain: plots.Explain

    @property
    def _trains(self) -> bool:
        return bool(self.grid.backbone and self.grid.loss and self.grid.seed)

    @model_validator(mode="after")
    def _runs_that_fit_each_other(self) -> "Params":
        known = [*data.DATASETS, *self.datasets.model_extra]
        if self.data.name not in known:
            raise ValueError(
                f"data.name is {self.data.name!r}, which has no section under 'datasets'. "
                f"{nearest(self.data.name, known)}"
            )
        if self._trains and self.external.truth != runs.PREPARED:
            raise ValueError(
                f"external.truth is {self.external.truth!r}, so no image is decoded, but the grid has runs, which need "
                f"images. Set it to {runs.PREPARED}, or empty the grid (grid.seed: [])."
            )
        runs.scored({"grid": self.grid.model_dump(), "external": self.external.model_dump()})
        if self.train.mixup and "haf" in self.grid.loss:
            raise ValueError(
                f"train.mixup is {self.train.mixup}, but with the loss haf an image's loss depends on the other images "
                "of its batch, so two targets cannot be mixed. Set train.mixup to 0 or take this loss out of the grid."
            )
        for name in self.grid.backbone:
            if name not in self.backbones:
                raise ValueError(
                    f"grid.backbone: {name!r} has no section under 'backbones'. {nearest(name, self.backbones)}"
                )
        if not self._trains and not self.external.runs:
            raise ValueError(
                "grid: there is no run. Each list of the grid needs at least one entry, unless external.runs has one."
            )
        return self

    @model_validator(mode="after")
    def _what_is_shown_and_compared_is_there(self) -> "Params":
        trains = self._trains
        drawn = [f"{backbone}-{loss}" for backbone in self.grid.backbone for loss in self.grid.loss] if trains else []
        given = [name.rpartition("-")[0] for name in self.external.runs]
        for key, configuration, known in (
            ("plot.configuration", self.plot.configuration, ["best", *drawn, *given]),
            ("explain.configuration", self.explain.configuration, ["best", *drawn] if trains else []),
        ):
            if known and configuration not in known:
                raise ValueError(f"{key} is {configuration!r}. {nearest(configuration, known)}")
        if trains and self.explain.seed is not None and self.explain.seed not in self.grid.seed:
            raise ValueError(f"explain.seed is {self.explain.seed}. {nearest(str(self.explain.seed), self.grid.seed)}")
        for key, rule, needed in (
            ("compare.baseline_rule", self.compare.baseline_rule, True),
            ("explain.rule", self.explain.rule, trains),  # External predictions are not explained.
        ):
            if needed and rule not in self.evaluate.rules:
                raise ValueError(
                    f"{key} is {rule!r}, which evaluate.rules does not name. {nearest(rule, self.evaluate.rules)}"
                )
        return self


@functools.cache
def json_schema() -> dict[str, Any]:
    """The JSON Schema of params.yaml: for editors, in params.schema.json, and for what a message calls right."""
    return Params.model_json_schema()

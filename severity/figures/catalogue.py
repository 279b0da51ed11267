"""The table of all figures: what each is called, which stage draws it, and with which function.

A new figure is a file with a function `draw` and one entry here. The report shows the figures in this order; dvc.yaml
lists their PNG files, and tests/test_graph.py holds that it lists exactly these.
"""

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One figure.

    title: in the report. stage: that draws it. drawn_by: module and function, `module:function`; it takes the study
    that the stage makes, and gives a `severity.drawing.pictures.Picture`.
    """

    title: str
    stage: str
    drawn_by: str

    def draw(self, study: Any) -> Any:
        """The picture. The module is imported only here, so that the report needs no matplotlib."""
        module, _, function = self.drawn_by.partition(":")
        return getattr(importlib.import_module(module), function)(study)


def _scores(name: str, title: str) -> tuple[str, Figure]:
    return f"scores/{name}", Figure(title, "plot", f"severity.figures.scores.{name}:draw")


def _images(name: str, title: str) -> tuple[str, Figure]:
    return f"images/{name}", Figure(title, "illustrate", f"severity.figures.images.{name}:draw")


def _data(name: str, title: str) -> tuple[str, Figure]:
    return f"data/{name}", Figure(title, "describe", f"severity.datacard.figures:{name}")


# Stem of the files below plots -> figure.
FIGURES: dict[str, Figure] = dict(
    [
        _scores("tradeoff", "Error against severity"),
        _scores("levels", "How far off decisions are"),
        _scores("labels", "Severity and AUROC of each label"),
        _scores("effects", "What a decision rule changes for each label"),
        _scores("confusion", "What is taken for what"),
        _scores("ranking", "Severity of the first classes of a ranking"),
        _scores("reliability", "Whether probabilities are frequencies"),
        _scores("batches", "Severity from batch to batch"),
        _images("mistakes", "Least and most severe mistakes"),
        _images("curves", "Training"),
        _scores("tree", "The label tree"),
        _scores("cost", "What each mistake costs"),
        _images("contact_sheet", "An image of each label"),
        _data("labels", "Labels in each split"),
        _data("cooccurrence", "Labels that occur together"),
        _data("ages", "Ages"),
        _data("near_duplicates", "Images that occur in two splits"),
    ]
)


def of_stage(stage: str) -> dict[str, Figure]:
    """The figures that a stage draws, by the stem of their files within its folder, in the order of the table."""
    return {stem.partition("/")[2]: figure for stem, figure in FIGURES.items() if figure.stage == stage}


def draw(stage: str, study: Any) -> dict[str, Any]:
    """All pictures of a stage, by the stem of their files within its folder."""
    return {name: figure.draw(study) for name, figure in of_stage(stage).items()}


def titles(stems: Iterable[str] = FIGURES) -> dict[str, str]:
    """Stem -> title."""
    return {stem: FIGURES[stem].title for stem in stems}

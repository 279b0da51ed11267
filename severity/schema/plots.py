"""Figures and explanations."""

from typing import Annotated, Literal

from pydantic import Field

from severity.schema.kinds import Count, Distinct, Id, Positive, Section, Text


class Plot(Section):
    configuration: Text
    configurations_shown: Positive
    mistakes: Count
    labels: Count
    classes: Count


class Explain(Section):
    configuration: Text
    seed: Count | None
    rule: Text
    mistakes: Count
    ids: Distinct[Id]
    cam: Text
    layers: Literal["auto"] | Annotated[list[Text], Field(min_length=1)]
    maps: Count

"""The data: collections and the options of their modules, decoding, division, the data card."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, create_model

from severity.schema.kinds import (
    Count,
    Distinct,
    Empty,
    Name,
    PartialShare,
    ProperShare,
    Section,
    Share,
    Text,
)

Policy = Literal["zeros", "ones", "ignore", "smooth"]


def _ascending(values: list[float]) -> list[float]:
    if values[0] > values[1]:
        raise ValueError(f"is {values}; the lower number comes first")
    return values


def _derived(name: str) -> str:
    if not re.fullmatch(r"[^@]+(@flat|@shuffled_[0-9]+)?", name):
        raise ValueError(
            f"is {name!r}; it must be the name of a tree, <tree>@flat, or <tree>@shuffled_<seed>, with a whole number"
        )
    return name


Hierarchy = Annotated[Text, AfterValidator(_derived)]


class Labels(Section):
    """What the states of a collection's labels become; severity/preparation/labelling.py."""

    uncertain: Policy | dict[Text, Policy]
    smooth_range: Annotated[list[Share], Field(min_length=2, max_length=2), AfterValidator(_ascending)]
    unmentioned: Literal["zeros", "ignore"]
    closure: bool


class Images(Section):
    """How many images a collection from outside must have."""

    images: Count


DRAWN = 1_000_000  # images; what a few hours draw


class PhantomCollect(Section):
    images: Annotated[int, Field(ge=1, le=DRAWN)]
    size: Annotated[int, Field(ge=32, le=1024)]  # widths that the strokes of the drawings are made for
    valid_fraction: ProperShare
    lateral_fraction: Share
    label_noise: Annotated[float, Field(ge=0, lt=0.5)]
    seed: Count


class PhantomRead(Section):
    views: Annotated[Distinct[Literal["frontal", "lateral"]], Field(min_length=1)]


class ChexpertRead(PhantomRead):
    valid: Literal["auto", "validation", "test"]


class Nih14Read(Section):
    views: Annotated[Distinct[Literal["PA", "AP"]], Field(min_length=1)]


Axis = Literal["technical", "directional", "anatomical", "biological"]


class IrmaRead(Section):
    axis: Literal["all"] | Axis
    train_table: Text
    test_table: str
    code_column: Text
    code_tables: dict[Axis, Text] | Text


class IrmaPhantomCollect(Section):
    images: Annotated[int, Field(ge=25, le=DRAWN)]  # one for each code
    size: Annotated[int, Field(ge=32, le=512)]
    test_fraction: ProperShare
    seed: Count


class MedmnistCollect(Section):
    flag: Text
    size: Literal[28, 64, 128, 224]
    folder: Text
    download: bool


class MedmnistRead(Section):
    no_finding: bool


class OwnCollect(Section):
    table: Text
    columns: dict[Literal["path", "class", "id", "patient", "split", "view", "sex", "age"], Text]


class OwnRead(Section):
    ignore: Distinct[Text]
    views: Distinct[Text]
    label_separator: str


MADE = ("phantom", "irma_phantom", "medmnist")


def _dataset(name: str, collect: type[Section], read: type[Section]) -> type[Section]:
    # What `collect` makes itself lies where DVC looks for it.
    root = Literal[f"data/raw/{name}"] if name in MADE else Text
    fields = {
        "title": Text,
        "root": root,
        "hierarchy": Hierarchy,
        "collect": collect,
        "read": read,
        "labels": Labels,
    }
    return create_model(f"{name}_dataset", __base__=Section, **{field: (kind, ...) for field, kind in fields.items()})


# A data set: the keyword arguments of `collect` and of `read` in severity/datasets/<name>.py.
DATASETS: dict[str, type[Section]] = {
    "phantom": _dataset("phantom", PhantomCollect, PhantomRead),
    "chexpert": _dataset("chexpert", Images, ChexpertRead),
    "nih14": _dataset("nih14", Images, Nih14Read),
    "irma": _dataset("irma", Images, IrmaRead),
    "irma_phantom": _dataset("irma_phantom", IrmaPhantomCollect, IrmaRead),
    "medmnist": _dataset("medmnist", MedmnistCollect, MedmnistRead),
    "own": _dataset("own", OwnCollect, OwnRead),
    "external": _dataset("external", Empty, Empty),
}


class AnotherOwn(DATASETS["own"]):
    """Another collection of one's own, under any name."""

    kind: Literal["own"]


class Datasets(
    create_model("NamedDatasets", __base__=Section, **{name: (kind, ...) for name, kind in DATASETS.items()})
):
    """The data sets that have a file of their own, and any number of the kind `own` beside them."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[Name, AnotherOwn]


class Decode(Section):
    size: Annotated[int, Field(ge=1, le=8192)]
    aspect: Literal["squash", "crop", "pad"]
    reduced: bool
    sixteen_bits: Literal["whole", "file"] | Annotated[int, Field(ge=9, le=16)]
    max_unreadable: Count


class Prepare(Section):
    validation_fraction: PartialShare
    test_fraction: PartialShare
    seed: Count
    min_positives: Count


class Describe(Section):
    hash_distance: Annotated[int, Field(ge=0, le=64)]  # bits of a hash
    correlation: Share

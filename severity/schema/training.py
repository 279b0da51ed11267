"""The grid, its backbones, training and prediction."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from severity.schema.kinds import (
    LARGEST,
    AboveZero,
    Count,
    Distinct,
    Name,
    NotNegative,
    PartialShare,
    Positive,
    Section,
    Share,
    Text,
)
from severity.schema.losses import LOSSES


class Grid(Section):
    backbone: Distinct[Name]
    loss: Distinct[Literal[tuple(LOSSES)]]
    seed: Distinct[Count]


class Backbone(Section):
    model: Text
    pretrained: bool | Text


class Augmentation(Section):
    flip: Share
    rotation: Annotated[float, Field(ge=0, le=180)]
    translation: PartialShare
    scale: PartialShare
    brightness: PartialShare
    contrast: PartialShare
    gamma: Annotated[float, Field(ge=0, lt=10)]
    noise: PartialShare
    erase: Share
    erase_area: Share


class Train(Section):
    epochs: Positive
    keep: Literal["last", "validation_loss", "validation_macro_auroc", "validation_hd_at_1"]
    patience: Count
    batch_size: Annotated[int, Field(ge=2, le=LARGEST)]  # batch norms need two
    accumulate: Positive
    learning_rate: AboveZero
    weight_decay: NotNegative
    warmup_epochs: NotNegative
    gradient_clip: AboveZero
    freeze_epochs: Count
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    ema: PartialShare
    mixup: NotNegative
    precision: Literal["float32", "bfloat16"]
    sync_batchnorm: bool
    augmentation: Augmentation

    @field_validator("patience")
    @classmethod
    def _waits_for_something(cls, value: int, info: ValidationInfo) -> int:
        if value and info.data.get("keep") == "last":
            raise ValueError(
                f"is {value}, but train.keep is last, by which every epoch is better than the one before. Set patience "
                "to 0, or train.keep to a number of the validation images"
            )
        return value

    @field_validator("warmup_epochs")
    @classmethod
    def _shorter_than_the_training(cls, value: float, info: ValidationInfo) -> float:
        epochs = info.data.get("epochs", value + 1)
        if value >= epochs:
            raise ValueError(f"is {value}; it must be below train.epochs ({epochs})")
        return value

    @field_validator("freeze_epochs")
    @classmethod
    def _no_longer_than_the_training(cls, value: int, info: ValidationInfo) -> int:
        epochs = info.data.get("epochs", value)
        if value > epochs:
            raise ValueError(f"is {value}; it must be at most train.epochs ({epochs})")
        return value


class Predict(Section):
    batch_size: Positive

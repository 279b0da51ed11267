"""The numbers of each loss: the keyword arguments of severity/losses/<name>.py, with their ranges."""

from typing import Literal

from severity.schema.kinds import AboveZero, Count, NotNegative, PartialShare, Positive, Section, Share, Text

Weight = AboveZero | Literal["balanced"] | dict[Text, AboveZero]


class CrossEntropy(Section):
    label_smoothing: PartialShare
    class_weight: Weight
    gamma: NotNegative


class BinaryCrossEntropy(Section):
    pos_weight: Weight
    label_smoothing: PartialShare
    gamma: NotNegative


class HierarchicalCrossEntropy(Section):
    alpha: float
    normalize: bool


class SoftLabels(Section):
    beta: NotNegative
    divergence: Literal["kl", "cross_entropy"]


class Cascade(Section):
    alpha: float


class HierarchicalBinaryCrossEntropy(BinaryCrossEntropy):
    finetune_epochs: Count


class WeightedHierarchicalBinaryCrossEntropy(BinaryCrossEntropy):
    alpha: float


class BarzDenzler(Section):
    ce_weight: AboveZero


class HAFrame(Section):
    features: Positive | None
    gamma: AboveZero
    alignment: Share


class HAF(Section):
    features: Positive | None
    margin: NotNegative


LOSSES: dict[str, type[Section]] = {
    "ce": CrossEntropy,
    "bce": BinaryCrossEntropy,
    "hxe": HierarchicalCrossEntropy,
    "soft_labels": SoftLabels,
    "cascade": Cascade,
    "hbce_conditional": BinaryCrossEntropy,
    "hbce": HierarchicalBinaryCrossEntropy,
    "hxe_multilabel": WeightedHierarchicalBinaryCrossEntropy,
    "barz_denzler": BarzDenzler,
    "haframe": HAFrame,
    "haf": HAF,
}

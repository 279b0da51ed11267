"""The record of a run: what `evaluate` writes to metrics/runs/<run>.json, key by key, and the one way to read it.

The types below are the shape that `read` checks. In the JSON file a number that does not exist is null, in Python None;
`float` is any number. All numbers are of the run's test images, unless a key says otherwise. Severities and distances
are in units of the cost (data/cost/cost.csv); shares, probabilities and errors are from 0 to 1.

To change the shape, change the types and raise `VERSION`: older files are then refused, not misread.
"""

import types
import typing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from severity.core import files
from severity.core.errors import SeverityError
from severity.core.runs import STUDY, Run, description
from severity.metrics import catalogue

VERSION = 4
REMEDY = "Run `dvc repro evaluate`."


class Counts(TypedDict):
    """Test images.

    images: all. scored: those with a true class, which single decisions are scored on, but for those whose decision is of a
    masked class (`Decision`). without_truth: the others.
    """

    images: int
    scored: int
    without_truth: int


class Validation(TypedDict):
    """What is known of the validation images, for choosing among runs.

    macro_auroc: as in `Measured`; null without validation images. top1_error: rule -> share of wrong decisions, null
    where no validation image has a true class; empty without validation images.
    """

    macro_auroc: float | None
    top1_error: dict[str, float | None]


class Discrimination(TypedDict):
    """How well one label is told apart.

    positives, negatives, masked: images. auroc: area under the ROC curve; average_precision: both null where the label
    has no positive or no negative image.
    """

    positives: int
    negatives: int
    masked: int
    auroc: float | None
    average_precision: float | None


class Brief(TypedDict):
    """A decision that is only there to compare with: its `baseline` metrics of the catalogue, by name.

    Each is a float, or null where its denominator is 0 (mistake_severity without mistakes).
    """


class Batches(TypedDict):
    """Severity in batches of consecutive test images.

    size: images in a batch; the last may have fewer. means, medians: one severity a batch. mean_min, mean_max: the
    least and the largest of the means. median_of_medians, mean_of_medians: over the medians.
    """

    size: int
    means: list[float]
    medians: list[float]
    mean_min: float
    mean_max: float
    median_of_medians: float
    mean_of_medians: float


class LabelSeverity(TypedDict):
    """One label. images: on which it is true. severity: their mean, null where there is none."""

    images: int
    severity: float | None


class Mistake(TypedDict):
    """One mistake. id: of the image. truth: its classes. decision: the decided class. severity: of the decision."""

    id: str
    truth: list[str]
    decision: str
    severity: float


class Masked(TypedDict):
    """Decisions of classes whose truth is masked: neither right nor wrong (`severity.metrics.masked`).

    images: how many have one, of those with a true class. top1_error, hierarchical_distance_at_1: least and largest over
    all images with a true class, whatever the masked labels are.
    """

    images: int
    top1_error: list[float]
    hierarchical_distance_at_1: list[float]


class Decision(TypedDict):
    """Single decisions under one rule, scored by the most specific true classes unless a key says otherwise.

    Besides these keys it has each metric of the catalogue whose source is `rule`, by name: a float, or null where its
    denominator is 0 (mistake_severity without mistakes). distance_excess: k -> how far its distance_curve is
    above what no ranking can be below on these images (distance_floor in `Measured`, where none is undetermined).

    images: scored ones; without_truth: as in `Counts`; undetermined: the others, whose decision is of a class that is
    masked, and which no number here counts. masked: see `Masked`. severity_mean, _median, _lower_quartile,
    _upper_quartile, _min, _max: of the severity over the scored images, right decisions included as 0.
    severity_skewness: third standardised moment, null where all severities are equal. levels: severity, as text with
    six digits -> images. batches: see `Batches`. labels: label -> `LabelSeverity`. distance_curve: hierarchical
    distance @k for k = 1 to K, six digits. confusion: true class -> decided class -> images, six digits, without zeros;
    an image with n true classes counts 1/n for each. least, most: the least and the most severe mistakes, as many as
    evaluate.mistakes or as there are. any: the same metrics as in `Brief`, where every true class counts, ancestors
    included. by_truths: 1, 2, 3+ most specific true classes -> images, and the metrics of `Brief` on them; without
    those that no image has.
    """

    images: int
    without_truth: int
    undetermined: int
    masked: Masked
    severity_mean: float
    severity_median: float
    severity_lower_quartile: float
    severity_upper_quartile: float
    severity_min: float
    severity_max: float
    severity_skewness: float | None
    distance_excess: dict[str, float]
    levels: dict[str, int]
    batches: Batches
    labels: dict[str, LabelSeverity]
    distance_curve: list[float]
    confusion: dict[str, dict[str, float]]
    least: list[Mistake]
    most: list[Mistake]
    any: Brief
    by_truths: dict[str, dict[str, Any]]


class NodeDecision(TypedDict):
    """Decisions of nodes of the tree, classes or groups.

    images: scored ones; without any, all else is null. error: share whose node is neither true nor above a true class. unspecific: share right, but
    above the true class. stopped_inside: share that is no class. worst_severity: mean severity of the dearest class
    left possible. path_distance: mean number of edges to the nearest true class. depth: mean edges from the root.
    specificity: mean, 1 at a class and 0 at the root. information: mean bits by which the choice is narrowed.
    """

    images: int
    error: float | None
    unspecific: float | None
    stopped_inside: float | None
    worst_severity: float | None
    path_distance: float | None
    depth: float | None
    specificity: float | None
    information: float | None


class Nodes(TypedDict):
    """climb_threshold: the probability at which climbing stops. argmax: the most probable class as a node. climb,
    climb_ts: the node where climbing stops, with probabilities as they are and temperature-scaled; climb_ts is null
    without validation images.
    """

    climb_threshold: float
    argmax: NodeDecision
    climb: NodeDecision
    climb_ts: NodeDecision | None


class Bins(TypedDict):
    """Bins of equal width from 0 to 1. n: how many. confidence, right: means, null in an empty bin."""

    n: list[int]
    confidence: list[float | None]
    right: list[float | None]


class PosteriorCalibration(TypedDict):
    """Calibration of distributions over classes.

    temperature: 1 as they are. images: scored ones. ece: expected calibration error of the most probable class against
    its share of the truth; ece_any: against being among the true ones. classwise_ece: mean over classes. nll: mean
    negative log-likelihood, nats. brier: mean, 0 to 2. bins: what ece sums over.
    """

    temperature: float
    images: int
    ece: float
    ece_any: float
    classwise_ece: float
    nll: float
    brier: float
    bins: Bins


class LabelCalibration(TypedDict):
    """Calibration of probabilities of labels.

    temperature: 1 as they are. cells: scored pairs of image and label. ece: mean over labels of the expected
    calibration error. nll: mean binary cross-entropy, nats. brier: mean squared error. bins: of all labels together.
    """

    temperature: float
    cells: int
    ece: float
    nll: float
    brier: float
    bins: Bins


class Calibration(TypedDict):
    """posterior, labels: as they are. posterior_ts, labels_ts: scaled; missing without validation images."""

    posterior: PosteriorCalibration
    labels: LabelCalibration
    posterior_ts: NotRequired[PosteriorCalibration]
    labels_ts: NotRequired[LabelCalibration]


class LabelSets(TypedDict):
    """Decisions of sets of labels under one rule.

    images: all test images. labels_named: mean number of labels decided. inconsistent: share of images whose set lacks
    a label above one that it names. hierarchical_precision, _recall, _f1: over the nodes of the tree; null where
    nothing is named, or nothing is true. h_loss: mean, 0 to 1. best_match_images: images whose set is known;
    best_match_severity: their mean, null where there is none.
    """

    images: int
    labels_named: float
    inconsistent: float
    hierarchical_precision: float | None
    hierarchical_recall: float | None
    hierarchical_f1: float | None
    h_loss: float
    best_match_images: int
    best_match_severity: float | None


class SetWarning(TypedDict):
    """A trivial set that does as well as a rule in a metric.

    rule, metric: names; value: the metric of the rule. baseline: name of the trivial set; baseline_value: its metric.
    """

    rule: str
    metric: str
    value: float
    baseline: str
    baseline_value: float


class MultiLabel(TypedDict):
    """thresholds: label -> threshold of largest F1 on validation images, null without these. rules: rule -> its sets.
    warnings: where a trivial set does as well.
    """

    thresholds: dict[str, float] | None
    rules: dict[str, LabelSets]
    warnings: list[SetWarning]


class Baselines(TypedDict):
    """Decisions that look at no image, by name. single_decision: of a class. multi_label: of a set of labels."""

    single_decision: dict[str, Brief]
    multi_label: dict[str, LabelSets]


class NullDecision(TypedDict):
    """remade: decided with the null's tree, scored with the true one. rescored: the other way round."""

    remade: Brief
    rescored: Brief


class NullLabelSets(TypedDict):
    """remade, rescored: as in `NullDecision`, of sets of labels."""

    remade: LabelSets
    rescored: LabelSets


class Shuffled(TypedDict):
    """One metric of decisions by the true tree (value) and by many shuffled ones (least, median, largest).

    p: (1 + trees that do as well as the true one or better) / (1 + trees).
    """

    value: float
    least: float
    median: float
    largest: float
    p: float


class Permutation(TypedDict):
    """Decisions remade by many shuffled trees, scored with the true cost.

    trees: how many. top1_error, hierarchical_distance_at_1: see `Shuffled`.
    """

    trees: int
    top1_error: Shuffled
    hierarchical_distance_at_1: Shuffled


class NullHierarchy(TypedDict):
    """What is left under a tree that knows nothing. rules, multi_label: rule -> what is decided and scored with it.

    permutation: of `shuffled` alone, and there of rules that need a tree: what the true one is worth among many such.
    """

    rules: dict[str, NullDecision]
    multi_label: dict[str, NullLabelSets]
    permutation: NotRequired[dict[str, Permutation]]


class IrmaAxis(TypedDict):
    """One axis of the IRMA code. images: whose truth is not clutter. mean: their error, null where there is none."""

    images: int
    mean: float | None


class IrmaRule(TypedDict):
    """The IRMA score of one rule's answers.

    sum, mean: over the test images, in points. axes: axis -> `IrmaAxis`. Of the answer that may stop early only:
    expected_sum and expected_mean, the error that the posterior promised; axes_cut: the share of axes that it leaves
    open.
    """

    sum: float
    mean: float
    axes: dict[str, IrmaAxis]
    expected_sum: NotRequired[float]
    expected_mean: NotRequired[float]
    axes_cut: NotRequired[float]


class Irma(TypedDict):
    """The IRMA score, of runs on IRMA codes.

    axis: the axis of the code that the classes are, or all. branching: what its branching factors are counted in.
    images: all test images. unseen: those whose code no training image has. rules: rule -> score.
    """

    axis: str
    branching: str
    images: int
    unseen: int
    rules: dict[str, IrmaRule]


class Lab(TypedDict):
    """The run in the words of the lab's log of 2022 (docs/from-the-lab-log.md).

    val_loss: of the kept epoch, null for external predictions. val_time: always null. best_auc: validation macro-AUROC,
    null without validation images. rules: rule -> its fields. notes: field -> where its meaning was corrected.
    """

    val_loss: float | None
    val_time: None
    best_auc: float | None
    rules: dict[str, dict[str, Any]]
    notes: dict[str, str]


class Epoch(TypedDict):
    """One epoch of a training, the first is 1, and its numbers of the validation images.

    loss: mean, as trained with, null where it is no finite number. macro_auroc: null where no label has positive and
    negative images. hd_at_1: mean LCA height of the most probable class and the nearest most specific true one, null
    where no image has a true class.
    """

    epoch: int
    loss: float | None
    macro_auroc: float | None
    hd_at_1: float | None


class Training(TypedDict):
    """kept: the epoch whose weights predict, chosen by train.keep. last: the last one, the same where that is kept."""

    kept: Epoch
    last: Epoch


class External(TypedDict):
    """How external predictions were read.

    file: its name. kind: what its numbers are; detected: whether that was found out. complement: the class that was
    made the complement of the others, null for none. nodes_given: nodes that the file has numbers of. classes_left_out:
    columns that the tree does not have.
    ids_matched_without_suffix, unknown_ids_left_out, train_images_left_out, images_without_prediction: images. divided:
    whether validation images were taken from test images.
    """

    file: str
    kind: str
    detected: bool
    complement: str | None
    nodes_given: list[str]
    classes_left_out: list[str]
    ids_matched_without_suffix: int
    unknown_ids_left_out: int
    train_images_left_out: int
    images_without_prediction: int
    divided: bool


class Measured(TypedDict):
    """What `evaluation.evaluate` measures.

    classes: in the order of the predictions' columns; class_hash: of them. counts: see `Counts`. macro_auroc,
    macro_average_precision: means over the labels that have one, null where none has. validation: see `Validation`.
    not_available: rule of evaluate.rules or evaluate.multi_label -> why it has no numbers. labels: label ->
    `Discrimination`. rules: rule -> `Decision`. nodes, calibration, multi_label, baselines: see there.
    null_hierarchies: flat and shuffled. best_distance_curve: what no ranking's distance_curve can be below; its last
    number is that of a random one. distance_floor: k -> what no ranking's distance at k can be below. irma: on IRMA
    codes only.
    """

    classes: list[str]
    class_hash: str
    counts: Counts
    macro_auroc: float | None
    macro_average_precision: float | None
    validation: Validation
    not_available: dict[str, str]
    labels: dict[str, Discrimination]
    rules: dict[str, Decision]
    nodes: Nodes
    calibration: Calibration
    multi_label: MultiLabel
    baselines: Baselines
    null_hierarchies: dict[str, NullHierarchy]
    best_distance_curve: list[float]
    distance_floor: dict[str, float]
    irma: NotRequired[Irma]


class Record(Measured):
    """A run's record.

    version: of this shape. run: <backbone>-<loss>-<seed>; backbone, loss, seed: its parts. dataset, hierarchy, cost:
    names, as in params.yaml. patients: of the scored test images. external: of external predictions only. training: see `Training`, null for external
    predictions. lab: see `Lab`.
    """

    version: int
    run: str
    backbone: str
    loss: str
    seed: int
    dataset: str
    hierarchy: str
    cost: str
    patients: NotRequired[int]
    external: NotRequired[External]
    training: Training | None
    lab: Lab


def read(path: Path | str) -> Record:
    """One record.

    Raises:
        SeverityError: the file is missing or no JSON, of another version, or of another shape; the message names the
            key.
    """
    content = files.read_json(path)
    version = content.get("version") if isinstance(content, dict) else None
    if version != VERSION:
        raise SeverityError(f"{path} has the version {version!r}, not {VERSION}. {REMEDY}")
    try:
        _checker(Record)(content, "")
    except _OtherShape as error:
        raise SeverityError(f"{path}: {error}. {REMEDY}") from None
    return content


def read_runs(folder: Path | str, runs: Sequence[Run], rules: Sequence[str]) -> dict[Run, Record]:
    """The records of exactly the runs that params name; other files in the folder are not looked at.

    Raises:
        SeverityError: a run has no file, the file is not as `read` wants it, or it lacks a rule and does not say why.
    """
    records = {}
    for run in runs:
        path = _path(folder, run)
        if not path.exists():
            raise SeverityError(f"The run {run.name} has no metrics: {path} is missing. Run `dvc repro`.")
        records[run] = read(path)
        for rule in rules:
            if rule not in records[run]["rules"] and rule not in records[run]["not_available"]:
                raise SeverityError(f"{path} has no metrics for the rule {rule!r}. {REMEDY}")
    return records


def of_study(records: dict[Run, Record], settings: dict[str, Any]) -> dict[Run, Record]:
    """The records, which must be of the study that params name: numbers under another tree or cost are not its own.

    Raises:
        SeverityError: a record is of another data set, label tree or cost.
    """
    for run, record in records.items():
        if not is_of_study(run, record, settings):
            own, wanted = ([about[key] for key in STUDY] for about in (record, description(run, settings)))
            raise SeverityError(
                f"The metrics of the run {run.name} are of another study ({', '.join(own)}) than params.yaml names "
                f"({', '.join(wanted)}). {REMEDY}"
            )
    return records


def is_of_study(run: Run, record: Record, settings: dict[str, Any]) -> bool:
    """Whether a record has the data set, the tree and the cost that params name."""
    wanted = description(run, settings)
    return all(record[key] == wanted[key] for key in STUDY)


def read_existing(folder: Path | str, runs: Iterable[Run]) -> dict[Run, Record]:
    """The records of those of some runs that have one. Raises SeverityError as `read`."""
    return {run: read(_path(folder, run)) for run in runs if _path(folder, run).exists()}


def tied(decision: Decision, end: str) -> tuple[int, float] | None:
    """How many mistakes have the severity of the least or the most severe one, and that severity; None without a mistake.

    Args:
        decision: of a rule. end: least or most.
    """
    if not decision[end]:
        return None
    severity = decision[end][0]["severity"]
    images = decision["levels"][f"{severity:g}"]
    right = round((1 - decision["top1_error"]) * decision["images"]) if severity == 0 else 0
    return images - right, severity


def _path(folder: Path | str, run: Run) -> Path:
    return Path(folder) / f"{run.name}.json"


class _OtherShape(Exception):
    """Where a value does not have the shape that it should have."""


Check = Callable[[Any, str], None]


def _checker(shape: Any) -> Check:
    """A function of a value and of its key, for the message, that raises `_OtherShape` unless the value has a shape."""
    origin, inner = typing.get_origin(shape), typing.get_args(shape)
    if origin is NotRequired:
        return _checker(inner[0])
    if typing.is_typeddict(shape):
        return _keys_checker(shape)
    if origin is types.UnionType:
        return _optional_checker(next(each for each in inner if each is not types.NoneType))
    if origin is dict:
        return _mapping_checker(inner[1])
    if origin is list:
        return _list_checker(inner[0])
    return _plain_checker(shape)


def _keys_checker(shape: Any) -> Check:
    known = {key: _checker(kind) for key, kind in typing.get_type_hints(shape, include_extras=True).items()}
    metrics = _metrics_of(shape)
    known |= dict.fromkeys(metrics, _checker(float | None))
    required = shape.__required_keys__ | set(metrics)

    def check(value: Any, where: str) -> None:
        _expect(isinstance(value, dict), where, "no mapping", value)
        for key in required:
            if key not in value:
                raise _OtherShape(f"{_inside(where, key)} is missing")
        for key, each in value.items():
            if key not in known:
                raise _OtherShape(f"{_inside(where, key)} is unknown")
            known[key](each, _inside(where, key))

    return check


def _metrics_of(shape: Any) -> list[str]:
    """The metrics of the catalogue that a mapping holds beside the keys of its type."""
    if shape is Brief:
        return [metric.name for metric in catalogue.baselines()]
    return [metric.name for metric in catalogue.METRICS if metric.source == "rule"] if shape is Decision else []


def _optional_checker(kind: Any) -> Check:
    check = _checker(kind)
    return lambda value, where: None if value is None else check(value, where)


def _mapping_checker(kind: Any) -> Check:
    check = _checker(kind)

    def check_all(value: Any, where: str) -> None:
        _expect(isinstance(value, dict), where, "no mapping", value)
        for key, each in value.items():
            check(each, _inside(where, key))

    return check_all


def _list_checker(kind: Any) -> Check:
    check = _checker(kind)

    def check_all(value: Any, where: str) -> None:
        _expect(isinstance(value, list), where, "no list", value)
        for each in value:
            check(each, where)

    return check_all


def _plain_checker(kind: Any) -> Check:
    # A whole number may stand for a float; true may not, though it is an int to Python.
    allowed = {float: (float, int)}.get(kind, (kind,))

    def check(value: Any, where: str) -> None:
        if kind is not Any and type(value) not in allowed:
            _expect(False, where, f"not of type {' or '.join(each.__name__ for each in allowed)}", value)

    return check


def _expect(holds: bool, where: str, what: str, value: Any) -> None:
    if not holds:
        raise _OtherShape(f"{where or 'the whole'} is {what}: {value!r:.80}")


def _inside(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)

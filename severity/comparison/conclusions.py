"""The comparisons in words: a page that answers, by name, what one asks of severities."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy
import pandas

from severity.comparison import methods, resampling
from severity.comparison.comparisons import FEW_SEEDS, Study, apart
from severity.core import documents
from severity.core.documents import Block, Bullets, Document, Heading, Number, Paragraph, paragraph
from severity.metrics import catalogue
from severity.metrics.catalogue import Metric
from severity.summary import statistics

# What each table of comparisons is about: heading, and the columns that say where a comparison is made.
PLACES = {
    "rules": ("Decision rules", ("backbone", "loss")),
    "losses": ("Losses", ("backbone", "rule")),
    "backbones": ("Backbones", ("loss", "rule")),
}
# Which question each of them answers, and what no table is corrected for.
QUESTIONS = {
    "rules": "these networks (would other patients show the same?), A and B paired by image and seed",
    "losses": "these methods (would training again show the same?)",
    "backbones": "these methods (would training again show the same?)",
    "labels": "these networks (would other patients show the same?), on the images with each label",
}
CORRECTED = "Not corrected for: the other tables, and the other metrics of this one."
UNTESTED = "Nothing is tested here, so nothing is corrected."
NAMED = 3  # labels of a configuration that are named


def page(study: Study, facts: Mapping[str, str]) -> Document:
    """The page that answers them.

    Args:
        facts: what makes the study, such as its collection, tree and cost, by name.
    """
    blocks = [
        paragraph(f"Study: {', '.join(f'{name} {value}' for name, value in facts.items())}."),
        _opening(study),
    ]
    blocks += _missing(study)
    for name in PLACES:
        blocks += _milder(study, name)
    blocks += [*_skewness(study), *_labels(study), *_auroc(study), *_batches(study)]
    return Document("Comparisons", tuple(blocks))


def _opening(study: Study) -> Paragraph:
    settings, scores = study.settings, study.scores
    return paragraph(
        f"{len(scores.truth):,} test images of {scores.patients:,} patients, {len(scores.runs)} runs. Severity: "
        "smaller is milder, and a decision is held against the most specific of the true classes. Every table answers "
        "one of two questions and says which. ",
        documents.emphasis("These networks"),
        f": given the networks as they were trained, would other patients show the same? Brackets are then {_level(study)} "
        f"intervals over {settings.resamples:,} resamples of the patients, and p comes from swapping A and B patient by "
        f"patient ({settings.permutations:,} times, or all ways there are). ",
        documents.emphasis("These methods"),
        f": would training again, with other seeds, show the same as well? Brackets are then {_level(study)} intervals, "
        "and p is two-sided, of Welch's t over the seeds with the variance over the patients added; with fewer than "
        f"{methods.FEWEST_SEEDS} seeds a side nothing is said about methods. In both p is corrected by Holm's method over "
        "all comparisons of one table in one metric, and ",
        documents.emphasis("milder"),
        " (of the top-1 error: ",
        documents.emphasis("errs less"),
        "; of mistake severity, which leaves right answers out: ",
        documents.emphasis("milder per mistake"),
        "; of the AUROC: ",
        documents.emphasis("higher"),
        f") is said where the corrected p is below {round(1 - settings.level, 12):g} and the interval leaves out 0. Brackets are not "
        "corrected, so that some leave out 0 where nothing is said; ",
        documents.emphasis("no difference shown"),
        " is no proof of equality. Values are means over seeds, while metrics/table.md has medians: of pairs that are close "
        "the two may name different sides. The tables, and the metrics of one table, are not corrected against each other. All "
        "numbers stand in the CSV files beside this page.",
    )


def _level(study: Study) -> str:
    return f"{100 * study.settings.level:g} %"


def _about(study: Study, question: str, corrected: str) -> Paragraph:
    """Which population a table is about, which question it answers, and what is not corrected for."""
    scores = study.scores
    seeds = [len(each) for each in scores.configurations.values() if each] or [0]
    runs = f"{min(seeds)}" if min(seeds) == max(seeds) else f"{min(seeds)} to {max(seeds)}"
    return paragraph(
        f"Of {len(scores.truth):,} test images with a true class, of {scores.patients:,} patients, by networks of {runs} "
        f"{'seed' if max(seeds) == 1 else 'seeds'} a configuration. Question: {question}. {corrected}"
    )


def _missing(study: Study) -> list[Block]:
    scores = study.scores
    lines = []
    if scores.missing:
        lines.append(f"Runs without predictions: {', '.join(run.name for run in scores.missing)}.")
    for rule, names in scores.left_out.items():
        lines.append(f"The rule {rule} is in no comparison: {', '.join(names)} have no validation images to fit it on.")
    empty = ["-".join(configuration) for configuration, seeds in scores.configurations.items() if not seeds]
    if empty:
        lines.append(f"Configurations without any run: {', '.join(empty)}.")
    single = ["-".join(configuration) for configuration, seeds in scores.configurations.items() if len(seeds) == 1]
    if single:
        lines.append(f"Configurations of one seed, whose spread over seeds is unknown: {', '.join(single)}.")
    if scores.without_truth:
        lines.append(f"Test images without a true class, left out of everything but AUROC: {scores.without_truth:,}.")
    masked = (~scores.determined).sum(axis=2)
    if masked.any():
        lines.append(
            "Decisions for a label whose truth is masked, which are neither right nor wrong and left out of everything but AUROC: "
            f"{masked.min():,} to {masked.max():,} a run and rule. The bounds of what they can do: `masked` in metrics/runs."
        )
    unseen = [label for label, images in zip(scores.classes, scores.truth.sum(axis=0), strict=True) if not images]
    if unseen:
        lines.append(f"Labels without a positive test image: {', '.join(unseen)}.")
    blind = [label for label, values in zip(scores.classes, scores.auroc.T, strict=True) if numpy.isnan(values).any()]
    if blind:
        lines.append(
            f"Labels without AUROC, left out of its mean and of its correlation with severity: {', '.join(blind)}."
        )
    few = _few_patients(study)
    if few:
        lines.append(
            f"Labels of fewer than {resampling.FEWEST_PATIENTS} patients, without intervals: {', '.join(few)}."
        )
    seeds = [len(each) for each in scores.configurations.values()]
    if seeds and min(seeds) < methods.FEWEST_SEEDS:
        lines.append(
            f"Verdicts about methods where a configuration has fewer than {methods.FEWEST_SEEDS} seeds: another training may "
            "show anything."
        )
    if len(scores.rules) == 1:
        lines.append(f"Rules to compare with {study.baseline}: evaluate.rules names no other.")
    for name in (*PLACES, "labels"):
        lines += _hopeless(study, name)
    return [Heading("What is missing"), Bullets(tuple(lines)) if lines else paragraph("Nothing.")]


def _few_patients(study: Study) -> list[str]:
    rows = study.tables["label_intervals"].drop_duplicates("label")
    return rows.loc[rows["patients"].between(1, resampling.FEWEST_PATIENTS - 1), "label"].tolist()


def _hopeless(study: Study, name: str) -> Iterator[str]:
    """A sentence for each family in which no corrected p of swaps can fall below the level, however large the difference."""
    settings, headings = study.settings, {metric.name: metric.heading for metric in catalogue.compared_by_image()}
    headings["severity"] = "severity"
    for metric, family in study.tables[name].groupby("metric", sort=False):
        if metric not in headings:
            continue
        patients = family.loc[family["networks_p" if "networks_p" in family else "p"].notna(), "patients"]
        least = max(1 / (1 + settings.permutations), 2.0 ** (1 - patients.max())) if len(patients) else 0
        if least * len(patients) >= round(1 - settings.level, 12):
            yield (
                f"{name}.csv, {headings[metric]}: {len(patients):,} comparisons are too many to show a "
                f"difference with {settings.permutations:,} permutations (compare.permutations) of "
                f"{patients.max():,.0f} patients."
            )


def _milder(study: Study, name: str) -> list[Block]:
    words, places = PLACES[name]
    heading = Heading(f"Is A milder than B? {words}")
    comparisons = study.tables[name]
    if comparisons.empty:
        return [heading, paragraph("There is nothing to compare.")]
    blocks: list[Block] = [heading, _about(study, QUESTIONS[name], CORRECTED)]
    of_methods = "networks_verdict" in comparisons
    metrics = [metric for metric in catalogue.compared() if (comparisons["metric"] == metric.name).any()]
    blocks.append(Bullets(tuple(filter(None, [*(_count(comparisons, each) for each in metrics), _apart(comparisons)]))))
    for group, columns in (
        ([each for each in metrics if each.numerator], [*places]),
        ([each for each in metrics if not each.numerator], [each for each in places if each != "rule"]),
    ):
        rows = comparisons[comparisons["metric"].isin([metric.name for metric in group])]
        if rows.empty:
            continue
        blocks.append(_pairs(rows, group, columns))
        if of_methods:
            blocks.append(paragraph("The same pairs as these networks, whatever the seeds (columns networks_*):"))
            blocks.append(_pairs(rows, group, columns, "networks_"))
    return blocks


def _pairs(rows: pandas.DataFrame, metrics: Sequence[Metric], places: Sequence[str], prefix: str = "") -> Block:
    """A row for each pair, the difference in each metric with interval and verdict; of columns with a prefix."""
    lines = []
    for keys, pair in rows.groupby([*places, "A", "B"], sort=False):
        by_metric = pair.set_index("metric")
        lines.append([*keys, *(_difference(by_metric.loc[metric.name], prefix) for metric in metrics)])
    headings = [*places, "A", "B", *(f"{metric.heading}, A − B" for metric in metrics)]
    return documents.table(headings, lines, words=len(places) + 2)


def _difference(row: pandas.Series, prefix: str = "") -> Number:
    difference = row[f"{prefix}difference"]
    if pandas.isna(difference):
        return Number(None, f"n/a: {row['note']}")
    verdict = row[f"{prefix}verdict"]
    interval = "(too few seeds)" if verdict == FEW_SEEDS else _interval(row, "+.4f", prefix)
    return documents.number(difference, "+.4f", interval, verdict if statistics.is_shown(verdict) else "")


def _interval(row: Any, form: str, prefix: str = "") -> str:
    lower, upper = row[f"{prefix}lower"], row[f"{prefix}upper"]
    return "(no interval)" if pandas.isna(lower) else f"({lower:{form}} to {upper:{form}})"


def _count(rows: pandas.DataFrame, metric: Metric) -> str:
    """How many comparisons in one metric show what."""
    rows = rows[rows["metric"] == metric.name]
    sentence = f"{metric.heading}: of {len(rows)} comparisons {_verdicts(rows['verdict'])}."
    if "networks_verdict" in rows:
        return f"{sentence} As these networks: {_verdicts(rows['networks_verdict'])}."
    shown = rows[rows["verdict"].map(statistics.is_shown)]
    several = shown[shown["seeds"] > 1]
    if several.empty:
        return sentence
    split = int(((several["seed_min"] < 0) & (several["seed_max"] > 0)).sum())
    return f"{sentence} Of the {len(several)} shown with several seeds {split} have seeds that point both ways."


def _verdicts(verdicts: pandas.Series) -> str:
    return ", ".join(f"{verdict} in {count}" for verdict, count in verdicts.value_counts().sort_index().items())


def _apart(comparisons: pandas.DataFrame) -> str:
    """How often a side is shown to be milder per mistake but not over all images, and why that is; '' where never."""
    counts = {}
    for column in ("verdict", "networks_verdict"):
        if column in comparisons:
            counts[column] = int(apart(comparisons, column).sum())
    if not any(counts.values()):
        return ""
    networks = f" (as these networks in {counts['networks_verdict']})" if "networks_verdict" in counts else ""
    return (
        f"In {counts['verdict']} comparisons{networks} a side is shown to be milder per mistake, and hd@1 does not show it "
        "to be milder: more, easier mistakes lower the severity of the mean mistake, while hd@1 counts all images, right "
        "answers as 0. Nothing is shown there of which side is milder over all images, unless hd@1 says so."
    )


def _skewness(study: Study) -> list[Block]:
    rows = study.tables["distribution"]
    known = rows.dropna(subset="mean")
    zero = int((known["median"] == 0).sum())
    skewed = known["skewness"].dropna()
    sentences = [f"The median is 0 in {zero} of {len(known)} rows: there at least half of the decisions cost nothing."]
    sentences.append("Mean and share of right decisions are means over seeds, all else medians over them.")
    apart = known[(known["mean"] - known["median"]).abs() > (known["upper"] - known["lower"])]
    sentences.append(f"Mean and median are further apart than the interval of the mean is wide in {len(apart)}.")
    if len(skewed):
        sentences.append(
            f"Skewness is from {skewed.min():+.2f} to {skewed.max():+.2f}; above 0 a few severe decisions pull the "
            "mean up, below 0 a few mild ones pull it down."
        )
    lines = [
        [
            *(row[name] for name in ("backbone", "loss", "rule")),
            documents.number(row["mean"], ".3f", _interval(row, ".3f")),
            documents.number(row["median"], "g", f"({row['lower_quartile']:g} to {row['upper_quartile']:g})"),
            documents.number(row["skewness"], "+.2f"),
            documents.share(row["right"]),
        ]
        for row in known.to_dict("records")
    ]
    headings = ["backbone", "loss", "rule", "mean (interval)", "median (quartiles)", "skewness", "right"]
    return [
        Heading("Is the median far from the mean?"),
        _about(
            study, "these networks (how severe are their decisions?); brackets behind means: other patients", UNTESTED
        ),
        paragraph(" ".join(sentences)),
        documents.table(headings, lines, words=3),
    ]


def _labels(study: Study) -> list[Block]:
    heading = Heading("Which labels carry the severity?")
    rows = study.tables["labels"]
    if rows.empty:
        return [heading, paragraph(f"Told where evaluate.rules names a rule beside {study.baseline}.")]
    explained = paragraph(
        f"Shares of all severity under {study.baseline}, an image with several labels divided among them; in brackets "
        "the share of the images. Behind them the labels on which another rule shows a difference."
    )
    items = [
        f"{backbone}-{loss}: {_of_configuration(configuration, study.baseline)}"
        for (backbone, loss), configuration in rows.groupby(["backbone", "loss"], sort=False)
    ]
    about = _about(study, QUESTIONS["labels"], CORRECTED)
    return [heading, about, explained, Bullets(tuple(items))]


def _of_configuration(configuration: pandas.DataFrame, baseline: str) -> str:
    """The labels with the largest shares of a configuration's severity, and those that another rule changes."""
    largest = configuration.drop_duplicates("label").sort_values("share_of_severity_B", ascending=False, kind="stable")
    named = [
        f"{row.label} {100 * row.share_of_severity_B:.0f} % ({100 * row.share_of_images:.0f} %)"
        for row in largest.dropna(subset="share_of_severity_B").head(NAMED).itertuples()
    ]
    sentences = [f"{', '.join(named) or 'no severity at all'}."]
    for rule, pairs in configuration.groupby("A", sort=False):
        for verdict, milder, other in (("A milder", rule, baseline), ("B milder", baseline, rule)):
            labels = pairs.loc[pairs["verdict"] == verdict, "label"]
            if len(labels):
                sentences.append(f"Milder under {milder} than under {other}: {', '.join(labels)}.")
    return " ".join(sentences)


def _auroc(study: Study) -> list[Block]:
    rows = study.tables["correlation"]
    explained = paragraph(
        "Spearman's and Kendall's correlation of AUROC and severity over the labels, both means over seeds: below 0, labels "
        "of low AUROC have high severity. It describes these labels, networks and patients and is tested for nothing: of "
        "labels drawn at random many a study shows a relation that is none."
    )
    lines = [
        [
            *(row[name] for name in ("backbone", "loss", "rule")),
            documents.number(row["labels"], ".0f"),
            documents.number(row["spearman"], "+.2f"),
            documents.number(row["kendall"], "+.2f"),
        ]
        for row in rows.to_dict("records")
    ]
    headings = ["backbone", "loss", "rule", "labels", "Spearman", "Kendall"]
    return [
        Heading("Does low AUROC go with high severity?"),
        _about(study, "these networks, described", UNTESTED),
        explained,
        documents.table(headings, lines, words=3),
    ]


def _batches(study: Study) -> list[Block]:
    rows = study.tables["distribution"].dropna(subset="mean")
    size = int(rows["batch_size"].iloc[0])
    # A decision that nobody can call right or wrong is in no batch, so that runs may have different ones.
    images = study.scores.determined.sum(axis=2)
    ratio = (rows["batch_mean_sd"] / rows["batch_mean_sd_by_chance"]).dropna()
    sentences = [
        f"Means of {size:,} consecutive test images, in the order of the data set. All are medians over seeds.",
        _whole_batches(images // size, images % size),
    ]
    if len(ratio):
        sentences.append(
            f"Their standard deviation is {ratio.min():.2f} to {ratio.max():.2f} times what a random order of the "
            "images would give; well above 1, neighbouring images (of one patient, of one label) are alike."
        )
    lines = [
        [
            *(row[name] for name in ("backbone", "loss", "rule")),
            documents.number(row["batch_mean_min"], ".3f", f"to {row['batch_mean_max']:.3f}"),
            documents.number(row["batch_mean_sd"], ".3f"),
            documents.number(row["batch_mean_sd_by_chance"], ".3f"),
            documents.number(row["median_of_medians"], "g"),
            documents.number(row["mean_of_medians"], ".3f"),
        ]
        for row in rows.to_dict("records")
    ]
    headings = ["backbone", "loss", "rule", "batch means", "their sd", "sd by chance"]
    headings += ["median of medians", "mean of medians"]
    return [
        Heading("How do batches spread?"),
        _about(study, "these networks, described", UNTESTED),
        paragraph(" ".join(sentences)),
        documents.table(headings, lines, words=3),
    ]


def _whole_batches(whole: numpy.ndarray, rest: numpy.ndarray) -> str:
    """Which batches the numbers are over; of every run and rule how many are whole, and how many images are left over."""
    if not whole.any():
        return "There is no whole batch, only a smaller one, so there is no standard deviation."
    count = f"{whole.min():,}" if whole.min() == whole.max() else f"{whole.min():,} to {whole.max():,}"
    left = f"{rest.min():,}" if rest.min() == rest.max() else f"{rest.min():,} to {rest.max():,}"
    last = f"; the medians of medians also have the last, smaller one (of {left} images)" if rest.any() else ""
    return f"Range and standard deviation are over the {count} whole batches{last}."

"""The comparisons in words: a page that answers, by name, what one asks of severities."""

from collections.abc import Iterator
from typing import Any

import numpy
import pandas

from severity.comparison.comparisons import Study
from severity.core import documents
from severity.core.documents import Block, Bullets, Document, Heading, Number, Paragraph, paragraph
from severity.metrics import catalogue
from severity.metrics.catalogue import Metric

# What each table of comparisons is about: heading, and the columns that say where a comparison is made.
PLACES = {
    "rules": ("Decision rules", ("backbone", "loss")),
    "losses": ("Losses", ("backbone", "rule")),
    "backbones": ("Backbones", ("loss", "rule")),
}
NAMED = 3  # labels of a configuration that are named


def page(study: Study) -> Document:
    """The page that answers them."""
    blocks = [_opening(study), *_missing(study)]
    for name in PLACES:
        blocks += _milder(study, name)
    blocks += [*_skewness(study), *_labels(study), *_auroc(study), *_batches(study)]
    return Document("Comparisons", tuple(blocks))


def _opening(study: Study) -> Paragraph:
    settings, scores = study.settings, study.scores
    return paragraph(
        f"{len(scores.truth):,} test images of {scores.patients:,} patients, {len(scores.runs)} runs. Severity: "
        f"smaller is milder. Brackets are {100 * settings.level:g} % intervals over {settings.resamples:,} resamples "
        f"of the patients; p comes from swapping A and B patient by patient ({settings.permutations:,} times, or all "
        "ways there are) and is corrected by Holm's method over all comparisons of one table in one metric. ",
        documents.emphasis("Milder"),
        " (of the top-1 error: ",
        documents.emphasis("errs less"),
        f") is said where the corrected p is below {1 - settings.level:g} and the interval leaves out 0; ",
        documents.emphasis("no difference shown"),
        " is no proof of equality. Networks are taken as they were trained: how much another seed changes is told by "
        "the spread over seeds in the tables, not by the interval. All numbers stand in the CSV files beside this "
        "page.",
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
    unseen = [label for label, images in zip(scores.classes, scores.truth.sum(axis=0), strict=True) if not images]
    if unseen:
        lines.append(f"Labels without a positive test image: {', '.join(unseen)}.")
    blind = [label for label, values in zip(scores.classes, scores.auroc.T, strict=True) if numpy.isnan(values).any()]
    if blind:
        lines.append(f"Labels without AUROC, left out of its correlation with severity: {', '.join(blind)}.")
    if len(scores.rules) == 1:
        lines.append(f"Rules to compare with {study.baseline}: evaluate.rules names no other.")
    for name in (*PLACES, "labels"):
        lines += _hopeless(study, name)
    return [Heading("What is missing"), Bullets(tuple(lines)) if lines else paragraph("Nothing.")]


def _hopeless(study: Study, name: str) -> Iterator[str]:
    """A sentence for each family in which no corrected p can fall below the level, however large the difference."""
    settings, headings = study.settings, {metric.name: metric.heading for metric in catalogue.compared()}
    for metric, family in study.tables[name].groupby("metric", sort=False):
        patients = family.loc[family["p"].notna(), "patients"]
        least = max(1 / (1 + settings.permutations), 2.0 ** (1 - patients.max())) if len(patients) else 0
        if least * len(patients) >= round(1 - settings.level, 12):
            yield (
                f"{name}.csv, {headings.get(metric, metric)}: {len(patients):,} comparisons are too many to show a "
                f"difference with {settings.permutations:,} permutations (compare.permutations) of "
                f"{patients.max():,.0f} patients."
            )


def _milder(study: Study, name: str) -> list[Block]:
    words, places = PLACES[name]
    heading = Heading(f"Is A milder than B? {words}")
    comparisons = study.tables[name]
    if comparisons.empty:
        return [heading, paragraph("There is nothing to compare.")]
    rows, compared = [], catalogue.compared()
    for keys, pair in comparisons.groupby([*places, "A", "B"], sort=False):
        by_metric = pair.set_index("metric")
        rows.append([*keys, *(_difference(by_metric.loc[metric.name]) for metric in compared)])
    headings = [*places, "A", "B", *(f"{metric.heading}, A − B" for metric in compared)]
    counts = Bullets(tuple(_count(comparisons, metric) for metric in compared))
    return [heading, counts, documents.table(headings, rows, words=4)]


def _difference(row: pandas.Series) -> Number:
    if pandas.isna(row["difference"]):
        return Number(None, f"n/a: {row['note']}")
    verdict = "" if row["verdict"].startswith("no ") else row["verdict"]
    return documents.number(row["difference"], "+.4f", _interval(row, "+.4f"), verdict)


def _interval(row: Any, form: str) -> str:
    if pandas.isna(row["lower"]):
        return "(no interval)"
    return f"({row['lower']:{form}} to {row['upper']:{form}})"


def _count(rows: pandas.DataFrame, metric: Metric) -> str:
    """How many comparisons in one metric show what, and in how many of them the seeds disagree."""
    rows = rows[rows["metric"] == metric.name]
    counts = rows["verdict"].value_counts().sort_index()
    verdicts = ", ".join(f"{verdict} in {count}" for verdict, count in counts.items())
    shown = rows[~rows["verdict"].str.startswith("no ")]
    several = shown[shown["seeds"] > 1]
    split = int(((several["seed_min"] < 0) & (several["seed_max"] > 0)).sum())
    seeds = (
        f" Of the {len(several)} shown with several seeds {split} have seeds that point both ways."
        if len(several)
        else ""
    )
    return f"{metric.heading}: of {len(rows)} comparisons {verdicts}.{seeds}"


def _skewness(study: Study) -> list[Block]:
    rows = study.tables["distribution"]
    known = rows.dropna(subset="mean")
    zero = int((known["median"] == 0).sum())
    skewed = known["skewness"].dropna()
    sentences = [f"The median is 0 in {zero} of {len(known)} rows: there at least half of the decisions cost nothing."]
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
    return [heading, explained, Bullets(tuple(items))]


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
    counts = rows["reading"].value_counts().sort_index()
    readings = ", ".join(f"{reading} in {count}" for reading, count in counts.items())
    explained = paragraph(
        f"Spearman's correlation of AUROC and severity over the labels, both means over seeds. Of {len(rows)} rows: "
        f"{readings}. Where patients are resampled the answer is for these labels and trees, not for labels in general."
    )
    lines = [
        [
            *(row[name] for name in ("backbone", "loss", "rule")),
            documents.number(row["labels"], ".0f"),
            documents.number(row["spearman"], "+.2f", _interval(row, "+.2f")),
            documents.number(row["kendall"], "+.2f"),
            row["reading"],
        ]
        for row in rows.to_dict("records")
    ]
    headings = ["backbone", "loss", "rule", "labels", "Spearman (interval)", "Kendall", "reading"]
    return [Heading("Does low AUROC go with high severity?"), explained, documents.table(headings, lines, words=3)]


def _batches(study: Study) -> list[Block]:
    rows = study.tables["distribution"].dropna(subset="mean")
    size = rows["batch_size"].iloc[0]
    ratio = (rows["batch_mean_sd"] / rows["batch_mean_sd_by_chance"]).dropna()
    sentences = [f"Means of {size:g} consecutive test images, in the order of the data set."]
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
        paragraph(" ".join(sentences)),
        documents.table(headings, lines, words=3),
    ]

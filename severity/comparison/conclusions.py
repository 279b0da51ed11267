"""The comparisons in words: a page that answers, by name, what one asks of severities."""

from collections.abc import Iterator
from typing import Any

import numpy
import pandas

from severity.comparison.comparisons import Study
from severity.comparison.scores import METRICS
from severity.core.markdown import table

HEADINGS = {
    "hierarchical_distance_at_1": "hd@1",
    "hierarchical_distance_at_5": "hd@5",
    "top1_error": "top-1 error",
    "mistake_severity": "mistake severity",
}
# What each table of comparisons is about: heading, and the columns that say where a comparison is made.
PLACES = {
    "rules": ("Decision rules", ("backbone", "loss")),
    "losses": ("Losses", ("backbone", "rule")),
    "backbones": ("Backbones", ("loss", "rule")),
}
NAMED = 3  # labels of a configuration that are named


def page(study: Study) -> str:
    """The page as Markdown."""
    parts = [_opening(study), _missing(study), *(_milder(study, name) for name in PLACES)]
    parts += [_skewness(study), _labels(study), _auroc(study), _batches(study)]
    return "\n".join(parts)


def _opening(study: Study) -> str:
    settings, found = study.settings, study.scores
    sentences = [
        f"{len(found.truth):,} test images of {found.patients:,} patients, {len(found.runs)} runs.",
        "Severity: smaller is milder.",
        f"Brackets are {100 * settings.level:g} % intervals over {settings.resamples:,} resamples of the patients; p comes from "
        f"swapping A and B patient by patient ({settings.permutations:,} times, or all ways there are) and is corrected by "
        "Holm's method over all comparisons of one table in one metric.",
        f"*Milder* (of the top-1 error: *errs less*) is said where the corrected p is below {1 - settings.level:g} and the "
        "interval leaves out 0; *no difference shown* is no proof of equality.",
        "Networks are taken as they were trained: how much another seed changes is told by the spread over seeds in the "
        "tables, not by the interval.",
        "All numbers stand in the CSV files beside this page.",
    ]
    return f"# Comparisons\n\n{' '.join(sentences)}\n"


def _missing(study: Study) -> str:
    found = study.scores
    lines = []
    if found.missing:
        lines.append(f"Runs without predictions: {', '.join(run.name for run in found.missing)}.")
    for rule, names in found.left_out.items():
        lines.append(f"The rule {rule} is in no comparison: {', '.join(names)} have no validation images to fit it on.")
    empty = ["-".join(configuration) for configuration, seeds in found.configurations.items() if not seeds]
    if empty:
        lines.append(f"Configurations without any run: {', '.join(empty)}.")
    single = ["-".join(configuration) for configuration, seeds in found.configurations.items() if len(seeds) == 1]
    if single:
        lines.append(f"Configurations of one seed, whose spread over seeds is unknown: {', '.join(single)}.")
    if found.without_truth:
        lines.append(f"Test images without a true class, left out of everything but AUROC: {found.without_truth:,}.")
    unseen = [label for label, images in zip(found.classes, found.truth.sum(axis=0), strict=True) if not images]
    if unseen:
        lines.append(f"Labels without a positive test image: {', '.join(unseen)}.")
    blind = [label for label, values in zip(found.classes, found.auroc.T, strict=True) if numpy.isnan(values).any()]
    if blind:
        lines.append(f"Labels without AUROC, left out of its correlation with severity: {', '.join(blind)}.")
    if len(found.rules) == 1:
        lines.append(f"Rules to compare with {study.baseline}: evaluate.rules names no other.")
    for name in (*PLACES, "labels"):
        lines += _hopeless(study, name)
    body = "".join(f"- {line}\n" for line in lines) or "Nothing.\n"
    return f"## What is missing\n\n{body}"


def _hopeless(study: Study, name: str) -> Iterator[str]:
    """A sentence for each family in which no corrected p can fall below the level, however large the difference."""
    settings = study.settings
    for metric, family in study.tables[name].groupby("metric", sort=False):
        patients = family.loc[family["p"].notna(), "patients"]
        least = max(1 / (1 + settings.permutations), 2.0 ** (1 - patients.max())) if len(patients) else 0
        if least * len(patients) >= round(1 - settings.level, 12):
            yield (
                f"{name}.csv, {HEADINGS.get(metric, metric)}: {len(patients):,} comparisons are too many to show a difference "
                f"with {settings.permutations:,} permutations (compare.permutations) of {patients.max():,.0f} patients."
            )


def _milder(study: Study, name: str) -> str:
    heading, places = PLACES[name]
    rows = study.tables[name]
    if rows.empty:
        return f"## Is A milder than B? {heading}\n\nThere is nothing to compare.\n"
    lines = []
    for keys, pair in rows.groupby([*places, "A", "B"], sort=False):
        by_metric = pair.set_index("metric")
        lines.append([*keys, *(_difference(by_metric.loc[metric]) for metric in METRICS)])
    sentences = "".join(f"- {_count(rows, metric)}\n" for metric in METRICS)
    headings = [*places, "A", "B", *(f"{HEADINGS[metric]}, A − B" for metric in METRICS)]
    return f"## Is A milder than B? {heading}\n\n{sentences}\n{table(headings, lines, words=4)}"


def _difference(row: pandas.Series) -> str:
    if pandas.isna(row["difference"]):
        return f"n/a: {row['note']}"
    mark = "" if row["verdict"].startswith("no ") else f" **{row['verdict']}**"
    return f"{row['difference']:+.4f} {_interval(row, '+.4f')}{mark}"


def _interval(row: Any, form: str) -> str:
    if pandas.isna(row["lower"]):
        return "(no interval)"
    return f"({row['lower']:{form}} to {row['upper']:{form}})"


def _count(rows: pandas.DataFrame, metric: str) -> str:
    """How many comparisons in one metric show what, and in how many of them the seeds disagree."""
    rows = rows[rows["metric"] == metric]
    counts = rows["verdict"].value_counts().sort_index()
    told = ", ".join(f"{verdict} in {count}" for verdict, count in counts.items())
    shown = rows[~rows["verdict"].str.startswith("no ")]
    several = shown[shown["seeds"] > 1]
    split = int(((several["seed_min"] < 0) & (several["seed_max"] > 0)).sum())
    seeds = (
        f" Of the {len(several)} shown with several seeds {split} have seeds that point both ways."
        if len(several)
        else ""
    )
    return f"{HEADINGS[metric]}: of {len(rows)} comparisons {told}.{seeds}"


def _skewness(study: Study) -> str:
    rows = study.tables["distribution"]
    known = rows.dropna(subset="mean")
    zero = int((known["median"] == 0).sum())
    skewed = known["skewness"].dropna()
    lines = [f"The median is 0 in {zero} of {len(known)} rows: there at least half of the decisions cost nothing."]
    apart = known[(known["mean"] - known["median"]).abs() > (known["upper"] - known["lower"])]
    lines.append(f"Mean and median are further apart than the interval of the mean is wide in {len(apart)}.")
    if len(skewed):
        lines.append(
            f"Skewness is from {skewed.min():+.2f} to {skewed.max():+.2f}; above 0 a few severe decisions pull the mean up, "
            "below 0 a few mild ones pull it down."
        )
    table_rows = [
        [
            *(row[name] for name in ("backbone", "loss", "rule")),
            f"{row['mean']:.3f} {_interval(row, '.3f')}",
            f"{row['median']:g} ({row['lower_quartile']:g} to {row['upper_quartile']:g})",
            _number(row["skewness"], "+.2f"),
            f"{100 * row['right']:.1f} %",
        ]
        for row in known.to_dict("records")
    ]
    headings = ["backbone", "loss", "rule", "mean (interval)", "median (quartiles)", "skewness", "right"]
    return f"## Is the median far from the mean?\n\n{' '.join(lines)}\n\n{table(headings, table_rows, words=3)}"


def _number(value: float | None, form: str) -> str:
    return "n/a" if pandas.isna(value) else f"{value:{form}}"


def _labels(study: Study) -> str:
    heading = "## Which labels carry the severity?\n\n"
    rows = study.tables["labels"]
    if rows.empty:
        return f"{heading}Told where evaluate.rules names a rule beside {study.baseline}.\n"
    text = (
        f"Shares of all severity under {study.baseline}, an image with several labels divided among them; in brackets the "
        "share of the images. Behind them the labels on which another rule shows a difference.\n\n"
    )
    for (backbone, loss), configuration in rows.groupby(["backbone", "loss"], sort=False):
        most = configuration.drop_duplicates("label").sort_values("share_of_severity_B", ascending=False, kind="stable")
        named = [
            f"{row.label} {100 * row.share_of_severity_B:.0f} % ({100 * row.share_of_images:.0f} %)"
            for row in most.dropna(subset="share_of_severity_B").head(NAMED).itertuples()
        ]
        text += f"- {backbone}-{loss}: {', '.join(named) or 'no severity at all'}."
        for rule, pairs in configuration.groupby("A", sort=False):
            for verdict, name in (("A milder", rule), ("B milder", study.baseline)):
                labels = pairs.loc[pairs["verdict"] == verdict, "label"]
                if len(labels):
                    other = study.baseline if name == rule else rule
                    text += f" Milder under {name} than under {other}: {', '.join(labels)}."
        text += "\n"
    return heading + text


def _auroc(study: Study) -> str:
    rows = study.tables["correlation"]
    counts = rows["reading"].value_counts().sort_index()
    told = ", ".join(f"{reading} in {count}" for reading, count in counts.items())
    text = (
        f"Spearman's correlation of AUROC and severity over the labels, both means over seeds. Of {len(rows)} rows: {told}. "
        "Where patients are resampled the answer is for these labels and trees, not for labels in general.\n"
    )
    table_rows = [
        [
            *(row[name] for name in ("backbone", "loss", "rule")),
            _number(row["labels"], ".0f"),
            f"{_number(row['spearman'], '+.2f')} {_interval(row, '+.2f')}",
            _number(row["kendall"], "+.2f"),
            row["reading"],
        ]
        for row in rows.to_dict("records")
    ]
    headings = ["backbone", "loss", "rule", "labels", "Spearman (interval)", "Kendall", "reading"]
    return f"## Does low AUROC go with high severity?\n\n{text}\n{table(headings, table_rows, words=3)}"


def _batches(study: Study) -> str:
    rows = study.tables["distribution"].dropna(subset="mean")
    size = rows["batch_size"].iloc[0]
    ratio = (rows["batch_mean_sd"] / rows["batch_mean_sd_by_chance"]).dropna()
    text = f"Means of {size:g} consecutive test images, in the order of the data set."
    if len(ratio):
        text += (
            f" Their standard deviation is {ratio.min():.2f} to {ratio.max():.2f} times what a random order of the images "
            "would give; well above 1, neighbouring images (of one patient, of one label) are alike."
        )
    table_rows = [
        [
            *(row[name] for name in ("backbone", "loss", "rule")),
            f"{row['batch_mean_min']:.3f} to {row['batch_mean_max']:.3f}",
            _number(row["batch_mean_sd"], ".3f"),
            _number(row["batch_mean_sd_by_chance"], ".3f"),
            f"{row['median_of_medians']:g}",
            f"{row['mean_of_medians']:.3f}",
        ]
        for row in rows.to_dict("records")
    ]
    headings = [
        "backbone",
        "loss",
        "rule",
        "batch means",
        "their sd",
        "sd by chance",
        "median of medians",
        "mean of medians",
    ]
    return f"## How do batches spread?\n\n{text}\n\n{table(headings, table_rows, words=3)}"

"""The tables of a study for a paper: in LaTeX, and the summary in Markdown too."""

from collections.abc import Mapping
from typing import Any

import pandas

from severity.core import markdown
from severity.metrics import catalogue
from severity.report import best_rows, latex
from severity.report.best_rows import AXES, BestRow
from severity.report.contents import Contents

PREAMBLE = "% \\usepackage{booktabs,longtable}\n"
SHOWN = "Bold: the best median of the column, shown to be better in every comparison made of it. "
# What intervals are over: of networks as they are, and of methods.
OVER = {
    False: "for these networks, over resampled patients",
    True: "for these methods, over patients and seeds; none below three seeds a side",
}
BEST = "the best median, but no difference is shown in at least one comparison, or none was made."


def summary_latex(study: Contents) -> str:
    """Medians of every configuration under every rule, below each the smallest and the largest over the seeds."""
    columns = best_rows.columns(study.table)
    best = best_rows.find(study.table, study.compared)
    groups = []
    for number, row in enumerate(study.table.to_dict("records")):
        first = [*(latex.escape(row[axis]) for axis in AXES), str(row["runs"])]
        second = [""] * len(first)
        for key in columns:
            first.append(_latex_value(row[key], best.get((number, key))))
            spread = f"{row[f'{key}_min']:.3f}--{row[f'{key}_max']:.3f}" if pandas.notna(row[key]) else ""
            second.append(f"\\scriptsize {spread}" if spread and row["runs"] > 1 else "")
        groups.append([first, second] if any(second) else [first])
    caption = f"{latex.escape(_about(study))} {SHOWN}Underlined: {BEST}"
    headings = [*AXES, "runs", *map(latex.stacked, columns.values())]
    return PREAMBLE + latex.table(headings, groups, words=len(AXES), caption=caption, label="tab:severity-summary")


def _latex_value(value: float | None, best: BestRow | None) -> str:
    if pandas.isna(value):
        return "n/a"
    words = latex.number(value, ".3f")
    return words if best is None else f"\\{'textbf' if best.shown else 'underline'}{{{words}}}"


def summary_markdown(study: Contents) -> str:
    """The same in Markdown."""
    columns = best_rows.columns(study.table)
    best = best_rows.find(study.table, study.compared)
    lines = []
    for number, row in enumerate(study.table.to_dict("records")):
        values = [_markdown_value(row, key, best.get((number, key))) for key in columns]
        lines.append([*(row[axis] for axis in AXES), str(row["runs"]), *values])
    table = markdown.table([*AXES, "runs", *columns.values()], lines, words=len(AXES))
    return f"{table}\n{_about(study)} {SHOWN}Italic: {BEST}\n"


def _markdown_value(row: Mapping[str, Any], key: str, best: BestRow | None) -> str:
    if pandas.isna(row[key]):
        return "n/a"
    mark = "" if best is None else "**" if best.shown else "*"
    spread = f" ({row[f'{key}_min']:.3f} to {row[f'{key}_max']:.3f})" if row["runs"] > 1 else ""
    return f"{mark}{row[key]:.3f}{mark}{spread}"


def _about(study: Contents) -> str:
    """What the numbers are of: data set, tree, cost, how many images, patients and seeds."""
    settings = study.settings
    section = settings["datasets"][settings["data"]["name"]]
    tree, cost = section["hierarchy"], settings["cost"]["name"]
    seeds = sorted(study.table.loc[study.table["runs"] > 0, "runs"].unique())
    runs = " to ".join(map(str, dict.fromkeys([*seeds[:1], *seeds[-1:]]))) or "no"
    scored = sorted({record["counts"]["scored"] for record in study.metrics.values()})
    images = " or ".join(f"{count:,}" for count in scored) or "no"
    patients = sorted({record["patients"] for record in study.metrics.values() if "patients" in record})
    of = f" with a true class, of {' or '.join(f'{count:,}' for count in patients)} patients" if patients else ""
    classes = len(study.hierarchy.classes)
    constant = "".join(
        f" {metric.heading} is left out: of {classes} classes it is the same for every ranking."
        for metric in catalogue.constant(classes)
    )
    warnings = "".join(f"{study.headline[name]} " for name in ("warning", "masked") if name in study.headline)
    return warnings + (
        f"Medians over {runs} seed{'' if runs == '1' else 's'}{'' if runs == '1' else ', with minimum and maximum'}, on "
        f"{images} test images{of}; data set {section['title']}, tree {tree}, cost {cost}. Rows of {catalogue.NO_IMAGE}: decisions that "
        f"look at none (0 runs).{constant}"
    )


def comparisons_latex(study: Contents) -> str:
    """A table each for rules, losses and backbones: A minus B in every metric, below it the interval."""
    parts = [PREAMBLE]
    for name, axis in best_rows.COMPARED.items():
        frame = study.compared.get(name)
        if frame is None or frame.empty:
            parts.append(f"% No comparisons of {name}.\n")
        else:
            parts.append(_pairs(study, name, frame, [place for place in AXES if place != axis]))
    return "\n".join(parts)


def _pairs(study: Contents, name: str, frame: pandas.DataFrame, places: list[str]) -> str:
    metrics = list(dict.fromkeys(frame["metric"]))
    groups = []
    for keys, pair in frame.groupby([*places, "A", "B"], sort=False):
        rows = pair.set_index("metric").to_dict("index")
        first, second = [latex.escape(key) for key in keys], [""] * len(keys)
        for metric in metrics:
            value, interval = _difference(rows[metric]) if metric in rows else ("", "")
            first.append(value)
            second.append(interval)
        groups.append([first, second] if any(second) else [first])
    level = 100 * study.settings["compare"]["level"]
    of_methods = "seeds_A" in frame
    counted = ["seeds_A", "seeds_B"] if of_methods else ["seeds"]
    seeds = sorted({int(count) for column in counted for count in frame[column].dropna()})
    runs = " or ".join(map(str, seeds)) or "no"
    # The AUROC counts images without a true class too, all other metrics do not.
    of_images = frame[frame["metric"].isin([metric.name for metric in catalogue.compared_by_image()])]
    images, patients = (of_images[column].max() for column in ("images", "patients"))
    words = (
        f"{images:,.0f} test images with a true class, of {patients:,.0f} patients, " if pandas.notna(images) else ""
    )
    caption = (
        f"Differences A minus B between {name}: {words}means over {runs} seed{'' if runs == '1' else 's'}. Below zero "
        f"A is milder (errs less), of the AUROC lower. In brackets {level:g} % intervals {OVER[of_methods]}; bold where "
        "Holm's correction over the table, in one metric, leaves a difference shown; tables and metrics are not corrected "
        "against each other. What is not bold is not shown to be equal."
    )
    headings = [*places, "A", "B", *(latex.stacked(catalogue.named(metric).heading) for metric in metrics)]
    return latex.table(
        headings, groups, words=len(places) + 2, caption=latex.escape(caption), label=f"tab:severity-{name}"
    )


def _difference(row: Mapping[str, Any]) -> tuple[str, str]:
    if pandas.isna(row["difference"]):
        return "n/a", ""
    value = latex.number(row["difference"], "+.3f")
    if row["verdict"].startswith(("A ", "B ")):
        value = f"\\textbf{{{value}}}"
    if pandas.isna(row["lower"]):
        return value, ""
    return value, f"\\scriptsize [{latex.number(row['lower'], '+.3f')}, {latex.number(row['upper'], '+.3f')}]"

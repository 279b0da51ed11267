"""Everything that a study left in its folders, as the report shows it, and what is not there."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas
import yaml

from severity.core import documents, files, runs, stale, tables, without_images
from severity.core.documents import Document
from severity.core.hierarchy import Hierarchy
from severity.core.runs import Run
from severity.figures import catalogue
from severity.metrics import catalogue as catalogue_of_metrics
from severity.metrics.record import is_of_study, read_existing
from severity.report import best_rows
from severity.summary import configurations

# The tables of the stage `compare`, with their titles.
COMPARISONS = {
    "rules": "Decision rules: these networks",
    "losses": "Losses: these methods",
    "backbones": "Backbones: these methods",
    "labels": "Labels: these networks",
    "correlation": "AUROC against severity, described",
    "distribution": "Severity over the images",
}
WORDS = ("backbone", "loss", "rule", "label", "A", "B", "metric", "verdict", "unmatched_seeds", "note")
WORDS += ("networks_verdict", "left_out")
TABLE = Path("metrics/table.csv")
CARD = Path("metrics/data/page.json")
CONCLUSIONS = Path("metrics/comparisons/page.json")
EXPLAINED = Path("plots/explain")


@dataclass(frozen=True)
class Figure:
    """A picture and the table of what it shows, by the stem of their files.

    caption: the text below it, '' where there is only the title.
    """

    stem: Path
    title: str
    caption: str

    @property
    def png(self) -> Path:
        """The picture."""
        return self.stem.with_name(f"{self.stem.name}.png")

    @property
    def csv(self) -> Path:
        """The table."""
        return self.stem.with_name(f"{self.stem.name}.csv")


@dataclass(frozen=True)
class Contents:
    """What there is of a study; all paths are relative to the folder that it was read in.

    scored, trained: the runs that params.yaml names, all and those of the grid. metrics, records: of those that have
    them. table: of configurations, empty if there is none. compared: the tables of `compare` by name. conclusions,
    card: the comparisons in words and the data card, None where there are none. counts: of the prepared images by
    split. decoded: how images were made square. locked: MD5 of data folders that dvc.lock knows. explained: run -> its
    explained images. images: False where external predictions are scored without them. missing: sentences.
    """

    settings: dict[str, Any]
    scored: list[Run]
    trained: list[Run]
    metrics: dict[Run, dict[str, Any]]
    records: dict[Run, dict[str, Any]]
    hierarchy: Hierarchy
    counts: dict[str, dict[str, Any]]
    decoded: dict[str, Any]
    headline: dict[str, Any]
    table: pandas.DataFrame
    compared: dict[str, pandas.DataFrame]
    conclusions: Document | None
    card: Document | None
    figures: list[Figure]
    card_figures: list[Figure]
    explained: dict[str, pandas.DataFrame]
    locked: dict[str, str]
    images: bool
    missing: list[str] = field(default_factory=list)


def read(settings: dict[str, Any]) -> Contents:
    """What the working folder holds of the study that `settings` (params.yaml) describe.

    Raises:
        SeverityError: the label tree is missing, or a file is damaged. What else is missing is named in `missing`.
    """
    scored, trained, images = runs.scored(settings), runs.grid(settings), not without_images.without_images(settings)
    prepared = _json("data/prepared/summary.json")
    every, headline = read_existing("metrics/runs", scored), _json("metrics/headline.json")
    # Numbers of another study are left out, and so is what was made of them.
    other = stale.difference(headline, settings) if headline else ""
    study = Contents(
        settings=settings,
        scored=scored,
        trained=trained,
        metrics={run: each for run, each in every.items() if is_of_study(run, each, settings)},
        records=_of_runs(trained, "data/models/{}/record.json"),
        hierarchy=Hierarchy.read("data/hierarchy/hierarchy.json"),
        counts=prepared.get("counts", {}),
        decoded=_json("data/images/summary.json"),
        headline={} if other else headline,
        table=_no_table() if other else _table(),
        compared=dict(_compared()),
        conclusions=_document(CONCLUSIONS),
        card=_document(CARD),
        figures=list(_figures(of_card=False)),
        card_figures=list(_figures(of_card=True)),
        explained=dict(_explained(scored)),
        locked=locked("dvc.lock", ("data/images", "data/prepared")) if images else {},
        images=images,
    )
    study.missing.extend([*_of_another_study(every, study, other), *_missing(study)])
    return study


def _of_another_study(every: Mapping[Run, Any], study: Contents, other: str) -> Iterator[str]:
    if other:
        yield f"Left out: metrics/headline.json and {TABLE}. {other}"
    runs_of_others = [run.name for run in every if run not in study.metrics]
    if runs_of_others:
        yield f"Left out, as of another collection, tree or cost: the metrics of {', '.join(runs_of_others)}."


def _json(path: str) -> dict[str, Any]:
    return files.read_json(path) if Path(path).exists() else {}


def _document(path: Path) -> Document | None:
    return documents.read(path) if path.exists() else None


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _of_runs(named: Iterable[Run], pattern: str) -> dict[Run, dict[str, Any]]:
    records = {run: _json(pattern.format(run.name)) for run in named}
    return {run: record for run, record in records.items() if record}


def _table() -> pandas.DataFrame:
    return _csv(TABLE, best_rows.AXES) if TABLE.exists() else _no_table()


def _no_table() -> pandas.DataFrame:
    return pandas.DataFrame(columns=[*best_rows.AXES, "runs"])


def _csv(path: Path, words: Iterable[str]) -> pandas.DataFrame:
    """A table that a stage wrote: `words` as text, blank ones '', all else as numbers."""
    return tables.read_numbers(path, words, "Run `dvc repro`.")


def _compared() -> Iterator[tuple[str, pandas.DataFrame]]:
    for name in COMPARISONS:
        path = CONCLUSIONS.with_name(f"{name}.csv")
        if path.exists():
            yield name, _csv(path, WORDS)


def _figures(*, of_card: bool) -> Iterator[Figure]:
    """The figures of the data card, or all others."""
    for name, known in catalogue.FIGURES.items():
        stem = Path("plots") / name
        figure = Figure(stem, known.title, _caption(stem))
        if (known.stage == "describe") == of_card and figure.png.exists() and figure.caption != without_images.WHY:
            yield figure


def _caption(stem: Path) -> str:
    return _text(stem.with_name(f"{stem.name}.caption.txt")).strip()


def _explained(scored: Iterable[Run]) -> Iterator[tuple[str, pandas.DataFrame]]:
    for run in scored:
        path = EXPLAINED / run.name / "index.csv"
        if path.exists():
            yield run.name, _csv(path, ("case", "id", "split", "truth", "decision", "run", "rule"))


def locked(path: Path | str, outs: Iterable[str]) -> dict[str, str]:
    """MD5 of outputs from DVC's lock file; outputs that are not in it are left out.

    When a stage runs, the lock file has the outputs of all stages before it.
    """
    if not Path(path).exists():
        return {}
    stages = (yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}).get("stages", {})
    known = {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", []) if "md5" in out}
    return {out: known[out] for out in outs if out in known}


def _missing(study: Contents) -> Iterator[str]:
    if not study.images:
        yield _left_out()
    yield from _missing_runs(study)
    yield from _missing_numbers(study)
    yield from _missing_labels(study)
    yield from _missing_parts(study)


def _left_out() -> str:
    titles = [
        f'"{figure.title}"'
        for name, figure in catalogue.FIGURES.items()
        if figure.stage != "describe" and _caption(Path("plots") / name) == without_images.WHY
    ]
    left = ["the data card", "explained decisions", "pictures of mistakes"]
    left += [f"the figures {', '.join(titles)}"] if titles else []
    return f"{without_images.WHY.capitalize()}. Left out for that: {', '.join(left)}."


def _missing_runs(study: Contents) -> Iterator[str]:
    for run in study.scored:
        if run not in study.metrics:
            yield f"Run {run.name} is named in params.yaml and has no metrics (metrics/runs/{run.name}.json)."
        if run in study.trained and run not in study.records:
            yield f"Run {run.name} has no record of its training (data/models/{run.name}/record.json)."
    for key, words in (("versions", "with different versions of libraries"), ("prepared", "on different data")):
        if len({str(record.get(key)) for record in study.records.values()}) > 1:
            yield f"The runs do not compare like with like: they were trained {words} (see Libraries and data)."
    unavailable: dict[str, list[str]] = {}
    for run, record in study.metrics.items():
        for rule, why in record.get("not_available", {}).items():
            unavailable.setdefault(f"{rule} ({why})", []).append(run.name)
    for rule, names in unavailable.items():
        yield f"Rule {rule}: {', '.join(names)}."
    seeds: dict[tuple[str, str], int] = {}
    for run in study.scored:
        seeds[run.backbone, run.loss] = seeds.get((run.backbone, run.loss), 0) + (run in study.metrics)
    for number, words in (
        (0, "Empty configurations, without any run"),
        (1, "Configurations of one seed, whose spread is unknown"),
    ):
        names = ["-".join(configuration) for configuration, count in seeds.items() if count == number]
        if names:
            yield f"{words}: {'all' if len(names) == len(seeds) > 1 else ', '.join(names)}."


def _missing_numbers(study: Contents) -> Iterator[str]:
    if not TABLE.exists():
        yield f"There is no table of configurations ({TABLE})."
        return
    rows = {(row.backbone, row.loss) for row in study.table.itertuples()}
    for configuration in dict.fromkeys((run.backbone, run.loss) for run in study.metrics):
        if configuration not in rows:
            yield f"The configuration {'-'.join(configuration)} has no row in {TABLE}."
    for key, heading in best_rows.columns(study.table).items():
        blank = study.table[study.table[key].isna() & (study.table["backbone"] != catalogue_of_metrics.NO_IMAGE)]
        reasons: dict[str, list[str]] = {}
        for row in blank.itertuples():
            reasons.setdefault(_why_blank(study, row, key), []).append("-".join((row.backbone, row.loss, row.rule)))
        for why, names in reasons.items():
            yield f"n/a, because {why}: {heading} of {', '.join(names)}."


def _why_blank(study: Contents, row: Any, key: str) -> str:
    """Why a configuration has no number in a metric under a rule."""
    seeds = [each for run, each in study.metrics.items() if (run.backbone, run.loss) == (row.backbone, row.loss)]
    if seeds and key == "macro_auroc":
        return "a seed has no label with an AUROC"
    if any(row.rule in each["not_available"] for each in seeds):
        return "a seed cannot have the rule"
    if seeds and not any(row.rule in each["rules"] for each in seeds):
        return "the rule decides no class"
    if key == "mistake_severity" and any(not each["rules"][row.rule]["top1_error"] for each in seeds):
        return "a seed makes no mistake"
    return "a seed has no value"


def _missing_labels(study: Contents) -> Iterator[str]:
    for split, content in study.counts.items():
        labels = [label for label, counts in content["labels"].items() if not counts["positives"]]
        if labels:
            yield f"Labels without a positive {split} image: {', '.join(labels)}."
    blind: dict[str, list[str]] = {}
    for run, record in study.metrics.items():
        if record["class_hash"] != study.hierarchy.class_hash:
            yield f"Run {run.name} was scored with other classes (class hash {record['class_hash']})."
        labels = [label for label, values in record["labels"].items() if values["auroc"] is None]
        if labels:
            blind.setdefault(", ".join(labels), []).append(run.name)
    for labels, names in blind.items():
        where = "any run" if len(names) == len(study.metrics) else f"the runs {', '.join(names)}"
        yield f"Labels without AUROC in {where}: {labels}."


def _missing_parts(study: Contents) -> Iterator[str]:
    for figure in catalogue.FIGURES:
        for suffix in (".png", ".csv"):
            path = Path("plots") / f"{figure}{suffix}"
            if not path.exists():
                yield f"There is no figure {path}." if suffix == ".png" else f"A figure has no table {path}."
    for name in COMPARISONS:
        if name not in study.compared:
            yield f"There are no comparisons metrics/comparisons/{name}.csv."
    for content, path in ((study.conclusions, CONCLUSIONS), (study.headline, "metrics/headline.json")):
        if not content:
            yield f"There is no {path}."
    if study.images and not study.card:
        yield f"There is no {CARD}."
    if study.images and not study.explained:
        yield f"No single decisions are explained ({EXPLAINED})."


def label_positives(study: Contents, split: str) -> dict[str, int]:
    """How many images of a split show each label; nothing if the images are not prepared."""
    labels = study.counts.get(split, {}).get("labels", {})
    return {label: counts["positives"] for label, counts in labels.items()}


def shown_run(study: Contents) -> Run | None:
    """The run shown in detail: of the headline's configuration the one seed that figures and explanations show as well."""
    seeds = [
        record
        for run, record in study.metrics.items()
        if f"{run.backbone}-{run.loss}" == study.headline.get("configuration")
    ]
    return runs.named(configurations.best_seed(seeds)["run"]) if seeds else None

"""What the sections of the page show, as plain data: one function a section, one template of the same name.

The words that frame it are in templates/sections.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy
import yaml

from severity.core.hierarchy import Hierarchy
from severity.core.runs import Run
from severity.metrics import catalogue
from severity.metrics.record import tied
from severity.report import best_rows, contents, page_tables, pictures
from severity.report.best_rows import AXES
from severity.report.contents import Contents, Figure

# From ids of images to the images, (n, S, S) uint8.
Images = Callable[[Sequence[str]], numpy.ndarray]

OPEN = 40  # nodes of a tree that are shown without being asked for
EXPLAINED_SHOWN = 24  # explained images that are part of the page; others are named
ENDS = {"least": "Least severe mistakes", "most": "Most severe mistakes"}
# How the axes of the grid are headed.
AXIS = {"backbone": "Backbones", "loss": "Losses", "seed": "Seeds"}
PLURALS = {"backbone": "backbones", "loss": "losses", "seed": "seeds"}
# What the headline says that it is of.
FACTS = ("collection", "tree", "cost", "images", "patients")
# The figure that the section on mistakes shows.
MISTAKES = Path("plots/images/mistakes")


def lead(study: Contents) -> dict[str, Any]:
    """The page in a few sentences."""
    rules, headline = study.settings["evaluate"]["rules"], study.headline
    trained = ", ".join(_counted(len(study.settings["grid"][axis]), axis) for axis in PLURALS)
    external = len(study.scored) - len(study.trained)
    counts = [f"{trained} trained"] * bool(study.trained) + [f"{external} external"] * bool(external)
    of_rules = [metric for metric in catalogue.headline() if metric.source != "run"]
    return {
        "scored": len(study.metrics),
        "named": len(study.scored),
        "counts": " and ".join(counts),
        "rules": rules,
        "headline": headline,
        "facts": {name: headline[name] for name in FACTS if name in headline},
        "decided": [
            {
                "rule": rule,
                "numbers": [
                    {"heading": metric.heading, "value": headline[f"{rule}_{metric.key}"]}
                    for metric in of_rules
                    if f"{rule}_{metric.key}" in headline
                ],
            }
            for rule in rules
            if headline
        ],
    }


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing if number == 1 else PLURALS[thing]}"


def run(study: Contents, shown_params: Sequence[str]) -> dict[str, Any]:
    """What was run: the data, the tree, the grid, and these sections of params.yaml."""
    settings, tree = study.settings, study.hierarchy
    name = settings["data"]["name"]
    positives = contents.label_positives(study, "train")
    params = {section: settings[section] for section in shown_params if section in settings}
    params["datasets"] = {name: settings["datasets"][name]}
    return {
        "dataset": settings["datasets"][name]["title"],
        "classes": len(tree.classes),
        "hierarchy": settings["datasets"][name]["hierarchy"],
        "nodes": len(tree.names),
        "class_hash": tree.class_hash,
        "cost": settings["cost"]["name"],
        "axes": [(heading, settings["grid"][axis]) for axis, heading in AXIS.items() if study.trained],
        "external": settings["external"]["runs"],
        "rules": settings["evaluate"]["rules"],
        "splits": page_tables.splits(study.counts) if study.counts else None,
        "positives": bool(positives),
        "tree": tree_nodes(tree, positives),
        "fold_tree": len(tree.names) > OPEN,
        "provenance": _provenance(study) if study.images else None,
        "params": _yaml(params),
    }


def tree_nodes(tree: Hierarchy, positives: dict[str, int]) -> list[dict[str, Any]]:
    """The nodes from the top down, children behind their parent, without recursion: a tree may be a long chain.

    Args:
        tree: the label tree. positives: class -> its number of images; may be empty.

    Returns:
        Of each node name, is_class, positives (None where unknown), inner: whether children follow, and ends: how many
        lists of children end behind it.
    """
    classes = dict(zip(tree.class_nodes.tolist(), tree.classes, strict=True))
    nodes, waiting = [], [(tree.root, 0)]
    while waiting:
        node, depth = waiting.pop()
        children = tree.children[node]
        waiting += [(child, depth + 1) for child in reversed(children)]
        next_depth = waiting[-1][1] if waiting else 0
        nodes.append(
            {
                "name": tree.names[node],
                "is_class": node in classes,
                "positives": positives.get(classes[node]) if node in classes else None,
                "inner": len(children) > 0,
                "ends": 0 if len(children) else depth - next_depth,
            }
        )
    return nodes


def _provenance(study: Contents) -> dict[str, Any]:
    """Libraries and data of the trained runs: a group for each set of versions and hashes, with its runs if not all."""
    groups: dict[tuple[str, str], list[str]] = {}
    for heading, key in (("Trained with", "versions"), ("Trained on (SHA-256)", "prepared")):
        for run, record in study.records.items():
            words = ", ".join(f"{name} {value}" for name, value in record[key].items())
            groups.setdefault((heading, words), []).append(run.name)
    return {
        "groups": [
            {"heading": heading, "words": words, "runs": [] if len(runs) == len(study.records) else runs}
            for (heading, words), runs in groups.items()
        ],
        "locked": study.locked,
        "decoded": study.decoded,
    }


def missing(study: Contents) -> dict[str, Any]:
    """What is not there."""
    return {"sentences": study.missing}


def summary(study: Contents, for_a_paper: Sequence[str]) -> dict[str, Any]:
    """The table of configurations and baselines, and which rows are best in it."""
    if study.table.empty:
        return {"table": None}
    headings = best_rows.columns(study.table)
    best = best_rows.find(study.table, study.compared)
    return {
        "table": page_tables.summary(study.table, best),
        "columns": list(headings),
        "more": [headings[key] for key in best_rows.MORE if key in headings],
        "best": [
            {"heading": headings[key], "name": "-".join(study.table.loc[row, list(AXES)]), "words": each.words}
            for (row, key), each in best.items()
        ],
        "for_a_paper": for_a_paper,
        "several": bool((study.table["runs"] > 1).any()),
        "constant": [metric.heading for metric in catalogue.constant(len(study.hierarchy.classes))],
        "baselines": bool((study.table["backbone"] == catalogue.NO_IMAGE).any()),
    }


def comparisons(study: Contents) -> dict[str, Any]:
    """The comparisons in words, and all their tables."""
    tables = []
    for name, frame in study.compared.items():
        path = contents.CONCLUSIONS.with_name(f"{name}.csv")
        table = page_tables.of_csv(frame, path, f"{name}-table")
        columns = [column.title for column in table.columns]
        tables.append({"title": contents.COMPARISONS[name], "path": path, "table": table, "columns": columns})
    words = study.conclusions
    return {
        "conclusions": page_tables.of_document(words, contents.CONCLUSIONS) if words else None,
        "tables": tables,
    }


def figures(study: Contents) -> dict[str, Any]:
    """All figures except that of the mistakes, which has its own section."""
    return {"figures": [_figure(each) for each in study.figures if each.stem != MISTAKES]}


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "id": f"figure-{'-'.join(figure.stem.parts[1:])}",
        "title": figure.title,
        "caption": figure.caption,
        "png": figure.png,
        "csv": figure.csv,
        "picture": pictures.figure(figure.png),
    }


def mistakes(study: Contents, images: Images | None) -> dict[str, Any]:
    """The least and the most severe mistakes of one run under every rule."""
    run = contents.shown_run(study)
    if run is None:
        return {"run": None}
    record = study.metrics[run]
    return {
        "run": run.name,
        "path": f"metrics/runs/{run.name}.json",
        "cost": record["cost"],
        "others": [name for name in study.explained if name != run.name],
        "with_images": study.images,
        "galleries": [
            {
                "rule": rule,
                "end": end,
                "heading": heading,
                "mistakes": _with_pictures(values[end], images),
                "tied": _tied(values, end),
            }
            for rule, values in record["rules"].items()
            for end, heading in ENDS.items()
        ],
        "figure": next((_figure(each) for each in study.figures if each.stem == MISTAKES), None),
    }


def _tied(decision: dict[str, Any], end: str) -> dict[str, Any] | None:
    """How many mistakes are as severe as the first one shown, where not all of them are; else None."""
    many, severity = tied(decision, end) or (0, 0)
    return {"images": many, "severity": severity} if many > len(decision[end]) else None


def _with_pictures(wrong: Sequence[dict[str, Any]], images: Images | None) -> list[dict[str, Any]]:
    pixels = images([each["id"] for each in wrong]) if images and wrong else [None] * len(wrong)
    return [
        {**each, "picture": None if image is None else pictures.thumbnail(image)}
        for each, image in zip(wrong, pixels, strict=True)
    ]


def cases(study: Contents) -> dict[str, Any]:
    """The explained images of each run that has some."""
    runs = []
    for name, index in study.explained.items():
        folder = contents.EXPLAINED / name
        runs.append(
            {
                "name": name,
                "count": len(index),
                "rule": index["rule"].iloc[0] if len(index) else "",
                "images": [_explained(row, folder) for row in index.head(EXPLAINED_SHOWN).to_dict("records")],
                "others": list(index["case"].iloc[EXPLAINED_SHOWN:]),
                "folder": folder,
                "index": folder / "index.csv",
            }
        )
    return {"runs": runs}


def _explained(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    drawn = []
    for suffix, about in (("", "paths in the tree and Grad-CAM"), ("_maps", "feature maps")):
        path = folder / f"{row['case']}{suffix}.png"
        if path.exists():
            picture = pictures.shrunk(path)
            drawn.append({"about": about, "png": path, "csv": path.with_suffix(".csv"), "picture": picture})
    return {**row, "name": row["case"], "pictures": drawn}


def data(study: Contents) -> dict[str, Any]:
    """The data card and its figures."""
    if not study.card:
        return {"card": None}
    return {
        "card": page_tables.of_document(study.card, contents.CARD),
        "figures": [_figure(each) for each in study.card_figures],
    }


def runs(study: Contents) -> dict[str, Any]:
    """Every run: its numbers, and what it was trained with."""
    return {"runs": [_run(study, run) for run in study.scored]}


def _run(study: Contents, run: Run) -> dict[str, Any]:
    metrics, record = study.metrics.get(run), study.records.get(run)
    keys = ("backbones", "losses", "train", "prepared", "versions")
    rules = metrics["rules"] if metrics else {}
    return {
        "name": run.name,
        "metrics": metrics,
        "rules": {
            rule: {metric.heading: values[metric.name] for metric in catalogue.per_run()}
            for rule, values in rules.items()
        },
        "record": _yaml({key: record[key] for key in keys if key in record}) if record else "",
        "trained": run in study.trained,
    }


def _yaml(content: Any) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=72)

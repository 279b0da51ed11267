"""Decision rules on real predictions: a published CheXNet reproduction on 22,433 images of its NIH test set.

Reads   FOLDER/preds_labels.csv.gz (from jrzech/reproduce-chexnet, pretrained/preds.csv, with labels and patients joined from
        the NIH label table), data/hierarchies/nih14.yaml; with --others FOLDER the predictions of three more trainings for the
        same images (from haooyuee/reproduce-chexnet-nih-chexphoto, results/*preds.csv)
Writes  with --out FILE the results as JSON; with --renew the tables of docs/methods.md; else prints them
Run     python -m benchmarks.chexnet FOLDER --others FOLDER     a few seconds
"""

import argparse
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy
import scipy.special
import scipy.stats

from severity.arrays import discrimination, tree_model
from severity.arrays.labelsets import most_specific
from severity.comparison import resampling
from severity.core import errors, files, markdown, table_checks, tables
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.datasets import nih14
from severity.decisions import class_rules
from severity.external import conversion
from severity.metrics import catalogue, class_metrics
from severity.tree import costs, trees

TOP = Path(__file__).resolve().parent.parent
PAGE = TOP / "docs/methods.md"
NO_FINDING = "No Finding"
FINDINGS = tuple(label for label in nih14.LABELS if label != NO_FINDING)
RULES = ("argmax", "crm")
COMPARED = {
    name: catalogue.named(name).heading
    for name in ("top1_error", "mistake_severity", *(f"hierarchical_distance_at_{k}" for k in catalogue.DEPTHS))
}
# Three more trainings of the same backbone, by other recipes: file -> which one it is on the page.
OTHERS = {
    "results.csv.gz": "second",
    "results_nih_25.csv.gz": "third",
    "results_nih_25_lr_decay033.csv.gz": "fourth",
}
READINGS = ("most_specific", "any")
RESAMPLES = 2000
SHUFFLES = 20
SEED = 0


@dataclass(frozen=True)
class Case:
    """One way to make single decisions out of the 14 probabilities. Rows are images, columns the tree's classes."""

    tree: Hierarchy
    posterior: numpy.ndarray  # (N, K)
    nodes: numpy.ndarray  # (N, n) probability that each node is present
    labels: numpy.ndarray  # (N, K) bool, at least one true class a row
    patients: numpy.ndarray  # (N,)

    @cached_property
    def truth(self) -> numpy.ndarray:
        """(N, K) bool: the most specific labels, which decisions are scored by."""
        return most_specific(self.labels, self.tree)


def read(folder: Path | str) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """The published predictions.

    Returns:
        marginal (N, 14) probabilities and truth (N, 14) bool, columns in the order of FINDINGS; patients (N,).

    Raises:
        SeverityError: no file, a missing column, an unknown finding, a probability outside [0, 1].
    """
    path = Path(folder) / "preds_labels.csv.gz"
    columns = [f"prob_{label}" for label in FINDINGS]
    frame = tables.read_text(path, [*columns, "Finding Labels", "Patient ID"])
    marginal = numpy.stack([table_checks.numbers(frame[column], column, path) for column in columns], axis=1)
    if not ((marginal >= 0) & (marginal <= 1)).all():
        raise SeverityError(f"{path}: a probability is missing or outside [0, 1].")
    found = frame["Finding Labels"].str.split("|")
    odd = {label for each in found for label in each} - set(nih14.LABELS)
    if odd:
        raise SeverityError(f"{path}: unknown findings {sorted(odd)} in the column 'Finding Labels'.")
    truth = numpy.array([[label in each for label in FINDINGS] for each in found])
    return marginal, truth, frame["Patient ID"].to_numpy()


def read_other(path: Path | str, images: numpy.ndarray) -> numpy.ndarray:
    """(N, 14) probabilities of another network for the same images, columns in the order of FINDINGS.

    Args:
        images: (N,) file names, in the order that is wanted.

    Raises:
        SeverityError: no file, a missing column or image, a probability outside [0, 1].
    """
    frame = tables.read_text(path, ["Image Index"]).rename(columns=lambda name: name.removeprefix("prob_"))
    missing = [label for label in FINDINGS if label not in frame.columns]
    if missing or not set(images) <= set(frame["Image Index"]):
        raise SeverityError(f"{path}: columns {missing} or images are missing.")
    frame = frame.set_index("Image Index").loc[images]
    marginal = numpy.stack([table_checks.numbers(frame[label], label, path) for label in FINDINGS], axis=1)
    if not ((marginal >= 0) & (marginal <= 1)).all():
        raise SeverityError(f"{path}: a probability is missing or outside [0, 1].")
    return marginal


def findings_only(marginal: numpy.ndarray, truth: numpy.ndarray, patients: numpy.ndarray) -> Case:
    """Which finding is it, where there is one: the tree without No Finding, the posterior that follows from the nodes."""
    tree = _without_no_finding(_nih_tree())
    order = [FINDINGS.index(label) for label in tree.classes]
    some = truth.any(axis=1)
    nodes = tree_model.node_logits_of_labels(tree_model.logits_of(marginal[some][:, order]), tree)
    posterior = numpy.exp(tree_model.log_posterior_of_nodes(nodes, tree))
    return Case(tree, posterior, scipy.special.expit(nodes), truth[some][:, order], patients[some])


def with_no_finding(marginal: numpy.ndarray, truth: numpy.ndarray, patients: numpy.ndarray) -> Case:
    """All images and classes: p(No Finding) is the probability that no node under the root is there; findings share the rest."""
    tree = _nih_tree()
    truth = numpy.hstack([~truth.any(axis=1, keepdims=True), truth])
    logits = numpy.insert(tree_model.logits_of(marginal), 0, -tree_model.LARGEST, axis=1)
    order = [(NO_FINDING, *FINDINGS).index(label) for label in tree.classes]
    nodes = tree_model.node_logits_of_labels(logits[:, order], tree)
    log_posterior, nodes = conversion.complement(nodes, tree.classes.index(NO_FINDING), tree)
    return Case(tree, numpy.exp(log_posterior), scipy.special.expit(nodes), truth[:, order], patients)


CASES = {"findings": findings_only, "all": with_no_finding}
NAMES = {"findings": "findings only", "all": "all images"}


def _nih_tree() -> Hierarchy:
    return trees.read(TOP / "data/hierarchies/nih14.yaml", nih14.LABELS)


def _without_no_finding(tree: Hierarchy) -> Hierarchy:
    """No Finding is a leaf right under the root, so that no height changes."""
    gone = tree.names.index(NO_FINDING)
    given = len(tree.parents) - int((tree.stands_for != tree.class_nodes).sum())
    kept = [node for node in range(given) if node != gone]
    place = {-1: -1, **{node: index for index, node in enumerate(kept)}}
    classes = [
        (label, node) for label, node in zip(tree.classes, tree.stands_for.tolist(), strict=True) if node != gone
    ]
    return Hierarchy.from_parents(
        parents=[place[tree.parents[node]] for node in kept],
        class_nodes=[place[node] for _, node in classes],
        classes=[label for label, _ in classes],
        names=[tree.names[node] for node in kept],
    )


def measure(folder: Path | str, others: Path | str | None = None) -> dict[str, Any]:
    """Everything the tables hold: AUROC of each finding, and for each case the rules, their difference and the labels.

    Args:
        others: the folder of `OTHERS`; without it only the one network is measured under both readings.
    """
    marginal, truth, patients = read(folder)
    networks = {"first": marginal}
    if others:
        images = tables.read_text(Path(folder) / "preds_labels.csv.gz", ["Image Index"])["Image Index"].to_numpy()
        networks |= {name: read_other(Path(others) / file, images) for file, name in OTHERS.items()}
    scores = discrimination.per_label(scores=marginal, truth=truth.astype(float), classes=FINDINGS)
    cases = {name: _measure_case(make(marginal, truth, patients)) for name, make in CASES.items()}
    return {
        "images": len(truth),
        "patients": len(set(patients)),
        "labels": scores,
        "macro_auroc": discrimination.macro(scores, "auroc"),
        "cases": cases,
        "groups": _groups(with_no_finding(marginal, truth, patients)),
        "readings": {name: _readings(each, truth, patients) for name, each in networks.items()},
        "correlations": _correlations(scores, cases["findings"]["labels"]["argmax"]),
    }


def _correlations(scores: dict[str, dict[str, Any]], labels: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Spearman's rank correlation, over the findings, of severity with what might explain it."""
    columns = {name: [each[name] for each in labels.values()] for name in next(iter(labels.values()))}
    columns["auroc"] = [scores[label]["auroc"] for label in labels]
    explaining = ("error", "images", "blind_severity", "mistake_severity", "auroc")
    return {name: float(scipy.stats.spearmanr(columns["severity"], columns[name]).statistic) for name in explaining}


def _measure_case(case: Case) -> dict[str, Any]:
    cost, truth = costs.lca_height(case.tree), case.truth
    rankings = {
        rule: class_rules.rank(rule, posterior=case.posterior, cost=cost, hierarchy=case.tree) for rule in RULES
    }
    distances = class_metrics.distances(truth=truth, cost=cost)
    found = {
        rule: class_metrics.single_decision(ranking=ranking, truth=truth, cost=cost)
        for rule, ranking in rankings.items()
    }
    labels = {rule: _labels(case, rankings[rule][:, 0], distances) for rule in RULES}
    parts = {
        rule: class_metrics.per_image(ranking=ranking, truth=truth, cost=cost) for rule, ranking in rankings.items()
    }
    return {
        "images": len(case.truth),
        "patients": len(set(case.patients)),
        "changed": int((rankings["argmax"][:, 0] != rankings["crm"][:, 0]).sum()),
        "moves": _moves(rankings["argmax"][:, 0], rankings["crm"][:, 0], case.tree.classes),
        "rules": found,
        "difference": differences(parts["argmax"], parts["crm"], case.patients),
        "shuffled": shuffled(case, cost),
        "labels": labels,
    }


def _readings(marginal: numpy.ndarray, truth: numpy.ndarray, patients: numpy.ndarray) -> dict[str, Any]:
    """One network in both cases, by both readings of several true labels: case -> rule -> reading -> error and hd@1."""
    scores = discrimination.per_label(scores=marginal, truth=truth.astype(float), classes=FINDINGS)
    found: dict[str, Any] = {"macro_auroc": discrimination.macro(scores, "auroc")}
    for name, make in CASES.items():
        case = make(marginal, truth, patients)
        cost = costs.lca_height(case.tree)
        found[name] = {}
        for rule in (*RULES, "crm_nodes"):
            ranking = class_rules.rank(rule, posterior=case.posterior, nodes=case.nodes, cost=cost, hierarchy=case.tree)
            both = zip(READINGS, (case.truth, case.labels), strict=True)
            found[name][rule] = {
                reading: class_metrics.single_decision(ranking=ranking, truth=wanted, cost=cost)
                for reading, wanted in both
            }
    return found


def _groups(case: Case) -> dict[str, dict[str, float]]:
    """Node right under the root with several labels below it -> how often it is there, and how often one would expect it.

    images: the share with a label below it. largest: the mean of its probability, the largest of its labels'. independent: the
    mean of what it were if its labels were independent of one another.
    """
    tree = case.tree
    found = {}
    for node in tree.children[tree.root]:
        labels = tree.classes_below[node]
        if len(labels) > 1:
            marginal = case.nodes[:, tree.stands_for[labels]]
            found[tree.names[node]] = {
                "images": float(case.labels[:, labels].any(axis=1).mean()),
                "largest": float(case.nodes[:, node].mean()),
                "independent": float((1 - numpy.prod(1 - marginal, axis=1)).mean()),
            }
    column = tree.classes.index(NO_FINDING)
    parts = numpy.delete(case.nodes[:, tree.stands_for], column, axis=1)
    found[NO_FINDING] = {
        "images": float(case.labels[:, column].mean()),
        "largest": float(case.posterior[:, column].mean()),
        "independent": float(numpy.prod(1 - parts, axis=1).mean()),
    }
    return found


def _moves(before: numpy.ndarray, after: numpy.ndarray, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """The changes of decision from one rule to the other, the most frequent first."""
    changed = before != after
    pairs, counts = numpy.unique(numpy.stack([before, after], axis=1)[changed], axis=0, return_counts=True)
    return [
        {"from": classes[pairs[row, 0]], "to": classes[pairs[row, 1]], "images": int(counts[row])}
        for row in numpy.argsort(-counts, kind="stable")
    ]


def shuffled(case: Case, cost: numpy.ndarray) -> dict[str, list[float]]:
    """CRM minus argmax under trees of the same shape whose leaves change places at random, each both aimed at and scored by.

    Nothing medical is left in such a tree: what CRM gains here it owes to aiming at the very number that is measured.
    """
    random = numpy.random.default_rng(SEED)
    found: dict[str, list[float]] = {name: [] for name in COMPARED}
    truth = case.truth
    for _ in range(SHUFFLES):
        order = random.permutation(len(cost))
        other = cost[numpy.ix_(order, order)]
        argmax, crm = (
            class_metrics.single_decision(
                ranking=class_rules.rank(rule, posterior=case.posterior, cost=other, hierarchy=case.tree),
                truth=truth,
                cost=other,
            )
            for rule in RULES
        )
        for name, values in found.items():
            values.append(crm[name] - argmax[name])
    return found


def _labels(case: Case, decided: numpy.ndarray, distances: numpy.ndarray) -> dict[str, dict[str, Any]]:
    """For the images of each label: error, severity, severity of mistakes, what it is most often taken for, blind severity.

    Blind severity takes the decisions of the rule, dealt out anew over all images: what place in the tree and the habits of
    the rule cost, were the picture not looked at.
    """
    severity = numpy.take_along_axis(distances, decided[:, None].astype(numpy.intp), axis=1)[:, 0]
    wrong = ~numpy.take_along_axis(case.truth, decided[:, None].astype(numpy.intp), axis=1)[:, 0]
    habits = numpy.bincount(decided, minlength=len(case.tree.classes)) / len(decided)
    found = {}
    for column, label in enumerate(case.tree.classes):
        rows = case.labels[:, column]
        confusions = numpy.bincount(decided[rows & wrong], minlength=len(case.tree.classes))
        found[label] = {
            "images": int(rows.sum()),
            "decided": int((decided == column).sum()),
            "mistakes": int((rows & wrong).sum()),
            "taken_for": case.tree.classes[confusions.argmax()],
            "taken_for_images": int(confusions.max()),
            "error": float(wrong[rows].mean()),
            "severity": float(severity[rows].mean()),
            "mistake_severity": float(severity[rows & wrong].mean()),
            "blind_severity": float((distances[rows] @ habits).mean()),
        }
    return found


def differences(
    argmax: dict[str, numpy.ndarray], crm: dict[str, numpy.ndarray], patients: numpy.ndarray
) -> dict[str, dict[str, float]]:
    """CRM minus argmax for each compared metric, with the 95 % interval of a bootstrap over patients."""
    names, patient = numpy.unique(patients, return_inverse=True)
    settings = resampling.Settings(resamples=RESAMPLES, permutations=1, level=0.95, seed=SEED)
    times = resampling.resample(patients=len(names), settings=settings)

    def ratios(parts: dict[str, numpy.ndarray]) -> resampling.Ratios:
        every = {**parts, None: numpy.ones(len(patient))}
        sums = [numpy.array([every[catalogue.named(metric).parts[side]] for metric in COMPARED]) for side in (0, 1)]
        return resampling.Ratios(*(resampling.per_patient(each, patient=patient, patients=len(names)) for each in sums))

    a, b = ratios(crm), ratios(argmax)
    drawn = resampling.draws(a, times=times).each - resampling.draws(b, times=times).each
    lower, upper = resampling.interval(drawn, clusters=len(names), level=settings.level)
    return {
        metric: {"difference": float(difference), "lower": float(least), "upper": float(most)}
        for metric, difference, least, most in zip(COMPARED, a.whole - b.whole, lower, upper, strict=True)
    }


def _interval(difference: dict[str, float]) -> str:
    """The ends in words; where all patients are alike there is no interval."""
    if numpy.isnan(difference["lower"]):
        return "no interval"
    return f"{difference['lower']:+.4f} to {difference['upper']:+.4f}"


def rules_table(found: dict[str, Any]) -> str:
    """Both rules side by side in both cases, and their difference with its interval."""
    rows = []
    for name, case in found["cases"].items():
        for metric, heading in COMPARED.items():
            difference, control = case["difference"][metric], case["shuffled"][metric]
            rows.append(
                [
                    f"{NAMES[name]} ({case['images']:,})",
                    heading,
                    *(f"{case['rules'][rule][metric]:.4f}" for rule in RULES),
                    f"{difference['difference']:+.4f} ({_interval(difference)})",
                    f"{numpy.median(control):+.4f} ({min(control):+.4f} to {max(control):+.4f})",
                ]
            )
    headings = ["case (images)", "metric", "argmax", "CRM", "CRM − argmax (95 %)", "the same, shuffled trees (range)"]
    return markdown.table(headings, rows, words=2)


def readings_table(found: dict[str, Any]) -> str:
    """Every network, case and rule: error and hd@1 by the most specific truth, and by any true label."""
    rows = []
    for network, each in found["readings"].items():
        for case, name in NAMES.items():
            for rule, readings in each[case].items():
                numbers = [
                    f"{readings[reading][metric]:.4f}"
                    for metric in ("top1_error", "hierarchical_distance_at_1")
                    for reading in READINGS
                ]
                rows.append([network, f"{each['macro_auroc']:.4f}", name, rule, *numbers])
    headings = ["network", "AUROC", "case", "rule", "error", "error, `any`", "hd@1", "hd@1, `any`"]
    return markdown.table(headings, rows, words=4)


def groups_table(found: dict[str, Any]) -> str:
    """How often a group is there, and what the largest of its labels makes of it."""
    rows = [[name, *(f"{value:.3f}" for value in each.values())] for name, each in found["groups"].items()]
    return markdown.table(["node", "share of the images", "mean M, largest label", "mean, independent labels"], rows)


def labels_table(found: dict[str, Any]) -> str:
    """Labels of the findings-only case, the most severe under argmax first."""
    argmax, crm = (found["cases"]["findings"]["labels"][rule] for rule in RULES)
    rows = [
        [
            label,
            str(argmax[label]["images"]),
            f"{found['labels'][label]['auroc']:.4f}",
            *(f"{argmax[label][name]:.3f}" for name in ("error", "mistake_severity", "severity", "blind_severity")),
            f"{crm[label]['severity']:.3f}",
        ]
        for label in sorted(argmax, key=lambda label: -argmax[label]["severity"])
    ]
    headings = ["label", "images", "AUROC", "error", "mistake severity", "severity", "blind severity", "severity, CRM"]
    return markdown.table(headings, rows)


def correlations_table(found: dict[str, Any]) -> str:
    """What goes with a label's severity, the strongest first."""
    words = {
        "error": "error on its images",
        "images": "number of its images",
        "blind_severity": "blind severity",
        "mistake_severity": "mistake severity",
        "auroc": "AUROC",
    }
    values = sorted(found["correlations"].items(), key=lambda item: -abs(item[1]))
    return markdown.table(["with", "rank correlation"], [[words[name], f"{value:+.2f}"] for name, value in values])


TABLES = {
    "chexnet rules": rules_table,
    "chexnet readings": readings_table,
    "chexnet groups": groups_table,
    "chexnet labels": labels_table,
    "chexnet correlations": correlations_table,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="where preds_labels.csv.gz lies")
    parser.add_argument("--others", help="where the predictions of the other trainings lie; needed with --renew")
    parser.add_argument("--out", help="JSON file to write the results to")
    parser.add_argument("--renew", action="store_true", help="renew the tables of docs/methods.md")
    arguments = parser.parse_args()
    if arguments.renew and not arguments.others:
        raise SeverityError("--renew needs --others: the tables of the page hold all networks.")
    found = measure(arguments.folder, arguments.others)
    if arguments.out:
        files.write_json(arguments.out, found)
    for name, table in TABLES.items():
        if arguments.renew:
            markdown.renew(PAGE, name, table(found))
        else:
            print(table(found))
    print(f"scored {found['images']} images of {found['patients']} patients; macro-AUROC {found['macro_auroc']:.4f}")


if __name__ == "__main__":
    errors.run(main)

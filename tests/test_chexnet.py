"""The benchmark on real predictions: its readings of 14 sigmoids, its bootstrap, and the figures told in docs/methods.md."""

import re

import numpy
import pandas
import pytest
from scipy.special import logit

from benchmarks import chexnet
from severity.arrays import tree_model
from severity.core import markdown
from severity.core.errors import SeverityError
from severity.decisions import class_rules
from severity.metrics import class_metrics
from severity.tree import costs

SIZE = len(chexnet.FINDINGS)


def made_up(images: int = 60) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    random = numpy.random.default_rng(0)
    marginal = random.random((images, SIZE)) ** 3
    truth = random.random((images, SIZE)) < marginal / 2
    return marginal, truth, numpy.array([f"{image // 3}" for image in range(images)])


def write(folder, marginal, truth, patients) -> None:
    frame = pandas.DataFrame(marginal, columns=[f"prob_{label}" for label in chexnet.FINDINGS])
    names = ["|".join(label for label, true in zip(chexnet.FINDINGS, row, strict=True) if true) for row in truth]
    frame["Finding Labels"] = [name or "No Finding" for name in names]
    frame["Patient ID"] = patients
    frame.to_csv(folder / "preds_labels.csv.gz", index=False)


def test_reading_gives_what_was_written(tmp_path):
    made = made_up()
    write(tmp_path, *made)
    marginal, truth, patients = chexnet.read(tmp_path)
    assert marginal == pytest.approx(made[0]) and (truth == made[1]).all() and (patients == made[2]).all()
    write(tmp_path, made[0] + 1, *made[1:])
    with pytest.raises(SeverityError, match="outside"):
        chexnet.read(tmp_path)
    with pytest.raises(SeverityError, match="is missing"):
        chexnet.read(tmp_path / "none")


def test_findings_only_asks_which_finding_where_there_is_one():
    marginal, truth, patients = made_up()
    case = chexnet.findings_only(marginal, truth, patients)
    assert chexnet.NO_FINDING not in case.tree.classes and set(case.tree.classes) == set(chexnet.FINDINGS)
    assert len(case.labels) == truth.any(axis=1).sum() < len(truth)
    first = numpy.flatnonzero(truth.any(axis=1))[0]
    for column, label in enumerate(case.tree.classes):
        place = chexnet.FINDINGS.index(label)
        assert case.labels[0, column] == truth[first, place]
    order = [chexnet.FINDINGS.index(label) for label in case.tree.classes]
    nodes = tree_model.node_logits_of_labels(logit(marginal[[first]][:, order]), case.tree)
    assert case.posterior[[0]] == pytest.approx(numpy.exp(tree_model.log_posterior_of_nodes(nodes, case.tree)))


def test_decisions_are_scored_by_the_most_specific_findings():
    marginal, truth, patients = made_up()
    truth[:, [chexnet.FINDINGS.index(label) for label in ("Consolidation", "Pneumonia")]] = True
    case = chexnet.findings_only(marginal, truth, patients)
    place = case.tree.classes.index("Consolidation")
    assert case.labels[:, place].all() and not case.truth[:, place].any()


def test_leaving_out_no_finding_changes_no_cost_among_findings():
    marginal, truth, patients = made_up()
    some, everything = (make(marginal, truth, patients).tree for make in chexnet.CASES.values())
    order = [everything.classes.index(label) for label in some.classes]
    for cost in (costs.lca_height, costs.path):
        assert (cost(some) == cost(everything)[numpy.ix_(order, order)]).all()


def test_all_images_have_a_class_and_no_finding_the_probability_that_no_label_is_there():
    marginal, truth, patients = made_up()
    case = chexnet.with_no_finding(marginal, truth, patients)
    column = case.tree.classes.index(chexnet.NO_FINDING)
    assert case.truth.any(axis=1).all() and len(case.truth) == len(truth)
    assert (case.labels[:, column] == ~truth.any(axis=1)).all()
    assert case.posterior.sum(axis=1) == pytest.approx(1)
    # Labels of one group come together, the largest with all others: the lower bound of the group.
    tree = case.tree
    values = numpy.insert(marginal, 0, 0, axis=1)
    order = [(chexnet.NO_FINDING, *chexnet.FINDINGS).index(label) for label in tree.classes]
    groups = [values[:, order][:, tree.classes_below[child]].max(axis=1) for child in tree.children[tree.root]]
    assert case.posterior[:, column] == pytest.approx(numpy.prod(1 - numpy.array(groups), axis=0))


def test_the_difference_is_that_of_the_metrics_and_its_interval_that_of_resampled_patients(monkeypatch):
    monkeypatch.setattr(chexnet, "RESAMPLES", 400)
    case = chexnet.with_no_finding(*made_up(120))
    found = chexnet._measure_case(case)
    cost = costs.lca_height(case.tree)

    def scores(rows):
        return [
            class_metrics.single_decision(
                ranking=class_rules.rank(rule, posterior=case.posterior[rows], cost=cost, hierarchy=case.tree),
                truth=case.truth[rows],
                cost=cost,
            )
            for rule in chexnet.RULES
        ]

    argmax, crm = scores(numpy.arange(120))
    random = numpy.random.default_rng(5)
    names = numpy.unique(case.patients)
    drawn = []
    for _ in range(400):
        rows = numpy.concatenate(
            [numpy.flatnonzero(case.patients == name) for name in random.choice(names, len(names))]
        )
        drawn.append(scores(rows))
    for metric in chexnet.COMPARED:
        interval = found["difference"][metric]
        assert interval["difference"] == pytest.approx(crm[metric] - argmax[metric])
        slow = numpy.percentile([after[metric] - before[metric] for before, after in drawn], [2.5, 97.5])
        width = slow[1] - slow[0]
        if not width:  # No patient differs.
            assert numpy.isnan([interval["lower"], interval["upper"]]).all()
            continue
        assert [interval["lower"], interval["upper"]] == pytest.approx(slow, abs=0.25 * width + 1e-12)


@pytest.fixture(scope="module")
def measured(shared_data):
    return chexnet.measure(shared_data("chexnet_preds"), shared_data("chexnet_five"))


def test_the_tables_of_the_page_are_those_of_the_data(measured):
    for name, table in chexnet.TABLES.items():
        assert markdown.marked(chexnet.PAGE, name) == table(measured), (
            f"renew with python -m benchmarks.chexnet: {name}"
        )


def test_the_figures_told_in_the_text_are_those_of_the_data(measured):
    page = re.sub(r"\s+", " ", chexnet.PAGE.read_text())
    case, everything = measured["cases"]["findings"], measured["cases"]["all"]
    argmax, crm = (case["labels"][rule] for rule in chexnet.RULES)
    fewer = (
        everything["labels"]["argmax"]["No Finding"]["decided"] - everything["labels"]["crm"]["No Finding"]["decided"]
    )
    gain = -case["difference"]["hierarchical_distance_at_5"]["difference"]
    for told in (
        f"{measured['images']:,} test images of {measured['patients']:,} patients",
        f"their mean is {measured['macro_auroc']:.4f}",
        f"the {case['images']:,} images that have at least one finding",
        f"the decision for {case['changed']} of {case['images']:,} images",
        f"hd@5 falls by {gain:.3f}, or {100 * gain / case['rules']['argmax']['hierarchical_distance_at_5']:.0f} %",
        f"CRM calls {fewer} images fewer normal",
        f"Infiltration for {argmax['Infiltration']['decided']:,} of {case['images']:,} images",
        f"takes {argmax['Atelectasis']['taken_for_images']} of its {argmax['Atelectasis']['mistakes']} mistakes",
        f"from Effusion to Infiltration ({case['moves'][0]['images']}) or Atelectasis ({case['moves'][1]['images']})",
    ):
        assert told in page, told
    by_auroc = sorted(measured["labels"], key=lambda label: -measured["labels"][label]["auroc"])
    assert by_auroc[1] == "Hernia" and by_auroc[-1] == "Infiltration"
    by_severity = sorted(argmax, key=lambda label: -argmax[label]["severity"])
    assert by_severity[:3] == ["Hernia", "Fibrosis", "Consolidation"] and by_severity[-2] == "Infiltration"
    assert [(move["from"], move["to"]) for move in case["moves"][:2]] == [
        ("Effusion", "Infiltration"),
        ("Effusion", "Atelectasis"),
    ]
    assert argmax["Atelectasis"]["taken_for"] == "Infiltration"
    assert argmax["Hernia"]["decided"] == 2 and argmax["Pneumonia"]["decided"] == 0
    more_severe = {label for label in argmax if crm[label]["severity"] > argmax[label]["severity"]}
    assert more_severe == {"Cardiomegaly", "Emphysema", "Effusion", "Pneumonia"}


def test_what_the_page_concludes_holds(measured):
    case, everything = measured["cases"]["findings"], measured["cases"]["all"]
    for metric, zero_inside in (
        ("top1_error", False),
        ("mistake_severity", False),
        ("hierarchical_distance_at_1", False),
    ):
        interval = case["difference"][metric]
        assert (interval["lower"] <= 0 <= interval["upper"]) == zero_inside, metric
    for found in (case, everything):
        assert found["difference"]["hierarchical_distance_at_5"]["upper"] < 0
        assert found["difference"]["hierarchical_distance_at_20"]["difference"] == 0
    for metric in ("top1_error", "mistake_severity", "hierarchical_distance_at_1", "hierarchical_distance_at_5"):
        control = case["shuffled"][metric]
        assert min(control) <= case["difference"][metric]["difference"] <= max(control), metric
    for metric in chexnet.COMPARED:
        control, true = everything["shuffled"][metric], everything["difference"][metric]["difference"]
        below = true < min(control)
        assert below == (metric in ("top1_error", "hierarchical_distance_at_1")), metric
    assert everything["difference"]["hierarchical_distance_at_5"]["difference"] > max(
        everything["shuffled"]["hierarchical_distance_at_5"]
    )
    for network in measured["readings"].values():
        for name in chexnet.CASES:
            distances = {
                rule: found["most_specific"]["hierarchical_distance_at_1"] for rule, found in network[name].items()
            }
            assert distances["crm_nodes"] < distances["crm"] < distances["argmax"]
            for found in network[name].values():
                # Consolidation is hardly ever decided, so the readings agree here.
                assert found["any"]["top1_error"] == pytest.approx(found["most_specific"]["top1_error"], abs=5e-5)
    assert measured["groups"]["Parenchymal opacity"]["largest"] < measured["groups"]["Parenchymal opacity"]["images"]


def test_another_networks_columns_and_images_go_by_name(tmp_path):
    marginal = made_up(4)[0]
    frame = pandas.DataFrame(marginal, columns=list(chexnet.FINDINGS)).assign(**{"Image Index": list("dbca")})
    frame[frame.columns[::-1]].to_csv(tmp_path / "a.csv", index=False)
    assert chexnet.read_other(tmp_path / "a.csv", numpy.array(list("abcd"))) == pytest.approx(marginal[[3, 1, 2, 0]])
    frame.add_prefix("prob_").rename(columns={"prob_Image Index": "Image Index"}).to_csv(
        tmp_path / "b.csv", index=False
    )
    assert chexnet.read_other(tmp_path / "b.csv", numpy.array(list("dbca"))) == pytest.approx(marginal)
    with pytest.raises(SeverityError, match="missing"):
        chexnet.read_other(tmp_path / "b.csv", numpy.array(list("abce")))

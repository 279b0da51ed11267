"""The tables over the seeds: that none hides that nothing was learnt, and that each says what it is of."""

from dataclasses import replace

import numpy
import pandas
import pytest

from severity.core.runs import Run
from severity.figures.scores import tradeoff
from severity.metrics import catalogue
from severity.summary import baselines, configurations, masked
from severity.tree import costs
from tests import records
from tests.trees import six_classes

TREE, SEEDS, RULES = six_classes(), (0, 1, 2), ["argmax", "crm"]
COST = costs.lca_height(TREE)


def study(noise: float, *, seeds: tuple[int, ...] = SEEDS, losses: tuple[str, ...] = ("ce", "hxe")) -> dict[Run, dict]:
    """Records of networks that know more or less of their images, by the noise of their logits."""
    truth = numpy.eye(6)[numpy.random.default_rng(0).choice(6, 160, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.1])]
    runs = [Run("net", loss, seed) for loss in losses for seed in seeds]
    return {
        run: records.of(records.predict(run, TREE, truth=truth, validation=40, noise=noise), TREE, COST) for run in runs
    }


@pytest.fixture(scope="module")
def learnt() -> dict[Run, dict]:
    return study(0.5)


@pytest.fixture(scope="module")
def blind() -> dict[Run, dict]:
    return study(1000.0)


def test_where_nothing_was_learnt_table_headline_and_figure_say_so(blind):
    warning = baselines.warning(blind)
    assert "least_risk" in warning and "random" in warning and "majority" in warning
    assert configurations.headline(blind, RULES)["warning"] == warning
    assert configurations.about(blind).startswith(f"**{warning}**")
    assert warning in draw(blind).caption
    # What the warning calls the nearest is the least of the table.
    table = configurations.comparison(blind, RULES)
    nearest = table.loc[table["hd_at_1"].idxmin()]
    assert f"net-{nearest['loss']} under {nearest['rule']} (hd@1 {nearest['hd_at_1']:.3f})" in warning


def test_where_something_was_learnt_nothing_is_said(learnt):
    assert baselines.warning(learnt) == "" and baselines.remarks(learnt) == []
    assert "warning" not in configurations.headline(learnt, RULES)
    assert "**" not in configurations.about(learnt) and "Nothing shows" not in draw(learnt).caption
    assert all(len(each.beaten_by) == 4 and not each.others for each in baselines.standings(learnt))


def test_one_configuration_that_learnt_is_enough_and_the_others_are_named(learnt, blind):
    mixed = learnt | {Run("blind", run.loss, run.seed): record for run, record in blind.items()}
    assert baselines.warning(mixed) == ""
    (sentence,) = [each for each in baselines.remarks(mixed) if "least_risk" in each]
    assert "blind-ce under argmax" in sentence and "net-ce" not in sentence
    assert sentence in configurations.about(mixed)


def test_beating_needs_every_seed_and_more_than_chance_over_the_images(learnt):
    def beats(*below: float, images: int = 100) -> bool:
        """Seeds so far below the baseline; half of the severities 0, the others 2."""
        seeds = []
        for each in below:
            rules = {"crm": {baselines.METRIC.name: 1.0, "levels": {"0": images // 2, "2": images // 2}}}
            trivial = {"least_risk": {baselines.METRIC.name: 1.0 + each}}
            seeds.append({"rules": rules, "not_available": {}, "baselines": {"single_decision": trivial}})
        (standing,) = baselines.standings({Run("net", "ce", seed): each for seed, each in enumerate(seeds)})
        return bool(standing.beaten_by)

    # One standard error of a mean over 100 images is 0.1005.
    assert beats(0.5, 0.3, 0.21) and beats(0.21) and not beats(0.2)
    assert not beats(0.9, 0.9, -0.01) and not beats(0.9, 0.9, 0.0)
    assert not beats(0.1, 0.1, 0.1) and beats(0.1, 0.1, 0.1, images=1000)
    assert not beats(0.0), "deciding as the baseline does is not better"


def test_a_perfect_network_on_few_images_beats_them():
    rules = {"crm": {baselines.METRIC.name: 0.0, "levels": {"0": 3}}}
    seed = {
        "rules": rules,
        "not_available": {},
        "baselines": {"single_decision": {"random": {baselines.METRIC.name: 2.0}}},
    }
    (standing,) = baselines.standings({Run("net", "ce", 0): seed})
    assert standing.beaten_by and not standing.others


def test_every_table_has_their_rows_below_its_own(learnt):
    table = configurations.whole_table(learnt, RULES)
    own, trivial = table[table["runs"] > 0], table[table["backbone"] == catalogue.NO_IMAGE]
    pandas.testing.assert_frame_equal(own, configurations.comparison(learnt, RULES))
    assert (
        trivial["rule"].tolist() == ["majority", "least_risk", "best_constant", "random"] == table["rule"].tolist()[-4:]
    )
    first = next(iter(learnt.values()))["baselines"]["single_decision"]
    for row in trivial.to_dict("records"):
        assert row["top1_error"] == first[row["rule"]]["top1_error"] and row["hd_at_1_max"] == row["hd_at_1_min"]
    text = configurations.markdown(table).splitlines()
    assert text[-4].startswith(f"| {catalogue.NO_IMAGE} |  | majority | 0 | {first['majority']['top1_error']:.3f} |")


def draw(found: dict[Run, dict]):
    columns = ["backbone", "loss", "rule", "metric", "lower", "upper"]
    return tradeoff.draw_tradeoff(
        found, RULES, pandas.DataFrame(columns=columns), level=0.95, facts="made up", unit="lca_height"
    )


def test_the_figure_of_error_against_severity_has_them(learnt):
    picture = draw(learnt)
    table = picture.table[picture.table["backbone"] == catalogue.NO_IMAGE].set_index("rule")
    assert table.index.tolist() == ["majority", "least_risk", "best_constant", "random"]
    panels = [axes for axes in picture.figure.axes if axes.get_xlabel()]
    assert len(panels) == 2
    for axes, measure in zip(panels, ("hd_at_1", "mistake_severity"), strict=True):
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        words = " ".join(text.get_text() for text in axes.texts)
        marked = {tuple(point) for line in axes.lines if line.get_marker() == "x" for point in line.get_xydata()}
        assert marked
        for rule, row in table.iterrows():
            inside = left <= row["top1_error"] <= right and bottom <= row[measure] <= top
            assert rule in words and inside == ((row["top1_error"], row[measure]) in marked), rule
            assert inside == (rule not in words.partition("outside: ")[2])


def test_a_single_run_has_no_range(blind):
    single = {run: each for run, each in blind.items() if run.seed == 0}
    text = configurations.markdown(configurations.whole_table(single, ["argmax", "crm"]))
    assert " to " not in text and text.count("\n") == 2 + 4 + 4
    assert "One run a configuration, no range" in configurations.about(single)
    several = configurations.markdown(configurations.whole_table(blind, ["argmax", "crm"])).splitlines()
    assert all(line.count(" to ") == 5 for line in several[2:6]) and " to " not in "".join(several[6:])


def test_numbers_that_no_ranking_can_change_are_in_no_table(learnt):
    for classes, left_out in ((3, {"hd@5", "hd@20"}), (5, {"hd@5", "hd@20"}), (6, {"hd@20"}), (21, set())):
        assert {metric.heading for metric in catalogue.constant(classes)} == left_out
    table = configurations.whole_table(learnt, ["argmax", "crm"])
    summary = configurations.medians(list(learnt.values())[:3], "crm")
    for columns in (table.columns, summary):
        assert "hd_at_5" in columns and "hd_at_20" not in columns and "severity_percent" not in columns


def test_tables_headline_and_medians_say_what_they_are_of(learnt):
    known = configurations.facts({run: each | {"patients": 17} for run, each in learnt.items()}.values())
    (images,) = {each["counts"]["scored"] for each in learnt.values()}
    wanted = {"collection": "phantom", "tree": "chexpert_pleural", "cost": "lca_height"}
    assert known == wanted | {"images": images, "patients": 17}
    headline = configurations.headline(learnt, ["argmax", "crm"])
    assert {name: headline[name] for name in wanted} == wanted and headline["images"] == images
    first, *others = learnt.values()
    fewer = first | {"counts": first["counts"] | {"scored": images - 3}}
    assert configurations.facts([fewer, *others])["images"] == f"{images - 3} to {images}"


def test_masked_truth_is_said_over_the_table_and_in_the_headline(learnt):
    assert masked.remark(learnt) == "" and "masked" not in configurations.headline(learnt, RULES)
    truth = numpy.eye(6)[numpy.random.default_rng(0).choice(6, 160)]
    hidden = numpy.where(numpy.random.default_rng(1).random(truth.shape) < 0.4, numpy.nan, truth)
    runs = [Run("net", "ce", seed) for seed in SEEDS]
    partly = {
        run: records.of(records.predict(run, TREE, truth=hidden, validation=40, noise=3.0), TREE, COST) for run in runs
    }
    remark = masked.remark(partly)
    assert configurations.headline(partly, RULES)["masked"] == remark and f"**{remark}**" in configurations.about(
        partly
    )
    least, largest = max(
        (rule["masked"]["top1_error"] for record in partly.values() for rule in record["rules"].values()),
        key=lambda ends: ends[1] - ends[0],
    )
    assert f"{least:.3f} to {largest:.3f}" in remark and largest - least > 0.1


def test_a_baseline_whose_every_decision_is_masked_has_no_row_of_numbers(learnt):
    nothing = {metric.name: None for metric in catalogue.baselines()}
    without = {
        run: record | {"baselines": record["baselines"] | {"single_decision": {"majority": nothing}}}
        for run, record in learnt.items()
    }
    assert baselines.warning(without) == "" and baselines.rows(without)["hd_at_1"].isna().all()


def test_a_network_that_decides_one_class_beats_no_constant_and_is_named(learnt):
    """Whatever class it is: best on the test images, but no majority of the validation images."""
    truth = numpy.eye(6)[[0] * 40 + [1] * 20 + [2] * 100]
    made = records.predict(Run("net", "ce", 0), TREE, truth=truth, validation=40, noise=0.0)
    logs = numpy.log(numpy.full((160, 6), 0.1))
    logs[:, 2] = numpy.log(0.5)
    stuck = {Run("net", "ce", 0): records.of(replace(made, log_posterior=logs), TREE, COST)}
    assert "best_constant" in baselines.warning(stuck)
    (sentence, *_) = baselines.constant(stuck)
    assert sentence.startswith(f"net-ce-0 under argmax decides {TREE.classes[2]} for all 120 images")
    assert sentence in configurations.about(stuck) and baselines.constant(learnt) == []

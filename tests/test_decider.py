"""Words of decision rules: fitted once on validation images, and the same decisions everywhere."""

import numpy
import pytest
from scipy.special import expit

from severity.comparison import scores
from severity.core.errors import SeverityError
from severity.core.runs import Run
from severity.decisions import class_rules, decider, set_rules, temperature
from severity.decisions.decider import Decider
from severity.explanation import explained_images
from severity.metrics import class_metrics
from severity.predictions.predictions import Predictions
from severity.tree import costs
from tests import records
from tests.trees import six_classes

TREE = six_classes()
COST = costs.lca_height(TREE)
RUN = Run("net", "ce", 0)
CLASS_WORDS = [*class_rules.RULES, *(f"{rule}_ts" for rule in class_rules.RULES)]
SET_WORDS = [*set_rules.RULES, *(f"{rule}_ts" for rule in set_rules.RULES)]


@pytest.fixture(scope="module")
def made() -> Predictions:
    random = numpy.random.default_rng(0)
    truth = (random.random((160, 6)) < 0.25).astype(float)
    truth[numpy.arange(160), random.integers(0, 6, 160)] = 1
    return records.predict(RUN, TREE, truth=truth, validation=60)


@pytest.fixture(scope="module")
def record(made):
    return records.of(made, TREE, COST, rules=CLASS_WORDS, multi_label=SET_WORDS, mistakes=50)


@pytest.mark.parametrize("word", CLASS_WORDS)
def test_a_word_is_its_rule_on_the_probabilities_that_it_asks_for(made, word):
    test, seen = made.part("test"), made.part("validation")
    posterior, node_logits = test.posterior, test.node_logits
    if word.endswith("_ts"):
        fitted = temperature.fit(seen.log_posterior, seen.truth == 1, TREE)
        posterior = temperature.scale(test.log_posterior, fitted)
        fitted = temperature.fit_logits(seen.label_logits, seen.truth)
        node_logits = temperature.scale_logits(test.node_logits, fitted)
    nodes = expit(node_logits.astype(float))
    wanted = class_rules.rank(word.removesuffix("_ts"), posterior=posterior, nodes=nodes, cost=COST, hierarchy=TREE)
    assert (Decider.of(made, TREE, COST).rank(word, test) == wanted).all()


@pytest.mark.parametrize("word", SET_WORDS)
def test_thresholds_are_those_of_the_probabilities_that_the_word_asks_for(made, word):
    test, seen = made.part("test"), made.part("validation")
    fitted = temperature.fit_logits(seen.label_logits, seen.truth) if word.endswith("_ts") else 1.0
    nodes = [expit(temperature.scale_logits(each.node_logits, fitted)) for each in (seen, test)]
    thresholds = set_rules.best_thresholds(nodes[0][:, TREE.stands_for], seen.truth)
    wanted = set_rules.decide(word.removesuffix("_ts"), nodes=nodes[1], hierarchy=TREE, thresholds=thresholds)
    assert (Decider.of(made, TREE, COST).decide_sets(word, test) == wanted).all()


def test_nodes(made):
    rules, test = Decider.of(made, TREE, COST), made.part("test")
    assert (rules.decide_nodes("crm", test, threshold=0.5) == TREE.class_nodes[rules.rank("crm", test)[:, 0]]).all()
    for word in ("climb", "climb_ts"):
        nodes = rules.nodes(test, scaled=decider.is_scaled(word))
        wanted = class_rules.climb(nodes=nodes, hierarchy=TREE, threshold=0.6)
        assert (rules.decide_nodes(word, test, threshold=0.6) == wanted).all()


def test_everything_is_fitted_once(made, monkeypatch):
    calls = []
    for module, name in ((temperature, "fit"), (temperature, "fit_logits"), (set_rules, "best_thresholds")):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, f=function, n=name: calls.append(n) or f(*args))
    rules, test = Decider.of(made, TREE, COST), made.part("test")
    for _ in range(2):
        for word in CLASS_WORDS:
            rules.rank(word, test)
        for word in SET_WORDS:
            rules.decide_sets(word, test)
    assert sorted(calls) == ["best_thresholds", "best_thresholds", "fit", "fit_logits"]


def test_without_validation_images_what_needs_them_is_named_and_refused(made):
    rules = Decider.of(made.part("test"), TREE, COST)
    words = ["argmax", "crm_ts", "threshold", "threshold_f1", "hbayes_ts"]
    assert list(rules.unavailable(words)) == ["crm_ts", "threshold_f1", "hbayes_ts"]
    assert rules.available(words) == ["argmax", "threshold"]
    with pytest.raises(SeverityError, match="no validation images"):
        rules.rank("crm_ts", made.part("test"))
    with pytest.raises(SeverityError, match="no validation images"):
        rules.decide_sets("threshold_f1", made.part("test"))
    assert Decider.of(made, TREE, COST).unavailable(words) == {}


def test_evaluation_comparison_and_explanation_decide_alike_from_the_file(made, record, tmp_path):
    """The temperature is fitted again from the predictions file, and is the record's to the last digit."""
    made.write(tmp_path / "run.npz")
    again = Predictions.read(tmp_path / "run.npz", TREE)
    rules = Decider.of(again, TREE, COST)
    assert rules.posterior_temperature == record["calibration"]["posterior_ts"]["temperature"] != 1
    assert rules.node_temperature == record["calibration"]["labels_ts"]["temperature"]
    compared = scores.collect(lambda run: again, [RUN], TREE, COST, rules=CLASS_WORDS)
    test = again.part("test")
    for number, word in enumerate(CLASS_WORDS):
        ranking = rules.rank(word, test)
        severity = class_metrics.severities(ranking=ranking, truth=test.truth == 1, cost=COST)
        assert (compared.severity[0, number] == severity).all()
        assert record["rules"][word]["severity_mean"] == severity.mean()
        cases = explained_images.find(again, record, TREE, COST, rule=word, mistakes=50, ids=test.ids.tolist())
        chosen = [case.decision for case in cases if case.name.startswith("chosen")]
        assert chosen == ranking[:, 0].tolist()
        named = [*record["rules"][word]["least"], *record["rules"][word]["most"]]
        assert [TREE.classes[case.decision] for case in cases][: len(named)] == [each["decision"] for each in named]


def test_an_unknown_word_is_answered_with_the_nearest():
    decider.check(CLASS_WORDS, class_rules.RULES, "evaluate.rules")
    with pytest.raises(SeverityError, match=r"evaluate\.rules: unknown decision rule 'crn_ts'.*crm"):
        decider.check(["crn_ts"], class_rules.RULES, "evaluate.rules")

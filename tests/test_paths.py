"""Paths with probabilities: the table and the text have the probabilities of nodes that the predictions have."""

import numpy
import pytest
import scipy.special

from severity.arrays import subtrees
from severity.core.errors import SeverityError
from severity.decisions import class_rules
from severity.decisions.decider import Decider
from severity.explanation import paths
from severity.tree import costs
from tests.test_evaluation import predictions
from tests.trees import six_classes

TREE = six_classes()


@pytest.mark.parametrize("rule", [*class_rules.RULES, "climb"])
def test_the_table_walks_from_the_root_to_the_decision(rule):
    made = predictions(images=30)
    cost = costs.lca_height(TREE)
    nodes = Decider.of(made, TREE, cost).decide_nodes(rule, made, threshold=0.4)
    found = paths.table(made, TREE, nodes)
    assert list(dict.fromkeys(found["id"])) == made.ids.tolist()
    for row, (_, steps) in enumerate(found.groupby("id", sort=False)):
        walked = [TREE.names.index(name) for name in steps["node"]]
        assert walked == TREE.ancestors(nodes[row])[::-1]
        assert steps["depth"].tolist() == list(range(len(walked)))
        assert steps["decided"].tolist() == [0] * (len(walked) - 1) + [1]
        assert steps["probability"].to_numpy() == pytest.approx(scipy.special.expit(made.node_logits[row, walked]))
        assert steps["given_parent"].prod() == pytest.approx(steps["probability"].iloc[-1], abs=1e-6)
    if rule != "climb":
        ranking = class_rules.rank(rule, posterior=made.posterior, nodes=paths.present(made), cost=cost, hierarchy=TREE)
        assert (nodes == TREE.class_nodes[ranking[:, 0]]).all()


def test_the_text_by_hand():
    posterior = numpy.array([0.05, 0.004, 0.046, 0.15, 0.45, 0.30])
    text = paths.text(subtrees.probabilities(posterior[None], TREE)[0], TREE, TREE.names.index("node 7"), least=0.01)
    assert text.splitlines() == [
        "* 1.000  node 0",
        "  0.050    a",
        "  0.050    node 2",
        "  0.046      b2",
        "* 0.900    node 5",
        "  0.150      c1",
        "* 0.750      node 7  <- decided",
        "  0.450        d1",
        "  0.300        d2",
    ]


def test_an_image_that_is_not_there_is_told_with_the_nearest():
    made = predictions(images=30)
    assert paths.index(made, "image7") == 7
    with pytest.raises(SeverityError, match="no image 'imag7'. Did you mean 'image7'"):
        paths.index(made, "imag7")

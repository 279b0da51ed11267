"""The functions of `import severity`: label trees, costs, decisions, numbers, losses, trained networks.

They compute nothing themselves: each checks what it is given and calls the folder that does. Whatever is wrong with the
input is a `severity.SeverityError`, a ValueError whose message says what was given, what would be right and where to
change it.
"""

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy
from numpy.typing import ArrayLike

from severity.api import arguments
from severity.arrays.labelsets import most_specific, undetermined
from severity.core.errors import SeverityError, nearest
from severity.core.hierarchy import Hierarchy
from severity.decisions import class_rules, set_rules
from severity.metrics import class_metrics, masked
from severity.tree import costs, trees

if TYPE_CHECKING:
    from severity.links.links import Link
    from severity.networks.models import Model

PACKAGE = Path(__file__).resolve().parents[1]
READINGS = ("most_specific", "any")


def read_tree(name_or_path: str | os.PathLike, *, labels: Sequence[str] | None = None) -> Hierarchy:
    """Read a label tree.

    Args:
        name_or_path: a tree that comes with the project, such as ``chexpert_pleural`` (data/hierarchies; its sources
            are in the files), or a null hierarchy made of one, ``<name>@flat`` (all classes under the root) or
            ``<name>@shuffled_<seed>`` (classes change places); or the path of a YAML file of the same form.
        labels: of the data set, in any order; each must then be in the tree or in the list ``excluded`` of its file.
            None: all labels of the file. The name ``flat`` stands for these labels right under the root.

    Returns:
        The tree, whose `classes` are the labels in the order of the file. They are the columns of every table here.

    Raises:
        SeverityError: the tree does not exist, the file is malformed, or its labels are not those of the data set.
    """
    given = arguments.name_or_path(name_or_path, "A tree")
    labels = None if labels is None else arguments.labels(labels)
    if _is_path(given, (".yaml", ".yml")):
        return trees.read(given, labels)
    file = given.partition("@")[0]
    if file == trees.IRMA:
        raise SeverityError("The tree 'irma' is made of a data set's IRMA codes by the pipeline; it has no file.")
    if file == trees.FLAT and labels is None:
        raise SeverityError(f"The tree {given!r} has all labels of a data set under its root: give labels=[...].")
    return trees.named(_hierarchies(), given, labels)


def cost(name: str | os.PathLike, hierarchy: Hierarchy) -> numpy.ndarray:
    """How bad each mistake is.

    Args:
        name: ``lca_height``, the height of the lowest common ancestor of both classes (Bertinetto et al., "Making
            better mistakes", CVPR 2020); ``path``, the number of edges between them; or the path of a CSV with one row
            a decision, one column a truth and class names on both axes (data/costs/README.md).
        hierarchy: the label tree of the K classes.

    Returns:
        (K, K) float64, cost[decision, truth], 0 on the diagonal.

    Raises:
        SeverityError: an unknown name, or a file that is not a cost matrix for these classes.
    """
    tree, given = arguments.hierarchy(hierarchy), arguments.name_or_path(name, "A cost")
    if _is_path(given, (".csv", ".csv.gz")):
        if not Path(given).is_file():
            raise SeverityError(f"The file of costs {given} is missing.")
        return costs.read(given, tree.classes)
    if given not in costs.DERIVED:
        raise SeverityError(f"Unknown cost {given!r}. {nearest(given, costs.DERIVED)} Or give the path of a CSV file.")
    return costs.DERIVED[given](tree)


def rank(
    rule: str,
    *,
    posterior: ArrayLike,
    cost: ArrayLike,
    hierarchy: Hierarchy,
    nodes: ArrayLike | None = None,
) -> numpy.ndarray:
    """Rank the classes of each image by a decision rule.

    Args:
        rule: ``argmax`` (most probable first); ``crm``, conditional risk minimisation: least expected cost first
            (Karthik et al., ICLR 2021); ``crm_nodes``: least expected cost to the nearest of several true classes,
            from the probabilities of nodes, for costs such as ``lca_height`` that depend on the lowest common ancestor
            alone; ``hie``: probability of the class times that of its parent (after Jain et al., NeurIPS 2023);
            ``top_down``: from the root always to the most probable child. docs/methods.md has the formulas.
        posterior: (N, K) distribution over classes, in the order of ``hierarchy.classes``; rows sum to one.
        cost: (K, K) cost[decision, truth].
        hierarchy: the label tree of the K classes.
        nodes: (N, n) probability that each node of the tree is present, in the order of ``hierarchy.names``, never rising
            downward, as ``loss.nodes(logits)`` gives them; 1 for a root that is no label. ``crm_nodes`` and ``hie`` use
            them. None: sums of the posterior, which is right where one class is true of each image.

    Returns:
        (N, K) int32 class indices, best first; column 0 is the decision.

    Raises:
        SeverityError: an unknown rule, shapes that do not fit, a row that is not a distribution, a cost matrix that is
            invalid or that ``crm_nodes`` has no form for, a node that is more probable than its parent.
    """
    tree = arguments.hierarchy(hierarchy)
    given = arguments.posterior(posterior, tree)
    return class_rules.rank(
        arguments.name(rule, "A decision rule"),
        posterior=given,
        nodes=None if nodes is None else arguments.nodes(nodes, tree, rows=len(given)),
        cost=arguments.cost(cost, tree),
        hierarchy=tree,
    )


def sets(rule: str, *, nodes: ArrayLike, hierarchy: Hierarchy, thresholds: ArrayLike | None = None) -> numpy.ndarray:
    """Decide a set of labels for each image.

    Args:
        rule: ``threshold``: every label with a probability of one half or more; ``threshold_f1``: every label that reaches
            its own threshold; ``hbayes``: the set of least expected H-loss, which never lacks a label above one that it
            names (Cesa-Bianchi et al., ICML 2006). docs/methods.md has the formulas.
        nodes: (N, n) probability that each node of the tree is present, as for `rank`.
        hierarchy: the label tree of the K classes.
        thresholds: (K,) numbers from 0 to 1, for ``threshold_f1`` alone; those of largest F1 on validation images, say.

    Returns:
        (N, K) bool, in the order of ``hierarchy.classes``.

    Raises:
        SeverityError: an unknown rule, shapes that do not fit, a node that is more probable than its parent, or no
            thresholds where the rule needs them.
    """
    tree = arguments.hierarchy(hierarchy)
    limits = None
    if thresholds is not None:
        limits = arguments.thresholds(thresholds, tree)
    return set_rules.decide(
        arguments.name(rule, "A rule for sets of labels"),
        nodes=arguments.nodes(nodes, tree),
        hierarchy=tree,
        thresholds=limits,
    )


def single_decision(
    *, ranking: ArrayLike, truth: ArrayLike, cost: ArrayLike, hierarchy: Hierarchy, reading: str = "most_specific"
) -> dict[str, Any]:
    """How often the first-ranked class is wrong, and how far off it is.

    Args:
        ranking: (N, K) class indices, best first, as `rank` returns them.
        truth: (N, K) booleans, or numbers that are 1, 0, or NaN where nobody knows (masked); several true classes are
            allowed. Images with none are left out and counted.
        cost: (K, K) cost[decision, truth].
        hierarchy: the label tree of the K classes.
        reading: what counts as right where several classes are true: each of them (``any``), or those without another
            true one below them in the tree (``most_specific``), since under ``any`` the vaguest true label is as good an
            answer as the most precise one. The severity of a mistake is the least cost to one that counts.

    Returns:
        images, without_truth, undetermined: counts of scored images, of those without a true class, and of the others whose
        decision is neither right nor wrong, for its class is masked, or true with a masked one below it; the latter are
        left out. masked: what they can do at most to `top1_error` and `hierarchical_distance_at_1` over all images with a
        true class, [least, largest] (``most_specific`` only). top1_error: share of wrong decisions;
        mistake_severity: mean cost over the mistakes only, None without any; hierarchical_distance_at_1, _5, _20: mean
        over images of the mean cost of the first k classes (Bertinetto et al., CVPR 2020), of which the first is
        top1_error x mistake_severity; severity_mean, _median, _lower_quartile, _upper_quartile, _min, _max, _skewness
        over all images; severity_percent: 100 x mean / largest cost; levels: severity -> number of images. Costs have
        the unit of `cost`; for ``lca_height`` that is levels of the tree.

    Raises:
        SeverityError: shapes or types that do not fit, a ranking that does not rank, no image with a true class.
    """
    if arguments.name(reading, "A reading") not in READINGS:
        raise SeverityError(f"Unknown reading {reading!r}. {nearest(reading, READINGS)}")
    tree = arguments.hierarchy(hierarchy)
    ranked = arguments.ranking(ranking, tree)
    labels, matrix = arguments.truth(truth, tree, rows=len(ranked)), arguments.cost(cost, tree)
    specific = reading == "most_specific"
    metrics = class_metrics.single_decision(
        ranking=ranked,
        truth=most_specific(labels == 1, tree) if specific else labels == 1,
        cost=matrix,
        unknown=undetermined(labels, tree, specific=specific),
    )
    if not specific:
        return metrics
    return metrics | {"masked": masked.bounds(decided=ranked[:, 0], labels=labels, cost=matrix, hierarchy=tree)}


def loss(name: str, *, hierarchy: Hierarchy, cost: ArrayLike | None = None, **params: Any) -> "Link":
    """Build a loss; this imports torch (``pip install severity[train]``).

    Args:
        name: a file of severity/losses, such as ``ce``, ``bce``, ``hxe`` or ``soft_labels``.
        hierarchy: the label tree of the K classes.
        cost: (K, K) cost[decision, truth], for the losses that aim at a cost; None: ``lca_height``.
        params: the loss's own numbers, as ``losses.<name>`` in params.yaml, for instance ``alpha=0.1`` of ``hxe``. One
            that is not given is the default of the loss's class.

    Returns:
        A torch module, called as ``loss(logits=(B, outputs), targets=(B, K))``, which gives the mean over the images;
        targets are 1, 0, or NaN = masked. ``loss.outputs`` is how many logits the network must give;
        ``loss.posterior(logits)`` is (B, K), the share of the most specific truth that each class has, and
        ``loss.nodes(logits)`` (B, n), the probability that each node of the tree is present.

    Raises:
        SeverityError: an unknown loss; a number that it does not know, or that is out of range; an invalid cost matrix.
        ModuleNotFoundError: torch is not installed.
    """
    tree = arguments.hierarchy(hierarchy)
    matrix = costs.lca_height(tree) if cost is None else arguments.cost(cost, tree)
    losses = _extra("severity.losses", "A loss", "train")
    if arguments.name(name, "A loss") in losses.names():
        _extra("severity.core.params", "A loss", "train").check_loss(name, params)
    return losses.build(name, hierarchy=tree, cost=matrix, **params)


def load(run_folder: str | os.PathLike) -> "Model":
    """Load a trained network and its loss from the folder of a run; this imports torch and timm.

    Args:
        run_folder: a folder data/models/<run>, as the stage `train` writes it.

    Returns:
        `network`, for (B, 1, H, W) floats in [0, 1], on the CPU and in evaluation mode; `loss`, whose ``posterior`` and
        ``nodes`` turn its logits into (B, K) and (B, n) probabilities; `hierarchy`; `size` = (H, W); `record`, what it was
        trained with.

    Raises:
        SeverityError: a file is missing, belongs to another run, or names a backbone or a loss that no longer exists.
        ModuleNotFoundError: torch, torchvision, timm or safetensors is not installed.
    """
    return _extra("severity.networks.models", "A trained network", "train").read(run_folder)


def _is_path(name: str | Path, suffixes: tuple[str, ...]) -> bool:
    """Whether a name is one of a file: a path, or text with a folder or one of the suffixes."""
    return not isinstance(name, str) or name.endswith(suffixes) or os.sep in name or "/" in name


def _hierarchies() -> Path:
    """The folder of the trees that come with the project: inside the installed package, else in the checkout."""
    installed = PACKAGE / "hierarchies"
    return installed if installed.is_dir() else PACKAGE.parent / "data" / "hierarchies"


def _extra(module: str, what: str, extra: str) -> ModuleType:
    """A module that needs packages beyond those of scoring."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{what} needs the package {error.name!r}, which is not installed: pip install 'severity[{extra}]'.",
            name=error.name,
        ) from None

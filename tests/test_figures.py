import inspect
import itertools
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy
import pandas
import pytest
import yaml
from matplotlib.text import Text
from PIL import Image

from severity import losses
from severity.core import files
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.core.runs import Run
from severity.drawing import pictures
from severity.figures import catalogue
from severity.figures.images import curves, mistakes
from severity.figures.scores import batches, confusion, tradeoff
from severity.figures.scores import cost as cost_figure
from severity.figures.scores import levels as level_figure
from severity.figures.scores import tree as tree_figure
from severity.figures.shared import panels
from severity.figures.shared import trees as tree_rows
from severity.figures.shared.study import ImageStudy, ScoreStudy
from severity.metrics import catalogue as metrics_catalogue
from severity.summary import configurations
from severity.tree import costs
from stages import illustrate, plot
from tests import records
from tests.trees import TOP

TREE = {
    "Finding": None,
    "No Finding": "Finding",
    "Enlarged Cardiomediastinum": "Finding",
    "Cardiomegaly": "Enlarged Cardiomediastinum",
    "Lung Opacity": "Finding",
    "Edema": "Lung Opacity",
    "Consolidation": "Lung Opacity",
    "Pneumonia": "Consolidation",
    "Lung Lesion": "Lung Opacity",
    "Atelectasis": "Lung Opacity",
    "Pleural disease of any kind": "Finding",
    "Pneumothorax": "Pleural disease of any kind",
    "Pleural Effusion": "Pleural disease of any kind",
    "Pleural Other": "Pleural disease of any kind",
    "Fracture": "Finding",
    "Support Devices": "Finding",
}
CLASSES = [name for name in TREE if name not in ("Finding", "Pleural disease of any kind")]
SCORES, IMAGES = (tuple(catalogue.of_stage(stage)) for stage in ("plot", "illustrate"))
NAMES = (*SCORES, *IMAGES)
KINDS = ("png", "svg", "csv", "caption.txt")
RULES = ("argmax", "crm")
OPTIONS = {"configuration": "best", "configurations_shown": 12, "mistakes": 3, "labels": 30, "classes": 60}
BLUE = pictures.BLUE
MEASURE_NAMES = {
    "top1_error": "top1_error",
    "hd_at_1": "hierarchical_distance_at_1",
    "mistake_severity": "mistake_severity",
}
MEASURES = tuple(MEASURE_NAMES)


def draw_all(**given):
    """All figures: those of the scores and those that want images or networks."""
    drawn = {}
    for stage, study in (("plot", ScoreStudy), ("illustrate", ImageStudy)):
        wanted = inspect.signature(study).parameters
        drawn |= catalogue.draw(stage, study(**{name: value for name, value in given.items() if name in wanted}))
    return drawn


def label_tree():
    names = list(TREE)
    parents = [-1 if parent is None else names.index(parent) for parent in TREE.values()]
    return Hierarchy.from_parents(parents, [names.index(name) for name in CLASSES], CLASSES, names)


VALIDATION, TEST = 20, 70


def record_of(run, ids):
    """The record of one made-up run; of its test images none shows the last label, some show several."""
    known = len(CLASSES) - 1
    shown = numpy.eye(len(CLASSES))
    truth = shown[numpy.arange(VALIDATION + TEST) * 5 % known]  # The same for all runs.
    for row in range(VALIDATION, len(truth), 3):
        truth[row] = numpy.maximum(truth[row], shown[[2, 11]].max(axis=0))
    truth[0] = shown[-1]
    names = [*(f"validation{row}" for row in range(VALIDATION)), *ids]
    made = records.predict(run, label_tree(), truth=truth, validation=VALIDATION, ids=names)
    return records.of(made, label_tree(), costs.lca_height(label_tree()), rules=list(RULES), mistakes=3)


def comparisons_of(found, random):
    """Made-up intervals around what the runs have, in the form of metrics/comparisons; nothing is known of the last label."""
    medians = configurations.comparison(found, RULES)
    rows, of_labels, effects = [], [], []
    for row in medians.to_dict("records"):
        keys = {name: row[name] for name in ("backbone", "loss", "rule")}
        for name, metric in MEASURE_NAMES.items():
            value = row[name]
            bounds = {} if value is None else {"lower": 0.8 * value, "upper": 1.3 * value}
            rows.append(keys | {"metric": metric, "value": value, **bounds})
        for label in CLASSES[:-1]:
            low, high = sorted(random.uniform(0, 3, 2))
            bounds = {
                "severity_lower": low,
                "severity_upper": high,
                "auroc_lower": 0.4 + low / 10,
                "auroc_upper": 0.6 + high / 10,
            }
            of_labels.append(keys | {"label": label, **bounds})
    for backbone, loss, seeds in configurations.by_configuration(found):
        for rule in [rule for rule in seeds[0]["rules"] if rule != "argmax"]:
            for label in CLASSES:
                of = {
                    name: [run["rules"][name]["labels"][label]["severity"] for run in seeds]
                    for name in (rule, "argmax")
                }
                known = label != CLASSES[-1]
                difference = float(numpy.mean(of[rule]) - numpy.mean(of["argmax"])) if known else math.nan
                shown = known and abs(difference) > 0.02
                effects.append(
                    {"backbone": backbone, "loss": loss, "label": label, "A": rule, "B": "argmax", "seeds": len(seeds)}
                    | {"images": 5 * known, "patients": 3 * known, "difference": difference, "lower": difference - 0.2}
                    | {"upper": difference + 0.3, "p_holm": 0.01 if shown else 1.0}
                    | {"verdict": f"{'A' if difference < 0 else 'B'} milder" if shown else "no difference shown"}
                    | {"note": "" if known else "no image with this label"}
                )
    columns = ["backbone", "loss", "label", "A", "B", "verdict", "note", "images", "patients", "seeds", "difference"]
    return {
        "intervals": pandas.DataFrame(rows),
        "label_intervals": pandas.DataFrame(of_labels),
        "labels": pandas.DataFrame(effects, columns=[*columns, "lower", "upper", "p_holm"]),
    }


def history_of(run, random, epochs=5):
    auroc = random.uniform(0.5, 0.9, epochs)
    return pandas.DataFrame(
        {
            "backbone": run.backbone,
            "loss": run.loss,
            "seed": run.seed,
            "epoch": numpy.arange(1, epochs + 1),
            "learning_rate": 0.01,
            "train_loss": random.uniform(0.1, 1, epochs),
            "validation_loss": random.uniform(0.1, 1, epochs),
            "validation_macro_auroc": auroc,
            "best": (numpy.arange(epochs) == auroc.argmax()).astype(int),
        }
    )


def study_of(backbones=("mobilenetv3_small_050", "resnet10t"), losses=("bce", "hxe_multilabel", "ce"), seeds=(0, 1)):
    """All that `draw_all` wants, made up."""
    random = numpy.random.default_rng(0)
    ids = [f"train/patient{i:05d}/study1/view1_frontal_with_a_long_name" for i in range(70)]
    found = {Run(*run): record_of(Run(*run), ids) for run in itertools.product(backbones, losses, seeds)}
    example_ids = [*ids[: len(CLASSES) - 1], ""]
    return {
        "records": found,
        "histories": pandas.concat([history_of(run, random) for run in found]),
        "comparisons": comparisons_of(found, random),
        "level": 0.95,
        "images": random.integers(0, 256, (len(ids), 16, 16), dtype=numpy.uint8),
        "ids": ids,
        "examples": random.integers(0, 256, (len(CLASSES), 32, 32), dtype=numpy.uint8),
        "example_rows": pandas.DataFrame({"label": CLASSES, "id": example_ids}),
        "hierarchy": label_tree(),
        "cost": costs.lca_height(label_tree()),
    }


def without_numbers(study):
    """The same study, but no run has a validation AUROC, and none made a mistake under the second rule."""
    for record in study["records"].values():
        record["validation"]["macro_auroc"] = None
        record["rules"]["crm"] |= {"top1_error": 0.0, "mistake_severity": None, "least": [], "most": []}
        del record["calibration"]["posterior_ts"], record["calibration"]["labels_ts"]
    study["histories"]["validation_macro_auroc"] = math.nan
    for table in study["comparisons"].values():
        table.loc[table.get("metric", table.get("label")) == "mistake_severity", ["lower", "upper"]] = math.nan
    return study


@pytest.fixture(scope="module")
def study():
    return study_of()


@pytest.fixture(scope="module")
def drawn(study):
    return draw_all(**study, **OPTIONS)


@pytest.fixture(scope="module")
def drawn_of_one_run():
    return draw_all(**study_of(("a",), ("ce",), (0,)), **OPTIONS)


@pytest.fixture(scope="module")
def drawn_without_numbers():
    return draw_all(**without_numbers(study_of(losses=("bce", "ce"))), **(OPTIONS | {"configuration": "resnet10t-ce"}))


@pytest.fixture(scope="module")
def written(drawn, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plots")
    for name, picture in drawn.items():
        pictures.write(picture, folder / name)
    return folder


def drawn_points(axes):
    """All points of the lines in one panel, rounded so that they can be looked up."""
    return {
        tuple(numpy.round(point, 9))
        for line in axes.lines
        for point in zip(*numpy.asarray(line.get_data(), dtype=float), strict=True)
    }


def texts(figure):
    """Every piece of text that is really drawn."""
    found = []
    draw = Text.draw

    def recording(self, renderer, *args, **kwargs):
        if self.get_visible() and self.get_text().strip():
            found.append(self)
        return draw(self, renderer, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", recording)
        figure.draw_without_rendering()
    return found


def all_text(picture):
    return "\n".join(text.get_text() for text in texts(picture.figure))


def test_every_figure_is_a_picture_and_a_table(written):
    assert sorted(path.name for path in written.iterdir()) == sorted(
        f"{name}.{kind}" for name in NAMES for kind in KINDS
    )
    for name in NAMES:
        with Image.open(written / f"{name}.png") as image:
            assert image.format == "PNG" and min(image.size) >= 400
            assert len(numpy.unique(numpy.asarray(image.convert("L")))) > 10
            assert "Software" not in image.info


def test_the_same_data_give_the_same_bytes_whatever_the_settings_of_the_person(study, written, tmp_path):
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.bbox": "tight"}):
        for name, picture in draw_all(**study, **OPTIONS).items():
            pictures.write(picture, tmp_path / name)
    for path in written.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_pyplot_stays_unloaded():
    program = "import sys, severity.figures.scores.tradeoff; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# --- Text


@pytest.mark.parametrize("which", ["drawn", "drawn_of_one_run", "drawn_without_numbers"])
def test_text_stays_inside_and_does_not_overlap(which, request):
    for name, picture in request.getfixturevalue(which).items():
        whole = picture.figure.bbox
        boxes = [(text.get_text(), text.get_window_extent()) for text in texts(picture.figure)]
        assert boxes, name
        for text, box in boxes:
            assert whole.x0 <= box.x0 and box.x1 <= whole.x1, (name, text)
            assert whole.y0 <= box.y0 and box.y1 <= whole.y1, (name, text)
        for (text, box), (other, other_box) in itertools.combinations(boxes, 2):
            width = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
            height = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
            assert width <= 1 or height <= 1, (name, text, other)


@pytest.mark.parametrize("which", ["drawn", "drawn_of_one_run", "drawn_without_numbers"])
def test_data_stay_inside_their_panels(which, request):
    for name, picture in request.getfixturevalue(which).items():
        for axes in picture.figure.axes:
            data, view = axes.dataLim, axes.viewLim
            if numpy.isfinite(data.extents).all():
                assert view.xmin <= data.xmin and data.xmax <= view.xmax, name
                assert view.ymin <= data.ymin and data.ymax <= view.ymax, name


def test_what_does_not_exist_is_named(drawn_without_numbers):
    found = drawn_without_numbers
    # In each backbone's panel of mistake severity, and in the caption.
    assert all_text(found["tradeoff"]).replace("\n", " ").count("n/a: bce crm; ce crm") == 2
    assert "No mistake, so no mistake severity: mobilenetv3_small_050-bce crm, " in found["tradeoff"].caption
    assert all_text(found["labels"]).count("n/a") == 2
    assert "validation AUROC (macro): n/a" in all_text(found["curves"])
    assert all_text(found["mistakes"]).count("n/a: no mistakes") == 2
    assert "n/a: no positive image" in all_text(found["contact_sheet"])
    assert all_text(found["reliability"]).count("after: n/a, no temperature was fitted") == 2
    assert "Without temperature, because there are no validation images: resnet10t-ce-0" in found["reliability"].caption
    assert "Without a validation AUROC: mobilenetv3_small_050-bce" in found["curves"].caption
    assert "No mistake under crm." in found["mistakes"].caption
    for name in ("labels", "effects"):
        assert f"Without a positive test image: {CLASSES[-1]}." in found[name].caption
    assert f"Of no image the most specific truth: {CLASSES[-1]}." in found["confusion"].caption
    assert f"{CLASSES[-1]} (0)" in all_text(found["confusion"]) and "n/a: of no image" in all_text(found["confusion"])
    assert "n/a: no image with this label" in all_text(found["effects"])
    table = found["tradeoff"].table
    table = table[table["seed"].isna() & (table["runs"] > 0)]
    assert table["mistake_severity"].isna().tolist() == [False, True] * 4
    assert not table["mistake_severity_front"][table["rule"] == "crm"].any()


def test_one_run_is_told_from_several():
    for seeds, said in (((0,), "1 seed"), ((0, 1), "median of 2 seeds")):
        study = study_of(("resnet10t",), ("ce",), seeds)
        drawn = draw_all(**study, **OPTIONS)
        for name in ("labels", "batches"):
            assert said in drawn[name].caption, name
        for name in ("tradeoff", "levels", "labels", "effects", "ranking", "reliability", "batches"):
            assert ("One seed only" in drawn[name].caption) == (len(seeds) == 1), name
            assert ("one seed" in all_text(drawn[name])) == (len(seeds) > 1 and name != "batches"), name


@pytest.mark.parametrize("rules", [("argmax",), ("argmax", "crm", "hie")])
def test_any_number_of_rules(study, rules):
    found = {run: json.loads(json.dumps(record)) for run, record in study["records"].items() if run.loss == "ce"}
    for record in found.values():
        record["rules"] = {rule: record["rules"]["argmax"] for rule in rules}
    drawn = draw_all(
        **study | {"records": found, "comparisons": comparisons_of(found, numpy.random.default_rng(0))}, **OPTIONS
    )
    for name in ("tradeoff", "levels", "labels", "confusion", "ranking", "batches", "mistakes"):
        picture = drawn[name]
        said = all_text(picture)
        assert [rule for rule in ("argmax", "crm", "hie") if rule in said] == list(rules), name
    assert ("names no rule to compare" in all_text(drawn["effects"])) == (len(rules) == 1)
    assert drawn["effects"].table["A"].nunique() == len(rules) - 1


# --- Which runs are shown


def test_the_cell_is_the_best_on_validation_or_the_named_one(study):
    found = study["records"]
    assert configurations.choose(found, "best", "plot.configuration") == [
        found[Run(*configurations.best(found), seed)] for seed in (0, 1)
    ]
    assert configurations.choose(found, "resnet10t-ce", "plot.configuration") == [
        found[Run("resnet10t", "ce", seed)] for seed in (0, 1)
    ]
    with pytest.raises(SeverityError, match=r"plot\.configuration is 'resnet10-ce'\. Did you mean 'resnet10t-ce'\?"):
        configurations.choose(found, "resnet10-ce", "plot.configuration")


def test_the_mistakes_are_those_of_the_best_run_of_the_cell(study, drawn):
    best = max(
        configurations.choose(study["records"], "best", "plot.configuration"),
        key=lambda record: record["validation"]["macro_auroc"],
    )
    assert f"Least and most severe mistakes: {best['run']}" in all_text(drawn["mistakes"])


# --- The tables hold what is drawn


def test_pareto_front_against_brute_force():
    random = numpy.random.default_rng(1)
    for _ in range(200):
        x, y = random.integers(0, 6, (2, random.integers(1, 12))).astype(float)
        x[random.random(len(x)) < 0.1] = numpy.nan
        y[random.random(len(y)) < 0.1] = numpy.nan
        beaten = [
            any(x[j] <= x[i] and y[j] <= y[i] and (x[j] < x[i] or y[j] < y[i]) for j in range(len(x)))
            for i in range(len(x))
        ]
        expected = ~numpy.array(beaten) & ~numpy.isnan(x) & ~numpy.isnan(y)
        assert tradeoff.pareto_front(x, y).tolist() == expected.tolist(), (x, y)


def test_tradeoff(study, drawn, written):
    whole = pandas.read_csv(written / "tradeoff.csv")
    table = whole[whole["seed"].isna() & (whole["backbone"] != metrics_catalogue.NO_IMAGE)]
    columns = [measure + end for measure in MEASURES for end in ("", "_min", "_max")]
    given = configurations.comparison(study["records"], RULES)[["backbone", "loss", "rule", "runs", *columns]]
    for column in given.columns:
        if given[column].dtype == float:
            numpy.testing.assert_allclose(table[column], given[column], rtol=1e-9)
        else:
            assert table[column].tolist() == given[column].tolist()
    panels = numpy.array(drawn["tradeoff"].figure.axes).reshape(2, 2)
    for axes, measure in zip(panels[:, 0], ("hd_at_1", "mistake_severity"), strict=True):
        assert set(zip(given["top1_error"].round(9), given[measure].round(9), strict=True)) <= drawn_points(axes)
        front = tradeoff.pareto_front(given["top1_error"].to_numpy(), given[measure].to_numpy())
        assert table[f"{measure}_front"].tolist() == front.tolist()
        step = next(line for line in axes.lines if line.get_drawstyle() == "steps-post")
        assert len(step.get_xdata()) == front.sum()
    bounds = study["comparisons"]["intervals"].set_index(["backbone", "loss", "rule", "metric"])
    for row in table.to_dict("records"):
        for name, metric in MEASURE_NAMES.items():
            known = bounds.loc[(row["backbone"], row["loss"], row["rule"], metric)]
            assert [row[f"{name}_lower"], row[f"{name}_upper"]] == pytest.approx([known["lower"], known["upper"]])
    ends = {
        tuple(numpy.round(end, 9))
        for axes in panels.ravel()
        for lines in axes.collections
        for segment in lines.get_segments()
        for end in segment
    }
    for row in table.itertuples():
        assert {
            (round(row.top1_error_lower, 9), round(row.hd_at_1, 9)),
            (round(row.top1_error, 9), round(row.hd_at_1_upper, 9)),
        } <= {tuple(numpy.round(end, 8)) for end in ends} | ends
    seeds = whole[whole["seed"].notna()]
    assert len(seeds) == 2 * len(table)
    for row in seeds.itertuples():
        record = study["records"][Run(row.backbone, row.loss, row.seed)]["rules"][row.rule]
        assert [row.top1_error, row.mistake_severity] == pytest.approx(
            [record["top1_error"], record["mistake_severity"]]
        )
        column = list(dict.fromkeys(whole["backbone"])).index(row.backbone)
        assert (round(row.top1_error, 8), round(row.hd_at_1, 8)) in {
            (round(x, 8), round(y, 8)) for x, y in drawn_points(panels[0, column])
        }
        assert (numpy.diff(step.get_xdata()) >= 0).all() and (numpy.diff(step.get_ydata()) <= 0).all()


def test_labels(study, drawn, written):
    runs = configurations.choose(study["records"], "best", "plot.configuration")
    table = pandas.read_csv(written / "labels.csv")
    assert sorted(table["label"]) == sorted(CLASSES)
    known = table["severity_argmax"].dropna()
    assert known.is_monotonic_decreasing and table["severity_argmax"].isna().tolist() == [False] * 13 + [True]
    left, right = drawn["labels"].figure.axes
    for row in table.itertuples():
        for column, values in (
            ("severity_argmax", [run["rules"]["argmax"]["labels"][row.label]["severity"] for run in runs]),
            ("severity_crm", [run["rules"]["crm"]["labels"][row.label]["severity"] for run in runs]),
            ("auroc", [run["labels"][row.label]["auroc"] for run in runs]),
        ):
            if None in values:
                assert math.isnan(getattr(row, column))
                continue
            expected = [sum(values) / 2, min(values), max(values)]  # Two runs: the median is the mean.
            numpy.testing.assert_allclose(
                [getattr(row, f"{column}{end}") for end in ("", "_min", "_max")], expected, rtol=1e-9
            )
            lines = (left if column != "auroc" else right).lines
            line = next(
                line for line in lines if line.get_label() == column.removeprefix("severity_").replace("auroc", "AUROC")
            )
            assert line.get_xdata()[row.Index] == pytest.approx(expected[0])
            dots = [line.get_xdata()[row.Index] for line in lines if line.get_marker() == "."]
            for run, value in zip(runs, values, strict=True):
                assert getattr(row, f"{column}_seed_{run['seed']}") == pytest.approx(value)
                assert value in dots
            known = study["comparisons"]["label_intervals"].set_index(["backbone", "loss", "rule", "label"])
            kind, rule = ("auroc", "argmax") if column == "auroc" else column.split("_")
            bounds = known.loc[(runs[0]["backbone"], runs[0]["loss"], rule, row.label)]
            for end in ("lower", "upper"):
                assert getattr(row, f"{column}_{end}") == pytest.approx(bounds[f"{kind}_{end}"])
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names == [f"{row.label} (n = {row.positives})" for row in table.itertuples()]
    assert "positives" in table and left.yaxis_inverted()


def test_labels_beyond_the_limit_are_left_out(study, drawn):
    few = draw_all(**study, **(OPTIONS | {"labels": 5}))
    pandas.testing.assert_frame_equal(few["labels"].table, drawn["labels"].table.head(5))
    assert few["effects"].table["label"].tolist() == few["labels"].table["label"].tolist()
    for name in ("labels", "effects"):
        assert "the 5 most severe labels, 9 of 14 left out" in all_text(few[name]).replace("\n", " ")
        assert "the 5 most severe labels, 9 of 14 left out" in few[name].caption


def test_batches(study, drawn, written):
    runs = configurations.choose(study["records"], "best", "plot.configuration")
    table = pandas.read_csv(written / "batches.csv")
    for axes, rule in zip(drawn["batches"].figure.axes, RULES, strict=True):
        rows = table[table["rule"] == rule]
        assert rows["batch"].tolist() == [1, 2, 3, 4, 5]
        for column, key in (("mean", "means"), ("median", "medians")):
            values = numpy.array([run["rules"][rule]["batches"][key] for run in runs])
            numpy.testing.assert_allclose(rows[column], values.mean(axis=0), rtol=1e-9)  # Two runs.
            numpy.testing.assert_allclose(rows[f"{column}_min"], values.min(axis=0), rtol=1e-9)
            numpy.testing.assert_allclose(rows[f"{column}_max"], values.max(axis=0), rtol=1e-9)
            assert set(zip(rows["batch"], values.mean(axis=0).round(9), strict=True)) <= drawn_points(axes)
        heights = {line.get_ydata()[0] for line in axes.lines if len(line.get_xdata()) == 2}
        whole = [
            numpy.mean([run["rules"][rule]["severity_mean"] for run in runs]),
            numpy.mean([run["rules"][rule]["batches"]["median_of_medians"] for run in runs]),
        ]
        numpy.testing.assert_allclose(sorted(heights), sorted(whole))


def test_batches_of_a_later_panel_may_be_worse(study):
    records = json.loads(json.dumps(configurations.choose(study["records"], "best", "plot.configuration")))
    for record in records:
        record["rules"]["crm"]["batches"]["means"][2] = 50.0
    for axes in batches.draw_batches(records, colour=BLUE, facts="phantom").figure.axes:
        assert axes.get_ylim()[0] < 0 and axes.get_ylim()[1] > 50


def test_batches_of_different_cuts_are_refused(study):
    first, second = configurations.choose(study["records"], "best", "plot.configuration")
    other = json.loads(json.dumps(second))
    other["rules"]["crm"]["batches"]["size"] = 8
    with pytest.raises(SeverityError, match="not cut into the same batches"):
        batches.draw_batches([first, other], colour=BLUE, facts="phantom")


def test_curves(study, drawn, written):
    table = pandas.read_csv(written / "curves.csv")
    given = study["histories"].reset_index(drop=True)[table.columns]
    pandas.testing.assert_frame_equal(table, given, rtol=1e-9)
    points = set().union(*map(drawn_points, drawn["curves"].figure.axes))
    for curve in ("train_loss", "validation_loss", "validation_macro_auroc"):
        assert set(zip(given["epoch"], given[curve].round(9), strict=True)) <= points
    stars = {
        (line.get_xdata().item(), line.get_ydata().item())
        for axes in drawn["curves"].figure.axes
        for line in axes.lines
        if line.get_marker() == "*"
    }
    best = given[given["best"] == 1]
    assert stars == {
        *zip(best["epoch"], best["validation_loss"], strict=True),
        *zip(best["epoch"], best["validation_macro_auroc"], strict=True),
    }


def test_curves_of_many_cells_and_of_one_epoch():
    study = study_of([f"backbone{i}" for i in range(9)], ("bce", "ce", "hxe"), (0,))
    first = study["histories"].query("epoch == 1").assign(best=1)
    picture = curves.draw_curves(first, list(by_configuration(study)), facts="phantom")
    width, height = picture.figure.get_size_inches()
    assert 0.5 < width / height < 2
    assert all(line.get_marker() != "" for axes in picture.figure.axes for line in axes.lines)  # Lines have no length.
    titles = [axes.get_title().replace("\n", "") for axes in picture.figure.axes if axes.get_title()]
    assert titles == [f"backbone{i}-{loss}" for i in range(9) for loss in ("bce", "ce", "hxe")]


def test_mistakes(study):
    record = study["records"][Run("resnet10t", "bce", 1)]
    picture = mistakes.draw_mistakes(record, study["images"], study["ids"], count=3, facts="phantom")
    panels = numpy.array(picture.figure.axes).reshape(4, 3)
    rows = picture.table.set_index(["rule", "end", "place"])
    for i, (rule, end) in enumerate(itertools.product(RULES, ("least", "most"))):
        for place, each in enumerate(record["rules"][rule][end]):
            axes, row = panels[i, place], rows.loc[rule, end, place + 1]
            image = study["images"][study["ids"].index(each["id"])]
            numpy.testing.assert_array_equal(axes.images[0].get_array(), image)
            assert (row["id"], row["decision"], row["severity"]) == (each["id"], each["decision"], each["severity"])
            assert row["truth"] == "; ".join(each["truth"])
            caption = axes.get_xlabel().replace("\xa0", " ").replace("\n", " ")
            assert caption == (
                f"truth: {', '.join(each['truth'])} decision: {each['decision']} severity: {each['severity']:g}"
            )


def test_mistakes_of_an_unknown_image_are_refused(study):
    record = study["records"][Run("resnet10t", "bce", 1)]
    with pytest.raises(SeverityError, match=r"not in data/prepared/table\.csv"):
        mistakes.draw_mistakes(record, study["images"], ["other"], count=3, facts="phantom")


def test_tree(study, drawn, written):
    hierarchy = label_tree()
    table = pandas.read_csv(written / "tree.csv", keep_default_na=False).set_index("node")
    assert table.index.tolist() == list(hierarchy.names)
    leaves = table[table["height"] == 0].sort_values("row")
    assert leaves["row"].tolist() == list(range(len(CLASSES)))
    assert leaves["label"].tolist() == CLASSES  # This tree's class order needs no crossing lines.
    of_cell = configurations.choose(study["records"], "best", "plot.configuration")[0]["labels"]
    assert leaves["positives"].tolist() == [str(of_cell[label]["positives"]) for label in CLASSES]
    for node, row in table.iterrows():
        children = table[table["parent"] == node]
        if len(children):
            assert row["row"] == (children["row"].min() + children["row"].max()) / 2
            assert row["height"] == 1 + children["height"].max()
    written_texts = {text.get_text() for text in texts(drawn["tree"].figure)}
    assert {f"{label} (n = {of_cell[label]['positives']:,})" for label in CLASSES} <= written_texts
    assert "Consolidation\xa0(1)" in written_texts
    dots = [line for line in drawn["tree"].figure.axes[0].lines if line.get_marker() in "os"]
    assert sorted(line.get_ydata().item() for line in dots) == sorted(table["row"])


def test_contact_sheet(study, drawn, written):
    table = pandas.read_csv(written / "contact_sheet.csv", keep_default_na=False)
    pandas.testing.assert_frame_equal(table, study["example_rows"])
    panels = drawn["contact_sheet"].figure.axes
    for k, label in enumerate(CLASSES[:-1]):
        assert panels[k].get_title() == label
        numpy.testing.assert_array_equal(panels[k].images[0].get_array(), study["examples"][k])
    assert not panels[len(CLASSES) - 1].images


def test_cost_rows_are_decisions(tmp_path):
    cost = numpy.array([[0, 1, 2.5], [4, 0, 6], [7, 8, 0]])
    picture = cost_figure.draw_cost(cost, ["a", "b", "c"], limit=3, facts="phantom")
    axes = picture.figure.axes[0]
    numbers = {text.get_position(): text.get_text() for text in axes.texts}
    assert {place: float(number) for place, number in numbers.items()} == {
        (truth, decision): cost[decision, truth] for decision in range(3) for truth in range(3)
    }
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("Decision", "Truth")
    pictures.write(picture, tmp_path / "cost")
    numpy.testing.assert_array_equal(costs.read(tmp_path / "cost.csv", ["a", "b", "c"]), cost)


def test_too_many_classes_are_said_not_drawn(study):
    found = draw_all(**study, **(OPTIONS | {"classes": 13}))
    for name, rows in (("tree", len(label_tree().names)), ("cost", 14)):
        assert "too many classes to draw: 14" in all_text(found[name])
        assert len(found[name].table) == rows
    assert len(found["contact_sheet"].table) == 13
    assert "the first of 14" in all_text(found["contact_sheet"])


# --- The figures of what runs say


def test_levels(study, drawn, written):
    table = pandas.read_csv(written / "levels.csv", dtype={"severity": str})
    assert dict.fromkeys(table["severity"]) == dict.fromkeys(["0", "1", "2", "3"])
    found, panels = study["records"], drawn["levels"].figure.axes
    place = {(seeds[0]["backbone"], seeds[0]["loss"]): number for number, seeds in enumerate(by_configuration(study))}
    for keys, rows in table.groupby(["backbone", "loss", "rule"], sort=False):
        axes = panels[place[keys[:2]]]
        heights = {round(bar.get_height(), 7) for bar in axes.patches}
        dots = {round(float(y), 7) for line in axes.lines for y in line.get_ydata()}
        for level, each in rows.groupby("severity"):
            shares = [found[Run(*keys[:2], seed)]["rules"][keys[2]]["levels"].get(level, 0) / 70 for seed in (0, 1)]
            assert each["share"].tolist() == pytest.approx([sum(shares) / 2, *shares])
            if level != "0":
                assert (
                    round(100 * sum(shares) / 2, 7) in heights and {round(100 * share, 7) for share in shares} <= dots
                )
            else:
                assert f"{keys[2]} {100 * sum(shares) / 2:.1f} %" in axes.get_title().replace("\n", " ")


def test_many_severities_are_drawn_in_bins_that_lose_no_image(study):
    found = {run: json.loads(json.dumps(record)) for run, record in study["records"].items() if run.loss == "ce"}
    for record in found.values():
        for rule in RULES:
            record["rules"][rule]["levels"] = {"0": 40, **{f"{0.37 * step:g}": 1 for step in range(1, 31)}}
    picture = level_figure.draw_levels(found, limit=12, facts="phantom")
    names = list(dict.fromkeys(picture.table["severity"]))
    assert names[0] == "0" and len(names) == 1 + level_figure.BINS and names[-1].endswith("to 11.1")
    shares = picture.table.groupby(["backbone", "rule", "seed"], dropna=False)["share"]
    assert shares.sum().to_numpy() == pytest.approx(1)
    assert set(picture.table["share"].round(9)) == {round(40 / 70, 9), round(3 / 70, 9)}
    assert "in 10 bins of equal width" in picture.caption


def test_effects(study, drawn, written):
    runs = configurations.choose(study["records"], "best", "plot.configuration")
    table = pandas.read_csv(written / "effects.csv")
    axes = drawn["effects"].figure.axes[0]
    given = study["comparisons"]["labels"]
    given = given[(given["backbone"] == runs[0]["backbone"]) & (given["loss"] == runs[0]["loss"])].set_index("label")
    assert table["label"].tolist() == drawn["labels"].table["label"].tolist()
    assert {"no difference shown"} < set(table["verdict"])
    points = {marker: {} for marker in ("white", "filled", ".")}
    for line in axes.lines[1:]:
        kind = "." if line.get_marker() == "." else "white" if line.get_markerfacecolor() == "white" else "filled"
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True):
            if not math.isnan(x):
                points[kind].setdefault(round(float(y)), set()).add(round(float(x), 7))
    said = {text.get_position()[1]: text.get_text() for text in axes.texts}
    for row in table.itertuples():
        wanted = given.loc[row.label]
        if math.isnan(row.difference):
            assert said[row.Index] == "n/a: no image with this label"
            continue
        assert [row.difference, row.lower, row.upper] == pytest.approx(
            wanted[["difference", "lower", "upper"]].tolist()
        )
        shown = row.verdict != "no difference shown"
        assert points["filled" if shown else "white"][row.Index] == {round(wanted["difference"], 7)}
        assert said.get(row.Index) == ((f"{row.A if row.difference < 0 else row.B} milder") if shown else None)
        seeds = [run["rules"]["crm"]["labels"][row.label]["severity"] for run in runs]
        seeds = [
            each - run["rules"]["argmax"]["labels"][row.label]["severity"]
            for each, run in zip(seeds, runs, strict=True)
        ]
        assert [row.seed_0, row.seed_1] == pytest.approx(seeds)
        assert points["."][row.Index] == {round(each, 7) for each in seeds}
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [f"{row.label} (n = {row.images}; {row.patients} patients)" for row in table.itertuples()]


def test_confusion(study, drawn, written):
    runs = configurations.choose(study["records"], "best", "plot.configuration")
    hierarchy, cost = study["hierarchy"], study["cost"]
    table = pandas.read_csv(written / "confusion.csv")
    order = tree_rows.tree_order(hierarchy)
    names = [CLASSES[k] for k in order]
    panels, shown_in_panels = drawn["confusion"].figure.axes[:2], []
    for axes, rule in zip(panels, RULES, strict=True):
        rows = table[table["rule"] == rule]
        assert rows["images"].sum() == pytest.approx(70, rel=1e-5)
        shown = axes.images[0].get_array().filled(0)
        assert numpy.count_nonzero(shown) == len(rows)
        for row in rows.itertuples():
            truth, decision = names.index(row.truth), names.index(row.decision)
            images = sum(run["rules"][rule]["confusion"][row.truth].get(row.decision, 0) for run in runs) / len(runs)
            assert (
                row.images == pytest.approx(images)
                and row.cost == cost[CLASSES.index(row.decision), CLASSES.index(row.truth)]
            )
            assert shown[decision, truth] == pytest.approx(row.share)
            assert row.share == pytest.approx(images / rows.loc[rows["truth"] == row.truth, "images"].sum())
        totals = rows.groupby("truth")["images"].sum()
        known = [label.get_text().rpartition(" (") for label in axes.get_xticklabels()]
        assert [name for name, _, _ in known] == names
        columns = [float(count.strip(")")) for _, _, count in known]
        assert columns == pytest.approx([totals.get(name, 0) for name in names], abs=0.06)
        assert any(count % 1 for count in columns)  # Some images show several labels.
        shown_in_panels.append(columns)
        assert axes.get_xlabel() == "Truth (n)"
    assert shown_in_panels[0] == shown_in_panels[1]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == names
    assert panels[0].get_ylabel() == "Decision"


def test_contours_are_the_edges_between_different_costs():
    random = numpy.random.default_rng(0)
    for _ in range(50):
        levels = random.integers(0, 3, (5, 5))
        found = set()
        for (x0, y0), (x1, y1) in confusion._contours(levels):
            assert (x0 == x1) != (y0 == y1)
            steps = int(abs(x1 - x0) + abs(y1 - y0))
            for step in range(steps):  # The cells on both sides of each piece of the line.
                if y0 == y1:
                    found.add(
                        ((int(y0 - 0.5), int(min(x0, x1) + 0.5) + step), (int(y0 + 0.5), int(min(x0, x1) + 0.5) + step))
                    )
                else:
                    found.add(
                        ((int(min(y0, y1) + 0.5) + step, int(x0 - 0.5)), (int(min(y0, y1) + 0.5) + step, int(x0 + 0.5)))
                    )
        cells_of = numpy.ndindex(5, 5)
        pairs = [((r, c), other) for r, c in cells_of for other in ((r + 1, c), (r, c + 1)) if max(other) < 5]
        assert found == {(one, other) for one, other in pairs if levels[one] != levels[other]}


def test_of_many_costs_bands_have_contours():
    cost = numpy.array([[0, 1, 2.9], [4.1, 0, 6], [7.9, 8, 0]])
    levels, told = confusion._levels(cost)
    assert told == "above 0, from 2, 4, 6 on"
    assert levels.tolist() == [[0, 1, 2], [3, 0, 4], [4, 4, 0]]
    levels, told = confusion._levels(costs.lca_height(label_tree()))
    assert told == "levels 0, 1, 2, 3" and levels.max() == 3


def test_classes_beyond_the_limit_are_shown_by_groups(study):
    few = draw_all(**study, **(OPTIONS | {"classes": 13}))["confusion"]
    hierarchy = study["hierarchy"]
    groups = [hierarchy.names[node] for node in hierarchy.children[hierarchy.root]]
    axes = few.figure.axes[0]
    assert {label.get_text() for label in axes.get_yticklabels()} == set(groups)
    totals = [float(label.get_text().rpartition("(")[2].strip(")")) for label in axes.get_xticklabels()]
    assert sum(totals) == pytest.approx(70, abs=0.1 * len(totals))
    assert "14 classes, more than plot.classes = 13, are named in the table only" in few.caption


def test_labels_are_not_written_over_one_another():
    assert confusion._legible([0, 1, 2, 3, 10], 2) == [0, 2, 4]
    assert confusion._legible(range(14), 0.5) == list(range(14))
    points = {"rule": ["a", "b", "c"], "top1_error": [0.5, 0.6, 0.7], "hd_at_1": [1.02, 1.0, 2.0]}
    found = tradeoff._labels(pandas.DataFrame(points), "hd_at_1", apart=0.05)
    assert found == [("b, a", 0.6, 1.0), ("c", 0.7, 2.0)]


def test_severities_have_as_few_digits_as_keep_them_apart():
    assert level_figure._distinct([0, 1 / 14, 2 / 14]) == ["0", "0.0714", "0.143"]
    assert level_figure._distinct([1.0001, 1.0002]) == ["1.0001", "1.0002"]


def test_the_tree_names_its_axis_a_cost_only_where_it_is_the_studys(study):
    for unit, said in (("lca_height", "costs that"), ("path", "costs what path says, not this height")):
        given = {"limit": 60, "facts": "made up", "unit": unit}
        assert said in tree_figure.draw_tree(study["hierarchy"], {}, **given).caption


def test_ties_at_the_end_of_the_mistakes_are_counted(study):
    record = next(iter(study["records"].values()))
    picture = mistakes.draw_mistakes(record, study["images"], study["ids"], count=1, facts="made up")
    decision = record["rules"]["argmax"]
    severity = decision["most"][0]["severity"]
    many = decision["levels"][f"{severity:g}"]
    assert many > 1 and f"most severe by argmax: {many} of severity {severity:g}" in picture.caption


def test_groups_of_the_tree_stand_together_whatever_the_order_of_the_classes():
    names = ["root", "one", "two", "a", "b", "c", "d"]
    tree = Hierarchy.from_parents([-1, 0, 0, 1, 2, 1, 2], [3, 4, 5, 6], ["a", "b", "c", "d"], names)
    order = tree_rows.tree_order(tree)
    assert [tree.classes[k] for k in order] == ["a", "c", "b", "d"]
    assert confusion._groups(tree, order) == [("one", 0, 1), ("two", 2, 3)]


def test_ranking(study, drawn, written):
    table = pandas.read_csv(written / "ranking.csv")
    for number, seeds in enumerate(by_configuration(study)):
        rows = table[(table["backbone"] == seeds[0]["backbone"]) & (table["loss"] == seeds[0]["loss"])]
        points = {(x, round(y, 7)) for x, y in drawn_points(drawn["ranking"].figure.axes[number])}
        for order in ("oracle", "random", *RULES):
            curve = rows[(rows["order"] == order) & rows["seed"].isna()]
            assert curve["k"].tolist() == list(range(1, 15))
            assert {(row.k, round(row.distance, 7)) for row in curve.itertuples()} <= points
            if order in RULES:
                of_seeds = numpy.array([run["rules"][order]["distance_curve"] for run in seeds])
                numpy.testing.assert_allclose(curve["distance"], of_seeds.mean(axis=0))  # Two runs.
                numpy.testing.assert_allclose(curve["min"], of_seeds.min(axis=0))
                numpy.testing.assert_allclose(curve["max"], of_seeds.max(axis=0))
        best = rows[rows["order"] == "oracle"]["distance"]
        assert best.tolist() == seeds[0]["best_distance_curve"]
        assert set(rows[rows["order"] == "random"]["distance"]) == {best.iloc[-1]}
        for row in rows[rows["seed"].notna()].itertuples():
            run = seeds[[each["seed"] for each in seeds].index(row.seed)]
            assert row.distance == pytest.approx(run["rules"][row.order]["distance_curve"][row.k - 1])
            assert (row.k, round(row.distance, 7)) in points


def test_reliability(study, drawn, written):
    runs = configurations.choose(study["records"], "best", "plot.configuration")
    table = pandas.read_csv(written / "reliability.csv")
    for column, kind in enumerate(("posterior", "labels")):
        upper, lower = drawn["reliability"].figure.axes[column], drawn["reliability"].figure.axes[2 + column]
        legend = [text.get_text() for text in lower.get_legend().get_texts()]
        for when, suffix in (("before", ""), ("after", "_ts")):
            sections = [run["calibration"][kind + suffix] for run in runs]
            low, high = sorted(section["ece"] for section in sections)
            coldest, hottest = sorted(section["temperature"] for section in sections)
            ece, temperature = (low + high) / 2, (coldest + hottest) / 2  # Two runs: the median is the mean.
            shown = f"{when}: ECE {ece:.3f} ({low:.3f} to {high:.3f}), T {temperature:.3f}"
            assert any(entry.startswith(shown) for entry in legend)
            rows = table[(table["probabilities"] == kind) & (table["when"] == when)]
            pooled = rows[rows["seed"].isna()]
            assert pooled["n"].sum() == 140 * (len(CLASSES) if kind == "labels" else 1)
            for row in pooled.itertuples():
                n = [section["bins"]["n"][row.bin - 1] for section in sections]
                right = [section["bins"]["right"][row.bin - 1] or 0 for section in sections]
                assert row.n == sum(n)
                assert row.right == pytest.approx(sum(a * b for a, b in zip(n, right, strict=True)) / sum(n))
                for axes, value in ((upper, row.right), (lower, row.n)):
                    assert any(point == pytest.approx((row.confidence, value)) for point in drawn_points(axes))
            for row in rows[rows["seed"].notna()].itertuples():
                bins = runs[[run["seed"] for run in runs].index(row.seed)]["calibration"][kind + suffix]["bins"]
                place = row.bin - 1
                assert [row.n, row.confidence, row.right] == pytest.approx([bins[name][place] for name in bins])


def test_of_many_cells_the_best_on_validation_are_shown_and_the_others_counted(study):
    found = study["records"]
    medians = {
        cell: numpy.median([run["validation"]["macro_auroc"] for run in seeds])
        for cell, seeds in zip(
            ["-".join(keys) for keys in dict.fromkeys((run.backbone, run.loss) for run in found)],
            by_configuration(study),
            strict=True,
        )
    }
    best = set(sorted(medians, key=medians.get, reverse=True)[:4])
    shown = [configurations.name(seeds[0]) for seeds in panels.shown_configurations(found, 4)]
    assert shown == [cell for cell in medians if cell in best]
    drawn = draw_all(**study, **(OPTIONS | {"configurations_shown": 4}))
    for name in ("levels", "ranking", "curves"):
        table = drawn[name].table
        assert list(dict.fromkeys(table["backbone"] + "-" + table["loss"])) == shown
        assert "Left out: 2 of 6 backbones and losses" in drawn[name].caption
        assert "Left out: 2 of 6 backbones and losses" in all_text(drawn[name]).replace("\n", " ")
    without = {run: record | {"validation": None} for run, record in found.items() if run.backbone != "resnet10t"}
    known = {run: record for run, record in found.items() if run.backbone == "resnet10t"}
    assert panels.shown_configurations(without | known, 3) == [
        seeds for _, _, seeds in configurations.by_configuration(known)
    ]


# --- Colours and captions


def test_losses_and_rules_look_different_in_grey_and_alike_in_every_study():
    looks = pictures.loss_looks([*losses.names(), "of_my_own", "another"])
    for one, other in itertools.combinations(looks.values(), 2):
        apart = abs(pictures.luminance(one["color"]) - pictures.luminance(other["color"]))
        assert one["color"] != other["color"] or one["linestyle"] != other["linestyle"]
        assert apart > 0.1 or (one["linestyle"], one["fillstyle"]) != (other["linestyle"], other["fillstyle"])
    few = pictures.loss_looks(["haframe", "hxe", "ce"])
    assert few["hxe"] == looks["hxe"] and few["ce"] == looks["ce"] and few["haframe"] not in (few["hxe"], few["ce"])
    assert (
        len({look["color"] for look in pictures.loss_looks(["hbce", "hxe", "bce", "a", "b", "c", "d"]).values()}) == 7
    )
    rules = pictures.rule_looks([*pictures.RULES, "of_my_own"])
    assert len({look["marker"] for look in rules.values()}) == len(rules)
    for few in (["argmax", "crm"], ["crm", "hie"], ["argmax", "crm", "hie", "top_down"]):
        marks = pictures.rule_looks(few)
        assert marks == {name: rules[name] for name in few}
        assert (
            len({look["hatch"] for look in marks.values()})
            == len({look["linestyle"] for look in marks.values()})
            == len(few)
        )


def test_a_loss_has_its_colour_in_every_figure(study, drawn):
    looks = pictures.loss_looks(run.loss for run in study["records"])
    best = looks[configurations.choose(study["records"], "best", "plot.configuration")[0]["loss"]]["color"]
    for name in ("labels", "effects", "reliability", "batches"):
        drawn_colours = {line.get_color() for axes in drawn[name].figure.axes for line in axes.lines}
        assert best in drawn_colours and not drawn_colours & {look["color"] for look in looks.values()} - {best}, name
    order = [seeds[0]["loss"] for seeds in by_configuration(study)]
    for axes, loss in zip(drawn["ranking"].figure.axes, order, strict=True):
        assert {line.get_color() for line in axes.lines} == {looks[loss]["color"], pictures.GREY, "black"}
    for axes, loss in zip(drawn["levels"].figure.axes, order, strict=True):
        edges = {tuple(bar.get_edgecolor()) for bar in axes.patches}
        assert edges == {matplotlib.colors.to_rgba(looks[loss]["color"])}


@pytest.mark.parametrize("which", ["drawn", "drawn_of_one_run", "drawn_without_numbers"])
def test_captions_are_sentences_that_say_of_how_much_and_where_from(which, request):
    for name, picture in request.getfixturevalue(which).items():
        assert picture.caption.endswith(".") and "\n" not in picture.caption and "  " not in picture.caption, name
        assert re.search(r"(metrics|data)/\w+", picture.caption), name
        if name not in ("curves", "tree", "contact_sheet", "cost"):
            assert "70 test images" in picture.caption, name


# --- The stage


def by_configuration(study):
    return [seeds for _, _, seeds in configurations.by_configuration(study["records"])]


def write_inputs(study):
    """The files that the stage reads, below the current folder."""
    axes = ("backbone", "loss", "seed")
    grid = {axis: list(dict.fromkeys(getattr(run, axis) for run in study["records"])) for axis in axes}
    params = yaml.safe_load((TOP / "params.yaml").read_text())
    params |= {"grid": grid, "plot": OPTIONS}
    params["backbones"] |= {name: {"model": name, "pretrained": False} for name in grid["backbone"]}
    params["evaluate"]["rules"] = list(RULES)
    with files.replacing("params.yaml") as path:
        path.write_text(yaml.safe_dump(params))
    for run, record in study["records"].items():
        files.write_json(f"metrics/runs/{run.name}.json", record)
        rows = study["histories"].query(" and ".join(f"{axis} == {getattr(run, axis)!r}" for axis in axes))
        files.write_csv(f"data/models/{run.name}/history.csv", rows.drop(columns=list(axes)))
    for name, table in study["comparisons"].items():
        files.write_csv(f"metrics/comparisons/{name}.csv", table)
    study["hierarchy"].write("data/hierarchy/hierarchy.json")
    costs.write("data/cost/cost.csv", study["cost"], CLASSES)
    table = pandas.DataFrame(
        {"id": study["ids"], "patient": "p", "sex": "F", "age": 50.0, "view": "PA", "split": "test"}
    )
    files.write_csv("data/prepared/table.csv", table.assign(**dict.fromkeys(CLASSES, 0)))
    Path("data/images").mkdir()
    numpy.save("data/images/images.npy", study["images"])
    numpy.save("data/prepared/examples.npy", study["examples"])
    files.write_csv("data/prepared/examples.csv", study["example_rows"])
    counts = {"train": {"labels": dict.fromkeys(CLASSES, {})}}
    files.write_json("data/prepared/summary.json", {"images": len(study["ids"]), "counts": counts})
    files.write_json("data/images/summary.json", {"images": len(study["ids"]), "size": study["images"].shape[1]})


def test_the_stage_draws_the_runs_of_the_grid_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    study = study_of(("resnet10t",), ("ce",), (0, 1))
    write_inputs(study)
    files.write_json("metrics/runs/stray-ce-0.json", {})
    plot.main()
    assert capsys.readouterr().out == f"plots/scores: {', '.join(SCORES)}\n"
    illustrate.main()
    assert capsys.readouterr().out == f"plots/images: {', '.join(IMAGES)}\n"
    for name, picture in draw_all(**study, **OPTIONS).items():
        files.write_csv("expected.csv", picture.table)
        stem = f"plots/{'scores' if name in SCORES else 'images'}/{name}"
        assert Path(f"{stem}.csv").read_bytes() == Path("expected.csv").read_bytes(), name
        assert Path(f"{stem}.png").stat().st_size > 1000
        assert Path(f"{stem}.caption.txt").read_text() == picture.caption + "\n"


@pytest.mark.parametrize(
    "missing",
    ["metrics/runs/resnet10t-ce-1.json", "data/models/resnet10t-ce-0/history.csv", "metrics/comparisons/intervals.csv"],
)
def test_the_stage_names_what_is_missing(tmp_path, monkeypatch, missing):
    monkeypatch.chdir(tmp_path)
    write_inputs(study_of(("resnet10t",), ("ce",), (0, 1)))
    (tmp_path / missing).unlink()
    with pytest.raises(SeverityError, match=missing):
        plot.main()
        illustrate.main()

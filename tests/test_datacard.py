"""The data card: its numbers against counting one by one, its page, its figures, its stage."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy
import pandas
import pytest
from PIL import Image

from severity.collections.collection import BOX
from severity.collections.splits import SPLITS
from severity.core import documents, files, markdown, params, tables
from severity.core.columns import METADATA
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.datacard import datacard, duplicates
from severity.datacard import figures as datacard_figures
from severity.figures import catalogue
from severity.preparation import labelling
from severity.prepared import prepared
from stages import describe
from tests.test_figures import all_text, texts

NAN = float("nan")
LABELS = ("Edema", "Mass | nodule", "Opacity", "Fracture", "Hernia")
# Opacity stands above Edema and Mass | nodule.
TREE = Hierarchy.from_parents([-1, 0, 1, 1, 0, 0], [2, 3, 1, 4, 5], LABELS)
DESCRIBE = {"hash_distance": 10, "correlation": 0.985, "workers": 1}
POLICIES = {"uncertain": "smooth", "unmentioned": "ignore", "closure": True}
STEMS = ("labels", "cooccurrence", "ages", "near_duplicates")
FILES = {
    *(f"metrics/data/{name}" for name in ("card.json", "card.md", "page.json")),
    *(f"metrics/data/{name}.csv" for name in ("labels", "cooccurrence", "violations", "near_duplicates")),
    *(f"plots/data/{name}.{kind}" for name in STEMS for kind in ("png", "svg", "csv", "caption.txt")),
}


def states_of(images, labels, seed=0):
    """A made-up collection as its tables have it: all four states, both sexes and neither, ages known and unknown."""
    random = numpy.random.default_rng(seed)
    rows = numpy.arange(images)
    frame = pandas.DataFrame(
        {
            "id": [f"image{row:04d}" for row in rows],
            "patient": [f"p{row // 2:03d}" for row in rows],
            "sex": random.choice(["F", "M", ""], images, p=[0.5, 0.4, 0.1]),
            "age": numpy.where(random.random(images) < 0.1, NAN, random.integers(0, 95, images)),
            "view": random.choice(["PA", "AP", ""], images),
            "split": numpy.array(SPLITS)[numpy.searchsorted([0.6, 0.8], (rows // 2 * 37 % 100) / 100, side="right")],
        }
    )
    chosen = random.choice([1.0, 0.0, -1.0, NAN], (images, len(labels)), p=[0.3, 0.4, 0.1, 0.2])
    return pandas.concat([frame, pandas.DataFrame(chosen, columns=list(labels))], axis=1)


def pictures(count, size=16, seed=0):
    return numpy.random.default_rng(seed).integers(0, 256, (count, size, size), dtype=numpy.uint8)


def write_prepared(top, states, targets, labels, images, *, violations=(), boxes=(), notes=None):
    """The folders data/prepared and data/images below `top`."""
    data = top / "data/prepared"
    files.write_csv(data / "table.csv", targets[[*METADATA, *labels]])
    files.write_csv(data / "boxes.csv", pandas.DataFrame(list(boxes), columns=list(BOX)))
    summary = {
        "dataset": "tiny",
        "images": len(targets),
        "counts": labelling.counts(targets, labels),
        "states": labelling.states(states, labels),
        "violations": list(violations),
        "notes": notes or {},
        "facts": {},
    }
    files.write_json(data / "summary.json", summary)
    (top / "data/images").mkdir()
    numpy.save(top / "data/images/images.npy", images)
    decoded = {"images": len(images), "size": images.shape[1], "aspect": "squash", "unreadable": 2}
    files.write_json(top / "data/images/summary.json", decoded)


def write_tiny(top, images=120):
    """A prepared collection with everything: all policies at work, a near-duplicate, boxes, notes."""
    states = states_of(images, LABELS)
    targets, violations = labelling.apply(states, LABELS, TREE, **POLICIES)
    shown = pictures(images)
    first, second = (states.index[states["split"] == split][0] for split in ("train", "test"))
    shown[second] = shown[first]
    boxes = [("image0000", "Hernia", 0.1, 0.1, 0.5, 0.5), ("image0000", "Edema", 0.1, 0.1, 0.2, 0.2)]
    boxes.append(("image0003", "Edema", 0.3, 0.1, 0.9, 0.2))
    notes = {"ages above 120 years, taken as unknown": 16, "views": ["PA", "AP"], "by hand": "nothing"}
    write_prepared(top, states, targets, LABELS, shown, violations=violations, boxes=boxes, notes=notes)
    return states, targets


class Card:
    """All parts of the card of a folder."""

    def __init__(self, top):
        self.table = prepared.read_table(top / "data/prepared")
        self.summary = prepared.read_summary(top / "data/prepared")
        self.boxes = tables.read(top / "data/prepared/boxes.csv", BOX, BOX[2:], "")
        self.images = numpy.load(top / "data/images/images.npy", mmap_mode="r")
        self.found = duplicates.find(self.images, self.table.frame, **DESCRIBE)
        self.labels = datacard.label_table(self.summary)
        self.together = datacard.cooccurrence(self.table)
        self.violations = datacard.violations(self.summary)
        decoded = files.read_json(top / "data/images/summary.json")
        self.content = datacard.card(self.table, self.summary, decoded, self.boxes, self.found)

    def page(self):
        return datacard.page(self.content, self.violations, self.found.pairs).markdown()

    def drawn(self):
        card = datacard_figures.Card(self.table, self.labels, self.together, self.found, self.images, "tiny")
        return catalogue.draw("describe", card)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The states, the targets and the card of the tiny collection."""
    top = tmp_path_factory.mktemp("tiny")
    states, targets = write_tiny(top)
    return states, targets, Card(top)


@pytest.fixture(scope="module")
def drawn(tiny):
    return tiny[2].drawn()


def one_hot(top, images=90, labels=30):
    """A collection that tells nothing of its patients, each image of one class; the last class has no image."""
    names = [f"{number:04d}-{number % 7}00-500-000" for number in range(labels)]
    states = states_of(images, names).assign(sex="", age=NAN, view="")
    states[names] = numpy.eye(labels)[numpy.arange(images) % (labels - 1)]
    write_prepared(top, states, states, names, pictures(images))
    return Card(top)


# --- Numbers


def test_labels_against_counting(tiny):
    states, targets, card = tiny
    rows = card.labels.set_index(["split", "label"])
    assert len(rows) == len(SPLITS) * len(LABELS)
    for split, label in itertools.product(SPLITS, LABELS):
        state, target = (frame.loc[frame["split"] == split, label].tolist() for frame in (states, targets))
        row = rows.loc[split, label]
        assert row["state_positive"] == state.count(1) and row["state_negative"] == state.count(0)
        assert row["state_uncertain"] == state.count(-1)
        assert row["state_blank"] == sum(value != value for value in state)
        assert row["target_positives"] == target.count(1) and row["target_negatives"] == target.count(0)
        assert row["target_soft"] == sum(0 < value < 1 for value in target)
        assert row["target_masked"] == sum(value != value for value in target)
        assert row.filter(like="state_").sum() == row.filter(like="target_").sum() == len(state)
        assert row["prevalence"] == target.count(1) / (target.count(1) + target.count(0))
    assert rows["target_soft"].sum() > 0 and rows["target_masked"].sum() > 0  # else nothing was tested of these


def test_no_prevalence_where_all_is_masked(tmp_path):
    states = states_of(60, LABELS)
    targets = states.assign(Edema=NAN, Hernia=0.5).replace(-1.0, NAN)
    write_prepared(tmp_path, states, targets, LABELS, pictures(60))
    card = Card(tmp_path)
    assert card.labels.loc[card.labels["label"].isin(["Edema", "Hernia"]), "prevalence"].isna().all()
    assert card.content["labels"]["test"]["Hernia"]["prevalence"] is None
    assert re.search(r"\| Hernia .* n/a \|", card.page())
    soft = card.together.query("label == 'Hernia' or other == 'Edema'")  # A soft target is not positive.
    assert len(soft) == 2 and not soft["all"].any()


def test_cooccurrence_obeys_its_laws_and_counting(tiny):
    _, targets, card = tiny
    table = card.together.set_index(["label", "other"])
    assert len(table) == len(LABELS) ** 2
    assert (table["all"] == table[list(SPLITS)].sum(axis=1)).all()
    positives = card.labels.set_index(["split", "label"])["target_positives"]
    for one, other in itertools.product(LABELS, LABELS):
        assert table.loc[(one, other)].tolist() == table.loc[(other, one)].tolist()
        for split in SPLITS:
            rows = targets[targets["split"] == split]
            both = sum(a == 1 and b == 1 for a, b in zip(rows[one], rows[other], strict=True))
            assert table.loc[(one, other), split] == both
            if one == other:
                assert both == positives[split, one]


def test_labels_that_exclude_each_other_have_no_pairs(tmp_path):
    together = one_hot(tmp_path).together
    assert len(together) == 30 and (together["label"] == together["other"]).all()
    assert together["all"].sum() == 90 and together["all"].iloc[-1] == 0


def test_card_against_counting(tiny):
    _, targets, card = tiny
    content = card.content
    for name in ("all", *SPLITS):
        part = targets if name == "all" else targets[targets["split"] == name]
        assert content["images"][name] == len(part)
        assert content["patients"][name] == len(set(part["patient"]))
        for subject, column in (("sex", "sex"), ("views", "view")):
            expected = {word or "unknown": part[column].tolist().count(word) for word in set(part[column])}
            assert content[subject][name] == expected
            assert list(content[subject][name])[-1] == "unknown"
        ages = sorted(part["age"].dropna())
        quartiles = numpy.percentile(ages, [25, 50, 75])
        assert list(content["ages"][name].values()) == [ages[0], *quartiles, ages[-1], part["age"].isna().sum()]
        numbers = (part[list(LABELS)] == 1).sum(axis=1).tolist()
        mean = content["labels_per_image"][name].pop("mean")
        assert mean == pytest.approx(sum(numbers) / len(numbers))
        assert content["labels_per_image"][name] == {str(n): numbers.count(n) for n in sorted(set(numbers))}
        content["labels_per_image"][name]["mean"] = mean
    assert content["boxes"] == {"all": 3, "images": 2, "labels": {"Edema": 2, "Hernia": 1}}
    assert content["near_duplicates"] == {
        "hash_distance": 10,
        "correlation": 0.985,
        "pairs": {"all": 1, "train-validation": 0, "train-test": 1, "validation-test": 0},
    }
    assert (content["dataset"], content["unreadable"], content["image_size"]) == ("tiny", 2, 16)
    assert content["notes"]["by hand"] == "nothing"
    for split in SPLITS:
        for row in card.labels[card.labels["split"] == split].drop(columns="split").to_dict("records"):
            assert content["labels"][split][row.pop("label")] == row


def test_violations_are_summed_by_split(tiny):
    _, _, card = tiny
    listed = card.summary["violations"]
    assert listed and card.violations.to_dict("records") == listed
    for split in SPLITS:
        for when in ("before", "after"):
            expected = sum(row[when] for row in listed if row["split"] == split)
            assert card.content["violations"][split][when] == expected
    assert card.content["violations"]["train"]["before"] > 0 == card.content["violations"]["train"]["after"]


def test_every_leaf_is_a_number_a_word_or_null(tiny):
    def leaves(content):
        for value in content.values():
            yield from leaves(value) if isinstance(value, dict) else [value]

    content = tiny[2].content
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    plain = {key: value for key, value in content.items() if key != "notes"}
    assert {type(leaf) for leaf in leaves(plain)} <= {int, float, str, type(None)}


def test_unknown_and_blank_are_one(tmp_path):
    column = pandas.Series(["b", "", "unknown", "a", "", "zebra"])
    assert list(datacard.counted(column).items()) == [("a", 1), ("b", 1), ("zebra", 1), ("unknown", 3)]
    assert datacard.ages(pandas.Series([NAN, NAN])) == dict.fromkeys(datacard.QUARTILES) | {"unknown": 2}


# --- The page


def section(page, heading):
    return page.split(f"## {heading}\n")[1].split("\n## ")[0]


def test_the_page_tells_the_numbers(tiny):
    _, _, card = tiny
    page = card.page()
    assert page.startswith("# Data card: tiny\n")
    images = card.content["images"]
    rows = [
        [name, f"{count}", f"{100 * count / 120:.1f} %", f"{card.content['patients'][name]}"]
        for name, count in images.items()
    ]
    assert markdown.table(["split", "images", "share", "patients"], rows) in page
    assert "16 x 16 pixels; 2 more images could not be read" in page
    test = section(page, "Labels").split("### Test")[1]
    for row in card.labels[card.labels["split"] == "test"].itertuples(index=False):
        cells = [row.label.replace("|", r"\|"), *map(str, row[2:-1]), f"{100 * row.prevalence:.1f} %"]
        assert f"| {' | '.join(cells)} |" in test
    assert "| Edema | 2 |" in section(page, "Boxes") and "3 boxes in 2 images" in page
    notes = section(page, "Notes on the collection")
    assert "- ages above 120 years, taken as unknown: 16\n" in notes and '- views: ["PA", "AP"]\n' in notes
    assert "- by hand: nothing\n" in notes
    pair = card.found.pairs.iloc[0]
    assert f"| {pair['id']} | train | {pair['other_id']} | test | 0 | 1.0000 |" in page
    assert "(all are in `near_duplicates.csv`)" in page
    assert r"| train | Mass \| nodule | Opacity |" in section(page, "Violations of the label tree")


def test_the_page_says_what_there_is_not(tmp_path):
    page = one_hot(tmp_path).page()
    assert "None: wherever a label is positive, so is every label above it." in page
    assert section(page, "Boxes") == "\n0 boxes in 0 images.\n"
    assert section(page, "Notes on the collection") == "\nNone.\n"
    assert "most alike" not in page and "| all | 0 |" in section(page, "Near-duplicates across splits")
    assert "| age: median | n/a | n/a | n/a | n/a |" in page
    assert "| sex: unknown | 90 |" in page


def test_long_tables_are_cut_and_say_so(tmp_path, monkeypatch):
    card = one_hot(tmp_path)
    broken = pandas.DataFrame(
        [("train", f"child{row:02d}", "parent", row, 0) for row in range(9)], columns=list(datacard.VIOLATION)
    )
    pairs = pandas.DataFrame([("a", "train", "p", "b", "test", "q", 3, 0.99)] * 9, columns=list(duplicates.HEADER))
    content = card.content | {"near_duplicates": card.content["near_duplicates"] | {"pairs": {"all": 12}}}
    monkeypatch.setattr(datacard, "SHOWN", 4)
    page = datacard.page(content, broken, pairs).markdown()
    positives = card.labels.query("split == 'train'").set_index("label")["target_positives"]
    shown = re.findall(r"^\| (\d{4}-\d00-500-000) ", section(page, "Labels").split("### Train")[1], re.MULTILINE)
    assert len(shown) == 12 and set(positives[shown[:4]]) == set(positives.nlargest(4))
    assert shown[:4] == sorted(shown[:4])  # in the data set's order
    assert "The 4 labels with most positive training images of 30; all are in `labels.csv`." in page
    assert "The 4 most frequent of 9; all are in `violations.csv`." in page
    assert re.findall(r"child\d\d", page) == ["child08", "child07", "child06", "child05"]
    assert page.count("| a | train | b | test | 3 | 0.9900 |") == 4
    assert "(the 10,000 most alike are in `near_duplicates.csv`)" in page


# --- Figures


def overlaps(figure):
    """Texts that leave the figure or lie on one another."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    whole = figure.bbox
    for text, box in boxes:
        if not (whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1):
            yield text
    for (text, box), (other, other_box) in itertools.combinations(boxes, 2):
        width = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
        height = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
        if width > 1 and height > 1:
            yield text, other


def large_card(top, labels):
    """A collection of many labels and images of which only counts matter: each tiny row stands for a thousand."""
    states = states_of(80, labels).assign(sex="M", view=[f"view number {row % 12}" for row in range(80)])
    write_prepared(top, states, states.replace(-1.0, NAN), labels, pictures(80))
    card = Card(top)
    card.labels[[column for column in card.labels if "_" in column]] *= 12_345
    card.together[["all", *SPLITS]] *= 12_345
    return card


@pytest.mark.parametrize(
    "labels", [(), LABELS, [f"A finding of the lung with a long name {row}" for row in range(193)]]
)
def test_text_stays_inside_and_does_not_overlap(tmp_path, drawn, labels):
    for name, picture in (large_card(tmp_path, labels).drawn() if labels else drawn).items():
        assert not list(overlaps(picture.figure)), name
        assert all(axes.get_title() + axes.get_xlabel() for axes in picture.figure.axes[:1]), name


def test_the_figures_show_what_their_tables_hold(tiny, drawn):
    states, targets, card = tiny
    table = drawn["labels"].table
    assert len(table) == 15
    order = table["label"].drop_duplicates().tolist()
    train = states[states["split"] == "train"]
    assert [(train[label] == 1).sum() for label in order] == sorted((train[list(LABELS)] == 1).sum(), reverse=True)
    for axes, split in zip(drawn["labels"].figure.axes, SPLITS, strict=True):
        rows = table[table["split"] == split].set_index("label").loc[order]
        images = (states["split"] == split).sum()
        widths = {bars.get_label(): [bar.get_width() for bar in bars] for bars in axes.containers}
        for state in datacard.STATES:
            assert widths[state] == pytest.approx((100 * rows[f"state_{state}"] / images).tolist())
        ends = [bar.get_x() + bar.get_width() for bar in axes.containers[-1]]
        assert ends == pytest.approx([100] * len(order))
        assert [text.get_text() for text in axes.texts] == [f"{count:,}" for count in rows["state_positive"]]
    assert [label.get_text() for label in drawn["labels"].figure.axes[0].get_yticklabels()] == order

    table = drawn["cooccurrence"].table.set_index(["label", "other"])
    numbers = {text.get_position(): text.get_text() for text in drawn["cooccurrence"].figure.axes[0].texts}
    image = drawn["cooccurrence"].figure.axes[0].images[0].get_array()
    for (i, one), (j, other) in itertools.product(enumerate(LABELS), repeat=2):
        both = ((targets[one] == 1) & (targets[other] == 1)).sum()
        assert table.loc[(one, other), "images"] == both and numbers[j, i] == f"{both:,}"
        assert table.loc[(one, other), "share_of_label"] == pytest.approx(both / (targets[one] == 1).sum())
        assert image.mask[i, j] if i == j else image[i, j] == pytest.approx(both / (targets[one] == 1).sum())

    table = drawn["ages"].table
    ages = table[table["what"] == "age"]
    assert ages["images"].sum() == targets["age"].notna().sum()
    for row in ages.itertuples():
        low, high = map(int, row.value.split(" to "))
        part = targets[(targets["split"] == row.split) & (targets["sex"] == row.sex.replace("unknown", ""))]
        assert row.images == part["age"].between(low, high).sum()
    for row in table[table["what"] == "view"].itertuples():
        part = targets[(targets["split"] == row.split) & (targets["sex"] == row.sex.replace("unknown", ""))]
        assert row.images == (part["view"] == row.value.replace("unknown", "")).sum()

    pandas.testing.assert_frame_equal(drawn["near_duplicates"].table, card.found.pairs)
    shown = [axes.images[0].get_array() for axes in drawn["near_duplicates"].figure.axes if axes.images]
    pair = card.found.pairs.iloc[0]
    for image, name in zip(shown, (pair["id"], pair["other_id"]), strict=True):
        numpy.testing.assert_array_equal(image, card.images[targets.index[targets["id"] == name][0]])


def test_shares_of_the_ages_are_of_the_split(tiny, drawn):
    _, targets, _ = tiny
    upper = drawn["ages"].figure.axes[: len(SPLITS)]
    for axes, split in zip(upper, SPLITS, strict=True):
        part = targets[targets["split"] == split]
        heights = sum(patch.get_data().values.sum() for patch in axes.patches)
        assert heights == pytest.approx(100 * part["age"].notna().mean())
        assert axes.get_title() == f"{split}: n = {len(part)}, {part['age'].isna().sum()} of unknown age"


def test_labels_beyond_the_limit_are_counted(tmp_path, monkeypatch):
    names = [f"finding {number}" for number in range(25)]
    card = large_card(tmp_path, names)
    monkeypatch.setattr(datacard_figures, "LABELS", 22)
    found = card.drawn()
    for name, order in (("labels", "positive training images"), ("cooccurrence", "positive images")):
        assert f"the 22 labels with most {order}, 3 are left out" in all_text(found[name]).replace("\n", " ")
        assert found[name].table["label"].nunique() == 22
    assert not found["cooccurrence"].figure.axes[0].texts  # more than 20: no numbers
    left_out = set(names) - set(found["cooccurrence"].table["label"])
    totals = card.together.query("label == other").set_index("label")["all"]
    assert totals[list(left_out)].max() <= totals.drop(list(left_out)).min()


def test_views_beyond_the_limit_become_one(tmp_path):
    picture = large_card(tmp_path, LABELS).drawn()["ages"]
    views = picture.table.query("what == 'view'")
    assert views["value"].nunique() == 8 and views["value"].iloc[7] == "other"
    assert views["images"].sum() == 80


def test_what_does_not_exist_is_said(tmp_path):
    found = one_hot(tmp_path).drawn()
    assert "No image is positive for two labels." in all_text(found["cooccurrence"])
    assert "None found." in all_text(found["near_duplicates"]) and found["near_duplicates"].table.empty
    assert all_text(found["ages"]).count("n/a: no age is known") == 3
    share = found["cooccurrence"].table.query("label == other").set_index("label")["share_of_label"]
    assert share.isna().sum() == 1 and share.isna().iloc[-1]


def test_of_many_pairs_the_most_and_the_least_alike_are_shown(tmp_path):
    images = pictures(24)
    images[12:] = images[:12]
    states = states_of(24, LABELS).assign(split=["train"] * 12 + ["test"] * 11 + ["validation"])
    found = duplicates.find(images, states, **DESCRIBE)
    assert len(found.pairs) == 12
    picture = datacard_figures.draw_near_duplicates(found, images, states["id"], facts="tiny")
    expected = pandas.concat([found.pairs.head(4), found.pairs.tail(4)], ignore_index=True)
    pandas.testing.assert_frame_equal(picture.table, expected)
    assert "the 4 most and the 4 least alike of the 12 listed" in all_text(picture).replace("\n", " ")
    assert sum(bool(axes.images) for axes in picture.figure.axes) == 16
    assert not list(overlaps(picture.figure))


def test_states_and_sexes_look_different_without_colour():
    looks = [
        (
            numpy.round(numpy.dot(matplotlib.colors.to_rgb(look["facecolor"]), [0.299, 0.587, 0.114]), 1),
            look.get("hatch"),
        )
        for look in datacard_figures.STATE_LOOKS.values()
    ]
    assert len(set(looks)) == len(datacard.STATES)
    assert len(set(datacard_figures.SEX_HATCHES)) == len(set(map(str, datacard_figures.SEX_LINES))) == 4


def test_pyplot_stays_unloaded():
    program = "import sys, severity.datacard.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# --- The stage


def run(top, monkeypatch, **options):
    monkeypatch.chdir(top)
    values = DESCRIBE | options
    machine = {"workers": values.pop("workers")}
    settings = {"external": {"truth": "data/prepared"}, "describe": values, "machine": machine}
    settings |= {"data": {"name": "made_up"}, "datasets": {"made_up": {"title": "tiny"}}}
    monkeypatch.setattr(params, "load", lambda: settings)
    describe.main()
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*.*") if path.parent.name == "data"}


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """The folder of the tiny collection after the stage, and what the stage wrote."""
    top = tmp_path_factory.mktemp("described")
    write_tiny(top)
    with pytest.MonkeyPatch.context() as patch:
        return top, run(top, patch)


def test_the_stage_writes_the_same_bytes_whatever_the_settings_of_the_person(described, monkeypatch, capsys):
    top, first = described
    assert set(first) == FILES
    images = (top / "data/images/images.npy").read_bytes()
    (top / "plots/data/stale.png").write_bytes(b"")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "hatch.linewidth": 5}):
        assert run(top, monkeypatch, workers=2) == first
    assert capsys.readouterr().out == "tiny: 120 images, 1 near-duplicates across splits\n"
    assert (top / "data/images/images.npy").read_bytes() == images
    for name in STEMS:
        with Image.open(top / f"plots/data/{name}.png") as image:
            assert image.format == "PNG" and min(image.size) >= 200 and "Software" not in image.info


def test_the_files_hold_the_card(described, tiny, drawn, tmp_path):
    (top, _), (_, _, card) = described, tiny
    folder = top / "metrics/data"
    assert files.read_json(folder / "card.json") == card.content
    assert (folder / "card.md").read_text(encoding="utf-8") == card.page()
    assert documents.read(folder / "page.json").markdown() == card.page()
    for name, frame in (
        ("labels", card.labels),
        ("cooccurrence", card.together),
        ("violations", card.violations),
        ("near_duplicates", card.found.pairs),
    ):
        written = pandas.read_csv(folder / f"{name}.csv")
        pandas.testing.assert_frame_equal(written, frame, check_dtype=False, rtol=1e-9)
    for name, picture in drawn.items():
        files.write_csv(tmp_path / "expected.csv", picture.table)
        assert (top / f"plots/data/{name}.csv").read_bytes() == (tmp_path / "expected.csv").read_bytes()


def test_a_collection_without_boxes_violations_or_copies_is_described(tmp_path, monkeypatch, capsys):
    one_hot(tmp_path)
    assert set(run(tmp_path, monkeypatch)) == FILES
    assert "0 near-duplicates" in capsys.readouterr().out
    assert (tmp_path / "metrics/data/violations.csv").read_text() == "split,child,parent,before,after\n"
    header = ",".join(duplicates.HEADER)
    assert (tmp_path / "metrics/data/near_duplicates.csv").read_text() == f"{header}\n"


@pytest.mark.parametrize(
    "missing", ["data/prepared/boxes.csv", "data/prepared/summary.json", "data/images/summary.json"]
)
def test_the_stage_names_what_is_missing_and_writes_nothing(tmp_path, monkeypatch, missing):
    write_tiny(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(SeverityError, match=f"{missing} is missing"):
        run(tmp_path, monkeypatch)
    assert not (tmp_path / "metrics").exists() and not (tmp_path / "plots").exists()


def test_the_stage_refuses_images_of_another_table(tmp_path, monkeypatch):
    write_tiny(tmp_path)
    numpy.save(tmp_path / "data/images/images.npy", pictures(7))
    with pytest.raises(SeverityError):
        run(tmp_path, monkeypatch)
    assert not Path("metrics").exists()

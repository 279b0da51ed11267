"""Splits by patient, and the prepared folder."""

import hashlib
import json
import os
import re
from pathlib import Path

import numpy
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from severity.collections import splits
from severity.collections.collection import Collection
from severity.core import params
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.datasets import nih14
from severity.preparation import labelling, preparation
from severity.prepared import decoded, prepared
from stages import collect as collect_stage
from stages import decode as decode_stage
from stages import prepare as prepare_stage
from stages import read as read_stage
from tests.checks import every
from tests.trees import TOP

SHARED = Path(os.environ.get("SEVERITY_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
LABELS = ("Healthy", "Edema", "Fracture")
NAN = float("nan")
TREE = Hierarchy.from_parents([-1, 0, 0, 0], [1, 2, 3], LABELS)
POLICIES = {"uncertain": "ones", "unmentioned": "zeros", "closure": False}
OPTIONS = {"validation_fraction": 0.25, "test_fraction": 0.25, "seed": 0, "min_positives": 1}
DECODE = {"size": 16, "aspect": "squash", "reduced": True, "sixteen_bits": "whole", "max_unreadable": 0, "workers": 2}


def fails(text):
    """Expect a SeverityError whose message holds `text`."""
    return pytest.raises(SeverityError, match=re.escape(text))


def picture(seed, width=20, height=14):
    """A gray image of smooth noise, so that resizing filters matter."""
    levels = numpy.random.default_rng(seed).integers(0, 256, (4, 5), dtype=numpy.uint8)
    return Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC)


def make_raw(root, patients=40, images=2):
    """Write a collection of PNG files and return its tidy table; states go through 1, 0, -1 and NaN."""
    root.mkdir(parents=True, exist_ok=True)
    rows = []
    for patient in range(patients):
        for number in range(images):
            index = patient * images + number
            name = f"{patient:03d}_{number}"
            picture(index).save(root / f"{name}.png")
            states = [(1.0, 0.0, -1.0, NAN)[(index // (label + 1)) % 4] for label in range(len(LABELS))]
            view = "lateral" if number else "frontal"
            rows.append([name, f"{name}.png", f"{patient:03d}", "F", 50.0 if patient else NAN, view, "", *states])
    return pandas.DataFrame(rows, columns=["id", "path", "patient", "sex", "age", "view", "split", *LABELS])


def prepare(out, raw, root, policies=None, decoded=None, **options):
    return preparation.prepare(
        out,
        Collection(raw, LABELS, notes={"mended": 1}, facts={"about": {"it": [2]}}),
        raw["id"].tolist() if decoded is None else decoded,
        TREE,
        dataset="tiny",
        root=root,
        policies=POLICIES | (policies or {}),
        **(OPTIONS | options),
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# Splits

PATIENTS = st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=40)
FRACTIONS = {"validation_fraction": 0.3, "test_fraction": 0.3}


def as_rows(patients, split=""):
    return pandas.DataFrame({"patient": patients, "split": split})


@given(PATIENTS, st.integers(0, 2**40))
@settings(deadline=None)
def test_a_patient_is_in_one_split_whatever_the_seed(patients, seed):
    table = as_rows(patients)
    table["split"] = splits.divide(table, **FRACTIONS, seed=seed)
    assert (table.groupby("patient")["split"].nunique() == 1).all()
    assert set(table["split"]) <= set(splits.SPLITS)


@given(PATIENTS, PATIENTS, st.integers(0, 9), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_other_patients_do_not_move_a_patient(patients, others, seed, order):
    alone = dict(zip(patients, splits.divide(as_rows(patients), **FRACTIONS, seed=seed), strict=True))
    together = [*patients, *others]
    order.shuffle(together)
    crowd = dict(zip(together, splits.divide(as_rows(together), **FRACTIONS, seed=seed), strict=True))
    assert every(crowd[patient] == alone[patient] for patient in patients)


def test_fractions_are_kept_and_do_not_disturb_each_other():
    rows = as_rows([f"p{number}" for number in range(10000)])
    few, many = (splits.divide(rows, validation_fraction=0.1, test_fraction=share, seed=3) for share in (0.1, 0.4))
    assert (few == "validation").mean() == pytest.approx(0.1, abs=0.01)  # three standard deviations
    assert (many == "test").mean() == pytest.approx(0.4, abs=0.015)
    assert ((few == "validation") == (many == "validation")).all()
    assert (many[few == "test"] == "test").all()
    other = splits.divide(rows, validation_fraction=0.1, test_fraction=0.4, seed=4)
    assert (other != many).mean() > 0.3


def test_official_rows_keep_their_split():
    rows = pandas.concat([as_rows([f"p{number}" for number in range(200)]), as_rows(["a", "b"], "test")])
    split = splits.divide(rows.reset_index(drop=True), validation_fraction=0.2, test_fraction=0.5, seed=0)
    assert split.tolist().count("test") == 2 and split.tolist()[-2:] == ["test", "test"]
    assert 20 < split.tolist().count("validation") < 60


@pytest.mark.parametrize(
    ("validation", "test", "message"),
    [
        (0.5, 0.5, "leave no patient to train on; their sum must be below 1"),
    ],
)
def test_fractions_out_of_range(validation, test, message):
    with fails(message):
        splits.divide(as_rows(["a"]), validation_fraction=validation, test_fraction=test, seed=0)


def test_check_finds_shared_patients_and_empty_splits():
    with fails("1 patients have images in more than one split: p1."):
        splits.check(pandas.DataFrame({"patient": ["p1", "p1", "p2"], "split": ["train", "test", "validation"]}))
    with fails("The validation split has no image (train 1, validation 0, test 1). Raise prepare.validation_fraction"):
        splits.check(pandas.DataFrame({"patient": ["a", "b"], "split": ["train", "test"]}))
    splits.check(pandas.DataFrame({"patient": ["a", "b", "c"], "split": ["train", "validation", "test"]}))


# The prepared folder


def test_table_comes_back_as_it_went_in(tmp_path):
    raw = make_raw(tmp_path / "raw")
    raw["patient"] = raw["patient"].replace("003", "NA")  # text, not a missing value
    prepare(tmp_path / "out", raw, tmp_path / "raw")
    table = prepared.read_table(tmp_path / "out")
    assert table.labels == LABELS
    divided = raw.assign(split=splits.divide(raw, validation_fraction=0.25, test_fraction=0.25, seed=0))
    expected, _ = labelling.apply(divided, LABELS, TREE, **POLICIES)
    pandas.testing.assert_frame_equal(table.frame, expected.drop(columns="path"))


def test_smooth_targets_come_back_from_the_table_and_are_counted(tmp_path):
    raw, smooth = make_raw(tmp_path / "raw"), {"uncertain": "smooth", "smooth_range": [0.6, 0.8]}
    summary = prepare(tmp_path / "out", raw, tmp_path / "raw", smooth, seed=3)
    table = prepared.read_table(tmp_path / "out")
    hedged = (raw["Edema"] == -1).to_numpy() & (table.frame["split"] == "train").to_numpy()
    assert hedged.any() and table.frame["Edema"][hedged].between(0.6, 0.8).all()
    assert summary["counts"]["train"]["labels"]["Edema"]["soft"] == hedged.sum()
    assert summary["counts"]["validation"]["labels"]["Edema"]["soft"] == 0
    prepare(tmp_path / "again", raw, tmp_path / "raw", smooth, seed=3)
    assert contents(tmp_path / "out") == contents(tmp_path / "again")


def test_unreadable_images_are_left_out_and_their_boxes_too(tmp_path):
    raw = make_raw(tmp_path / "raw", patients=60)
    ids = raw["id"].drop([3, 66, 119]).tolist()
    prepare(tmp_path / "out", raw, tmp_path / "raw", decoded=ids)
    assert prepared.read_table(tmp_path / "out").frame["id"].tolist() == ids
    for other in (ids[::-1], [*ids, "new"]):
        with fails("data/images holds other images than data/collection. Run `dvc repro decode`."):
            prepare(tmp_path / "out", raw, tmp_path / "raw", decoded=other)


def test_summary_counts_and_hashes(tmp_path):
    raw = make_raw(tmp_path / "raw")
    returned = prepare(tmp_path / "out", raw, tmp_path / "raw", {"unmentioned": "ignore", "uncertain": "ignore"})
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary == returned
    frame = prepared.read_table(tmp_path / "out").frame
    assert sum(count["images"] for count in summary["counts"].values()) == summary["images"] == len(frame) == 80
    assert sum(count["patients"] for count in summary["counts"].values()) == 40
    for split, count in summary["counts"].items():
        rows = frame[frame["split"] == split]
        for label, cells in count["labels"].items():
            values = rows[label].tolist()
            assert cells["positives"] == values.count(1.0) and cells["negatives"] == values.count(0.0)
            assert sum(cells.values()) == count["images"]
    for name, sha256 in summary["sha256"].items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == sha256
    assert summary["notes"] == {"mended": 1} and summary["facts"] == {"about": {"it": [2]}}
    assert preparation.sentence(summary).startswith("tiny: train ")


@pytest.mark.parametrize(("of_test", "chosen"), [(0.0, "006_0"), (1.0, "036_0")])
def test_examples_show_their_label_alone_certain_and_from_the_front(tmp_path, of_test, chosen):
    raw = make_raw(tmp_path / "raw")
    raw["split"] = "train"
    raw.loc[60:69, "split"] = "validation"
    raw.loc[70:, "split"] = "test"
    raw[list(LABELS)] = 0.0
    edema = {"test and alone": 72, "lateral and alone": 5, "uncertain and alone": 6, "with another": 8, "alone": 12}
    raw.loc[list(edema.values()), "Edema"] = [of_test, 1, -1, 1, 1]
    raw.loc[[8, 79], "Healthy"] = 1
    prepare(tmp_path / "out", raw, tmp_path / "raw", min_positives=0)
    examples = pandas.read_csv(tmp_path / "out/examples.csv", keep_default_na=False)
    assert examples.values.tolist() == [["Healthy", "039_1"], ["Edema", chosen], ["Fracture", ""]]
    images = numpy.load(tmp_path / "out/examples.npy")
    assert images.shape == (3, 256, 256) and images.dtype == numpy.uint8
    with Image.open(tmp_path / f"raw/{chosen}.png") as image:  # 20 x 14: 179 rows of 256, centred
        numpy.testing.assert_array_equal(images[1, 38:217], numpy.array(image.resize((256, 179), Image.BILINEAR)))
    assert images[1, :38].max() == images[1, 217:].max() == images[2].max() == 0


def unlabelled(raw):
    """Test images as a hospital brings them along: to be classified."""
    table = raw.assign(split=["train"] * 40 + ["validation"] * 20 + ["test"] * 20)
    table.loc[60:, list(LABELS)] = numpy.nan
    return table


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda raw: raw.assign(Fracture=0.0), {}, "fewer than 1 positive images of Fracture (0). Such a class"),
        (lambda raw: raw, {"min_positives": 1000}, "prepare.min_positives in params.yaml"),
        (lambda raw: raw, {"validation_fraction": 0.0}, "The validation split has no image"),
        (lambda raw: raw, {"test_fraction": 0.0}, "The test split has no image"),
        (unlabelled, {}, "test images has a positive label"),
        (
            lambda raw: raw.assign(split=["test", ""] + ["validation"] * 30 + [""] * 48),
            {},
            "1 patients have images in more than one split: 000",
        ),
    ],
)
def test_wrong_input_is_refused_before_anything_is_written(tmp_path, change, options, message):
    raw = change(make_raw(tmp_path / "raw"))
    with fails(message):
        prepare(tmp_path / "out", raw, tmp_path / "raw", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_a_label_lost_with_the_rejects_is_refused(tmp_path):
    raw = make_raw(tmp_path / "raw")
    raw["Fracture"] = 0.0
    row = (splits.divide(raw, validation_fraction=0.25, test_fraction=0.25, seed=0) == "train").idxmax()
    raw.loc[row, "Fracture"] = 1.0
    prepare(tmp_path / "out", raw, tmp_path / "raw")
    with fails("fewer than 1 positive images of Fracture (0)"):
        prepare(tmp_path / "out", raw, tmp_path / "raw", decoded=raw["id"].drop(row).tolist())


def test_a_folder_that_is_not_whole_is_refused(tmp_path):
    with fails("summary.json is missing"):
        prepared.read_table(tmp_path / "out")
    prepare(tmp_path / "out", make_raw(tmp_path / "raw"), tmp_path / "raw")
    table = (tmp_path / "out/table.csv").read_text()
    (tmp_path / "out/table.csv").write_text("".join(table.splitlines(keepends=True)[:-1]))
    with fails("disagree in rows or columns"):
        prepared.read_table(tmp_path / "out")
    (tmp_path / "out/table.csv").write_text(table.replace("Edema", "Odema"))
    with fails("table.csv: the column 'Edema' is missing. Remove the folder and run"):
        prepared.read_table(tmp_path / "out")
    (tmp_path / "out/table.csv").unlink()
    with fails("table.csv is missing"):
        prepared.read_table(tmp_path / "out")


# Real images, and the stages


def real(folder):
    root = SHARED / folder
    if not root.is_dir():
        pytest.skip(f"no {root}; name the folder of shared data in SEVERITY_SHARED_DATA")
    return root


def test_stages_on_real_images(tmp_path, monkeypatch, capsys):
    """collect and prepare, as DVC runs them, on 970 images of 260 patients."""
    root = real("nih_cxr14_64")
    section = {
        "root": str(root),
        "title": "ChestX-ray14",
        "hierarchy": "nih14",
        "collect": {"images": 970},
        "read": {"views": ["PA", "AP"]},
        "labels": POLICIES,
    }
    settings_ = {
        "external": {"truth": "data/prepared"},
        "data": {"name": "nih14", "hidden_names": False},
        "datasets": {"nih14": section},
        "decode": {key: value for key, value in DECODE.items() if key != "workers"},
        "machine": {"workers": DECODE["workers"]},
        "prepare": OPTIONS,
    }
    monkeypatch.setattr(params, "load", lambda: settings_)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/hierarchies").symlink_to(TOP / "data/hierarchies")
    collect_stage.main()
    assert capsys.readouterr().out == "data/raw/nih14: 970 images\n"
    read_stage.main()
    assert capsys.readouterr().out.startswith("nih14: 970 images, 15 labels\n")
    decode_stage.main()
    capsys.readouterr()
    prepare_stage.main()
    assert re.fullmatch(
        r"nih14: train \d+ images of \d+ patients, validation .*, test .* patients\n", capsys.readouterr().out
    )
    table, images = prepared.read_table("data/prepared"), decoded.open_images("data/images")
    assert len(table.frame) == len(images) == 970 and table.labels == nih14.LABELS
    assert table.frame["patient"].nunique() == 260
    assert (table.frame.groupby("patient")["split"].nunique() == 1).all()

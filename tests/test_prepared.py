"""Splits by patient, label policies, decoding, and the prepared folder."""

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

from severity import decoding, params, preparation, prepared, splits
from severity.datasets import nih14
from severity.errors import SeverityError
from stages import collect as collect_stage
from stages import prepare as prepare_stage

SHARED = Path(os.environ.get("SEVERITY_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
LABELS = ("Healthy", "Edema", "Fracture")
NAN = float("nan")
OPTIONS = {
    "dataset": "tiny",
    "labels": LABELS,
    "image_size": 16,
    "uncertain": "ones",
    "unmentioned": "zeros",
    "validation_fraction": 0.25,
    "test_fraction": 0.25,
    "seed": 0,
    "max_rejects": 0,
    "min_positives": 1,
    "workers": 1,
}


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


def prepare(out, raw, root, **options):
    return preparation.prepare(out, raw, root=root, **(OPTIONS | options))


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
    assert all(crowd[patient] == alone[patient] for patient in patients)


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
        (1.0, 0.1, "prepare.validation_fraction is 1.0; it must be a number from 0 to below 1"),
        (0.1, -0.1, "prepare.test_fraction is -0.1; it must be a number"),
        (None, 0.1, "prepare.validation_fraction is None; it must be a number"),
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


# Policies

STATES = [1.0, 0.0, -1.0, NAN]


def apply(split, states, uncertain, unmentioned):
    raw = pandas.DataFrame({"split": split, "Edema": states, "Fracture": states})
    return preparation.apply_policies(raw, ["Edema", "Fracture"], uncertain=uncertain, unmentioned=unmentioned)


@pytest.mark.parametrize("split", splits.SPLITS)
@pytest.mark.parametrize(("uncertain", "hedged"), [("zeros", 0.0), ("ones", 1.0), ("ignore", NAN)])
@pytest.mark.parametrize(("unmentioned", "silent"), [("zeros", 0.0), ("ignore", NAN)])
def test_policies_map_as_written(split, uncertain, hedged, unmentioned, silent):
    expected = [1.0, 0.0, hedged if split == "train" else NAN, silent]
    numpy.testing.assert_array_equal(apply(split, STATES, uncertain, unmentioned)["Edema"], expected)


def test_policies_by_label():
    table = apply("train", STATES, {"default": "zeros", "Fracture": "ignore"}, "ignore")
    numpy.testing.assert_array_equal(table["Edema"], [1, 0, 0, NAN])
    numpy.testing.assert_array_equal(table["Fracture"], [1, 0, NAN, NAN])


def smoothed(ids, seed=0, **options):
    raw = pandas.DataFrame({"id": ids, "split": "train", "Edema": -1.0, "Fracture": 1.0})
    return preparation.apply_policies(
        raw, ["Edema", "Fracture"], uncertain="smooth", unmentioned="zeros", seed=seed, **options
    )["Edema"]


def test_smooth_draws_evenly_from_its_range():
    drawn = smoothed([f"image {number}" for number in range(2000)], smooth_range=[0.2, 0.6])
    assert drawn.between(0.2, 0.6).all() and drawn.nunique() == 2000
    counts, _ = numpy.histogram(drawn, bins=8, range=(0.2, 0.6))
    assert counts.min() > 200 and counts.max() < 300  # 250 expected, standard deviation 15
    assert smoothed(["a"], smooth_range=[0.7, 0.7]).tolist() == [0.7]


def test_smooth_depends_on_seed_image_and_label_alone():
    alone, among = smoothed(["b"]), smoothed(["a", "b", "c"])
    assert among[1] == alone[0] != among[0]
    assert smoothed(["b"], seed=1)[0] != alone[0]
    raw = pandas.DataFrame({"id": ["b"], "split": "train", "Edema": -1.0, "Fracture": -1.0})
    both = preparation.apply_policies(raw, ["Fracture", "Edema"], uncertain="smooth", unmentioned="zeros")
    assert both["Edema"][0] == alone[0] != both["Fracture"][0]


@pytest.mark.parametrize("split", splits.SPLITS)
def test_smooth_acts_on_uncertain_cells_of_train_rows_alone(split):
    raw = pandas.DataFrame({"id": list("abcd"), "split": split, "Edema": STATES, "Fracture": STATES})
    words = {"default": "ones", "Edema": "smooth"}
    table = preparation.apply_policies(raw, ["Edema", "Fracture"], uncertain=words, unmentioned="zeros")
    numpy.testing.assert_array_equal(table["Edema"][[0, 1, 3]], [1, 0, 0])
    assert 0.55 <= table["Edema"][2] <= 0.85 if split == "train" else numpy.isnan(table["Edema"][2])
    assert table["Fracture"][2] == 1 if split == "train" else numpy.isnan(table["Fracture"][2])


@pytest.mark.parametrize("wrong", [[0.9, 0.1], [0.5], 0.7, [0.2, 1.2], ["a", "b"], [False, True]])
def test_a_range_that_is_none(wrong):
    with fails("prepare.smooth_range is"):
        smoothed(["a"], smooth_range=wrong)


def test_smooth_targets_come_back_from_the_table_and_are_counted(tmp_path):
    raw = make_raw(tmp_path / "raw")
    summary = prepare(tmp_path / "out", raw, tmp_path / "raw", uncertain="smooth", smooth_range=[0.6, 0.8], seed=3)
    table = prepared.read_table(tmp_path / "out")
    hedged = (raw["Edema"] == -1).to_numpy() & (table.frame["split"] == "train").to_numpy()
    assert hedged.any() and table.frame["Edema"][hedged].between(0.6, 0.8).all()
    assert summary["counts"]["train"]["labels"]["Edema"]["soft"] == hedged.sum()
    assert summary["counts"]["validation"]["labels"]["Edema"]["soft"] == 0
    prepare(tmp_path / "again", raw, tmp_path / "raw", uncertain="smooth", smooth_range=[0.6, 0.8], seed=3)
    assert contents(tmp_path / "out") == contents(tmp_path / "again")


@given(st.lists(st.tuples(st.sampled_from(splits.SPLITS), st.sampled_from(STATES)), min_size=1), st.data())
@settings(deadline=None)
def test_uncertain_never_enters_the_truth_that_scores(rows, data):
    uncertain = data.draw(st.sampled_from(["zeros", "ones", "ignore", {"default": "ones", "Edema": "zeros"}]))
    unmentioned = data.draw(st.sampled_from(["zeros", "ignore"]))
    split, states = map(list, zip(*rows, strict=True))
    target = apply(split, states, uncertain, unmentioned)["Edema"]
    for part, state, value in zip(split, states, target, strict=True):
        if part != "train" and state == -1:
            assert numpy.isnan(value)
        if state in (0, 1):
            assert value == state


@pytest.mark.parametrize(
    ("uncertain", "unmentioned", "message"),
    [
        ("one", "zeros", "prepare.uncertain: default is 'one'. Did you mean 'ones'?"),
        ({"default": "ones", "Edma": "zeros"}, "zeros", "'Edma' is no label of this data set. Did you mean 'Edema'?"),
        ({"default": "ones", "Edema": "nill"}, "zeros", "prepare.uncertain: Edema is 'nill'. "),
        (["ones"], "zeros", "prepare.uncertain: default is ['ones']. "),
        ({"Edema": "ones"}, "zeros", "add the key 'default'"),
        ("ones", "ones", "prepare.unmentioned is 'ones'. Known: ignore, zeros."),
    ],
)
def test_unknown_policies(uncertain, unmentioned, message):
    with fails(message):
        apply("train", STATES, uncertain, unmentioned)


# The prepared folder


def test_pixels_equal_an_independent_computation(tmp_path):
    raw = make_raw(tmp_path / "raw", patients=30)
    prepare(tmp_path / "out", raw, tmp_path / "raw")
    images = prepared.open_images(tmp_path / "out")
    assert images.shape == (60, 16, 16)
    for index, path in enumerate(raw["path"]):
        with Image.open(tmp_path / "raw" / path) as image:
            expected = numpy.array(image.resize((16, 16), resample=Image.Resampling.BILINEAR))
        numpy.testing.assert_array_equal(images[index], expected)


def test_images_are_mapped_read_only_and_the_file_is_plain_npy(tmp_path):
    prepare(tmp_path / "out", make_raw(tmp_path / "raw"), tmp_path / "raw")
    images = prepared.open_images(tmp_path / "out")
    assert isinstance(images, numpy.memmap) and not images.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        images[0, 0, 0] = 1
    numpy.save(tmp_path / "plain.npy", numpy.array(images))
    assert (tmp_path / "plain.npy").read_bytes() == (tmp_path / "out/images.npy").read_bytes()


def test_table_comes_back_as_it_went_in(tmp_path):
    raw = make_raw(tmp_path / "raw")
    raw["patient"] = raw["patient"].replace("003", "NA")  # text, not a missing value
    prepare(tmp_path / "out", raw, tmp_path / "raw")
    table = prepared.read_table(tmp_path / "out")
    assert table.labels == LABELS
    divided = raw.assign(split=splits.divide(raw, validation_fraction=0.25, test_fraction=0.25, seed=0))
    expected = preparation.apply_policies(divided, LABELS, uncertain="ones", unmentioned="zeros").drop(columns="path")
    pandas.testing.assert_frame_equal(table.frame, expected)


def test_number_of_workers_does_not_change_a_byte(tmp_path):
    raw = make_raw(tmp_path / "raw", patients=80)
    (tmp_path / "raw" / raw["path"][70]).write_bytes(b"broken")
    for workers in (1, 2):
        prepare(tmp_path / str(workers), raw, tmp_path / "raw", workers=workers, max_rejects=1)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_summary_counts_and_hashes(tmp_path):
    raw = make_raw(tmp_path / "raw")
    returned = prepare(tmp_path / "out", raw, tmp_path / "raw", unmentioned="ignore", uncertain="ignore")
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
    told = preparation.sentence(summary)
    assert told.startswith("tiny at 16 x 16: train ") and told.endswith("; 0 rejected")


def test_rejects_are_told_and_left_out(tmp_path):
    raw = make_raw(tmp_path / "raw", patients=60)
    rows = [3, 66, 119]
    for row, content in zip(rows, (b"", b"broken", None), strict=True):
        file = tmp_path / "raw" / raw["path"][row]
        file.unlink() if content is None else file.write_bytes(content)
    with fails("3 of 120 images cannot be read: 001_1.png (not an image"):
        prepare(tmp_path / "out", raw, tmp_path / "raw", max_rejects=2)
    assert not (tmp_path / "out").exists()
    summary = prepare(tmp_path / "out", raw, tmp_path / "raw", max_rejects=3)
    rejects = pandas.read_csv(tmp_path / "out/rejects.csv")
    assert rejects["id"].tolist() == raw["id"][rows].tolist() and rejects["path"].tolist() == raw["path"][rows].tolist()
    assert rejects["reason"][2] == "no such file"
    table = prepared.read_table(tmp_path / "out").frame
    assert table["id"].tolist() == raw["id"].drop(rows).tolist()
    images = prepared.open_images(tmp_path / "out")
    assert len(images) == 117 == summary["images"] and summary["rejects"] == 3
    for index in (0, 3, 116):
        file = tmp_path / "raw" / f"{table['id'][index]}.png"
        numpy.testing.assert_array_equal(images[index], decoding.squashed(decoding.read_gray(file), 16))


@pytest.mark.parametrize(("of_test", "chosen"), [(0.0, "006_0"), (1.0, "036_0")])
def test_examples_show_their_label_alone_certain_and_from_the_front(tmp_path, of_test, chosen):
    raw = make_raw(tmp_path / "raw")
    raw["split"] = "train"
    raw.loc[60:69, "split"] = "validation"
    raw.loc[70:, "split"] = "test"
    raw[list(LABELS)] = 0.0
    edema = {"test and alone": 72, "lateral and alone": 5, "uncertain and alone": 6, "with another": 8, "alone": 12}
    raw.loc[list(edema.values()), "Edema"] = [of_test, 1, -1, 1, 1]
    raw.loc[8, "Healthy"] = 1
    prepare(tmp_path / "out", raw, tmp_path / "raw", min_positives=0)
    examples = pandas.read_csv(tmp_path / "out/examples.csv", keep_default_na=False)
    assert examples.values.tolist() == [["Healthy", "004_0"], ["Edema", chosen], ["Fracture", ""]]
    images = numpy.load(tmp_path / "out/examples.npy")
    assert images.shape == (3, 256, 256) and images.dtype == numpy.uint8
    with Image.open(tmp_path / f"raw/{chosen}.png") as image:  # 20 x 14: 179 rows of 256, centred
        numpy.testing.assert_array_equal(images[1, 38:217], numpy.array(image.resize((256, 179), Image.BILINEAR)))
    assert images[1, :38].max() == images[1, 217:].max() == images[2].max() == 0


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda raw: raw.assign(id="same"), {}, "79 images repeat the id of another: same"),
        (lambda raw: raw.assign(patient=""), {}, "80 images have no patient: rows 0, 1, 2"),
        (lambda raw: raw.drop(columns="Edema"), {}, "gives no column 'Edema'"),
        (lambda raw: raw.iloc[:0], {}, "No image is left to prepare. Widen `views`"),
        (lambda raw: raw.assign(Edema=2.0), {}, "`read` gives 2.0 in column 'Edema'; it may hold 1, 0, -1.0."),
        (
            lambda raw: raw.assign(split="dev"),
            {},
            "`read` gives dev in column 'split'; it may hold blank, train, validation, test.",
        ),
        (lambda raw: raw.assign(Fracture=0.0), {}, "fewer than 1 positive images of Fracture (0). Such a class"),
        (lambda raw: raw, {"min_positives": 1000}, "prepare.min_positives in params.yaml"),
        (lambda raw: raw, {"validation_fraction": 0.0}, "The validation split has no image"),
        (lambda raw: raw, {"test_fraction": 0.0}, "The test split has no image"),
        (
            lambda raw: raw.assign(split=["test", ""] + ["validation"] * 30 + [""] * 48),
            {},
            "1 patients have images in more than one split: 000",
        ),
        (lambda raw: raw, {"image_size": 64.0}, "prepare.image_size is 64.0; it must be a whole number from 1 on"),
        (lambda raw: raw, {"image_size": 0}, "prepare.image_size is 0"),
        (lambda raw: raw, {"workers": -1}, "prepare.workers is -1; it must be a whole number from 0 on"),
        (lambda raw: raw, {"max_rejects": True}, "prepare.max_rejects is True"),
        (lambda raw: raw, {"image_size": 10_000_000}, "lower prepare.image_size in params.yaml"),
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
    (tmp_path / "raw" / raw["path"][row]).write_bytes(b"broken")
    with fails("fewer than 1 positive images of Fracture (0)"):
        prepare(tmp_path / "out", raw, tmp_path / "raw", max_rejects=1)


def test_a_folder_that_is_not_whole_is_refused(tmp_path):
    with fails("summary.json is missing"):
        prepared.read_table(tmp_path / "out")
    prepare(tmp_path / "out", make_raw(tmp_path / "raw"), tmp_path / "raw")
    table = (tmp_path / "out/table.csv").read_text()
    (tmp_path / "out/table.csv").write_text("".join(table.splitlines(keepends=True)[:-1]))
    with fails("disagree in rows or columns"):
        prepared.read_table(tmp_path / "out")
    numpy.save(tmp_path / "out/images.npy", numpy.zeros((79, 16, 16), numpy.uint8))
    with fails("disagree in shape"):
        prepared.open_images(tmp_path / "out")
    (tmp_path / "out/images.npy").write_bytes(b"not numpy")
    with fails("images.npy is cut off or no .npy file"):
        prepared.open_images(tmp_path / "out")
    for name, opener in (("table.csv", prepared.read_table), ("images.npy", prepared.open_images)):
        (tmp_path / "out" / name).unlink()
        with fails(f"{name} is missing"):
            opener(tmp_path / "out")


# Real images, and the stages


def real(folder):
    root = SHARED / folder
    if not root.is_dir():
        pytest.skip(f"no {root}; name the folder of shared data in SEVERITY_SHARED_DATA")
    return root


def test_stages_on_real_images(tmp_path, monkeypatch, capsys):
    """collect and prepare, as DVC runs them, on 970 images of 260 patients."""
    root = real("nih_cxr14_64")
    section = {"root": str(root), "collect": {"images": 970}, "read": {"views": ["PA", "AP"]}}
    options = {name: value for name, value in OPTIONS.items() if name not in ("dataset", "labels")}
    settings_ = {"data": {"name": "nih14"}, "datasets": {"nih14": section}, "prepare": options | {"workers": 2}}
    monkeypatch.setattr(params, "load", lambda: settings_)
    monkeypatch.chdir(tmp_path)
    collect_stage.main()
    assert capsys.readouterr().out == "data/raw/nih14: 970 images\n"
    prepare_stage.main()
    assert re.fullmatch(
        r"nih14 at 16 x 16: train \d+ images of \d+ patients, validation .*, test .*; 0 rejected\n",
        capsys.readouterr().out,
    )
    table, images = prepared.read_table("data/prepared"), prepared.open_images("data/prepared")
    assert len(table.frame) == len(images) == 970 and table.labels == nih14.LABELS
    assert table.frame["patient"].nunique() == 260
    assert (table.frame.groupby("patient")["split"].nunique() == 1).all()

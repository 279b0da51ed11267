"""The phantom radiographs: form of the collection, labels, and the geometry of what is drawn."""

import csv
import re
from collections import defaultdict
from dataclasses import replace

import numpy
import pytest
from PIL import Image
from scipy import ndimage

from severity.core.errors import SeverityError
from severity.datasets.phantom import LABELS, collect, plan, read, study_labels, table
from severity.phantoms import radiographs
from severity.phantoms.anatomy import LEFT, RIGHT, Pose, drawn_heart_ratio, inspired, patient_anatomy
from severity.phantoms.labels import DEVICES, NO_FINDING, OPACITIES, RATES, truth
from severity.phantoms.signs import bend, finding
from tests.checks import every

OPTIONS = {
    "images": 30,
    "size": 48,
    "valid_fraction": 0.25,
    "lateral_fraction": 0.3,
    "label_noise": 0.05,
    "seed": 0,
    "workers": 1,
}
COLUMNS = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *LABELS]
PATH = re.compile(r"CheXpert-v1\.0-small/(train|valid)/(patient\d{5})/study\d+/view\d_(frontal|lateral)\.jpg")
SIZE = (136, 128)  # height, width
STRAIGHT = Pose(view="PA", centre=(0.0, 0.92), width=2.6, tilt=0.0, turn=0.0, arms=0.3, veil=0.0, fold=0.0)


def files(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def rows(path):
    with open(path, newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom") / "raw"
    assert collect(root, root, **OPTIONS) == OPTIONS["images"]
    return root


# The collection


def test_same_seed_gives_same_bytes_with_two_workers(collection, tmp_path):
    collect(tmp_path / "again", tmp_path / "again", **OPTIONS | {"workers": 2})
    assert files(tmp_path / "again") == files(collection)


def test_another_seed_gives_other_images(collection, tmp_path):
    collect(tmp_path / "other", tmp_path / "other", **OPTIONS | {"images": 12, "seed": 1})
    first = "train/patient00001/study1/view1_frontal.jpg"
    assert (tmp_path / "other" / first).read_bytes() != (collection / first).read_bytes()


def test_a_larger_collection_begins_with_the_smaller_one(collection, tmp_path):
    collect(tmp_path / "part", tmp_path / "part", **OPTIONS | {"images": 12})
    part, whole = files(tmp_path / "part"), files(collection)
    images = [path for path in part if path.suffix == ".jpg"]
    assert len(images) == 12
    assert every(part[path] == whole[path] for path in images)
    for name in ("train.csv", "valid.csv"):
        lines = (tmp_path / "part" / name).read_text().splitlines()
        assert (collection / name).read_text().splitlines()[: len(lines)] == lines


def test_form_is_that_of_chexpert(collection):
    patients, listed = defaultdict(set), set()
    for name in ("train", "valid"):
        assert (collection / f"{name}.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
        for row in rows(collection / f"{name}.csv"):
            folder, patient, view = PATH.fullmatch(row["Path"]).groups()
            assert folder == name
            patients[name].add(patient)
            relative = row["Path"].split("/", 1)[1]
            listed.add(relative)
            assert row["Sex"] in ("Female", "Male")
            assert 18 <= int(row["Age"]) <= 90
            assert row["Frontal/Lateral"].lower() == view
            assert row["AP/PA"] in (("AP", "PA") if view == "frontal" else ("",))
            assert every(row[label] in ("1.0", "0.0", "-1.0", "") for label in LABELS)
    assert patients["train"] and patients["valid"]
    assert not patients["train"] & patients["valid"]
    assert listed == {path.as_posix() for path in files(collection) if path.suffix == ".jpg"}


def test_images_are_grey_and_of_the_size_asked_for(collection):
    for path in collection.rglob("*.jpg"):
        with Image.open(path) as image:
            assert image.mode == "L"
            assert image.width == OPTIONS["size"]
            assert 0.95 <= image.height / image.width <= 1.17
            assert numpy.asarray(image).std() > 20


def test_views_of_a_study_share_their_labels_and_studies_their_patient(collection):
    labels, people = defaultdict(set), defaultdict(set)
    for row in rows(collection / "train.csv") + rows(collection / "valid.csv"):
        study = row["Path"].rsplit("/", 1)[0]
        labels[study].add(tuple(row[label] for label in LABELS))
        people[row["Path"].split("/")[2]].add((row["Sex"], row["Age"]))
    assert every(len(each) == 1 for each in [*labels.values(), *people.values()])


def test_the_reader_of_chexpert_reads_it(collection):
    found = read(collection, views=["frontal", "lateral"])
    assert found.labels == LABELS and found.notes == {"official splits": {"valid.csv": "test"}}
    tidy = found.table
    assert len(tidy) == OPTIONS["images"]
    assert every((collection / path).is_file() for path in tidy["path"])
    assert set(tidy["view"]) <= {"PA", "AP", "lateral"}
    clean = tidy[tidy["split"] == "test"]
    assert len(clean) and clean[list(LABELS)].isin([0.0, 1.0]).all(axis=None)


def test_a_collection_too_small_for_both_tables_is_refused(tmp_path):
    with pytest.raises(SeverityError, match="valid.csv would be empty"):
        collect(tmp_path / "out", tmp_path / "out", **OPTIONS | {"images": 2, "valid_fraction": 0.1})


# The labels


@pytest.fixture(scope="module")
def studies():
    """The studies of 6,000 images and their labels in train.csv before noise, without drawing."""
    found = [picture.study for picture in plan(0, 6_000, 0.2, 0.17) if picture.number == 1]
    return [(study, study_labels(study, "train", 0, 0.0)) for study in found]


def test_every_label_has_its_rate():
    assert {*RATES, NO_FINDING} == set(LABELS)


def test_noise_flips_mentions_at_the_stated_rate_and_nothing_else(studies):
    flips = mentions = 0
    for study, clean in studies:
        noisy = study_labels(study, "train", 0, 0.05)
        for label in LABELS:
            if clean[label] in (0.0, 1.0):
                mentions += 1
                flips += noisy[label] != clean[label]
            else:
                assert noisy[label] == clean[label] or numpy.isnan(noisy[label]) and numpy.isnan(clean[label])
    assert abs(flips / mentions - 0.05) < 4 * (0.05 * 0.95 / mentions) ** 0.5


def test_valid_is_the_truth_whatever_the_noise(studies):
    for study, _ in studies[:500]:
        assert study_labels(study, "valid", 0, 0.4) == truth(study.findings)
        drawn = {label for label, state in truth(study.findings).items() if state}
        assert drawn - {NO_FINDING, "Lung Opacity"} == set(study.findings) - {"Lung Opacity"}


def test_no_finding_excludes_all_but_devices(studies):
    for study, clean in studies:
        positive = {label for label in LABELS if truth(study.findings)[label]}
        assert (NO_FINDING in positive) == (positive <= {NO_FINDING, DEVICES})
        if clean[NO_FINDING] == 1:
            assert every(clean[label] not in (1.0, -1.0) for label in LABELS if label not in (NO_FINDING, DEVICES))


def test_an_opacity_of_any_kind_is_an_opacity():
    for label in OPACITIES:
        assert truth({label: 0.5})["Lung Opacity"] == 1
    assert truth({"Cardiomegaly": 0.5})["Lung Opacity"] == 0


def test_uncertain_ones_are_the_subtle_ones(studies):
    extents = {label: {1.0: [], -1.0: []} for label in RATES}
    for study, clean in studies:
        for label, extent in study.findings.items():
            extents[label][clean[label]].append(extent)
    for label, rate in RATES.items():
        doubtful, plain = extents[label][-1.0], extents[label][1.0]
        assert max(doubtful, default=0.0) <= min(plain)
        share = len(doubtful) / (len(doubtful) + len(plain))
        assert abs(share - rate.subtle) < 0.1, label


# Positives and uncertain ones among CheXpert's 223,414 training images; how far above it a rare finding may be drawn.
CHEXPERT = {
    "No Finding": (22_381, 0),
    "Enlarged Cardiomediastinum": (10_798, 12_403),
    "Cardiomegaly": (27_000, 8_087),
    "Lung Opacity": (105_581, 5_598),
    "Lung Lesion": (9_186, 1_488),
    "Edema": (52_246, 12_984),
    "Consolidation": (14_783, 27_742),
    "Pneumonia": (6_039, 18_770),
    "Atelectasis": (33_376, 33_739),
    "Pneumothorax": (19_448, 3_145),
    "Pleural Effusion": (86_187, 11_628),
    "Pleural Other": (3_523, 2_653),
    "Fracture": (9_040, 642),
    "Support Devices": (116_001, 1_079),
}
RAISED = {"Lung Lesion": 0.08, "Pneumonia": 0.05, "Pleural Other": 0.08, "Fracture": 0.07}


def test_prevalence_is_about_that_of_chexpert(studies):
    states = [clean for _, clean in studies]
    for label, (positive, uncertain) in CHEXPERT.items():
        for state, count in ((1.0, positive), (-1.0, uncertain)):
            drawn = numpy.mean([each[label] == state for each in states])
            real = count / 223_414
            assert real - 0.2 * real - 0.03 < drawn < real + 0.2 * real + 0.03 + RAISED.get(label, 0.0), (label, state)


@pytest.mark.parametrize("seed", range(3))
def test_valid_has_enough_of_each_finding(seed):
    clean = table(plan(seed, 3_000, 0.2, 0.17), "valid", seed, 0.05)
    assert {label: count for label in LABELS if (count := (clean[label] == "1.0").sum()) < 40} == {}


# The drawing


def patient(seed=0):
    healthy = patient_anatomy(numpy.random.default_rng(seed), seed)
    return replace(healthy, nipples=0.0, cartilage=0.0)


def chest(anatomy, *findings, pose=STRAIGHT):
    return radiographs.chest_with(anatomy, findings, pose, *SIZE)


def one_sided(label, extent, side, seed=3):
    return replace(finding(label, extent, seed), side=side, lobe="lower")


def measured_heart_ratio(drawn):
    """As radiologists measure it: greatest reach to the right plus greatest to the left, by the chest's width (2)."""
    dense = ndimage.gaussian_filter(drawn.tissue - drawn.air, 0.7)
    y, x = drawn.frame.y[:, 0], drawn.frame.x[0]
    left, right = [], []
    for row in numpy.flatnonzero((y > 0.95) & (y < drawn.anatomy.lung_height - 0.08)):
        lungs = numpy.quantile(dense[row][numpy.abs(x) < 0.9], 0.1)
        heart = dense[row][numpy.abs(x - 0.05) < 0.1].mean()
        regions, _ = ndimage.label(dense[row] > (lungs + heart) / 2)
        inside = x[regions == regions[numpy.abs(x - 0.05).argmin()]]
        left.append(inside.max())
        right.append(-inside.min())
    return (max(left) + max(right) + 1 / drawn.frame.unit) / 2  # From pixel centres to pixel borders.


@pytest.mark.parametrize("seed", range(6))
def test_heart_of_cardiomegaly_exceeds_the_normal_ratio(seed):
    healthy = patient(seed)
    assert measured_heart_ratio(chest(healthy)) < 0.48
    assert measured_heart_ratio(chest(healthy, finding("Cardiomegaly", 0.1, seed))) > 0.55


def test_heart_ratios_keep_to_the_textbook_on_pa_and_ap_films():
    for seed in range(300):
        for depth in (-0.14, 0.06):
            anatomy = inspired(patient_anatomy(numpy.random.default_rng(seed), seed), depth)
            for view in ("PA", "AP"):
                pose = replace(STRAIGHT, view=view)
                assert drawn_heart_ratio(anatomy, pose) < 0.48
                assert drawn_heart_ratio(bend(anatomy, [finding("Cardiomegaly", 0.0, 0)]), pose) > 0.55


@pytest.mark.parametrize("side", [RIGHT, LEFT])
def test_air_beyond_the_pleural_line_is_darker_and_without_texture(side):
    anatomy = patient()
    drawn, healthy = chest(anatomy, one_sided("Pneumothorax", 0.5, side)), chest(anatomy)
    beyond = (drawn.wall > 0.05) & (drawn.wall < 0.15) & (drawn.frame.y > 0.1) & (drawn.frame.y < 0.7)
    here, there = beyond & (numpy.sign(drawn.frame.x) == side), beyond & (numpy.sign(drawn.frame.x) == -side)
    dense = drawn.attenuation()
    assert dense[here].mean() < dense[there].mean() - 0.03
    assert drawn.markings[here].std() < 0.2 * drawn.markings[there].std()
    assert numpy.array_equal(drawn.markings[there], healthy.markings[there])


@pytest.mark.parametrize("side", [RIGHT, LEFT])
def test_effusion_brightens_the_costophrenic_angle_of_its_side(side):
    anatomy = patient()
    drawn, healthy = chest(anatomy, one_sided("Pleural Effusion", 0.5, side)), chest(anatomy)
    angle = (drawn.wall > 0.03) & (drawn.wall < 0.15) & (drawn.floor > 0.03) & (drawn.floor < 0.20)
    change = drawn.attenuation() - healthy.attenuation()
    assert change[angle & (numpy.sign(drawn.frame.x) == side)].mean() > 0.08
    assert numpy.abs(change[angle & (numpy.sign(drawn.frame.x) == -side)]).max() < 1e-6


def test_pneumonia_has_air_bronchograms_and_consolidation_has_none():
    anatomy = patient()
    even = chest(anatomy, one_sided("Consolidation", 0.8, RIGHT)).fill
    patchy = chest(anatomy, one_sided("Pneumonia", 0.8, RIGHT)).fill
    lobe = even > 0.8
    assert lobe.sum() > 300
    assert (patchy[lobe] < 0.4).mean() > 0.03
    assert (patchy[lobe] > 0.6).mean() > 0.8


def test_atelectasis_raises_the_diaphragm_of_its_side():
    anatomy = patient()
    bent = bend(anatomy, [one_sided("Atelectasis", 0.5, LEFT)])
    assert bent.dome[LEFT] > anatomy.dome[LEFT] + 0.1
    assert bent.dome[RIGHT] == anatomy.dome[RIGHT]
    assert bent.mediastinum_shift > 0


def test_fracture_breaks_ribs_of_its_side_only():
    anatomy = patient()
    whole, broken = chest(anatomy), chest(anatomy, one_sided("Fracture", 0.5, LEFT))
    assert len(broken.ribs) >= len(whole.ribs) + 3
    assert every(rib.side == LEFT for rib in broken.ribs[len(whole.ribs) :])


# Where on a frontal view, in thorax units, a finding on the patient's left may change the film.
PLACES = {
    "Enlarged Cardiomediastinum": lambda x, y: (abs(x) < 0.6) & (y < 1.1),
    "Cardiomegaly": lambda x, y: (abs(x) < 1.0) & (y > 0.3),
    "Lung Opacity": lambda x, y: x > 0,
    "Lung Lesion": lambda x, y: x > 0,
    "Edema": lambda x, y: (abs(x) < 1.0) & (y > 0),
    "Consolidation": lambda x, y: (x > 0) & (y > 0.7),
    "Pneumonia": lambda x, y: (x > 0) & (y > 0.7),
    "Atelectasis": lambda x, y: (y > 0.5) | (abs(x) < 0.5),  # The mediastinum moves too.
    "Pneumothorax": lambda x, y: (x > 0) & (x < 1.0),
    "Pleural Effusion": lambda x, y: (x > 0) & (y > 0.7),
    "Pleural Other": lambda x, y: x > 0.1,
    "Fracture": lambda x, y: x > 0.1,
    "Support Devices": lambda x, y: abs(x) < 2,
}


@pytest.mark.parametrize("label", RATES)
@pytest.mark.parametrize("seed", range(3))
def test_each_sign_changes_the_film_where_it_should(label, seed):
    anatomy, sign = patient(seed), one_sided(label, 0.6, LEFT, seed)
    film = radiographs.Film(centre=0.46, contrast=2.2, gamma=1.0, blur=0.5, noise=0.0, marker=False, border=0.0, seed=0)
    for view in ("PA", "lateral"):
        pose = replace(STRAIGHT, view=view)
        grey = [radiographs.expose(chest(anatomy, *signs, pose=pose), film).astype(float) for signs in ([], [sign])]
        change = numpy.abs(grey[1] - grey[0])
        assert (change > 12).sum() > 60, view
        if view == "PA":
            frame = chest(anatomy).frame
            assert change[PLACES[label](frame.x, frame.y)].sum() > 0.9 * change.sum()


@pytest.mark.parametrize("label", [label for label in RATES if label != DEVICES])
def test_a_worse_finding_changes_the_film_more(label):
    anatomy = patient()
    healthy = chest(anatomy).attenuation()
    mild, bad = (
        numpy.abs(chest(anatomy, one_sided(label, extent, LEFT)).attenuation() - healthy).sum()
        for extent in (0.05, 0.95)
    )
    assert bad > 1.1 * mild > 0

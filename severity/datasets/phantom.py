"""Phantom radiographs: a drawn collection in the form of CheXpert-v1.0-small, for use where no patient data may go.

Folders, columns and label states are CheXpert's (Irvin et al. 2019), so `read` and `LABELS` are that data set's own.
train.csv carries labels as mined from reports, with blanks, uncertain ones and noise; valid.csv is clean, 0 or 1
throughout. docs/phantoms.md describes what is drawn for each finding and how the labels arise.
Licence: that of this project, whose code draws every image.
"""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy
import pandas
from PIL import Image
from tqdm import tqdm

from severity.core.commands import die_with_parent
from severity.core.errors import SeverityError
from severity.core.files import replacing, write_csv
from severity.core.runs import seed_for
from severity.datasets.chexpert import LABELS, read
from severity.phantoms import labels as phantom_labels
from severity.phantoms import radiographs
from severity.phantoms.anatomy import inspired, patient_anatomy
from severity.phantoms.labels import Study, studies_of
from severity.phantoms.signs import finding

__all__ = ["LABELS", "collect", "read"]

TOP = "CheXpert-v1.0-small"  # First component of the column Path, as in the real collection.
JPEG_QUALITY = 90
STATES = {1.0: "1.0", 0.0: "0.0", -1.0: "-1.0"}  # As the real CSVs write them; blank for the unmentioned.
CHUNK = 16  # Images a worker draws before it reports.


@dataclass(frozen=True)
class Picture:
    """One image to draw."""

    study: Study
    number: int  # of the view, from 1
    view: str  # 'frontal' or 'lateral'
    folder: str  # 'train' or 'valid'

    @property
    def path(self) -> str:
        """Path relative to the collection's root."""
        patient, study = self.study.patient, self.study.number
        return f"{self.folder}/patient{patient:05d}/study{study}/view{self.number}_{self.view}.jpg"


def collect(
    root: Path | str,
    out: Path | str,
    *,
    images: int,
    size: int,
    valid_fraction: float,
    lateral_fraction: float,
    label_noise: float,
    seed: int,
    workers: int,
) -> int:
    """Draw a collection of phantom radiographs into `out`, replacing what is there.

    The same options give the same bytes, whatever `workers` is; a larger collection begins with the smaller one.

    Args:
        root: not used: the collection has no other source than this code.
        out: folder to hold train.csv, valid.csv, train/ and valid/.
        images: how many, train and valid together.
        size: width in pixels; the height is 0.96 to 1.16 times that.
        valid_fraction: share of the patients whose studies go to valid.csv.
        lateral_fraction: share of the studies that have a lateral view besides the frontal one.
        label_noise: chance that a mention (1 or 0) in train.csv is flipped.
        seed: of everything drawn at random.
        workers: processes; 0 means one a core.

    Returns:
        The number of images.

    Raises:
        SeverityError: so few images are asked for that one CSV would be empty.
    """
    pictures = plan(seed, images, valid_fraction, lateral_fraction)
    tables = {name: table(pictures, name, seed, label_noise) for name in ("train", "valid")}
    for name, frame in tables.items():
        if frame.empty:
            raise SeverityError(
                f"datasets.phantom.collect: with images = {images} and valid_fraction = {valid_fraction} "
                f"{name}.csv would be empty. Ask for more images or another valid_fraction in params.yaml."
            )
    with replacing(out) as temporary:
        temporary.mkdir()
        _draw_all(pictures, temporary, size, seed, workers)
        for name, frame in tables.items():
            write_csv(temporary / f"{name}.csv", frame)
    return len(pictures)


def plan(seed: int, images: int, valid_fraction: float, lateral_fraction: float) -> list[Picture]:
    """The first `images` images of the endless row of patients that `seed` stands for."""
    pictures: list[Picture] = []
    patient = 0
    while len(pictures) < images:
        patient += 1
        folder = "valid" if phantom_labels.is_valid(patient, valid_fraction) else "train"
        for study in studies_of(seed, patient, lateral_fraction):
            pictures += [Picture(study, number, view, folder) for number, view in enumerate(study.views, start=1)]
    return pictures[:images]


def table(pictures: list[Picture], folder: str, seed: int, label_noise: float) -> pandas.DataFrame:
    """train.csv or valid.csv, one row an image; all views of a study carry the same labels."""
    rows = []
    for picture in pictures:
        if picture.folder == folder:
            study, anatomy = picture.study, _anatomy(seed, picture.study.patient)
            labels = study_labels(study, folder, seed, label_noise)
            rows.append(
                {
                    "Path": f"{TOP}/{picture.path}",
                    "Sex": anatomy.sex,
                    "Age": anatomy.age,
                    "Frontal/Lateral": picture.view.capitalize(),
                    "AP/PA": study.projection if picture.view == "frontal" else None,
                    **{label: STATES.get(labels[label], "") for label in LABELS},
                }
            )
    return pandas.DataFrame(rows)


def study_labels(study: Study, folder: str, seed: int, label_noise: float) -> dict[str, float]:
    """The labels that train.csv (mined from a report, with noise) or valid.csv (the truth) has for a study."""
    if folder == "valid":
        return phantom_labels.truth(study.findings)
    rng = numpy.random.default_rng(seed_for("phantom", seed, study.patient, study.number, "report"))
    noise = numpy.random.default_rng(seed_for("phantom", seed, study.patient, study.number, "noise"))
    return phantom_labels.with_noise(phantom_labels.report(study.findings, rng), label_noise, noise)


def _anatomy(seed: int, patient: int):
    number = seed_for("phantom", seed, patient, "anatomy")
    return patient_anatomy(numpy.random.default_rng(number), number)


def picture_array(picture: Picture, size: int, seed: int) -> numpy.ndarray:
    """The image, height x width, uint8. It depends only on seed, patient, study, view and size."""
    study = picture.study
    visit = numpy.random.default_rng(seed_for("phantom", seed, study.patient, study.number, "visit"))
    anatomy = inspired(_anatomy(seed, study.patient), float(visit.uniform(-0.14, 0.06)))
    findings = [
        finding(label, extent, seed_for("phantom", seed, study.patient, _occasion(label, study), label))
        for label, extent in study.findings.items()
    ]
    view = study.projection if picture.view == "frontal" else "lateral"
    number = seed_for("phantom", seed, study.patient, study.number, picture.number, "film")
    rng = numpy.random.default_rng(number)
    pose, film = radiographs.random_pose(rng, view), radiographs.random_film(rng, view, number)
    height = round(size * float(rng.uniform(0.96, 1.16)))
    return radiographs.draw(anatomy, findings, pose, film, height=height, width=size)


def _occasion(label: str, study: Study) -> str:
    """What the place and shape of a finding belong to: to the patient if chronic, else to the study."""
    return "always" if phantom_labels.RATES[label].chronic else f"study{study.number}"


def _draw_all(pictures: list[Picture], folder: Path, size: int, seed: int, workers: int) -> None:
    for parent in {(folder / picture.path).parent for picture in pictures}:
        parent.mkdir(parents=True, exist_ok=True)
    chunks = [(pictures[start : start + CHUNK], folder, size, seed) for start in range(0, len(pictures), CHUNK)]
    workers = min(workers or os.cpu_count() or 1, len(chunks))
    with tqdm(total=len(pictures), desc="drawing", unit="image", disable=None) as bar:
        if workers == 1:
            for chunk in chunks:
                bar.update(_draw_chunk(chunk))
            return
        with ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), die_with_parent, (os.getpid(),)
        ) as pool:
            for done in pool.map(_draw_chunk, chunks):
                bar.update(done)


def _draw_chunk(chunk: tuple[list[Picture], Path, int, int]) -> int:
    pictures, folder, size, seed = chunk
    for picture in pictures:
        image = Image.fromarray(picture_array(picture, size, seed))
        image.save(folder / picture.path, quality=JPEG_QUALITY)
    return len(pictures)

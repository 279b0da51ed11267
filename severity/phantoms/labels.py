"""Who comes to be radiographed, what they have, and what the report says about it. No drawing here.

What is drawn (`Study.findings`) is the truth. `truth` states it as a radiologists' consensus would, 0 or 1 for each
label; `report` writes it as labels mined from a report look: mostly blank, uncertain where the sign is subtle or a
look-alike is present; `with_noise` then flips some of the mentions. Rates follow the training labels of CheXpert (Irvin
et al. 2019, 223,414 images); docs/phantoms.md has them side by side.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy

from severity.core.runs import seed_for

NO_FINDING = "No Finding"
LUNG_OPACITY = "Lung Opacity"
DEVICES = "Support Devices"  # The only one that may accompany No Finding.
OPACITIES = ("Edema", "Consolidation", "Pneumonia", "Atelectasis", "Lung Lesion")  # Each of them is a lung opacity too.


@dataclass(frozen=True)
class Rate:
    """How often a finding is there, and how a report mentions it.

    `present` is the chance that it is drawn, raised by `raised_by[other]` where `other` is drawn too. Of the drawn ones
    the slightest, a share of `subtle`, are written uncertain (-1), the others 1. One that is not drawn is written
    uncertain with chance `suspected` where one of `alike` is drawn, else 0 with chance `denied`, else left blank.
    """

    present: float
    subtle: float
    suspected: float
    denied: float
    alike: tuple[str, ...] = ()
    raised_by: Mapping[str, float] = field(default_factory=dict)
    chronic: bool = False  # The same in all studies of a patient.


# In an order in which causes come before what they raise. Lung Opacity: the haze that has no better name.
RATES: dict[str, Rate] = {
    "Cardiomegaly": Rate(0.145, 0.17, 0.14, 0.06, ("Enlarged Cardiomediastinum",), chronic=True),
    "Enlarged Cardiomediastinum": Rate(
        0.080, 0.42, 0.11, 0.11, ("Cardiomegaly",), {"Cardiomegaly": 0.12}, chronic=True
    ),
    "Edema": Rate(0.22, 0.13, 0.08, 0.13, ("Pleural Effusion", LUNG_OPACITY), {"Cardiomegaly": 0.35}),
    "Pleural Effusion": Rate(
        0.34, 0.08, 0.09, 0.28, ("Pleural Other", "Atelectasis"), {"Edema": 0.25, "Cardiomegaly": 0.10}
    ),
    "Consolidation": Rate(
        0.11, 0.45, 0.15, 0.155, ("Pneumonia", LUNG_OPACITY, "Atelectasis"), {"Pleural Effusion": 0.05}
    ),
    "Pneumonia": Rate(
        0.085, 0.45, 0.11, 0.014, ("Consolidation", LUNG_OPACITY, "Atelectasis"), {"Consolidation": 0.08}
    ),
    "Atelectasis": Rate(
        0.17, 0.36, 0.13, 0.009, ("Pleural Effusion", "Consolidation", "Edema"), {"Pleural Effusion": 0.16}
    ),
    "Pneumothorax": Rate(0.10, 0.10, 0.02, 0.28, ("Pleural Other",)),
    "Lung Lesion": Rate(0.095, 0.12, 0.03, 0.006, ("Consolidation",), chronic=True),
    "Pleural Other": Rate(0.095, 0.30, 0.02, 0.0015, ("Pleural Effusion",), chronic=True),
    "Fracture": Rate(0.095, 0.06, 0.0, 0.0115, chronic=True),
    LUNG_OPACITY: Rate(0.13, 0.12, 0.0, 0.06),
    DEVICES: Rate(0.38, 0.0, 0.0, 0.057, (), {"Edema": 0.22, "Pleural Effusion": 0.15, "Pneumothorax": 0.25}),
}
OPACITY_MENTIONED = 0.72  # How often a report calls an oedema, a consolidation, ... an opacity as well.
NO_FINDING_MENTIONED = 0.75  # How often a report of a normal image says that nothing was found.
PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41)  # Their square roots are independent of each other.
SKEW = 1.6  # Extents are uniform numbers raised to this power: slight findings are commoner than gross ones.
MEAN_STUDIES = 2.0
MOST_STUDIES = 6
BEDSIDE = 0.97  # Share of AP films among studies without a lateral view.


@dataclass(frozen=True)
class Study:
    """One visit: what is there (label to extent, 0 to 1), and which films are taken."""

    patient: int
    number: int  # from 1
    findings: dict[str, float]
    projection: str  # of the frontal view: 'PA' or 'AP'
    lateral: bool  # whether a lateral view is taken too

    @property
    def views(self) -> tuple[str, ...]:
        """'frontal', and 'lateral' if there is one, in the order of the view numbers."""
        return ("frontal", "lateral") if self.lateral else ("frontal",)


def studies_of(seed: int, patient: int, lateral_fraction: float) -> list[Study]:
    """All studies of a patient; they depend only on seed and patient."""
    rng = numpy.random.default_rng(seed_for("phantom", seed, patient, "studies"))
    count = min(int(rng.geometric(1 / MEAN_STUDIES)), MOST_STUDIES)
    chronic = {label: (_even_luck(seed, patient, label), float(rng.random())) for label in RATES}
    studies = []
    for number in range(1, count + 1):
        findings = _findings(rng, chronic)
        lateral = bool(rng.random() < lateral_fraction)
        bedside = bool(rng.random() < BEDSIDE) and not lateral
        studies.append(Study(patient, number, findings, "AP" if bedside else "PA", lateral))
    return studies


def _even_luck(seed: int, patient: int, label: str) -> float:
    """A number in [0, 1) that the row of patients fills evenly (Weyl's sequence, an irrational step for each label).

    Independent draws would leave a rare chronic finding now with 20, now with 80 images among 600.
    """
    step = math.sqrt(PRIMES[list(RATES).index(label)])
    return (seed_for("phantom", seed, label) / 2**63 + patient * step) % 1.0


def _findings(rng: numpy.random.Generator, chronic: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Which findings are there, and to what extent. `chronic` holds a patient's fixed random numbers for each label."""
    findings: dict[str, float] = {}
    for label, rate in RATES.items():
        luck, extent = rng.random(2)
        if rate.chronic:
            luck, extent = chronic[label][0], numpy.clip(chronic[label][1] + rng.normal(0, 0.08), 0, 1)
        chance = rate.present + sum(more for cause, more in rate.raised_by.items() if cause in findings)
        if luck < chance:
            findings[label] = float(extent**SKEW)
    return findings


def truth(findings: Mapping[str, float]) -> dict[str, float]:
    """0 or 1 for each label: what is drawn, and Lung Opacity wherever one of its kinds is drawn."""
    stated = {label: float(label in findings) for label in RATES}
    stated[LUNG_OPACITY] = float(LUNG_OPACITY in findings or any(label in findings for label in OPACITIES))
    stated[NO_FINDING] = float(not any(label != DEVICES for label in findings))
    return stated


def report(findings: Mapping[str, float], rng: numpy.random.Generator) -> dict[str, float]:
    """1, 0, -1 (uncertain) or NaN (not mentioned) for each label, without noise. See `Rate`.

    No Finding is 1 or not mentioned, as in CheXpert.
    """
    mentions = {}
    for label, rate in RATES.items():
        doubt, denial = rng.random(2)
        if label in findings:
            mentions[label] = -1.0 if findings[label] < rate.subtle**SKEW else 1.0
        elif doubt < rate.suspected and any(other in findings for other in rate.alike):
            mentions[label] = -1.0
        else:
            mentions[label] = 0.0 if denial < rate.denied else math.nan
    mentioned, nothing = rng.random(2)
    if LUNG_OPACITY not in findings and any(label in findings for label in OPACITIES):
        mentions[LUNG_OPACITY] = 1.0 if mentioned < OPACITY_MENTIONED else math.nan
    healthy = all(label == DEVICES for label in findings)
    mentions[NO_FINDING] = 1.0 if healthy and nothing < NO_FINDING_MENTIONED else math.nan
    return mentions


def with_noise(mentions: Mapping[str, float], rate: float, rng: numpy.random.Generator) -> dict[str, float]:
    """Flip each mention (1 or 0, not -1 or blank) with chance `rate`. No Finding, never 0, becomes blank."""
    noisy = {}
    for label, state in mentions.items():
        flipped = rng.random() < rate and state in (0.0, 1.0)
        opposite = math.nan if label == NO_FINDING else 1.0 - state
        noisy[label] = opposite if flipped else state
    return noisy


def is_valid(patient: int, valid_fraction: float) -> bool:
    """Whether a patient (numbered from 1) belongs to valid.csv: spread evenly, and the same in a larger collection."""
    return math.floor(patient * valid_fraction) > math.floor((patient - 1) * valid_fraction)

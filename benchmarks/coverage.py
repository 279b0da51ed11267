"""Whether statements about methods can be believed: coverage in simulated studies, and false alarms among equal trainings.

    python -m benchmarks.coverage                              coverage alone, a minute
    python -m benchmarks.coverage FOLDER [--only deals]        and the deals of eight trainings, two minutes

Coverage: studies of two methods whose true difference is known. Patients differ in difficulty and have one to four images;
what a mistake costs is 1, 2 or 4; mistakes of different networks on an image are alike, but not the same; each method suits
some patients more than others; and each seed errs more or less often than its method does. In each study the interval of
the difference is computed as `severity.comparison.methods` does; the share that holds the true one should be 95 %.

Deals: FOLDER holds the predictions of N trainings of one and the same configuration, which differ in the seed alone
(data/predictions of a study whose grid has one backbone, one loss and eight seeds; its tree and costs lie beside it). They
are dealt in all ways into two groups of 2, 3 and 4, as if they were two methods, and compared. Every verdict is a false alarm.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy

from severity.comparison import methods, profiles, resampling, scores
from severity.comparison.resampling import Ratios, Settings
from severity.core import commands, markdown, runs
from severity.core.hierarchy import Hierarchy
from severity.core.runs import Run
from severity.metrics import catalogue
from severity.predictions.predictions import Predictions
from severity.summary import statistics
from severity.tree import costs

LEVEL = 0.95
RULES = ("argmax", "crm")
SEEDS = (3, 4, 6)
DEALT = (2, 3, 4)
# Costs of a mistake, each as likely as the others.
COSTS = numpy.array([1.0, 2.0, 4.0])
SHIFT = 0.06  # of the probability of a mistake, from method to method
ALIKE = 0.8  # share of the images on which all networks share their luck


@dataclass(frozen=True)
class World:
    """What is simulated. patients: how many; seed: how far a seed's probability of a mistake is from its method's, at most;
    suits: how far a method's on a patient is from its mean, at most."""

    words: str
    patients: int
    seed: float
    suits: float


WORLDS = (
    World("100 patients, seeds a little apart", 100, 0.06, 0.2),
    World("100 patients, seeds far apart", 100, 0.1, 0.2),
    World("300 patients, seeds a little apart", 300, 0.06, 0.2),
    World("300 patients, seeds far apart", 300, 0.1, 0.2),
    World("300 patients, seeds apart by chance alone", 300, 0.0, 0.2),
)


def simulate(world: World, *, seeds: int, studies: int, random: numpy.random.Generator) -> tuple[list[Ratios], ...]:
    """For each of two methods a list with, for each of its seeds, the sums of the patients in `studies` studies: severity by
    images, (P, studies) each. The second method is right in `SHIFT` of the images more often."""
    patient = numpy.repeat(numpy.arange(world.patients), random.integers(1, 5, world.patients))
    images = (len(patient), studies)
    easy = random.uniform(0.4, 0.6, (world.patients, studies))[patient]
    luck, cost = random.random(images), random.choice(COSTS, images)
    shared = random.random(images) < ALIKE
    count = numpy.bincount(patient).astype(float)[:, None].repeat(studies, axis=1)
    sides = []
    for method in range(2):
        suits = random.uniform(-world.suits, world.suits, (world.patients, studies))[patient]
        side = []
        for _ in range(seeds):
            often = easy + suits + random.uniform(-world.seed, world.seed, studies) - SHIFT * method
            wrong = numpy.where(shared, luck, random.random(images)) < often
            severity = (wrong * cost).T
            side.append(Ratios(resampling.per_patient(severity, patient=patient, patients=world.patients), count))
        sides.append(side)
    return tuple(sides)


def sides_of(each: Sequence[Ratios], times: numpy.ndarray) -> list[methods.Side]:
    """The side of each study, from the sums of its seeds."""
    seeds = numpy.array([ratios.whole for ratios in each])
    drawn = numpy.array([resampling.draws(ratios, times=times).each for ratios in each])
    return [methods.Side(seeds[:, study], drawn[:, :, study].T, len(times[0])) for study in range(seeds.shape[1])]


def coverage(world: World, *, seeds: int, studies: int = 2000, block: int = 100) -> tuple[float, float]:
    """Share of studies whose interval holds the true difference: as methods, and as these networks."""
    random = numpy.random.default_rng([world.patients, seeds, round(1000 * world.seed)])
    true, held = SHIFT * COSTS.mean(), numpy.zeros(2)
    for number in range(studies // block):
        settings = Settings(resamples=600, permutations=1, level=LEVEL, seed=number)
        times = resampling.resample(patients=world.patients, settings=settings)
        a, b = (sides_of(each, times) for each in simulate(world, seeds=seeds, studies=block, random=random))
        for one, two in zip(a, b, strict=True):
            found = methods.difference(one, two, level=LEVEL)
            drawn = (one.whole - two.whole)[:, None]
            (lower,), (upper,) = resampling.interval(drawn, clusters=world.patients, level=LEVEL)
            held += [found.lower <= true <= found.upper, lower <= true <= upper]
    return tuple(held / studies)


def deals(numbers: Sequence[int], size: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """All ways to take two groups of a size; which is A does not matter."""
    for a in combinations(numbers, size):
        for b in combinations([number for number in numbers if number not in a], size):
            if a[0] < b[0]:
                yield a, b


def trainings(folder: Path) -> tuple[scores.Scores, profiles.Draw, Settings]:
    """The scores of all runs of a folder with predictions.

    Raises:
        SeverityError: a file is missing, or the runs are of different images.
    """
    hierarchy = Hierarchy.read(folder.parent / "hierarchy/hierarchy.json")
    cost = costs.read(folder.parent / "cost/cost.csv", hierarchy.classes)
    grid = sorted((runs.named(path.stem) for path in folder.glob("*.npz")), key=lambda run: run.seed)
    settings = Settings(resamples=2000, permutations=999, level=LEVEL, seed=0)

    def read(run: Run) -> Predictions:
        return Predictions.read(folder / f"{run.name}.npz", hierarchy)

    scored = scores.collect(read, grid, hierarchy, cost, rules=RULES)
    return scored, profiles.draw_patients(scored, read, settings), settings


def verdicts(scored: scores.Scores, drawn: profiles.Draw, settings: Settings, size: int) -> dict[tuple[str, str], list]:
    """Rule and metric -> of each deal into groups of a size, whether there is a verdict about methods, and one about these
    networks."""
    pairs = list(deals(range(len(scored.runs)), size))
    times = resampling.resample(patients=scored.patients, settings=settings)
    groups = list(combinations(range(len(scored.runs)), size))
    shown = {}
    for rule, word in enumerate(scored.rules):
        for metric in (each.name for each in catalogue.compared_by_image()):
            sides = methods.sides(scored, metric, [(group, rule) for group in groups], times=times)
            known = dict(zip(groups, sides, strict=True))
            a, b = (scored.ratio(metric, [(pair[side], rule) for pair in pairs]) for side in (0, 1))
            networks = resampling.compare(a=a, b=b, settings=settings)
            shown[word, metric] = [
                (_shown(methods.difference(known[one], known[two], level=LEVEL)), low * high > 0 and p < 1 - LEVEL)
                for (one, two), low, high, p in zip(pairs, networks.lower, networks.upper, networks.p, strict=True)
            ]
    known = {group: drawn.side(scored, group) for group in groups}
    shown[catalogue.EVERY_RULE, "macro_auroc"] = [
        (_shown(methods.difference(known[one], known[two], level=LEVEL)), _apart(known[one], known[two]))
        for one, two in pairs
    ]
    return shown


def _shown(found: methods.Difference) -> bool:
    words = statistics.verdict(
        difference=found.difference, lower=found.lower, upper=found.upper, p=found.p, level=LEVEL
    )
    return statistics.is_shown(words)


def _apart(a: methods.Side, b: methods.Side) -> bool:
    """Whether the interval over patients alone leaves out 0."""
    (lower,), (upper,) = resampling.interval((a.whole - b.whole)[:, None], clusters=a.patients, level=LEVEL)
    return lower * upper > 0


def coverage_table() -> str:
    """Coverage of methods, and of these networks behind it, in per cent."""
    lines = []
    for world in WORLDS:
        found = [coverage(world, seeds=seeds) for seeds in SEEDS]
        lines.append(
            [world.words, *(f"{100 * as_methods:.1f} ({100 * networks:.0f})" for as_methods, networks in found)]
        )
    return markdown.table(["simulated", *(f"{seeds} seeds a side" for seeds in SEEDS)], lines, words=1)


def deals_table(folder: Path) -> str:
    """Share of the deals with a verdict about methods, and about these networks behind it, in per cent."""
    scored, drawn, settings = trainings(folder)
    columns = {size: verdicts(scored, drawn, settings, size) for size in DEALT}
    headings = [f"groups of {size} ({len(next(iter(each.values())))} deals)" for size, each in columns.items()]
    lines = []
    for rule, metric in columns[DEALT[0]]:
        shares = [100 * numpy.mean(each[rule, metric], axis=0) for each in columns.values()]
        name = catalogue.named(metric).heading
        lines.append([rule, name, *(f"{as_methods:.1f} ({networks:.0f})" for as_methods, networks in shares)])
    names = ", ".join(run.name for run in scored.runs)
    about = f"{names}: {len(scored.truth):,} images of {scored.patients:,} patients\n\n"
    return about + markdown.table(["rule", "metric", *headings], lines, words=2)


def main() -> None:
    parser = commands.parser(__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="predictions of several trainings of one configuration")
    parser.add_argument("--only", choices=["coverage", "deals"], help="one of the two tables")
    options = parser.parse_args()
    if options.only != "deals":
        print(coverage_table())
    if options.folder and options.only != "coverage":
        print(deals_table(options.folder))


if __name__ == "__main__":
    main()

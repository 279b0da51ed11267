"""The findings of the phantom radiographs: one textbook sign a function.

A sign either bends the anatomy before it is drawn (`bend`: a wider heart, a raised diaphragm) or paints on the layers
of the drawn chest (`paint`), or both. Siblings in the label tree look alike on purpose: pneumonia is a consolidation
with air bronchograms; effusion, pleural thickening and pneumothorax meet at the pleura; oedema, haze and atelectasis in
the parenchyma; a large heart and a wide mediastinum at the midline.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy
from scipy import ndimage

from severity.phantoms.anatomy import (
    HILUM,
    LEFT,
    RIGHT,
    Anatomy,
    Chest,
    Strokes,
    back_wall,
    edge,
    ellipse,
    front_wall,
    heart_ellipse,
    thickness,
)

LOBES = ("upper", "middle", "lower")


@dataclass(frozen=True)
class Finding:
    """One finding of one study, the same on all of its views."""

    label: str
    extent: float  # 0 (barely visible) to 1 (as bad as drawn here)
    side: int  # RIGHT, LEFT, or 0: both
    lobe: str  # one of LOBES, for findings that keep to a lobe
    seed: int  # of position and shape

    @property
    def sides(self) -> tuple[int, ...]:
        """The sides it affects."""
        return (self.side,) if self.side else (RIGHT, LEFT)

    def rng(self) -> numpy.random.Generator:
        """Fresh random numbers for its shape; the same at each call."""
        return numpy.random.default_rng(self.seed)


def finding(label: str, extent: float, seed: int) -> Finding:
    """A finding with side, lobe and shape drawn from `seed`."""
    rng = numpy.random.default_rng(seed)
    both = rng.random() < BOTH_SIDES.get(label, 0.0)
    side = 0 if both else (RIGHT if rng.random() < 0.55 else LEFT)
    lobe = LOBES[int(rng.choice(3, p=(0.3, 0.2, 0.5)))]
    return Finding(label, extent, side, lobe, int(rng.integers(2**62)))


# How often a finding is on both sides.
BOTH_SIDES = {
    "Edema": 1.0,
    "Pleural Effusion": 0.35,
    "Lung Opacity": 0.25,
    "Pleural Other": 0.2,
    "Atelectasis": 0.25,
    "Lung Lesion": 0.3,
}


# Signs that change the anatomy


def bend(anatomy: Anatomy, findings: Iterable[Finding]) -> Anatomy:
    """The anatomy as the findings deform it."""
    for each in findings:
        if each.label in BENDS:
            anatomy = BENDS[each.label](anatomy, each)
    return anatomy


def _wide_heart(anatomy: Anatomy, sign: Finding) -> Anatomy:
    """Heart-chest ratio above 0.55 instead of below 0.48."""
    return replace(anatomy, heart_ratio=0.57 + 0.11 * sign.extent)


def _wide_mediastinum(anatomy: Anatomy, sign: Finding) -> Anatomy:
    return replace(
        anatomy, mediastinum=anatomy.mediastinum + 0.05 + 0.14 * sign.extent, knob=anatomy.knob + 0.05 * sign.extent
    )


def _cephalised(anatomy: Anatomy, sign: Finding) -> Anatomy:
    return replace(anatomy, cephalisation=anatomy.cephalisation + 0.2 + 0.6 * sign.extent)


def _lost_volume(anatomy: Anatomy, sign: Finding) -> Anatomy:
    """The diaphragm rises on the side, and the mediastinum moves there."""
    dome = {side: rise + (0.04 + 0.20 * sign.extent) * (side in sign.sides) for side, rise in anatomy.dome.items()}
    return replace(anatomy, dome=dome, mediastinum_shift=anatomy.mediastinum_shift + 0.09 * sign.extent * sign.side)


def _pushed_mediastinum(anatomy: Anatomy, sign: Finding) -> Anatomy:
    """Air under tension pushes the mediastinum away; only a large pneumothorax does."""
    push = 0.16 * max(sign.extent - 0.6, 0)
    return replace(anatomy, mediastinum_shift=anatomy.mediastinum_shift - push * sign.side)


BENDS: dict[str, Callable[[Anatomy, Finding], Anatomy]] = {
    "Cardiomegaly": _wide_heart,
    "Enlarged Cardiomediastinum": _wide_mediastinum,
    "Edema": _cephalised,
    "Atelectasis": _lost_volume,
    "Pneumothorax": _pushed_mediastinum,
}


# Signs that change the layers


def paint(chest: Chest, findings: Iterable[Finding]) -> None:
    """Paint the findings on the chest, those that remove lung last so that nothing is drawn into air or fluid."""
    by_label = {each.label: each for each in findings}
    for label, sign in PAINTS.items():
        if label in by_label:
            sign(chest, by_label[label])


def _noise(chest: Chest, rng: numpy.random.Generator, grain: float) -> numpy.ndarray:
    """Smooth random clouds, mean 0, deviation 1, with lumps about `grain` thorax units across."""
    height, width = chest.frame.shape
    coarse = rng.standard_normal(
        (round(height / chest.frame.unit / grain) + 3, round(width / chest.frame.unit / grain) + 3)
    )
    return ndimage.zoom(coarse, (height / coarse.shape[0], width / coarse.shape[1]), order=1).astype(numpy.float32)


def _in_lung(
    chest: Chest, rng: numpy.random.Generator, side: int, low: float = 0.25, high: float = 0.85
) -> tuple[float, float]:
    """A point of the lung of `side`; `low` and `high` bound its height as parts of the lung's height."""
    tall = chest.anatomy.lung_height
    y = float(rng.uniform(low, high)) * tall
    depth = float(rng.uniform(0.15, 0.85))
    if chest.frontal:
        inner = 0.42 + 0.10 * (side == LEFT) * (y > 0.6 * tall)
        outer = 0.84 - 0.30 * max(0.45 - y, 0)
        return side * (inner + (outer - inner) * depth), y
    front, back = float(front_wall(chest.anatomy, numpy.float32(y))), float(back_wall(chest.anatomy, numpy.float32(y)))
    return front + (back - front) * (0.2 + 0.6 * depth), y


def _lobe(chest: Chest, side: int, lobe: str, ragged: numpy.ndarray) -> numpy.ndarray:
    """0 to 1: the lobe's region. Its border at a fissure is sharp, its other border `ragged` (in thorax units)."""
    x, y, tall = chest.frame.x, chest.frame.y, chest.anatomy.lung_height
    if chest.frontal:
        fissure = numpy.float32(0.60 * tall) - 0.08 * numpy.abs(x)
    else:
        fissure = numpy.float32(0.58 * tall) + 0.75 * (numpy.float32(-0.05) - x)  # The oblique one, falling forwards.
    if lobe == "upper":
        region = edge(fissure - y, 0.05) * edge(y - 0.30 * tall + ragged, 0.25)
    elif lobe == "middle" and chest.frontal:
        region = edge(y - fissure, 0.05) * edge(0.60 - numpy.abs(x) + ragged, 0.25)
    elif lobe == "middle":
        region = edge(fissure - y, 0.05) * edge(y - numpy.float32(0.60 * tall), 0.05)
    elif chest.frontal:
        region = edge(y - fissure - 0.10 + ragged, 0.25)
    else:
        region = edge(y - fissure, 0.05) * edge(y - 0.62 * tall + ragged, 0.30)
    # On a lateral view the air of the other lung lies over the lobe and weakens its shadow.
    return region * (chest.side(side) if chest.frontal else 0.8)


def _haze(chest: Chest, sign: Finding) -> None:
    """Lung Opacity, not further specified: a vague patchy veil without borders."""
    rng = sign.rng()
    for side in sign.sides:
        centre = _in_lung(chest, rng, side, 0.35, 0.75)
        radii = rng.uniform(0.30, 0.48, 2) * (0.8 + 0.4 * sign.extent)
        spot = edge(ellipse(chest.frame, centre, tuple(radii), rng.uniform(-0.6, 0.6)) + 0.1, 1.2)
        clouds = numpy.clip(0.75 + 0.35 * _noise(chest, rng, 0.13), 0, 1.3)
        chest.flood((0.34 + 0.30 * sign.extent) * spot * clouds)


def _oedema(chest: Chest, sign: Finding) -> None:
    """Bat-wing haze about both hila, short level lines at the wall (Kerley B); `_cephalised` widens the vessels."""
    rng = sign.rng()
    clouds = 1 + 0.15 * _noise(chest, rng, 0.12)
    wings = chest.frame.empty()
    sides = (RIGHT, LEFT) if chest.frontal else (0,)
    for side in sides:
        centre = (side * 0.40 + chest.anatomy.mediastinum_shift, HILUM + 0.16)
        radii = (0.36 + 0.14 * sign.extent, 0.54 + 0.14 * sign.extent)
        wings = numpy.maximum(wings, edge(ellipse(chest.frame, centre, radii) + 0.15, 1.1))
    chest.flood((0.30 + 0.40 * sign.extent) * wings * clouds)
    lines = chest.frame.strokes()
    for side in sides:
        for y in numpy.arange(0.68, 0.98, 0.045) * chest.anatomy.lung_height:
            outer = side * 0.97 if chest.frontal else float(front_wall(chest.anatomy, numpy.float32(y))) + 0.03
            inwards = -side if chest.frontal else 1
            reach = rng.uniform(0.10, 0.20)
            lines.line(numpy.array([(outer, y), (outer + inwards * reach, y + rng.normal(0, 0.01))]), 0.016)
    chest.markings += (0.05 + 0.11 * sign.extent) * lines.layer() * chest.lung


def _consolidation(chest: Chest, sign: Finding) -> None:
    """A lobe filled evenly, with a sharp border at the fissure and no air left in it."""
    _fill_lobe(chest, sign, bronchograms=False)


def _pneumonia(chest: Chest, sign: Finding) -> None:
    """A lobe filled patchily, the air in its bronchi standing out dark: air bronchograms."""
    _fill_lobe(chest, sign, bronchograms=True)


def _fill_lobe(chest: Chest, sign: Finding, *, bronchograms: bool) -> None:
    rng = sign.rng()
    for side in sign.sides:
        ragged = 0.10 * _noise(chest, rng, 0.25) + 0.30 * (sign.extent - 0.4)
        amount = (0.66 + 0.26 * sign.extent) * _lobe(chest, side, sign.lobe, ragged)
        if bronchograms:
            amount = amount * (0.92 + 0.10 * _noise(chest, rng, 0.10))
            amount = amount * (1 - 0.85 * _bronchi(chest, rng, side))
        chest.flood(amount)


def _bronchi(chest: Chest, rng: numpy.random.Generator, side: int) -> numpy.ndarray:
    """0 to 1: the branching air-filled bronchi of one lung."""
    layer = chest.frame.strokes()
    outwards = side if chest.frontal else 1
    root = numpy.array([side * 0.20 if chest.frontal else 0.0, HILUM])
    for direction in numpy.linspace(-1.2, 1.3, 7) + rng.normal(0, 0.08, 7):
        if not chest.frontal:
            outwards = -outwards
        tip = root + 0.34 * numpy.array([outwards * numpy.cos(direction), numpy.sin(direction)])
        layer.line(numpy.array([root, tip]), 0.052)
        for turn in (-0.3, 0.3):
            angle = direction + turn + rng.normal(0, 0.08)
            end = tip + 0.34 * numpy.array([outwards * numpy.cos(angle), numpy.sin(angle)])
            layer.line(numpy.array([tip, end]), 0.042)
    return layer.layer()


def _atelectasis(chest: Chest, sign: Finding) -> None:
    """Plate-like bands above the diaphragm, which `_lost_volume` has raised."""
    rng = sign.rng()
    layer = chest.frame.strokes()
    for side in sign.sides:
        for _ in range(1 + round(2 * sign.extent)):
            x, y = _in_lung(chest, rng, side, 0.62, 0.86)
            half, slope = rng.uniform(0.24, 0.40), rng.normal(0, 0.22)
            thick = rng.uniform(0.032, 0.050) * (0.8 + 0.5 * sign.extent)
            t = numpy.linspace(-1, 1, 9)
            ridge = numpy.stack([x + half * t, y + half * slope * t + 0.04 * t * t], axis=1)
            taper = numpy.stack([0 * t, thick * (1.0 - 0.6 * t * t)], axis=1)
            layer.polygon(numpy.concatenate([ridge - taper, (ridge + taper)[::-1]]))
    bands = ndimage.gaussian_filter(layer.layer(), 0.6, truncate=2)
    chest.flood((0.50 + 0.35 * sign.extent) * bands)
    crowded = sum(chest.side(side) for side in sign.sides) * edge(0.28 - chest.floor, 0.3)
    chest.flood((0.15 + 0.25 * sign.extent) * crowded)


def _lesion(chest: Chest, sign: Finding) -> None:
    """One or a few round nodules, or a mass."""
    rng = sign.rng()
    count = 1 if sign.side else int(rng.integers(2, 6))
    biggest = (0.10 + 0.13 * sign.extent) / (1 if count == 1 else 1.35)
    for number in range(count):
        side = sign.sides[number % len(sign.sides)]
        x, y = _in_lung(chest, rng, side, 0.20, 0.80)
        radius = biggest * rng.uniform(0.75, 1.0)
        ball = ellipse(chest.frame, (x, y), (radius, radius * rng.uniform(0.85, 1.1)), rng.uniform(-1, 1))
        chest.tissue += (0.16 + 0.06 * sign.extent) * thickness(ball, 0.7) * chest.lung
        chest.flood(0.55 * edge(ball, 0.8))


def _pleural_other(chest: Chest, sign: Finding) -> None:
    """Thickened pleura: a rind along the wall, a cap on the apex, or calcified plaques."""
    rng = sign.rng()
    kind = ("rind", "cap", "plaque")[int(rng.integers(3))]
    tall = chest.anatomy.lung_height
    for side in sign.sides:
        lumps = 0.025 * _noise(chest, rng, 0.12)
        if kind == "cap":
            depth = 0.20 + 0.14 * sign.extent + lumps - 0.45 * numpy.clip(chest.frame.y - 0.26, 0, None)
        else:
            middle = numpy.float32(rng.uniform(0.5, 0.75) * tall)
            depth = 0.12 + 0.10 * sign.extent + lumps - 0.9 * numpy.abs(chest.frame.y - middle) ** 3
        rind = edge(depth - chest.wall, 0.06) * chest.side(side)
        chest.flood((0.92 if kind != "plaque" else 0.65) * rind)
        if kind == "plaque":
            flecks = numpy.clip(_noise(chest, rng, 0.07), 0.2, 1.6)
            chest.bone += (0.14 + 0.12 * sign.extent) * rind * flecks * chest.lung


def _effusion(chest: Chest, sign: Finding) -> None:
    """Fluid in the costophrenic angle with a meniscus that climbs the wall; a large one veils the whole lower lung."""
    tall, rng = chest.anatomy.lung_height, sign.rng()
    body = edge(chest.wall + 0.02, 0.08)
    for side in sign.sides:
        lesser = rng.uniform(0.5, 1.0) if side != sign.side else 1.0
        level = tall + 0.26 - 0.79 * (lesser * sign.extent) ** 1.3
        climb = (0.08 + 0.26 * sign.extent) * numpy.exp(-numpy.clip(chest.wall, 0, None) / numpy.float32(0.13))
        fluid = edge(chest.frame.y + climb - numpy.float32(level), 0.09) * chest.side(side)
        chest.flood(0.96 * fluid)
        # As dense as the abdomen, so that the diaphragm vanishes.
        chest.tissue += 0.14 * fluid * edge(chest.floor, 0.1) * body


def _pneumothorax(chest: Chest, sign: Finding) -> None:
    """A fine pleural line parallel to the wall; beyond it air without lung markings."""
    tall = chest.anatomy.lung_height
    for side in sign.sides:
        height = numpy.clip(chest.frame.y / numpy.float32(tall), 0, 1)
        gap = (0.12 + 0.30 * sign.extent) * (1.0 - (0.85 - 0.45 * sign.extent) * height)
        here = chest.side(side)
        beyond = edge(gap - chest.wall, 0.03) * here
        chest.markings *= 1 - beyond
        chest.fill *= 1 - beyond * edge(chest.floor - 0.1, 0.2)
        chest.air += 0.09 * beyond * chest.lung
        line = numpy.exp(-(((chest.wall - gap) / numpy.float32(0.022)) ** 2)) * here
        chest.tissue += 0.12 * line * chest.lung
        # The lung that remains is smaller and therefore denser.
        chest.flood((0.10 + 0.25 * sign.extent) * edge(chest.wall - gap, 0.05) * here)


def _fracture(chest: Chest, sign: Finding) -> None:
    """Fracture: neighbouring ribs broken, the outer piece displaced, with callus at an old break."""
    rng = sign.rng()
    parts = [number for number, rib in enumerate(chest.ribs) if rib.side == sign.side and rib.posterior]
    count = 3 + round(2 * sign.extent)
    first = int(rng.integers(1, len(parts) - count))
    callus = rng.random() < 0.5
    at = float(rng.uniform(0.40, 0.66))
    knots = chest.frame.strokes()
    for number in parts[first : first + count]:
        rib = chest.ribs[number]
        cut = round(at * (len(rib.course) - 1))
        step = (0.085 + 0.04 * sign.extent) * (1 if rng.random() < 0.6 else -1)
        inner, outer = rib.course[:cut], rib.course[cut + 1 :] + numpy.array([0, step])
        chest.ribs[number] = replace(rib, course=inner)
        chest.ribs.append(replace(rib, course=outer))
        if callus:
            # A spindle of new bone about the break.
            for place, radius in ((inner[-1], 0.052), ((inner[-1] + outer[0]) / 2, 0.068), (outer[0], 0.052)):
                knots.disc(tuple(place), radius * (1.05 + 0.35 * sign.extent))
        else:
            # Turned ends overlie the rib and look denser.
            knots.line(inner[-2:], 1.4 * rib.width)
            knots.line(outer[:2], 1.4 * rib.width)
    density = (0.25 + 0.10 * sign.extent) * (1.0 if chest.frontal else 0.8)
    chest.bone += density * ndimage.gaussian_filter(knots.layer(), 0.6, truncate=2)


def _devices(chest: Chest, sign: Finding) -> None:
    """Tubes, lines, wires and pacemakers, one to four of them."""
    rng = sign.rng()
    chosen = rng.permutation(len(DEVICES))[: 1 + int(3.2 * sign.extent**1.5)]
    metal, plastic = chest.frame.strokes(), chest.frame.strokes()
    for number in sorted(int(each) for each in chosen):
        DEVICES[number](chest, rng, metal, plastic)
    chest.metal += 0.34 * metal.layer() + 0.12 * plastic.layer()


def _curve(points: list[tuple[float, float]], bends: int = 9) -> numpy.ndarray:
    """A smooth line (n, 2) through the points (Catmull-Rom)."""
    knots = numpy.array([points[0], *points, points[-1]], dtype=float)
    t = numpy.linspace(0, 1, bends)[:, None]
    parts = []
    for a, b, c, d in zip(knots, knots[1:], knots[2:], knots[3:], strict=False):
        parts.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return numpy.concatenate(parts)


def _breathing_tube(chest: Chest, rng: numpy.random.Generator, metal: Strokes, plastic: Strokes) -> None:
    x = chest.anatomy.mediastinum_shift * 0.5 + (0.0 if chest.frontal else 0.03)
    course = _curve([(x - 0.02, -0.8), (x, -0.2), (x + 0.01, rng.uniform(0.35, 0.5))])
    plastic.line(course, 0.065, 1.0)
    metal.line(course, 0.020, 0.6)


def _stomach_tube(chest: Chest, rng: numpy.random.Generator, metal: Strokes, plastic: Strokes) -> None:
    tall = chest.anatomy.lung_height
    if chest.frontal:
        points = [(0.03, -0.8), (0.04, 0.4), (0.02, 1.2), (0.12, tall + 0.1), (0.35, tall + 0.35), (0.6, tall + 0.3)]
    else:
        points = [(0.10, -0.8), (0.16, 0.4), (0.16, 1.2), (0.02, tall + 0.1), (-0.15, tall + 0.3)]
    course = _curve([(x + float(rng.normal(0, 0.015)), y) for x, y in points])
    plastic.line(course, 0.050, 1.0)
    metal.line(course, 0.018, 0.8)


def _electrodes(chest: Chest, rng: numpy.random.Generator, metal: Strokes, plastic: Strokes) -> None:
    for place in ((-0.62, 0.22), (0.62, 0.20), (-0.72, 1.35), (0.76, 1.30))[: int(rng.integers(3, 5))]:
        x, y = place[0] * (1 if chest.frontal else 0.6) + rng.normal(0, 0.06), place[1] + rng.normal(0, 0.06)
        metal.disc((x, y), 0.050, 0.85)
        out = numpy.sign(x) * 1.6
        wire = [(x, y), (x * 0.8 + 0.1 * out, y + 0.25), (0.55 * out, y + rng.uniform(0.1, 0.7)), (out, y + 0.6)]
        plastic.line(_curve(wire), 0.024, 1.0)


def _pacemaker(chest: Chest, rng: numpy.random.Generator, metal: Strokes, plastic: Strokes) -> None:
    tip_y = chest.anatomy.lung_height - 0.05
    if chest.frontal:
        x, y = 0.68 + rng.normal(0, 0.03), 0.30 + rng.normal(0, 0.04)
        (heart, _), _, _ = heart_ellipse(chest.anatomy, chest.pose)
        leads = [
            [(x, y), (0.40, 0.02), (-0.02, 0.14), (-0.16, 0.60), (-0.14, 1.0), (heart + 0.1 * k, tip_y - 0.25 * k)]
            for k in range(int(rng.integers(1, 3)))
        ]
    else:
        x, y = float(front_wall(chest.anatomy, numpy.float32(0.3))) - 0.02, 0.30
        leads = [[(x, y), (-0.2, 0.1), (0.0, 0.5), (-0.1, 1.0), (-0.35, tip_y)]]
    for lead in leads:
        metal.line(_curve(lead), 0.024, 0.75)
    wide = 0.13 if chest.frontal else 0.04
    turn = numpy.linspace(0, 2 * numpy.pi, 17)
    case = numpy.stack([x + wide * numpy.cos(turn), y + 0.105 * numpy.sin(turn)], axis=1)
    metal.polygon(case, 1.0)


def _central_line(chest: Chest, rng: numpy.random.Generator, metal: Strokes, plastic: Strokes) -> None:
    tip = (-0.13 + chest.anatomy.mediastinum_shift, rng.uniform(0.65, 0.95))
    if not chest.frontal:
        course = _curve([(0.1, -0.6), (0.02, 0.1), (-0.02, tip[1])])
    elif rng.random() < 0.5:
        course = _curve([(-0.35, -0.6), (-0.22, -0.1), (-0.15, 0.35), tip])
    else:
        side = RIGHT if rng.random() < 0.5 else LEFT
        course = _curve([(side * 0.95, 0.35), (side * 0.6, 0.08), (side * 0.15, 0.12), (-0.14, 0.40), tip])
    plastic.line(course, 0.042, 1.0)
    metal.line(course, 0.022, 1.0)


def _chest_tube(chest: Chest, rng: numpy.random.Generator, metal: Strokes, plastic: Strokes) -> None:
    side = RIGHT if rng.random() < 0.5 else LEFT
    if chest.frontal:
        points = [(side * 1.5, 1.45), (side * 1.0, 1.20), (side * 0.70, 0.80), (side * 0.52, 0.30)]
    else:
        points = [(-0.1, 1.7), (0.1, 1.25), (0.25, 0.8), (0.15, 0.25)]
    course = _curve(points)
    plastic.line(course, 0.070, 0.9)
    metal.line(course, 0.020, 0.9)


DEVICES = (_breathing_tube, _stomach_tube, _electrodes, _pacemaker, _central_line, _chest_tube)

# In the order of painting. Devices lie over everything; a rib must be broken before the bones are drawn.
PAINTS: dict[str, Callable[[Chest, Finding], None]] = {
    "Lung Opacity": _haze,
    "Edema": _oedema,
    "Consolidation": _consolidation,
    "Pneumonia": _pneumonia,
    "Atelectasis": _atelectasis,
    "Lung Lesion": _lesion,
    "Pleural Other": _pleural_other,
    "Pleural Effusion": _effusion,
    "Pneumothorax": _pneumothorax,
    "Fracture": _fracture,
    "Support Devices": _devices,
}

"""Phantoms with IRMA codes: simple drawings of body parts whose look follows from the four axes of their code.

No image of the IRMA collection may be passed on, so these stand in for it. The code tables are a small extract in
IRMA's form, enough for the codes drawn here; they are not the collection's own. docs/data.md describes what each axis
does.

Drawings live in the square from -1 to 1, x to the right, y downwards. Two layers, soft tissue and bone, are drawn as
polygons, several times too large, and averaged down.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy
from PIL import Image, ImageDraw

from severity.irma import codes as irma_codes

OVERSAMPLING = 3
MARKED = 0.8  # share of the films with lead marks

# Axis -> prefix -> name; 0 stands wherever a path may end although it could go on.
TABLES = {
    "technical": {
        "0": "unspecified",
        "1": "x-ray",
        "10": "unspecified",
        "11": "plain radiography",
        "110": "unspecified",
        "112": "analog",
        "1120": "unspecified",
        "1121": "overview image",
        "1123": "high beam energy",
        "1124": "low beam energy",
        "12": "fluoroscopy",
        "2": "sonography",
    },
    "directional": {
        "0": "unspecified",
        "1": "coronal",
        "10": "unspecified",
        "11": "posteroanterior",
        "12": "anteroposterior",
        "120": "unspecified",
        "127": "supine",
        "2": "sagittal",
        "20": "unspecified",
        "21": "lateral, right-left",
        "22": "lateral, left-right",
        "3": "axial",
        "30": "unspecified",
        "31": "craniocaudal",
    },
    "anatomical": {
        "0": "unspecified",
        "2": "cranium",
        "3": "spine",
        "30": "unspecified",
        "31": "cervical spine",
        "32": "thoracic spine",
        "33": "lumbar spine",
        "4": "upper extremity",
        "40": "unspecified",
        "41": "hand",
        "410": "unspecified",
        "414": "left hand",
        "415": "right hand",
        "5": "chest",
        "6": "breast",
        "60": "unspecified",
        "61": "right breast",
        "62": "left breast",
        "7": "abdomen",
        "8": "pelvis",
        "9": "lower extremity",
        "90": "unspecified",
        "91": "foot",
        "910": "unspecified",
        "914": "left foot",
        "915": "right foot",
        "94": "knee",
        "940": "unspecified",
        "942": "left knee",
        "943": "right knee",
    },
    "biological": {
        "0": "unspecified",
        "4": "gastrointestinal system",
        "5": "uropoietic system",
        "6": "reproductive system",
        "60": "unspecified",
        "62": "female reproductive system",
        "620": "unspecified",
        "625": "breast",
        "7": "musculoskeletal system",
    },
}


@dataclass
class Sheet:
    """What is drawn: polygons on a layer, moved, turned and mirrored as the patient lies."""

    size: int
    matrix: numpy.ndarray  # (2, 2)
    shift: numpy.ndarray  # (2,)
    layers: dict[str, Image.Image] = field(default_factory=dict)

    def polygon(self, layer: str, points: Sequence[Sequence[float]], density: float) -> None:
        """Fill a polygon; density from 0 to 1 replaces what was there."""
        side = self.size * OVERSAMPLING
        if layer not in self.layers:
            self.layers[layer] = Image.new("L", (side, side))
        moved = numpy.asarray(points, dtype=float) @ self.matrix.T + self.shift
        pixels = (moved + 1) / 2 * side
        ImageDraw.Draw(self.layers[layer]).polygon([tuple(point) for point in pixels], fill=round(255 * density))

    def ellipse(self, layer: str, x: float, y: float, width: float, height: float, density: float) -> None:
        """Fill an ellipse with the given half axes."""
        angle = numpy.linspace(0, 2 * numpy.pi, 36, endpoint=False)
        self.polygon(layer, numpy.stack([x + width * numpy.cos(angle), y + height * numpy.sin(angle)], axis=1), density)

    def rod(self, layer: str, start: Sequence[float], end: Sequence[float], width: float, density: float) -> None:
        """Fill the strip of half width `width` from one point to another."""
        start, end = numpy.asarray(start, dtype=float), numpy.asarray(end, dtype=float)
        along = end - start
        across = numpy.array([-along[1], along[0]]) / numpy.hypot(*along) * width
        self.polygon(layer, [start + across, end + across, end - across, start - across], density)

    def layer(self, name: str) -> numpy.ndarray:
        """(size, size) float, 0 to 1."""
        if name not in self.layers:
            return numpy.zeros((self.size, self.size))
        small = self.layers[name].resize((self.size, self.size), Image.Resampling.BOX)
        return numpy.asarray(small, dtype=float) / 255


def _cranium(sheet: Sheet, lateral: bool, text: str) -> None:
    width = 0.78 if lateral else 0.6
    sheet.ellipse("soft", 0, -0.1, width, 0.8, 0.6)
    sheet.ellipse("bone", 0, -0.15, width - 0.04, 0.68, 0.9)
    sheet.ellipse("bone", 0, -0.15, width - 0.13, 0.58, 0.3)
    if lateral:
        sheet.rod("bone", (-0.1, 0.45), (-0.62, 0.66), 0.08, 0.8)
        sheet.ellipse("bone", -0.52, 0.08, 0.12, 0.12, 0.1)
    else:
        for side in (-1, 1):
            sheet.ellipse("bone", side * 0.24, 0.05, 0.14, 0.12, 0.1)
        sheet.rod("bone", (-0.25, 0.55), (0.25, 0.55), 0.06, 0.95)


def _spine(sheet: Sheet, lateral: bool, text: str) -> None:
    # Number and half width of the vertebrae, and of the body around them.
    number, bone, body = {"1": (7, 0.13, 0.35), "2": (9, 0.16, 0.85), "3": (5, 0.24, 0.75)}.get(text[1], (7, 0.18, 0.6))
    sheet.rod("soft", (0, -1.2), (0, 1.2), body, 0.5)
    for index in range(number):
        y = -0.95 + 1.9 * (index + 0.5) / number
        x = 0.18 * numpy.cos(2 * y) - 0.1 if lateral else 0.0
        height = 0.7 / number
        if lateral:
            sheet.rod("bone", (x, y), (x + 2.4 * bone, y + 0.14), 0.04, 0.6)
        elif text[1] == "2":
            for side in (-1, 1):
                sheet.rod("bone", (0, y), (side * 0.8, y + 0.2), 0.035, 0.5)
        sheet.polygon(
            "bone",
            [(x - bone, y - height), (x + bone, y - height), (x + bone, y + height), (x - bone, y + height)],
            0.85,
        )


def _hand(sheet: Sheet, lateral: bool, text: str) -> None:
    side = -1 if text[2] == "5" else 1
    sheet.ellipse("soft", 0, 0.45, 0.42, 0.45, 0.55)
    for finger in range(4):
        tip = (side * (-0.42 + 0.27 * finger), -0.75 + 0.16 * abs(finger - 1.3))
        foot = (side * (-0.26 + 0.17 * finger), 0.3)
        sheet.rod("soft", foot, tip, 0.1, 0.55)
        sheet.rod("bone", foot, tip, 0.045, 0.85)
    sheet.rod("soft", (side * -0.25, 0.5), (side * -0.8, 0.0), 0.11, 0.55)
    sheet.rod("bone", (side * -0.25, 0.5), (side * -0.78, 0.02), 0.05, 0.85)
    for x in (-0.13, 0.13):
        sheet.rod("bone", (x, 0.62), (x, 1.2), 0.09, 0.8)


def _foot(sheet: Sheet, lateral: bool, text: str) -> None:
    side = -1 if text[2] == "5" else 1
    sheet.ellipse("soft", 0, 0.1, 0.42, 0.95, 0.6)
    sheet.ellipse("bone", side * 0.05, 0.62, 0.26, 0.3, 0.8)
    for toe in range(5):
        tip = (side * (-0.34 + 0.16 * toe), -0.8 + 0.09 * toe)
        sheet.rod("bone", (side * (-0.2 + 0.1 * toe), 0.35), tip, 0.07 if toe == 0 else 0.04, 0.85)


def _knee(sheet: Sheet, lateral: bool, text: str) -> None:
    side = -1 if text[2] == "3" else 1
    sheet.rod("soft", (0, -1.2), (0, 1.2), 0.6, 0.55)
    sheet.rod("bone", (0, -1.2), (0, -0.3), 0.2, 0.8)
    sheet.rod("bone", (0, 0.2), (0, 1.2), 0.19, 0.8)
    sheet.ellipse("bone", 0, -0.2, 0.42, 0.2, 0.85)
    sheet.ellipse("bone", 0, 0.22, 0.4, 0.14, 0.85)
    sheet.rod("bone", (side * 0.38, 0.35), (side * 0.38, 1.2), 0.07, 0.7)
    if lateral:
        sheet.ellipse("bone", -0.55, -0.25, 0.1, 0.2, 0.9)


def _chest(sheet: Sheet, lateral: bool, text: str) -> None:
    sheet.ellipse("soft", 0, 0.05, 0.7 if lateral else 0.95, 1.0, 0.6)
    if lateral:
        sheet.ellipse("soft", -0.05, -0.05, 0.48, 0.72, 0.12)
        sheet.rod("bone", (0.42, -0.9), (0.5, 1.0), 0.09, 0.7)
        sheet.ellipse("soft", -0.22, 0.25, 0.26, 0.3, 0.55)
        return
    for side in (-1, 1):
        sheet.ellipse("soft", side * 0.42, -0.05, 0.34, 0.68, 0.12)
        for rib in range(5):
            y = -0.6 + 0.27 * rib
            sheet.rod("bone", (side * 0.1, y), (side * 0.78, y + 0.16), 0.03, 0.45)
    sheet.rod("bone", (0, -1.0), (0, 1.0), 0.1, 0.6)
    sheet.ellipse("soft", 0.14, 0.3, 0.32, 0.3, 0.65)


def _breast(sheet: Sheet, lateral: bool, text: str) -> None:
    side = -1 if text[1] == "1" else 1
    sheet.ellipse("soft", side * -1.0, 0.0, 1.35, 0.8, 0.5)
    for angle in (-0.35, 0.0, 0.35):
        sheet.rod("soft", (side * -0.9, 1.4 * angle), (side * 0.25, 0.2 * angle), 0.05, 0.85)


def _abdomen(sheet: Sheet, lateral: bool, text: str) -> None:
    sheet.ellipse("soft", 0, 0, 0.92, 1.15, 0.55)
    for index in range(5):
        sheet.ellipse("bone", 0, -0.75 + 0.32 * index, 0.15, 0.12, 0.7)
    for side in (-1, 1):
        sheet.ellipse("bone", side * 0.55, 0.92, 0.32, 0.26, 0.6)


def _pelvis(sheet: Sheet, lateral: bool, text: str) -> None:
    sheet.ellipse("soft", 0, 0, 1.0, 0.95, 0.55)
    sheet.ellipse("bone", 0, -0.15, 0.75, 0.55, 0.75)
    sheet.ellipse("bone", 0, -0.1, 0.38, 0.33, 0.05)
    for side in (-1, 1):
        sheet.ellipse("bone", side * 0.28, 0.42, 0.14, 0.12, 0.1)
        sheet.ellipse("bone", side * 0.68, 0.2, 0.18, 0.18, 0.9)
        sheet.rod("bone", (side * 0.7, 0.3), (side * 0.78, 1.2), 0.11, 0.8)


Part = Callable[[Sheet, bool, str], None]
PARTS: dict[str, Part] = {
    "2": _cranium,
    "3": _spine,
    "4": _hand,
    "5": _chest,
    "6": _breast,
    "7": _abdomen,
    "8": _pelvis,
    "91": _foot,
    "94": _knee,
}


def _organs(sheet: Sheet, text: str) -> None:
    """What the biological axis adds: contrast medium in the bowel, or kidneys and ureters."""
    if text[0] == "4":
        bends = [(-0.6, 0.55), (-0.55, -0.45), (0.0, -0.3), (0.55, -0.5), (0.6, 0.5), (0.1, 0.7)]
        for start, end in zip(bends, bends[1:], strict=False):
            sheet.rod("soft", start, end, 0.09, 1.0)
    elif text[0] == "5":
        for side in (-1, 1):
            sheet.ellipse("soft", side * 0.42, -0.3, 0.15, 0.26, 1.0)
            sheet.rod("soft", (side * 0.36, -0.1), (side * 0.12, 0.75), 0.03, 1.0)


def _marks(text: str) -> list[tuple[float, float, float, float]]:
    """Lead marks at the border that show the direction: left, top, right, bottom."""
    marks = {"11": [(0.62, -0.92, 0.88, -0.8)], "12": [(-0.88, -0.92, -0.62, -0.8)], "31": [(-0.15, 0.82, 0.15, 0.92)]}
    boxes = marks.get(text[:2], [])
    return [*boxes, (-0.95, 0.9, 0.95, 0.95)] if text == "127" else boxes


def draw(code: str, rng: numpy.random.Generator, size: int) -> numpy.ndarray:
    """A phantom for an IRMA code: (height, size) uint8, the height 0.9 to 1.2 times the width.

    Args:
        code: one whose anatomical axis begins with a key of PARTS.
        rng: of place, angle, scale, exposure and noise.
    """
    technical, directional, anatomical, biological = irma_codes.parse(code)
    lateral = directional[0] == "2"
    angle, scale = rng.normal(0, 0.15), rng.uniform(0.62, 1.0)
    turn = numpy.array([[numpy.cos(angle), -numpy.sin(angle)], [numpy.sin(angle), numpy.cos(angle)]])
    mirror = -1 if directional[:2] == "22" else 1
    sheet = Sheet(size, scale * turn @ numpy.diag([mirror, 1]), rng.normal(0, 0.1, 2))
    part = next(each for prefix, each in PARTS.items() if anatomical.startswith(prefix))
    part(sheet, lateral, anatomical)
    _organs(sheet, biological)
    bones = 1.0 if biological[0] == "7" else 0.55
    dense = 0.55 * sheet.layer("soft") + 0.6 * bones * sheet.layer("bone")
    still = Sheet(size, numpy.eye(2), numpy.zeros(2))
    for left, top, right, bottom in _marks(directional) if rng.random() < MARKED else ():
        still.polygon("lead", [(left, top), (right, top), (right, bottom), (left, bottom)], 1.0)
    grey = _exposed(numpy.maximum(dense, still.layer("lead")), technical, rng)
    height = round(size * rng.uniform(0.9, 1.2))
    picture = Image.fromarray(numpy.round(numpy.clip(grey, 0, 1) * 255).astype(numpy.uint8))
    return numpy.asarray(picture.resize((size, height), Image.Resampling.BILINEAR))


def _exposed(dense: numpy.ndarray, technical: str, rng: numpy.random.Generator) -> numpy.ndarray:
    """What the technical axis makes of the attenuation (size, size): grey from 0 to 1."""
    place = numpy.linspace(-1, 1, len(dense))
    x, y = place[None, :], place[:, None]
    noise = rng.normal(0, 1, dense.shape)
    bright, dense = rng.uniform(-0.08, 0.08), dense * rng.uniform(0.6, 1.1)
    if technical[0] == "2":  # a fan of speckle
        fan = (y > 1.6 * numpy.abs(x) - 0.95) & (numpy.hypot(x, y + 0.95) < 1.8)
        return fan * (0.15 + bright + dense) * numpy.exp(0.45 * noise)
    if technical.startswith("12"):  # a round field, dark where it is dense
        return (numpy.hypot(x, y) < 0.97) * (0.95 + bright - 0.85 * dense + 0.08 * noise)
    contrast = {"1123": 0.65, "1124": 1.35}.get(technical, 1.0)
    return 0.1 + bright + contrast * dense + 0.08 * noise

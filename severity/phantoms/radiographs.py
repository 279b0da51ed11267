"""Phantom radiographs: drawings of a chest with chosen findings, exposed on film with the usual imperfections."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from scipy import ndimage

from severity.phantoms.anatomy import LEFT, RIGHT, Anatomy, Chest, Pose, add_bones, healthy_chest
from severity.phantoms.signs import Finding, bend, paint


@dataclass(frozen=True)
class Film:
    """How a film is exposed and read."""

    centre: float  # attenuation that comes out mid-grey
    contrast: float
    gamma: float
    blur: float  # standard deviation, pixels
    noise: float  # standard deviation, parts of full scale
    marker: bool  # a letter L or R next to the patient
    border: float  # width of the unexposed border, pixels
    seed: int  # of the noise


def random_pose(rng: numpy.random.Generator, view: str) -> Pose:
    """A pose for a view 'PA', 'AP' or 'lateral'; AP films are taken lying or sitting, less straight, with arms down."""
    bedside = view == "AP"
    loose = 1.6 if bedside else 1.0
    return Pose(
        view=view,
        centre=(float(rng.normal(0, 0.05)) * loose, float(rng.uniform(0.84, 1.04))),
        width=float(rng.uniform(2.30, 2.62) if view == "lateral" else rng.uniform(2.35, 2.85)),
        tilt=float(rng.normal(0, 0.03)) * loose,
        turn=float(numpy.clip(rng.normal(0, 0.03) * loose, -0.09, 0.09)),
        arms=float(rng.uniform(0.05, 0.25) if bedside else rng.uniform(0.15, 0.6)),
        veil=float(rng.uniform(0.0, 0.35) if bedside else rng.uniform(0.0, 0.12)),
        fold=float(rng.uniform(0.12, 0.35)) if bedside and rng.random() < 0.12 else 0.0,
    )


def random_film(rng: numpy.random.Generator, view: str, seed: int) -> Film:
    """Exposure, blur and noise for a view; bedside films are flatter and noisier."""
    bedside = view == "AP"
    return Film(
        centre=float(rng.uniform(0.38, 0.56)),
        contrast=float(rng.uniform(1.5, 2.2) if bedside else rng.uniform(1.8, 2.7)),
        gamma=float(rng.uniform(0.75, 1.3)),
        blur=float(rng.uniform(0.35, 0.75) if bedside else rng.uniform(0.25, 0.6)),
        noise=float(rng.uniform(0.010, 0.028) if bedside else rng.uniform(0.005, 0.012)),
        marker=bool(rng.random() < 0.75),
        border=float(rng.uniform(2, 7)) if rng.random() < 0.2 else 0.0,
        seed=seed,
    )


def draw(
    anatomy: Anatomy, findings: Sequence[Finding], pose: Pose, film: Film, *, height: int, width: int
) -> numpy.ndarray:
    """A radiograph, height x width, uint8, white = dense."""
    return expose(chest_with(anatomy, findings, pose, height, width), film)


def chest_with(anatomy: Anatomy, findings: Sequence[Finding], pose: Pose, height: int, width: int) -> Chest:
    """The drawn chest before exposure."""
    chest = healthy_chest(bend(anatomy, findings), pose, height, width)
    paint(chest, findings)
    add_bones(chest)
    return chest


def expose(chest: Chest, film: Film) -> numpy.ndarray:
    """Turn attenuation into grey values (height x width, uint8)."""
    rng = numpy.random.default_rng(film.seed)
    dense = chest.attenuation()
    if film.marker:
        dense = numpy.maximum(dense, _marker(chest, rng))
    if film.blur:
        dense = ndimage.gaussian_filter(dense, film.blur, truncate=2.5)
    # Film and display respond in an S to what reaches them.
    grey = 0.5 + 0.5 * numpy.tanh((dense - numpy.float32(film.centre)) * numpy.float32(film.contrast))
    grey = grey ** numpy.float32(film.gamma)
    grain = rng.standard_normal(grey.shape, dtype=numpy.float32)
    grey += numpy.float32(film.noise) * ndimage.uniform_filter(grain, 2) * 2
    if film.border:
        edge = round(film.border)
        framed = numpy.zeros_like(grey)
        framed[edge:-edge, edge:-edge] = grey[edge:-edge, edge:-edge]
        grey = framed
    return numpy.round(numpy.clip(grey, 0, 1) * 255).astype(numpy.uint8)


LETTERS = {
    RIGHT: [[(0, 1), (0, 0), (0.55, 0), (0.6, 0.25), (0.55, 0.5), (0, 0.5)], [(0.25, 0.5), (0.65, 1)]],
    LEFT: [[(0, 0), (0, 1), (0.6, 1)]],
}


def _marker(chest: Chest, rng: numpy.random.Generator) -> numpy.ndarray:
    """A lead letter at an upper corner, on the side it names."""
    side = LEFT if not chest.frontal or rng.random() < 0.6 else RIGHT
    reach_x, reach_y = chest.frame.shape[1] / chest.frame.unit / 2, chest.frame.shape[0] / chest.frame.unit / 2
    corner = numpy.array([side * (reach_x - 0.22), -reach_y + rng.uniform(0.10, 0.45)]) + chest.pose.centre
    layer = chest.frame.strokes()
    for stroke in LETTERS[side]:
        layer.line(numpy.array(stroke) * [0.13, 0.15] + corner, 0.032)
    return 1.1 * layer.layer()

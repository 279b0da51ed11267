"""The healthy chest of the phantom radiographs: who the patient is, where things lie, how they weaken the beam.

Lengths are in thorax units: 1 is half the inner width of the rib cage (about 14 cm). On a frontal view x runs from the
patient's right (-1, at the left of the film) to the patient's left (+1), y downwards from the apex of the lungs (0). On
a lateral view x runs from the sternum (about -0.7) to the back (about +0.7); y is the same. A chest is drawn as layers
of attenuation that add up, as shadows on a film do; `severity.phantoms.signs` changes the layers,
`severity.phantoms.radiographs` exposes the film.
"""

from dataclasses import dataclass, field, replace

import numpy
from PIL import Image, ImageDraw

RIGHT, LEFT = -1, 1  # The patient's sides, equal to the sign of x on a frontal view.
OVERSAMPLING = 3  # Strokes are drawn that much larger, then averaged down: thin lines stay smooth.
WALL_POWER = 2.3  # The rib cage is half a superellipse: rounder than a box, fuller than an ellipse.
HILUM = 0.82  # Height (y) of the root of the lungs.
MEDIASTINUM_LIMIT = 0.20  # Half width of the upper mediastinum beyond which it is enlarged.


@dataclass(frozen=True)
class Anatomy:
    """One patient's chest. Lengths in thorax units; see the module's docstring."""

    sex: str  # 'Female' or 'Male'
    age: int
    heart_ratio: float  # heart width : inner chest width on a PA film; healthy below 0.46
    heart_tilt: float  # angle of the heart's long axis to the horizontal, radians
    mediastinum: float  # half width of the upper mediastinum
    mediastinum_shift: float  # displacement of heart and mediastinum towards +x
    knob: float  # radius of the aortic knob
    wall: float  # thickness of muscle and fat outside the ribs
    breast: float  # 0 (none) to 1
    lung_height: float  # apex to the top of the right dome of the diaphragm
    dome: dict[int, float]  # how far the diaphragm stands above its usual place, by side
    rib_pitch: float  # vertical distance of neighbouring ribs
    rib_slope: float  # how far a rib falls on its way to the wall
    bone: float  # density of bone, 1 in youth
    spine_bend: float  # scoliosis: largest sideways deviation
    kyphosis: float  # roundness of the back, on lateral views
    stomach_gas: float  # radius of the gastric bubble; 0 for none
    shoulder: float  # height of the shoulders
    cephalisation: float  # width of the upper vessels relative to a healthy upright person's
    nipples: float  # density of the nipples' shadows; 0 for none. They mimic nodules.
    cartilage: float  # calcification of the rib cartilages, which mimics callus and plaques
    seed: int  # of vessels and other small irregularities


def patient_anatomy(rng: numpy.random.Generator, seed: int) -> Anatomy:
    """A healthy adult drawn at random; `seed` fixes the small irregularities (vessel tree)."""
    female = rng.random() < 0.41
    age = int(numpy.clip(rng.normal(60, 18), 18, 90))
    old = (age - 18) / 72
    return Anatomy(
        sex="Female" if female else "Male",
        age=age,
        heart_ratio=float(rng.uniform(0.372, 0.422) + 0.020 * old + 0.004 * female),
        heart_tilt=float(rng.uniform(0.50, 0.85)),
        mediastinum=float(rng.uniform(0.150, 0.200)),
        mediastinum_shift=0.0,
        knob=float(rng.uniform(0.10, 0.13) + 0.03 * old),
        wall=float(rng.uniform(0.07, 0.24)),
        breast=float(rng.uniform(0.35, 1.0)) if female else 0.0,
        lung_height=float(rng.uniform(1.50, 1.72) - 0.06 * female),
        dome={RIGHT: 0.0, LEFT: float(rng.uniform(-0.09, -0.02))},
        rib_pitch=float(rng.uniform(0.150, 0.172)),
        rib_slope=float(rng.uniform(0.16, 0.34)),
        bone=float(rng.uniform(0.9, 1.15) - 0.3 * old),
        spine_bend=float(rng.normal(0, 0.025)),
        kyphosis=float(rng.uniform(0.05, 0.12) + 0.10 * old**2),
        stomach_gas=float(rng.uniform(0.10, 0.22)) if rng.random() < 0.65 else 0.0,
        shoulder=float(rng.uniform(-0.10, 0.10)),
        cephalisation=float(rng.uniform(0.9, 1.3)),
        nipples=float(rng.uniform(0.04, 0.09)) if rng.random() < 0.12 else 0.0,
        cartilage=float(rng.uniform(0.3, 1.0)) * old if rng.random() < 0.5 else 0.0,
        seed=seed,
    )


def inspired(anatomy: Anatomy, depth: float) -> Anatomy:
    """The same chest after a breath deeper by `depth` (negative: shallower): diaphragm and, a little, heart move."""
    return replace(
        anatomy, lung_height=anatomy.lung_height + depth, heart_ratio=anatomy.heart_ratio - 0.06 * min(depth, 0.1)
    )


@dataclass(frozen=True)
class Pose:
    """How the patient stands before the film."""

    view: str  # 'PA', 'AP' or 'lateral'
    centre: tuple[float, float]  # the point of the chest at the middle of the film
    width: float  # thorax units that the film is wide
    tilt: float  # rotation in the plane of the film, radians
    turn: float  # rotation about the body's axis: shift of what lies in front against the spine
    arms: float  # distance of the arms from the trunk
    veil: float  # part of the air lost to shallow breath, worst at the bases, and to scattered rays
    fold: float  # distance from the wall of a skin fold under a lying patient; 0 for none. It mimics a pleural line.


class Frame:
    """Maps thorax coordinates to a film of `height` x `width` pixels.

    `x`, `y` hold the thorax coordinates of each pixel's centre (float32, height x width); `unit` is pixels a unit.
    """

    def __init__(self, pose: Pose, height: int, width: int):
        self.shape = (height, width)
        self.unit = width / pose.width
        self._middle = numpy.array([width / 2, height / 2])
        self._centre = numpy.array(pose.centre)
        cosine, sine = numpy.cos(pose.tilt), numpy.sin(pose.tilt)
        self._rotation = numpy.array([[cosine, -sine], [sine, cosine]])
        column = (numpy.arange(width, dtype=numpy.float32) + 0.5 - width / 2)[None, :] / numpy.float32(self.unit)
        row = (numpy.arange(height, dtype=numpy.float32) + 0.5 - height / 2)[:, None] / numpy.float32(self.unit)
        self.x = (cosine * column + sine * row + pose.centre[0]).astype(numpy.float32)
        self.y = (-sine * column + cosine * row + pose.centre[1]).astype(numpy.float32)

    def pixels(self, points: numpy.ndarray) -> numpy.ndarray:
        """Pixel coordinates (n, 2) of thorax points (n, 2)."""
        return (numpy.asarray(points) - self._centre) @ self._rotation.T * self.unit + self._middle

    def strokes(self) -> "Strokes":
        """An empty layer of this film to draw lines on."""
        return Strokes(self)

    def empty(self) -> numpy.ndarray:
        """A layer of zeros."""
        return numpy.zeros(self.shape, dtype=numpy.float32)


class Strokes:
    """A layer drawn with lines and polygons; where they cross, the later one covers the earlier."""

    def __init__(self, frame: Frame):
        self._frame = frame
        height, width = frame.shape
        self._image = Image.new("L", (width * OVERSAMPLING, height * OVERSAMPLING))
        self._draw = ImageDraw.Draw(self._image)

    def _flat(self, points: numpy.ndarray) -> list[float]:
        return (self._frame.pixels(points) * OVERSAMPLING).ravel().tolist()

    def line(self, points: numpy.ndarray, width: float, strength: float = 1.0) -> None:
        """A line through thorax points (n, 2), `width` thorax units wide, of `strength` 0 to 1."""
        pixels = max(1, round(width * self._frame.unit * OVERSAMPLING))
        joint = "curve" if pixels > 8 else None
        self._draw.line(self._flat(points), fill=round(255 * strength), width=pixels, joint=joint)

    def polygon(self, points: numpy.ndarray, strength: float = 1.0) -> None:
        """A filled polygon with thorax points (n, 2) as corners."""
        self._draw.polygon(self._flat(points), fill=round(255 * strength))

    def disc(self, centre: tuple[float, float], radius: float, strength: float = 1.0) -> None:
        """A filled disc."""
        (x, y), reach = self._flat(numpy.array([centre])), radius * self._frame.unit * OVERSAMPLING
        self._draw.ellipse([x - reach, y - reach, x + reach, y + reach], fill=round(255 * strength))

    def layer(self) -> numpy.ndarray:
        """The drawing as float32 in 0..1, height x width of the film."""
        return numpy.asarray(self._image.reduce(OVERSAMPLING), dtype=numpy.float32) / numpy.float32(255)


def edge(distance: numpy.ndarray, softness: float) -> numpy.ndarray:
    """A smooth step: 0 well below distance 0, 1 well above, `softness` thorax units wide."""
    step = numpy.clip(distance / numpy.float32(softness) + numpy.float32(0.5), 0, 1)
    return step * step * (3 - 2 * step)


def ellipse(frame: Frame, centre: tuple[float, float], radii: tuple[float, float], tilt: float = 0.0) -> numpy.ndarray:
    """1 - r², r the elliptic distance from `centre`: positive inside, 1 at the centre, 0 on the border."""
    dx, dy = frame.x - numpy.float32(centre[0]), frame.y - numpy.float32(centre[1])
    cosine, sine = numpy.float32(numpy.cos(tilt)), numpy.float32(numpy.sin(tilt))
    along, across = cosine * dx + sine * dy, cosine * dy - sine * dx
    return 1 - (along / numpy.float32(radii[0])) ** 2 - (across / numpy.float32(radii[1])) ** 2


def thickness(inside: numpy.ndarray, power: float = 0.5) -> numpy.ndarray:
    """Path length through a body that `ellipse` describes; 1 in the middle. Smaller powers mean sharper borders."""
    return numpy.clip(inside, 0, 1) ** numpy.float32(power)


@dataclass(frozen=True)
class Rib:
    """One rib: its course (n, 2) from the spine outwards, its width, and whether it is a posterior part."""

    side: int
    course: numpy.ndarray
    width: float
    posterior: bool


@dataclass
class Chest:
    """A chest being drawn. Layers are float32 arrays of the film's shape, in units of attenuation.

    The film sees `tissue + bone + metal + (markings - air) * (1 - fill)`: what fills the air spaces (`fill`, 0 to 1)
    replaces air by water and hides the vessels, so borders next to it vanish as they do in patients.
    """

    anatomy: Anatomy
    pose: Pose
    frame: Frame
    wall: numpy.ndarray  # distance inwards from the rib cage (lateral view: from the sternum or the back)
    floor: numpy.ndarray  # distance upwards from the diaphragm
    lung: numpy.ndarray  # 0 to 1: how much a pixel shows lung
    air: numpy.ndarray
    tissue: numpy.ndarray
    markings: numpy.ndarray
    ribs: list[Rib]
    fill: numpy.ndarray = field(init=False)
    bone: numpy.ndarray = field(init=False)
    metal: numpy.ndarray = field(init=False)

    def __post_init__(self):
        self.fill, self.bone, self.metal = self.frame.empty(), self.frame.empty(), self.frame.empty()

    @property
    def frontal(self) -> bool:
        """Whether this is a frontal view."""
        return self.pose.view != "lateral"

    def side(self, side: int) -> numpy.ndarray:
        """0 to 1: how much of a pixel's lung belongs to `side`. On a lateral view both lungs overlie each other."""
        if not self.frontal:
            return numpy.full(self.frame.shape, 0.62, dtype=numpy.float32)
        middle = numpy.float32(self.anatomy.mediastinum_shift)
        return (numpy.sign(self.frame.x - middle) == side).astype(numpy.float32)

    def flood(self, amount: numpy.ndarray) -> None:
        """Fill the air spaces by `amount` (0 to 1), on top of what fills them already."""
        self.fill = 1 - (1 - self.fill) * (1 - numpy.clip(amount, 0, 1))

    def attenuation(self) -> numpy.ndarray:
        """What the film sees."""
        return self.tissue + self.bone + self.metal + (self.markings - self.air) * (1 - self.fill)


def heart_ellipse(anatomy: Anatomy, pose: Pose) -> tuple[tuple[float, float], tuple[float, float], float]:
    """Centre, radii and tilt of the heart's shadow on a frontal view.

    Its width is `drawn_heart_ratio` times the inner width of the chest, which is 2.
    """
    ratio = drawn_heart_ratio(anatomy, pose)
    # A heart that dilates widens more than it grows tall, and comes to lie on its side.
    dilated = max(ratio - 0.46, 0)
    tilt, slender = anatomy.heart_tilt * (1 - 1.2 * dilated), 0.76 - 0.4 * dilated
    long = ratio / numpy.hypot(numpy.cos(tilt), slender * numpy.sin(tilt))
    tall = long * numpy.hypot(numpy.sin(tilt), slender * numpy.cos(tilt))
    x = 0.36 * ratio + anatomy.mediastinum_shift + pose.turn
    y = anatomy.lung_height + 0.14 - 0.80 * tall
    return (x, y), (long, slender * long), tilt


def drawn_heart_ratio(anatomy: Anatomy, pose: Pose) -> float:
    """Heart width : chest width as it appears: an AP film shows the heart, far from it, 5 % larger."""
    return anatomy.heart_ratio * (1.05 if pose.view == "AP" else 1.0)


def dome_height(anatomy: Anatomy, side: int, x: numpy.ndarray) -> numpy.ndarray:
    """y of the diaphragm at frontal positions x of one side: a dome, falling to the costophrenic angle at |x| = 1."""
    across = numpy.abs(x) - numpy.float32(0.44)
    steep = numpy.where(across > 0, numpy.float32(0.95), numpy.float32(0.40))
    return numpy.float32(anatomy.lung_height - anatomy.dome[side]) + steep * across * across


def healthy_chest(anatomy: Anatomy, pose: Pose, height: int, width: int) -> Chest:
    """Draw everything but the bones, which come last because signs may break them (`add_bones`)."""
    frame = Frame(pose, height, width)
    return (_lateral if pose.view == "lateral" else _frontal)(anatomy, pose, frame)


# Frontal view


def _frontal(anatomy: Anatomy, pose: Pose, frame: Frame) -> Chest:
    x, y = frame.x, frame.y
    middle = anatomy.mediastinum_shift
    widest = 0.9 * anatomy.lung_height
    rise = numpy.clip((widest - y) / numpy.float32(widest + 0.05), 0, None)
    wall = 1 - (numpy.abs(x) ** WALL_POWER + rise**WALL_POWER) ** numpy.float32(1 / WALL_POWER)
    dome = numpy.where(x < middle, dome_height(anatomy, RIGHT, x), dome_height(anatomy, LEFT, x))
    floor = dome - y
    medial = numpy.abs(x - numpy.float32(middle)) - numpy.float32(0.10)
    lung = edge(wall - 0.03, 0.05) * edge(floor, 0.04) * edge(medial, 0.08)
    depth = 1 - numpy.exp(-numpy.clip(wall, 0, None) / numpy.float32(0.20))
    # The lung behind the heart and before the spine is thinner: less air there.
    air = lung * (0.16 + 0.34 * depth)
    tissue = _frontal_soft_tissue(anatomy, pose, frame, floor, wall)
    # The heart rests on the diaphragm: below it there is abdomen only.
    heart = _heart_and_mediastinum(anatomy, pose, frame) * (1 - 0.8 * edge(-floor, 0.06))
    # Where the heart takes the room there is less lung before and behind it.
    air *= 1 - numpy.clip(3.2 * heart, 0, 0.85)
    tissue += heart - _windpipe(anatomy, pose, frame)
    air *= 1 - pose.veil * (0.5 + 0.8 * edge(0.35 - floor, 0.7))
    tissue += _skin_fold(anatomy, pose, frame, wall)
    markings = _vessels(anatomy, frame, [(side, _hilum(anatomy, pose, side)) for side in (RIGHT, LEFT)]) * lung
    return Chest(anatomy, pose, frame, wall, floor, lung, air, tissue, markings, _frontal_ribs(anatomy))


def _skin_fold(anatomy: Anatomy, pose: Pose, frame: Frame, wall: numpy.ndarray) -> numpy.ndarray:
    """A border parallel to the wall that fades inwards, with lung markings on both of its sides."""
    if not pose.fold:
        return frame.empty()
    inwards = wall - numpy.float32(pose.fold)
    fading = numpy.exp(-numpy.clip(inwards, 0, None) / numpy.float32(0.10))
    here = (numpy.sign(frame.x) == (RIGHT if anatomy.seed % 2 else LEFT)) * edge(frame.y - 0.3, 0.4)
    return 0.07 * edge(inwards, 0.02) * fading * here


def _hilum(anatomy: Anatomy, pose: Pose, side: int) -> tuple[float, float]:
    return side * 0.21 + anatomy.mediastinum_shift + 0.5 * pose.turn, HILUM - 0.03 * side


def _frontal_soft_tissue(
    anatomy: Anatomy, pose: Pose, frame: Frame, floor: numpy.ndarray, wall: numpy.ndarray
) -> numpy.ndarray:
    x, y, away = frame.x, frame.y, numpy.abs(frame.x)
    neck = numpy.float32(0.30 + 0.4 * anatomy.wall)
    outside_neck = numpy.clip(away - neck, 0, None)
    shoulders = (
        y + numpy.float32(0.42 + anatomy.shoulder) - 0.30 * (1 - numpy.exp(-outside_neck * 4)) - 0.10 * outside_neck
    )
    shoulders = numpy.maximum(shoulders, (neck - away) * 0.6 + 0.03 * edge(neck + 0.1 - away, 0.2))
    trunk = 1.03 + anatomy.wall + 0.10 * anatomy.breast * numpy.exp(-(((y - 1.35) / 0.3) ** 2))
    flare = numpy.clip(0.62 - y, 0, None)
    side = trunk + 4.0 * flare**1.6 - away
    arms = numpy.minimum(away - (trunk + pose.arms * numpy.clip(y - 0.35, 0, None)), trunk + 0.42 - away + 0.3 * y)
    body = numpy.minimum(shoulders, numpy.maximum(side, arms))
    skin = 1 - numpy.exp(-numpy.clip(body, 0, None) / numpy.float32(0.16))
    # The trunk is thickest in its middle; the abdomen is thicker than the chest.
    tissue = skin * (0.50 + 0.12 * thickness(1 - (x / numpy.float32(1.3)) ** 2))
    belly = 0.16 + 0.10 * anatomy.wall - 0.05 * edge(x - 0.1, 0.5)  # The liver is denser than what lies on its left.
    tissue += belly * edge(-floor, 0.05) * edge(wall + 0.15, 0.4)
    if anatomy.stomach_gas:
        roof = float(dome_height(anatomy, LEFT, numpy.float32(0.42)))
        radius = anatomy.stomach_gas
        bubble = ellipse(frame, (0.42, roof + 0.05 + 0.6 * radius), (1.25 * radius, 0.6 * radius))
        tissue -= 0.20 * thickness(bubble, 0.4)
    for sign in (RIGHT, LEFT) if anatomy.breast else ():
        size = 0.30 + 0.16 * anatomy.breast
        shadow = ellipse(frame, (sign * 0.60, 1.20 + 0.22 * anatomy.breast), (size, 1.05 * size))
        tissue += (0.05 + 0.09 * anatomy.breast) * thickness(shadow, 0.45) * edge(y - 1.0, 0.8)
    for sign in (RIGHT, LEFT) if anatomy.nipples else ():
        spot = ellipse(frame, (sign * 0.58, 1.28 + 0.15 * anatomy.breast), (0.055, 0.055))
        tissue += anatomy.nipples * thickness(spot, 0.6)
    return tissue.astype(numpy.float32)


def _heart_and_mediastinum(anatomy: Anatomy, pose: Pose, frame: Frame) -> numpy.ndarray:
    x, y = frame.x, frame.y
    centre, radii, tilt = heart_ellipse(anatomy, pose)
    inside = ellipse(frame, centre, radii, tilt)
    heart = 0.8 * edge(inside, 0.12) + 0.2 * thickness(inside)
    middle = numpy.float32(anatomy.mediastinum_shift + 0.6 * pose.turn)
    # Auricles and great vessels lead from the heart up to the mediastinum, so that its outline has a waist, no neck.
    reach = min(radii[0], 0.52)
    base = (0.45 * middle + 0.45 * centre[0], centre[1] - 0.62 * reach)
    heart = numpy.maximum(heart, thickness(ellipse(frame, base, (0.62 * reach, 0.80 * reach)), 0.40))
    top = edge(y + 0.25, 0.5)
    # A healthy mediastinum has nearly straight borders; what exceeds that bulges between neck and heart.
    usual = min(anatomy.mediastinum, MEDIASTINUM_LIMIT)
    bulge = 1.25 * (anatomy.mediastinum - usual) * numpy.exp(-(((y - 0.46) / 0.36) ** 2))
    half = usual * (0.85 + 0.45 * edge(y - 0.75, 0.5)) + bulge
    band = edge(half - numpy.abs(x - middle), 0.06) * top * edge(centre[1] + 0.3 - y, 0.5)
    knob_at = (middle + anatomy.mediastinum - 0.02, 0.46)
    knob = thickness(ellipse(frame, knob_at, (anatomy.knob, 1.35 * anatomy.knob)), 0.40)
    trunk_at = (middle + usual - 0.01, 0.78)
    trunk = thickness(ellipse(frame, trunk_at, (0.13, 0.26)), 0.5)
    roots = frame.empty()
    for side in (RIGHT, LEFT):
        roots = numpy.maximum(roots, thickness(ellipse(frame, _hilum(anatomy, pose, side), (0.16, 0.27)), 1.0))
    shadow = numpy.maximum(0.28 * heart, numpy.maximum(0.19 * band, 0.19 * knob))
    shadow = numpy.maximum(shadow, numpy.maximum(0.20 * trunk, 0.13 * roots))
    return shadow


def _windpipe(anatomy: Anatomy, pose: Pose, frame: Frame) -> numpy.ndarray:
    middle = anatomy.mediastinum_shift + 0.6 * pose.turn
    pipe = frame.strokes()
    fork = (middle + 0.01, 0.60)
    pipe.line(numpy.array([(0.0, -0.8), (0.0, 0.0), fork]), 0.11)
    for side in (RIGHT, LEFT):
        pipe.line(numpy.array([fork, (middle + side * 0.14, 0.70 - 0.01 * side)]), 0.075, 0.7)
    return 0.11 * pipe.layer()


def _frontal_ribs(anatomy: Anatomy) -> list[Rib]:
    ribs = []
    t = numpy.linspace(0, 1, 15)
    for side in (RIGHT, LEFT):
        for number in range(10):
            start = 0.02 + number * anatomy.rib_pitch
            end = start + (0.55 + 0.5 * min(number / 6, 1)) * anatomy.rib_slope
            reach = _inner_half_width(anatomy, end) - 0.02
            angle = t * numpy.pi / 2
            x = 0.10 + (reach - 0.10) * numpy.sin(angle)
            y = start - 0.05 * numpy.sin(angle * 2) + (end - start) * (1 - numpy.cos(angle))
            ribs.append(Rib(side, numpy.stack([side * x, y], axis=1), 0.062, True))
            if 1 <= number <= 8:
                stop = end + (0.30 + 0.035 * number) * (0.8 + anatomy.rib_slope)
                inner = 0.36 + 0.035 * number
                x = reach - (reach - inner) * (1 - numpy.cos(angle))
                y = end + (stop - end) * numpy.sin(angle) ** 0.9
                ribs.append(Rib(side, numpy.stack([side * x, y], axis=1), 0.070, False))
    return ribs


def _inner_half_width(anatomy: Anatomy, y: float) -> float:
    widest = 0.9 * anatomy.lung_height
    rise = min(max(widest - y, 0) / (widest + 0.05), 1)
    return (1 - rise**WALL_POWER) ** (1 / WALL_POWER)


# Vessels


def _vessels(anatomy: Anatomy, frame: Frame, roots: list[tuple[int, tuple[float, float]]]) -> numpy.ndarray:
    """Arteries and veins branching from the hila, wider below than above unless the flow is cephalised."""
    rng = numpy.random.default_rng(anatomy.seed)
    layer = frame.strokes()
    for side, root in roots:
        directions = numpy.linspace(-1.35, 1.45, 9) + rng.normal(0, 0.07, 9)
        jitter = rng.normal(0, 1, (9, 7, 3))
        for direction, wobble in zip(directions, jitter, strict=True):
            upper = direction < -0.25
            girth = 0.034 * (anatomy.cephalisation * 0.8 if upper else 1.15)
            length = (0.42 if upper else 0.50) + 0.05 * wobble[0, 0]
            _branch(layer, numpy.array(root), direction, side, length, girth, wobble, 0)
    return 0.12 * layer.layer()


def _branch(layer, start, direction, side, length, girth, wobble, index) -> None:
    t = numpy.linspace(0, 1, 4)[:, None]
    bend = direction + 0.25 * wobble[index, 1] * t[:, 0]
    steps = numpy.stack([side * numpy.cos(bend), numpy.sin(bend)], axis=1)
    course = start + steps * t * length
    layer.line(course[:3], girth, min(1.0, 0.25 + 18 * girth))
    layer.line(course[2:], girth * 0.7, min(1.0, 0.25 + 14 * girth))
    if index < 3:
        fan = 0.42 + 0.12 * wobble[index, 2]
        for child, turn in ((2 * index + 1, -fan), (2 * index + 2, fan)):
            origin = course[2] if turn < 0 else course[3]
            _branch(layer, origin, bend[-1] + turn, side, 0.72 * length, 0.62 * girth, wobble, child)


# Lateral view


def _lateral(anatomy: Anatomy, pose: Pose, frame: Frame) -> Chest:
    x, y = frame.x, frame.y
    front, back = front_wall(anatomy, y), back_wall(anatomy, y)
    sternum, behind = x - front, back - x
    apex = y - 0.02 - 0.5 * (x - 0.1) ** 2
    wall = numpy.minimum(numpy.minimum(sternum - 0.03, behind), apex)
    floor = lateral_dome(anatomy, x) - y
    lung = edge(wall - 0.02, 0.06) * edge(floor, 0.05)
    depth = 1 - numpy.exp(-numpy.clip(wall, 0, None) / numpy.float32(0.22))
    air = lung * (0.14 + 0.36 * depth) * (1 - pose.veil * (0.5 + 0.8 * edge(0.35 - floor, 0.7)))
    tissue = _lateral_soft_tissue(anatomy, pose, frame, front, back, floor)
    markings = _vessels(anatomy, frame, [(LEFT, (0.02, HILUM)), (RIGHT, (0.0, HILUM + 0.03))]) * lung * 0.6
    return Chest(anatomy, pose, frame, wall, floor, lung, air, tissue, markings, _lateral_ribs(anatomy))


def front_wall(anatomy: Anatomy, y: numpy.ndarray) -> numpy.ndarray:
    """x of the back of the sternum on a lateral view."""
    return -0.42 - 0.38 * numpy.sin(numpy.clip(y / numpy.float32(0.8 * anatomy.lung_height), -0.3, 1.25) * 1.45)


def spine_course(anatomy: Anatomy, y: numpy.ndarray) -> numpy.ndarray:
    """x of the middle of the vertebral bodies on a lateral view."""
    return 0.40 + anatomy.kyphosis * numpy.sin((y + 0.2) * 1.7)


def back_wall(anatomy: Anatomy, y: numpy.ndarray) -> numpy.ndarray:
    """x of the inner side of the posterior ribs on a lateral view."""
    return spine_course(anatomy, y) + 0.22


def lateral_dome(anatomy: Anatomy, x: numpy.ndarray) -> numpy.ndarray:
    """y of the diaphragm on a lateral view, falling to the posterior sulcus."""
    top = numpy.float32(anatomy.lung_height - max(anatomy.dome.values()))
    return top + 0.62 * numpy.clip(x + 0.15, 0, None) ** 1.8 + 0.25 * numpy.clip(-0.15 - x, 0, None) ** 2


def _lateral_soft_tissue(anatomy, pose, frame, front, back, floor) -> numpy.ndarray:
    x, y = frame.x, frame.y
    bust = 0.35 * anatomy.breast * numpy.exp(-(((y - 1.25) / 0.28) ** 2))
    skin_front = front - 0.07 - 0.5 * anatomy.wall - bust - 0.25 * edge(-y + 0.1, 0.5)
    skin_back = back + 0.10 + 0.6 * anatomy.wall
    body = numpy.minimum(x - skin_front, skin_back - x)
    # The arms are raised: they leave the film at its upper edge, before the face.
    arms = numpy.minimum(0.30 - y, 1.05 - numpy.abs(x + 0.1 + 0.6 * y))
    body = numpy.maximum(body, arms)
    skin = 1 - numpy.exp(-numpy.clip(body, 0, None) / numpy.float32(0.20))
    tissue = 0.60 * skin
    tissue += 0.16 * skin * edge(0.05 - y + 0.3 * x, 0.7)
    tissue += 0.14 * skin * edge(-floor, 0.05)
    ratio = anatomy.heart_ratio
    heart_at = (-0.34 + 0.42 * (ratio - 0.4), anatomy.lung_height + 0.10 - 0.92 * ratio)
    heart = thickness(ellipse(frame, heart_at, (0.86 * ratio, 1.06 * ratio), 0.45), 0.35)
    tissue += 0.25 * heart * edge(x - front, 0.08) * (1 - 0.8 * edge(-floor, 0.06))
    clear = edge(0.72 + 0.3 * x - y, 0.25) * edge(x - front, 0.05)
    tissue += numpy.float32(max(anatomy.mediastinum - MEDIASTINUM_LIMIT, 0) * 1.6) * clear * edge(0.12 - x, 0.25)
    arch = frame.strokes()
    t = numpy.linspace(-0.2, numpy.pi, 14)
    arch.line(numpy.stack([0.12 - 0.24 * numpy.cos(t), 0.62 - 0.20 * numpy.sin(t)], axis=1), 1.5 * anatomy.knob, 0.8)
    arch.line(numpy.array([(0.36, 0.62), (0.38, 1.1), (0.34, 1.7)]), 1.3 * anatomy.knob, 0.5)
    tissue += 0.12 * arch.layer()
    root = thickness(ellipse(frame, (0.02, HILUM + 0.02), (0.13, 0.16)), 0.8)
    tissue += 0.13 * root
    if anatomy.stomach_gas:
        radius = anatomy.stomach_gas
        roof = float(lateral_dome(anatomy, numpy.float32(-0.1)))
        tissue -= 0.17 * thickness(
            ellipse(frame, (-0.1, roof + 0.07 + 0.6 * radius), (1.3 * radius, 0.6 * radius)), 0.4
        )
    pipe = frame.strokes()
    pipe.line(numpy.array([(-0.06, -0.8), (0.0, 0.0), (0.06, 0.72)]), 0.11)
    return (tissue - 0.12 * pipe.layer()).astype(numpy.float32)


def _lateral_ribs(anatomy: Anatomy) -> list[Rib]:
    ribs = []
    t = numpy.linspace(0, 1, 13)
    for side, lower in ((RIGHT, 0.0), (LEFT, 0.045)):
        for number in range(9):
            start = 0.08 + number * anatomy.rib_pitch + lower
            end = start + 0.30 + 1.3 * anatomy.rib_slope
            behind = float(back_wall(anatomy, numpy.float32(start))) + 0.02
            before = float(front_wall(anatomy, numpy.float32(end))) + 0.22
            x = behind + (before - behind) * t**1.15
            y = start + (end - start) * t - 0.05 * numpy.sin(numpy.pi * t)
            ribs.append(Rib(side, numpy.stack([x, y], axis=1), 0.055, True))
    return ribs


# Bones, both views


def add_bones(chest: Chest) -> None:
    """Draw ribs (as `chest.ribs` has them), spine, collar bones, shoulder blades and upper arms."""
    back, front, rest = chest.frame.strokes(), chest.frame.strokes(), chest.frame.strokes()
    for rib in chest.ribs:
        _draw_rib(back if rib.posterior else front, rib)
    if chest.frontal:
        _frontal_spine(chest, rest)
        _girdle(chest, rest)
    else:
        _lateral_spine(chest, rest)
    density = numpy.float32(chest.anatomy.bone)
    strength = (0.115, 0.065, 0.12) if chest.frontal else (0.06, 0.06, 0.15)
    if cartilage := chest.anatomy.cartilage:
        for rib in chest.ribs:
            if not rib.posterior:
                rest.line(rib.course[-3:], 0.05, 0.7 * cartilage)
    seen = 0.35 + 0.65 * edge(chest.floor + 0.05, 0.3)  # Little of the ribs shows through the abdomen.
    ribs = numpy.float32(strength[0]) * back.layer() + numpy.float32(strength[1]) * front.layer()
    chest.bone += density * (ribs * seen + numpy.float32(strength[2]) * rest.layer())


def _draw_rib(layer: Strokes, rib: Rib) -> None:
    # A tube of compact bone: its upper and lower borders are denser than its middle.
    layer.line(rib.course, rib.width, 1.0)
    layer.line(rib.course, rib.width * 0.5, 0.62)


def _frontal_spine(chest: Chest, layer: Strokes) -> None:
    anatomy = chest.anatomy
    for number in range(-3, 15):
        y = number * 0.172
        x = anatomy.spine_bend * numpy.sin(y * 2.2)
        half, tall = 0.088 + 0.0022 * number, 0.070
        box = numpy.array([(x - half, y - tall), (x + half, y - tall), (x + half, y + tall), (x - half, y + tall)])
        layer.polygon(box, 0.62)
        layer.line(box[[3, 0, 1, 2]], 0.018, 0.85)
        layer.line(numpy.array([(x, y - 0.02), (x, y + 0.05)]), 0.028, 1.0)


def _girdle(chest: Chest, layer: Strokes) -> None:
    anatomy, pose = chest.anatomy, chest.pose
    lift = anatomy.shoulder
    for side in (RIGHT, LEFT):
        head = numpy.array([0.10 * side + pose.turn, 0.20])
        clavicle = numpy.array([(0, 0), (0.25, -0.05), (0.50, -0.14), (0.75, -0.21), (0.98, -0.20)])
        clavicle[:, 1] -= 0.5 * lift * clavicle[:, 0]
        clavicle[:, 0] *= side
        layer.line(head + clavicle, 0.080, 0.9)
        layer.line(head + clavicle, 0.040, 0.65)
        blade = numpy.array([(0.80, 0.02), (0.92, 0.50), (1.04, 0.80), (1.14, 0.45), (1.22, 0.06)])
        blade = (blade + [0, -0.4 * lift]) * [side, 1]
        layer.line(blade, 0.030, 0.36)
        shoulder = (side * 1.32, 0.02 - lift)
        layer.disc(shoulder, 0.17, 0.75)
        layer.line(numpy.array([shoulder, (side * (1.42 + 0.2 * pose.arms), 1.0)]), 0.17, 0.70)


def _lateral_spine(chest: Chest, layer: Strokes) -> None:
    anatomy = chest.anatomy
    for number in range(-1, 13):
        y = number * 0.178
        x = float(spine_course(anatomy, numpy.float32(y)))
        half, tall = 0.095, 0.072
        slope = anatomy.kyphosis * 1.7 * numpy.cos((y + 0.2) * 1.7)
        box = numpy.array([(-half, -tall), (half, -tall), (half, tall), (-half, tall)])
        box = box + numpy.array([x, y]) + numpy.stack([box[:, 1] * slope, -box[:, 0] * slope], axis=1)
        layer.polygon(box, 0.45)
        layer.line(box[[0, 1, 2, 3, 0]], 0.020, 0.75)
    y = numpy.linspace(0.12, 1.35, 8)
    layer.line(numpy.stack([front_wall(anatomy, y) - 0.01, y], axis=1), 0.06, 0.7)

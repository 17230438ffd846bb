"""Draw one fundus with some signs on it. Used by the synthetic data set of several labels only.

A sign is a shape in a colour at a place. Each shape and each colour belongs to several signs, so
that neither alone tells which one it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]  # (S,), (S, 1) or (S, S)

# colour, shape, place; from the most to the least frequent class
SIGNS = (
    ("red", "spots", "rim"), ("yellow", "patch", "macula"), ("white", "ring", "disc"),
    ("brown", "streak", "vessels"), ("brown", "patch", "rim"), ("white", "spots", "macula"),
    ("yellow", "arc", "disc"), ("red", "ring", "vessels"), ("yellow", "cross", "rim"),
    ("brown", "arc", "macula"), ("red", "streak", "disc"), ("white", "cross", "vessels"),
    ("red", "arc", "rim"), ("brown", "ring", "macula"), ("red", "patch", "disc"),
    ("white", "streak", "vessels"),
)  # fmt: skip
COLOURS = {
    "red": (0.42, 0.02, 0.05), "yellow": (0.98, 0.86, 0.25), "white": (0.97, 0.96, 0.94),
    "brown": (0.13, 0.09, 0.08),
}  # fmt: skip
FIELD = 0.93  # radius of what the camera sees; the picture spans [-1, 1]
DISC_AWAY, DISC_SIZE = 0.45, 0.15
EDGE = 0.02  # over which a border fades


@dataclass(frozen=True)
class Eye:
    """What does not change between the pictures of one eye."""

    tone: tuple[float, float, float]  # RGB in [0, 1]
    side: int  # where the optic disc is: -1 left, 1 right
    lift: float  # of disc and macula, up or down
    bends: tuple[float, ...]  # of the vessels: how far each is from the middle at its end


def draw_eye(random: np.random.Generator, side: int) -> Eye:
    """Draw one eye of a patient: the same `random` gives both eyes the same tone."""
    brightness = random.uniform(0.6, 0.85)
    tone = (brightness, brightness * random.uniform(0.45, 0.6), brightness * 0.28)
    bends = tuple(float(value) for value in random.uniform((-0.85, -0.5, 0.4, 0.7),
                                                           (-0.7, -0.4, 0.5, 0.85)))  # fmt: skip
    return Eye(tone, side, float(random.uniform(-0.08, 0.08)), bends)


def draw(
    signs: Mapping[int, np.random.Generator],
    eye: Eye,
    random: np.random.Generator,
    *,
    size: int,
    noise: float,
    difficulty: float,
) -> UInt8:
    """A picture (S, S, 3) with signs, by their numbers in SIGNS, each drawn from its own numbers.

    `noise` is the deviation of the pixel noise in units of full brightness. With `difficulty`, from
    0 to 1, signs become fainter and smaller, and there are more spots that mean nothing.
    """
    axis = (2 * np.arange(size, dtype=np.float32) + 1) / np.float32(size) - np.float32(1)
    x: Floats = axis[None, :]
    y: Floats = axis[:, None]
    picture = np.empty((size, size, 3), dtype=np.float32)
    away = np.hypot(x, y)
    shade = np.float32(random.uniform(0.9, 1.05)) * (1 - np.float32(0.3) * away * away)
    picture[:] = np.array(eye.tone, dtype=np.float32) * shade[..., None]
    _vessels(picture, eye, x, y)
    _cover(picture, _dot(x, y, (-0.1 * eye.side, eye.lift), 0.2) * 0.45, COLOURS["brown"])
    disc = (DISC_AWAY * eye.side, eye.lift)
    body = _rise(DISC_SIZE - np.hypot(x - disc[0], y - disc[1]))
    _cover(picture, body * 0.75, (1.0, 0.85, 0.55))
    for _ in range(random.integers(0, 2 + round(4 * difficulty))):
        where = _around((0, 0), 0.8, random)
        colour = COLOURS[list(COLOURS)[random.integers(len(COLOURS))]]
        _cover(picture, _dot(x, y, where, random.uniform(0.04, 0.12)) * random.uniform(0.2, 0.4),
               colour)  # fmt: skip
    for number, own in signs.items():
        colour_name, shape, place = SIGNS[number]
        strength = (1 - 0.6 * difficulty) * own.uniform(0.8, 1)
        radius = (0.2 - 0.06 * difficulty) * own.uniform(0.85, 1.15)
        cover = _shape(shape, x, y, _place(place, eye, own), radius, own)
        _cover(picture, cover * strength, COLOURS[colour_name])
    picture += np.float32(noise) * random.standard_normal(picture.shape, dtype=np.float32)
    picture *= _rise(np.float32(FIELD) - away)[..., None]
    return np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8)


def _place(place: str, eye: Eye, random: np.random.Generator) -> tuple[float, float]:
    """Where a sign stands, some way from its place's centre."""
    if place == "disc":
        return _around((DISC_AWAY * eye.side, eye.lift), 0.08, random)
    if place == "macula":
        return _around((-0.1 * eye.side, eye.lift), 0.12, random)
    if place == "vessels":
        bend = eye.bends[random.integers(len(eye.bends))]
        along = random.uniform(0.45, 0.75)
        return DISC_AWAY * eye.side - 1.1 * along * eye.side, _vessel(along, bend, eye)
    angle, away = random.uniform(0, 2 * np.pi), random.uniform(0.62, 0.75)
    return float(away * np.cos(angle)), float(away * np.sin(angle))


def _shape(
    shape: str,
    x: Floats,
    y: Floats,
    where: tuple[float, float],
    radius: float,
    random: np.random.Generator,
) -> Floats:
    """How much of each pixel a sign covers (S, S), 0 to 1."""
    turn = random.uniform(0, 2 * np.pi)
    if shape == "spots":
        total = np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=np.float32)
        for number in range(6):
            angle, away = turn + number * np.pi / 3, radius * random.uniform(0.5, 1)
            spot = (where[0] + away * np.cos(angle), where[1] + away * np.sin(angle))
            total = np.maximum(total, _disc(x, y, spot, 0.22 * radius))
        return total
    across, down = x - np.float32(where[0]), y - np.float32(where[1])
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    along, off = cos * across + sin * down, cos * down - sin * across
    away = np.hypot(across, down)
    if shape == "patch":
        return _rise(np.float32(0.75 * radius) - away)
    width = np.float32(0.22 * radius)
    if shape in ("ring", "arc"):
        ring = _rise(width - np.abs(away - np.float32(0.85 * radius)))
        if shape == "arc":  # the half of it that looks to one side
            ring = ring * _rise(along - np.float32(0.1 * radius))
        return ring
    half = np.float32(1.1 * radius)
    line = _rise(width - np.abs(off)) * _rise(half - np.abs(along))
    if shape == "cross":
        line = np.maximum(line, _rise(width - np.abs(along)) * _rise(half - np.abs(off)))
    return line


def _vessels(picture: Floats, eye: Eye, x: Floats, y: Floats) -> None:
    """Lines that leave the disc and bend around the macula."""
    along = (np.float32(DISC_AWAY * eye.side) - x) * np.float32(eye.side / 1.1)
    for bend in eye.bends:
        path = np.float32(bend) * np.sqrt(np.clip(along, 0, 1)) + np.float32(eye.lift)
        cover = _rise(np.float32(0.018) - np.abs(y - path)) * _rise(along) * _rise(1 - along)
        _cover(picture, cover * 0.55, COLOURS["red"])


def _vessel(along: float, bend: float, eye: Eye) -> float:
    return float(bend * np.sqrt(along) + eye.lift)


def _around(
    centre: tuple[float, float], spread: float, random: np.random.Generator
) -> tuple[float, float]:
    angle, away = random.uniform(0, 2 * np.pi), spread * np.sqrt(random.uniform())
    return float(centre[0] + away * np.cos(angle)), float(centre[1] + away * np.sin(angle))


def _dot(x: Floats, y: Floats, where: tuple[float, float], width: float) -> Floats:
    """A spot that fades out from its middle."""
    across = np.exp(-(((x - np.float32(where[0])) / np.float32(width)) ** 2))
    down = np.exp(-(((y - np.float32(where[1])) / np.float32(width)) ** 2))
    return np.asarray(across * down)


def _disc(x: Floats, y: Floats, where: tuple[float, float], radius: float) -> Floats:
    away = np.hypot(x - np.float32(where[0]), y - np.float32(where[1]))
    return _rise(np.float32(radius) - away)


def _cover(picture: Floats, cover: Floats, colour: tuple[float, float, float]) -> None:
    """Paint a colour over the picture where `cover` (S, S) says so."""
    share = np.asarray(cover, dtype=np.float32)[..., None]
    picture += share * (np.array(colour, dtype=np.float32) - picture)


def _rise(value: Floats) -> Floats:
    """0 outside of a border, 1 inside: the logistic function of the distance."""
    scaled = np.clip(value / np.float32(EDGE / 2), -30, 30)
    return np.asarray(1 / (1 + np.exp(-scaled)), dtype=np.float32)

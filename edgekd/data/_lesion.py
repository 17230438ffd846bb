"""Draw one skin lesion of a given severity. Used by the synthetic data set only.

Severity shows in three cues: a ragged border, a fine pigment texture instead of a coarse one, and
spots close to the lesion instead of far from it. Each cue keeps the amount of dark pigment the
same, so that neither mean colour nor position says anything about the grade.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]  # (S,) along one axis or (S, S)

LOW_WAVES = (2, 3)  # the lesion's own roundness: says nothing
HIGH_WAVES = (6, 7, 8, 9, 10)  # a ragged border: severity
SPOTS = 7


@dataclass(frozen=True)
class Skin:
    """What all pictures of one patient share."""

    tone: tuple[float, float, float]  # RGB in [0, 1]
    pigment: float  # how much darker a lesion is than the skin
    light_angle: float
    light_slope: float  # change of brightness over half the picture


def draw_skin(random: np.random.Generator) -> Skin:
    """Draw a patient."""
    brightness = random.uniform(0.55, 0.9)
    return Skin(
        tone=(
            min(0.98, brightness * random.uniform(0.98, 1.06)),
            brightness * random.uniform(0.76, 0.84),
            brightness * random.uniform(0.62, 0.74),
        ),
        pigment=random.uniform(0.35, 0.5),
        light_angle=random.uniform(0, 2 * np.pi),
        light_slope=random.uniform(0.0, 0.15),
    )


def draw(
    severity: float,
    skin: Skin,
    random: np.random.Generator,
    *,
    size: int,
    noise: float,
    spread: float,
    lesion: bool = True,
) -> tuple[UInt8, UInt8]:
    """Return a picture (S, S, 3) and its lesion mask (S, S) of 0 and 255.

    `severity` lies in [0, 1]. `spread` is the deviation of each cue from it: no single cue
    suffices. `noise` is the deviation of the pixel noise, in units of full brightness. Without a
    `lesion` the rest of the picture is as with it.
    """
    raggedness, fineness, nearness = np.clip(severity + random.normal(0, spread, 3), 0, 1)
    axis = (2 * np.arange(size, dtype=np.float32) + 1) / size - 1  # the picture spans [-1, 1]
    x = axis - np.float32(random.uniform(-0.18, 0.18))
    y = (axis - np.float32(random.uniform(-0.18, 0.18)))[:, None]
    radius = np.float32(random.uniform(0.38, 0.5))
    distance = np.hypot(x, y)
    border = radius * _outline(np.arctan2(y, x), raggedness, random)
    if not lesion:
        border = np.full_like(border, -4)  # nowhere within
    body = _rise((border - distance) / np.float32(random.uniform(0.02, 0.04)))
    cover = body * (1 + np.float32(0.4) * _texture(x, y, fineness, random))
    cover = np.maximum(cover, _spots(x, y, float(radius), nearness, random))
    cover = np.maximum(cover, _hairs(x, y, random))
    tint = np.array([0.75, 1.0, 1.08]) * random.uniform(0.92, 1.08, 3)
    darkness = (skin.pigment * random.uniform(0.85, 1.15) * tint).astype(np.float32)
    angle = skin.light_angle + random.normal(0, 0.3)
    slope_x, slope_y = np.array([np.cos(angle), np.sin(angle)], dtype=np.float32) * np.float32(
        skin.light_slope
    )
    light = np.float32(random.uniform(0.93, 1.07)) * (1 + slope_x * x + slope_y * y)
    picture = (
        np.array(skin.tone, dtype=np.float32) * (1 - darkness * cover[..., None]) * light[..., None]
    )
    picture += np.float32(noise) * random.standard_normal(picture.shape, dtype=np.float32)
    pixels = np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8)
    return pixels, np.where(distance < border, 255, 0).astype(np.uint8)


def _outline(angle: Floats, raggedness: float, random: np.random.Generator) -> Floats:
    """The lesion's radius in every direction, 1 on average (S, S)."""
    turn = np.linspace(-np.pi, np.pi, 361)
    low = _waves(turn, LOW_WAVES, random) * random.uniform(0.03, 0.1)
    high = _waves(turn, HIGH_WAVES, random) * (0.005 + 0.125 * raggedness)
    return np.interp(angle, turn, 1 + low + high).astype(np.float32)


def _waves(
    turn: npt.NDArray[np.float64], numbers: tuple[int, ...], random: np.random.Generator
) -> npt.NDArray[np.float64]:
    """A random periodic function with mean square 1."""
    height = random.normal(0, 1, (len(numbers), 1))
    height *= np.sqrt(2) / np.linalg.norm(height)
    phase = random.uniform(0, 2 * np.pi, (len(numbers), 1))
    total = height * np.cos(np.array(numbers)[:, None] * turn + phase)
    return np.asarray(total.sum(axis=0))


def _texture(x: Floats, y: Floats, fineness: float, random: np.random.Generator) -> Floats:
    """Coarse mottling that gives way to a fine network; mean 0 and mean square 1 for both."""
    coarse = _ripples(x, y, random.uniform(1.0, 1.8), random)
    fine = _ripples(x, y, random.uniform(3.6, 4.6), random)
    share = 0.1 + 0.8 * fineness
    return np.asarray(np.float32(np.sqrt(1 - share)) * coarse + np.float32(np.sqrt(share)) * fine)


def _ripples(x: Floats, y: Floats, frequency: float, random: np.random.Generator) -> Floats:
    """Three crossing waves of one frequency, in cycles per half picture."""
    start = random.uniform(0, np.pi)
    total = np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=np.float32)
    for turn in range(3):
        angle = start + turn * np.pi / 3
        across = np.float32(2 * np.pi * frequency * np.cos(angle)) * x
        across += np.float32(random.uniform(0, 2 * np.pi))
        down = np.float32(2 * np.pi * frequency * np.sin(angle)) * y
        # cos(across + down) from its factors: trigonometry on lines, not on the whole picture
        total += np.cos(down) * np.cos(across) - np.sin(down) * np.sin(across)
    return np.asarray(total * np.float32(np.sqrt(2 / 3)))


def _spots(
    x: Floats, y: Floats, radius: float, nearness: float, random: np.random.Generator
) -> Floats:
    """Small dark spots, always as many: near the lesion (satellites) or far off (freckles)."""
    total = np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=np.float32)
    for _ in range(SPOTS):
        near = random.uniform() < 0.9 * nearness
        away = radius * (random.uniform(1.25, 1.4) if near else random.uniform(1.75, 2.5))
        angle = random.uniform(0, 2 * np.pi)
        width = random.uniform(0.05, 0.08)
        across = np.exp(-(((x - np.float32(away * np.cos(angle))) / np.float32(width)) ** 2))
        down = np.exp(-(((y - np.float32(away * np.sin(angle))) / np.float32(width)) ** 2))
        total = np.maximum(total, np.float32(random.uniform(0.7, 1.1)) * down * across)
    return total


def _hairs(x: Floats, y: Floats, random: np.random.Generator) -> Floats:
    total = np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=np.float32)
    for _ in range(random.integers(0, 4)):
        angle = np.float32(random.uniform(0, np.pi))
        cos, sin = np.cos(angle), np.sin(angle)
        bend, middle = np.float32(random.uniform(-0.4, 0.4)), np.float32(random.uniform(-0.8, 0.8))
        along = cos * x + sin * y
        off = (cos * y - sin * x - middle - bend * along * along) / np.float32(0.022)
        total = np.maximum(total, np.float32(1.3) * np.exp(-off * off))
    return total


def _rise(value: Floats) -> Floats:
    """The logistic function."""
    return np.asarray(1 / (1 + np.exp(-np.clip(value, -30, 30))), dtype=np.float32)

"""A critic of one convolution and its terms once more: numpy float64, loops, nothing from edgekd.

Logits are (B, K, H, W), K = 1 the logit of the foreground; images (B, 3, H, W), as large as the
logits. The critic: a 4x4 convolution of stride 2 with one pixel of zeros around, LeakyReLU 0.1,
then one number from a kernel over all that is left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tests.losses.segmentation_oracles import chances


@dataclass(frozen=True)
class Weights:
    first: np.ndarray  # (w, C, 4, 4)
    bias: np.ndarray  # (w,)
    last: np.ndarray  # (w, H // 2, W // 2)


def map_of(image: np.ndarray) -> np.ndarray:
    """The probabilities (2 or K, H, W) of one image's logits."""
    height, width = image.shape[1:]
    columns = [[chances(image[:, i, j]) for j in range(width)] for i in range(height)]
    return np.array(columns).transpose(2, 0, 1)


def padded(entering: np.ndarray) -> np.ndarray:
    return np.pad(entering, ((0, 0), (1, 1), (1, 1)))


def hidden(weights: Weights, entering: np.ndarray) -> np.ndarray:
    """What the convolution says of (C, H, W), before LeakyReLU."""
    wide, found = padded(entering), np.zeros(weights.last.shape)
    for c, i, j in np.ndindex(*found.shape):
        patch = wide[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4]
        found[c, i, j] = weights.bias[c] + float((patch * weights.first[c]).sum())
    return found


def number(weights: Weights, maps: np.ndarray, image: np.ndarray) -> float:
    """D(map, image)"""
    values = hidden(weights, np.concatenate([maps, image]))
    return sum(
        weights.last[place] * (values[place] if values[place] > 0 else 0.1 * values[place])
        for place in np.ndindex(*values.shape)
    )


def slopes(weights: Weights, maps: np.ndarray, image: np.ndarray) -> np.ndarray:
    """dD/dmap, by the chain rule"""
    entering = np.concatenate([maps, image])
    values, found = hidden(weights, entering), np.zeros(padded(entering).shape)
    for c, i, j in np.ndindex(*values.shape):
        through = weights.last[c, i, j] * (1.0 if values[c, i, j] > 0 else 0.1)
        found[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += through * weights.first[c]
    return found[: len(maps), 1:-1, 1:-1]


def penalty(
    weights: Weights, student: np.ndarray, teacher: np.ndarray, images: np.ndarray,
    share: np.ndarray,
) -> float:  # fmt: skip
    """mean_b (||dD/dx|| - 1)^2, x = share p_T + (1 - share) p_S"""
    total = 0.0
    for s, t, image, part in zip(student, teacher, images, share, strict=True):
        between = part * map_of(t) + (1 - part) * map_of(s)
        length = math.sqrt(sum(v**2 for v in slopes(weights, between, image).ravel()))
        total += (length - 1) ** 2
    return total / len(student)


def mean_number(weights: Weights, logits: np.ndarray, images: np.ndarray) -> float:
    """mean_b D(p, image)"""
    pairs = list(zip(logits, images, strict=True))
    return sum(number(weights, map_of(one), image) for one, image in pairs) / len(pairs)


def of_student(weights: Weights, student: np.ndarray, images: np.ndarray) -> float:
    """-mean D(S): what the student minimises"""
    return -mean_number(weights, student, images)


def of_critic(
    weights: Weights, student: np.ndarray, teacher: np.ndarray, images: np.ndarray,
    share: np.ndarray, factor: float = 10.0,
) -> float:  # fmt: skip
    """mean D(S) - mean D(T) + 10 GP: what the critic minimises"""
    steep = factor * penalty(weights, student, teacher, images, share)
    both = mean_number(weights, student, images) - mean_number(weights, teacher, images)
    return both + steep

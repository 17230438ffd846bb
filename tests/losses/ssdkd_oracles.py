"""SSD-KD once more: numpy float64, explicit loops, nothing from edgekd.

arXiv 2203.11490. Rows are all images, then all of them turned by 90, 180 and 270 degrees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tests.losses.kdml_oracles import batch_norm, linear, unit
from tests.losses.oracles import cross_entropy, kd, mse
from tests.losses.umkd_oracles import convolved, relu, rkd_angle, rkd_distance

Layer = tuple[np.ndarray, np.ndarray]  # weight, bias


def keep_rows(scores: np.ndarray, right: Sequence[int], share: float) -> list[int]:
    """Rows whose right column is the best, and `share` of the others, by its rank, then place"""
    order = []
    for r, (row, own) in enumerate(zip(scores, right, strict=True)):
        rank = sum(1 for value in row if value > row[own]) if own >= 0 else 0
        order.append((rank, r))
    wrong = sum(1 for rank, _ in order if rank > 0)
    count = len(order) - wrong + math.floor(share * wrong)
    return sorted(r for _, r in sorted(order)[:count])


def ssdkd_logits(
    student: np.ndarray,
    teacher: np.ndarray,
    targets: Sequence[int],
    tau: float = 4.0,
    normal: float = 0.9,
    rotated: float = 2.7,
    keep: float = 1.0,
) -> float:
    images = len(student) // 4
    total = normal * kd(student[:images], teacher[:images], tau)
    rows = keep_rows(teacher[images:], targets[images:], keep)
    if rows:
        total += rotated * kd(student[images:][rows], teacher[images:][rows], tau)
    return total


def headed(pooled: np.ndarray, layers: Sequence[Layer]) -> np.ndarray:
    """linear, ReLU, linear"""
    hidden = [[max(value, 0.0) for value in linear(row, *layers[0])] for row in pooled]
    return np.array([linear(row, *layers[1]) for row in hidden])


def cosines(embedded: np.ndarray) -> np.ndarray:
    """Of every turned row with every image as it is: (3 B, B)"""
    images = len(embedded) // 4
    rows = [unit(row) for row in embedded]
    return np.array(
        [
            [sum(a * b for a, b in zip(turned, normal, strict=True)) for normal in rows[:images]]
            for turned in rows[images:]
        ]
    )


def contrastive(pooled: np.ndarray, layers: Sequence[Layer]) -> float:
    found = cosines(headed(pooled, layers))
    images = len(pooled) // 4
    return cross_entropy(found, [r % images for r in range(3 * images)])


def ssdkd_self(
    student: np.ndarray,
    teacher: np.ndarray,
    student_layers: Sequence[Layer],
    teacher_layers: Sequence[Layer],
    tau: float = 0.5,
    keep: float = 0.75,
) -> float:
    ours, theirs = (
        cosines(headed(student, student_layers)),
        cosines(headed(teacher, teacher_layers)),
    )
    images = len(student) // 4
    rows = keep_rows(theirs, [r % images for r in range(3 * images)], keep)
    return kd(ours[rows], theirs[rows], tau) if rows else 0.0


def gram(image: np.ndarray) -> np.ndarray:
    """F F^T / (D h w) of one image's map (D, h, w)"""
    flat = image.reshape(len(image), -1)
    out = np.zeros((len(image), len(image)))
    for i, a in enumerate(flat):
        for j, b in enumerate(flat):
            out[i, j] = sum(x * y for x, y in zip(a, b, strict=True)) / image.size
    return out


def channel_distance(student: np.ndarray, teacher: np.ndarray) -> float:
    """The root of the mean squared difference of all entries of all Gram matrices"""
    ours = np.array([gram(image) for image in student])
    theirs = np.array([gram(image) for image in teacher])
    return math.sqrt(mse(ours, theirs))


def regressed(maps: np.ndarray, layer: Layer, gain: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """1x1 convolution, BatchNorm, ReLU"""
    return relu(batch_norm(convolved(maps, *layer), gain, shift))


def relations(
    pooled: tuple[np.ndarray, np.ndarray],
    maps: tuple[np.ndarray, np.ndarray],  # the student's already regressed
    distance: float = 25.0,
    angle: float = 50.0,
    channels: float = 1000.0,
) -> float:
    total = distance * rkd_distance(*pooled) + angle * rkd_angle(*pooled)
    return total + channels * channel_distance(*maps)

"""The formulas once more: numpy float64, explicit loops, nothing from edgekd."""

from __future__ import annotations

import math

import numpy as np


def softmax(row: np.ndarray) -> list[float]:
    top = max(row)
    exponent = [math.exp(value - top) for value in row]
    total = sum(exponent)
    return [value / total for value in exponent]


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 0)


def cross_entropy(logits: np.ndarray, targets: list[int]) -> float:
    """mean_b -log softmax(z_b)[y_b]"""
    losses = [-math.log(softmax(row)[y]) for row, y in zip(logits, targets, strict=True)]
    return sum(losses) / len(losses)


def kd(student: np.ndarray, teacher: np.ndarray, tau: float) -> float:
    """Hinton et al., arXiv 1503.02531: tau^2 mean_b KL(softmax(zT/tau) || softmax(zS/tau))"""
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        total += kl(softmax(t / tau), softmax(s / tau))
    return tau**2 * total / len(student)


def dkd(
    student: np.ndarray,
    teacher: np.ndarray,
    targets: list[int],
    tau: float,
    alpha: float,
    beta: float,
) -> float:
    """Zhao et al., arXiv 2203.08679: tau^2 mean_b(alpha TCKD + beta NCKD), no warm-up"""
    total = 0.0
    for s, t, y in zip(student, teacher, targets, strict=True):
        ps, pt = softmax(s / tau), softmax(t / tau)
        tckd = kl([pt[y], 1 - pt[y]], [ps[y], 1 - ps[y]])
        rest_s = [p / (1 - ps[y]) for c, p in enumerate(ps) if c != y]
        rest_t = [p / (1 - pt[y]) for c, p in enumerate(pt) if c != y]
        total += alpha * tckd + beta * kl(rest_t, rest_s)
    return tau**2 * total / len(student)


def mse(a: np.ndarray, b: np.ndarray) -> float:
    total = 0.0
    for x, y in zip(a.ravel(), b.ravel(), strict=True):
        total += (float(x) - float(y)) ** 2
    return total / a.size

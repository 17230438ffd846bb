"""The losses on several labels once more: numpy float64, explicit loops, nothing from edgekd.

Logits and labels are (B, n), labels 1, 0 or negative where unknown; counts n_c are positives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Counts = Sequence[float]


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def softplus(z: float) -> float:
    return max(z, 0.0) + math.log1p(math.exp(-abs(z)))


def mean_of_known(terms: np.ndarray, labels: np.ndarray) -> float:
    found = [float(terms[at]) for at in np.ndindex(*labels.shape) if labels[at] >= 0]
    return sum(found) / len(found) if found else 0.0


def scaled_to_mean_1(weights: Sequence[float], counts: Counts) -> list[float]:
    """The mean is over classes that have a positive."""
    some = [w for w, n in zip(weights, counts, strict=True) if n > 0]
    mean = sum(some) / len(some)
    return [w / mean for w in weights]


def weights(kind: str, counts: Counts, beta: float = 0.9999) -> list[float]:
    """1/n, 1/sqrt(n), or Cui et al., arXiv 1901.05555: (1 - beta) / (1 - beta^n)"""
    raw = []
    for count in counts:
        n = max(count, 1)
        effective = sum(beta**i for i in range(int(n)))  # (1 - beta^n) / (1 - beta)
        raw.append({"inverse": 1 / n, "sqrt": n**-0.5, "class_balanced": 1 / effective}[kind])
    return scaled_to_mean_1(raw, counts)


def bce(logits: np.ndarray, labels: np.ndarray, positive: Sequence[float] | None = None) -> float:
    """-w_c y log p - (1 - y) log(1 - p)"""
    terms = np.zeros(logits.shape)
    for b, c in np.ndindex(*logits.shape):
        p = sigmoid(logits[b, c])
        if labels[b, c] == 1:
            terms[b, c] = -(1.0 if positive is None else positive[c]) * math.log(p)
        elif labels[b, c] == 0:
            terms[b, c] = -math.log(1 - p)
    return mean_of_known(terms, labels)


def focal(logits: np.ndarray, labels: np.ndarray, gamma: float) -> float:
    """Lin et al., arXiv 1708.02002, equation 4: -(1 - p_t)^gamma log p_t"""
    terms = np.zeros(logits.shape)
    for b, c in np.ndindex(*logits.shape):
        p = sigmoid(logits[b, c])
        p_t = p if labels[b, c] == 1 else 1 - p
        terms[b, c] = -((1 - p_t) ** gamma) * math.log(p_t)
    return mean_of_known(terms, labels)


def margins(counts: Counts, largest: float = 0.5) -> list[float]:
    """Cao et al., arXiv 1906.07413: m_c = C / n_c^(1/4), the largest of them given."""
    raw = [n**-0.25 for n in counts]
    return [largest * m / max(raw) for m in raw]


def ldam(
    logits: np.ndarray,
    labels: np.ndarray,
    counts: Counts,
    *,
    largest: float = 0.5,
    scale: float = 1.0,
    positive: Sequence[float] | None = None,
) -> float:
    """BCE of s (z_c - y_c m_c)"""
    shifted = np.zeros(logits.shape)
    for b, c in np.ndindex(*logits.shape):
        is_there = 1.0 if labels[b, c] == 1 else 0.0
        shifted[b, c] = scale * (logits[b, c] - is_there * margins(counts, largest)[c])
    return bce(shifted, labels, positive)


def ldam_single(
    logits: np.ndarray,
    targets: Sequence[int],
    counts: Counts,
    *,
    scale: float,
    per_class: Sequence[float] | None = None,
) -> float:
    """-log e^(s (z_y - m_y)) / (e^(s (z_y - m_y)) + sum_{j != y} e^(s z_j)), weighted mean"""
    total, weight = 0.0, 0.0
    for row, y in zip(logits, targets, strict=True):
        own = math.exp(scale * (row[y] - margins(counts)[y]))
        others = sum(math.exp(scale * z) for j, z in enumerate(row) if j != y)
        w = 1.0 if per_class is None else per_class[y]
        total -= w * math.log(own / (own + others))
        weight += w
    return total / weight


def db(
    logits: np.ndarray,
    labels: np.ndarray,
    counts: Counts,
    images: int,
    *,
    mu: float = 0.3,
    lam: float = 5.0,
    kappa: float = 0.05,
    a: float = 0.1,
    b: float = 10.0,
    gamma: float = 2.0,
    balance: float = 2.0,
) -> float:
    """Wu et al., arXiv 2007.09654: re-balanced weights, negative-tolerant logits, focal factor"""
    terms = np.zeros(logits.shape)
    for i, c in np.ndindex(*logits.shape):
        shown = sum(1 / counts[j] for j in range(len(counts)) if labels[i, j] == 1)
        r = (1 / counts[c]) / shown if shown else math.inf
        w = a + (1 / (1 + math.exp(-b * (r - mu))) if shown else 1.0)
        z = logits[i, c] - kappa / lam * math.log(images / counts[c] - 1)
        loss = softplus(-z) if labels[i, c] == 1 else softplus(lam * z)
        p_t = math.exp(-loss)
        share = 1.0 if labels[i, c] == 1 else 1 / lam
        terms[i, c] = balance * (1 - p_t) ** gamma * w * share * loss
    return mean_of_known(terms, labels)


def coin_kl(z: float, wanted: float) -> float:
    p, q = sigmoid(z), sigmoid(wanted)
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def rskd(
    student: np.ndarray,
    teachers: Sequence[np.ndarray],
    subsets: Sequence[Sequence[int]],
    labels: np.ndarray,
    *,
    temperature: float = 10.0,
    per_class: Sequence[float] | None = None,
    is_forward: bool = False,
    only_subset: bool = False,
) -> list[float]:
    """Ju et al., arXiv 2104.11057, equations 1, 2 and 4: w_i KD_i of every class."""
    out = []
    for c in range(student.shape[1]):
        found = []
        for logits, subset in zip(teachers, subsets, strict=True):
            if c not in subset:
                continue
            terms = []
            for i in range(len(student)):
                if only_subset and not any(labels[i, j] == 1 for j in subset):
                    continue
                ours = student[i, c] / temperature
                theirs = logits[i, list(subset).index(c)] / temperature
                terms.append(coin_kl(theirs, ours) if is_forward else coin_kl(ours, theirs))
            found.append(sum(terms) / len(terms) if terms else 0.0)
        out.append((1.0 if per_class is None else per_class[c]) * sum(found) / len(found))
    return out


def dynamic_weight(teacher: float, student: float, delta: float = 0.6) -> float:
    """Equation 3, kept within 0 and 1."""
    if teacher == 0:
        return 1.0 if student == 0 else 0.0
    if delta * teacher >= student:
        return 1.0
    return max(0.0, (teacher - student) / (teacher * (1 - delta)))


# Liu et al., arXiv 1904.05160, and the authors' code.


def distance(f: Sequence[float], centroid: Sequence[float]) -> float:
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(f, centroid, strict=True)))


def dot(row: Sequence[float] | np.ndarray, other: Sequence[float] | np.ndarray) -> float:
    return float(sum(x * y for x, y in zip(row, other, strict=True)))


def oltr_head(features: np.ndarray, state: dict[str, np.ndarray], least: float = 0.0) -> np.ndarray:
    """m = softmax(W_h f) K, e = tanh(W_s f), g = 10 / min ||f - K_c||, v = g (f + e m),
    16 ||v|| / (1 + ||v||) cos(v, w_c)"""
    centroids, weight = state["centroids"], state["weight"]
    out = np.zeros((len(features), len(weight)))
    for b, f in enumerate(features):
        asked = [
            math.exp(dot(row, f) + bias)
            for row, bias in zip(state["hallucinator.weight"], state["hallucinator.bias"],
                                 strict=True)
        ]  # fmt: skip
        shares = [value / sum(asked) for value in asked]
        taken = [
            math.tanh(dot(row, f) + bias)
            for row, bias in zip(state["selector.weight"], state["selector.bias"], strict=True)
        ]
        g = 10 / max(min(distance(f, centroid) for centroid in centroids), least)
        v = [g * (x + taken[d] * dot(shares, centroids[:, d])) for d, x in enumerate(f)]
        length = math.sqrt(dot(v, v))
        for c, w in enumerate(weight):
            out[b, c] = 16 * (length / (1 + length)) * dot(v, w) / length / math.sqrt(dot(w, w))
    return out


def oltr(away: np.ndarray, labels: np.ndarray, margin: float = 10.0) -> float:
    """0.01 [1/2 mean ||f - K_y||^2 + 0.01 max(0, 10 - R)], from the distances (B, n)."""
    near = []
    for row, known in zip(away, labels, strict=True):
        own = [d**2 for d, y in zip(row, known, strict=True) if y == 1]
        if own:
            near.append(sum(own) / len(own))
    far = [
        0.0 if labels[at] == 1 else float(away[at]) ** 2
        for at in np.ndindex(*labels.shape)
        if labels[at] >= 0
    ]
    if not far:
        return 0.0
    attraction = sum(near) / len(near) if near else 0.0
    return 0.01 * (0.5 * attraction + 0.01 * max(0.0, margin - sum(far) / len(far)))

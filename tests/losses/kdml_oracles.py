"""What KDML is compared with, once more: numpy float64, explicit loops, nothing from edgekd."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tests.losses.oracles import kl, mse, softmax
from tests.losses.umkd_oracles import cells, convolved, relu

BN_EPS = 1e-5  # torch's


def averaged(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Maps (B, D, h, w) as means of height x width cells."""
    out = np.zeros((*maps.shape[:2], height, width))
    for i, (top, bottom) in enumerate(cells(maps.shape[2], height)):
        for j, (left, right) in enumerate(cells(maps.shape[3], width)):
            for y in range(top, bottom):
                for x in range(left, right):
                    out[:, :, i, j] += maps[:, :, y, x] / ((bottom - top) * (right - left))
    return out


def one_size(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The larger averaged to the smaller."""
    size = min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3])
    return averaged(a, *size), averaged(b, *size)


def unit(row: Sequence[float]) -> list[float]:
    length = math.sqrt(sum(value**2 for value in row))
    return [value / length if length else 0.0 for value in row]


# Attention transfer: Zagoruyko and Komodakis, arXiv 1612.03928, activation-based, F_sum^p.


def attention(image: np.ndarray, p: int) -> list[float]:
    """One image's map (D, h, w): sum_c |F_c|^p at every pixel, over the length of all pixels"""
    found = []
    for y in range(image.shape[1]):
        for x in range(image.shape[2]):
            found.append(sum(abs(float(value)) ** p for value in image[:, y, x]))
    return unit(found)


def at(student: np.ndarray, teacher: np.ndarray, p: int = 2) -> float:
    """mean over images and pixels of (Q_S - Q_T)^2"""
    student, teacher = one_size(student, teacher)
    total, count = 0.0, 0
    for s, t in zip(student, teacher, strict=True):
        for a, b in zip(attention(s, p), attention(t, p), strict=True):
            total += (a - b) ** 2
            count += 1
    return total / count


# Similarity-preserving distillation: Tung and Mori, arXiv 1907.09682.


def similarities(features: np.ndarray) -> list[list[float]]:
    """G: the products of one image with all, over the length of that row"""
    flat = features.reshape(len(features), -1)
    products = [[sum(a * b for a, b in zip(i, j, strict=True)) for j in flat] for i in flat]
    return [unit(row) for row in products]


def sp(student: np.ndarray, teacher: np.ndarray) -> float:
    """1/B^2 ||G_S - G_T||_F^2"""
    ours, theirs = similarities(student), similarities(teacher)
    total = 0.0
    for i in range(len(ours)):
        for j in range(len(ours)):
            total += (ours[i][j] - theirs[i][j]) ** 2
    return total / len(ours) ** 2


# Layers from their weights.


def batch_norm(maps: np.ndarray, gain: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Each channel by its mean and (biased) variance over images and pixels, as in training."""
    out = np.zeros(maps.shape)
    for c in range(maps.shape[1]):
        values = [float(value) for value in maps[:, c].ravel()]
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        out[:, c] = gain[c] * (maps[:, c] - mean) / math.sqrt(variance + BN_EPS) + shift[c]
    return out


def linear(row: Sequence[float], weight: np.ndarray, bias: np.ndarray) -> list[float]:
    return [
        sum(float(w) * value for w, value in zip(weights, row, strict=True)) + float(b)
        for weights, b in zip(weight, bias, strict=True)
    ]


# Softmax regression representation learning: Yang et al., ICLR 2021 (L_FM and L_SR).


def srrl(
    student: np.ndarray,
    teacher: np.ndarray,
    connector: tuple[np.ndarray, np.ndarray, np.ndarray],  # convolution, gain, shift
    head: tuple[np.ndarray, np.ndarray],
    logits: np.ndarray,
    alpha: float = 1.0,
    beta: float = 1.0,
) -> float:
    """alpha mean (f_S - f_T)^2 + beta mean (head(f_S) - z_T)^2, f the mean over pixels"""
    weight, gain, shift = connector
    connected = relu(batch_norm(convolved(student, weight), gain, shift))
    ours = averaged(connected, 1, 1)[:, :, 0, 0]
    theirs = averaged(teacher, 1, 1)[:, :, 0, 0]
    answers = np.array([linear(row, *head) for row in ours])
    return alpha * mse(ours, theirs) + beta * mse(answers, logits)


# Variational information distillation: Ahn et al., arXiv 1904.05835.


def vid(
    student: np.ndarray,
    teacher: np.ndarray,
    weights: Sequence[np.ndarray],  # three 1x1 convolutions
    rho: np.ndarray,
    eps: float = 1e-5,
) -> float:
    """mean of 1/2 ((mu(F_S) - F_T)^2 / v + log v), v = log(1 + exp(rho)) + eps per channel"""
    student, teacher = one_size(student, teacher)
    mean = convolved(relu(convolved(relu(convolved(student, weights[0])), weights[1])), weights[2])
    total = 0.0
    for place in np.ndindex(*teacher.shape):
        variance = math.log(1 + math.exp(rho[place[1]])) + eps
        distance = float(mean[place]) - float(teacher[place])
        total += 0.5 * (distance**2 / variance + math.log(variance))
    return total / teacher.size


# Semantic calibration: Chen et al., arXiv 2012.03236.

Perceptron = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # weight, bias, weight, bias


def embedded(maps: np.ndarray, layers: Perceptron) -> list[list[float]]:
    """Each image's row of similarities, through two layers, at length 1"""
    flat = maps.reshape(len(maps), -1)
    found = []
    for i in flat:
        row = [sum(float(a) * float(b) for a, b in zip(i, j, strict=True)) for j in flat]
        hidden = [max(value, 0.0) for value in linear(row, layers[0], layers[1])]
        found.append(unit(linear(hidden, layers[2], layers[3])))
    return found


def projected(maps: np.ndarray, layers: Sequence[np.ndarray]) -> np.ndarray:
    """conv 1x1, BN, ReLU, conv 3x3, BN, ReLU, conv 1x1; layers: conv, gain, shift, ..., conv"""
    narrow = relu(batch_norm(convolved(maps, layers[0]), layers[1], layers[2]))
    wide = relu(batch_norm(convolved(narrow, layers[3]), layers[4], layers[5]))
    return convolved(wide, layers[6])


def semckd_weights(
    student: Sequence[np.ndarray],
    teacher: Sequence[np.ndarray],
    queries: Sequence[Perceptron],
    keys: Sequence[Perceptron],
    soft: float = 1.0,
) -> np.ndarray:
    """a_bij = softmax_j(<q_bi, k_bj> / soft): (B, S, T)"""
    q = [embedded(maps, layers) for maps, layers in zip(student, queries, strict=True)]
    k = [embedded(maps, layers) for maps, layers in zip(teacher, keys, strict=True)]
    out = np.zeros((len(student[0]), len(student), len(teacher)))
    for b in range(len(out)):
        for i in range(len(student)):
            products = [sum(x * y for x, y in zip(q[i][b], kj[b], strict=True)) / soft for kj in k]
            out[b, i] = softmax(np.array(products))
    return out


def semckd(
    student: Sequence[np.ndarray],
    teacher: Sequence[np.ndarray],
    queries: Sequence[Perceptron],
    keys: Sequence[Perceptron],
    projectors: Sequence[Sequence[np.ndarray]],  # [i * T + j]
    soft: float = 1.0,
) -> float:
    """1/(B S) sum_b,i,j a_bij MSE(r_ij(F_S,i)_b, F_T,j,b)"""
    weights = semckd_weights(student, teacher, queries, keys, soft)
    total = 0.0
    for i, ours in enumerate(student):
        for j, theirs in enumerate(teacher):
            small, wanted = one_size(ours, theirs)
            made = projected(small, projectors[i * len(teacher) + j])
            for b in range(len(made)):
                total += weights[b, i, j] * mse(made[b], wanted[b])
    return total / (len(weights) * len(student))


# Deep mutual learning: Zhang et al., arXiv 1706.00384.


def dml(student: np.ndarray, peers: Sequence[np.ndarray], tau: float = 1.0) -> float:
    """1/(K-1) sum_l tau^2 mean_b KL(p_l || p_k)"""
    total = 0.0
    for peer in peers:
        for s, p in zip(student, peer, strict=True):
            total += kl(softmax(p / tau), softmax(s / tau)) / len(student)
    return tau**2 * total / len(peers)


# Features of KDML, arXiv 2212.02931 (its feature knowledge), and of SimKD, arXiv 2203.14001.


def feature_mse(student: np.ndarray, teacher: np.ndarray) -> float:
    """mean over all elements of (F_S - F_T)^2"""
    return mse(*one_size(student, teacher))

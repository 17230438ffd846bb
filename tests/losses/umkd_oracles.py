"""UMKD's terms, RKD and SDD once more: numpy float64, explicit loops, nothing from edgekd."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from tests.losses.oracles import kl, mse, softmax

SIGMAS = (0.001, 0.01, 0.05, 0.1, 0.2, 1.0, 2.0)


def slope(value: Callable[[np.ndarray], float], at: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """The gradient of `value` by central differences."""
    gradient = np.zeros(at.shape)
    for place in np.ndindex(*at.shape):
        up, down = at.copy(), at.copy()
        up[place] += step
        down[place] -= step
        gradient[place] = (value(up) - value(down)) / (2 * step)
    return gradient


# Maximum mean discrepancy: UMKD, arXiv 2505.00592, equation 1; the kernels are the authors' code's.


def unit_rows(rows: np.ndarray) -> np.ndarray:
    return np.array([row / math.sqrt(sum(value**2 for value in row)) for row in rows])


def rbf(u: np.ndarray, v: np.ndarray, sigmas: Sequence[float] = SIGMAS) -> float:
    squared = max(sum((a - b) ** 2 for a, b in zip(u, v, strict=True)), 1e-12)
    return sum(math.exp(-squared / (2 * sigma**2)) for sigma in sigmas)


def mmd(x: np.ndarray, y: np.ndarray, sigmas: Sequence[float] = SIGMAS) -> float:
    """relu(1/B^2 [sum K(x_i,x_j) + sum K(y_i,y_j) - 2 sum K(x_i,y_j)]) of rows of length 1"""
    x, y = unit_rows(x), unit_rows(y)
    total = 0.0
    for i in range(len(x)):
        for j in range(len(x)):
            total += rbf(x[i], x[j], sigmas) + rbf(y[i], y[j], sigmas)
            total -= 2 * rbf(x[i], y[j], sigmas)
    return max(total / len(x) ** 2, 0.0)


def linear_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """||mean x - mean y||^2 of rows of length 1"""
    x, y = unit_rows(x), unit_rows(y)
    return sum((sum(x[:, f]) / len(x) - sum(y[:, f]) / len(y)) ** 2 for f in range(x.shape[1]))


# Maps (B, D, h, w): pooling, resizing and convolving.


def cells(size: int, bins: int) -> list[tuple[int, int]]:
    """The ranges of adaptive pooling; they overlap where `size` is no multiple of `bins`."""
    return [(i * size // bins, -(-(i + 1) * size // bins)) for i in range(bins)]


def pooled(maps: np.ndarray, bins: int) -> np.ndarray:
    out = np.zeros((*maps.shape[:2], bins, bins))
    for i, (top, bottom) in enumerate(cells(maps.shape[2], bins)):
        for j, (left, right) in enumerate(cells(maps.shape[3], bins)):
            area = (bottom - top) * (right - left)
            out[:, :, i, j] = maps[:, :, top:bottom, left:right].sum((2, 3)) / area
    return out


def resized(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear, pixel centres at (i + 1/2) (align_corners=False)."""

    def source(i: int, new: int, old: int) -> tuple[int, int, float]:
        place = max((i + 0.5) * old / new - 0.5, 0.0)
        low = min(int(place), old - 1)
        return low, min(low + 1, old - 1), place - low

    out = np.zeros((*maps.shape[:2], height, width))
    for i in range(height):
        top, bottom, down = source(i, height, maps.shape[2])
        for j in range(width):
            left, right, across = source(j, width, maps.shape[3])
            upper = (1 - across) * maps[:, :, top, left] + across * maps[:, :, top, right]
            lower = (1 - across) * maps[:, :, bottom, left] + across * maps[:, :, bottom, right]
            out[:, :, i, j] = (1 - down) * upper + down * lower
    return out


def relu(values: np.ndarray) -> np.ndarray:
    return np.maximum(values, 0.0)


def convolved(
    maps: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None, stride: int = 1
) -> np.ndarray:
    """Zero padding of half the kernel; a weight (D, 1, k, k) for D > 1 channels is depth-wise."""
    edge = weight.shape[2] // 2
    depthwise = weight.shape[1] == 1 and maps.shape[1] > 1
    padded = np.pad(maps, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
    height, width = -(-maps.shape[2] // stride), -(-maps.shape[3] // stride)
    out = np.zeros((len(maps), len(weight), height, width))
    for o, kernel in enumerate(weight):
        source = padded[:, o : o + 1] if depthwise else padded
        for i in range(height):
            for j in range(width):
                y, x = i * stride, j * stride
                patch = source[:, :, y : y + kernel.shape[1], x : x + kernel.shape[2]]
                out[:, o, i, j] = (patch * kernel).sum((1, 2, 3))
                out[:, o, i, j] += 0.0 if bias is None else bias[o]
    return out


def low_pass(maps: np.ndarray, bins: Sequence[int] = (1, 2, 3, 6)) -> np.ndarray:
    """UMKD, equation 4; one size of grid per group of channels, the first groups the larger ones"""
    out = np.zeros(maps.shape)
    first = 0
    for m, k in enumerate(bins):
        size = maps.shape[1] // len(bins) + (m < maps.shape[1] % len(bins))
        group = slice(first, first + size)
        out[:, group] = resized(pooled(maps[:, group], k), *maps.shape[2:])
        first += size
    return relu(out)


# UMKD, equations 1 to 3: the common feature block from its weights.


def extracted(
    maps: np.ndarray, align: np.ndarray, shortcut: np.ndarray, kernels: Sequence[np.ndarray]
) -> np.ndarray:
    """conv 1x1 + ReLU, then three residual blocks of two 3x3 convolutions each"""
    x = relu(convolved(maps, align))
    for block in range(3):
        inner = convolved(relu(convolved(x, kernels[2 * block])), kernels[2 * block + 1])
        x = relu(inner + (convolved(x, shortcut) if block == 0 else x))
    return x


def decoded(hidden: np.ndarray, wide: np.ndarray, narrow: np.ndarray) -> np.ndarray:
    return convolved(relu(convolved(hidden, wide)), narrow)


def common_features(
    student: np.ndarray,
    experts: Sequence[np.ndarray],
    aligns: Sequence[np.ndarray],  # the student's, then one per expert
    extractor: tuple[np.ndarray, Sequence[np.ndarray]],
    decoders: Sequence[tuple[np.ndarray, np.ndarray]],
) -> float:
    """sum_t MMD(h_S, h_T,t) + sum_t MSE(decoder_t(h_T,t), F_T,t)"""
    ours = extracted(student, aligns[0], *extractor)
    total = 0.0
    for expert, align, decoder in zip(experts, aligns[1:], decoders, strict=True):
        theirs = extracted(expert, align, *extractor)
        total += mmd(ours.reshape(len(ours), -1), theirs.reshape(len(theirs), -1))
        total += mse(decoded(theirs, *decoder), expert)
    return total


# Region logits (B, C, R) and what is made of them: UMKD, equations 6 and 7; SDD, arXiv 2403.13512.


def region_logits(
    maps: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    windows: Sequence[int] = (1, 2, 4),
    from_finest: bool = False,
) -> np.ndarray:
    if from_finest:
        maps = pooled(maps, max(windows))
    columns = []
    for window in windows:
        grid = pooled(maps, window)
        for i in range(window):
            for j in range(window):
                columns.append([weight @ cell + bias for cell in grid[:, :, i, j]])
    return np.array(columns).transpose(1, 2, 0)


def udd_paper(student: np.ndarray, experts: Sequence[np.ndarray], reduction: str = "mean") -> float:
    """sum (2 + U) TCKD + (1 - U) NCKD (equation 7), the mean over images and experts"""
    images, _, regions = student.shape
    total = 0.0
    for expert in experts:
        for b in range(images):
            for r in range(regions):
                s, t = student[b, :, r], expert[b, :, r]
                ps, pt = softmax(s), softmax(t)
                u = 1 - max(pt)
                tckd = sum((q - p) ** 2 for p, q in zip(ps, pt, strict=True))
                nckd = sum((q - p) ** 2 for p, q in zip(s, t, strict=True))
                total += (2 + u) * tckd + (1 - u) * nckd
    return total / (images * len(experts) * (regions if reduction == "mean" else 1))


def dkd_row(s: np.ndarray, t: np.ndarray, y: int, tau: float) -> tuple[float, float]:
    """tau^2 TCKD and tau^2 NCKD of one row"""
    ps, pt = softmax(s / tau), softmax(t / tau)
    tckd = kl([pt[y], 1 - pt[y]], [ps[y], 1 - ps[y]])
    rest_s = [p / (1 - ps[y]) for c, p in enumerate(ps) if c != y]
    rest_t = [p / (1 - pt[y]) for c, p in enumerate(pt) if c != y]
    return tau**2 * tckd, tau**2 * kl(rest_t, rest_s)


def complementary(expert: np.ndarray, y: int, r: int) -> float:
    """2 where one image's logits (C, R) are right in region r only, or in the whole image only"""
    whole, part = int(np.argmax(expert[:, 0])) == y, int(np.argmax(expert[:, r])) == y
    return 2.0 if whole != part else 1.0


def udd_official(
    student: np.ndarray,
    experts: Sequence[np.ndarray],
    targets: Sequence[int],
    *,
    tau: float = 4.0,
    alpha: float = 1.0,
    beta: float = 8.0,
    u: str = "confidence",
    row_order: str = "shipped",
) -> float:
    """UMKD as the authors' code has it: rows are region-major, shipped weights sample-major"""
    images, _, regions = student.shape
    mean = sum(experts) / len(experts)
    sure = np.zeros((images, regions))
    for expert in experts:
        for b in range(images):
            for r in range(regions):
                evidence = [math.log1p(math.exp(value)) + 0.1 for value in expert[b, :, r]]
                sure[b, r] += max(evidence) / sum(evidence) / len(experts)
    weights = sure if u == "confidence" else 1 - sure
    sample_major = [weights[b, r] for b in range(images) for r in range(regions)]
    total = 0.0
    for r in range(regions):
        for b in range(images):
            w = sample_major[r * images + b] if row_order == "shipped" else weights[b, r]
            tckd, nckd = dkd_row(student[b, :, r], mean[b, :, r], targets[b], tau)
            row = (2 + w) * alpha * tckd + (1 - w) * beta * nckd
            total += complementary(mean[b], targets[b], r) * row
    return total / (images * regions)


def sdd(
    student: np.ndarray,
    expert: np.ndarray,
    targets: Sequence[int],
    *,
    form: str = "dkd",
    tau: float = 4.0,
    alpha: float = 1.0,
    beta: float = 8.0,
) -> float:
    """1/(B R) sum of weight times KD or DKD, the weight from the expert; a target < 0 is unknown"""
    images, _, regions = student.shape
    total = 0.0
    for b in range(images):
        for r in range(regions):
            s, t, y = student[b, :, r], expert[b, :, r], targets[b]
            if form == "kd":
                row = tau**2 * kl(softmax(t / tau), softmax(s / tau))
            else:
                tckd, nckd = dkd_row(s, t, y, tau)
                row = alpha * tckd + beta * nckd
            total += row * (complementary(expert[b], y, r) if y >= 0 else 1.0)
    return total / (images * regions)


# Relational distillation: RKD, arXiv 1904.05068, equations 5 to 8.


def smooth_l1(a: float, b: float) -> float:
    return 0.5 * (a - b) ** 2 if abs(a - b) < 1 else abs(a - b) - 0.5


def distances(rows: np.ndarray) -> np.ndarray:
    """Distances of all pairs over the mean of the positive ones."""
    raw = [[math.sqrt(sum((a - b) ** 2)) for b in rows] for a in rows]
    positive = [d for line in raw for d in line if d > 0]
    return np.array(raw) / (sum(positive) / len(positive))


def rkd_distance(student: np.ndarray, teacher: np.ndarray) -> float:
    pairs = zip(distances(student).ravel(), distances(teacher).ravel(), strict=True)
    return sum(smooth_l1(a, b) for a, b in pairs) / len(student) ** 2


def cosine(rows: np.ndarray, i: int, j: int, k: int) -> float:
    """Of the angle at row i; 0 where one of its sides has no length."""
    a, b = rows[j] - rows[i], rows[k] - rows[i]
    lengths = math.sqrt(sum(a**2)) * math.sqrt(sum(b**2))
    return sum(a * b) / lengths if lengths > 0 else 0.0


def rkd_angle(student: np.ndarray, teacher: np.ndarray) -> float:
    rows = range(len(student))
    angles = [(i, j, k) for i in rows for j in rows for k in rows]
    return sum(smooth_l1(cosine(student, *a), cosine(teacher, *a)) for a in angles) / len(angles)

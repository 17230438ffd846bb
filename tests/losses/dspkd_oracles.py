"""DSP-KD and what it is compared with, once more: numpy float64, loops, nothing from edgekd."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tests.losses.kdml_oracles import averaged, linear, one_size
from tests.losses.oracles import cross_entropy, kd, kl, mse, softmax
from tests.losses.umkd_oracles import convolved, relu, resized

Layer = tuple[np.ndarray, np.ndarray]  # weight, bias

# Masked generation: MGD, arXiv 2205.01529; DSP-KD, Bioengineering 11(1):70, equations 1 to 5.


def gelu(values: np.ndarray) -> np.ndarray:
    """x Phi(x), Phi the distribution of a standard Gaussian"""
    out = np.zeros(values.shape)
    for place in np.ndindex(*values.shape):
        x = float(values[place])
        out[place] = x * 0.5 * (1 + math.erf(x / math.sqrt(2)))
    return out


def generated(
    student: np.ndarray, mask: np.ndarray, align: Layer | None, layers: Sequence[Layer], kind: str
) -> np.ndarray:
    """conv 3x3, ReLU or GELU, conv 3x3 of what the mask leaves of the aligned map"""
    aligned = student if align is None else convolved(student, *align)
    hidden = convolved(aligned * mask, *layers[0])
    return convolved(gelu(hidden) if kind == "gelu" else relu(hidden), *layers[1])


def summed_error(made: np.ndarray, wanted: np.ndarray) -> float:
    """1/B sum over images, channels and pixels of (G - F)^2"""
    total = 0.0
    for a, b in zip(made.ravel(), wanted.ravel(), strict=True):
        total += (float(a) - float(b)) ** 2
    return total / len(wanted)


def mgd(
    student: np.ndarray,
    teacher: np.ndarray,
    mask: np.ndarray,
    align: Layer | None,
    layers: Sequence[Layer],
    alpha: float = 7e-5,
) -> float:
    return alpha * summed_error(generated(student, mask, align, layers, "relu"), teacher)


def neighbourhood(maps: np.ndarray, kernel: int = 3) -> np.ndarray:
    """The mean of the pixels around each one, of those that there are"""
    out = np.zeros(maps.shape)
    reach = kernel // 2
    for y in range(maps.shape[2]):
        for x in range(maps.shape[3]):
            rows = slice(max(y - reach, 0), y + reach + 1)
            columns = slice(max(x - reach, 0), x + reach + 1)
            out[:, :, y, x] = maps[:, :, rows, columns].mean((2, 3))
    return out


def stretched(maps: np.ndarray) -> np.ndarray:
    """(x - min) / (max - min) of each image's map; a constant one becomes 0"""
    out = np.zeros(maps.shape)
    for b, image in enumerate(maps):
        low, high = float(image.min()), float(image.max())
        if high - low > 1e-6 * max(abs(low), abs(high)):
            out[b] = (image - low) / (high - low)
    return out


def fused(levels: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """U_4 = A_4, U_l = w A_l + (1 - w) up(U_l+1), l = 3, 2, 1"""
    upper = levels[-1]
    for level, weight in zip(levels[-2::-1], weights[::-1], strict=True):
        upper = weight * level + (1 - weight) * resized(upper, *level.shape[2:])
    return upper


def at_size(attention: np.ndarray, height: int, width: int) -> np.ndarray:
    return stretched(averaged(stretched(attention), height, width))


def hf_attention(
    maps: Sequence[np.ndarray], height: int, width: int, kernel: int = 3, fusion: float = 0.5
) -> np.ndarray:
    levels = []
    for level in maps:
        smooth = neighbourhood(level, kernel)
        total = np.zeros((len(level), 1, *level.shape[2:]))
        for c in range(level.shape[1]):
            total[:, 0] += smooth[:, c] ** 2 / level.shape[1]
        levels.append(total)
    return at_size(fused(levels, [fusion] * (len(levels) - 1)), height, width)


def learnt_attention(
    maps: Sequence[np.ndarray],
    kernels: Sequence[np.ndarray],
    weights: Sequence[float],
    height: int,
    width: int,
) -> np.ndarray:
    """With a 1x1 convolution per level in place of the mean of squares"""
    levels = [convolved(neighbourhood(m), k) for m, k in zip(maps, kernels, strict=True)]
    return at_size(fused(levels, weights), height, width)


def hf_mask(attention: np.ndarray, phi: float = 0.5, quantile: float | None = None) -> np.ndarray:
    """Equation 3: 0 where the attention is at least phi, else 1; 1 all over a constant map"""
    mask = np.ones(attention.shape)
    for b, image in enumerate(attention):
        if image.max() == image.min():
            continue
        limit = phi
        if quantile is not None:
            ordered = sorted((float(value) for value in image.ravel()), reverse=True)
            count = math.floor(quantile * len(ordered) + 0.5)
            limit = ordered[count - 1] if count else math.inf
        for place in np.ndindex(*image.shape):
            if image[place] >= limit:
                mask[b][place] = 0.0
    return mask


def hf_mgd(
    student: np.ndarray,
    teacher: np.ndarray,
    mask: np.ndarray,
    align: Layer | None,
    layers: Sequence[Layer],
    alpha: float = 7e-5,
    lambda_orig: float = 1.0,
) -> float:
    """Equation 5 without its cross-entropy"""
    aligned = student if align is None else convolved(student, *align)
    error = summed_error(generated(student, mask, align, layers, "gelu"), teacher)
    return alpha * error + lambda_orig * mse(aligned, teacher)


# Normalised logits: NormKD, arXiv 2308.00520; DSP-KD, equations 7 and 8.


def spread(row: np.ndarray) -> float:
    mean = sum(row) / len(row)
    return max(math.sqrt(sum((value - mean) ** 2 for value in row) / (len(row) - 1)), 1e-6)


def normkd(
    student: np.ndarray, teacher: np.ndarray, temperature: float = 2.0, reverse: bool = False
) -> float:
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        ps, pt = softmax(s / (temperature * spread(s))), softmax(t / (temperature * spread(t)))
        factor = (temperature * spread(t)) ** 2
        total += factor * (kl(ps, pt) if reverse else kl(pt, ps)) / len(student)
    return total


# Weighted soft labels: WSLD, arXiv 2102.00650.


def wsld_weights(student: np.ndarray, teacher: np.ndarray, targets: Sequence[int]) -> list[float]:
    found = []
    for s, t, y in zip(student, teacher, targets, strict=True):
        ours, theirs = -math.log(softmax(s)[y]), -math.log(softmax(t)[y])
        found.append(1 - math.exp(-ours / (theirs + 1e-7)))
    return found


def wsld(
    student: np.ndarray,
    teacher: np.ndarray,
    targets: Sequence[int],
    tau: float = 2.0,
    weights: Sequence[float] | None = None,
) -> float:
    """tau^2 mean_b w_b H(p_T, p_S); `weights` for those of other logits"""
    if weights is None:
        weights = wsld_weights(student, teacher, targets)
    total = 0.0
    for s, t, w in zip(student, teacher, weights, strict=True):
        ps, pt = softmax(s / tau), softmax(t / tau)
        total -= w * sum(p * math.log(q) for p, q in zip(pt, ps, strict=True))
    return tau**2 * total / len(student)


# Ensemble mutual learning as re-derived, after arXiv 1904.09058.


def fusion_logits(
    first: np.ndarray,
    second: np.ndarray,
    peers: Sequence[Layer],
    gate: np.ndarray,
    depthwise: Layer,
    pointwise: Layer,
    classifier: Layer,
) -> np.ndarray:
    a, b = one_size(first, second)
    a, b = convolved(a, *peers[0]), convolved(b, *peers[1])
    joined = np.zeros(a.shape)
    for i in range(len(a)):
        difference = [float((a[i, c] - b[i, c]).mean()) for c in range(a.shape[1])]
        for c, value in enumerate(linear(difference, gate, np.zeros(len(gate)))):
            g = 1 / (1 + math.exp(-value))
            joined[i, c] = g * a[i, c] + (1 - g) * b[i, c]
    made = convolved(convolved(joined, *depthwise), *pointwise)
    return np.array([linear(row.mean((1, 2)), *classifier) for row in made])


def eml(
    one: np.ndarray,
    other: np.ndarray,
    fused_logits: np.ndarray,
    targets: Sequence[int],
    tau: float,
    ramp: float,
) -> float:
    ensemble = (one + other) / 2
    total = kd(fused_logits, ensemble, tau)
    for peer in (one, other):
        total += kd(peer, ensemble, tau) + kd(peer, fused_logits, tau)
    return cross_entropy(fused_logits, list(targets)) + ramp * total

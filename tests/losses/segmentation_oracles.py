"""The losses on masks once more: numpy float64, explicit loops, nothing from edgekd.

Logits are (B, K, H, W), K = 1 the logit of the foreground; labels (B, H, W), negative = unknown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tests.losses.kdml_oracles import attention, averaged, one_size, unit
from tests.losses.oracles import kl, softmax
from tests.losses.umkd_oracles import resized


def chances(pixel: Sequence[float], tau: float = 1.0) -> list[float]:
    """One pixel's probabilities of all classes, background first."""
    if len(pixel) == 1:
        p = 1 / (1 + math.exp(-pixel[0] / tau))
        return [1 - p, p]
    return softmax(np.array(pixel) / tau)


def pixels(maps: np.ndarray) -> list[tuple[int, int, int]]:
    return list(np.ndindex(len(maps), *maps.shape[2:]))


def nearest(labels: np.ndarray, height: int, width: int) -> np.ndarray:
    out = np.zeros((len(labels), height, width), dtype=int)
    for b, i, j in np.ndindex(*out.shape):
        row, column = i * labels.shape[1] // height, j * labels.shape[2] // width
        out[b, i, j] = labels[b, row, column]
    return out


def mean_feature(maps: np.ndarray, labels: np.ndarray, wanted: Sequence[int]) -> list[float] | None:
    """Of one image's map (D, h, w) over the pixels of some classes; None where there are none."""
    found = [maps[:, i, j] for i, j in np.ndindex(*labels.shape) if labels[i, j] in wanted]
    return [sum(row[c] for row in found) / len(found) for c in range(len(maps))] if found else None


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(unit(a), unit(b), strict=True))


# Focal loss (Lin et al., arXiv 1708.02002) and Dice (Milletari et al., arXiv 1606.04797).


def binary_focal(logits: np.ndarray, labels: np.ndarray, gamma: float = 2.0) -> float:
    """-mean [g (1-p)^gamma log p + (1-g) p^gamma log(1-p)]"""
    total, count = 0.0, 0
    for b, i, j in pixels(logits):
        g, p = labels[b, i, j], chances(logits[b, :, i, j])[1]
        if g >= 0:
            count += 1
            total -= g * (1 - p) ** gamma * math.log(p)
            total -= (1 - g) * p**gamma * math.log(1 - p)
    return total / count if count else 0.0


def focal(logits: np.ndarray, labels: np.ndarray, gamma: float = 2.0) -> float:
    """-mean (1 - p_y)^gamma log p_y"""
    total, count = 0.0, 0
    for b, i, j in pixels(logits):
        if labels[b, i, j] >= 0:
            p = chances(logits[b, :, i, j])[labels[b, i, j]]
            total -= (1 - p) ** gamma * math.log(p)
            count += 1
    return total / count if count else 0.0


def dice(logits: np.ndarray, labels: np.ndarray, eps: float = 1.0) -> float:
    """1 - (2 sum p g + eps) / (sum p + sum g + eps) per image and foreground class"""
    per_image = []
    for z, y in zip(logits, labels, strict=True):
        known = [place for place in np.ndindex(*y.shape) if y[place] >= 0]
        losses = []
        for c in range(1, max(2, len(z))):
            both = found = wanted = 0.0
            for i, j in known:
                p, g = chances(z[:, i, j])[c], float(y[i, j] == c)
                both, found, wanted = both + p * g, found + p, wanted + g
            losses.append(1 - (2 * both + eps) / (found + wanted + eps))
        if known:
            per_image.append(sum(losses) / len(losses))
    return sum(per_image) / len(per_image) if per_image else 0.0


# Divergences at pixels: Hinton et al., arXiv 1503.02531; Liu et al., arXiv 1903.04197.


def kd_pixel(student: np.ndarray, teacher: np.ndarray, tau: float = 1.0) -> float:
    """tau^2 mean KL(p_T || p_S)"""
    places = pixels(student)
    total = 0.0
    for b, i, j in places:
        total += kl(chances(teacher[b, :, i, j], tau), chances(student[b, :, i, j], tau))
    return tau**2 * total / len(places)


def bernoulli_kl(student: np.ndarray, teacher: np.ndarray, tau: float = 1.0) -> float:
    """tau^2 mean [p log(p/q) + (1-p) log((1-p)/(1-q))], p and q sigmoids"""
    total = 0.0
    for s, t in zip(student.ravel(), teacher.ravel(), strict=True):
        q, p = 1 / (1 + math.exp(-s / tau)), 1 / (1 + math.exp(-t / tau))
        total += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    return tau**2 * total / student.size


def pixel_wise(student: np.ndarray, teacher: np.ndarray) -> float:
    """-mean sum_k p_T log p_S"""
    places = pixels(student)
    total = 0.0
    for b, i, j in places:
        ours, theirs = chances(student[b, :, i, j]), chances(teacher[b, :, i, j])
        total -= sum(p * math.log(q) for p, q in zip(theirs, ours, strict=True))
    return total / len(places)


def nodes(image: np.ndarray, scale: float) -> list[list[float]]:
    """One image's map (D, h, w): the largest value of every cell, at length 1 over channels"""
    height, width = (max(1, int(scale * side)) for side in image.shape[1:])
    found = []
    for top in range(0, image.shape[1], height):
        for left in range(0, image.shape[2], width):
            cell = image[:, top : top + height, left : left + width]
            found.append(unit([float(channel.max()) for channel in cell]))
    return found


def pair_wise(student: np.ndarray, teacher: np.ndarray, scale: float = 0.5) -> float:
    """1/(B N^2) sum (a_S - a_T)^2, a the products of nodes"""
    student, teacher = one_size(student, teacher)
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        ours, theirs = nodes(s, scale), nodes(t, scale)
        for i in range(len(ours)):
            for j in range(len(ours)):
                difference = cosine(ours[i], ours[j]) - cosine(theirs[i], theirs[j])
                total += difference**2 / len(ours) ** 2
    return total / len(student)


# Intra-class feature variation: Wang et al., ECCV 2020.


def ifvd(student: np.ndarray, teacher: np.ndarray, labels: np.ndarray, classes: int = 2) -> float:
    """mean over labelled pixels of (v_S - v_T)^2"""
    student, teacher = one_size(student, teacher)
    labels = nearest(labels, *student.shape[2:])
    total, count = 0.0, 0
    for s, t, y in zip(student, teacher, labels, strict=True):
        for c in range(classes):
            ours, theirs = mean_feature(s, y, [c]), mean_feature(t, y, [c])
            for i, j in np.ndindex(*y.shape):
                if y[i, j] == c and ours is not None and theirs is not None:
                    v = cosine(s[:, i, j], ours) - cosine(t[:, i, j], theirs)
                    total, count = total + v**2, count + 1
    return total / count if count else 0.0


# Channel-wise distillation: Shu et al., arXiv 2011.13256.


def cwd(student: np.ndarray, teacher: np.ndarray, tau: float = 4.0) -> float:
    """tau^2 / (B C) sum KL(phi_T || phi_S), phi a softmax over positions"""
    student, teacher = one_size(student, teacher)
    total = 0.0
    for b, c in np.ndindex(*student.shape[:2]):
        theirs = softmax(teacher[b, c].ravel() / tau)
        total += kl(theirs, softmax(student[b, c].ravel() / tau))
    return tau**2 * total / (len(student) * student.shape[1])


# Double similarity: Feng et al., arXiv 2107.08591, in the form of CIRKD's code.


def stage_attention(image: np.ndarray, height: int, width: int) -> list[float]:
    """One image's map (D, H, W): mean_c F_c^2, averaged to a size, at length 1"""
    energy = np.zeros((1, 1, *image.shape[1:]))
    for i, j in np.ndindex(*image.shape[1:]):
        energy[0, 0, i, j] = sum(float(value) ** 2 for value in image[:, i, j]) / len(image)
    return unit([float(value) for value in averaged(energy, height, width).ravel()])


def psd(student: Sequence[np.ndarray], teacher: Sequence[np.ndarray]) -> float:
    """mean over pairs, images and positions of (R_S - R_T)^2, R = norm(A_m - A_n)"""
    height = min(maps.shape[2] for maps in [*student, *teacher])
    width = min(maps.shape[3] for maps in [*student, *teacher])
    total, count = 0.0, 0
    for b in range(len(student[0])):
        ours = [stage_attention(maps[b], height, width) for maps in student]
        theirs = [stage_attention(maps[b], height, width) for maps in teacher]
        for n in range(len(ours)):
            for m in range(n + 1, len(ours)):
                r_s = unit([x - y for x, y in zip(ours[m], ours[n], strict=True)])
                r_t = unit([x - y for x, y in zip(theirs[m], theirs[n], strict=True)])
                total += sum((x - y) ** 2 for x, y in zip(r_s, r_t, strict=True))
                count += len(r_s)
    return total / count


def places(image: np.ndarray, tau: float) -> list[list[float]]:
    """One image's logits (K, H, W), means of 2x2 pixels: each channel's softmax over positions"""
    if len(image) == 1:
        image = np.concatenate([np.zeros(image.shape), image])
    rows = []
    for channel in image:
        cells = []
        for top in range(0, channel.shape[0], 2):
            for left in range(0, channel.shape[1], 2):
                cells.append(channel[top : top + 2, left : left + 2].mean() / tau)
        rows.append(softmax(np.array(cells)))
    return rows


def csd(student: np.ndarray, teacher: np.ndarray, tau: float = 4.0) -> float:
    """mean over images and pairs of classes of (<P_S,k, P_S,l> - <P_T,k, P_T,l>)^2"""
    total, count = 0.0, 0
    for s, t in zip(student, teacher, strict=True):
        ours, theirs = places(s, tau), places(t, tau)
        for k in range(len(ours)):
            for m in range(len(ours)):
                a = sum(x * y for x, y in zip(ours[k], ours[m], strict=True))
                b = sum(x * y for x, y in zip(theirs[k], theirs[m], strict=True))
                total, count = total + (a - b) ** 2, count + 1
    return total / count


# Medical image segmentation: Qin et al., arXiv 2108.09987.


def importance(student: np.ndarray, teacher: np.ndarray, p: int = 4) -> float:
    """mean_b ||Q(F_S) - Q(F_T)||^2, the student's map resized bilinearly"""
    if student.shape[2:] != teacher.shape[2:]:
        student = resized(student, *teacher.shape[2:])
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        ours, theirs = attention(s, p), attention(t, p)
        total += sum((x - y) ** 2 for x, y in zip(ours, theirs, strict=True))
    return total / len(student)


def affinity(student: np.ndarray, teacher: np.ndarray, labels: np.ndarray) -> float:
    """mean over labelled images of (cos_S - cos_T)^2; 0 without foreground or background"""
    total, count = 0.0, 0
    foreground = range(1, 100)
    for b, y in enumerate(labels):
        count += bool((y >= 0).any())
        cosines = []
        for maps in (student, teacher):
            small = nearest(y[None], *maps.shape[2:])[0]
            outside = mean_feature(maps[b], small, [0])
            inside = mean_feature(maps[b], small, foreground)
            if inside is not None and outside is not None:
                cosines.append(cosine(inside, outside))
        if len(cosines) == 2:
            total += (cosines[0] - cosines[1]) ** 2
    return total / count if count else 0.0

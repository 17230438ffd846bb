"""What losses on masks share: one-channel logits, labels of a map's size, regions.

Logits are (B, K, H, W). K = 1 is a binary task: its logit z is that of the foreground, the
probability sigmoid(z). Labels are (B, H, W), 0 the background, negative where unknown.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

SEGMENTATION = frozenset({"segmentation"})


def two_channels(logits: Tensor) -> Tensor:
    """Logits (B, 1, H, W) as [0, z], (B, 2, H, W); logits of several channels as they are.

    A softmax over one channel is constantly 1, that of [0, z] has sigmoid(z) as its second value.
    """
    if logits.shape[1] > 1:
        return logits
    return torch.cat([torch.zeros_like(logits), logits], dim=1)


def log_probabilities(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """`log softmax(z / tau)` over the channels of (B, K, H, W), that of [0, z] for one channel."""
    scaled = logits / temperature
    if logits.shape[1] > 1:
        return functional.log_softmax(scaled, dim=1)
    return torch.cat([functional.logsigmoid(-scaled), functional.logsigmoid(scaled)], dim=1)


def pixel_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """`tau^2 mean_px KL(p_T || p_S)`, p the probabilities of a pixel at the temperature.

    Logits (B, K, H, W); the sum over channels, the mean over the pixels of all images.
    """
    student_log = log_probabilities(student_logits, temperature)
    teacher_log = log_probabilities(teacher_logits, temperature)
    terms = functional.kl_div(student_log, teacher_log, reduction="none", log_target=True)
    return terms.sum(dim=1).mean() * temperature**2


def resized_labels(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Labels (B, H, W) at a height and width, each from the nearest pixel; unknown ones stay so.

    Place i reads the pixel `floor(i H / h)`, as torch's mode `nearest`.
    """
    height, width = labels.shape[-2:]
    rows = torch.arange(size[0], device=labels.device) * height // size[0]
    columns = torch.arange(size[1], device=labels.device) * width // size[1]
    return labels[:, rows][:, :, columns]


def class_masks(labels: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """1 where a pixel of (B, h, w) has the class, else 0: (B, classes, h, w).

    A pixel of unknown class is 0 in all masks.
    """
    numbers = torch.arange(classes, device=labels.device)[:, None, None]
    return (labels[:, None] == numbers).to(dtype)


def region_means(maps: Tensor, masks: Tensor) -> Tensor:
    """The mean of maps (B, D, h, w) over each mask of (B, K, h, w): (B, K, D); 0 if it is empty."""
    totals = masks.flatten(2) @ maps.flatten(2).transpose(1, 2)
    return totals / masks.sum(dim=(2, 3)).clamp(min=1)[:, :, None]

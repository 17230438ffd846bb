"""Networks that have seen four views of every image, and the parts of SSD-KD on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.losses.base import Batch, Loss, Outputs
from edgekd.losses.contrastive import Contrastive
from edgekd.losses.ssdkd_logits import SSDKDLogits
from edgekd.losses.ssdkd_relations import SSDKDRelations
from edgekd.losses.ssdkd_self import SSDKDSelf
from edgekd.losses.wce import WeightedCrossEntropy
from tests.losses import ssdkd_oracles as oracles
from tests.losses.cases import CLOCK, FACTS, batch, outputs, random_logits, random_maps

IMAGES = 3
TARGETS = [1, 0, 4]
VIEWS = batch(TARGETS * 4)
COUNTS = replace(FACTS, class_counts=(40, 5, 10, 20, 25))


def network(seed: int, width: int = 6, side: int = 3, images: int = IMAGES) -> Outputs:
    last = random_maps(seed, 4 * images, width, side)
    logits = random_logits(seed + 50, rows=4 * images)
    return outputs(logits, last=last, pooled=last.mean((2, 3)))


def layers(head: nn.Sequential) -> list[oracles.Layer]:
    return [(head[i].weight.detach().numpy(), head[i].bias.detach().numpy()) for i in (0, 2)]


def pooled(of: Outputs) -> np.ndarray:
    return of.taps["pooled"].detach().numpy()


def contrastive(teacher: Outputs, seed: int = 0) -> Contrastive:
    torch.manual_seed(seed)
    loss = Contrastive()
    loss.setup(teacher, [], FACTS)
    return loss.double()


def self_term(student: Outputs, teacher: Outputs, **params: float) -> SSDKDSelf:
    torch.manual_seed(1)
    loss = SSDKDSelf(head_of="head.contrastive", **params)
    loss.setup(student, [teacher], FACTS)
    loss.double().adopt(contrastive(teacher).state_dict())
    return loss


def relations(student: Outputs, *teachers: Outputs, **params) -> SSDKDRelations:
    torch.manual_seed(0)
    loss = SSDKDRelations(**params)
    loss.setup(student, teachers, FACTS)
    for regress in loss.regressors:  # gains of 1 and shifts of 0 would hide a mistake
        nn.init.uniform_(regress[1].weight, 0.5, 2.0)
        nn.init.uniform_(regress[1].bias, -1.0, 1.0)
    return loss.double()


def value(loss: Loss, student: Outputs, *teachers: Outputs, of: Batch = VIEWS) -> Tensor:
    return loss(student, teachers, of, CLOCK)


TERMS: dict[str, Callable[[Outputs, Outputs], Loss]] = {
    "wce": lambda s, t: WeightedCrossEntropy(),
    "contrastive": lambda s, t: contrastive(s),
    "ssdkd_logits": lambda s, t: SSDKDLogits(keep=0.5),
    "ssdkd_self": lambda s, t: self_term(s, t),
    "ssdkd_relations": lambda s, t: relations(s, t),
}


def made(name: str, images: int = IMAGES) -> tuple[Loss, Outputs, list[Outputs]]:
    student, teacher = network(1, images=images), network(2, 8, images=images)
    loss = TERMS[name](student, teacher)
    if name == "wce":
        loss.setup(student, [], COUNTS)
        loss.double()
    return loss, student, [teacher] if loss.needs_teacher else []

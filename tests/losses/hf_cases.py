"""Networks with four stages, and HF-MGD on them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edgekd.losses.base import Outputs
from edgekd.losses.hf_mgd import HFMGD
from tests.losses.cases import CLOCK, FACTS, batch, outputs, random_maps

SIDES = (9, 5, 3, 3)  # of s1 to s4; each is no multiple of the next
LAST = 3


def network(
    seed: int, width: int = 6, rows: int = 3, sides: tuple[int, ...] = SIDES, last: int = LAST
) -> Outputs:
    maps = {
        f"s{i}": random_maps(seed + i, rows, 2 + i, side) for i, side in enumerate(sides, start=1)
    }
    return outputs(torch.zeros(rows, 2), **maps, last=random_maps(seed, rows, width, last))


def levels_of(of: Outputs) -> list[Tensor]:
    return [of.taps[f"s{i}"] for i in range(1, 5)]


def arrays(maps: list[Tensor]) -> list[np.ndarray]:
    return [one.numpy() for one in maps]


def built(student: Outputs, *teachers: Outputs, **params) -> HFMGD:
    torch.manual_seed(0)
    loss = HFMGD(**params)
    loss.setup(student, teachers, FACTS)
    return loss.double()


def value(loss: HFMGD, student: Outputs, *teachers: Outputs) -> Tensor:
    return loss(student, teachers, batch([0] * len(student.logits)), CLOCK)


def hidden(mask: Tensor) -> float:
    return float((mask == 0).double().mean())

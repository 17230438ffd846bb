"""Whole groups to parts by share, so that each part gets its share of every class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Table = npt.NDArray[np.bool_]


def deal(
    groups: Sequence[str] | npt.NDArray[np.str_],
    table: Table,
    shares: Sequence[float],
    seed: int,
) -> npt.NDArray[np.int64]:
    """Deal whole groups out to parts by share, class by class; return the part of each image (N,).

    `table` (N, K) says what each image shows. Groups that hold much of a class go first, each to
    the part whose share of its classes is least filled (Sainte-Lague's rule); a class with a single
    group goes to the largest part. With several classes per image this is stratification by the
    rarest class first, as Sechidis et al. (ECML 2011) do it image by image.
    """
    _, owner = np.unique(np.asarray(groups), return_inverse=True)
    table = with_unknown(table)
    table = table[:, table.any(axis=0)]
    counts = np.zeros((owner.max() + 1, table.shape[1]))
    np.add.at(counts, owner, table)
    weight = counts / counts.sum(axis=0)  # (G, C): what this group holds of each class
    shuffled = np.random.default_rng(seed).permutation(len(counts))
    order = shuffled[np.argsort(-weight[shuffled].max(axis=1), kind="stable")]
    wanted = np.asarray(shares)[:, None]
    filled = np.zeros((len(shares), counts.shape[1]))
    part = np.empty(len(counts), dtype=np.int64)
    for group in order:
        # rare classes weigh more: they have few groups left to make up for it
        load = ((filled + weight[group] / 2) / wanted) @ weight[group]
        part[group] = np.argmin(load)
        filled[part[group]] += weight[group]
    return np.asarray(part[owner])


def with_unknown(table: Table) -> Table:
    """With a column in front for the images of which nothing is known, where there are any."""
    unknown = ~table.any(axis=1)
    return np.column_stack([unknown, table]) if unknown.any() else table

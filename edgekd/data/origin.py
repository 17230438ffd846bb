"""Which images a model was split from, told by digests: they travel with a bundle, ids do not.

Unlike `DataSource.fingerprint` they are the same for a copy of the data: only ids and labels enter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from edgekd.data._labels import texts
from edgekd.data.base import DataSource
from edgekd.data.splits import Split
from edgekd.errors import DataError

ALL, TEST, OTHER = "data_ids_sha256", "test_ids_sha256", "other_ids_sha256"


def digests(source: DataSource, split: Split) -> dict[str, str]:
    """What a manifest's `provenance` keeps: all images, the test part, and train with val."""
    return {
        ALL: _digest(source, range(len(source))),
        TEST: _digest(source, split.test),
        OTHER: _digest(source, np.concatenate([split.train, split.val])),
    }


def is_same_data(source: DataSource, recorded: Mapping[str, Any]) -> bool:
    """Whether the source lists exactly the images and labels that were recorded."""
    return bool(recorded.get(ALL) == _digest(source, range(len(source))))


def check_same_split(source: DataSource, split: Split, recorded: Mapping[str, Any]) -> None:
    """Raise DataError unless the test part, and the rest, are the images and labels recorded.

    A split that is drawn again from other images deals them otherwise: some that were trained on
    would be called test images.
    """
    if TEST not in recorded or OTHER not in recorded:
        raise DataError("the bundle does not record which images it was split from",
                        hint="edgekd export RUN makes a bundle that does")  # fmt: skip
    found = digests(source, split)
    if any(recorded[key] != found[key] for key in (TEST, OTHER)):
        raise DataError(
            "this is not the data the bundle was split from: images or labels were added, removed "
            "or changed",
            hint="give a folder per class of new images to score them all",
        )


def _digest(source: DataSource, indices: Iterable[int]) -> str:
    ids, labels = source.ids(), texts(source)
    lines = [f"{ids[index]}\0{labels[index]}\n" for index in indices]
    return hashlib.sha256("".join(sorted(lines)).encode("utf-8", "surrogateescape")).hexdigest()

"""What `input_pipeline.py` reads from: enlarged pictures, and a feed with a clock."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgekd.data.base import DataSource, Sample
from edgekd.image import decode
from edgekd.train.loader import Feed, Indices

JPEG_QUALITY = 90


@dataclass(frozen=True)
class TimedFeed(Feed):
    """A stage's feed that notes how long it was waited for, epoch by epoch."""

    spent: list[dict[str, float]] = field(default_factory=list)

    def load(
        self, plan: Sequence[Indices], *, seed: int, view: int, pin: bool
    ) -> Iterator[tuple[Any, Any, Any]]:
        loading = super().load(plan, seed=seed, view=view, pin=pin)
        begin = time.perf_counter()
        waits = []
        while True:
            asked = time.perf_counter()
            batch = next(loading, None)
            waits.append(time.perf_counter() - asked)
            if batch is None:
                break
            yield batch
        seconds = time.perf_counter() - begin
        self.spent.append({"seconds": seconds, "waiting": sum(waits), "first": waits[0]})


class Enlarged(DataSource):
    """Some images of a source, resized and written as JPEG files: they stand for large pictures."""

    def __init__(
        self, source: DataSource, indices: Indices, size: tuple[int, int], folder: Path
    ) -> None:
        self.source = source
        self.classes = source.classes
        self.paths: dict[int, Path] = {}
        folder.mkdir()
        for index in map(int, indices):
            self.paths[index] = folder / f"{index}.jpg"
            picture = Image.fromarray(source[index].image)
            picture.resize(size, Image.Resampling.BILINEAR).save(
                self.paths[index], quality=JPEG_QUALITY
            )

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        return Sample(decode(self.paths[index]), 0, str(index), str(index))

    def targets(self) -> Indices:
        return self.source.targets()

    def files(self) -> dict[int, Path]:  # type: ignore[override]  # by index: most are not here
        return self.paths

    def ids(self) -> Sequence[str]:
        return self.source.ids()

    def groups(self) -> Sequence[str]:
        return self.source.groups()


def pictures(source: DataSource, indices: Indices) -> dict[str, Any]:
    """What is read: median sides in pixels, whether they differ, and bytes per file."""
    files = source.files()
    sides = [source[index].image.shape[:2] for index in indices.tolist()]
    height, width = np.median(sides, axis=0).astype(int).tolist()
    sizes = [files[index].stat().st_size for index in indices.tolist()] if files else []
    return {
        "size": f"{width}x{height}",
        "is_mixed": len(set(sides)) > 1,
        "mean_bytes": float(np.mean(sizes)) if files else None,
    }

"""The outputs of frozen teachers as files: what a stage reads instead of running its teachers.

`<key>/view-<v>.<name>.npy` holds one row per training image, for `logits` and, where a term needs
it, for `pooled`. `view-<v>.json` is written after them and holds their shapes and hashes, so a
view without it is not there. How the files come to be, and what their key covers, is in
`cache_build.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgekd.log import warn
from edgekd.rundir import replace_file, sha256, write_text

Floats = npt.NDArray[np.float32]
View = dict[str, Floats]  # logits (N, C), pooled (N, D)


@dataclass(frozen=True)
class TeacherCache:
    """What frozen teachers say about the training images of a stage, view by view."""

    views: int
    rows: npt.NDArray[np.int64]  # of every image of the source: its row; -1 where it has none
    teachers: dict[str, list[View]]

    def view(self, epoch: int) -> int:
        """The augmented copy that an epoch sees. Both count from 1."""
        return (epoch - 1) % self.views + 1

    def lookup(
        self, indices: Tensor | npt.NDArray[np.int64], epoch: int
    ) -> dict[str, dict[str, Tensor]]:
        """What each teacher says in this epoch about images (B,): logits (B, C), pooled (B, D).

        Raises IndexError for an image that is not among the stage's training images.
        """
        rows = self.rows[np.asarray(indices)]
        if rows.min(initial=0) < 0:
            raise IndexError("an image without a row in the teacher cache")
        place = self.view(epoch) - 1
        return {
            teacher: {name: torch.from_numpy(values[rows]) for name, values in views[place].items()}
            for teacher, views in self.teachers.items()
        }


def rows_of(indices: npt.NDArray[np.int64], images: int) -> npt.NDArray[np.int64]:
    """From an image's index in the source to its row (images,)."""
    rows = np.full(images, -1, dtype=np.int64)
    rows[indices] = np.arange(len(indices))
    return rows


def open_view(folder: Path, view: int, names: Sequence[str], rows: int) -> View | None:
    """Map a view's files into memory; None where it is not there or, said aloud, is damaged."""
    record = folder / f"view-{view}.json"
    if not record.is_file():
        return None
    try:
        facts = json.loads(record.read_text(encoding="utf-8"))
        return {name: _open(folder / _file(view, name), facts["files"][name], rows)
                for name in names}  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        warn(f"{folder}: view {view} is damaged and will be computed again: {error}")
        return None


def _open(path: Path, facts: dict[str, Any], rows: int) -> Floats:
    size = path.stat().st_size
    if size != facts["bytes"]:
        raise ValueError(f"{path.name} has {size} bytes, expected {facts['bytes']}")
    if sha256(path) != facts["sha256"]:
        raise ValueError(f"{path.name} is not what was written")
    # a plain array over the map: slices of np.memmap itself are slow
    values: Floats = np.load(path, mmap_mode="r").view(np.ndarray)
    if len(values) != rows:
        raise ValueError(f"{path.name} has {len(values)} rows, expected {rows}")
    return values


def write_view(folder: Path, view: int, rows: int, pieces: Iterable[View]) -> None:
    """Write a view batch by batch; nothing of it appears under its name before all is there."""
    (folder / f"view-{view}.json").unlink(missing_ok=True)
    shapes: dict[str, list[int]] = {}
    with ExitStack() as stack:
        files: dict[str, IO[bytes]] = {}
        for piece in pieces:
            for name, values in piece.items():
                if name not in files:
                    shapes[name] = [rows, values.shape[1]]
                    path = folder / _file(view, name)
                    files[name] = stack.enter_context(replace_file(path, "wb"))
                    header = {"descr": "<f4", "fortran_order": False, "shape": (*shapes[name],)}
                    np.lib.format.write_array_header_1_0(files[name], header)
                files[name].write(np.ascontiguousarray(values, dtype="<f4").tobytes())
    facts = {}
    for name, shape in shapes.items():
        path = folder / _file(view, name)
        facts[name] = {"shape": shape, "bytes": path.stat().st_size, "sha256": sha256(path)}
    text = json.dumps({"rows": rows, "files": facts}, indent=1, sort_keys=True)
    write_text(folder / f"view-{view}.json", text + "\n")


def _file(view: int, name: str) -> str:
    return f"view-{view}.{name}.npy"

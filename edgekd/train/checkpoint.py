"""Saving a stage so that it can go on: weights as safetensors, the rest beside them.

`last/` is replaced as a whole, so a crash while writing leaves the previous one intact. There is
no random state in it: see `seeding.py`.
"""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from edgekd.errors import CheckpointError
from edgekd.models.quantized import plain
from edgekd.rundir import replace_file, replace_folder
from edgekd.train.distiller import Distiller


@dataclass
class Best:
    """The epoch whose weights are kept for one model."""

    epoch: int
    value: float | None


@dataclass
class Progress:
    """Where a stage is. `step` steps of epoch `epoch` are done; the sums belong to that epoch."""

    epoch: int = 1
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    images: int = 0
    seconds: float = 0.0  # spent in this epoch so far
    best: dict[str, Best] = field(default_factory=dict)
    waiting: dict[str, Best] = field(default_factory=dict)  # by the score that ends the stage
    plateau: dict[str, Best] = field(default_factory=dict)  # by the score that lowers the rate
    drops: int = 0  # how often it has lowered it


def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """A module's state on the CPU, contiguous and unshared, as safetensors wants it."""
    return {
        key: value.detach().to("cpu").contiguous().clone()
        for key, value in module.state_dict().items()
    }


def save_weights(net: nn.Module, path: Path) -> None:
    """Write the plain network's weights atomically, without quantizers."""
    with replace_file(path, "wb") as file:
        file.write(save(plain(plain_state(net))))


def save_last(
    folder: Path,
    key: str,
    distiller: Distiller,
    optimizer: torch.optim.Optimizer,
    precision_state: dict[str, Any],
    progress: Progress,
) -> None:
    """Write `last/` for stage `key` (its hash)."""
    tensors = {}
    for name in distiller.trained:
        for entry, value in plain_state(distiller.networks[name]).items():
            tensors[f"{name}/{entry}"] = value
    for entry, value in plain_state(distiller.terms).items():
        tensors[f"terms:/{entry}"] = value
    state = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "precision": precision_state}, state)
    with replace_folder(folder / "last") as temporary:
        # written by Python, whose OSError says that the disk is full; the libraries' own do not
        (temporary / "weights.safetensors").write_bytes(save(tensors))
        (temporary / "optimizer.pt").write_bytes(state.getvalue())
        text = json.dumps({"key": key, **asdict(progress)}, sort_keys=True)
        (temporary / "progress.json").write_text(text, encoding="utf-8")


def load_last(
    folder: Path, key: str, distiller: Distiller, optimizer: torch.optim.Optimizer
) -> tuple[Progress, dict[str, Any]] | None:
    """Continue from `last/`, if it belongs to this very stage; returns progress and AMP state."""
    path = folder / "last" / "progress.json"
    if not path.is_file():
        return None
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if tree.pop("key") != key:
            return None
        for key_of_best in ("best", "waiting", "plateau"):
            entries = tree.pop(key_of_best, {})
            tree[key_of_best] = {name: Best(**entry) for name, entry in entries.items()}
        progress = Progress(**tree)
        tensors = load_file(folder / "last" / "weights.safetensors")
        state = torch.load(folder / "last" / "optimizer.pt", map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged disk; the writer itself never leaves half a folder
        raise CheckpointError(
            f"{folder / 'last'} cannot be read: {error}", hint="start over with --fresh"
        ) from None
    for name in distiller.trained:
        own = {k.partition("/")[2]: v for k, v in tensors.items() if k.partition("/")[0] == name}
        distiller.networks[name].load_state_dict(own)
    terms = {k.removeprefix("terms:/"): v for k, v in tensors.items() if k.startswith("terms:/")}
    distiller.terms.load_state_dict(terms)
    optimizer.load_state_dict(state["optimizer"])
    return progress, state["precision"]


def tidy(folder: Path) -> None:
    """Mend what a crash in the middle of `replace_folder` left: bring `last/` back, drop scraps."""
    old = sorted(folder.glob(".last.*.old"), key=lambda path: path.stat().st_mtime)
    if old and not (folder / "last").exists():
        old.pop().replace(folder / "last")
    for scrap in [*old, *folder.glob(".last.*.tmp"), *folder.glob(".*.safetensors.*.tmp")]:
        shutil.rmtree(scrap) if scrap.is_dir() else scrap.unlink()


def trim_metrics(path: Path, epochs: int) -> None:
    """Drop the rows after `epochs`, which a resumed stage will write again."""
    if not path.is_file():
        return
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # a line torn by a crash
            continue
        if row["epoch"] <= epochs:
            rows.append(line + "\n")
    with replace_file(path) as file:
        file.writelines(rows)

"""A model that begins where another one ended, and the class means that a memory begins with."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from edgekd.errors import CheckpointError
from edgekd.image import center_crop
from edgekd.models.network import Network
from edgekd.models.oltr import OltrHead
from edgekd.models.taps import Recorder
from edgekd.models.weights import is_head, read_weights
from edgekd.recipe_data import InputSpec
from edgekd.train.loader import Feed, to_float

BATCH = 64


def start_with(network: Network, weights: Path, origin: str) -> None:
    """Load another model's weights, all but its classifier.

    A memory's hallucinator begins as that classifier (as in OLTR's code). Raises CheckpointError
    where the networks differ in more than the classifier.
    """
    own, state = network.net.state_dict(), read_weights(weights)
    body = {key for key in own if not is_head(network.net, key)}
    differs = [
        key for key in sorted(body) if key not in state or state[key].shape != own[key].shape
    ]
    if differs:
        raise CheckpointError(f"{origin} is of another architecture: {differs[0]} differs",
                              hint="give both models the same `arch` and `args`")  # fmt: skip
    taken = {key: value for key, value in state.items() if key in body}
    for path, module in network.net.named_modules():
        if isinstance(module, OltrHead):
            old = {part: state.get(f"{path}.{part}") for part in ("weight", "bias")}
            taken.update({f"{path}.hallucinator.{part}": value for part, value in old.items()
                          if value is not None})  # fmt: skip
    network.net.load_state_dict(taken, strict=False)


def start_memory(network: Network, feed: Feed, spec: InputSpec, outputs: int) -> None:
    """Let the centroids of a memory begin at the mean features of the training images.

    Without augmentation, in evaluation mode. A class without an image begins at 0. Networks
    without a memory stay as they are.
    """
    heads = [module for module in network.modules() if isinstance(module, OltrHead)]
    if not heads:
        return
    device = network.mean.device
    recorder = Recorder(network, {"pooled"}, "the model")
    was_training = network.training
    network.eval()
    sums: Tensor | float = 0.0
    counts = torch.zeros(outputs, 1)
    indices = torch.unique(torch.from_numpy(feed.indices))
    with torch.no_grad():
        for piece in indices.split(BATCH):
            rows = piece.tolist()
            crops = [torch.from_numpy(center_crop(feed.store[i], spec.size).copy()) for i in rows]
            recorder.start()
            network(to_float(torch.stack(crops).permute(0, 3, 1, 2).to(device)))
            pooled = recorder.take()["pooled"].float().cpu()
            shown = _shown(feed, rows, outputs, network.classes)
            sums = sums + shown.T @ pooled
            counts += shown.sum(dim=0)[:, None]
    network.train(was_training)
    for head in heads:
        head.start_centroids((sums / counts.clamp(min=1)).to(device))


def _shown(feed: Feed, rows: list[int], outputs: int, classes: tuple[int, ...] | None) -> Tensor:
    """Which classes images show, of those whose label may be used (B, n)."""
    known = torch.from_numpy(feed.targets[rows] >= 0)[:, None]
    if feed.labels is None:
        targets = torch.from_numpy(feed.targets[rows]).clamp(min=0)
        table = torch.nn.functional.one_hot(targets, outputs).bool()
    else:
        table = torch.from_numpy(feed.labels[rows] == 1)
        table = table if classes is None else table[:, list(classes)]
    return (table & known).float()

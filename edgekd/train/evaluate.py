"""Asking a trained network about a part of the data, with the task's own scores."""

from __future__ import annotations

import numpy as np
import torch

from edgekd.data.base import DataSource
from edgekd.data.read import read_truth
from edgekd.image import center_crop
from edgekd.models.network import Network
from edgekd.recipe_data import InputSpec
from edgekd.results import Predictions
from edgekd.tasks.base import Task
from edgekd.train.loader import Indices, Store, to_float


def predict(
    network: Network,
    store: Store,
    source: DataSource,
    indices: Indices,
    spec: InputSpec,
    *,
    batch: int = 64,
    channels_last: bool = False,
    masks: bool = False,
) -> Predictions:
    """Logits of every image in `indices`, in order, the last partial batch included.

    Targets are those of the classes that the network knows.
    """
    was_training = network.training
    network.eval()
    device = network.mean.device
    pieces = []
    with torch.no_grad():
        for start in range(0, len(indices), batch):
            crops = [center_crop(store[int(i)], spec.size) for i in indices[start : start + batch]]
            images = to_float(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).to(device))
            layout = torch.channels_last if channels_last else torch.contiguous_format
            logits = network(images.contiguous(memory_format=layout))
            pieces.append(logits.float().cpu().numpy())
    network.train(was_training)
    ids, groups = source.ids(), source.groups()
    targets = read_truth(source, indices, spec, masks=masks)
    return Predictions(
        ids=[ids[int(i)] for i in indices],
        groups=[groups[int(i)] for i in indices],
        targets=targets if network.classes is None else targets[:, list(network.classes)],
        logits=np.concatenate(pieces) if pieces else np.zeros((0, 1), dtype=np.float32),
    )


def quick_scores(task: Task, predictions: Predictions) -> dict[str, float]:
    """The scores that cost little, without intervals: what a training curve shows."""
    return {name: task.value(name, predictions) for name in task.curve()}


def class_scores(task: Task, predictions: Predictions) -> dict[str, float]:
    """The scores of single classes, for losses that look at them; none where classes exclude."""
    known = task.only_labelled(predictions)
    return task.per_class(task.answers(known)[0], known.targets) if known.ids else {}

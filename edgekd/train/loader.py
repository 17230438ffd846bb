"""From stored images to batches: which images, in which order, with which augmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from edgekd.data._class_aware import class_aware
from edgekd.data.base import UNLABELLED, Labels
from edgekd.data.read import labels_of
from edgekd.train.cache import TeacherCache
from edgekd.train.copies import Copies
from edgekd.train.seeding import derive

Indices = npt.NDArray[np.int64]


class Store(Protocol):
    """Resized uint8 images (H, W, 3) by index."""

    def __getitem__(self, index: int) -> npt.NDArray[np.uint8]: ...

    def mask(self, index: int) -> npt.NDArray[np.uint8]: ...


def keys_of(indices: Indices, images: int) -> Indices:
    """What tells the copies of an image apart, where `indices` (N,) hold it several times.

    The first copy's key is the index itself; each further one's is larger by `images`, the number
    of images in the source.
    """
    order = np.argsort(indices, kind="stable")
    _, first, counts = np.unique(indices[order], return_index=True, return_counts=True)
    keys = indices.copy()
    keys[order] += images * (np.arange(len(indices)) - np.repeat(first, counts))
    return keys


def epoch_batches(
    indices: Indices,
    targets: Indices,
    *,
    batch: int,
    seed: int,
    epoch: int,
    drop_last: bool = False,
    balance: bool = False,
) -> list[Indices]:
    """The batches of one epoch as arrays of indices: a function of the seed and the epoch only.

    `balance` draws all classes equally often (with replacement, as many images as there are;
    unlabelled images count as one more class). A last batch of one image is left out, because
    BatchNorm cannot train on it.
    """
    generator = np.random.default_rng(derive(seed, "order", epoch))
    if balance:
        _, inverse, counts = np.unique(targets, return_inverse=True, return_counts=True)
        weights = 1.0 / counts[inverse]
        order = generator.choice(indices, size=len(indices), p=weights / weights.sum())
    else:
        order = generator.permutation(indices)
    return pieces_of(order, batch, drop_last)


def pieces_of(order: Indices, batch: int, drop_last: bool) -> list[Indices]:
    """Batches in this order. A last one of one image is left out, also without `drop_last`."""
    pieces = [order[start : start + batch] for start in range(0, len(order), batch)]
    short = len(pieces[-1]) < batch if pieces else False
    if len(pieces) > 1 and short and (drop_last or len(pieces[-1]) == 1):
        pieces.pop()
    return pieces


class TrainImages(Dataset[tuple[Tensor, Tensor, int]]):
    """Augmented images by key; the augmentation of an image depends on (seed, view, key) only.

    Without a teacher cache every epoch is a view of its own. With `masks` the target of an image is
    its mask (H, W), which goes through the same geometry; with `labels` (N, C) it is a row of them.
    With `copies` a further copy of an image is another picture, before it is augmented.
    """

    def __init__(
        self,
        store: Store,
        targets: Indices,
        augment: Callable[..., Any],
        seed: int,
        view: int,
        masks: bool = False,
        labels: Labels | None = None,
        copies: Copies | None = None,
    ) -> None:
        self.labels = labels
        self.copies = copies
        self.store = store
        self.targets = targets  # of all images of the source
        self.augment = augment
        self.seed = seed
        self.view = view
        self.masks = masks

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, key: int) -> tuple[Tensor, Tensor, int]:
        copy, index = divmod(int(key), len(self.targets))
        pixels = self.store[index]
        if self.copies is not None:
            pixels = self.copies(pixels, index, copy)
        image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
        # seeding the global generator is safe: the loop seeds it again before every step
        further = [copy] if copy else []
        torch.manual_seed(derive(self.seed, "augment", self.view, index, *further))
        if self.labels is not None:
            row = torch.from_numpy(self.labels[index].astype(np.int64))
            hidden = self.targets[index] == UNLABELLED
            return self.augment(image), row.fill_(UNLABELLED) if hidden else row, int(key)
        if not self.masks:
            return self.augment(image), torch.tensor(int(self.targets[index])), int(key)
        from torchvision import tv_tensors

        mask = tv_tensors.Mask(torch.from_numpy(np.array(self.store.mask(index)))[None])
        image, mask = self.augment(tv_tensors.Image(image), mask)
        label = torch.from_numpy(labels_of(mask[0].numpy())).to(torch.int64)
        if self.targets[index] == UNLABELLED:  # the label is hidden
            label = torch.full_like(label, UNLABELLED)
        return image.as_subclass(Tensor), label, int(key)


def collate(samples: Sequence[tuple[Tensor, Tensor, int]]) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 images, targets (B, ...) and keys of one batch."""
    images = torch.stack([image for image, _, _ in samples])
    targets = torch.stack([target for _, target, _ in samples])
    return images, targets, torch.tensor([key for _, _, key in samples], dtype=torch.int64)


def batches(
    images: TrainImages, plan: Sequence[Indices], *, workers: int, pin: bool
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Load the planned batches: images (B, 3, S, S) uint8, targets (B,) and keys (B,)."""
    loader = DataLoader(
        images,
        batch_sampler=[piece.tolist() for piece in plan],
        collate_fn=collate,
        num_workers=workers,
        pin_memory=pin,
    )
    yield from loader


@dataclass(frozen=True)
class Feed:
    """The training images of one stage and how they come."""

    store: Store
    indices: Indices  # with `balance: mean` or `augment` an image may be there several times
    targets: Indices  # of all images of the source; UNLABELLED where hidden
    augment: Callable[..., Any]
    batch: int
    drop_last: bool
    balance: bool | Literal["class_aware"]  # draw all classes equally often
    workers: int
    cache: TeacherCache | None = None
    masks: bool = False  # the target of an image is its mask
    labels: Labels | None = None  # (N, C): the target of an image is its row
    copies: Copies | None = None  # with `balance: augment` what a further copy of an image shows

    def labelled(self) -> int:
        """How many of the images have a label that may be used."""
        return int((self.targets[self.indices] >= 0).sum())

    @property
    def keys(self) -> Indices:
        """One of its own for each entry of `indices`, so that copies are augmented differently."""
        return keys_of(self.indices, len(self.targets))

    def view(self, epoch: int) -> int:
        """Which augmented copy of the images an epoch sees: one of its own, unless outputs of
        teachers for a few copies are cached."""
        return epoch if self.cache is None else self.cache.view(epoch)

    def plan(self, seed: int, epoch: int) -> list[Indices]:
        """The batches of an epoch as arrays of keys."""
        if self.balance == "class_aware":
            table = self._members()
            order = class_aware(table, np.random.default_rng(derive(seed, "order", epoch)))
            return pieces_of(self.keys[order], self.batch, self.drop_last)
        return epoch_batches(
            self.keys,
            self.targets[self.indices],
            batch=self.batch,
            seed=seed,
            epoch=epoch,
            drop_last=self.drop_last,
            balance=self.balance is True,
        )

    def _members(self) -> npt.NDArray[np.bool_]:
        """Which of `indices` show each class that any of them shows (M, C)."""
        own = self.targets[self.indices]
        table = np.asarray(
            own[:, None] == np.unique(own[own >= 0])
            if self.labels is None
            else (self.labels[self.indices] == 1) & (own >= 0)[:, None]
        )
        return np.asarray(table[:, table.any(axis=0)])

    def load(
        self, plan: Sequence[Indices], *, seed: int, view: int, pin: bool
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Images (B, 3, S, S) uint8, targets (B,) and keys (B,) of planned batches."""
        images = TrainImages(
            *(self.store, self.targets, self.augment, seed, view),
            masks=self.masks,
            labels=self.labels,
            copies=self.copies,
        )
        return batches(images, plan, workers=self.workers, pin=pin)

    def known(self, keys: Tensor, epoch: int) -> dict[str, dict[str, Tensor]]:
        """What is already known about images (B,): {teacher: {logits or pooled: (B, ...)}}."""
        return {} if self.cache is None else self.cache.lookup(keys, epoch)


def to_float(images: Tensor) -> Tensor:
    """uint8 to float32 in [0, 1], as `image.to_input` does on the device."""
    return images.to(torch.float32) / 255.0


def to_device(pixels: Tensor, device: torch.device, *, channels_last: bool) -> Tensor:
    """uint8 images as the networks get them: float32 in [0, 1], in the layout asked for."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return to_float(pixels.to(device, non_blocking=True)).contiguous(memory_format=layout)

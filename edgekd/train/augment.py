"""Augmentations by name, from torchvision. A number after a colon is the operation's strength."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from edgekd.errors import RecipeError, did_you_mean

# name -> (default strength, what the number means)
KNOWN: dict[str, tuple[float, str]] = {
    "hflip": (0.5, "probability"),
    "vflip": (0.5, "probability"),
    "rotate": (180.0, "largest angle in degrees"),
    "rotate90": (0.0, "unused: a random multiple of 90 degrees"),
    "transpose": (0.5, "probability"),
    "shift": (0.1, "largest shift as a part of the side"),
    "zoom": (0.2, "largest change of scale"),
    "random-crop": (0.0, "unused: a random square of input.size"),
    "random-resized-crop": (0.08, "smallest area kept"),
    "color-jitter": (0.2, "strength of brightness, contrast and saturation"),
    "randaugment": (9.0, "magnitude of 2 operations"),
    "erase": (0.25, "probability"),
}


NO_MASKS = ("randaugment", "erase")


class _Quarter:
    def __call__(self, *pictures: Tensor) -> Any:
        turns = int(torch.randint(0, 4, ()).item())
        return _each(pictures, lambda one: torch.rot90(one, turns, dims=(-2, -1)))


class _Transpose:
    """Rows become columns."""

    def __init__(self, probability: float) -> None:
        if not 0 <= probability <= 1:
            raise ValueError("expected a probability from 0 to 1")
        self.probability = probability

    def __call__(self, *pictures: Tensor) -> Any:
        turns = torch.rand(()).item() < self.probability
        return _each(pictures, lambda one: one.transpose(-2, -1) if turns else one)


def _each(pictures: tuple[Tensor, ...], change: Callable[[Tensor], Tensor]) -> Any:
    """The same change of an image and, if there is one, its mask; they keep their kinds."""
    from torchvision import tv_tensors

    changed = []
    for one in pictures:
        is_kind = isinstance(one, tv_tensors.TVTensor)
        changed.append(tv_tensors.wrap(change(one), like=one) if is_kind else change(one))
    return changed[0] if len(changed) == 1 else tuple(changed)


def build(names: list[str], size: int, *, masks: bool = False) -> Callable[..., Any]:
    """Compose augmentations for uint8 images (3, H, W); the result is (3, size, size).

    With `masks` it takes and returns an image and its mask (1, H, W), moved alike. Raises
    RecipeError for an unknown name, a strength that is not a number, or what masks cannot follow.
    """
    from torchvision.transforms import v2

    steps: list[Any] = []
    crops = False
    for entry in names:
        name, _, number = entry.partition(":")
        if name not in KNOWN:
            raise RecipeError(f"data.augment: there is no '{name}'", hint=did_you_mean(name, KNOWN))
        if masks and name in NO_MASKS:
            raise RecipeError(f"data.augment: a mask cannot follow '{name}'",
                              hint="hflip, vflip, rotate, shift, zoom, color-jitter")  # fmt: skip
        try:
            value = float(number) if number else KNOWN[name][0]
        except ValueError:
            raise RecipeError(
                f"data.augment: '{entry}': expected {name}:NUMBER ({KNOWN[name][1]})"
            ) from None
        crops = crops or name in {"random-crop", "random-resized-crop"}
        try:
            steps.append(_step(v2, name, value, size))
        except ValueError as error:
            raise RecipeError(f"data.augment: '{entry}': {error}") from None
    if not crops:
        steps.insert(0, v2.CenterCrop(size))
    return v2.Compose(steps)


def _step(v2: Any, name: str, value: float, size: int) -> Any:
    smooth = v2.InterpolationMode.BILINEAR
    if name == "hflip":
        return v2.RandomHorizontalFlip(value)
    if name == "vflip":
        return v2.RandomVerticalFlip(value)
    if name == "rotate":
        return v2.RandomRotation(value, interpolation=smooth)
    if name == "rotate90":
        return _Quarter()
    if name == "transpose":
        return _Transpose(value)
    if name == "shift":
        return v2.RandomAffine(0, translate=(value, value), interpolation=smooth)
    if name == "zoom":
        return v2.RandomAffine(0, scale=(1 - value, 1 + value), interpolation=smooth)
    if name == "random-crop":
        return v2.RandomCrop(size, pad_if_needed=True)
    if name == "random-resized-crop":
        return v2.RandomResizedCrop(size, scale=(value, 1.0), antialias=True)
    if name == "color-jitter":
        return v2.ColorJitter(value, value, value)
    if name == "randaugment":
        return v2.RandAugment(magnitude=int(value))
    return v2.RandomErasing(value)

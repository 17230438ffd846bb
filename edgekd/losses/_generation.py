"""What losses share that let the student make the teacher's map from a part of its own.

Masked generative distillation (Yang et al., ECCV 2022, arXiv 2205.01529) and what follows it.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from edgekd.errors import RecipeError
from edgekd.losses.base import Outputs


def aligner(width_in: int, width_out: int) -> nn.Module:
    """A 1x1 convolution from the student's width to a teacher's; nothing where they are equal."""
    return nn.Identity() if width_in == width_out else nn.Conv2d(width_in, width_out, 1)


def generator(width: int, activation: nn.Module, bottleneck: int | None = None) -> nn.Sequential:
    """Two 3x3 convolutions with an activation between, of one width or narrower in between."""
    inner = width if bottleneck is None else bottleneck
    return nn.Sequential(
        nn.Conv2d(width, inner, 3, padding=1), activation, nn.Conv2d(inner, width, 3, padding=1)
    )


def generation_error(made: Tensor, wanted: Tensor) -> Tensor:
    """`1/B sum (G - F)^2` of maps (B, D, h, w): summed over an image, the mean over images."""
    return (made - wanted).pow(2).sum() / len(wanted)


def check_same_size(loss: str, tap: str, student: Outputs, teachers: Sequence[Outputs]) -> None:
    """Raises RecipeError where a teacher's map is not as high and wide as the student's."""
    ours = student.taps[tap].shape[-2:]
    for teacher in teachers:
        theirs = teacher.taps[tap].shape[-2:]
        if theirs != ours:
            raise RecipeError(
                f"{loss}: at tap '{tap}' the student's map is {ours[0]}x{ours[1]}, a teacher's "
                f"{theirs[0]}x{theirs[1]}; they must be of one size",
                hint="choose networks of one stride (32 gives 7x7 maps of 224 pixels)",
            )

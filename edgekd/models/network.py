"""The network that is trained, exported and counted: a plain net and its input normalisation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from edgekd.errors import BundleError, MissingOnHost, RecipeError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Network(nn.Module):
    """`net` behind `(x - mean) / std`, so that every model takes the same images in [0, 1].

    Teacher and student may have been pretrained with different statistics; the exported graph
    carries its own. Mean and std are constants, not weights: they are not in the state dict.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: nn.Module,
        *,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        taps: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.named_taps = dict(taps or {})  # the recipe's own tap -> module path
        self.classes: tuple[int, ...] | None = None  # by number, where it knows some only
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) in [0, 1] to logits (B, C)."""
        return self.net((images - self.mean) / self.std)


@contextlib.contextmanager
def still(network: nn.Module) -> Iterator[None]:
    """Let BatchNorm go by its batch, as in training, without remembering it."""
    layers = [
        module
        for module in network.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    for layer in layers:
        # in evaluation mode a layer without statistics of its own would go by the batch too
        layer.track_running_stats = not layer.training
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


class OnnxTeacher(nn.Module):
    """Somebody's ONNX classifier as a frozen teacher that gives logits and nothing else.

    It runs on the CPU through ONNX Runtime. Its one input is float32 (N, 3, S, S), its first
    output the logits; a fixed batch size is honoured by running the batch in pieces.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            import onnxruntime
        except ModuleNotFoundError:
            raise MissingOnHost(
                "an onnx: teacher needs the package 'onnxruntime'",
                hint="pip install 'edgekd[onnxruntime]'",
            ) from None
        if not path.is_file():
            raise BundleError(f"no such ONNX file: {path}")
        self.path = path
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the exception types of onnxruntime share no base class
            raise BundleError(
                f"{path}: not a loadable ONNX model: {str(error).splitlines()[0]}"
            ) from None
        inputs = self.session.get_inputs()
        shape = inputs[0].shape if len(inputs) == 1 else []
        has_rgb = len(shape) == 4 and (shape[1] == 3 or not isinstance(shape[1], int))
        if not has_rgb or inputs[0].type != "tensor(float)":
            found = ", ".join(f"'{item.name}' {item.type} {item.shape}" for item in inputs)
            raise BundleError(f"{path}: expected one float32 input (N, 3, S, S), found {found}")
        self.input = inputs[0].name
        batch, self.sides = shape[0], shape[2:]
        self.batch = batch if isinstance(batch, int) and batch > 0 else 0

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) to logits (B, C)."""
        for axis, side in zip((2, 3), self.sides, strict=True):
            if isinstance(side, int) and side != images.shape[axis]:
                raise RecipeError(
                    f"{self.path} takes images of {self.sides[0]}x{self.sides[1]}, data.input.size "
                    f"is {images.shape[axis]}"
                )
        array = images.detach().to("cpu", torch.float32).contiguous().numpy()
        step = self.batch or len(array)
        pieces = []
        for start in range(0, len(array), step):
            piece = torch.from_numpy(array[start : start + step])
            missing = step - len(piece)
            if missing:  # a fixed-batch model: fill up with copies, drop their answers
                piece = torch.cat([piece, piece[-1:].expand(missing, -1, -1, -1)])
            logits = self.session.run(None, {self.input: piece.numpy()})[0]
            pieces.append(torch.from_numpy(logits)[: step - missing])
        return torch.cat(pieces).to(images.device)

"""PyTorch to ONNX: the one file of the export side that imports torch."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgekd import plugins
from edgekd.bundle import INPUT_NAME, OUTPUT_NAME
from edgekd.errors import EdgekdError
from edgekd.export.tidy import tidy, write
from edgekd.quiet import quiet
from edgekd.runtimes.base import RunOptions, Runtime

if TYPE_CHECKING:
    from torch import nn

# The oldest runtimes we serve are onnxruntime 1.23 (the last for Python 3.10: JetPack 6) and
# TensorRT 10.3, whose parser reads opsets 9 to 20. 18 is inside both, is the lowest that the
# dynamo exporter writes without converting down, and has all that Q/DQ needs (13 and later).
OPSET = 18
TOLERANCE = 1e-4  # of the largest logit; measured: 1e-6
ROUNDING = 4.0  # times what single precision costs PyTorch itself
BATCHES = (1, 2, 5)  # 1 is what a device runs, the others prove that the axis is dynamic


def to_onnx(network: nn.Module, path: Path, *, size: int, opset: int = OPSET) -> None:
    """Write `network` as one ONNX file: `input` (N, 3, size, size) float32 -> `logits` (N, C).

    Exports an evaluation-mode copy without hooks, so `network` itself is untouched. The file is
    self-contained (no external data), holds no paths of this machine, and has been compared with
    `network` at batch sizes 1, 2 and 5. Raises EdgekdError if the exporter cannot translate the
    network or the file computes something else; nothing is left at `path` then.
    """
    import torch

    plain = _plain_copy(network)
    with quiet():
        try:
            program = torch.onnx.export(
                plain,
                (torch.rand(2, 3, size, size),),
                dynamo=True,
                dynamic_shapes=({0: "batch"},),
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                opset_version=opset,
                external_data=False,
                verbose=False,
            )
        except Exception as error:
            cause = error.__cause__ or error
            raise EdgekdError(
                f"{type(network).__name__} cannot be exported to ONNX: "
                f"{str(cause).strip().splitlines()[0] if str(cause).strip() else cause!r}",
                hint="its forward must not depend on the values or the number of the images",
            ) from error
        if program is None:
            raise EdgekdError(f"{type(network).__name__}: the ONNX exporter returned nothing")
        model = program.model_proto
    tidy(model, size)
    write(model, path)
    try:
        _compare(plain, path, size)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def logits_of_torch(network: nn.Module, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """float32 (N, 3, S, S) through `network` in evaluation mode on the CPU: float32 (N, C)."""
    import torch

    with torch.inference_mode():
        return np.asarray(_plain_copy(network)(torch.from_numpy(inputs)).float().numpy())


def _plain_copy(network: nn.Module) -> Any:
    """A copy as the exporter wants it: CPU, float32, contiguous, evaluation mode, no hooks."""
    import torch

    plain = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
    # channels_last weights would enter the file through Transpose nodes
    plain = plain.to(memory_format=torch.contiguous_format)
    for module in plain.modules():
        for table in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks"):
            getattr(module, table).clear()  # torch.export refuses hooked modules
    return plain


def _compare(plain: Any, path: Path, size: int) -> None:
    """Run both on the same random images. Raises EdgekdError at the first that differ."""
    generator = np.random.default_rng(0)
    runtime = plugins.load("runtimes", "onnxruntime", Runtime)  # type: ignore[type-abstract]
    with runtime(path, RunOptions()) as session:
        for batch in BATCHES:
            images = generator.random((batch, 3, size, size), dtype=np.float32)
            expected = logits_of_torch(plain, images)
            found = np.asarray(session.run({INPUT_NAME: images})[OUTPUT_NAME], dtype=np.float32)
            if found.shape != expected.shape:
                raise EdgekdError(
                    f"{path}: {batch} images give logits {found.shape}, PyTorch {expected.shape}"
                )
            scale = max(float(np.abs(expected).max()), 1e-6)
            difference = float(np.abs(found - expected).max()) / scale
            if difference > TOLERANCE and _is_rounding(plain, images, expected, found):
                continue
            if not difference <= TOLERANCE:  # also true of NaN
                raise EdgekdError(
                    f"{path}: at batch size {batch} the exported logits differ from PyTorch's by "
                    f"{difference:.1e} of the largest, at most {TOLERANCE:.0e} is expected"
                )


def _is_rounding(
    plain: Any, images: npt.NDArray[Any], expected: npt.NDArray[Any], found: npt.NDArray[Any]
) -> bool:
    """Is the file about as near to the network in double precision as PyTorch itself is?

    Noise may drive a network to where single precision has few right digits.
    """
    import torch

    exact = copy.deepcopy(plain).double()
    with torch.no_grad():
        wanted = exact(torch.from_numpy(images).double()).numpy()
    own = np.abs(expected - wanted).max()
    return bool(np.abs(found - wanted).max() <= ROUNDING * own)

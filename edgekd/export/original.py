"""The imported file as it came, run by ONNX Runtime: what everything made of it is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import BundleError, did_you_mean
from edgekd.export.foreign import Foreign, Layout, first_line, orient, shown
from edgekd.image import Float32, UInt8, to_input

MOST = 5  # random pictures
CHUNK = 32  # images at once
# operators that hand values on; a Softmax may stand before them
SHAPE_ONLY = frozenset({"Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Dropout"})
SOFTMAX = ("Softmax", "LogSoftmax")


@dataclass(frozen=True)
class Pixels:
    """What the file wants of pixels in [0, 1]: (pixels * scale - mean) / std, per channel."""

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    def apply(self, images: Float32) -> Float32:
        """Images (N, 3, S, S) in [0, 1] as the file wants them."""
        mean, std = (np.array(v, dtype=np.float32)[:, None, None] for v in (self.mean, self.std))
        return np.asarray((images * np.float32(self.scale) - mean) / std, dtype=np.float32)


@dataclass(frozen=True)
class Head:
    """Which output holds the answer, and which tensor the logits."""

    output: str  # of the file
    logits: str  # the same, or what goes into the Softmax at its end
    softmax: Any | None = None  # that Softmax or LogSoftmax node
    others: tuple[str, ...] = ()  # outputs that are left out


class Original:
    """The file behind pictures in [0, 1]: RGB float32 (N, 3, S, S) to logits (N, C).

    Raises BundleError if ONNX Runtime cannot load the file or run it on pictures of `size`.
    """

    def __init__(self, file: Foreign, pixels: Pixels, size: int) -> None:
        self.file, self.pixels, self.size = file, pixels, size
        self.batch = max(file.dims[0], 0)  # 0: free
        self._session = open_session(file.path, str(file.path))
        self._names = [value.name for value in self._session.get_outputs()]
        self._head: Head | None = None
        self.layout: Layout = "NCHW"
        self._first = self._try(orient(file, size))
        if not self.batch and not self._takes_two():
            self.batch = 1  # traced with one picture: free by its word only

    @property
    def head(self) -> Head:
        """What `choose` found."""
        assert self._head is not None
        return self._head

    @property
    def rank(self) -> int:
        """How many axes the answer has; a Softmax changes none."""
        return int(self._first[self.head.output].ndim)

    def choose(self, classes: Sequence[str], wanted: str | None) -> Head:
        """Find the output with one logit per class. Raises BundleError if that is not clear."""
        fitting = {name: _root(self.file.model.graph, name) for name, values in self._first.items()
                   if _is_answer(values, len(classes))}  # fmt: skip
        if wanted is not None and wanted not in self._first:
            raise BundleError(f"{self.file.path} has no output '{wanted}'",
                              hint=did_you_mean(wanted, self._first))  # fmt: skip
        if wanted is not None:
            fitting = {name: root for name, root in fitting.items() if name == wanted}
        if not fitting:
            raise self._no_answer(classes, wanted)
        if len({tensor for tensor, _ in fitting.values()}) > 1:
            names = ", ".join(f"'{name}'" for name in fitting)
            raise BundleError(f"{self.file.path} has several outputs of {len(classes)} values: "
                              f"{names}", hint=f"--output {next(iter(fitting))}")  # fmt: skip
        # of logits and probabilities of the same, the logits
        name, (_, softmax) = min(fitting.items(), key=lambda item: item[1][1] is not None)
        others = tuple(other for other in self._names if other != name)
        logits = name
        if softmax is not None:
            logits = str(softmax.input[0])
            self._expose(name, softmax)
        self._head = Head(name, logits, softmax, others)
        self._check_logits(len(classes))
        return self._head

    def logits(self, images: Float32) -> Float32:
        """Logits (N, C) of pictures (N, 3, S, S) in [0, 1]."""
        values = self._run(images, [self.head.logits])[0]
        return np.asarray(values.reshape(len(images), -1), dtype=np.float32)

    def logits_of(self, squares: UInt8) -> Float32:
        """Logits (N, C) of cropped pictures uint8 (N, S, S, 3)."""
        parts = [self.logits(to_input(squares[start : start + CHUNK]))
                 for start in range(0, len(squares), CHUNK)]  # fmt: skip
        return np.concatenate(parts)

    def random(self, count: int) -> Float32:
        """Noise (count, 3, S, S) in [0, 1], always the same."""
        shape = (count, 3, self.size, self.size)
        return np.random.default_rng(0).random(shape, dtype=np.float32)

    def _given(self, images: Float32) -> Float32:
        """Images (N, 3, S, S) in [0, 1] as the file wants them, in its layout."""
        given = self.pixels.apply(images)
        return given if self.layout == "NCHW" else np.ascontiguousarray(np.moveaxis(given, 1, -1))

    def _run(self, images: Float32, names: list[str]) -> list[npt.NDArray[Any]]:
        """The named tensors of images (N, 3, S, S); a fixed batch is filled up with copies."""
        given = self._given(images)
        step = self.batch or len(given)
        parts = []
        for start in range(0, len(given), step):
            piece = given[start : start + step]
            count = len(piece)
            if count < step:
                piece = np.concatenate([piece, np.repeat(piece[-1:], step - count, axis=0)])
            values = self._session.run(names, {self.file.input: piece})
            parts.append([np.asarray(value)[:count] for value in values])
        return [np.concatenate(same) for same in zip(*parts, strict=True)]

    def _try(self, layouts: list[Layout]) -> dict[str, Any]:
        """Find the layout that runs; what all outputs say about one batch of random images."""
        images = self.random(self.batch or 1)
        problem = ""
        for layout in layouts:
            self.layout = layout
            try:
                values = self._session.run(self._names, {self.file.input: self._given(images)})
            except Exception as error:  # the exception types of onnxruntime share no base class
                problem = problem or reason(error)
                continue
            return dict(zip(self._names, values, strict=True))
        raise BundleError(
            f"{self.file.path} does not run on pictures of {self.size} pixels: {problem}",
            hint="--input-size: the size that it was trained with",
        )

    def _takes_two(self) -> bool:
        try:
            values = self._session.run(self._names, {self.file.input: self._given(self.random(2))})
        except Exception:  # the exception types of onnxruntime share no base class
            return False
        return all(len(two) == 2 for two, one in zip(values, self._first.values(), strict=True)
                   if np.ndim(one) > 1 and len(one) == 1)  # fmt: skip

    def _expose(self, output: str, softmax: Any) -> None:
        """Make the logits before a Softmax readable: a copy of the file with one more output."""
        import onnx

        copy = onnx.ModelProto()
        copy.CopyFrom(self.file.model)
        copy.graph.output.append(onnx.ValueInfoProto(name=softmax.input[0]))
        probabilities = self._first[output]
        self._session = open_session(self.file.path, copy.SerializeToString())
        images = self.random(len(probabilities))
        values = self._run(images, [softmax.input[0]])[0].reshape(len(images), -1)
        shifted = values.astype(np.float64) - values.max(axis=1, keepdims=True)
        expected = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        if softmax.op_type == "Softmax":
            expected = np.exp(expected)
        found = probabilities.reshape(len(images), -1)
        if expected.shape != found.shape or not np.allclose(expected, found, rtol=0, atol=1e-4):
            raise BundleError(
                f"{self.file.path}: the {softmax.op_type} at its end is not taken over the classes",
                hint="export the model without it, so that its output is the logits",
            )

    def _check_logits(self, classes: int) -> None:
        """Refuse probabilities that no Softmax node made, and what is not finite."""
        path = self.file.path
        logits = self.logits(self.random(MOST))
        if not np.isfinite(logits).all():
            raise BundleError(f"{path}: its output '{self.head.output}' is not finite on random "
                              "pictures", hint="check --mean, --std and --scale")  # fmt: skip
        graph = self.file.model.graph
        maker = _maker(graph, _root(graph, self.head.logits)[0])
        if maker is not None and maker.op_type == "Sigmoid":
            raise BundleError(
                f"{path} ends in a Sigmoid: its classes do not exclude each other, as those of the "
                "built-in tasks do",
                hint="import a model that gives one logit per class",
            )
        sums = logits.sum(axis=1)
        if classes > 1 and logits.min() >= 0 and np.allclose(sums, 1, atol=1e-4):
            raise BundleError(
                f"{path}: its output '{self.head.output}' holds probabilities, and no Softmax that "
                "could be left out makes them",
                hint="export the model without its softmax, so that its output is the logits",
            )

    def _no_answer(self, classes: Sequence[str], wanted: str | None) -> BundleError:
        found = {n: v for n, v in self._first.items() if wanted in (None, n)}
        shapes = "; ".join(f"'{name}' {_shape(values)}" for name, values in found.items())
        hint = "--classes names every class, in the order of the model's outputs"
        if len(classes) == 2 and any(
            np.size(values) == (self.batch or 1) for values in found.values()
        ):
            hint = "the classes of one output z are two outputs: export it with the logits [0, z]"
        if any(np.ndim(values) == 1 and len(values) == len(classes) for values in found.values()):
            hint = "its output has no axis for the pictures: export it without the squeeze"
        return BundleError(
            f"{self.file.path} gives {shapes}; expected (N, {len(classes)}), one value for each of "
            f"the {len(classes)} classes {', '.join(classes)}",
            hint=hint,
        )


def open_session(path: Path, source: str | bytes) -> Any:
    """ONNX Runtime's session on the processor. Raises BundleError that names `path`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors are told by us
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the exception types of onnxruntime share no base class
        text = reason(error)
        raise BundleError(f"{path}: ONNX Runtime {onnxruntime.__version__} cannot load it: "
                          f"{text}", hint="export it with opset 18") from None  # fmt: skip


def reason(error: Exception) -> str:
    """`[ONNXRuntimeError] : 1 : FAIL : text` to `text`."""
    return first_line(error).rpartition(" : ")[2]


def _is_answer(values: Any, classes: int) -> bool:
    """Floats, one per class and image: (N, C), or that with axes of 1 behind."""
    is_float = isinstance(values, np.ndarray) and values.dtype == np.float32
    return bool(is_float and values.ndim >= 2 and values[0].size == classes)


def _shape(values: Any) -> str:
    shape = getattr(values, "shape", None)  # none: a list or a map
    if shape is None:
        return type(values).__name__
    return shown((-1, *shape[1:]) if len(shape) > 1 else tuple(shape))


def _maker(graph: Any, name: str) -> Any | None:
    return next((node for node in graph.node if name in node.output), None)


def _root(graph: Any, name: str) -> tuple[str, Any | None]:
    """The tensor that an output's values come from, and the Softmax on the way, if any."""
    softmax = None
    while (maker := _maker(graph, name)) is not None:
        is_softmax = maker.op_type in SOFTMAX and softmax is None
        if maker.op_type not in SHAPE_ONLY and not is_softmax:
            break
        softmax = maker if is_softmax else softmax
        name = str(maker.input[0])
    return name, softmax

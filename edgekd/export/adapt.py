"""From somebody's graph to a bundle's: `input` (N, 3, S, S) in [0, 1] -> `logits` (N, C).

Surgery only. Whether the result computes the same is proven by running both (`original.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekd.bundle import INPUT_NAME, OUTPUT_NAME
from edgekd.errors import BundleError
from edgekd.export.foreign import STANDARD, constants, first_line, graphs
from edgekd.export.lint import MAX_OPSET, MIN_OPSET
from edgekd.export.onnx_from_torch import OPSET
from edgekd.export.original import Head, Original, Pixels
from edgekd.export.tidy import IR_VERSION, tidy

BATCH = "batch"  # the name of the free axis
OWN = "edgekd"  # what the names of added tensors and nodes start with


def adapt(original: Original, classes: int) -> tuple[Any, list[str]]:
    """A new onnx.ModelProto in a bundle's form, and what was changed, a phrase each.

    `original.choose` must have been called. Raises BundleError for an opset that cannot be
    converted.
    """
    import onnx

    file, head = original.file, original.head
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    changes = list(file.notes)
    value = _take_off(model.graph, head, changes)
    model.ir_version = max(model.ir_version, 8)  # before 4, weights had to be inputs
    model = _convert(model, file.path, changes)
    graph = model.graph
    own = _prefix(graph)
    del graph.quantization_annotation[:]
    if original.batch:
        _free_batch(graph, original.batch, own, changes)
    if file.model.ir_version > IR_VERSION:
        changes.append(f"IR version {file.model.ir_version} lowered to {IR_VERSION}")
    # the recorded shapes are those of before, and may fix the batch
    for inner in graphs(graph):
        del inner.value_info[:]
    used = [entry for entry in model.opset_import if entry.domain in STANDARD]
    del model.opset_import[:]
    model.opset_import.extend(used)
    taken = {name: f"{own}{name}" for name in (INPUT_NAME, OUTPUT_NAME)}
    for name, other in taken.items():
        _rename(graph, name, other)
    _output(graph, taken.get(value, value), original, classes)
    _front(graph, taken.get(file.input, file.input), original, own, changes)
    for old, new in ((file.input, INPUT_NAME), (head.output, OUTPUT_NAME)):
        if old != new:
            changes.append(f"'{old}' is called '{new}' now")
    _name_nodes(graph, own)
    tidy(model, original.size)
    return model, changes


def _prefix(graph: Any) -> str:
    """`edgekd.`, with a number where names start with that: a file that edgekd once made."""
    names = {
        name
        for inner in graphs(graph)
        for node in inner.node
        for name in (node.name, *node.input, *node.output)
    }
    names |= {entry.name for inner in graphs(graph)
              for entry in (*inner.input, *inner.output, *inner.initializer)}  # fmt: skip
    found, number = f"{OWN}.", 1
    while any(name.startswith(found) for name in names):
        number += 1
        found = f"{OWN}{number}."
    return found


def _take_off(graph: Any, head: Head, changes: list[str]) -> str:
    """Cut a Softmax off, drop other outputs and what only they need; the logits' tensor."""
    value = head.output
    if head.softmax is not None:
        before, after = head.softmax.input[0], head.softmax.output[0]
        for node in graph.node:
            for index, name in enumerate(node.input):
                if name == after:
                    node.input[index] = before
        value = before if value == after else value
        changes.append(f"the {head.softmax.op_type} at its end is left out, so that the output is "
                       "logits")  # fmt: skip
    if head.others:
        names = ", ".join(f"'{name}'" for name in head.others)
        changes.append(f"other outputs are left out: {names}")
    kept = [entry for entry in graph.output if entry.name == head.output]
    kept[0].name = value
    kept[0].type.tensor_type.ClearField("shape")  # of the probabilities; the logits' may be another
    _replace(graph.output, kept)
    _prune(graph)
    return value


def _prune(graph: Any) -> None:
    """Drop nodes and weights that the output does not need, and weights from the inputs."""
    needed = {entry.name for entry in graph.output}
    kept = []
    for node in reversed(graph.node):  # sorted by definition: makers stand before users
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input)
            for inner in _inside(node):
                needed |= {name for each in inner.node for name in each.input}
                needed |= {entry.name for entry in inner.output}
            needed.discard("")  # an optional input that is not given
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [entry for entry in graph.input if entry.name not in stored]
    for field, values in ((graph.node, kept[::-1]), (graph.initializer, weights),
                          (graph.input, inputs)):  # fmt: skip
        _replace(field, values)


def _replace(field: Any, values: Sequence[Any]) -> None:
    """Give a repeated field other entries; they may be some of its own, so they are copied."""
    copies = [type(entry).FromString(entry.SerializeToString()) for entry in values]
    del field[:]
    field.extend(copies)


def _inside(node: Any) -> list[Any]:
    """The graphs inside one node, at every depth."""
    direct = [a.g for a in node.attribute if a.HasField("g")]
    direct += [inner for a in node.attribute for inner in a.graphs]
    return [each for inner in direct for each in graphs(inner)]


def _convert(model: Any, path: Any, changes: list[str]) -> Any:
    """Bring the opset into the range that all runtimes read."""
    from onnx import version_converter

    found = next(e.version for e in model.opset_import if e.domain in STANDARD)
    if MIN_OPSET <= found <= OPSET:
        return model
    # one newer than ours will do, if it has operators that cannot be written in ours
    targets = [MIN_OPSET] if found < MIN_OPSET else [OPSET, min(found, MAX_OPSET)]
    problem = ""
    for target in targets:
        if target == found:
            return model
        try:
            converted = version_converter.convert_version(model, target)
        except Exception as error:  # C++ exceptions of several kinds
            problem = problem or first_line(error).rpartition("failed: ")[2]
            continue
        changes.append(f"opset {found} converted to {target}")
        return converted
    raise BundleError(
        f"{path} is written in opset {found} and cannot be converted to {targets[0]}: {problem}",
        hint=f"export it with opset {OPSET}",
    )


def _free_batch(graph: Any, batch: int, own: str, changes: list[str]) -> None:
    """Make axis 0 free: in the shapes that Reshape nodes were given as constants."""
    from onnx import numpy_helper

    stored = constants(graph)
    changed = 0
    for node in list(graph.node):
        if node.op_type != "Reshape" or node.input[0] in stored or node.input[1] not in stored:
            continue
        shape = numpy_helper.to_array(stored[node.input[1]]).copy()
        if shape.ndim != 1 or not shape.size or shape[0] != batch:
            continue
        shape[0] = -1 if (shape[1:] > 0).all() else 0  # 0 takes over the axis of its input
        name = f"{own}shape.{changed}"  # a constant may be shared with other nodes
        graph.initializer.append(numpy_helper.from_array(shape, name))
        node.input[1] = name
        _replace(node.attribute, [a for a in node.attribute if a.name != "allowzero"])
        changed += 1
    count = f" ({changed} Reshape node{'' if changed == 1 else 's'} changed)" if changed else ""
    changes.append(f"the batch was fixed to {batch} and is free now{count}")


def _rename(graph: Any, old: str, new: str) -> None:
    """Give a tensor another name, wherever it is read."""
    for inner in graphs(graph):
        for node in inner.node:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name == old:
                        names[index] = new
        for entry in (*inner.input, *inner.output, *inner.initializer):
            if entry.name == old:
                entry.name = new


def _output(graph: Any, value: str, original: Original, classes: int) -> None:
    """One output, `logits` (N, C); axes of 1 behind the classes are flattened away."""
    from onnx import TensorProto, helper

    if original.rank == 2:
        _rename(graph, value, OUTPUT_NAME)
    else:
        graph.node.append(helper.make_node("Flatten", [value], [OUTPUT_NAME], axis=1))
    del graph.output[:]
    graph.output.append(
        helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, [BATCH, classes])
    )


def _front(graph: Any, value: str, original: Original, own: str, changes: list[str]) -> None:
    """Put in front what stands between RGB in [0, 1] and the input of the file."""
    from onnx import TensorProto, helper, numpy_helper

    steps = _pixel_steps(original.pixels)
    if steps:
        changes.append(f"inside the graph: {_arithmetic(original.pixels)}")
    nodes, here = [], INPUT_NAME
    for number, (operator, numbers) in enumerate(steps):
        name, after = f"{own}{operator.lower()}", f"{own}pixels.{number}"
        graph.initializer.append(numpy_helper.from_array(numbers, name))
        nodes.append(helper.make_node(operator, [here, name], [after]))
        here = after
    if original.layout == "NHWC":
        changes.append("it wants the channels last: a Transpose stands in front")
        nodes.append(helper.make_node("Transpose", [here], [f"{own}last"], perm=[0, 2, 3, 1]))
        here = f"{own}last"
    _rename(graph, value, here)
    _replace(graph.node, [*nodes, *graph.node])
    shape = [BATCH, 3, original.size, original.size]
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, shape))


def _pixel_steps(pixels: Pixels) -> list[tuple[str, Any]]:
    """Operators and their constants (1, 3, 1, 1), without those that change nothing."""
    found: Sequence[tuple[str, Sequence[float], float]] = (
        ("Mul", [pixels.scale] * 3, 1.0), ("Sub", pixels.mean, 0.0), ("Div", pixels.std, 1.0),
    )  # fmt: skip
    return [(operator, np.array(values, dtype=np.float32).reshape(1, 3, 1, 1))
            for operator, values, neutral in found if set(values) != {neutral}]  # fmt: skip


def _arithmetic(pixels: Pixels) -> str:
    """`pixels times 255, minus 0.485 0.456 0.406, over 0.229 0.224 0.225`."""
    words = {"Mul": "times", "Sub": "minus", "Div": "over"}
    parts = []
    for operator, numbers in _pixel_steps(pixels):
        values = [f"{number:g}" for number in numbers.ravel()]
        shown = values if len(set(values)) > 1 else values[:1]
        parts.append(f"{words[operator]} {' '.join(shown)}")
    return "pixels " + ", ".join(parts)


def _name_nodes(graph: Any, own: str) -> None:
    """Give every node a name of its own: the quantizer knows them by name."""
    seen: set[str] = set()
    for number, node in enumerate(graph.node):
        if not node.name or node.name in seen:
            node.name = f"{own}{node.op_type}.{number}"
        seen.add(node.name)

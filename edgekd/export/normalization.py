"""Where an exported graph normalises its pixels."""

from __future__ import annotations

from typing import Any

OPERATORS = frozenset({"Sub", "Div", "Mul", "Add"})


def normalization_nodes(model: Any) -> list[Any]:
    """The nodes straight behind the input that subtract the mean and divide by the deviation.

    Every precision pass leaves them in float. Behind them the first quantizer fills both halves
    of a symmetric int8, pixels in [0, 1] would leave the negative half unused; and in half
    precision a pixel near 1 would keep 11 of its bits before the mean is taken from it.
    """
    consumers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for value in node.input:
            consumers.setdefault(value, []).append(node)
    found: list[Any] = []
    value = model.graph.input[0].name
    while len(consumers.get(value, [])) == 1:
        node = consumers[value][0]
        if node.op_type not in OPERATORS:
            break
        found.append(node)
        value = node.output[0]
    return found

"""Somebody's ONNX student, pictures that it knows, and the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from edgekd.bundle import read_manifest
from edgekd.cli import main
from edgekd.export.original import Pixels
from edgekd.image import to_input
from tests import foreign_onnx as foreign
from tests.foreign_onnx import SIZE

QUICK = ["--repeats", "10", "--warmup", "1", "--seconds", "0"]
NAMES = ["benign", "malignant", "other"]
CLASSES = ["--classes", ",".join(NAMES)]
PIXELS = ["--mean", "0.5", "--std", "0.2,0.25,0.3"]
NORMAL = Pixels(1.0, (0.5,) * 3, (0.2, 0.25, 0.3))


def squares_forever():
    """Pictures (S, S, 3) of four colours."""
    random = np.random.default_rng(0)
    while True:
        base = random.integers(0, 256, (2, 2, 3), dtype=np.uint8)
        yield np.kron(base, np.ones((SIZE // 2, SIZE // 2, 1), dtype=np.uint8))


def pictures(root, count=8):
    """A folder per class of pictures whose class is what the student says with PIXELS."""
    placed = dict.fromkeys(NAMES, 0)
    for number, square in enumerate(squares_forever()):
        said = foreign.run(Path("student.onnx"), NORMAL.apply(to_input(square[None])))
        name = NAMES[int(said.argmax())]
        if placed[name] < count:
            (root / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(square).save(root / name / f"{number}.png")
            placed[name] += 1
        if min(placed.values()) == count:
            return ["data.name=folder", f"data.root={root}", "data.split=4-2-2"]
        assert number < 1000
    raise AssertionError


def edgekd(*arguments):
    return main([str(argument) for argument in arguments])


def fails(capsys, *arguments):
    """A command that must end with exit code 2, one line and nothing written."""
    before = sorted(Path().rglob("*"))
    capsys.readouterr()
    code = edgekd(*arguments)
    text = capsys.readouterr().err
    assert code == 2, text
    assert "Traceback" not in text
    assert sorted(Path().rglob("*")) == before
    return text


def notes_of(name):
    return read_manifest(Path(f"runs/{name}/bundle")).artifacts["onnx-fp32"].notes

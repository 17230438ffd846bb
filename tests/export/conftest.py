"""A run with untrained weights and its export, made once for all tests; a foreign student."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

from edgekd.data.read import open_source, read_squares
from edgekd.data.splits import make_split, write_split
from edgekd.export.given import Made
from edgekd.export.onnx_from_torch import logits_of_torch
from edgekd.image import to_input
from edgekd.recipe_load import load, to_yaml
from edgekd.results import Predictions
from edgekd.rundir import RunDir, write_text
from tests import foreign_onnx as foreign
from tests import tiny
from tests.export.imports import NORMAL, squares_forever
from tests.export.runs import REASON, quiet_export


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A run as `edgekd distill` leaves it, untrained; the truth is what the student says."""
    from edgekd.models.build import build_network
    from edgekd.train.checkpoint import save_weights

    folder = tmp_path_factory.mktemp("trained")
    recipe = load(tiny.write(folder, tiny.tree(folder)))
    run = RunDir(folder / "run")
    write_text(run.recipe, to_yaml(recipe))
    source = open_source(recipe.data)
    split = make_split(source, recipe.data.split, seed=0)
    write_split(run.split, source, split)
    squares = read_squares(source, split.test, recipe.data.input)
    for name in ("teacher", "student"):
        network = build_network(recipe.models[name], outputs=len(source.classes), seed=1)
        save_weights(network.net, run.weights(name))
        logits = logits_of_torch(network, to_input(squares))
        ids, groups = (
            [values[i] for i in split.test] for values in (source.ids(), source.groups())
        )
        said = Predictions(ids, groups, logits.argmax(axis=1).astype(np.int64), logits)
        said.save(run.predictions(name, "test"))
    return run.root


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory):
    """The same run after a full export, its inconclusive gates accepted."""
    root = tmp_path_factory.mktemp("exported") / "run"
    shutil.copytree(trained, root)
    return root, *quiet_export(root, accept_inconclusive=REASON)


@pytest.fixture
def run(exported, tmp_path):
    """A copy of the exported run to change."""
    return RunDir(Path(shutil.copytree(exported[0], tmp_path / "run")))


@pytest.fixture
def student(tmp_path, monkeypatch):
    """`student.onnx` in the current directory, which is empty otherwise; no class is rare."""
    monkeypatch.chdir(tmp_path)
    squares = np.stack([square for square, _ in zip(squares_forever(), range(200), strict=False)])
    plain = foreign.write(Path("plain.onnx"))
    values = foreign.run(plain, NORMAL.apply(to_input(squares)))
    plain.unlink()

    def centre(model):
        tensor = next(t for t in model.graph.initializer if t.name == "bias")
        bias = numpy_helper.to_array(tensor) - values.mean(axis=0)
        tensor.CopyFrom(numpy_helper.from_array(bias.astype(np.float32), "bias"))

    return foreign.change(foreign.write(Path("student.onnx"), batch=1, ending=["Softmax"]), centre)


@pytest.fixture
def copied(monkeypatch):
    """In place of a quantizer: the int8 file is the fp32 one."""

    def convert(source, target, _):
        shutil.copy(source, target)
        return Made([])

    monkeypatch.setattr("edgekd.export.onnx_int8.convert", convert)

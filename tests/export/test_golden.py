"""Golden pictures travel: drawn, the same everywhere, and telling about decode and inference."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgekd.errors import BundleError
from edgekd.export.golden import PICTURES, compare, read_golden, write_golden
from edgekd.image import decode
from edgekd.recipe_data import InputSpec
from edgekd.tasks.classification import Classification

TASK = Classification(classes=("red", "green", "blue"))
SPEC = InputSpec(size=24, resize=28, fit="shorter")


def network(inputs):
    """Mean colour: three logits."""
    return inputs.mean(axis=(2, 3)).astype(np.float32)


def test_eight_pictures_with_their_inputs_and_logits(tmp_path):
    written = write_golden(tmp_path / "golden", SPEC, network)
    golden = read_golden(tmp_path / "golden")
    assert golden.inputs.shape == (8, 3, 24, 24)
    assert golden.inputs.dtype == golden.outputs.dtype == np.float32
    assert golden.outputs.shape == (8, 3)
    np.testing.assert_array_equal(golden.inputs, written.inputs)
    names = json.loads((tmp_path / "golden" / "images.json").read_text())
    assert names == [name for name, _, _ in PICTURES] == [path.name for path in golden.pictures]


def test_the_pictures_are_those_that_go_wrong_in_the_field(tmp_path):
    golden = write_golden(tmp_path / "golden", SPEC, network)
    pictures = {path.name: decode(path) for path in golden.pictures}
    assert len({picture.shape for picture in pictures.values()}) == 8
    for name in ("grey.png", "deep.png"):
        assert np.ptp(pictures[name], axis=2).max() == 0
    assert pictures["rotated.jpg"].shape == (180, 240, 3)  # stored as 240 high
    assert pictures["tiny.png"].shape[0] < SPEC.size


def test_the_same_bytes_every_time(tmp_path):
    for name in ("first", "second"):
        write_golden(tmp_path / name, SPEC, network)
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert len(files) == 8 + 3
    for name in files:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_the_same_model_on_the_same_machine_differs_in_nothing(tmp_path):
    result = compare(write_golden(tmp_path, SPEC, network), SPEC, network, TASK)
    assert (result.pixels, result.logits, result.flips, result.images) == (0.0, 0.0, 0, 8)


def test_another_model_and_another_preprocessing_are_told_apart(tmp_path):
    golden = write_golden(tmp_path, SPEC, network)
    model = compare(golden, SPEC, lambda inputs: network(inputs)[:, ::-1], TASK)
    assert model.pixels == 0.0
    assert model.flips == 6  # the two grey ones have three equal logits
    assert model.relative == pytest.approx(model.logits / np.abs(golden.outputs).max())
    resized = compare(golden, InputSpec(size=24, fit="stretch"), network, TASK)
    assert resized.pixels > 0.1
    assert resized.logits == 0.0


def test_nan_is_noticed(tmp_path):
    golden = write_golden(tmp_path, SPEC, network)
    assert not compare(golden, SPEC, lambda inputs: network(inputs) * np.nan, TASK).is_finite


def test_damaged_golden_files_are_a_damaged_bundle(tmp_path):
    write_golden(tmp_path, SPEC, network)
    (tmp_path / "outputs.npy").write_bytes(b"")
    with pytest.raises(BundleError, match="golden images cannot be read"):
        read_golden(tmp_path)
    with pytest.raises(BundleError, match="golden images cannot be read"):
        read_golden(tmp_path / "absent")

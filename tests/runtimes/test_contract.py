"""What every runtime does, whatever it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd import plugins
from edgekd.bundle import INPUT_NAME, OUTPUT_NAME
from edgekd.errors import BundleError, MissingOnHost
from edgekd.runtimes.base import RunOptions, Runtime
from tests.runtimes.conftest import CLASSES, SIZE

PRESENT = [
    name
    for name in plugins.names("runtimes")
    # an engine is built where it runs: test_tensorrt.py and tests/hardware hold it to this contract
    if name != "tensorrt" and plugins.load("runtimes", name, Runtime).probe().available
]
CASES = [
    (name, suffix)
    for name in PRESENT
    for suffix in plugins.load("runtimes", name, Runtime).suffixes
]

every_runtime = pytest.mark.parametrize(("name", "suffix"), CASES)


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 3, SIZE, SIZE), dtype=np.float32)


def loader(name: str) -> type[Runtime]:
    return plugins.load("runtimes", name, Runtime)


def test_the_walk_found_the_runtimes_of_the_development_environment() -> None:
    assert PRESENT == ["fake", "onnxruntime", "openvino"]
    assert CASES == [("fake", ".fake"), ("onnxruntime", ".onnx"),
                     ("openvino", ".xml"), ("openvino", ".onnx")]  # fmt: skip


@pytest.mark.parametrize("name", plugins.names("runtimes"))
def test_probe_says_version_and_devices_or_why_not(name: str) -> None:
    probe = loader(name).probe()
    assert (probe.version and probe.devices) if probe.available else probe.reason


@every_runtime
def test_nothing_is_touched_before_it_is_entered(name: str, suffix: str) -> None:
    runtime = loader(name)(Path(f"nowhere{suffix}"))
    assert runtime.facts.inputs == {}


@every_runtime
def test_logits_for_images(name: str, suffix: str, models: Path) -> None:
    with loader(name)(models / f"fp32{suffix}", RunOptions(batch=2)) as runtime:
        logits = runtime.run({INPUT_NAME: images(2)})[OUTPUT_NAME]
        facts = runtime.facts
    assert logits.shape == (2, CLASSES)
    assert logits.dtype == np.float32
    assert facts.inputs == {INPUT_NAME: (2, 3, SIZE, SIZE)}
    assert facts.outputs == {OUTPUT_NAME: (2, CLASSES)}
    assert facts.types == {INPUT_NAME: "float32"}
    assert facts.device


@every_runtime
def test_what_arithmetic_runs_is_told_when_asked(name: str, suffix: str, models: Path) -> None:
    """Loading does not pay for it: that is timed."""
    with loader(name)(models / f"fp32{suffix}", RunOptions(batch=2)) as runtime:
        assert runtime.facts.precision == ""
        assert runtime.inspect().precision == "f32"
        notes = list(runtime.facts.notes)
        assert runtime.inspect() is runtime.facts  # the second time costs and adds nothing
        assert runtime.facts.notes == notes


@every_runtime
def test_outputs_own_their_memory(name: str, suffix: str, models: Path) -> None:
    with loader(name)(models / f"fp32{suffix}", RunOptions(batch=1)) as runtime:
        first = runtime.run({INPUT_NAME: images(1, seed=1)})[OUTPUT_NAME]
        kept = first.copy()
        second = runtime.run({INPUT_NAME: images(1, seed=2)})[OUTPUT_NAME]
    assert np.array_equal(first, kept)
    assert not np.array_equal(first, second)


@every_runtime
def test_inputs_are_left_alone(name: str, suffix: str, models: Path) -> None:
    given = images(1)
    given.flags.writeable = False
    with loader(name)(models / f"fp32{suffix}", RunOptions(batch=1)) as runtime:
        runtime.run({INPUT_NAME: given})
    assert np.array_equal(given, images(1))


@every_runtime
def test_the_batch_is_open_without_a_fixed_one(name: str, suffix: str, models: Path) -> None:
    with loader(name)(models / f"fp32{suffix}") as runtime:
        assert runtime.facts.inputs[INPUT_NAME][0] == -1
        whole = runtime.run({INPUT_NAME: images(3)})[OUTPUT_NAME]
        parts = [runtime.run({INPUT_NAME: images(3)[i : i + 1]})[OUTPUT_NAME] for i in range(3)]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-5, atol=1e-6)


@every_runtime
def test_the_threads_asked_for_are_used(name: str, suffix: str, models: Path) -> None:
    with loader(name)(models / f"fp32{suffix}", RunOptions(batch=1, threads=1)) as runtime:
        assert runtime.facts.threads == 1


@every_runtime
def test_threads_are_told_where_the_runtime_chooses(name: str, suffix: str, models: Path) -> None:
    with loader(name)(models / f"fp32{suffix}", RunOptions(batch=1)) as runtime:
        assert runtime.facts.threads >= 1


@every_runtime
@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x0a\x3a\xff\xff"])
def test_a_file_that_is_no_model_is_one_line(
    name: str, suffix: str, content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(BundleError) as caught, loader(name)(path):
        pass
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    assert capfd.readouterr() == ("", "")


@every_runtime
def test_a_missing_file_is_named(name: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"none{suffix}"
    with pytest.raises(BundleError, match="none"), loader(name)(path):
        pass


@every_runtime
def test_a_device_that_is_not_here_is_exit_4_and_lists_those_that_are(
    name: str, suffix: str, models: Path
) -> None:
    words = r"(?i)no device 'hal9000'.*it has: .*cpu"
    runtime = loader(name)(models / f"fp32{suffix}", RunOptions(device="hal9000"))
    with pytest.raises(MissingOnHost, match=words) as caught, runtime:
        pass
    assert caught.value.exit_code == 4


@every_runtime
def test_nothing_is_written_beside_the_model(name: str, suffix: str, models: Path) -> None:
    before = sorted(models.rglob("*"))
    with loader(name)(models / f"fp32{suffix}", RunOptions(batch=1)) as runtime:
        runtime.run({INPUT_NAME: images(1)})
    assert sorted(models.rglob("*")) == before

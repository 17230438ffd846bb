"""Reading a prepared copy: the same pixels, the same training, never those of another data set."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekd.cli import main
from edgekd.data.prepared import INDEX, PIXELS, RECORD, PreparedImages, open_prepared
from edgekd.data.read import ImageStore, open_source, open_store
from edgekd.data.splits import make_split
from edgekd.errors import DataError
from edgekd.image import resize
from edgekd.recipe_data import DataSpec, InputSpec
from edgekd.rundir import sha256
from tests.data.copies import HINT, again, listing, prepared, recipe_of


@pytest.mark.parametrize("kind", ["folder", "ham10000", "synthetic"])
@pytest.mark.parametrize("fit", ["stretch", "shorter"])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_pixels_are_those_of_resize(kind: str, fit: str, workers: int, tmp_path: Path) -> None:
    size = {"size": 16, "resize": 18, "fit": fit}
    copy, source, spec = prepared(tmp_path, kind, input=size, workers=workers)
    assert listing(tmp_path / "copy") == [INDEX, PIXELS, RECORD]
    assert len(copy) == len(source)
    for reader in (copy, open_prepared(copy.path, source, spec), pickle.loads(pickle.dumps(copy))):
        for index in range(len(source)):
            expected = resize(source[index].image, spec.input)
            assert reader[index].dtype == np.uint8
            np.testing.assert_array_equal(reader[index], expected)
    assert not copy[0].flags.writeable
    with pytest.raises(KeyError):
        copy[len(source)]


def test_only_what_the_split_uses_is_in_the_copy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, source, spec = prepared(tmp_path, limit=8)
    used = make_split(source, spec.split, seed=0, limit=8).used()
    assert len(copy) == len(used) < len(source)
    assert [index in copy for index in range(len(source))] == np.isin(range(16), used).tolist()
    whole = spec.model_copy(update={"prepared": str(copy.path)})
    store = open_store(source, whole, range(len(source)))
    missing = len(source) - len(used)
    assert f"{missing} images are not in the copy" in " ".join(capsys.readouterr().err.split())
    for index in range(len(source)):
        np.testing.assert_array_equal(store[index], resize(source[index].image, spec.input))
    assert again(tmp_path, source, spec)
    assert len(PreparedImages(copy.path)) == len(source)


def test_the_store_keeps_nothing_that_is_prepared(tmp_path: Path) -> None:
    copy, source, spec = prepared(tmp_path, limit=8)
    store, ticks = ImageStore(source, spec.input, prepared=copy), []
    store.fill(progress=lambda: ticks.append(1))
    assert len(ticks) == len(source)
    assert len(store._kept) == len(source) - len(copy)
    pickled = pickle.dumps(store)
    assert len(pickled) < copy.facts.bytes
    for index in range(len(source)):
        np.testing.assert_array_equal(pickle.loads(pickled)[index], store[index])


def test_a_worker_notices_that_the_copy_was_replaced(tmp_path: Path) -> None:
    copy, source, spec = prepared(tmp_path)
    pickled = pickle.dumps(copy)
    assert again(tmp_path, source, spec.model_copy(update={"input": InputSpec(size=20)}))
    with pytest.raises(DataError, match="replaced by another copy"):
        pickle.loads(pickled)
    assert copy[3].shape == (16, 16, 3)  # what is open stays open


def test_a_second_time_there_is_nothing_to_do(tmp_path: Path) -> None:
    copy, source, spec = prepared(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in copy.path.iterdir()}
    assert not again(tmp_path, source, spec)
    assert before == {path: path.stat().st_mtime_ns for path in copy.path.iterdir()}


def refused(
    folder: Path, spec: DataSpec, match: str, capsys: pytest.CaptureFixture[str]
) -> PreparedImages:
    """Opening fails and says what to type; preparing again mends it."""
    source = open_source(spec)
    with pytest.raises(DataError, match=match) as caught:
        open_store(source, spec.model_copy(update={"prepared": str(folder / "copy")}), [])
    assert caught.value.hint == HINT
    assert caught.value.message.startswith("data.prepared: ")
    capsys.readouterr()
    assert again(folder, source, spec)
    if (folder / "copy").exists():
        assert "it is written anew" in capsys.readouterr().err
    return open_prepared(folder / "copy", source, spec)


def test_a_changed_image_makes_the_copy_old(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, source, spec = prepared(tmp_path)
    path = (source.files() or [])[2]
    Image.new("RGB", (30, 30), "red").save(path)
    copy = refused(tmp_path, spec, "an old copy: an image file or a label has changed", capsys)
    assert copy[2].tolist() == [[[255, 0, 0]] * 16] * 16


def test_a_touched_image_does_not(tmp_path: Path) -> None:
    _, source, spec = prepared(tmp_path)
    os.utime((source.files() or [])[2], ns=(1, 1))
    assert open_prepared(tmp_path / "copy", source, spec)[0].shape == (16, 16, 3)


def test_another_input_size_makes_the_copy_old(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, source, spec = prepared(tmp_path)
    cropped = spec.model_copy(update={"input": InputSpec(size=8, resize=16)})
    assert open_prepared(tmp_path / "copy", source, cropped)[0].shape == (16, 16, 3)
    other = spec.model_copy(update={"input": InputSpec(size=20)})
    refused(tmp_path, other, r"size 16 \(stretch\), the recipe asks for 20 \(stretch\)", capsys)
    other = spec.model_copy(update={"input": InputSpec(size=20, fit="shorter")})
    refused(tmp_path, other, r"size 20 \(stretch\), the recipe asks for 20 \(shorter\)", capsys)


def test_one_more_image_makes_the_copy_old(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, source, spec = prepared(tmp_path)
    shutil.copy((source.files() or [])[0], tmp_path / "images" / "benign" / "more.png")
    copy = refused(tmp_path, spec, "the data set has other images now", capsys)
    assert len(copy) == len(source) + 1


def test_other_parameters_make_the_copy_old(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, spec = prepared(tmp_path, "synthetic")
    other = spec.model_copy(update={"params": {"images": 30, "size": 24, "noise": 0.1}})
    refused(tmp_path, other, "other data.params", capsys)


def test_images_that_are_decoded_otherwise_make_the_copy_old(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, spec = prepared(tmp_path)
    from edgekd.data import folder

    decode = folder.decode
    monkeypatch.setattr(folder, "decode", lambda path: decode(path) // 2)
    refused(tmp_path, spec, "'benign/0.png' is decoded to other pixels now", capsys)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        (PIXELS, b"short", "pixels.bin has 5 bytes, expected 12288"),
        (PIXELS, None, "pixels.bin is missing"),
        (INDEX, b"something else", "index.npy is not what was written"),
        (INDEX, None, "index.npy is missing"),
        (RECORD, b"{", "prepared.json is damaged"),
        (RECORD, b'{"format": 1}', "prepared.json is damaged"),
        (RECORD, b"[]", "prepared.json is damaged"),
        (RECORD, b'{"format": 2}', "an old copy: it has format 2, this edgekd reads 1"),
    ],
)
def test_a_damaged_copy_is_refused_and_mended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None, match: str
) -> None:
    copy, _, spec = prepared(tmp_path)
    if content is None:
        (copy.path / name).unlink()
    else:
        (copy.path / name).write_bytes(content)
    refused(tmp_path, spec, match, capsys)


def test_a_missing_copy_says_what_to_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, _, spec = prepared(tmp_path)
    shutil.rmtree(copy.path)
    source = open_source(spec)
    with pytest.raises(DataError, match=r"^data\.prepared: .*/copy: no such folder") as caught:
        open_store(source, spec.model_copy(update={"prepared": str(copy.path)}), [])
    assert caught.value.hint == HINT
    assert again(tmp_path, source, spec)


def test_altered_pixels_are_found_where_they_are_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, source, spec = prepared(tmp_path)
    pixels = bytearray((copy.path / PIXELS).read_bytes())
    pixels[5 * 16 * 16 * 3] ^= 1
    (copy.path / PIXELS).write_bytes(pixels)
    open_prepared(copy.path, source, spec)  # not read at each start: it may be many GB
    path = recipe_of(tmp_path, spec)
    assert main(["data", "check", str(path), f"data.prepared={copy.path}"]) == 2
    assert "pixels.bin is not what was written" in capsys.readouterr().out
    assert again(tmp_path, source, spec)
    assert main(["data", "check", str(path), f"data.prepared={copy.path}"]) == 0


FORKING = """
import sys
import edgekd.doctor
edgekd.doctor._try_export = lambda *_: None
from edgekd.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_training_is_the_same_with_a_copy_and_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekd.doctor._try_export", lambda *_: None)
    path, copy = str(recipe_of(tmp_path)), f"data.prepared={tmp_path / 'copy'}"

    def distill(parent: str, name: str, *overrides: str) -> dict[str, Any]:
        out = tmp_path / parent / name
        arguments = ["distill", path, "--out", str(out), "--json", *overrides]
        if "data.workers=1" in overrides:  # this process is full of threads: no place to fork
            done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKING, *arguments],
                                  capture_output=True, text=True, check=True)  # fmt: skip
            printed = done.stdout
        else:
            assert main(arguments) == 0
            printed = capsys.readouterr().out
        answer: dict[str, Any] = json.loads(printed)
        models = sorted((out / "models").glob("*.safetensors"))
        assert len(models) == 2
        return {"weights": [sha256(model) for model in models], **answer}

    assert main(["distill", path, copy, "--out", str(tmp_path / "none")]) == 2
    assert f"hint: {HINT}" in capsys.readouterr().err
    assert main(["data", "prepare", path, copy]) == 0
    capsys.readouterr()
    plain = distill("a", "plain")
    fast = distill("b", "fast", copy)
    forked = distill("c", "forked", copy, "data.workers=1")
    assert fast["trained"] == forked["trained"] == ["teacher", "distill"]
    assert plain["weights"] == fast["weights"] == forked["weights"]
    assert plain["scores"] == fast["scores"] == forked["scores"]
    served = distill("a", "served", copy)  # stages do not depend on where pixels come from
    assert (served["trained"], served["reused"]) == ([], ["teacher", "distill"])

"""The prepared copy: the same pixels, the same training, and never those of another data set."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekd.cli import main
from edgekd.data.base import DataSource
from edgekd.data.prepare import default_folder, prepare_images
from edgekd.data.prepared import INDEX, PIXELS, RECORD, PreparedImages, open_prepared
from edgekd.data.read import ImageStore, open_source, open_store
from edgekd.data.splits import make_split
from edgekd.errors import DataError, MissingOnHost
from edgekd.image import resize
from edgekd.recipe import DataSpec, InputSpec
from edgekd.rundir import sha256
from tests import tiny
from tests.data.plain import Plain
from tests.data.test_ham10000 import make as make_ham10000

HINT = "edgekd data prepare RECIPE"


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def draw_folder(root: Path, count: int = 8) -> Path:
    """Pictures of several sizes in two classes."""
    for name in ("benign", "malignant"):
        (root / name).mkdir(parents=True)
        for number in range(count):
            random = np.random.default_rng([number, len(name)])
            shape = (20 + 3 * number, 40 - number, 3)
            pixels = random.integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def spec_of(kind: str, folder: Path, **more: Any) -> DataSpec:
    more = {"input": {"size": 16}, "split": "6-2-2", **more}
    if kind == "folder":
        return DataSpec(name="folder", root=str(draw_folder(folder / "images")), **more)
    if kind == "ham10000":
        rows = [f"HAM_{n},ISIC_{n},nv,histo,50,male,ear" for n in range(6)]
        root = make_ham10000(folder / "ham", rows)
        for number, path in enumerate(sorted(root.rglob("*.jpg"))):  # as they are drawn, too plain
            pixels = np.random.default_rng(number).integers(0, 256, (45, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
        return DataSpec(name="ham10000", root=str(root), **more)
    return DataSpec(name="synthetic", params={"images": 30, "size": 24}, **more)


def prepared(
    folder: Path, kind: str = "folder", **more: Any
) -> tuple[PreparedImages, DataSource, DataSpec]:
    """A copy in `folder/copy`, its source and its recipe's data."""
    spec = spec_of(kind, folder, **more)
    source = open_source(spec)
    split = make_split(source, spec.split, seed=0, limit=spec.limit, verify=False)
    copy, written = prepare_images(folder / "copy", source, split.used(), spec)
    assert written
    return copy, source, spec


def again(folder: Path, source: DataSource, spec: DataSpec) -> bool:
    """Whether preparing once more writes anything."""
    return prepare_images(folder / "copy", source, np.arange(len(source)), spec)[1]


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
    os.utime(path, ns=(1, 1))  # the same bytes, but who knows
    refused(tmp_path, spec, "an image file or a label has changed", capsys)


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


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError(28, "No space left")])
def test_nothing_is_left_of_an_interrupted_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interruption: BaseException
) -> None:
    copy, source, spec = prepared(tmp_path)
    before = (copy.path / RECORD).read_bytes()
    original, calls = type(source).__getitem__, []

    def fails_late(self: Any, index: int) -> Any:
        calls.append(index)
        if len(calls) > 9:
            assert list(tmp_path.glob(".*.tmp/pixels.bin"))
            raise interruption
        return original(self, index)

    monkeypatch.setattr(type(source), "__getitem__", fails_late)
    for place, wanted in ((copy.path, InputSpec(size=20)), (tmp_path / "new", spec.input)):
        calls.clear()
        other = spec.model_copy(update={"input": wanted})
        with pytest.raises((KeyboardInterrupt, OSError)):
            prepare_images(place, source, np.arange(16), other)
    assert listing(tmp_path) == ["copy", "images"]
    assert (copy.path / RECORD).read_bytes() == before


def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(
    tmp_path: Path,
) -> None:
    from edgekd.data.prepare import OWNED

    for name in (".copy.dead.tmp", ".copy.busy.tmp", ".other.dead.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / OWNED).touch()
    code = ("import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX); "
            "print('held', flush=True); sys.stdin.read()")  # fmt: skip
    busy = str(tmp_path / ".copy.busy.tmp" / OWNED)
    with subprocess.Popen([sys.executable, "-c", code, busy], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as other:  # fmt: skip
        assert other.stdout is not None
        other.stdout.readline()
        prepared(tmp_path)
        other.communicate()
    assert listing(tmp_path) == [".copy.busy.tmp", ".other.dead.tmp", "copy", "images"]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    spec = spec_of("folder", tmp_path)
    source = open_source(spec)
    (tmp_path / "file").write_text("mine")
    for place, match in (("images", "not a prepared copy: it holds 'benign'"), ("file", "a file")):
        with pytest.raises(DataError, match=match) as caught:
            prepare_images(tmp_path / place, source, np.arange(16), spec)
        assert "--out FOLDER" in (caught.value.hint or "")
    copy, *_ = prepare_images(tmp_path / "copy", source, np.arange(16), spec)
    (copy.path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"it holds 'notes\.txt'"):
        prepare_images(copy.path, source, np.arange(16), spec)
    (copy.path / "notes.txt").unlink()
    chance = tmp_path / "chance"
    chance.mkdir()
    (chance / PIXELS).write_text("mine")
    with pytest.raises(DataError, match=r"it holds 'pixels\.bin'"):
        prepare_images(chance, source, np.arange(16), spec)
    with pytest.raises(DataError, match=r"not a prepared copy: no prepared\.json"):
        open_prepared(chance, source, spec)
    moved = spec.model_copy(update={"root": str(shutil.copytree(tmp_path / "images",
                                                                tmp_path / "others"))})  # fmt: skip
    with pytest.raises(DataError, match=r"the copy of other data: 'folder' in .*/images"):
        prepare_images(copy.path, open_source(moved), np.arange(16), moved)
    assert len(open_prepared(copy.path, open_source(moved), moved)) == 16  # a true copy to read


def test_a_link_to_another_disk_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "copy").symlink_to(tmp_path / "disk" / "copy")
    prepared(tmp_path)
    assert (tmp_path / "copy").is_symlink()
    assert (tmp_path / "disk" / "copy" / PIXELS).is_file()


def test_a_full_disk_is_noticed_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 10**4, 10**4))
    with pytest.raises(MissingOnHost, match=r"needs 0\.0\d* MB, 0\.0 MB are free"):
        prepared(tmp_path)
    assert listing(tmp_path) == ["images"]


def test_an_unreadable_image_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    for workers in (0, 2):
        spec = spec_of("folder", tmp_path / str(workers), workers=workers)
        source = open_source(spec)
        (tmp_path / str(workers) / "images" / "benign" / "5.png").write_bytes(b"nothing")
        with pytest.raises(DataError, match=r"5\.png: cannot be read as an image"):
            prepare_images(tmp_path / "copy", source, np.arange(16), spec)
    assert listing(tmp_path) == ["0", "2"]


def test_an_image_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    source = Plain([0, 1], images=[np.zeros((16, 16, 3), dtype=np.float32)] * 2)  # type: ignore[list-item]
    with pytest.raises(DataError, match=r"'i0' is float32 \(16, 16, 3\), expected uint8"):
        prepare_images(tmp_path / "x", source, np.arange(2), spec_of("synthetic", tmp_path))


def test_the_default_folder_says_data_and_size(tmp_path: Path) -> None:
    spec = spec_of("synthetic", tmp_path, input={"size": 16, "resize": 20})
    assert default_folder(spec) == Path("prepared/synthetic-20")
    own = DataSpec(name="mine.data:Source", input={"size": 16})  # type: ignore[arg-type]
    assert default_folder(own) == Path("prepared/mine.data-Source-16")


def recipe_of(folder: Path, spec: DataSpec | None = None) -> Path:
    recipe = tiny.tree(folder, params={"images": 60, "size": 24}, input={"size": 16})
    if spec is not None:
        recipe["data"] = spec.model_dump(mode="json")
        recipe["task"] = {"name": "classification"}
    for stage in recipe["stages"].values():
        stage["epochs"] = 1
    return tiny.write(folder, recipe)


def test_the_command_says_where_and_how(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = str(recipe_of(tmp_path))
    assert main(["data", "prepare", path]) == 0
    out, err = capsys.readouterr()
    assert out == "prepared/synthetic-16\n"
    assert "written, 60 images" in err
    assert "to use it: data.prepared=prepared/synthetic-16" in err
    assert main(["data", "prepare", path, "data.prepared=prepared/synthetic-16", "--json"]) == 0
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert (answer["folder"], answer["written"], answer["images"]) == (
        "prepared/synthetic-16", False, 60
    )  # fmt: skip
    assert "up to date" in err
    assert "to use it" not in err
    assert main(["data", "prepare", path, "data.prepared=there"]) == 0  # not there yet
    assert main(["data", "prepare", path, "data.prepared=there", "--out", "with space"]) == 0
    out, err = capsys.readouterr()
    assert "to use it: 'data.prepared=with space'" in err
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == [
        "prepared", "there", "with space"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["data.rot=x"], 2, "unknown key"),
        (["--ou", "x"], 2, "No such option"),
        (["--variant", "none"], 2, "there is no variant 'none'"),
        (["data.name=folder", "data.params={}", "data.root=nowhere"], 2, "no such file or folder"),
        (["--out", "tiny.yaml"], 2, "is a file"),
        (["--out", "."], 2, "not a prepared copy"),
    ],
)
def test_a_wrong_word_is_one_clear_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "prepare", str(recipe_of(tmp_path)), *arguments]) == code
    assert message in capsys.readouterr().err
    assert listing(tmp_path) == ["nets.py", "tiny.yaml"]


def test_ctrl_c_says_that_nothing_was_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgekd.data.prepare._write", interrupt)
    out = tmp_path / "copy"
    assert main(["data", "prepare", str(recipe_of(tmp_path)), "--out", str(out)]) == 130
    assert "nothing was written" in capsys.readouterr().err
    assert listing(tmp_path) == ["nets.py", "tiny.yaml"]


def test_sigterm_leaves_nothing_either(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(folder: Path, *_: object) -> None:
        (folder / PIXELS).write_bytes(b"pixels")
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("edgekd.data.prepare._write", end)
    out = tmp_path / "copy"
    assert main(["data", "prepare", str(recipe_of(tmp_path)), "--out", str(out)]) == 130
    assert "nothing was written" in capsys.readouterr().err
    assert listing(tmp_path) == ["nets.py", "tiny.yaml"]
    assert signal.getsignal(signal.SIGTERM) == before


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

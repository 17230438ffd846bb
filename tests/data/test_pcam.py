"""PatchCamelyon's HDF5 files: the official form, copies of it, and files that are refused."""

from __future__ import annotations

import gzip
import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from edgekd.data._split_problems import split_problems
from edgekd.data.check import check
from edgekd.data.pcam import PCam
from edgekd.data.read import open_source
from edgekd.data.splits import make_split
from edgekd.errors import DataError, MissingOnHost
from edgekd.recipe_data import DataSpec
from tests.data.grading_layouts import write_csv

COUNTS = {"train": 8, "valid": 4, "test": 4}
HEADER = ("", "coord_y", "coord_x", "tumor_patch", "center_tumor_patch", "wsi")
LABELS = {"train": [0, 1] * 4, "valid": [1, 0, 0, 1], "test": [0, 0, 1, 1]}
MIRROR = {"train": "training_split", "valid": "validation_split", "test": "test_split"}


def prefix(part: str) -> str:
    return f"camelyonpatch_level_2_split_{part}"


def patches(part: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    random = np.random.default_rng(list(COUNTS).index(part))
    return random.integers(0, 256, (COUNTS[part], 96, 96, 3), dtype=np.uint8)


def write_h5(path: Path, **arrays: np.ndarray[Any, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values)
    return path


def slides(part: str) -> list[str]:
    """Two slides a part, each with a patch of both classes."""
    kind = "test" if part == "test" else "train_tumor"
    first = 10 * list(COUNTS).index(part)
    return [f"camelyon16_{kind}_{first + index // 2 % 2:03d}" for index in range(COUNTS[part])]


def write_meta(root: Path, part: str, names: Sequence[str]) -> None:
    rows = [(index, 100, 200, True, False, name) for index, name in enumerate(names)]
    write_csv(root / f"{prefix(part)}_meta.csv", rows, HEADER)


def make(root: Path, *, meta: bool = True) -> Path:
    for part in COUNTS:
        write_h5(root / f"{prefix(part)}_x.h5", x=patches(part))
        labels = np.array(LABELS[part], dtype=np.uint8).reshape(-1, 1, 1, 1)
        write_h5(root / f"{prefix(part)}_y.h5", y=labels)
        if meta:
            write_meta(root, part, slides(part))
    return root


def test_images_come_with_their_official_parts_and_slides(tmp_path: Path) -> None:
    source = PCam(root=make(tmp_path))
    assert source.classes == ("normal", "tumor")
    assert len(source) == 16
    assert source.targets().tolist() == LABELS["train"] + LABELS["valid"] + LABELS["test"]
    assert source.parts() == ["train"] * 8 + ["val"] * 4 + ["test"] * 4
    assert source.groups() == slides("train") + slides("valid") + slides("test")
    sample = source[9]
    assert (sample.id, sample.target, sample.group) == ("val-000001", 0, slides("valid")[1])
    np.testing.assert_array_equal(sample.image, patches("valid")[1])
    np.testing.assert_array_equal(source[15].image, patches("test")[3])
    np.testing.assert_array_equal(source[0].image, patches("train")[0])
    for outside in (16, -1):
        with pytest.raises(IndexError):
            source[outside]


def test_the_official_split_is_that_of_the_three_files(tmp_path: Path) -> None:
    source = PCam(root=make(tmp_path))
    split = make_split(source, "official", seed=0)
    assert [part.tolist() for _, part in split.items()] == [
        list(range(8)), list(range(8, 12)), list(range(12, 16)),
    ]  # fmt: skip
    assert not split_problems(source, split)


def test_other_splits_keep_slides_whole(tmp_path: Path) -> None:
    source = PCam(root=make(tmp_path))
    for seed in range(5):
        split = make_split(source, "3-1-2", seed=seed)
        homes = [{source.groups()[index] for index in part} for _, part in split.items()]
        assert sum(map(len, homes)) == 6


def test_without_the_slides_every_image_is_its_own_group(tmp_path: Path) -> None:
    source = PCam(root=make(tmp_path, meta=False))
    assert source.groups() == source.ids()
    assert source[3].group == "train-000003"
    report = check(source, make_split(source, "official", seed=0))
    assert "no groups: images of one patient may be in two parts" in report.notes


def test_the_slides_of_all_parts_are_needed_or_none(tmp_path: Path) -> None:
    root = make(tmp_path)
    (root / f"{prefix('valid')}_meta.csv").unlink()
    with pytest.raises(DataError, match=r"train_meta\.csv is here and .*valid_meta\.csv is not"):
        PCam(root=root)


def test_torchvisions_folder_is_found(tmp_path: Path) -> None:
    make(tmp_path / "pcam")
    source = PCam(root=tmp_path)
    assert len(source) == 16
    assert source.groups()[0] == slides("train")[0]


def test_the_mirror_on_kaggle_is_found(tmp_path: Path) -> None:
    for part in COUNTS:
        write_h5(tmp_path / "pcam" / f"{MIRROR[part]}.h5", x=patches(part))
        labels = np.array(LABELS[part], dtype=np.uint8).reshape(-1, 1, 1, 1)
        write_h5(tmp_path / "Labels" / "Labels" / f"{prefix(part)}_y.h5", y=labels)
    source = PCam(root=tmp_path)
    assert source.targets().tolist()[8:12] == LABELS["valid"]
    np.testing.assert_array_equal(source[8].image, patches("valid")[0])
    np.testing.assert_array_equal(source[12].image, patches("test")[0])


def test_a_recipe_names_it(tmp_path: Path) -> None:
    assert len(open_source(DataSpec(name="pcam", root=str(make(tmp_path))))) == 16


def test_the_check_reads_it(tmp_path: Path) -> None:
    source = PCam(root=make(tmp_path))
    report = check(source, make_split(source, "official", seed=0))
    assert report.verdict == "ok"
    assert report.counts["train"] == {"normal": 4, "tumor": 4}
    assert report.groups == {"train": 2, "val": 2, "test": 2}
    assert report.sizes == {"96x96": 16}


def test_repetitions_inside_a_part_are_noted(tmp_path: Path) -> None:
    """PatchCamelyon has some; `histopathologic` is the same data without them."""
    root = make(tmp_path)
    twice = patches("train")
    twice[4] = twice[2]
    write_h5(root / f"{prefix('train')}_x.h5", x=twice)
    source = PCam(root=root)
    report = check(source, make_split(source, "official", seed=0))
    assert report.duplicates == [["train-000002", "train-000004"]]
    assert report.verdict == "ok"


def test_files_that_are_still_packed_say_how_to_unpack(tmp_path: Path) -> None:
    root = make(tmp_path)
    plain = root / f"{prefix('valid')}_x.h5"
    packed = plain.with_name(f"{plain.name}.gz")
    packed.write_bytes(gzip.compress(plain.read_bytes(), 1))
    assert len(PCam(root=root)) == 16
    plain.unlink()
    with pytest.raises(DataError, match=rf"{packed.name}: still packed, expected") as caught:
        PCam(root=root)
    assert "gunzip" in (caught.value.hint or "")


def test_a_source_that_has_read_can_be_pickled_and_reads_on(tmp_path: Path) -> None:
    source = PCam(root=make(tmp_path))
    before = source[5].image
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy[5].image, before)
    np.testing.assert_array_equal(source[5].image, before)


_HELD: list[PCam] = []


def _hold(source: PCam) -> None:
    _HELD[:] = [source]


def _image(index: int) -> Any:
    return _HELD[0][index].image


def forks_agree(root: Path) -> bool:
    """Whether processes that are forked after the first read give what this one reads."""
    source = PCam(root=root)
    here = np.stack([source[index].image for index in range(len(source))])
    with multiprocessing.get_context("fork").Pool(2, _hold, (source,)) as pool:
        there = np.stack(pool.map(_image, range(len(source)), chunksize=1))
    return np.array_equal(here, there) and np.array_equal(here[0], source[0].image)


def test_forked_workers_read_the_same_images(tmp_path: Path) -> None:
    """In a process of its own: this one is full of other libraries' threads, which no fork
    survives for sure."""
    code = (
        "from pathlib import Path; from tests.data.test_pcam import forks_agree; "
        f"print(forks_agree(Path({str(make(tmp_path))!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "True", done.stderr


def test_a_forked_process_opens_the_files_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = PCam(root=make(tmp_path))
    opened: list[Path] = []
    real = h5py.File

    def noted(path: Path, *rest: Any, **more: Any) -> Any:
        opened.append(path)
        return real(path, *rest, **more)

    monkeypatch.setattr(h5py, "File", noted)
    for index in (0, 1, 7, 2):
        source[index]
    assert len(opened) == 1
    monkeypatch.setattr("os.getpid", lambda: 1)
    source[0]
    source[1]
    assert len(opened) == 2


def test_a_changed_file_changes_the_fingerprint(tmp_path: Path) -> None:
    root = make(tmp_path)
    seen = {PCam(root=root).fingerprint()}
    changed = patches("test")
    changed[0, 0, 0, 0] ^= 1
    write_h5(root / f"{prefix('test')}_x.h5", x=changed)
    seen.add(PCam(root=root).fingerprint())
    write_meta(root, "test", slides("test")[::-1])
    seen.add(PCam(root=root).fingerprint())
    assert len(seen) == 3


def test_exchanged_valid_and_test_files_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The published table of checksums has the two the wrong way round."""
    root = make(tmp_path)
    PCam(root=root)
    assert "each other's names" not in capsys.readouterr().err
    write_meta(root, "valid", slides("test"))
    write_meta(root, "test", slides("valid"))
    PCam(root=root)
    said = " ".join(capsys.readouterr().err.split())
    assert "valid and test have each other's names?" in said


@pytest.mark.parametrize("kind", ["x", "y"])
def test_a_file_that_is_cut_short_is_told_in_one_line(tmp_path: Path, kind: str) -> None:
    root = make(tmp_path)
    path = root / f"{prefix('test')}_{kind}.h5"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=rf"test_{kind}\.h5: cannot be read as an HDF5") as caught:
        PCam(root=root)
    assert "\n" not in caught.value.message
    path.write_bytes(b"<html>quota exceeded</html>")
    with pytest.raises(DataError, match=rf"test_{kind}\.h5: cannot be read as an HDF5"):
        PCam(root=root)


def test_a_damaged_block_is_told_when_it_is_read(tmp_path: Path) -> None:
    root = make(tmp_path)
    path = root / f"{prefix('train')}_x.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "x", data=patches("train"), chunks=(1, 96, 96, 3), compression="gzip"
        )
        start = data.id.get_chunk_info(3).byte_offset
    content = bytearray(path.read_bytes())
    content[start : start + 64] = b"\xff" * 64
    path.write_bytes(content)
    source = PCam(root=root)
    np.testing.assert_array_equal(source[2].image, patches("train")[2])
    with pytest.raises(DataError, match=r"train_x\.h5: image 3 cannot be read") as caught:
        source[3]
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("name", "arrays", "found"),
    [
        ("x", {"x": np.zeros((4, 96, 96), np.uint8)}, r"x is uint8 \(4, 96, 96\), expected"),
        ("x", {"x": np.zeros((4, 96, 96, 3), np.float32)}, r"x is float32 \(4, 96, 96, 3\)"),
        ("x", {"images": np.zeros((4, 96, 96, 3), np.uint8)}, "no data set 'x'; found images"),
        ("x", {}, "no data set 'x'; found nothing"),
        ("y", {"y": np.zeros((3, 1, 1, 1), np.uint8)}, r"y is uint8 \(3, 1, 1, 1\), expected one"),
        ("y", {"y": np.zeros((4, 2), np.uint8)}, r"y is uint8 \(4, 2\)"),
        ("y", {"y": np.zeros((4, 1, 1, 1), np.float32)}, "y is float32"),
        ("y", {"y": np.array([0, 1, 2, 1], np.uint8)}, "label 2 is 2, expected 0 or 1"),
    ],
)
def test_a_file_of_another_form_is_refused(
    tmp_path: Path, name: str, arrays: dict[str, Any], found: str
) -> None:
    root = make(tmp_path)
    write_h5(root / f"{prefix('valid')}_{name}.h5", **arrays)
    with pytest.raises(DataError, match=rf"valid_{name}\.h5: {found}") as caught:
        PCam(root=root)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (",coord_y,coord_x\n0,1,2\n", ": the header has no column wsi; found coord_y, coord_x"),
        ("", ": the header has no column wsi; found -"),
        (",wsi\n0,a\n1,a\n", ": 2 rows for 4 images"),
        (",wsi\n0,a\n1,a\n2,\n3,b\n", ", row 4: wsi is empty"),
        (",wsi\n0,a\n1,a\n2\n3,b\n", ", row 4: wsi is empty"),
        (",wsi\n0,\xff\n", ": cannot be read"),
    ],
)
def test_a_table_of_slides_that_does_not_fit_is_refused(
    tmp_path: Path, content: str, found: str
) -> None:
    root = make(tmp_path)
    (root / f"{prefix('test')}_meta.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=rf"test_meta\.csv{found}") as caught:
        PCam(root=root)
    assert caught.value.hint


def test_without_h5py_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make(tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingOnHost, match="data 'pcam' needs the package 'h5py'") as caught:
        PCam(root=root)
    assert caught.value.hint == "pip install 'edgekd[train]'"


def test_wrong_folders_say_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        PCam(root=tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no camelyonpatch_level_2_split_train_x\.h5") as caught:
        PCam(root=tmp_path)
    assert "data.root=FOLDER" in (caught.value.hint or "")

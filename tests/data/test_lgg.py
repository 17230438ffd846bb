"""The LGG slices on disk: Kaggle's layout, and what is easily got wrong with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.data._split_problems import split_problems
from edgekd.data.lgg import LGG
from edgekd.data.read import open_source
from edgekd.data.splits import make_split
from edgekd.errors import DataError, RecipeError
from edgekd.recipe import Recipe
from edgekd.recipe_data import DataSpec
from edgekd.train.setup import prepare

CASES = ("TCGA_CS_4941_19960909", "TCGA_DU_A5TW_19980228", "TCGA_HT_7616_19940813")
HEADER = "Patient,RNASeqCluster,gender,age_at_initial_pathologic,race,death01"


def make(root: Path, cases: tuple[str, ...] = CASES, slices: int = 11, side: int = 16) -> Path:
    """Slices 1 to `slices` of each case; from the sixth on they show a tumour."""
    for number, case in enumerate(cases):
        folder = root / "kaggle_3m" / case
        folder.mkdir(parents=True)
        for place in range(1, slices + 1):
            pixels = np.full((side, side, 3), 10 * number + place, dtype=np.uint8)
            mask = np.zeros((side, side), dtype=np.uint8)
            mask[:4, :place] = 255 * (place > 5)
            Image.fromarray(pixels).save(folder / f"{case}_{place}.tif")
            Image.fromarray(mask).save(folder / f"{case}_{place}_mask.tif")
    rows = [HEADER, "TCGA_CS_4941,2,2,67,3,1", "TCGA_DU_A5TW,,1,33,,0", "TCGA_HT_7616,1,,75,2,0"]
    (root / "kaggle_3m" / "data.csv").write_text("\n".join(rows) + "\n")
    return root


def test_it_reads_the_published_layout(tmp_path: Path) -> None:
    source = LGG(root=make(tmp_path))
    assert source.classes == ("tumour",)
    assert source.has_masks
    assert len(source) == 33
    assert source.parts() is None
    sample = source[0]
    assert sample.image.shape == (16, 16, 3)
    assert (sample.id, sample.group, sample.target) == (
        "TCGA_CS_4941_19960909_1", "TCGA_CS_4941", 0
    )  # fmt: skip
    mask = source.mask(7)
    assert mask.dtype == np.uint8
    assert mask[0].tolist() == [1] * 8 + [0] * 8
    assert len(source.files()) == len(source.mask_files()) == 33
    assert source.mask_files()[4].name == "TCGA_CS_4941_19960909_5_mask.tif"


def test_slice_numbers_are_not_padded_and_are_sorted_as_integers(tmp_path: Path) -> None:
    source = LGG(root=make(tmp_path))
    assert [id.rsplit("_", 1)[1] for id in source.ids()[:11]] == [str(n) for n in range(1, 12)]
    assert [int(source[index].image[0, 0, 0]) for index in range(11)] == list(range(1, 12))


def test_empty_slices_are_a_kind_of_their_own(tmp_path: Path) -> None:
    source = LGG(root=make(tmp_path))
    assert source.kinds() == ("without tumour", "with tumour")
    assert source.targets().tolist() == ([0] * 5 + [1] * 6) * 3
    assert not source.mask(0).any()


def test_slices_of_a_patient_stay_in_one_part(tmp_path: Path) -> None:
    cases = tuple(f"TCGA_CS_{number:04d}_19960909" for number in range(20))
    source = LGG(root=make(tmp_path, cases, slices=7))
    assert set(source.groups()) == {f"TCGA_CS_{number:04d}" for number in range(20)}
    split = make_split(source, "75-10-15", seed=0)
    assert not split_problems(source, split)
    homes = [{source.groups()[index] for index in part} for _, part in split.items()]
    assert sum(map(len, homes)) == 20
    assert [len(home) for home in homes] == [15, 2, 3]


def test_two_visits_of_a_patient_are_one_group(tmp_path: Path) -> None:
    cases = ("TCGA_CS_4941_19960909", "TCGA_CS_4941_19980101", *CASES[1:])
    source = LGG(root=make(tmp_path, cases))
    assert len(set(source.ids())) == 44
    assert len(set(source.groups())) == 3


def test_slices_may_be_split_one_by_one_and_that_is_said(tmp_path: Path) -> None:
    root = make(tmp_path)
    source = LGG(root=root, group="slice")
    assert source.groups() == source.ids()
    assert source[7].group == source[7].id == "TCGA_CS_4941_19960909_8"
    assert source.attributes() == LGG(root=root).attributes()  # those of the patients
    split = make_split(source, "75-10-15", seed=0)
    assert not split_problems(source, split)
    assert [len(part) for _, part in split.items()] == [24, 4, 5]
    patients = LGG(root=root).groups()
    assert {patients[index] for index in split.train} & {patients[index] for index in split.test}
    assert source.fingerprint() != LGG(root=root).fingerprint()
    (caveat,) = source.caveats()
    assert "slices of one patient are in several parts" in caveat
    assert not LGG(root=root).caveats()


def test_a_run_on_slices_carries_the_note(tmp_path: Path) -> None:
    recipe = Recipe.model_validate({
        "edgekd": 1, "name": "slices", "task": {"name": "segmentation"},
        "data": {"name": "lgg", "root": str(make(tmp_path)), "params": {"group": "slice"},
                 "split": "3-1-1", "input": {"size": 16}},
        "models": {"student": {"arch": "smp:unet"}},
        "stages": {"train": {"train": ["student"], "losses": {"focal_dice": {"to": "student"}}}},
    })  # fmt: skip
    data = prepare(recipe)
    assert data.caveats == data.source.caveats() != []


def test_no_other_group_is_known(tmp_path: Path) -> None:
    spec = DataSpec(name="lgg", root=str(make(tmp_path)), params={"group": "slices"})
    with pytest.raises(RecipeError, match=r"data\.params\.group"):
        open_source(spec)


def test_the_second_tree_in_the_archive_is_no_other_data(tmp_path: Path) -> None:
    root = make(tmp_path)
    before = LGG(root=root)
    hash_before = before.fingerprint()
    shutil.copytree(root / "kaggle_3m", root / "lgg-mri-segmentation" / "kaggle_3m")
    after = LGG(root=root)
    assert after.ids() == before.ids()
    assert after.fingerprint() == hash_before
    shutil.rmtree(root / "kaggle_3m")
    assert LGG(root=root).fingerprint() == hash_before  # whichever was unpacked


def test_the_root_may_be_the_tree_itself(tmp_path: Path) -> None:
    root = make(tmp_path)
    assert LGG(root=root / "kaggle_3m").ids() == LGG(root=root).ids()


def test_patients_of_the_table_without_a_folder_are_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = LGG(root=make(tmp_path, CASES[:1]))
    assert len(source) == 11
    said = capsys.readouterr().err
    assert "2 of 3 patients have no folder, the first is TCGA_DU_A5TW" in said.replace("\n", " ")


def test_facts_of_patients_are_as_coded_and_empty_where_unknown(tmp_path: Path) -> None:
    root = make(tmp_path, (*CASES, "TCGA_FG_6692_20020606"))
    facts = LGG(root=root).attributes()
    assert facts["age_at_initial_pathologic"][::11] == ["67", "33", "", "75"]
    assert facts["gender"][::11] == ["2", "1", "", ""]
    assert facts["race"][::11] == ["3", "", "", "2"]
    (root / "kaggle_3m" / "data.csv").unlink()
    assert set(LGG(root=root).attributes()["gender"]) == {""}


def test_other_files_of_the_download_are_not_read(tmp_path: Path) -> None:
    root = make(tmp_path)
    (root / "kaggle_3m" / "README.md").write_text("# LGG")
    (root / "kaggle_3m" / "TCGA_CS_4942_19970222").write_text("a file of such a name")
    (root / "kaggle_3m" / CASES[0] / f"._{CASES[0]}_1.tif").write_bytes(b"\0\5\26\7")
    (root / "kaggle_3m" / CASES[0] / "Thumbs.db").write_bytes(b"")
    assert len(LGG(root=root)) == 33


def test_a_slice_without_mask_is_named_and_the_others_counted(tmp_path: Path) -> None:
    root = make(tmp_path)
    for number in (10, 3):
        (root / "kaggle_3m" / CASES[1] / f"{CASES[1]}_{number}_mask.tif").unlink()
    with pytest.raises(DataError, match=r"_3\.tif: there is no .*_3_mask\.tif .*\(2 slices of"):
        LGG(root=root)


def test_a_mask_without_slice_is_named(tmp_path: Path) -> None:
    root = make(tmp_path)
    (root / "kaggle_3m" / CASES[1] / f"{CASES[1]}_3.tif").unlink()
    with pytest.raises(DataError, match=r"_3_mask\.tif: there is no slice .*_3\.tif beside it"):
        LGG(root=root)


def test_a_slice_in_another_patients_folder_is_refused(tmp_path: Path) -> None:
    """Groups go by names: it would be of one patient by its folder and of another by its name."""
    root = make(tmp_path)
    tree = root / "kaggle_3m"
    for name in ("9", "9_mask"):
        (tree / CASES[0] / f"{CASES[0]}_{name}.tif").rename(
            tree / CASES[1] / f"{CASES[0]}_{name}.tif"
        )
    with pytest.raises(DataError, match=rf"{CASES[0]}_9\.tif: expected {CASES[1]}_NUMBER\.tif"):
        LGG(root=root)


def test_a_slice_number_twice_is_refused(tmp_path: Path) -> None:
    root = make(tmp_path)
    folder = root / "kaggle_3m" / CASES[0]
    for end in (".tif", "_mask.tif"):
        shutil.copyfile(folder / f"{CASES[0]}_3{end}", folder / f"{CASES[0]}_03{end}")
    with pytest.raises(DataError, match=r"_03\.tif and .*_3\.tif are both slice 3"):
        LGG(root=root)


def test_grey_values_in_a_mask_are_refused(tmp_path: Path) -> None:
    root = make(tmp_path)
    for case in CASES[:2]:
        path = root / "kaggle_3m" / case / f"{case}_4_mask.tif"
        Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(path)
    source = LGG(root=root)
    with pytest.raises(DataError, match=r"_4_mask\.tif: 256 grey values"):
        source.mask(3)
    with pytest.raises(DataError, match=r"CS_4941_\d+_4_mask\.tif: 256 .*\(and 1 more masks\)"):
        source.targets()


def test_a_mask_of_another_shape_is_refused(tmp_path: Path) -> None:
    root = make(tmp_path)
    path = root / "kaggle_3m" / CASES[0] / f"{CASES[0]}_1_mask.tif"
    Image.fromarray(np.zeros((16, 20), dtype=np.uint8)).save(path)
    with pytest.raises(DataError, match=r"_1_mask\.tif: 20x16 pixels, its image has 16x16"):
        LGG(root=root).mask(0)


def test_a_folder_without_slices_is_named(tmp_path: Path) -> None:
    root = make(tmp_path)
    (root / "kaggle_3m" / "TCGA_CS_4942_19970222").mkdir()
    with pytest.raises(DataError, match=r"TCGA_CS_4942_19970222: no slices"):
        LGG(root=root)


def test_a_wrong_root_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        LGG(root=tmp_path / "nowhere")
    with pytest.raises(DataError, match="neither kaggle_3m nor folders named as") as caught:
        LGG(root=tmp_path)
    assert caught.value.hint == "data.root=FOLDER is the one that holds kaggle_3m"
    (tmp_path / "kaggle_3m").mkdir()
    with pytest.raises(DataError, match="neither kaggle_3m"):
        LGG(root=tmp_path)


def test_a_changed_mask_is_other_data(tmp_path: Path) -> None:
    root = make(tmp_path)
    before = LGG(root=root).fingerprint()
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[9, 9] = 255
    path = root / "kaggle_3m" / CASES[0] / f"{CASES[0]}_8_mask.tif"
    Image.fromarray(mask).save(path)
    assert LGG(root=root).fingerprint() != before

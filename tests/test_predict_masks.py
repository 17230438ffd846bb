"""Masks of pictures: geometry, areas, files, what is refused."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import edgekd
from edgekd.bundle import Artifact, Manifest, ModelFacts, close_bundle
from edgekd.cli import main
from edgekd.errors import BundleError, DataError
from edgekd.image import UInt8, resized_shape
from edgekd.mask_answer import COLOURS, MaskFiles, MaskFolder, overlay, own_size
from edgekd.predict import predict
from edgekd.recipe_data import InputSpec
from tests import tiny_bundle
from tests.tiny_onnx import IR, OPSET

SIZE = 16
SEVERAL = ["background", "vessel", "lesion"]


def write_masks(folder: Path, classes: list[str], spec: InputSpec) -> Path:
    """A bundle that calls a pixel of one class by its brightness, of several by its colour.

    One class: above a half. Several: the first where all is dark, else the redder or the greener.
    """
    if len(classes) == 1:
        weight, bias = np.full((1, 3), 20 / 3), [-10.0]
    else:
        weight, bias = np.array([[0, 0, 0], [20, 0, 0], [0, 20, 0]]), [10.0, 0.0, 0.0]
    kernel = weight.astype(np.float32)[:, :, None, None]
    shapes = {"input": ["N", 3, spec.size, spec.size],
              "logits": ["N", len(classes), spec.size, spec.size]}  # fmt: skip
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
              for name, shape in shapes.items()}  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("Conv", ["input", "w", "b"], ["logits"])], "masks",
        [values["input"]], [values["logits"]],
        [numpy_helper.from_array(kernel, "w"),
         numpy_helper.from_array(np.array(bias, dtype=np.float32), "b")],
    )  # fmt: skip
    folder.mkdir(parents=True)
    opset = helper.make_opsetid("", OPSET)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=IR), folder / "m.onnx")
    artifact = Artifact(name="onnx-fp32", file="m.onnx", files=["m.onnx"], runtime="onnxruntime",
                        precision="fp32", gate=tiny_bundle.gate("passed"))  # fmt: skip
    close_bundle(folder, Manifest(
        name="tiny masks", task="segmentation", primary="fscore", classes=classes, input=spec,
        model=ModelFacts(name="student", arch="tiny", params=4, macs=4, role="student"),
        opset=OPSET, artifacts={"onnx-fp32": artifact}, recipe={}, provenance={},
    ))  # fmt: skip
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_masks(tmp_path / "bundle", ["lesion"], InputSpec(size=SIZE))


def lit(height: int, width: int, box: tuple[slice, slice]) -> UInt8:
    """A black picture with a white box."""
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[box] = 255
    return picture


def save(path: Path, picture: UInt8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    return path


def slowly(mask: UInt8, shape: tuple[int, int], spec: InputSpec) -> UInt8:
    """`own_size` pixel by pixel, with fractions of a pixel."""
    tall, wide = resized_shape(shape, spec)
    out = np.zeros(shape, dtype=np.uint8)
    for y in range(shape[0]):
        for x in range(shape[1]):
            down = int((y + 0.5) * tall / shape[0]) - (tall - spec.size) // 2
            right = int((x + 0.5) * wide / shape[1]) - (wide - spec.size) // 2
            if 0 <= down < spec.size and 0 <= right < spec.size:
                out[y, x] = mask[down, right]
    return out


@pytest.mark.parametrize("shape", [(16, 16), (33, 21), (7, 50), (101, 64), (5, 5), (1, 3)])
@pytest.mark.parametrize(
    "spec",
    [
        InputSpec(size=16),
        InputSpec(size=16, fit="shorter"),
        InputSpec(size=15, resize=20, fit="shorter"),
        InputSpec(size=12, resize=17),
    ],
    ids=["stretch", "short side", "crop", "stretch and crop"],
)
def test_the_way_back_is_that_of_every_pixel(shape: tuple[int, int], spec: InputSpec) -> None:
    mask = np.random.default_rng(0).integers(0, 3, (spec.size, spec.size), dtype=np.uint8)
    assert np.array_equal(own_size(mask, shape, spec), slowly(mask, shape, spec))


def test_what_the_network_saw_comes_back_where_it_was(tmp_path: Path) -> None:
    picture = lit(32, 48, (slice(8, 24), slice(20, 40)))
    wanted = picture[:, :, 0] // 255
    stretched = write_masks(tmp_path / "a", ["lesion"], InputSpec(size=64))
    with edgekd.load(stretched) as model:
        found = model.predict(picture)
    assert found.mask is not None
    assert found.mask.dtype == np.uint8
    assert np.abs(found.mask.astype(int) - wanted).mean() < 0.02
    # the crop leaves the columns 8..39
    cropped = write_masks(tmp_path / "b", ["lesion"], InputSpec(size=32, fit="shorter"))
    with edgekd.load(cropped) as model:
        found = model.predict(lit(32, 48, (slice(8, 24), slice(0, 48))))
    assert found.mask is not None
    assert np.array_equal(found.mask.any(axis=0), (np.arange(48) >= 8) & (np.arange(48) < 40))
    assert np.array_equal(found.mask[:, 20], wanted[:, 30])


def test_areas_are_of_the_picture_in_its_own_size(bundle: Path, tmp_path: Path) -> None:
    picture = save(tmp_path / "p.png", lit(32, 64, (slice(0, 16), slice(0, 32))))
    (row,) = predict(bundle, [picture])
    assert (row.label, row.pixels, row.areas) == ("lesion", {"lesion": 512}, {"lesion": 0.25})
    assert row.probability == row.probabilities["lesion"] == pytest.approx(1.0, abs=1e-3)
    assert row.mask is not None
    assert row.mask.shape == (32, 64)
    assert row.mask.sum() == 512
    assert row.latency_ms["total"] == pytest.approx(
        sum(value for name, value in row.latency_ms.items() if name != "total"), abs=1e-3
    )


def test_a_picture_with_nothing_in_it_is_background(bundle: Path, tmp_path: Path) -> None:
    (row,) = predict(bundle, [save(tmp_path / "p.png", np.full((9, 9, 3), 25, dtype=np.uint8))])
    assert (row.label, row.pixels, row.areas) == ("background", {"lesion": 0}, {"lesion": 0.0})
    # how sure it is of background, and how near to a lesion the nearest pixel came
    assert row.probability == pytest.approx(1 - row.probabilities["lesion"], abs=1e-6)
    assert row.probabilities["lesion"] < 0.01


def test_of_several_classes_the_largest_gives_the_label(tmp_path: Path) -> None:
    bundle = write_masks(tmp_path / "b", SEVERAL, InputSpec(size=SIZE))
    picture = np.zeros((16, 16, 3), dtype=np.uint8)
    picture[:4, :, 0] = 255
    picture[8:, :, 1] = 255
    path = save(tmp_path / "p.png", picture)
    (row,) = predict(bundle, [path], masks=tmp_path / "out")
    assert row.label == "lesion"
    assert row.pixels == {"vessel": 64, "lesion": 128}
    assert list(row.probabilities) == SEVERAL
    assert row.mask_file is not None
    written = np.asarray(Image.open(row.mask_file))
    assert np.array_equal(np.unique(written), [0, 1, 2])  # the classes' numbers
    (empty,) = predict(bundle, [save(tmp_path / "dark.png", picture * 0)])
    assert empty.label == "background"


def test_masks_and_overlays_are_written_in_the_pictures_size(bundle: Path, tmp_path: Path) -> None:
    picture = lit(33, 47, (slice(9, 22), slice(11, 30)))
    path = save(tmp_path / "in" / "scan.png", picture)
    before = path.read_bytes()
    (row,) = predict(bundle, [path], masks=tmp_path / "out")
    assert row.mask_file == str(tmp_path / "out" / "scan.mask.png")
    assert row.overlay_file == str(tmp_path / "out" / "scan.overlay.png")
    with Image.open(row.mask_file) as mask, Image.open(row.overlay_file) as shown:
        assert (mask.mode, mask.size, shown.mode, shown.size) == ("L", (47, 33), "RGB", (47, 33))
        values, drawn = np.asarray(mask), np.asarray(shown)
    assert row.mask is not None
    assert np.array_equal(values, row.mask * 255)
    assert np.array_equal(drawn[row.mask == 0], picture[row.mask == 0])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "scan.mask.png", "scan.overlay.png"]  # fmt: skip
    assert path.read_bytes() == before


def test_the_contour_lies_inside_and_the_rest_is_tinted() -> None:
    mask = np.zeros((20, 20), dtype=np.uint8)
    mask[5:15, 5:15] = 1
    mask[0:3, 0:3] = 2
    picture = np.full((20, 20, 3), 100, dtype=np.uint8)
    drawn = overlay(picture, mask)
    edge = mask == 1
    edge[6:14, 6:14] = False
    assert (drawn[edge] == COLOURS[0]).all()
    assert (drawn[6:14, 6:14] == (300 + np.array(COLOURS[0])) // 4).all()
    assert (drawn[0, 0] == COLOURS[1]).all()  # the picture's edge ends a mask too
    assert (drawn[mask == 0] == 100).all()
    assert (picture == 100).all()


def test_equal_names_from_different_folders_get_files_of_their_own(
    bundle: Path, tmp_path: Path
) -> None:
    dark = np.zeros((8, 8, 3), dtype=np.uint8)
    for name in ("a/1.png", "a/1.bmp", "a/deeper/1.png", "a/1-2.png", "b/1.png", "c/1.PNG"):
        save(tmp_path / name, dark)
    inputs = [tmp_path / "a", tmp_path / "b", tmp_path / "c" / "1.PNG"]
    out = tmp_path / "out"
    rows = list(predict(bundle, inputs, masks=out))
    names = [Path(row.mask_file or "").relative_to(out).as_posix() for row in rows]
    # of a: 1-2.png, 1.bmp, 1.png, deeper/1.png
    assert names == ["1-2.mask.png", "1.mask.png", "1-3.mask.png", "deeper/1.mask.png",
                     "1-4.mask.png", "1-5.mask.png"]  # fmt: skip
    assert len(list(out.rglob("*.png"))) == 12


def test_the_last_number_of_a_uid_is_no_ending(tmp_path: Path) -> None:
    folder = MaskFolder(tmp_path / "out", [])
    names = [folder.files(Path(f"x/1.2.840.{n}")).mask.name for n in (5, 6)]
    assert names == ["1.2.840.5.mask.png", "1.2.840.6.mask.png"]


def test_a_given_picture_is_never_written_over(bundle: Path, tmp_path: Path) -> None:
    first = save(tmp_path / "a.png", lit(9, 9, (slice(2, 6), slice(2, 6))))
    second = save(tmp_path / "a.mask.png", lit(9, 9, (slice(0, 3), slice(0, 3))))
    before = second.read_bytes()
    row, _ = predict(bundle, [first, second], masks=tmp_path)
    assert row.mask_file == str(tmp_path / "a-2.mask.png")
    assert second.read_bytes() == before


@pytest.mark.parametrize("name", ["pictures", "pictures/masks"])
def test_masks_do_not_go_where_pictures_are_looked_for(
    bundle: Path, tmp_path: Path, name: str
) -> None:
    save(tmp_path / "pictures" / "a.png", np.zeros((4, 4, 3), dtype=np.uint8))
    with pytest.raises(DataError, match="where pictures are looked for"):
        predict(bundle, [tmp_path / "pictures"], masks=tmp_path / name)


def test_a_file_is_no_folder_for_masks(bundle: Path, tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.zeros((4, 4, 3), dtype=np.uint8))
    with pytest.raises(DataError, match="is a file, expected a folder"):
        predict(bundle, [path], masks=path)


def test_a_classifier_gives_no_masks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    tiny_bundle.write_bundle(tmp_path / "grades")
    path = save(tmp_path / "a.png", np.zeros((4, 4, 3), dtype=np.uint8))
    with pytest.raises(BundleError, match="a model for grading, it gives no masks"):
        predict(tmp_path / "grades", [path], masks=tmp_path / "out")
    assert main(["predict", str(tmp_path / "grades"), str(path), "--masks", "x"]) == 2
    assert "leave --masks out" in capsys.readouterr().err
    (row,) = predict(tmp_path / "grades", [path])
    assert row.mask is None
    assert not {"mask", "areas", "pixels", "mask_file"} & set(row.as_dict())


def test_a_picture_that_goes_meanwhile_does_not_stop_the_others(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.png"):
        save(tmp_path / "in" / name, np.zeros((6, 6, 3), dtype=np.uint8))
    real = MaskFolder.write

    def gone(self: MaskFolder, picture: Path, mask: UInt8, *, binary: bool) -> MaskFiles:
        if picture.name == "a.png":
            save(picture, np.zeros((3, 3, 3), dtype=np.uint8))
        return real(self, picture, mask, binary=binary)

    monkeypatch.setattr(MaskFolder, "write", gone)
    first, second = predict(bundle, [tmp_path / "in"], masks=tmp_path / "out")
    assert first.error is not None
    assert "changed while" in first.error
    assert first.mask is None
    assert second.error is None


def test_what_the_command_prints(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "p.png", lit(32, 64, (slice(0, 16), slice(0, 32))))
    assert main(["predict", str(bundle), str(path)]) == 0
    assert capsys.readouterr().out == f"{path}\tlesion\t1.0000\tlesion 25.00 % (512 px)\n"
    out = tmp_path / "out"
    assert main(["predict", str(bundle), str(path), "--masks", str(out), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["pixels"] == {"lesion": 512}
    assert row["areas"] == {"lesion": 0.25}
    assert row["mask_file"] == str(out / "p.mask.png")
    assert Path(row["overlay_file"]).is_file()
    assert "mask" not in row
    assert "needs" not in row


@pytest.mark.parametrize("batch", [1, 4])
def test_batches_keep_each_pictures_own_size(bundle: Path, tmp_path: Path, batch: int) -> None:
    for number in range(5):
        half = slice(0, 8 * (number + 1))
        save(tmp_path / "in" / f"{number}.png", lit(16 * (number + 1), 32, (half, slice(0, 32))))
    (tmp_path / "in" / "3x.png").write_bytes(b"no picture")
    rows = list(predict(bundle, [tmp_path / "in"], batch=batch))
    whole = [row for row in rows if row.error is None]
    assert [row.mask.shape[0] for row in whole if row.mask is not None] == [16, 32, 48, 64, 80]
    assert [row.areas["lesion"] for row in whole] == [0.5] * 5


def test_a_loaded_model_gives_masks_to_several_threads(bundle: Path) -> None:
    pictures = [lit(20 + n, 31, (slice(0, n + 4), slice(0, 31))) for n in range(12)]
    with edgekd.load(bundle) as model:
        alone = [model.predict(picture).mask for picture in pictures]
        with ThreadPoolExecutor(4) as pool:
            found = [one.mask for one in pool.map(model.predict, pictures)]
    for picture, first, second in zip(pictures, alone, found, strict=True):
        assert first is not None
        assert second is not None
        assert first.shape == picture.shape[:2]
        assert np.array_equal(first, second)

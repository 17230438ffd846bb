"""`edgekd.load`: a bundle in one's own program."""

from __future__ import annotations

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgekd
from edgekd.errors import BundleError, DataError
from edgekd.predict import predict
from tests.tiny_bundle import write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("load") / "bundle"
    write_bundle(folder)
    return folder


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "eye.png")
    return tmp_path / "eye.png"


def test_a_path_bytes_and_an_array_give_what_the_command_gives(bundle: Path, picture: Path) -> None:
    (wanted,) = predict(bundle, [picture])
    with edgekd.load(str(bundle)) as model:
        assert model.classes
        assert model.artifact == wanted.artifact
        array = np.asarray(Image.open(picture))
        for given in (picture, str(picture), picture.read_bytes(), array):
            found = model.predict(given)
            assert (found.label, found.probabilities) == (wanted.label, wanted.probabilities)
            assert found.latency_ms["total"] > 0
        assert model.predict(picture).file == str(picture)
        assert model.predict(array).file == ""


def test_several_threads_get_their_own_answers(bundle: Path) -> None:
    random = np.random.default_rng(1)
    pictures = [random.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(40)]
    with edgekd.load(bundle) as model:
        expected = [model.predict(picture).probabilities for picture in pictures]
        with ThreadPoolExecutor(8) as pool:
            found = [one.probabilities for one in pool.map(model.predict, pictures)]
    assert found == expected


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((4, 4, 3), dtype=np.float32), r"float32 \(4, 4, 3\), expected uint8 RGB"),
        (np.zeros((4, 4), dtype=np.uint8), r"uint8 \(4, 4\), expected uint8 RGB"),
        (np.zeros((0, 4, 3), dtype=np.uint8), "the picture is empty"),
        (b"no picture", "^image: cannot be read as an image: it is none of JPEG, .* and DICOM"),
        (b"", "^the picture is empty: 0 bytes"),
        (None, "is of type NoneType, expected a path, the bytes of a file, or uint8 RGB"),
        (bytearray(b"x"), "is of type bytearray, expected a path"),
        ("nowhere.png", r"nowhere\.png"),
    ],
)
def test_what_is_no_picture_is_refused(bundle: Path, picture: object, message: str) -> None:
    with edgekd.load(bundle) as model, pytest.raises(DataError, match=message):
        model.predict(picture)  # type: ignore[arg-type]


def test_a_closed_model_says_so(bundle: Path, picture: Path) -> None:
    model = edgekd.load(bundle)
    model.close()
    model.close()
    with pytest.raises(BundleError, match="is closed"):
        model.predict(picture)


def test_a_damaged_bundle_is_not_opened(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundle")
    path = next((tmp_path / "bundle").glob("*.onnx"))
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(BundleError, match="bytes, the manifest says"):
        edgekd.load(tmp_path / "bundle")


def test_a_model_file_alone_has_no_classes(bundle: Path) -> None:
    with pytest.raises(BundleError, match="its classes are not known"):
        edgekd.load(next(bundle.glob("*.onnx")))


def test_importing_edgekd_imports_nothing_heavy() -> None:
    code = "import edgekd, sys; print(sorted({'numpy', 'PIL', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_an_encoded_picture_may_come_from_memory(bundle: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (9, 9), "red").save(stream, "JPEG")
    with edgekd.load(bundle) as model:
        assert model.predict(stream.getvalue()).label in model.classes

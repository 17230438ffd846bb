"""Golden pictures: drawn, so that they may travel, with what they became and what the model said.

They let any machine check decoding, resizing and inference against the workstation that exported
the bundle. Real images would be patient data.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from edgekd.errors import BundleError
from edgekd.image import Float32, UInt8, decode, preprocess
from edgekd.recipe_data import InputSpec
from edgekd.rundir import replace_file, write_text
from edgekd.tasks.base import Task

FOLDER = "golden"
# name, width, height: upright, wide, square, tiny and large; what cameras and exports produce
PICTURES = (
    ("wide.png", 320, 240),
    ("tall.png", 180, 300),
    ("square.png", 224, 224),
    ("tiny.png", 33, 21),
    ("grey.png", 200, 150),
    ("deep.png", 120, 160),  # 16-bit grey
    ("photo.jpg", 640, 427),
    ("rotated.jpg", 240, 180),  # stored on its side, with the EXIF note that says so
)
EXIF_ORIENTATION = 0x0112

Model = Callable[[Float32], Float32]  # (N, 3, S, S) -> (N, ...), the shape that the task says


@dataclass(frozen=True)
class Golden:
    """The stored pictures by path, their inputs (N, 3, S, S), the fp32 model's logits (N, ...)."""

    pictures: list[Path]
    inputs: Float32
    outputs: Float32


@dataclass(frozen=True)
class GoldenResult:
    """How far one artifact on one machine is from what is stored.

    `pixels` is the largest difference of a preprocessed pixel in [0, 1]; `logits` the largest
    difference of a logit; `scale` the largest stored logit; `flips` counts pictures of which
    anything is decided otherwise (of a mask: any pixel), `changed` is the share of all decisions.
    """

    images: int
    pixels: float
    logits: float
    scale: float
    flips: int
    changed: float
    is_finite: bool = True

    @property
    def relative(self) -> float:
        """`logits` in parts of `scale`."""
        return self.logits / max(self.scale, 1e-6)


def write_golden(folder: Path, spec: InputSpec, network_outputs: Model) -> Golden:
    """Draw the pictures into `folder` and store what preprocessing and the fp32 model make of them.

    Writes the picture files, `images.json` (their names in order), `inputs.npy` and
    `outputs.npy`. The same pictures, byte for byte, on every call.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for seed, (name, width, height) in enumerate(PICTURES):
        with replace_file(folder / name, "wb") as file:
            file.write(_encode(draw(width, height, seed=seed), name))
        paths.append(folder / name)
    inputs = preprocess_all(paths, spec)
    outputs = np.asarray(network_outputs(inputs), dtype=np.float32)
    for stem, array in (("inputs", inputs), ("outputs", outputs)):
        with replace_file(folder / f"{stem}.npy", "wb") as file:
            np.save(file, array, allow_pickle=False)
    write_text(folder / "images.json", json.dumps([path.name for path in paths], indent=2) + "\n")
    return Golden(paths, inputs, outputs)


def read_golden(folder: Path) -> Golden:
    """Read what `write_golden` wrote. Raises BundleError if it is damaged."""
    try:
        names = json.loads((folder / "images.json").read_text(encoding="utf-8"))
        arrays = [np.load(folder / f"{stem}.npy", allow_pickle=False)
                  for stem in ("inputs", "outputs")]  # fmt: skip
        paths = [folder / Path(name).name for name in names]
    except (OSError, EOFError, ValueError, TypeError) as error:
        raise BundleError(f"{folder}: the golden images cannot be read: {error}") from None
    if not len(paths) == len(arrays[0]) == len(arrays[1]) > 0:
        raise BundleError(f"{folder}: {len(paths)} golden images, {len(arrays[0])} inputs, "
                          f"{len(arrays[1])} outputs")  # fmt: skip
    return Golden(paths, arrays[0].astype(np.float32), arrays[1].astype(np.float32))


def compare(golden: Golden, spec: InputSpec, model: Model, task: Task) -> GoldenResult:
    """Preprocess the pictures here, run `model` on the stored inputs, and measure the distance.

    The model sees the stored inputs, so that a difference of decoding does not count twice. Raises
    BundleError if its logits are of another shape than those stored.
    """
    pixels = float(np.abs(preprocess_all(golden.pictures, spec) - golden.inputs).max())
    found = np.asarray(model(golden.inputs), dtype=np.float32)
    if found.shape != golden.outputs.shape:
        raise BundleError(f"the artifact gives logits {found.shape}, stored are "
                          f"{golden.outputs.shape}")  # fmt: skip
    difference = float(np.abs(found - golden.outputs).max())
    otherwise = task.decided_otherwise(golden.outputs, found)
    return GoldenResult(
        images=len(found),
        pixels=pixels,
        logits=difference,
        scale=float(np.abs(golden.outputs).max()),
        flips=int(np.count_nonzero(otherwise)),
        changed=float(otherwise.mean()),
        is_finite=bool(np.isfinite(found).all()),
    )


def preprocess_all(paths: list[Path], spec: InputSpec) -> Float32:
    """Decode and preprocess picture files to (N, 3, S, S)."""
    return np.stack([preprocess(decode(path), spec) for path in paths])


def draw(width: int, height: int, *, seed: int) -> UInt8:
    """A lesion-like picture (height, width, 3): shaded ground, blobs of several sizes, grain."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    u, v = (x + 0.5) / width, (y + 0.5) / height
    ground = np.array([205.0, 160.0, 135.0]) + generator.uniform(-25, 25, 3)
    slope = generator.uniform(-30, 30, (2, 3))
    picture = ground + u[..., None] * slope[0] + v[..., None] * slope[1]
    for _ in range(5):
        center, radius = generator.uniform(0.2, 0.8, 2), generator.uniform(0.05, 0.3, 2)
        distance = ((u - center[0]) / radius[0]) ** 2 + ((v - center[1]) / radius[1]) ** 2
        inside = np.clip(1.5 - distance, 0.0, 1.0)[..., None]
        color = generator.uniform(20, 150, 3)
        picture = picture * (1 - 0.8 * inside) + color * 0.8 * inside
    picture += generator.normal(0, 4, picture.shape)  # grain: resizing without antialiasing shows
    return np.asarray(picture.round().clip(0, 255), dtype=np.uint8)


def _encode(picture: UInt8, name: str) -> bytes:
    image = Image.fromarray(picture)
    stream = io.BytesIO()
    if name == "grey.png":
        image.convert("L").save(stream, "PNG")
    elif name == "deep.png":
        grey = np.asarray(image.convert("L")).astype(np.uint16)
        Image.fromarray(grey * 257).save(stream, "PNG")
    elif name == "rotated.jpg":
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = 6
        sideways = image.transpose(Image.Transpose.ROTATE_90)
        sideways.save(stream, "JPEG", quality=90, exif=exif)
    elif name.endswith(".jpg"):
        image.save(stream, "JPEG", quality=90)
    else:
        image.save(stream, "PNG")
    return stream.getvalue()

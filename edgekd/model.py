"""`edgekd.load`: a bundle in one's own Python program. Torch-free."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from edgekd.errors import BundleError, DataError
from edgekd.predict import Prediction, classify
from edgekd.runtimes.session import Session, open_session, resolve

Picture = Path | str | bytes | npt.NDArray[np.uint8]


class Model:
    """One artifact of a verified bundle, loaded and ready.

    May be used from several threads: predictions take turns. Not across a fork. Close it, or use
    it as a context manager, to free the runtime's memory.
    """

    def __init__(
        self,
        bundle: Path | str,
        *,
        artifact: str | None = None,
        runtime: str | None = None,
        device: str = "",
        threads: int = 0,
    ) -> None:
        """As `edgekd.load`."""
        target = resolve(Path(bundle))
        if target.manifest is None:
            raise BundleError(f"{bundle} is a model file without a bundle: its classes are not "
                              "known", hint=f"edgekd import {bundle}")  # fmt: skip
        self._lock = threading.Lock()
        self._held = contextlib.ExitStack()
        self._session: Session | None = self._held.enter_context(
            open_session(target, artifact=artifact, runtime=runtime, device=device,
                         threads=threads, batch=1)
        )  # fmt: skip
        self.name = target.manifest.name
        self.classes = tuple(target.manifest.classes)
        self.artifact = self._session.artifact.name
        self.runtime = self._session.runtime_name

    def predict(self, picture: Picture) -> Prediction:
        """Ask about one picture: a path, the bytes of an encoded file, or uint8 RGB (H, W, 3).

        A model of masks also gives `mask`, uint8 (H, W) of the picture, upright by its EXIF
        orientation: 0 is background, 1 the one class, or the classes' own numbers.

        Raises DataError for what is no picture, BundleError after `close`, or if the model gives
        outputs that are not finite; MissingOnHost for DICOM that needs a package.
        """
        with self._lock:
            if self._session is None:
                raise BundleError(f"{self.name}: the model is closed")
            return classify(self._session, _checked(picture))

    def close(self) -> None:
        """Free the runtime; a second call does nothing."""
        with self._lock:
            self._session = None
            self._held.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<edgekd model {self.name}: {self.artifact} in {self.runtime}>"


def _checked(picture: Picture) -> Path | bytes | npt.NDArray[np.uint8]:
    if isinstance(picture, str):
        return Path(picture)
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise DataError(f"the picture is {picture.dtype} {picture.shape}, expected uint8 RGB "
                            "(H, W, 3)")  # fmt: skip
        if 0 in picture.shape:
            raise DataError(f"the picture is empty: {picture.shape}")
    elif not isinstance(picture, Path | bytes):
        raise DataError(f"the picture is of type {type(picture).__name__}, expected a path, the "
                        "bytes of a file, or uint8 RGB (H, W, 3)")  # fmt: skip
    elif picture == b"":
        raise DataError("the picture is empty: 0 bytes, expected those of a file")
    return picture

"""edgekd: distil, quantize, prove and measure small models for edge medical devices."""

from __future__ import annotations

__version__ = "0.1.0"

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd.model import Model


def load(
    bundle: Path | str,
    *,
    artifact: str | None = None,
    runtime: str | None = None,
    device: str = "",
    threads: int = 0,
) -> Model:
    """Open a bundle (or a run that has one) for predictions in one's own program.

        model = edgekd.load("bundle")
        model.predict("eye.png").label

    Every file is verified first. Without a name the artifact is the one that `edgekd bench`
    recommends on this host, else the first that may ship. `device` is the runtime's default if
    empty; with `threads` 0 the runtime chooses. The model may be used from several threads.
    Raises BundleError, and MissingOnHost for a runtime or device that is not here.
    """
    from edgekd.model import Model

    return Model(bundle, artifact=artifact, runtime=runtime, device=device, threads=threads)

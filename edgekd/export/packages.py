"""The packages that make and run a model: versions and licences, of those installed here."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from edgekd import __version__

MAKERS = ("torch", "onnx", "nncf", "openvino", "onnxruntime", "numpy", "pillow")
LONGEST = 80  # some packages put the whole text where its name should be


def versions() -> dict[str, str]:
    """Versions of what took part, of those installed."""
    found = {"edgekd": __version__}
    for name in MAKERS:
        version = version_of(name)
        if version is not None:
            found[name] = version
    return found


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def licences(package: str, version: str | None) -> list[dict[str, Any]]:
    """What the package says of its licence, in CycloneDX's form; [] where it is not known here.

    Another version may have another licence, so only the one that is installed is asked.
    """
    if version is None or version_of(package) != version:
        return []
    facts = importlib.metadata.metadata(package)
    if "License-Expression" in facts:
        return [{"expression": facts["License-Expression"]}]
    classified = [entry.rpartition(" :: ")[2] for entry in facts.get_all("Classifier") or []
                  if entry.startswith("License :: ") and entry.count(" :: ") > 1]  # fmt: skip
    written = facts["License"].strip() if "License" in facts else ""
    if not classified and 0 < len(written) <= LONGEST and "\n" not in written:
        classified = [written]
    return [{"license": {"name": name}} for name in sorted(set(classified))]

"""What the tests of precision passes hand to a pass."""

from __future__ import annotations

import numpy as np

from edgekd.export.given import Given, Validation
from edgekd.recipe import ExportSpec
from edgekd.results import Predictions
from edgekd.tasks.classification import Classification


def given(calibration, *, validation=None, targets=None, task=None, said=None, **export):
    """Training images, and validation images with their targets, as a run would give them.

    What is not given raises, so that a pass which reads more than it needs fails.
    """
    talk = [] if said is None else said

    def validate():
        assert validation is not None, "this pass needs no validation images"
        names = [f"v{index}" for index in range(len(validation))]
        nothing = np.zeros((len(validation), 0), np.float32)
        return Validation(validation, Predictions(names, names, np.asarray(targets), nothing))

    spec = ExportSpec.model_validate(export)
    task = task or Classification(classes=list("abcde"))
    return Given(lambda: calibration, validate, task, spec, talk.append)

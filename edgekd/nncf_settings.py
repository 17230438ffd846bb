"""What every use of NNCF has in common: in the export's passes and in training.

Both must put the same quantizers in the same places, or the network would be trained for another
int8 than the one it is exported in.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from edgekd.plugins import missing_package


def import_nncf(artifact: str) -> Any:
    """The package, its talk sent to stderr. Raises MissingOnHost without it.

    Call it, and NNCF, inside `quiet()`.
    """
    try:
        import nncf
    except ModuleNotFoundError as error:
        raise missing_package(error.name or "nncf", artifact) from None
    for handler in nncf.common.logging.logger.nncf_logger.handlers:
        if type(handler) is logging.StreamHandler:
            handler.stream = sys.stderr  # not the stdout of when NNCF was imported
    return nncf


def preset(nncf: Any) -> Any:
    """Symmetric ranges, so that no zero point is other than 0."""
    return nncf.QuantizationPreset.PERFORMANCE


def advanced(**more: Any) -> Any:
    """NNCF's advanced parameters, each with its reason, and `more` of them."""
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        OverflowFix,
        QuantizationParameters,
    )
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    return AdvancedQuantizationParameters(
        # FIRST_LAYER would halve the first layer's range for CPUs without VNNI
        overflow_fix=OverflowFix.DISABLE,
        # else uint8 per channel before depthwise convolutions, which TensorRT refuses
        activations_quantization_params=QuantizationParameters(per_channel=False),
        # NNCF's default is the mean over images of their extremes, which clips every second image
        # somewhere. One HAM10000 model (ShuffleNetV2 x0.5, 64 px): logits 27 % off (rms) and
        # 5.5-6 % of decisions changed, against 6 % and 3-3.5 % with the true extremes; balanced
        # accuracy lost 3 points against -1 to 1, plain accuracy moved within noise
        activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
        **more,
    )

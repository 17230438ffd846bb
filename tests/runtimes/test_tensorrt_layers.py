"""What an engine computes in, read from what TensorRT's inspector writes.

The layers below are written by hand after the examples in NVIDIA's documentation ("Engine
Inspector") and in its issue tracker (NVIDIA/TensorRT#4020, #2418); no engine of ours made them.
"""

from __future__ import annotations

import json
from collections import Counter

import pytest

from edgekd.errors import BundleError
from edgekd.runtimes._tensorrt_layers import (
    check_precision,
    count_precisions,
    in_words,
    precision_of,
)

INT8 = "Thirty-two wide channel vectorized row major Int8 format."
FP16, FP32 = "Channel major FP16 format where channel % 8 == 0", "Row major linear FP32"


def layer(kind: str, *types: str, name: str = "x", tactic: str = "", parameter: str = "") -> dict:
    return {"Name": name, "LayerType": kind, "ParameterType": parameter, "TacticName": tactic,
            "Inputs": [{"Name": "in", "Format/Datatype": text} for text in types]}  # fmt: skip


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (layer("CaskConvolution", INT8, parameter="Convolution"), "i8"),
        (layer("CaskConvolution", FP16, parameter="Convolution"), "f16"),
        (layer("CaskConvActPool", FP32), "f32"),
        (layer("CaskGemmMatrixMultiply", "Int8", "Int8"), "i8"),
        (layer("MatrixMultiply", FP16, parameter="MatrixMultiply"), "f16"),
        (layer("CaskDeconvolutionV2", FP32, parameter="Deconvolution"), "f32"),
        (layer("gemm", "Half", "Half", name="__myl_Mm"), "f16"),
        (layer("kgen", "BFloat16", name="__myl_ConvRelu"), "bf16"),
        (layer("fusion", "Int8", "Float", name="fc_mm"), "i8"),
        (layer("Convolution", ""), ""),
        # the kernel's name tells more than the tensors do
        (layer("CaskConvolution", FP32, tactic="sm80_xmma_fprop_tf32tf32_tf32f32_f32"), "tf32"),
        (layer("CaskConvolution", FP32, tactic="ampere_scudnn_128x64_relu_small_nn_v1"), "f32"),
        (layer("CaskConvolution", FP32, tactic="sm80_fprop_interleaved_i8i8_i8i32_f32"), "i8"),
        (layer("CaskConvolution", FP32, tactic="ampere_h16816cudnn_256x64"), "f16"),
        (layer("gemm", "Half", tactic="sm80_xmma_gemm_bf16bf16_bf16f32_f32_batch128"), "bf16"),
    ],
)
def test_a_layer_that_multiplies(found, expected):
    assert count_precisions(json.dumps({"Layers": [found]})) == Counter([expected])


@pytest.mark.parametrize(
    "found",
    [
        layer("Reformat", FP32, name="Reformatting CopyNode for Input Tensor 0 to conv1"),
        layer("PointWiseV2", FP16, name="PWN(conv1_relu)"),
        layer("CaskPooling", FP32, tactic="sm50_xmma_pooling_fw_4d_FP32FP32NCHW_Max"),
        layer("Constant", name="conv1.weight"),
        layer("Shuffle", FP32, name="node_Flatten (conv5)"),
        layer("kgen", "Half", name="__myl_MulAdd"),
        layer("NoOp", FP32, name="matmul_squeeze"),
        "conv1 + relu1",  # without detailed verbosity: a bare name tells nothing
    ],
)
def test_what_is_no_arithmetic_is_not_counted(found):
    assert not count_precisions(json.dumps({"Layers": [found], "Bindings": ["input"]}))


@pytest.mark.parametrize("text", ["", "none", "[", "{}", '{"Layers": 3}'])
def test_what_cannot_be_read_is_an_error(text):
    with pytest.raises(BundleError, match="nothing that can be read"):
        count_precisions(text)


def test_control_characters_between_names_are_read():
    text = json.dumps({"Layers": [layer("CaskConvolution", INT8, name="a@b")]}).replace("@", "\x1e")
    assert count_precisions(text) == Counter(["i8"])


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"i8": 2}, "i8"), ({"i8": 2, "f32": 2}, "i8"), ({"i8": 1, "f16": 2}, "f16"),
        ({"f16": 3, "f32": 1}, "f16"), ({"f32": 3, "f16": 1}, "f32"), ({"": 2}, ""), ({}, ""),
        ({"tf32": 4}, "tf32"), ({"i8": 1, "": 3}, ""),
    ],
)  # fmt: skip
def test_what_most_of_it_runs_in(counts, expected):
    assert precision_of(Counter(counts)) == expected


@pytest.mark.parametrize("asked", ["int8", "int8-aware", "mixed", "fp16"])
def test_what_was_asked_for_and_never_happens_is_an_error(asked):
    kind = "f16" if asked == "fp16" else "i8"
    check_precision(Counter({kind: 1, "f32": 9}), asked, "engine")
    with pytest.raises(BundleError, match=f"asked for in {asked}.*in {kind}: 9 in f32"):
        check_precision(Counter({"f32": 9}), asked, "engine")
    with pytest.raises(BundleError, match="the inspector shows none at all"):
        check_precision(Counter(), asked, "engine")


def test_fp32_asks_for_nothing():
    check_precision(Counter({"f32": 3}), "fp32", "engine")


def test_in_words():
    assert in_words(Counter({"i8": 3, "f32": 18, "": 1})) == (
        "18 in f32, 3 in i8, 1 in a precision not told"
    )

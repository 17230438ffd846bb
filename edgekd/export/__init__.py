"""From a checkpoint to a bundle: ONNX, precision passes, lowerings, lint and gates."""

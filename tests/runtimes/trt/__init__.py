"""TensorRT without TensorRT: what its real bindings say, and doubles made from that."""

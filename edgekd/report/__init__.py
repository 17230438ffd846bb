"""Joining measurements, manifests and published figures into one page. Torch-free."""

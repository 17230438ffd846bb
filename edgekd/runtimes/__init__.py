"""Inference runtimes, one file each. Torch-free."""

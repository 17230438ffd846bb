"""Data sources, one file each, and how they are split, checked and read. Torch-free."""

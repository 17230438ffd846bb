"""Tasks: what is asked of an image, and how the answer is scored. Torch-free."""

"""Many runs of one recipe: variants, seeds and searches over local processes. Torch-free."""

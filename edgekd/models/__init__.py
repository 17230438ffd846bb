"""Building networks, naming their feature maps, counting their cost."""

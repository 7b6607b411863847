"""The stages on a GPU: CUDA C sources, and the array code around them that runs on NumPy and CuPy alike."""

"""Programs that measure; run them from the root of the repository as ``python -m bench.<name>``."""

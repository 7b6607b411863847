"""Fused forms of a section of stages, each tied by test to the plain form."""

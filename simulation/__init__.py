"""Physics from a particle to a raw run."""

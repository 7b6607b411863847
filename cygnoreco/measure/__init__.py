"""From clusters to their variables."""

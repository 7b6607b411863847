"""Raw runs in every container, and the files that come out."""

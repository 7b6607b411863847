"""Where the work runs: a Dask client for a named site."""

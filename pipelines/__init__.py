"""The services around the library, and the command line."""

"""``python -m pipelines.cli`` is ``cygnoreco``, for jobs, which do not find the program by its name."""

from pipelines.cli import main

main()

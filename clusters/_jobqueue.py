"""dask-jobqueue, loaded without what it does to the process.

Its ``runner`` takes SIGINT for itself as soon as it is imported, and would leave at Ctrl-C with exit code 0 and without
a word.
"""

from __future__ import annotations

import signal

_HANDLERS = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

from dask_jobqueue.htcondor import HTCondorCluster, HTCondorJob, quote_environment  # noqa: E402

for _number, _handler in _HANDLERS.items():
    if signal.getsignal(_number) is not _handler:
        signal.signal(_number, _handler)

__all__ = ["HTCondorCluster", "HTCondorJob", "quote_environment"]

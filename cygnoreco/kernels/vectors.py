"""What LLVM has to be told so that a plain loop becomes the machine's widest vector instructions."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic


def _wide_vectors(_context: Any) -> Any:
    """Let the loops of the kernel that calls this use vectors of 512 bits where the machine has them.

    LLVM takes 256 bits on these machines, for the sake of code that is only in part vectors; the loops of the image
    section are nothing else and gain. A machine without such vectors ignores it. Results are the same bits.
    """

    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        # llvmlite knows a list of attributes that are single words and refuses others; LLVM takes this one.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate


wide_vectors: Any = intrinsic(_wide_vectors)

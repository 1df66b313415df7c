"""Memory that was freed, given back to the system."""

from __future__ import annotations

import ctypes
import gc


def give_back() -> None:
    """Give back what was freed: glibc keeps it, and behind the reading of a model that is as much as the model has.

    Nothing happens where the C library knows no such thing.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)

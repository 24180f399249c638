"""How the C library of a process that only runs one command keeps memory."""

from __future__ import annotations

import contextlib
import ctypes
import sys

__all__ = ["map_large_arrays"]

_M_MMAP_THRESHOLD = -3
_LARGE = 4 << 20


def map_large_arrays() -> None:
    """Have every array of 4 MiB and more mapped by itself, and given back when it is freed.

    glibc raises that size to 32 MiB when it sees such arrays freed. What is below comes from the heaps of the threads
    then, and stays there in pieces: the peak of a probe grew with the number of layers, by chance. The setting holds
    for the rest of the process, so it is none for a library to make.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)

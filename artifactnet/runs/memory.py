"""Memory between the steps of a training on the CPU."""

from __future__ import annotations

import ctypes
import os
import platform

# of <malloc.h>
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Let the C library keep what tensors free, instead of returning it to the kernel.

    Large tensors are otherwise new pages in every step, and convolutional networks spend up to
    40 % of their time in the page faults. Freed memory stays with the process, which suits steps
    that look alike. Does nothing without glibc, or where an environment variable ``MALLOC_*``
    says what is wanted.

    Returns:
        Whether it applies.
    """
    if platform.libc_ver()[0] != "glibc" or any(key.startswith("MALLOC_") for key in os.environ):
        return False
    library = ctypes.CDLL(None)
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26))
    return all(library.mallopt(name, value) == 1 for name, value in settings)

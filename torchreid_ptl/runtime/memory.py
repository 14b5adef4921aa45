"""The C library's allocator on the CPU."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_MAX_INT = 2**31 - 1
_GLIBC_TRIM_THRESHOLD, _GLIBC_MMAP_MAX = 128 * 1024, 65536


@contextmanager
def freed_memory_kept() -> Iterator[bool]:
    """Lets glibc keep freed memory for the next batch instead of handing it back to the system, for a block.

    By default each large tensor is mapped afresh and its pages are cleared on first touch; on a CPU that costs up to
    half of an evaluation. At the end the defaults return and what is free is handed back, so that several runs in one
    process need no more than the largest of them. Nothing happens with another C library.

    Yields:
        Whether the setting was taken.
    """
    try:
        library = ctypes.CDLL("libc.so.6")
        mallopt, trim = library.mallopt, library.malloc_trim
    except (OSError, AttributeError):
        yield False
        return
    try:
        yield bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _MAX_INT))
    finally:
        mallopt(_M_MMAP_MAX, _GLIBC_MMAP_MAX)
        mallopt(_M_TRIM_THRESHOLD, _GLIBC_TRIM_THRESHOLD)
        trim(0)

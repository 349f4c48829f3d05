"""Memory that would grow for hours where many threads or pictures come and go: what the C library keeps of what was freed, and
what oneDNN keeps of every shape that it has seen."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from typing import Any

log = logging.getLogger("stargan.app")


def _libc() -> Any:
    """glibc, or None where there is another C library."""
    if sys.platform != "linux":
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None


LIBC = _libc()


def bound_memory() -> None:
    """Sets the C library's allocator so that what large photos took goes back to the system, where it is glibc."""
    if LIBC is None:
        log.info("The allocator stays as it is: this is not glibc.")
        return
    arena_max, mmap_threshold, trim_threshold = -8, -3, -1  # malloc.h
    LIBC.mallopt(arena_max, 2)  # else each of many threads keeps what it freed
    # above it, what is freed goes back at once; else it grows with the largest photo, and that lies in a heap between
    # smaller things, as do Pillow's blocks, of just under 16 MB
    LIBC.mallopt(mmap_threshold, 8 << 20)
    LIBC.mallopt(trim_threshold, 64 << 20)


def bound_kernels() -> None:
    """oneDNN, PyTorch's convolutions on a CPU, keeps its code for the last 64 shapes instead of 1024, unless the environment says
    otherwise: the batches in which faces are looked for have a new shape for every photo, and 1024 take some 300 MB.

    To be called before the first convolution.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")


def give_memory_back() -> None:
    """What is free between things that are in use, too; takes milliseconds."""
    if LIBC is not None:
        LIBC.malloc_trim(0)


def is_out_of_memory(error: Exception) -> bool:
    """Also of PyTorch, whose CPU allocator has no error class of its own; it is not imported for this."""
    torch = sys.modules.get("torch")
    of_gpu = torch is not None and isinstance(error, torch.OutOfMemoryError)
    return of_gpu or isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)

"""Memory as a budget: what requests hold of large photos at once, and that it goes back to the system."""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stargan.drawing import Drawn
from stargan.pictures.io import MAX_UNDER_WAY, Budget, pixels_of

log = logging.getLogger("stargan.app")

# Pixels of the photos of all requests that are being answered; a further one waits. Each takes up to 12 bytes: the photo,
# and the copies that it is drawn into and saved from.
ANSWERED = Budget(MAX_UNDER_WAY)


def pixels_in(values: Iterable[Any], folder: Path) -> int:
    """Of the photos that a request names: files in a folder, a camera's picture, what was drawn before."""
    total = 0
    for value in values:
        if isinstance(value, bytes) or (isinstance(value, str) and Path(value).is_relative_to(folder)):
            total += pixels_of(value)
        elif isinstance(value, list | tuple):
            total += pixels_in(value, folder)
        elif isinstance(value, Drawn):
            total += value.prepared.source.pixels
    return total


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


def give_memory_back() -> None:
    """What is free between things that are in use, too; takes milliseconds."""
    if LIBC is not None:
        LIBC.malloc_trim(0)

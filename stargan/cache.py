"""A cache bounded in bytes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from cachetools import LRUCache

T = TypeVar("T")


class ByteCache:
    """Values by key, each with its size; the least recently used ones go when all take more than ``limit`` bytes.

    Args:
        clock: seconds, for :meth:`drop_older`.

    Safe to share between threads: a value that several ask for at once is made by one of them, and the others wait for it.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        # value, bytes, when it was made
        self._values: LRUCache[Hashable, tuple[Any, int, float]] = LRUCache(limit, getsizeof=lambda entry: entry[1])
        self._clock = clock
        self._lock = threading.Lock()
        self._making: dict[Hashable, threading.Lock] = {}

    @property
    def size(self) -> int:
        """Bytes held."""
        return int(self._values.currsize)

    def get(self, key: Hashable, make: Callable[[], T], size: Callable[[T], int]) -> T:
        """The value of a key, made where it is not there; one that alone exceeds the limit is not kept.

        Args:
            size: the bytes that a value takes.
        """
        with self._lock:
            if key in self._values:
                return self._values[key][0]
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if key in self._values:
                    return self._values[key][0]
            try:
                value = make()
                with self._lock:
                    if (taken := size(value)) <= self._values.maxsize:
                        self._values[key] = (value, taken, self._clock())
            finally:
                with self._lock:
                    self._making.pop(key, None)
        return value

    def drop_older(self, seconds: float) -> None:
        """Lets go of what was made longer ago, however often it is used."""
        with self._lock:
            born_before = self._clock() - seconds
            for key in [key for key, (_, _, born) in self._values.items() if born < born_before]:
                del self._values[key]

    def clear(self) -> None:
        with self._lock:
            self._values.clear()

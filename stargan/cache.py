"""A cache bounded in bytes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

from cachetools import Cache, LRUCache

T = TypeVar("T")


@dataclass
class _Entry:
    value: Any
    size: int  # bytes
    made: float
    used: float


class ByteCache:
    """Values by key, each with its size; the least recently used ones go when all take more than ``limit`` bytes.

    Args:
        clock: seconds, for :meth:`drop_older` and :meth:`drop_unused`.

    Safe to share between threads: a value that several ask for at once is made by one of them, and the others wait for it.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._entries: LRUCache[Hashable, _Entry] = LRUCache(limit, getsizeof=lambda entry: entry.size)
        self._clock = clock
        self._lock = threading.Lock()
        self._making: dict[Hashable, threading.Lock] = {}

    @property
    def size(self) -> int:
        """Bytes held."""
        return int(self._entries.currsize)

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._entries

    def get(self, key: Hashable, make: Callable[[], T], size: Callable[[T], int]) -> T:
        """The value of a key, made where it is not there; one that alone exceeds the limit is not kept.

        Args:
            size: the bytes that a value takes.
        """
        with self._lock:
            if key in self._entries:
                return self._used(key)
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if key in self._entries:
                    return self._used(key)
            try:
                value = make()
                with self._lock:
                    if (taken := size(value)) <= self._entries.maxsize:
                        now = self._clock()
                        self._entries[key] = _Entry(value, taken, now, now)
            finally:
                with self._lock:
                    self._making.pop(key, None)
        return value

    def _used(self, key: Hashable) -> Any:
        entry = self._entries[key]
        entry.used = self._clock()
        return entry.value

    def drop_older(self, seconds: float) -> None:
        """Lets go of what was made longer ago, however often it is used."""
        with self._lock:
            made_before = self._clock() - seconds
            for key in [key for key, entry in self._untouched() if entry.made < made_before]:
                del self._entries[key]

    def drop_unused(self, seconds: float, kept: int) -> None:
        """Lets go of what nobody asked for in so long, the longest first, until at most ``kept`` bytes are held."""
        with self._lock:
            used_before = self._clock() - seconds
            for key, entry in sorted(self._untouched(), key=lambda item: item[1].used):
                if self._entries.currsize <= kept or entry.used >= used_before:
                    break
                del self._entries[key]

    def _untouched(self) -> list[tuple[Hashable, _Entry]]:
        """What is held, which being looked through does not make more recently used."""
        return [(key, Cache.__getitem__(self._entries, key)) for key in self._entries]

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()

"""Which work ended the process that did it. A module of its own, as the one process that keeps count needs no torch."""

from __future__ import annotations

from collections.abc import Hashable


class Deaths:
    """What was begun and never ended, as the process that did it ended: one actor for all workers."""

    def __init__(self) -> None:
        self._begun: dict[Hashable, int] = {}

    def begin(self, key: Hashable) -> int:
        """How often it was begun and not ended before."""
        before = self._begun.get(key, 0)
        self._begun[key] = before + 1
        return before

    def end(self, key: Hashable) -> None:
        self._begun.pop(key, None)

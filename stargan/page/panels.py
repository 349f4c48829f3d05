"""What each visitor's page has in a panel of drawings: gradio hands values over as an event found them, and knows no order of
different events that write to the same place."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from cachetools import LRUCache
from gradio.context import LocalContext

from stargan.page.answers import page_of_visitor

Found = TypeVar("Found")
# Panels that are remembered, of the pages that drew last, and requests that may still wait.
MOST = 2_000


@dataclass
class Panel:
    """One of a visitor's page.

    Attributes:
        drawn: the number of the last request whose drawings it has got.
        in_photo, sheet_open: what is looked at; None: not known here, where the page came from another process.
    """

    drawn: int = 0
    in_photo: bool | None = None
    sheet_open: bool | None = None


class Panels:
    """By visitor's page and name. Who calls without a session, as programs may, has none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: LRUCache[tuple[str, str], Panel] = LRUCache(MOST)
        self._numbers = itertools.count(1)
        self._asked: LRUCache[str, int] = LRUCache(MOST)

    def asked(self, event: str) -> None:
        """A request has come, of which gradio thinks by this id: it may have to wait before it is begun."""
        with self._lock:
            self._asked[event] = next(self._numbers)

    def of(self, name: str) -> Panel:
        page = page_of_visitor()
        if page is None:
            return Panel()
        with self._lock:
            return self._known.setdefault((page, name), Panel())

    def newest(self, name: str, draw: Callable[[], Found], otherwise: Found) -> Found:
        """What ``draw`` returns or raises; ``otherwise`` where the panel has got by then what was asked for later: that is not to
        be replaced by what is no longer asked for."""
        panel, event = self.of(name), LocalContext.event_id.get(None)
        with self._lock:
            own = self._asked.get(event or "") or next(self._numbers)
        try:
            found = draw()
        except Exception:
            if own > panel.drawn:
                raise
            return otherwise
        with self._lock:
            if own < panel.drawn:
                return otherwise
            panel.drawn = own
        return found


PANELS = Panels()

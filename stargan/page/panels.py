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
        drawn: the number of the last request whose drawings it has got; of a photo, that has begun.
        changed: the number that came next when it got something.
        in_photo, sheet_open: what is looked at; None: not known here, where the page came from another process.
    """

    drawn: int = 0
    changed: int = 0
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
        panel, own = self.of(name), self._number()
        try:
            found = draw()
        except Exception:
            if own > panel.drawn:
                raise
            return otherwise
        with self._lock:
            if own < panel.drawn:
                return otherwise
            panel.drawn, panel.changed = own, next(self._numbers)
        return found

    def of_what_is_there(self, name: str, make: Callable[[], Found], otherwise: Found) -> Found:
        """What ``make`` makes of what is in the panel; ``otherwise`` where that has become something else since it was asked for."""
        panel, own = self.of(name), self._number()
        found = make() if own > panel.changed else otherwise
        return found if own > panel.changed else otherwise

    def replaced(self, name: str, make: Callable[[], Found], otherwise: Found, again: Found) -> Found:
        """What ``make`` puts in the place of what the page itself has put there, or ``otherwise``, which leaves that; nothing but
        that where something else was put there since. ``again``: the same as the page's, where what was asked for before has come
        in its place meanwhile."""
        panel, own = self.of(name), self._number()
        with self._lock:
            panel.drawn = max(panel.drawn, own)
        found = make()
        with self._lock:
            if panel.drawn > own:
                return otherwise
            late = panel.changed > own
            if found != otherwise:
                panel.changed = next(self._numbers)
        return again if late and found == otherwise else found

    def overtake(self, name: str) -> None:
        """Something else was put there: what was asked for before is not to be."""
        panel = self.of(name)
        with self._lock:
            panel.drawn = next(self._numbers)

    def _number(self) -> int:
        """Of this request, as it came."""
        with self._lock:
            return self._asked.get(LocalContext.event_id.get(None) or "") or next(self._numbers)


PANELS = Panels()

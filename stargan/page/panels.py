"""What each visitor's page has under way in a panel of drawings: gradio hands values over as an event found them, and knows no
order of different events that write to the same place."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from cachetools import LRUCache
from gradio.context import LocalContext

Found = TypeVar("Found")
# Panels that are remembered: of the pages that drew last.
MOST = 2_000


@dataclass
class Panel:
    """One of a visitor's page.

    Attributes:
        begun: how many drawings.
        in_photo, sheet_open: what is looked at; None: not known here, where the page came from another process.
    """

    begun: int = 0
    in_photo: bool | None = None
    sheet_open: bool | None = None


class Panels:
    """By visitor's page and name. Who calls without a session, as programs may, has none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: LRUCache[tuple[str, str], Panel] = LRUCache(MOST)

    def of(self, name: str) -> Panel:
        page = getattr(LocalContext.request.get(None), "session_hash", None)
        if page is None:
            return Panel()
        with self._lock:
            return self._known.setdefault((page, name), Panel())

    def newest(self, name: str, draw: Callable[[], Found], otherwise: Found) -> Found:
        """What ``draw`` returns or raises; ``otherwise`` where another drawing of the panel was begun meanwhile: what is no longer
        asked for must not take the place of what is."""
        panel = self.of(name)
        with self._lock:
            panel.begun += 1
            own = panel.begun
        try:
            found = draw()
        except Exception:
            if panel.begun == own:
                raise
            return otherwise
        return found if panel.begun == own else otherwise


PANELS = Panels()

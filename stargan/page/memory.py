"""Memory as a budget: what requests hold of large photos at once, and sessions of drawings."""

from __future__ import annotations

import os
from collections.abc import Iterable, MutableMapping
from pathlib import Path
from typing import Any

from gradio.state_holder import StateHolder
from PIL import Image

from stargan.drawing import Drawn, bytes_of
from stargan.pictures.io import MAX_UNDER_WAY, Budget, pixels_of

# Pixels of the photos of all requests that are being answered; a further one waits. Each takes up to 12 bytes: the photo,
# and the copies that it is drawn into and saved from.
ANSWERED = Budget(MAX_UNDER_WAY)
# Bytes of the drawings, and the faces beside them, that all sessions hold.
HELD = 300_000_000


def pixels_in(values: Iterable[Any], folder: Path) -> int:
    """Of the photos that a request names: files in a folder, each once, a camera's picture, what was drawn before."""
    total, files = 0, set()
    waiting = [*values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list | tuple):
            waiting += value
        elif isinstance(value, bytes):
            total += pixels_of(value)
        elif isinstance(value, Drawn):
            total += value.prepared.source.pixels
        elif isinstance(value, str) and Path(path := os.path.abspath(value)).is_relative_to(folder):
            files.add(path)
    return total + sum(map(pixels_of, files))


def drop_oldest(sessions: StateHolder, most: int = HELD) -> None:
    """The sessions that were used longest ago give up what they hold of pictures, until all of them together hold ``most`` bytes.
    Who comes back to one draws anew."""
    held = {name: _bytes_in(session.state_data.values()) for name, session in list(sessions.session_data.items())}
    total = sum(held.values())
    for name, size in held.items():  # the last used one comes last
        if total <= most:
            return
        if size:
            _drop_pictures(sessions.session_data[name].state_data)
            total -= size


def drop_gone(sessions: StateHolder) -> None:
    """Sessions give up drawings, and the faces beside them, of photos that were deleted: those have had their time."""
    for session in list(sessions.session_data.values()):
        state = session.state_data
        if any(isinstance(value, Drawn) and value.prepared.source.gone for value in list(state.values())):
            _drop_pictures(state)


def _drop_pictures(state: MutableMapping[Any, Any]) -> None:
    for key, value in list(state.items()):
        if _bytes_in((value,)):
            state[key] = () if isinstance(value, tuple) else None  # not deleted: somebody may be going through them


def _bytes_in(values: Iterable[Any]) -> int:
    total = 0
    for value in values:
        if isinstance(value, Image.Image):
            total += bytes_of(value)
        elif isinstance(value, Drawn):
            total += _bytes_in(value.pictures) + _bytes_in(value.prepared.crops)
        elif isinstance(value, tuple):
            total += _bytes_in(value)
    return total

"""Memory as a budget: what requests hold of large photos at once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stargan.drawing import Drawn
from stargan.pictures.io import MAX_UNDER_WAY, Budget, pixels_of

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

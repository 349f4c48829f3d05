"""Faces drawn as anime, with StarGAN v2.

from stargan import load_translator

translator = load_translator()
drawings = translator.latent("photo.jpg", domain="anime", count=10, seed=0, psi=0.7)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stargan.drawing import Translator, load_translator
    from stargan.pictures.io import open_photo

__version__ = "0.1.0"
__all__ = ["Translator", "load_translator", "open_photo"]

_PLACES = {"Translator": "drawing", "load_translator": "drawing", "open_photo": "pictures.io"}


def __getattr__(name: str) -> object:
    # torch takes seconds to import: `import stargan` alone does not
    if name in _PLACES:
        return getattr(import_module(f"stargan.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

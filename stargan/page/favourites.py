"""Kept styles: what the visitor's browser holds of them, and what can be done with them.

The browser alone keeps them, as JSON: what comes from there is judged as any other request is.
"""

from __future__ import annotations

import base64
import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
import torch
from PIL import Image

from stargan import drawing
from stargan.drawing import Drawn, Styles
from stargan.errors import RequestError
from stargan.models.config import ModelConfig, ModelError
from stargan.page.answers import answering, say
from stargan.page.events import AS_IT_WAS, Aside, Chosen, Kept, beside, caption, new_seed, saved
from stargan.page.models import checked, config_of
from stargan.pictures.io import open_photo, pixels_of
from stargan.pictures.provenance import save_picture

MAX_KEPT = 12
# Where the browser keeps them. Gradio packs what it stores with a key that it sends to every page: this one guards nothing,
# and must stay the same, so that a restarted app and a second one read what the first has stored.
STORAGE_KEY, STORAGE_SECRET = "stargan-favourites", "stargan-favourites-1"
# Side of a thumbnail, px, and the most that one takes as a data URL, in characters.
THUMBNAIL, MAX_THUMBNAIL = 128, 30_000
DATA_URL = "data:image/webp;base64,"
# Of styles that networks put out, no number is nearly as large.
LARGEST = 1000.0
# What a style may say of itself: see stargan.drawing.
KINDS = ("seed", "reference", "blend", "near", "between")
ABOUT = ("psi", "reference", "strength", "weights", "of", "distance", "towards", "between", "from", "to")
MAX_ABOUT = MAX_NAME = 200
_ENTRY = ("model", "domain", "vector", "caption", "about", "thumbnail")
# JavaScript: brings what a favourite drew into view.
LOOK_UP = "() => document.querySelector('#diversity-view').scrollIntoView({block: 'nearest'})"
# How far "more like this" goes from a style, and how many it draws.
NEARBY, MANY = 0.3, 8


@dataclass(frozen=True, eq=False)
class Favourite:
    """A kept style.

    Attributes:
        model: on the menu. What it calls itself is no key: snapshots of one run have one name.
        style: one.
        thumbnail: a drawing in it, 128 × 128 px, as a WebP's bytes.
    """

    model: str
    style: Styles
    thumbnail: bytes

    @classmethod
    def of(cls, drawn: Drawn, chosen: int, model: str) -> Favourite:
        """The style of one drawing."""
        style, picture = drawn.style(chosen), io.BytesIO()
        small = drawn.pictures[chosen].resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        save_picture(small, picture, style.provenance(0), "WEBP")
        return cls(model, style, picture.getvalue())

    def picture(self) -> str:
        """The thumbnail as a file to show; its path."""
        return saved(open_photo(self.thumbnail), "favourite.png", self.style.provenance(0))

    def same(self, other: Favourite) -> bool:
        a, b = self.style, other.style
        return (self.model, a.domain) == (other.model, b.domain) and torch.equal(a.vectors, b.vectors)

    def stored(self) -> dict[str, Any]:
        """As the browser keeps it."""
        return {
            "model": self.model,
            "domain": self.style.domain,
            "vector": base64.b64encode(self.style.vectors[0].numpy().astype("<f4").tobytes()).decode(),
            "caption": list(self.style.captions[0]),
            "about": self.style.about[0],
            "thumbnail": DATA_URL + base64.b64encode(self.thumbnail).decode(),
        }

    @classmethod
    def read(cls, entry: Any) -> Favourite:
        """What :meth:`stored` made, or anything else that somebody says it made.

        Raises:
            ValueError: it is something else, or of a model that is not on the menu; also as UserError.
        """
        model, domain, vector, caption, about, thumbnail = _parts(entry)
        config = config_of(model)
        if domain not in config.domains:
            raise ValueError("of something else")
        return cls(model, Styles(_vector(vector, config), config.name, domain, (caption,), (about,)), thumbnail)


def _parts(entry: Any) -> tuple[str, str, str, tuple[str, int], dict[str, str], bytes]:
    """What an entry says, judged but for what its model has to say to it.

    Raises:
        ValueError: it is no favourite.
    """
    match entry:
        case {
            "model": str(model), "domain": str(domain), "vector": str(vector), "caption": [str(kind), value],
            "about": dict(about), "thumbnail": str(thumbnail),
        }:  # fmt: skip
            pass
        case _:
            raise ValueError("no favourite")
    if not model or kind not in KINDS or max(len(model), len(domain)) > MAX_NAME or len(vector) > MAX_THUMBNAIL:
        raise ValueError("of something else")
    if not all(name in ABOUT and _plain(text) for name, text in about.items()):
        raise ValueError("a story")
    caption = (kind, drawing.whole("seed", value, 0, drawing.MAX_SEED))
    return model, domain, vector, caption, dict(about), _thumbnail(thumbnail)


def of_absent_models(stored: Any) -> list[Any]:
    """Entries whose model is not on the menu, or cannot be had now: the browser goes on keeping them."""
    found = []
    for entry in (stored if isinstance(stored, list) else [])[:MAX_KEPT]:
        with contextlib.suppress(ValueError):
            model, *_ = _parts(entry)
            try:
                config_of(model)
            except (RequestError, ModelError):
                found.append({name: entry[name] for name in _ENTRY})
    return found


def _plain(text: Any) -> bool:
    return isinstance(text, str) and len(text) <= MAX_ABOUT and text.isprintable()


def _vector(text: str, config: ModelConfig) -> torch.Tensor:
    """``(1, style_dim)`` float32."""
    wanted = 4 * config.architecture.style_dim
    if len(text) > 2 * wanted + 4:
        raise ValueError("too long a vector")
    data = base64.b64decode(text, validate=True)
    if len(data) != wanted:
        raise ValueError("a vector of another length")
    values = np.frombuffer(data, "<f4").astype(np.float32)
    if not np.isfinite(values).all() or np.abs(values).max() > LARGEST:
        raise ValueError("not a style's numbers")
    return torch.from_numpy(values)[None]


def _thumbnail(url: str) -> bytes:
    if len(url) > MAX_THUMBNAIL or not url.startswith(DATA_URL):
        raise ValueError("no thumbnail")
    data = base64.b64decode(url.removeprefix(DATA_URL), validate=True)
    if data[8:12] != b"WEBP":
        raise ValueError("a thumbnail of another kind")
    if pixels_of(data) != THUMBNAIL**2 or open_photo(data).size != (THUMBNAIL, THUMBNAIL):
        raise ValueError("a thumbnail of another size")
    return data


def read_all(stored: Any) -> tuple[list[Favourite], int]:
    """What can be used of what a browser stored, and how many entries cannot."""
    entries = stored if isinstance(stored, list) else [] if stored is None else [stored]
    found = []
    for entry in entries[:MAX_KEPT]:
        with contextlib.suppress(ValueError):
            found.append(Favourite.read(entry))
    return found, len(entries) - len(found)


class Tray(NamedTuple):
    """What is shown of the favourites: what the browser stores, their pictures, which is picked, whether there are any."""

    stored: Any
    pictures: gr.Gallery
    picked: int
    panel: gr.Accordion


# Which favourite is highlighted, in the place of the number that the page last heard of: what a click on one draws may be refused,
# or take its time.
HIGHLIGHTED = """(stored, picked, ...others) => {
    const tiles = [...document.querySelectorAll("#tray .thumbnail-item")];
    const at = tiles.findIndex((tile) => tile.classList.contains("selected"));
    return [stored, at < 0 ? picked : at, ...others];
}"""


def tray(found: Sequence[Favourite], picked: int, stored: Any = None) -> Tray:
    """What is shown of ``found``, and kept beside what ``stored`` has of models that are not here now."""
    shown = [(favourite.picture(), caption(favourite.style, 0)) for favourite in found]
    picked = min(max(picked, 0), max(len(found) - 1, 0))
    gallery = gr.Gallery(shown, selected_index=picked if found else None)
    absent = of_absent_models(stored)
    panel = gr.Accordion(visible=bool(found or absent))  # where all can be removed
    return Tray([*(f.stored() for f in found), *absent], gallery, picked, panel)


def one_of(found: Sequence[Favourite], picked: Any) -> int:
    """The number of a favourite, from 0.

    Raises:
        stargan.errors.RequestError: there is none of that number.
    """
    if isinstance(picked, bool) or not isinstance(picked, int | float) or not math.isfinite(picked):
        raise RequestError("no_favourite")
    if picked != int(picked) or not 0 <= picked < len(found):
        raise RequestError("no_favourite")
    return int(picked)


@answering
def arrive(stored: Any) -> Tray:
    """The page was opened → the favourites of an earlier visit; what cannot be shown of them is left out, and that said."""
    found, dropped = read_all(stored)
    if dropped:
        gr.Info(say("favourites_dropped", count=dropped))
    shown = tray(found, 0, stored)
    return shown if dropped else shown._replace(stored=gr.skip())


def _drew(drawn: Drawn, aside: Aside | None, model: Any) -> str:
    """The model on the menu that drew what is shown.

    Raises:
        RequestError: another one was chosen there since, which could not draw.
    """
    name = aside.model if aside else checked(model)
    if config_of(name).name != drawn.styles.model:
        raise RequestError("drawn_by_another", model=drawn.styles.model)
    return name


@answering
def keep(stored: Any, model: Any, drawn: Drawn | None, aside: Aside | None, chosen: int) -> Tray:
    """→ the favourites with the style of the chosen drawing, which is picked."""
    if drawn is None:
        raise RequestError("nothing_chosen")
    found, new = read_all(stored)[0], Favourite.of(drawn, chosen, _drew(drawn, aside, model))
    for number, favourite in enumerate(found):
        if favourite.same(new):
            gr.Info(say("kept_already"))
            return tray(found, number, stored)
    if len(found) + len(of_absent_models(stored)) >= MAX_KEPT:
        raise RequestError("many_kept", limit=MAX_KEPT)
    return tray([*found, new], len(found), stored)


@answering
def remove(stored: Any, picked: Any) -> Tray:
    """→ the favourites without the picked one."""
    found = read_all(stored)[0]
    number = one_of(found, picked)
    return tray(found[:number] + found[number + 1 :], number, stored)


@answering
def remove_all() -> Tray:
    return tray([], 0)


@answering
def as_slot(stored: Any, picked: Any) -> tuple[Kept, str]:
    """→ the picked favourite's style, its picture."""
    found = read_all(stored)[0]
    favourite = found[one_of(found, picked)]
    return Kept(favourite.style, favourite.model), favourite.picture()


@answering
def use(event: Chosen, stored: Any, aside: Aside | None, chosen: int, *shown: Any) -> tuple[Any, ...]:
    """A favourite was clicked → its number; results: the photo in its style."""
    return _used(stored, event.index, aside, chosen, shown)


@answering
def use_picked(stored: Any, picked: Any, aside: Aside | None, chosen: int, *shown: Any) -> tuple[Any, ...]:
    """As :func:`use`, of the picked one: a click on it tells of no choice when the photo is another."""
    return _used(stored, picked, aside, chosen, shown)


def _used(stored: Any, which: Any, aside: Aside | None, chosen: int, shown: tuple[Any, ...]) -> tuple[Any, ...]:
    found = read_all(stored)[0]
    number = one_of(found, which)
    new = Aside(found[number].style, found[number].model, aside.chosen if aside else chosen)
    drawn = beside("diversity", new, *shown)
    return gr.skip() if drawn is AS_IT_WAS else number, *drawn


@answering
def more_like(panel: str, model: Any, drawn: Drawn | None, aside: Aside | None, chosen: int, *shown: Any) -> tuple:
    """→ results in styles like that of the chosen drawing."""
    if drawn is None:
        raise RequestError("nothing_chosen")
    recipe = drawing.near(drawn.style(chosen), NEARBY, MANY, new_seed())
    new = Aside(recipe, _drew(drawn, aside, model), aside.chosen if aside else chosen)
    return beside(panel, new, *shown)

"""What a browser says that it has kept, and may have made up."""

from __future__ import annotations

import base64
import copy
import io
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stargan import drawing
from stargan.drawing import Drawn, Source, load_translator
from stargan.errors import RequestError
from stargan.page import events, favourites, models
from stargan.page.answers import Refusal
from stargan.page.favourites import DATA_URL, MAX_KEPT, Favourite, read_all


@pytest.fixture(scope="module")
def drawn(portrait: Image.Image) -> Drawn:
    translator = load_translator()
    prepared = drawing.prepare(Source.open(portrait), translator.config)
    return drawing.draw(prepared, drawing.seeds(translator.config, "anime", 3, 5, 0.7), translator.paint)


@pytest.fixture
def entry(drawn: Drawn) -> dict[str, Any]:
    """As it comes back from the browser."""
    return json.loads(json.dumps(Favourite.of(drawn, 1, "anime-128").stored()))


def test_a_kept_style_comes_back_whole(drawn: Drawn, entry: dict[str, Any]) -> None:
    (favourite,), dropped = read_all([entry])
    assert dropped == 0
    assert torch.equal(favourite.style.vectors, drawn.styles.vectors[1:2])
    assert favourite.style.provenance(0).texts() == drawn.styles.provenance(1).texts()
    assert favourite.stored() == entry  # the thumbnail is not encoded once more
    assert len(json.dumps([entry] * MAX_KEPT)) < 150_000  # a browser keeps 5 MB of a site


def test_what_another_model_drew_is_not_kept_as_of_this_one(drawn: Drawn) -> None:
    """As where the one that was chosen last could not be had."""
    other = replace(drawn, styles=replace(drawn.styles, model="another"))
    with pytest.raises(Refusal, match="by the model another"):
        favourites.keep([], "anime-128", other, None, 0)
    assert favourites.keep([], "anime-128", drawn, None, 0)


def _vector(values: Any) -> str:
    return base64.b64encode(np.asarray(values, "<f4").tobytes()).decode()


def _thumbnail(size: tuple[int, int], kind: str = "WEBP") -> str:
    out = io.BytesIO()
    Image.new("RGB", size).save(out, kind)
    return DATA_URL + base64.b64encode(out.getvalue()).decode()


WRONG: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another model": lambda e: e | {"model": "anime-9000"},
    "a folder as its model": lambda e: e | {"model": "/etc"},
    "another domain": lambda e: e | {"domain": "horse"},
    "no domain": lambda e: {key: value for key, value in e.items() if key != "domain"},
    "a short vector": lambda e: e | {"vector": _vector([0.0] * 63)},
    "a long vector": lambda e: e | {"vector": _vector([0.0] * 100_000)},
    "NaN": lambda e: e | {"vector": _vector([math.nan] * 64)},
    "infinity": lambda e: e | {"vector": _vector([math.inf] * 64)},
    "a huge number": lambda e: e | {"vector": _vector([1e30] * 64)},
    "no base64": lambda e: e | {"vector": "%" * 344},
    "numbers": lambda e: e | {"vector": [0.0] * 64},
    "another caption": lambda e: e | {"caption": ["unexpected", 1]},
    "a caption's text": lambda e: e | {"caption": ["seed", "<b>"]},
    "a caption of three": lambda e: e | {"caption": ["seed", 1, 2]},
    "a negative seed": lambda e: e | {"caption": ["seed", -1]},
    "an unknown fact": lambda e: e | {"about": {"Software": "another"}},
    "a long fact": lambda e: e | {"about": {"psi": "x" * 5000}},
    "a fact with a line break": lambda e: e | {"about": {"psi": "0.7\nSoftware: x"}},
    "a number as a fact": lambda e: e | {"about": {"psi": 0.7}},
    "a large thumbnail": lambda e: e | {"thumbnail": _thumbnail((129, 128))},
    "a huge thumbnail": lambda e: e | {"thumbnail": _thumbnail((9000, 9000))},
    "a thumbnail of another kind": lambda e: e | {"thumbnail": _thumbnail((128, 128), "GIF")},
    "a thumbnail from elsewhere": lambda e: e | {"thumbnail": "https://example.org/x.webp"},
    "a broken thumbnail": lambda e: e | {"thumbnail": e["thumbnail"][:400]},
    "a long thumbnail": lambda e: e | {"thumbnail": DATA_URL + "A" * 100_000},
    "text": lambda _: "x",
    "nothing": lambda _: None,
    "a list": lambda e: [e],
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_favourite_is_dropped_and_the_others_stay(entry: dict[str, Any], wrong: str) -> None:
    found, dropped = read_all([entry, WRONG[wrong](copy.deepcopy(entry)), entry])
    assert (len(found), dropped) == (2, 1)


def test_what_is_of_a_model_that_is_not_here_stays_in_the_browser(entry: dict[str, Any]) -> None:
    """As after a start without it, or while the Hub is down: it is not shown, but whatever is done leaves it."""
    absent = entry | {"model": "anime-9000", "vector": _vector([0.0] * 8)}
    broken = absent | {"thumbnail": "https://example.org/x.webp"}
    stored = [absent | {"more": "x" * 10**6}, entry, broken]
    shown = favourites.arrive(stored)
    assert shown.stored == [entry, absent]
    assert len(shown.pictures.value) == 1
    assert favourites.remove(shown.stored, 0).stored == [absent]
    assert favourites.remove_all().stored == []


def test_models_that_call_themselves_the_same_are_kept_apart(
    drawn: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As snapshots of one run do, which their folders tell apart."""
    folder = tmp_path / "snapshot"
    shutil.copytree(Path(__file__).parents[1] / "weights" / "anime-128", folder)
    monkeypatch.setenv("STARGAN_MODELS", str(folder))
    models.menu.cache_clear()
    try:
        here, there = (Favourite.of(drawn, 1, model) for model in ("anime-128", str(folder)))
        assert not here.same(there)
        (read,), dropped = read_all([there.stored()])
        assert (read.model, read.style.model, dropped) == (str(folder), "anime-128", 0)
        kept, _ = favourites.as_slot([there.stored()], 0)
        assert events.kept_style("A", kept, str(folder)).model == "anime-128"
        with pytest.raises(RequestError, match="Style A belongs to the model"):
            events.kept_style("A", kept, "anime-128")
    finally:
        models.menu.cache_clear()


def test_where_only_absent_ones_are_kept_all_can_be_removed(entry: dict[str, Any]) -> None:
    assert favourites.arrive([entry | {"model": "anime-9000"}]).panel.visible
    assert not favourites.arrive([]).panel.visible


@pytest.mark.parametrize("stored", ["x", 7, {}, True, {"model": "anime-128"}])
def test_what_is_no_list_is_dropped(stored: Any) -> None:
    assert read_all(stored) == ([], 1)


def test_more_than_there_is_room_for_are_dropped(entry: dict[str, Any]) -> None:
    found, dropped = read_all([entry] * 1000)
    assert (len(found), dropped) == (MAX_KEPT, 1000 - MAX_KEPT)

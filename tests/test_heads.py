"""Drawn heads in photos: what changes around the drawing, and what does not."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from stargan import drawing
from stargan.drawing import Prepared, Source, load_translator
from stargan.pictures import faces, heads

# In crop sides from the crop's upper left corner: hair above the crop.
HAIR = [(0.5, -0.12), (0.35, -0.1), (0.65, -0.08)]
# The wall at both sides, above the head; the collar and the suit.
REST = [(-0.55, 0.1), (1.55, 0.1), (0.5, -0.62), (0.1, 1.4), (0.9, 1.4)]


@pytest.fixture(scope="module")
def prepared(portrait: Image.Image) -> Prepared:
    return drawing.prepare(Source.open(portrait), load_translator().config)


def place(prepared: Prepared, point: tuple[float, float]) -> tuple[int, int]:
    """Where in the photo a point of the crop lies."""
    (aligned,) = prepared.aligned
    inverse = np.linalg.inv(np.vstack([aligned.matrix, [0, 0, 1]]))
    x, y, _ = inverse @ [point[0] * aligned.picture.width, point[1] * aligned.picture.width, 1]
    return round(x), round(y)


def colours(picture: Image.Image, prepared: Prepared, points: list[tuple[float, float]]) -> np.ndarray:
    """The mean colour around each point: ``(N, 3)``."""
    boxes = [(x - 3, y - 3, x + 4, y + 4) for x, y in (place(prepared, point) for point in points)]
    return np.array([np.asarray(picture.crop(box), float).mean(axis=(0, 1)) for box in boxes])


def hue(values: np.ndarray) -> np.ndarray:
    """Without how bright they are."""
    return values - values.mean(axis=1, keepdims=True)


@pytest.mark.parametrize("hair", [(190, 40, 60), (60, 40, 120), (230, 190, 230)])
def test_hair_around_the_drawing_takes_its_colour_and_nothing_else_does(
    prepared: Prepared, portrait: Image.Image, hair: tuple[int, int, int]
) -> None:
    (aligned,) = prepared.aligned
    drawn = Image.new("RGB", (64, 64), hair)
    pasted = heads.paste_head(portrait, aligned, drawn)
    alone = faces.paste_back(portrait, aligned, drawn)  # the hair outside of the crop stays as it was
    before, after = (np.abs(hue(colours(p, prepared, HAIR)) - hue(np.array([hair]))).mean() for p in (alone, pasted))
    assert after < 0.5 * before
    np.testing.assert_allclose(colours(pasted, prepared, REST), colours(portrait, prepared, REST), atol=4)
    x, y = place(prepared, (0.5, 0.5))
    reach = 1.15 / np.hypot(*aligned.matrix[0, :2]) * aligned.picture.width
    rows, columns = np.mgrid[:512, :512]
    far = np.hypot(columns - x, rows - y) > 1.42 * reach
    np.testing.assert_array_equal(np.asarray(pasted)[far], np.asarray(portrait)[far])


def test_where_the_hair_is_does_not_depend_on_the_drawing(prepared: Prepared, portrait: Image.Image) -> None:
    """So it is found once for a photo, however many drawings are looked at in it."""
    (aligned,) = prepared.aligned
    hair = heads.find_hair(portrait, aligned)
    for colour in ("red", "navy"):
        drawn = Image.new("RGB", (64, 64), colour)
        known, found = heads.paste_head(portrait, aligned, drawn, hair), heads.paste_head(portrait, aligned, drawn)
        np.testing.assert_array_equal(np.asarray(known), np.asarray(found))


def test_light_and_shade_of_the_hair_stay(prepared: Prepared, portrait: Image.Image) -> None:
    """Single hairs are seen as before: it is a colour, no paint."""
    (aligned,) = prepared.aligned
    x, y = place(prepared, (0.5, -0.12))
    box = (x - 12, y - 6, x + 12, y + 6)
    pasted = heads.paste_head(portrait, aligned, Image.new("RGB", (64, 64), (120, 60, 90)))
    before, after = (np.asarray(picture.crop(box).convert("L"), float).ravel() for picture in (portrait, pasted))
    assert np.corrcoef(before, after)[0, 1] > 0.95


def test_around_what_is_no_face_nothing_changes(portrait: Image.Image) -> None:
    square = faces.crop(portrait, (100, 0, 300, 200), 64)
    drawn = Image.new("RGB", (64, 64), "red")
    pasted, alone = (function(portrait, square, drawn) for function in (heads.paste_head, faces.paste_back))
    np.testing.assert_array_equal(np.asarray(pasted), np.asarray(alone))


def test_a_head_that_fills_the_photo_has_no_background_to_tell_it_from(portrait: Image.Image) -> None:
    config = load_translator().config
    face = faces.find(portrait)[0]
    left, top, right, bottom = (round(v) for v in face.box)
    close = portrait.crop((left, top, right, bottom)).resize((512, 512))
    scale = np.array([512 / (right - left), 512 / (bottom - top)])
    aligned = faces.align(close, (face.landmarks - [left, top]) * scale, config.framing, 64)
    pasted = heads.paste_head(close, aligned, Image.new("RGB", (64, 64), (190, 40, 60)))
    assert pasted.size == close.size


def test_a_photo_of_twelve_megapixels_takes_little_memory(prepared: Prepared) -> None:
    photo = Image.new("RGB", (4000, 3000), (200, 180, 170))
    tracemalloc.start()  # counts NumPy's arrays
    try:
        pasted = heads.paste_head(photo, prepared.aligned[0].scaled(6), Image.new("RGB", (64, 64), "navy"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert pasted.size == photo.size
    assert peak < 200e6

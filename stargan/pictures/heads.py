"""A drawn head in a photo: the drawing shows the face and some of the hair, and the rest of the hair takes its colour.

Hair is told from what is behind it by colour alone, around a face whose place is known. Where hair and background have one
colour, some of the background is coloured too; beyond a head's reach, nothing is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from stargan.pictures import faces
from stargan.pictures.faces import Aligned

# How far around the crop hair is looked for, in crop sides; at how many px at most, and at how many what is smooth.
REACH, MAX_SIDE, COARSE = 0.65, 384, 96
# Where in a crop there is hair, in photos and in drawings: the middle of its upper edge.
HAIR = (0.25, 0.0, 0.75, 0.1)
# The middle and half the width and height of what a head can take up, in crop sides, and where its shoulders begin.
HEAD, SHOULDERS = (0.5, 0.36, 0.86), (0.7, 1.05)
# Colours that stand for hair, and for what is behind it; levels of each channel that are told apart.
HAIR_COLOURS, OTHER_COLOURS, LEVELS = 4, 8, 17
# How far a colour may be from the hair's, in levels: beyond, it is something else even if nothing else is like it.
TOLERANCE = 28.0


@dataclass(frozen=True, eq=False)
class Hair:
    """Where in a photo hair is, around a face.

    Attributes:
        mask: square, "L": how surely each px is hair.
        matrix: ``(2, 3)`` float64, photo px → px of the mask.
    """

    mask: Image.Image
    matrix: np.ndarray


def find_hair(photo: Image.Image, aligned: Aligned) -> Hair:
    """The hair around the face that ``aligned`` is of."""
    size, whole = aligned.picture.width, 1 + 2 * REACH
    side = int(np.clip(whole * aligned.side, COARSE, MAX_SIDE))
    matrix = aligned.matrix * (side / whole / size)
    matrix[:, 2] += REACH * side / whole
    around = faces.warp(photo, matrix, side).picture
    return Hair(_hair(around, aligned.picture, _inside(photo.size, matrix, side)), matrix)


def paste_head(photo: Image.Image, aligned: Aligned, drawn: Image.Image, hair: Hair | None = None) -> Image.Image:
    """As :func:`stargan.pictures.faces.paste_back`, and the hair around the drawing has the drawing's colour.

    Args:
        aligned: of a face; where it is of something else, nothing around it changes.
        hair: of :func:`find_hair`, where that is known.
    """
    if not aligned.face:
        return faces.paste_back(photo, aligned, drawn)
    coloured = photo.convert("RGB")  # a copy, whatever it was
    hair = hair or find_hair(photo, aligned)
    # the colour moves to that of the drawn hair; light and shade stay
    move = np.median(_strip(drawn), axis=0) - np.median(_strip(aligned.picture), axis=0)
    table = np.clip(np.arange(256) + move[:, None], 0, 255).round().astype(int).ravel().tolist()
    faces.put(coloured, lambda there: there.point(table), hair.mask, hair.matrix)
    # its seam bends to the hair as it is now
    return faces.paste_back(coloured, faces.warp(coloured, aligned.matrix, aligned.picture.width), drawn)


def _strip(crop: Image.Image) -> np.ndarray:
    """The colours of the hair at a crop's upper edge: ``(N, 3)`` float32 in [0, 255]."""
    small = np.asarray(crop.convert("RGB").resize((64, 64), Image.Resampling.BOX), np.float32)
    left, top, right, bottom = (round(64 * part) for part in HAIR)
    return small[top:bottom, left:right].reshape(-1, 3)


def _hair(around: Image.Image, crop: Image.Image, inside: np.ndarray) -> Image.Image:
    """How surely each px around a face is hair: a mask.

    Args:
        around: the crop and REACH of its side around it.
        inside: ``(COARSE, COARSE)`` bool: what is of the photo, and not its reflection.
    """
    x, y = np.meshgrid(*[(np.arange(COARSE) + 0.5) / COARSE * (1 + 2 * REACH) - REACH] * 2)
    middle_x, middle_y, reach = HEAD
    radius = (np.abs((x - middle_x) / reach) ** 2.5 + np.abs((y - middle_y) / reach) ** 2.5) ** 0.4
    head = _smooth((1 - radius) / 0.3) * _smooth((SHOULDERS[1] - y) / (SHOULDERS[1] - SHOULDERS[0]))
    small = np.asarray(around.resize((COARSE, COARSE), Image.Resampling.BOX), np.float32)
    behind = small[inside & (head == 0) & (y < SHOULDERS[0])]
    sure = around.filter(_likeness(_strip(crop), behind)).getchannel(0)
    place = Image.fromarray((255 * head).astype(np.uint8)).resize(around.size, Image.Resampling.BICUBIC)
    return ImageChops.multiply(sure, place).filter(ImageFilter.BoxBlur(max(1.0, around.width / 300)))


def _likeness(hair: np.ndarray, behind: np.ndarray) -> ImageFilter.Color3DLUT:
    """What takes each colour to a grey: how surely it is hair, whose colours are ``(N, 3)``, and not what is behind it."""
    levels = np.linspace(0, 255, LEVELS, dtype=np.float32)
    blue, green, red = np.meshgrid(levels, levels, levels, indexing="ij")  # red changes fastest
    colours = np.stack([red, green, blue], axis=-1).reshape(-1, 3)
    to_hair = _distance(colours, _typical(hair, HAIR_COLOURS))
    sure = np.exp(-0.5 * (to_hair / TOLERANCE) ** 2)
    if len(behind) >= COARSE:  # else the head fills the photo
        to_other = _distance(colours, _typical(behind, OTHER_COLOURS))
        sure *= _smooth(to_other / (to_other + to_hair + 1e-3) * 2 - 0.6)
    return ImageFilter.Color3DLUT(LEVELS, np.repeat(sure, 3).tolist())


def _typical(colours: np.ndarray, count: int) -> np.ndarray:
    """So many colours that stand for all, from dark to bright: ``(N, 3)`` → ``(count, 3)``."""
    order = np.argsort(colours.mean(axis=1))
    return np.stack([np.median(colours[part], axis=0) for part in np.array_split(order, count)])


def _distance(colours: np.ndarray, to: np.ndarray) -> np.ndarray:
    """To the nearest of some colours; how bright they are says less than of which hue: ``(N,)``."""
    weights = np.array([0.299, 0.587, 0.114], np.float32)

    def parted(values: np.ndarray) -> np.ndarray:
        bright = (values @ weights)[..., None]
        return np.concatenate([0.55 * bright, 1.2 * (values - bright)], axis=-1)

    here = parted(colours)
    return np.sqrt(np.min([((here - there) ** 2).sum(axis=-1) for there in parted(to)], axis=0))


def _inside(size: tuple[int, int], matrix: np.ndarray, side: int) -> np.ndarray:
    """Which parts of a crop lie in the photo: ``(COARSE, COARSE)`` bool."""
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    x, y = np.meshgrid(*[(np.arange(COARSE) + 0.5) * side / COARSE] * 2)
    columns, rows = (a * x + b * y + c for a, b, c in inverse)
    return (columns >= 0) & (columns < size[0]) & (rows >= 0) & (rows < size[1])


def _smooth(ramp: np.ndarray) -> np.ndarray:
    t = np.clip(ramp, 0, 1)
    return t * t * (3 - 2 * t)

"""Faces in photos: found, brought into a model's framing, and put back.

Points are ``(x, y)`` in px, where ``(0, 0)`` is the upper left corner of the upper left pixel. A matrix is ``(2, 3)`` float64 and
takes photo px to crop px.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

# Faces are looked for at this size at most: a bigger photo costs time and shows the detector no more.
DETECTION_SIZE = 1024
# Below 20 px of the shorter side, MTCNN has no level to look at and fails.
SMALLEST_SIDE = 20
SCORE = 0.9
# Width of the seam around a face that is put back, in fractions of the crop's side.
FEATHER = 0.15

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Face:
    """A face in a photo.

    Attributes:
        box: left, top, right, bottom, in px.
        landmarks: ``(5, 2)`` float64: left eye, right eye, nose, left and right mouth corner, as seen in the picture.
        score: the detector's confidence, in [0, 1].
    """

    box: Box
    landmarks: np.ndarray
    score: float


@dataclass(frozen=True)
class Aligned:
    """A square crop of a photo, and where it came from.

    Attributes:
        picture: the crop, RGB.
        matrix: ``(2, 3)`` float64, photo px → crop px.
    """

    picture: Image.Image
    matrix: np.ndarray


@lru_cache(maxsize=1)
def _detector() -> tuple[object, threading.Lock]:
    from facenet_pytorch import MTCNN  # brings torchvision: seconds that `import stargan.faces` should not cost

    return MTCNN(keep_all=True, device="cpu"), threading.Lock()


def find(photo: Image.Image) -> list[Face]:
    """The faces of a photo, biggest first; an empty list where there are none."""
    small = photo.convert("RGB")
    small.thumbnail((DETECTION_SIZE, DETECTION_SIZE), Image.Resampling.BILINEAR)
    if min(small.size) < SMALLEST_SIDE:
        return []
    detector, lock = _detector()
    with lock, torch.inference_mode():
        boxes, scores, landmarks = detector.detect(small, landmarks=True)
    if boxes is None:
        return []
    scale = np.array(photo.size, dtype=np.float64) / small.size
    found = [
        Face(
            tuple(float(v) for v in np.asarray(box, float) * [*scale, *scale]),
            np.asarray(points, float) * scale,
            float(score),
        )
        for box, score, points in zip(boxes, scores, landmarks, strict=True)
        if score is not None and score >= SCORE
    ]
    return sorted(found, key=lambda face: (face.box[2] - face.box[0]) * (face.box[3] - face.box[1]), reverse=True)


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rotation, scale and shift that takes points ``source`` closest to ``target``, both ``(N, 2)``: a matrix.

    Least squares without mirroring (Umeyama 1991), which in two dimensions is one complex division.
    """
    a, b = (points[:, 0] + 1j * points[:, 1] for points in (np.asarray(source, float), np.asarray(target, float)))
    centred = a - a.mean()
    turn = np.vdot(centred, b - b.mean()) / np.vdot(centred, centred).real
    shift = b.mean() - turn * a.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def align(photo: Image.Image, landmarks: np.ndarray, framing: Sequence[Sequence[float]], size: int) -> Aligned:
    """The crop in which the landmarks ``(5, 2)`` lie as near to ``framing`` (fractions of the side) as a similarity brings them.

    What lies outside of the photo is its reflection.
    """
    return _warp(photo, similarity(landmarks, np.asarray(framing) * size), size)


def crop(photo: Image.Image, box: Box, size: int) -> Aligned:
    """The square of ``box``'s width at its upper left corner, scaled to ``size``; it may reach over the photo's edge."""
    left, top, right, _ = box
    scale = size / max(right - left, 1e-3)
    return _warp(photo, np.array([[scale, 0, -left * scale], [0, scale, -top * scale]], dtype=np.float64), size)


def centre_crop(photo: Image.Image, size: int) -> Aligned:
    """The biggest square in the middle of the photo, scaled to ``size``."""
    side = min(photo.size)
    left, top = (photo.width - side) / 2, (photo.height - side) / 2
    return crop(photo, (left, top, left + side, top + side), size)


def propose_crop(picture: Image.Image) -> Box:
    """A square where a drawing without a detectable face probably shows it: all of a square picture, the upper part of a tall one."""
    side = min(picture.size)
    left = (picture.width - side) / 2
    # faces are near the top of standing figures
    top = (picture.height - side) * 0.15
    return left, top, left + side, top + side


def _warp(photo: Image.Image, matrix: np.ndarray, size: int) -> Aligned:
    """The photo seen through ``matrix``, ``size`` × ``size``, without aliasing, reflected beyond its edges."""
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    corners = inverse @ np.array([[0, size, 0, size], [0, 0, size, size], [1, 1, 1, 1]])
    left, top = np.floor(corners[:2].min(axis=1)).astype(int) - 2
    right, bottom = np.ceil(corners[:2].max(axis=1)).astype(int) + 2
    step = math.hypot(inverse[0, 0], inverse[1, 0])  # photo px a crop px
    reduction = max(1, int(step / 4))
    region = _reflected(photo, left, top, right, bottom).reduce(reduction)
    # drawn at about the photo's own resolution, then reduced by Lanczos: a direct warp would skip pixels
    oversampling = min(max(1, math.ceil(step / reduction)), 8)
    to_region = inverse[:2] / reduction
    to_region[:, :2] /= oversampling
    to_region[:, 2] -= np.array([left, top]) / reduction
    drawn = region.transform(
        (size * oversampling,) * 2, Image.Transform.AFFINE, tuple(to_region.ravel()), Image.Resampling.BICUBIC
    )
    return Aligned(drawn if oversampling == 1 else drawn.resize((size, size), Image.Resampling.LANCZOS), matrix)


def _reflected(photo: Image.Image, left: int, top: int, right: int, bottom: int) -> Image.Image:
    """A region of the photo, mirrored where it reaches over the edges."""
    columns, rows = (_mirrored(a, b, n) for a, b, n in ((left, right, photo.width), (top, bottom, photo.height)))
    near = photo.crop((int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)).convert("RGB")
    return Image.fromarray(np.asarray(near)[np.ix_(rows - rows.min(), columns - columns.min())])


def _mirrored(start: int, stop: int, length: int) -> np.ndarray:
    """Indices ``start … stop - 1`` folded back into ``0 … length - 1``."""
    folded = np.arange(start, stop) % (2 * length)
    return np.where(folded < length, folded, 2 * length - 1 - folded)


def paste_back(photo: Image.Image, aligned: Aligned, drawn: Image.Image, feather: float = FEATHER) -> Image.Image:
    """The photo with ``drawn`` in the place that ``aligned`` was taken from, at its size and angle.

    The seam is feathered, and the drawing's colours bend to the photo's towards its border.

    Args:
        drawn: any square size; a drawing of ``aligned.picture``.
        feather: width of the seam in fractions of the crop's side.
    """
    size = aligned.picture.width
    inverse = np.linalg.inv(np.vstack([aligned.matrix, [0, 0, 1]]))
    corners = (inverse @ np.array([[0, size, 0, size], [0, 0, size, size], [1, 1, 1, 1]]))[:2]
    left, top = np.maximum(np.floor(corners.min(axis=1)).astype(int), 0)
    right, bottom = np.minimum(np.ceil(corners.max(axis=1)).astype(int), photo.size)
    if right <= left or bottom <= top:
        return photo.copy()
    # Lanczos to about the photo's resolution first: a bicubic warp alone enlarges in visible steps
    step = math.hypot(inverse[0, 0], inverse[1, 0])
    side = round(size * min(max(step, 1), 16))
    large = drawn.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    mask = _seam(side, feather)
    source = aligned.picture.resize((side, side), Image.Resampling.BICUBIC)
    matched = Image.fromarray(_matched(np.asarray(large, np.float32), np.asarray(source, np.float32), mask))
    to_crop = aligned.matrix * (side / size)
    to_crop[:, 2] += to_crop[:, :2] @ np.array([left, top], dtype=float)
    region = ((int(right - left), int(bottom - top)), Image.Transform.AFFINE, tuple(to_crop.ravel()))
    pasted = photo.convert("RGB")
    pasted.paste(
        matched.transform(*region, Image.Resampling.BICUBIC),
        (int(left), int(top)),
        Image.fromarray((mask * 255).round().astype(np.uint8)).transform(*region, Image.Resampling.BILINEAR),
    )
    return pasted


def _seam(side: int, feather: float) -> np.ndarray:
    """``(side, side)`` in [0, 1]: 1 inside, falling smoothly to 0 at the border of a square with round corners."""
    distance = np.abs((np.arange(side) + 0.5) / side * 2 - 1)
    # the fourth power rounds the corners, where a drawing's background would show most
    radius = (distance[:, None] ** 4 + distance[None, :] ** 4) ** 0.25
    t = np.clip((1 - radius) / (2 * feather), 0, 1)
    return t * t * (3 - 2 * t)


def _matched(drawn: np.ndarray, source: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """``drawn`` with the coarse colours of ``source`` along the border, its own in the middle: ``(S, S, 3)`` uint8."""
    difference = torch.from_numpy(source - drawn).permute(2, 0, 1)[None]
    border = torch.from_numpy(1 - mask).float()[None, None]
    cells = 6
    coarse = F.adaptive_avg_pool2d(difference * border, cells) / F.adaptive_avg_pool2d(border, cells).clamp(min=1e-3)
    smooth = F.interpolate(coarse, size=drawn.shape[:2], mode="bicubic", align_corners=False)
    moved = torch.from_numpy(drawn) + (smooth * border)[0].permute(1, 2, 0)
    return moved.clamp(0, 255).round().byte().numpy()

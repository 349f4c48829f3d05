"""Faces in photos: found, brought into a model's framing, and put back.

Points are ``(x, y)`` in px, where ``(0, 0)`` is the upper left corner of the upper left pixel. A matrix is ``(2, 3)``
float64 and takes photo px to crop px.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

from stargan.stages import stage

if TYPE_CHECKING:
    from facenet_pytorch import MTCNN

# Faces are looked for at this size at most: a bigger photo costs time and shows the detector no more.
DETECTION_SIZE = 1024
# Below 20 px of the shorter side, MTCNN has no level to look at and fails.
SMALLEST_SIDE = 20
SCORE = 0.9
# Width of the seam around a face that is put back, in fractions of the crop's side.
FEATHER = 0.15
# Colours are matched at this side at most: the face of a 12-megapixel portrait would cost seconds and a gigabyte.
MATCHED_SIDE = 1024
# How far from the photo's origin a crop may reach, in multiples of its longer side: what lies farther is a mistake.
FARTHEST = 8

# Pixels that the detector looks at in one batch. On a CPU, more than these drop out of its caches: eight pictures of 192 px
# took 0.75 of the time together, of 512 px 1.1, of 1024 px 1.15.
BATCH_PIXELS = {"cpu": 300_000, "cuda": 16_000_000}

Box = tuple[float, float, float, float]

# What the detector sees of a face: the corners of its box ``(2, 2)``, its landmarks ``(5, 2)``, both in px, and its score.
Seen = tuple[np.ndarray, np.ndarray, float]


@dataclass(frozen=True, eq=False)
class Face:
    """A face in a photo.

    Attributes:
        box: left, top, right, bottom, in px, within the photo.
        landmarks: ``(5, 2)`` float64, read-only: left eye, right eye, nose, left and right mouth corner, as seen in the
            picture.
        score: the detector's confidence, in [0, 1].
    """

    box: Box
    landmarks: np.ndarray
    score: float


@dataclass(frozen=True, eq=False)
class Aligned:
    """A square crop of a photo, and where it came from.

    Attributes:
        picture: the crop, RGB.
        matrix: ``(2, 3)`` float64, photo px → crop px.
        face: whether a face is in it, at the place where a model wants one.
    """

    picture: Image.Image
    matrix: np.ndarray
    face: bool = False

    def scaled(self, factor: float) -> Aligned:
        """The same crop, of the photo scaled by ``factor``."""
        return replace(self, matrix=np.concatenate([self.matrix[:, :2] / factor, self.matrix[:, 2:]], axis=1))

    @property
    def side(self) -> float:
        """Of the crop in the photo, px."""
        return self.picture.width / math.hypot(self.matrix[0, 0], self.matrix[1, 0])


# One search at a time: two would only fight for the same cores, and at first load the detector twice.
_lock = threading.Lock()
# Whether a GPU that is there is used.
_takes_gpu = True


def search_on(device: torch.device) -> None:
    """Has faces looked for on the CPU, where ``device`` is no CUDA one; without this, it is the current CUDA device, if any."""
    global _takes_gpu
    with _lock:
        _takes_gpu = device.type == "cuda"
        _detector.cache_clear()


@lru_cache(maxsize=1)
def _detector() -> MTCNN:
    from facenet_pytorch import (
        MTCNN,  # brings torchvision: seconds that `import stargan.pictures.faces` should not cost
    )

    # a ZeroGPU Space lends its GPU to a model's function alone
    on_gpu = _takes_gpu and torch.cuda.is_available() and "SPACES_ZERO_GPU" not in os.environ
    return MTCNN(keep_all=True, device="cuda" if on_gpu else "cpu")


def find(photo: Image.Image) -> list[Face]:
    """The faces of a photo, biggest first; an empty list where there are none."""
    return find_all([photo])[0]


def find_all(photos: Sequence[Image.Image]) -> list[list[Face]]:
    """The faces of each photo, as by :func:`find`; photos of one size are looked at together, where that is faster."""
    small = [_reduced(photo) for photo in photos]
    looked_at = [index for index, picture in enumerate(small) if min(picture.size) >= SMALLEST_SIDE]
    found: dict[int, list[Seen]] = {}
    with _lock, stage("detect"):
        found.update(zip(looked_at, _detect([small[index] for index in looked_at]), strict=True))
        # MTCNN stretches what it sees of a face that the edge cuts, and misses the landmarks by up to half a face. With a
        # gray frame around the photo, no face is cut. Only where needed: it costs as much again.
        doubtful = [
            index
            for index in looked_at
            if not found[index] or any(_near_edge(corners, small[index].size) for corners, *_ in found[index])
        ]
        frames = [min(small[index].size) // 4 for index in doubtful]
        framed = _detect(
            [
                ImageOps.expand(small[index], frame, (127, 127, 127))
                for index, frame in zip(doubtful, frames, strict=True)
            ]
        )
        for index, frame, seen in zip(doubtful, frames, framed, strict=True):
            found[index] = [(corners - frame, points - frame, score) for corners, points, score in seen]
    return [
        _faces(found.get(index, []), photo.size, picture.size)
        for index, (photo, picture) in enumerate(zip(photos, small, strict=True))
    ]


def _reduced(photo: Image.Image) -> Image.Image:
    small = photo.convert("RGB")
    small.thumbnail((DETECTION_SIZE, DETECTION_SIZE), Image.Resampling.BILINEAR, reducing_gap=1.0)
    return small


def _faces(found: Sequence[Seen], size: tuple[int, int], looked_at: tuple[int, int]) -> list[Face]:
    scale = np.array(size) / looked_at
    faces = [_face(corners * scale, points * scale, score, size) for corners, points, score in found]
    return sorted(faces, key=lambda face: (face.box[2] - face.box[0]) * (face.box[3] - face.box[1]), reverse=True)


def _detect(pictures: Sequence[Image.Image]) -> list[list[Seen]]:
    """What is seen in each picture, in batches of one size."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for index, picture in enumerate(pictures):
        by_size.setdefault(picture.size, []).append(index)
    found: dict[int, list[Seen]] = {}
    for (width, height), indices in by_size.items():
        limit = BATCH_PIXELS["cuda" if _detector().device == "cuda" else "cpu"]
        count = max(1, limit // (width * height))
        for first in range(0, len(indices), count):
            batch = indices[first : first + count]
            found.update(zip(batch, _detect_batch([pictures[index] for index in batch]), strict=True))
    return [found[index] for index in range(len(pictures))]


def _detect_batch(pictures: Sequence[Image.Image]) -> list[list[Seen]]:
    """Of pictures of one size."""
    with torch.inference_mode():
        batch = zip(*_detector().detect(list(pictures), landmarks=True), strict=True)
    return [
        [
            (np.asarray(box, float).reshape(2, 2), np.asarray(points, float), float(score))
            for box, score, points in zip(boxes, scores, landmarks, strict=True)  # arrays of Python objects
            if score >= SCORE
        ]
        if boxes is not None
        else []
        for boxes, scores, landmarks in batch
    ]


def _near_edge(corners: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether a box reaches the edge, as a square with some margin: the detector looks at that much of a face."""
    middle, reach = corners.mean(axis=0), 0.6 * (corners[1] - corners[0]).max()
    return bool((middle < reach).any() or (middle > np.array(size) - reach).any())


def _face(corners: np.ndarray, landmarks: np.ndarray, score: float, photo_size: tuple[int, int]) -> Face:
    landmarks.flags.writeable = False
    left, top, right, bottom = np.clip(corners, 0, photo_size).ravel().tolist()
    return Face((left, top, right, bottom), landmarks, score)


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rotation, scale and shift that takes points ``source`` closest to ``target``, both ``(N, 2)``: a matrix.

    Least squares without mirroring (Umeyama 1991), which in two dimensions is one complex division.

    Raises:
        ValueError: no similarity does: all points of one set are the same, or one is not finite.
    """
    a, b = (points[:, 0] + 1j * points[:, 1] for points in (np.asarray(source, float), np.asarray(target, float)))
    centred = a - a.mean()
    spread = np.vdot(centred, centred).real
    turn = np.vdot(centred, b - b.mean()) / spread if spread > 0 else 0j
    if not np.isfinite(turn) or abs(turn) < 1e-9:
        raise ValueError(f"These points are no face: {np.asarray(source).tolist()}.")
    shift = b.mean() - turn * a.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def align(photo: Image.Image, landmarks: np.ndarray, framing: Sequence[Sequence[float]], size: int) -> Aligned:
    """The crop whose landmarks ``(5, 2)`` lie as near to ``framing``, in fractions of its side, as a similarity can.

    What lies outside of the photo is its reflection.

    Raises:
        ValueError: the landmarks are no face's: all at one place, not finite, or far outside of the photo.
    """
    return replace(warp(photo, similarity(landmarks, np.asarray(framing) * size), size), face=True)


def crop(photo: Image.Image, box: Box, size: int) -> Aligned:
    """The square of ``box``'s width at its upper left corner, scaled to ``size``; it may reach over the photo's edge.

    Raises:
        ValueError: the box is empty, or far larger than the photo.
    """
    left, top, right, _ = box
    if not right - left > 0:
        raise ValueError(f"A box must be wider than 0 px, unlike {tuple(box)}.")
    scale = size / (right - left)
    return warp(photo, np.array([[scale, 0, -left * scale], [0, scale, -top * scale]], dtype=np.float64), size)


def centre_crop(photo: Image.Image, size: int) -> Aligned:
    """The biggest square in the middle of the photo, scaled to ``size``."""
    side = min(photo.size)
    left, top = (photo.width - side) / 2, (photo.height - side) / 2
    return crop(photo, (left, top, left + side, top + side), size)


def resized(photo: Image.Image, aligned: Aligned, size: int) -> Image.Image:
    """What ``aligned`` shows of the photo, ``size`` × ``size`` px."""
    return warp(photo, aligned.matrix * (size / aligned.picture.width), size).picture


def propose_crop(picture: Image.Image) -> Box:
    """Where a drawing probably shows its face: all of a square picture, the upper part of a tall one."""
    side = min(picture.size)
    left = (picture.width - side) / 2
    # faces are near the top of standing figures
    top = (picture.height - side) * 0.15
    return left, top, left + side, top + side


def warp(photo: Image.Image, matrix: np.ndarray, size: int) -> Aligned:
    """The photo seen through ``matrix``, ``size`` × ``size``, without aliasing, reflected beyond its edges."""
    inverse, corners = _place(matrix, size)
    if np.abs(corners).max() > FARTHEST * max(photo.size):
        raise ValueError(f"A crop may not reach {np.abs(corners).max():.0f} px from a photo of {max(photo.size)} px.")
    step = math.hypot(inverse[0, 0], inverse[1, 0])  # photo px a crop px
    reduction = min(max(1, int(step / 4)), *photo.size)
    # two px more on each side, for the bicubic kernel
    region, origin = _region(photo, corners.min(axis=0) - 2 * reduction, corners.max(axis=0) + 2 * reduction, reduction)
    # drawn at about the photo's own resolution, then reduced by Lanczos: a direct warp would skip pixels
    oversampling = min(max(1, math.ceil(step / reduction)), 8)
    to_region = inverse[:2] / reduction
    to_region[:, :2] /= oversampling
    to_region[:, 2] -= origin / reduction
    drawn = region.transform(
        (size * oversampling,) * 2, Image.Transform.AFFINE, tuple(to_region.ravel()), Image.Resampling.BICUBIC
    )
    return Aligned(drawn if oversampling == 1 else drawn.resize((size, size), Image.Resampling.LANCZOS), matrix)


def _place(matrix: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of a matrix, ``(3, 3)``, and where it puts the crop's corners in the photo, ``(4, 2)``."""
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    return inverse, np.array([[0, 0, 1], [size, 0, 1], [size, size, 1], [0, size, 1]]) @ inverse[:2].T


def _region(photo: Image.Image, low: np.ndarray, high: np.ndarray, reduction: int) -> tuple[Image.Image, np.ndarray]:
    """The photo from ``low`` to ``high``, 1 / ``reduction`` as large, mirrored where that reaches over the edges.

    Returns:
        It, and where in the photo its upper left corner lies.
    """
    low, high, size = np.floor(low).astype(int), np.ceil(high).astype(int), np.array(photo.size)
    inside = (low >= 0) & (high <= size)
    start, stop = np.where(inside, low, 0), np.where(inside, high, size)  # a mirrored part may come from anywhere
    near = photo.reduce(reduction, (*start.tolist(), *stop.tolist())).convert("RGB")
    if inside.all():
        return near, start
    first, last = (low - start) // reduction, -((start - high) // reduction)
    columns, rows = (_mirrored(a, b, n) for a, b, n in zip(first, last, near.size, strict=True))
    return Image.fromarray(np.asarray(near)[np.ix_(rows, columns)]), start + first * reduction


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
    pasted = photo.convert("RGB")
    # Lanczos to about the photo's resolution first: a bicubic warp alone enlarges in visible steps, or skips pixels
    side = round(np.clip(aligned.side, size / 4, MATCHED_SIDE))
    large = drawn.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    mask = _seam(side, feather)
    source = aligned.picture.resize((side, side), Image.Resampling.BICUBIC)
    matched = Image.fromarray(_matched(np.asarray(large, np.float32), np.asarray(source, np.float32), mask))
    shade = Image.fromarray((mask * 255).round().astype(np.uint8))
    put(pasted, matched, shade, aligned.matrix * (side / size))
    return pasted


def put(
    photo: Image.Image,
    what: Image.Image | Callable[[Image.Image], Image.Image],
    mask: Image.Image,
    matrix: np.ndarray,
) -> None:
    """Changes the photo where ``mask`` lies, as far as it says.

    Args:
        what: a picture as large as the mask; or what makes, of that part of the photo, what is to be there.
        mask: square, "L".
        matrix: takes photo px to px of the mask.
    """
    _, corners = _place(matrix, mask.width)
    left, top = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0).tolist()
    right, bottom = np.minimum(np.ceil(corners.max(axis=0)).astype(int), photo.size).tolist()
    if right <= left or bottom <= top:
        return
    there = matrix.copy()
    there[:, 2] += there[:, :2] @ np.array([left, top], dtype=float)
    region = ((right - left, bottom - top), Image.Transform.AFFINE, tuple(there.ravel()))
    new = (
        what.transform(*region, Image.Resampling.BICUBIC)
        if isinstance(what, Image.Image)
        else what(photo.crop((left, top, right, bottom)))
    )
    photo.paste(new, (left, top), mask.transform(*region, Image.Resampling.BILINEAR))


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

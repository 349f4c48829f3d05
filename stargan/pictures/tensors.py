"""Pictures to and from tensors, and many in one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_tensor(pictures: Sequence[Image.Image]) -> Tensor:
    """RGB pictures of one size → ``(N, 3, H, W)`` float in [-1, 1]."""
    arrays = np.stack([np.asarray(picture) for picture in pictures])
    return from_levels(torch.from_numpy(arrays).permute(0, 3, 1, 2))


def from_levels(levels: Tensor) -> Tensor:
    """uint8 → float in [-1, 1]."""
    return levels.float() / 127.5 - 1


def to_levels(x: Tensor) -> Tensor:
    """Float, clipped to [-1, 1] → uint8."""
    return ((x.detach().float().clamp(-1, 1) + 1) * 127.5).round().byte()


def to_grayscale(picture: Image.Image) -> Image.Image:
    """The luma of a picture in three equal channels."""
    return picture.convert("L").convert("RGB")


def to_pictures(tensor: Tensor) -> list[Image.Image]:
    """``(N, 3, H, W)`` float, clipped to [-1, 1] → RGB pictures."""
    arrays = to_levels(tensor).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(array) for array in arrays]


def grid(rows: Sequence[Sequence[Image.Image | None]], gap: int = 2) -> Image.Image:
    """One picture of rows of pictures; all cells have the size of the first picture, None leaves a cell white."""
    first = next(picture for row in rows for picture in row if picture is not None)
    width, height = first.size
    columns = max(len(row) for row in rows)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, len(rows) * (height + gap) - gap), "white")
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            if picture is not None:
                cell = (
                    picture
                    if picture.size == (width, height)
                    else picture.resize((width, height), Image.Resampling.LANCZOS)
                )
                sheet.paste(cell, (c * (width + gap), r * (height + gap)))
    return sheet


def digest(picture: Image.Image) -> str:
    """What a picture is known by: its pixels."""
    about = f"{picture.mode} {picture.size}".encode()
    return hashlib.blake2b(about + picture.tobytes(), digest_size=16).hexdigest()

"""Pictures from people: the one door for files that nobody vouches for."""

from __future__ import annotations

import io
import os
from contextlib import nullcontext, suppress
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from PIL import Image, ImageCms, ImageOps

from stargan.errors import PhotoError
from stargan.stages import stage

Photo = str | Path | bytes | BinaryIO | Image.Image

# The formats that phones, cameras and browsers make, with their files' endings. Others, such as EPS, would start other
# programs to be read.
FORMATS = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "HEIF": (".heic", ".heif"),
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
}
# What a folder is searched for.
SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
# What every browser shows.
SHOWN_SUFFIXES = SUFFIXES.difference(FORMATS["HEIF"], FORMATS["TIFF"])
MAX_BYTES = 50_000_000
MAX_PIXELS = 50_000_000
MIN_SIDE = 16


def open_photo(source: Photo) -> Image.Image:
    """An untrusted picture as RGB, turned as its EXIF says, transparency on white, the first frame of an animation.

    Args:
        source: a path, the file's bytes, an open binary file, or a picture of any mode.

    Raises:
        PhotoError: it is empty, no picture, broken, or too large or too small. Size is judged by the header, before
            decoding.
    """
    if isinstance(source, Image.Image):
        return _decoded(source)
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    try:
        size = os.stat(source).st_size if isinstance(source, str | Path) else source.seek(0, os.SEEK_END)
    except (OSError, ValueError) as error:
        raise PhotoError("photo_unreadable") from error
    if size == 0:
        raise PhotoError("photo_empty")
    if size > MAX_BYTES:
        raise PhotoError("photo_heavy", size=f"{size / 1e6:.0f}", limit=MAX_BYTES // 10**6)
    if not isinstance(source, str | Path):
        source.seek(0)
    try:
        picture = Image.open(source, formats=installed_formats())
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PhotoError("photo_bomb", limit=MAX_PIXELS // 10**6) from None
    except Exception as error:  # broken files raise nearly anything, struct.error and SyntaxError among them
        raise PhotoError("photo_broken" if _begins_as_picture(source) else "photo_kind") from error
    with picture:
        return _decoded(picture)


def _decoded(picture: Image.Image) -> Image.Image:
    _check_size(picture)
    try:
        with stage("open"):
            picture.load()
            _check_size(picture)  # HEIF may turn out to hold another size than it announced
            rgb = _to_rgb(_upright(picture))
    except PhotoError:
        raise
    except Exception as error:
        raise PhotoError("photo_broken") from error
    if rgb is picture:  # the caller's own stays as it is
        rgb = picture.copy()
    rgb.info.clear()  # place, camera and profile of the photo
    return rgb


@lru_cache(maxsize=1)
def installed_formats() -> list[str]:
    """Of :data:`FORMATS`, those that can be read here."""
    with suppress(ImportError):  # where models are only trained, it need not be installed
        from pillow_heif import register_heif_opener

        register_heif_opener()
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]  # Pillow has AVIF since 11.3, and not everywhere


def _begins_as_picture(source: str | Path | BinaryIO) -> bool:
    """Whether the first bytes are those of a format that can be read, so that what follows must be broken."""
    try:
        with open(source, "rb") if isinstance(source, str | Path) else nullcontext(source) as file:
            file.seek(0)
            prefix = file.read(16)
    except (OSError, ValueError):
        return False
    return any(accept(prefix) is True for _, accept in map(Image.OPEN.__getitem__, installed_formats()) if accept)


def _check_size(picture: Image.Image) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise PhotoError("photo_large", width=width, height=height, limit=MAX_PIXELS // 10**6)
    if min(width, height) < MIN_SIDE:
        raise PhotoError("photo_small", width=width, height=height, least=MIN_SIDE)


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # broken EXIF is no reason to refuse a picture that is whole
        return picture


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        return _spread(np.asarray(picture)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return _to_srgb(picture).convert("RGB")


def _spread(levels: np.ndarray) -> Image.Image:
    """32 bits a pixel and no agreed range: the picture's own becomes 0 to 255. By strips, as doubles take 8 bytes a pixel."""
    strips = [levels[row : row + 64] for row in range(0, len(levels), 64)]
    ends = [(wide.min(), wide.max()) for wide in map(_finite, strips)]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    scale = 255 / ((high - low) or 1)
    shown = np.empty(levels.shape, np.uint8)
    for row, strip in zip(range(0, len(levels), 64), strips, strict=True):
        shown[row : row + 64] = (_finite(strip) - low) * scale
    return Image.fromarray(shown)


def _finite(levels: np.ndarray) -> np.ndarray:
    return np.nan_to_num(levels.astype(np.float64))


def _to_srgb(picture: Image.Image) -> Image.Image:
    """By the picture's colour profile, where it has one: phones save wider gamuts than sRGB, print shops CMYK."""
    profile = picture.info.get("icc_profile")
    if not profile or picture.mode not in ("RGB", "L", "CMYK"):
        return picture
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return picture
        srgb = ImageCms.createProfile("sRGB")
        # None is what it gives where it changes the picture itself
        return cast(Image.Image, ImageCms.profileToProfile(picture, source, srgb, outputMode="RGB"))
    except Exception:  # a profile that is broken, or another kind of picture's: the levels are taken as they are
        return picture
